//! Tasks, queue and keys in one SQLite file: one writer thread that commits in groups, readers beside it.

mod folder;
mod keys;
mod queue;
mod reader;
mod rows;
mod schema;
mod tasks;
mod writer;

use crate::blobs::Blobs;
use crate::contract::{EventBus, KeyStore, StoreError, Stores};
use crate::events::Bus;
use domain::limits::{ATTEMPTS_MAX, KEY_TASKS_MAX, QUEUE_TASKS_MAX};
use folder::{DataFolder, Lock};
use reader::Readers;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use writer::Writer;

/// How long a lease lasts without a heartbeat, unless the options say otherwise.
pub const LEASE_MS_DEFAULT: i64 = 30_000;

/// Milliseconds since the Unix epoch.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

#[derive(Clone)]
pub struct StoreOptions {
    pub lease_ms: i64,
    /// How often a task is tried before it ends as failed.
    pub attempts_max: u32,
    /// Tasks queued or running, all keys together.
    pub queue_tasks_max: u64,
    /// Tasks queued or running for one key.
    pub owner_tasks_max: u64,
    pub clock: Clock,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            lease_ms: LEASE_MS_DEFAULT,
            attempts_max: ATTEMPTS_MAX,
            queue_tasks_max: QUEUE_TASKS_MAX,
            owner_tasks_max: KEY_TASKS_MAX,
            clock: Arc::new(system_clock),
        }
    }
}

/// Opens the data folder, creating it if need be, and holds it against other servers until the last clone of the
/// stores is dropped.
///
/// # Errors
/// [`StoreError::InUse`] while another process, or an earlier call, has it.
pub fn open(dir: &Path, options: StoreOptions) -> Result<Stores, StoreError> {
    let folder = DataFolder::create(dir)?;
    let lock = folder.lock()?;
    let blobs = Blobs::local(&folder.blobs()?)?;
    let events: Arc<dyn EventBus> = Arc::new(Bus::new());
    let database = Arc::new(Sqlite::open(&folder, Arc::clone(&events), options, Some(lock))?);
    Ok(Stores { tasks: database.clone(), queue: database.clone(), keys: database, blobs: Arc::new(blobs), events })
}

/// Opens only the keys, beside a server that may be running on the same folder.
pub fn open_keys(dir: &Path) -> Result<Arc<dyn KeyStore>, StoreError> {
    let folder = DataFolder::create(dir)?;
    let database = Sqlite::open(&folder, Arc::new(Bus::new()), StoreOptions::default(), None)?;
    Ok(Arc::new(database))
}

/// What is in a database, found sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contents {
    pub n_tasks: u64,
    /// Those that are not revoked.
    pub n_keys: u64,
}

/// Reads through the whole database, beside a server that may be running on the same folder; makes nothing. `None`: there
/// is no database yet.
///
/// # Errors
/// What is wrong with it: damaged pages or indexes, a newer schema, a folder that it was lost from.
pub fn inspect(dir: &Path) -> Result<Option<Contents>, StoreError> {
    let folder = DataFolder::existing(dir);
    let Some(path) = folder.existing_database()? else { return Ok(None) };
    let connection = schema::connect_existing(&path)?;
    let told: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if told != "ok" {
        return Err(StoreError::Database(told));
    }
    let count = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs);
    Ok(Some(Contents {
        n_tasks: count("SELECT count(*) FROM task")?,
        n_keys: count("SELECT count(*) FROM api_key WHERE revoked_ms IS NULL")?,
    }))
}

/// The database in all its roles. Fields are dropped in order: the lock goes when nobody can write any more.
struct Sqlite {
    readers: Readers,
    writer: Writer,
    options: Arc<StoreOptions>,
    _lock: Option<Lock>,
}

impl Sqlite {
    fn open(
        folder: &DataFolder,
        events: Arc<dyn EventBus>,
        options: StoreOptions,
        lock: Option<Lock>,
    ) -> Result<Self, StoreError> {
        let path = folder.database()?;
        let mut connection = schema::connect(&path)?;
        schema::migrate(&mut connection)?;
        let writer = Writer::start(connection, Arc::clone(&options.clock), events)?;
        Ok(Self { readers: Readers::new(path), writer, options: Arc::new(options), _lock: lock })
    }
}

fn system_clock() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.to_string())
    }
}
