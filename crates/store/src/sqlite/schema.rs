//! The tables, and how a database of an earlier version comes to have them.

use crate::contract::StoreError;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use std::path::Path;
use std::time::Duration;

/// How long a connection waits for another process's write.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Prepared statements that a connection keeps.
const STATEMENTS_MAX: usize = 64;

/// Each brings the schema from its index to the next version; a published one never changes.
const MIGRATIONS: [&str; 3] = [TASKS_AND_KEYS, CLASSES_OF_GPU, CONTROL_PICTURES];

const TASKS_AND_KEYS: &str = "
-- `seq` is the order of acceptance; AUTOINCREMENT, so that none is given out twice.
CREATE TABLE task (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    app TEXT NOT NULL,
    request TEXT NOT NULL,
    source TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued'
        CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    -- Only ever grows: the fencing token of leases.
    attempt INTEGER NOT NULL DEFAULT 0,
    -- Attempts that were given back; the others are spent.
    n_released INTEGER NOT NULL DEFAULT 0,
    -- Attempts whose worker died.
    n_died INTEGER NOT NULL DEFAULT 0,
    not_before_ms INTEGER NOT NULL DEFAULT 0,
    worker TEXT,
    lease_expires_ms INTEGER,
    cancel_requested INTEGER NOT NULL DEFAULT 0 CHECK (cancel_requested IN (0, 1)),
    step INTEGER,
    n_steps INTEGER,
    painting TEXT,
    fault TEXT,
    idempotency_key TEXT,
    body_sha256 BLOB,
    created_ms INTEGER NOT NULL,
    started_ms INTEGER,
    finished_ms INTEGER,
    CHECK ((state = 'running') = (worker IS NOT NULL)),
    CHECK ((state = 'running') = (lease_expires_ms IS NOT NULL)),
    CHECK ((state IN ('queued', 'running')) = (finished_ms IS NULL)),
    CHECK ((state = 'succeeded') = (painting IS NOT NULL)),
    CHECK ((state = 'failed') = (fault IS NOT NULL)),
    CHECK ((idempotency_key IS NULL) = (body_sha256 IS NULL))
) STRICT;

CREATE UNIQUE INDEX task_idempotency ON task (owner, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX task_queued ON task (seq, app, not_before_ms) WHERE state = 'queued';
CREATE INDEX task_running ON task (lease_expires_ms) WHERE state = 'running';
CREATE INDEX task_unfinished ON task (owner) WHERE finished_ms IS NULL;
CREATE INDEX task_finished ON task (finished_ms) WHERE finished_ms IS NOT NULL;
CREATE INDEX task_owner ON task (owner, seq);

-- The files that a task names: its source, its results.
CREATE TABLE task_file (
    key TEXT NOT NULL,
    task_seq INTEGER NOT NULL REFERENCES task (seq) ON DELETE CASCADE,
    PRIMARY KEY (key, task_seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX task_file_task ON task_file (task_seq);

CREATE TABLE api_key (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    secret_sha256 BLOB NOT NULL UNIQUE,
    created_ms INTEGER NOT NULL,
    revoked_ms INTEGER
) STRICT;
";

const CLASSES_OF_GPU: &str = "
-- NULL: the task runs on whatever there is.
ALTER TABLE task ADD COLUMN inference_type TEXT;
DROP INDEX task_queued;
CREATE INDEX task_queued ON task (seq, app, inference_type, not_before_ms) WHERE state = 'queued';
";

const CONTROL_PICTURES: &str = "
-- NULL: the app makes its own of the reference, or needs none.
ALTER TABLE task ADD COLUMN control TEXT;
";

/// A connection to a database that is there, in a version that this program knows; it writes nothing.
pub(super) fn connect_existing(path: &Path) -> Result<Connection, StoreError> {
    // WAL needs its companions even for reading, and these may have to be made.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "query_only", "on")?;
    let (found, known) = (version(&connection)?, MIGRATIONS.len() as i64);
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    Ok(connection)
}

/// A connection that waits for others, and whose commits are on the disk when they return.
pub(super) fn connect(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", "on")?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}

/// Brings the schema to the version that this program knows.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let known = MIGRATIONS.len() as i64;
    // Another process may be at the same work, so the version is read inside the transaction.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version(&transaction)?;
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    let pending = usize::try_from(found).map_err(|_| StoreError::Corrupt(format!("schema version {found}")))?;
    for migration in &MIGRATIONS[pending..] {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", known)?;
    transaction.commit()?;
    Ok(())
}

/// A write of the first page, which stays what it is.
pub(super) fn write_version_again(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "user_version", version(connection)?)
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_gets_the_schema_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let mut connection = connect(&path).unwrap();
        migrate(&mut connection).unwrap();
        assert_eq!(version(&connection).unwrap(), MIGRATIONS.len() as i64);
        connection
            .execute(
                "INSERT INTO task (id, owner, app, request, source, created_ms) VALUES ('a','b','c','{}','d',1)",
                [],
            )
            .unwrap();
        drop(connection);
        let mut connection = connect(&path).unwrap();
        migrate(&mut connection).unwrap();
        let n_tasks: i64 = connection.query_row("SELECT count(*) FROM task", [], |row| row.get(0)).unwrap();
        assert_eq!(n_tasks, 1);
    }

    #[test]
    fn an_earlier_schema_keeps_its_rows() {
        let dir = tempfile::tempdir().unwrap();
        let mut connection = connect(&dir.path().join("db")).unwrap();
        connection.execute_batch(MIGRATIONS[0]).unwrap();
        connection.pragma_update(None, "user_version", 1).unwrap();
        let sql = "INSERT INTO task (id, owner, app, request, source, created_ms) VALUES ('a','b','c','{}','d',1)";
        connection.execute(sql, []).unwrap();
        migrate(&mut connection).unwrap();
        assert_eq!(version(&connection).unwrap(), MIGRATIONS.len() as i64);
        let sql = "SELECT inference_type, control FROM task WHERE id = 'a'";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let (class, control): (Option<String>, Option<String>) = connection.query_row(sql, [], read).unwrap();
        assert_eq!((class, control), (None, None), "it runs on whatever there is, under what is made of its source");
    }

    #[test]
    fn a_newer_schema_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut connection = connect(&dir.path().join("db")).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        let error = migrate(&mut connection).unwrap_err();
        assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error}");
        assert_eq!(version(&connection).unwrap(), 99);
    }

    #[test]
    fn commits_are_synced() {
        let dir = tempfile::tempdir().unwrap();
        let connection = connect(&dir.path().join("db")).unwrap();
        let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        let synchronous: i64 = connection.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
        let foreign_keys: i64 = connection.pragma_query_value(None, "foreign_keys", |row| row.get(0)).unwrap();
        assert_eq!((mode.as_str(), synchronous, foreign_keys), ("wal", 2, 1));
    }
}
