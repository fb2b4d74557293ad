//! The client's side: submit, look, cancel, forget.

use super::writer::Write;
use super::{Sqlite, StoreOptions, rows, schema};
use crate::contract::{Depth, Idempotency, NewTask, StoreError, Submission, TaskEvent, TaskStore};
use crate::record;
use async_trait::async_trait;
use domain::id::{BlobKey, KeyId, TaskId};
use domain::request::InferenceType;
use domain::task::{Task, TaskState};
use rusqlite::{Connection, OptionalExtension, Row, params};

/// Tasks of one page, whatever a caller asks for.
const LIST_TASKS_MAX: u32 = 1000;
/// Tasks that one transaction forgets, so that purging never holds up the others for long.
const PURGE_TASKS_MAX: u32 = 200;
const IS_NAMED: &str = "SELECT EXISTS (SELECT 1 FROM task_file WHERE key = ?1)";

#[async_trait]
impl TaskStore for Sqlite {
    async fn submit(&self, task: NewTask) -> Result<Submission, StoreError> {
        let options = self.options.clone();
        // Here, because the writer serves everybody.
        let request = record::request_to_json(&task.request);
        self.writer.run(move |write| submit(write, &task, &request, &options)).await
    }

    async fn remembered(&self, owner: &KeyId, idempotency: &Idempotency) -> Result<Option<Submission>, StoreError> {
        let (owner, idempotency) = (owner.clone(), idempotency.clone());
        self.readers.run(move |connection| remembered(connection, &owner, &idempotency)).await
    }

    async fn refusal(&self, owner: &KeyId) -> Result<Option<Submission>, StoreError> {
        let (owner, options) = (owner.clone(), self.options.clone());
        self.readers.run(move |connection| refusal(connection, &owner, &options)).await
    }

    async fn get(&self, id: &TaskId) -> Result<Option<Task>, StoreError> {
        let id = id.clone();
        self.readers.run(move |connection| get(connection, &id)).await
    }

    async fn list(&self, owner: &KeyId, n_max: u32, before: Option<&TaskId>) -> Result<Vec<Task>, StoreError> {
        let page = Page { owner: owner.clone(), n_max: n_max.min(LIST_TASKS_MAX), before: before.cloned() };
        self.readers.run(move |connection| list(connection, &page)).await
    }

    async fn cancel(&self, id: &TaskId) -> Result<Option<Task>, StoreError> {
        let id = id.clone();
        self.writer.run(move |write| cancel(write, &id)).await
    }

    async fn depth(&self) -> Result<Depth, StoreError> {
        self.readers.run(depth).await
    }

    async fn try_to_write(&self) -> Result<(), StoreError> {
        self.writer.run(|write| Ok(schema::write_version_again(write.connection)?)).await
    }

    async fn position(&self, id: &TaskId) -> Result<Option<u64>, StoreError> {
        let id = id.clone();
        self.readers.run(move |connection| position(connection, &id)).await
    }

    async fn unnamed(&self, files: Vec<BlobKey>) -> Result<Vec<BlobKey>, StoreError> {
        self.readers.run(move |connection| unnamed(connection, files)).await
    }

    async fn purge(&self, finished_before_ms: i64) -> Result<Vec<BlobKey>, StoreError> {
        let mut orphans = Vec::new();
        loop {
            let purged = self.writer.run(move |write| purge_some(write, finished_before_ms)).await?;
            orphans.extend(purged.orphans);
            if purged.n_tasks < PURGE_TASKS_MAX as usize {
                return Ok(orphans);
            }
        }
    }
}

struct Page {
    owner: KeyId,
    n_max: u32,
    before: Option<TaskId>,
}

struct Purged {
    n_tasks: usize,
    orphans: Vec<BlobKey>,
}

