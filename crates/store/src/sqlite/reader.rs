//! Reading beside the writer: WAL gives each query the last committed state.

use super::schema;
use crate::contract::StoreError;
use rusqlite::Connection;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// Queries that run at once; more wait for their turn.
const READERS_MAX: usize = 4;

pub(super) struct Readers {
    permits: Arc<Semaphore>,
    idle: Arc<Idle>,
}

/// Connections that nobody uses just now.
struct Idle {
    path: PathBuf,
    connections: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        let idle = Idle { path, connections: Mutex::default() };
        Self { permits: Arc::new(Semaphore::new(READERS_MAX)), idle: Arc::new(idle) }
    }

    /// Runs a query on a thread that may block.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.expect("never closed, this is a bug");
        let idle = Arc::clone(&self.idle);
        let answer = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let connection = idle.take()?;
            let answer = query(&connection);
            idle.put_back(connection);
            answer
        });
        answer.await.map_err(|error| StoreError::Database(format!("a query did not end: {error}")))?
    }
}

impl Idle {
    fn take(&self) -> Result<Connection, StoreError> {
        let idle = self.connections.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(connection) = idle {
            return Ok(connection);
        }
        let connection = schema::connect(&self.path)?;
        connection.pragma_update(None, "query_only", "on")?;
        Ok(connection)
    }

    fn put_back(&self, connection: Connection) {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }
}
