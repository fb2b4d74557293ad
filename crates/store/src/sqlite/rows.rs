//! Rows of the task table: which columns make a task, and what to say of a row that makes none.

use crate::contract::StoreError;
use crate::record;
use domain::id::{BlobKey, KeyId, TaskId};
use domain::task::{Progress, Task, TaskState};
use rusqlite::types::FromSql;
use rusqlite::{Connection, Params, Row};

/// What [`task`] reads.
pub(super) const COLUMNS: &str = "id, owner, request, source, control, state, attempt, cancel_requested, step, n_steps, \
     painting, fault, created_ms, started_ms, finished_ms";

/// Finds at most one task; the query selects or returns [`COLUMNS`].
pub(super) fn find(connection: &Connection, sql: &str, params: impl Params) -> Result<Option<Task>, StoreError> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    rows.next()?.map(task).transpose()
}

/// All tasks of a query that selects [`COLUMNS`], but for rows that cannot be read: one must not hide the others.
pub(super) fn all(connection: &Connection, sql: &str, params: impl Params) -> Result<Vec<Task>, StoreError> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let mut tasks = Vec::new();
    while let Some(row) = rows.next()? {
        match task(row) {
            Ok(task) => tasks.push(task),
            Err(error) => tracing::error!(%error, "a task is left out of a list"),
        }
    }
    Ok(tasks)
}

/// Reads a task, or says which field of which task cannot be read.
pub(super) fn task(row: &Row<'_>) -> Result<Task, StoreError> {
    let id: String = row.get("id")?;
    let fields = Fields { row, id: &id };
    Ok(Task {
        id: fields.parsed("id", TaskId::parse)?,
        owner: fields.parsed("owner", KeyId::parse)?,
        request: fields.json("request", record::request_from_json)?,
        source: fields.parsed("source", BlobKey::parse)?,
        control: fields.parsed_if_any("control", BlobKey::parse)?,
        state: fields.state()?,
        attempt: fields.get("attempt")?,
        progress: fields.progress()?,
        cancel_requested: fields.get("cancel_requested")?,
        created_ms: fields.get("created_ms")?,
        started_ms: fields.get("started_ms")?,
        finished_ms: fields.get("finished_ms")?,
    })
}

/// The columns of one row; errors name the task and the column, never the value.
struct Fields<'a> {
    row: &'a Row<'a>,
    id: &'a str,
}

impl Fields<'_> {
    fn get<T: FromSql>(&self, column: &str) -> Result<T, StoreError> {
        self.row.get(column).map_err(|_| self.corrupt(column))
    }

    fn parsed<T>(&self, column: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, StoreError> {
        let text: String = self.get(column)?;
        parse(&text).ok_or_else(|| self.corrupt(column))
    }

    fn parsed_if_any<T>(&self, column: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, StoreError> {
        let text: Option<String> = self.get(column)?;
        text.map(|text| parse(&text).ok_or_else(|| self.corrupt(column))).transpose()
    }

    fn json<T>(&self, column: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Result<T, StoreError> {
        let text: String = self.get(column)?;
        read(&text).map_err(|field| self.corrupt(&field))
    }

    fn state(&self) -> Result<TaskState, StoreError> {
        let state: String = self.get("state")?;
        match state.as_str() {
            "queued" => Ok(TaskState::Queued),
            "running" => Ok(TaskState::Running),
            "succeeded" => Ok(TaskState::Succeeded(self.json("painting", record::painting_from_json)?)),
            "failed" => Ok(TaskState::Failed(self.json("fault", record::fault_from_json)?)),
            "cancelled" => Ok(TaskState::Cancelled),
            _ => Err(self.corrupt("state")),
        }
    }

    fn progress(&self) -> Result<Option<Progress>, StoreError> {
        let step: Option<u32> = self.get("step")?;
        let n_steps: Option<u32> = self.get("n_steps")?;
        Ok(step.zip(n_steps).map(|(step, n_steps)| Progress { step, n_steps }))
    }

    fn corrupt(&self, field: &str) -> StoreError {
        StoreError::Corrupt(format!("task {}, field {field}", self.id))
    }
}