fn submit(
    write: &mut Write<'_>,
    task: &NewTask,
    request: &str,
    options: &StoreOptions,
) -> Result<Submission, StoreError> {
    if let Some(idempotency) = &task.idempotency
        && let Some(earlier) = remembered(write.connection, &task.owner, idempotency)?
    {
        return Ok(earlier);
    }
    if let Some(refusal) = refusal(write.connection, &task.owner, options)? {
        return Ok(refusal);
    }
    let mut insert = write.connection.prepare_cached(
        "INSERT INTO task
             (id, owner, app, request, source, control, idempotency_key, body_sha256, created_ms, inference_type)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    let seq = insert.insert(params![
        task.id.as_str(),
        task.owner.as_str(),
        task.request.app.as_str(),
        request,
        task.source.as_str(),
        task.control.as_ref().map(BlobKey::as_str),
        task.idempotency.as_ref().map(|idempotency| &idempotency.key),
        task.idempotency.as_ref().map(|idempotency| idempotency.body_sha256),
        task.now_ms,
        task.request.inference_type.map(InferenceType::as_str),
    ])?;
    for file in std::iter::once(&task.source).chain(&task.control) {
        add_file(write.connection, seq, file)?;
    }
    write.tell(TaskEvent::Queued(task.id.clone()));
    Ok(Submission::Accepted(Task {
        id: task.id.clone(),
        owner: task.owner.clone(),
        request: task.request.clone(),
        source: task.source.clone(),
        control: task.control.clone(),
        state: TaskState::Queued,
        attempt: 0,
        progress: None,
        cancel_requested: false,
        created_ms: task.now_ms,
        started_ms: None,
        finished_ms: None,
    }))
}

/// What the same idempotency key led to before, if it came before.
fn remembered(
    connection: &Connection,
    owner: &KeyId,
    idempotency: &Idempotency,
) -> Result<Option<Submission>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT id, body_sha256 FROM task WHERE owner = ?1 AND idempotency_key = ?2")?;
    let found: Option<(String, Vec<u8>)> = statement
        .query_row(params![owner.as_str(), idempotency.key], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((id, body_sha256)) = found else { return Ok(None) };
    if body_sha256 != idempotency.body_sha256 {
        return Ok(Some(Submission::Conflict));
    }
    let sql = format!("SELECT {} FROM task WHERE id = ?1", rows::COLUMNS);
    Ok(rows::find(connection, &sql, [id])?.map(Submission::Existing))
}

fn refusal(connection: &Connection, owner: &KeyId, options: &StoreOptions) -> Result<Option<Submission>, StoreError> {
    let (all, own) = unfinished(connection, owner)?;
    Ok(match () {
        () if own >= options.owner_tasks_max => Some(Submission::OwnerFull),
        () if all >= options.queue_tasks_max => Some(Submission::QueueFull),
        () => None,
    })
}

/// How many tasks are queued or running: all, and this owner's.
fn unfinished(connection: &Connection, owner: &KeyId) -> Result<(u64, u64), StoreError> {
    let sql = "SELECT count(*), count(*) FILTER (WHERE owner = ?1) FROM task WHERE finished_ms IS NULL";
    let mut statement = connection.prepare_cached(sql)?;
    Ok(statement.query_row([owner.as_str()], |row| Ok((count(row, 0)?, count(row, 1)?)))?)
}

/// Notes that a task names a file, so that purging can tell when nobody does any more.
pub(super) fn add_file(connection: &Connection, seq: i64, key: &BlobKey) -> Result<(), StoreError> {
    let sql = "INSERT OR IGNORE INTO task_file (key, task_seq) VALUES (?1, ?2)";
    connection.prepare_cached(sql)?.execute(params![key.as_str(), seq])?;
    Ok(())
}

fn get(connection: &Connection, id: &TaskId) -> Result<Option<Task>, StoreError> {
    rows::find(connection, &format!("SELECT {} FROM task WHERE id = ?1", rows::COLUMNS), [id.as_str()])
}

fn list(connection: &Connection, page: &Page) -> Result<Vec<Task>, StoreError> {
    let columns = rows::COLUMNS;
    let owner = page.owner.as_str();
    let Some(before) = &page.before else {
        let sql = format!("SELECT {columns} FROM task WHERE owner = ?1 ORDER BY seq DESC LIMIT ?2");
        return rows::all(connection, &sql, params![owner, page.n_max]);
    };
    let sql = format!(
        "SELECT {columns} FROM task
         WHERE owner = ?1 AND seq < (SELECT seq FROM task WHERE id = ?3 AND owner = ?1)
         ORDER BY seq DESC LIMIT ?2"
    );
    rows::all(connection, &sql, params![owner, page.n_max, before.as_str()])
}

fn cancel(write: &mut Write<'_>, id: &TaskId) -> Result<Option<Task>, StoreError> {
    let end_queued = "UPDATE task SET state = 'cancelled', cancel_requested = 1, finished_ms = ?2
                      WHERE id = ?1 AND state = 'queued'";
    let ask_running = "UPDATE task SET cancel_requested = 1 WHERE id = ?1 AND state = 'running'";
    let mut n_changed = write.connection.prepare_cached(end_queued)?.execute(params![id.as_str(), write.now_ms])?;
    if n_changed == 0 {
        n_changed = write.connection.prepare_cached(ask_running)?.execute([id.as_str()])?;
    }
    if n_changed > 0 {
        write.tell(TaskEvent::Changed(id.clone()));
    }
    get(write.connection, id)
}

fn depth(connection: &Connection) -> Result<Depth, StoreError> {
    let sql = "SELECT count(*) FILTER (WHERE state = 'queued'), count(*) FILTER (WHERE state = 'running')
               FROM task WHERE finished_ms IS NULL";
    let depth = connection
        .prepare_cached(sql)?
        .query_row([], |row| Ok(Depth { queued: count(row, 0)?, running: count(row, 1)? }))?;
    Ok(depth)
}

fn position(connection: &Connection, id: &TaskId) -> Result<Option<u64>, StoreError> {
    let sql = "SELECT (SELECT count(*) FROM task AS earlier WHERE earlier.state = 'queued' AND earlier.seq < task.seq)
               FROM task WHERE id = ?1 AND state = 'queued'";
    Ok(connection.prepare_cached(sql)?.query_row([id.as_str()], |row| count(row, 0)).optional()?)
}

/// SQLite counts in signed numbers.
fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::unsigned_abs)
}

fn purge_some(write: &mut Write<'_>, finished_before_ms: i64) -> Result<Purged, StoreError> {
    let connection = write.connection;
    let mut old =
        connection.prepare_cached("SELECT seq FROM task WHERE finished_ms < ?1 ORDER BY finished_ms LIMIT ?2")?;
    let seqs: Vec<i64> =
        old.query_map(params![finished_before_ms, PURGE_TASKS_MAX], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut files = connection.prepare_cached("SELECT key FROM task_file WHERE task_seq = ?1")?;
    let mut forget = connection.prepare_cached("DELETE FROM task WHERE seq = ?1")?;
    let mut is_named = connection.prepare_cached(IS_NAMED)?;
    let mut orphans = Vec::new();
    for seq in &seqs {
        let keys: Vec<String> = files.query_map([seq], |row| row.get(0))?.collect::<Result<_, _>>()?;
        forget.execute([seq])?;
        for key in keys {
            if !is_named.query_row([&key], |row| row.get::<_, bool>(0))? {
                orphans.extend(BlobKey::parse(&key));
            }
        }
    }
    Ok(Purged { n_tasks: seqs.len(), orphans })
}

fn unnamed(connection: &Connection, files: Vec<BlobKey>) -> Result<Vec<BlobKey>, StoreError> {
    let mut is_named = connection.prepare_cached(IS_NAMED)?;
    let mut unnamed = Vec::new();
    for key in files {
        if !is_named.query_row([key.as_str()], |row| row.get::<_, bool>(0))? {
            unnamed.push(key);
        }
    }
    Ok(unnamed)
}
