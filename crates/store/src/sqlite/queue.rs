//! The worker's side: claim, prolong, settle, reap. Each settlement holds only for the attempt that it names.

use super::tasks::add_file;
use super::writer::Write;
use super::{Sqlite, StoreOptions, rows};
use crate::contract::{Heartbeat, Lease, LeaseId, Reaped, Retry, Settled, StoreError, TaskEvent, Wanted, WorkQueue};
use crate::record;
use async_trait::async_trait;
use domain::fault::{ErrorCode, Fault};
use domain::id::{AppId, TaskId, WorkerId};
use domain::task::{Painting, Progress, Task};
use rusqlite::{Connection, OptionalExtension, Params, Row, params};

#[async_trait]
impl WorkQueue for Sqlite {
    async fn claim(&self, worker: &WorkerId, wanted: &Wanted) -> Result<Option<Lease>, StoreError> {
        if wanted.apps.is_empty() {
            return Ok(None);
        }
        let wanted = Lists::of(wanted);
        let (worker, options) = (worker.clone(), self.options.clone());
        self.writer.run(move |write| claim(write, &worker, &wanted, &options)).await
    }

    async fn heartbeat(&self, lease: &LeaseId, progress: Option<Progress>) -> Result<Heartbeat, StoreError> {
        let (lease, options) = (lease.clone(), self.options.clone());
        self.writer.run(move |write| heartbeat(write, &lease, progress, &options)).await
    }

    async fn complete(&self, lease: &LeaseId, painting: Painting) -> Result<Settled, StoreError> {
        self.settle(lease, move |write, held| {
            for painted in &painting.images {
                add_file(write.connection, held.seq, &painted.image)?;
                add_file(write.connection, held.seq, &painted.thumbnail)?;
            }
            held.end(write, End::Succeeded(&painting))
        })
        .await
    }

    async fn fail(&self, lease: &LeaseId, fault: Fault, retry: Retry) -> Result<Settled, StoreError> {
        let attempts_max = self.options.attempts_max;
        self.settle(lease, move |write, held| match retry {
            _ if held.cancel_requested => held.end(write, End::Cancelled),
            Retry::Never => held.end(write, End::Failed(&fault)),
            Retry::AfterMs(pause_ms) if held.n_spent < attempts_max => {
                let pause_ms = i64::try_from(pause_ms).unwrap_or(i64::MAX);
                held.queue_again(write, write.now_ms.saturating_add(pause_ms))
            }
            Retry::AfterMs(_) => {
                let detail = format!("{} (tried {} times)", fault.detail, held.n_spent);
                held.end(write, End::Failed(&Fault { detail, ..fault }))
            }
        })
        .await
    }

    async fn cancelled(&self, lease: &LeaseId) -> Result<Settled, StoreError> {
        self.settle(lease, |write, held| held.end(write, End::Cancelled)).await
    }

    async fn release(&self, lease: &LeaseId) -> Result<Settled, StoreError> {
        self.settle(lease, |write, held| {
            if held.cancel_requested {
                return held.end(write, End::Cancelled);
            }
            let sql = "UPDATE task SET n_released = n_released + 1 WHERE seq = ?1";
            write.connection.prepare_cached(sql)?.execute([held.seq])?;
            held.queue_again(write, write.now_ms)?;
            write.tell(TaskEvent::Queued(held.task.clone()));
            Ok(())
        })
        .await
    }

    async fn reap(&self) -> Result<Reaped, StoreError> {
        let options = self.options.clone();
        self.writer.run(move |write| reap(write, write.now_ms, &options)).await
    }

    async fn reap_all(&self) -> Result<Reaped, StoreError> {
        let options = self.options.clone();
        self.writer.run(move |write| reap(write, i64::MAX, &options)).await
    }
}

impl Sqlite {
    /// Settles a lease, unless a newer attempt exists or the task is over.
    async fn settle(
        &self,
        lease: &LeaseId,
        how: impl FnOnce(&mut Write<'_>, &Held) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<Settled, StoreError> {
        let lease = lease.clone();
        let work = move |write: &mut Write<'_>| {
            let Some(held) = Held::by(write.connection, &lease)? else { return Ok(Settled::Lost) };
            how(write, &held)?;
            Ok(Settled::Done)
        };
        self.writer.run(work).await
    }
}

/// A running task, as its lease's owner may settle it.
struct Held {
    seq: i64,
    task: TaskId,
    cancel_requested: bool,
    /// Attempts that were not given back.
    n_spent: u32,
    /// Attempts whose worker died, before this one.
    n_died: u32,
}

enum End<'a> {
    Succeeded(&'a Painting),
    Failed(&'a Fault),
    Cancelled,
}

impl Held {
    const COLUMNS: &'static str = "seq, id, cancel_requested, attempt - n_released, n_died";

    /// `None`: the lease is lost.
    fn by(connection: &Connection, lease: &LeaseId) -> Result<Option<Self>, StoreError> {
        let sql = format!(
            "SELECT {} FROM task WHERE id = ?1 AND worker = ?2 AND attempt = ?3 AND state = 'running'",
            Self::COLUMNS
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let held = statement
            .query_row(params![lease.task.as_str(), lease.worker.as_str(), lease.attempt], Self::read)
            .optional()?;
        held.transpose()
    }

    fn expired(connection: &Connection, before_ms: i64) -> Result<Vec<Self>, StoreError> {
        let sql = format!(
            "SELECT {} FROM task WHERE state = 'running' AND lease_expires_ms <= ?1 ORDER BY seq",
            Self::COLUMNS
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let rows: Vec<Result<Self, StoreError>> =
            statement.query_map([before_ms], Self::read)?.collect::<Result<_, _>>()?;
        // A row that cannot be read must not keep the others from being taken over.
        let told = |error: &StoreError| tracing::error!(%error, "a running task cannot be taken over");
        Ok(rows.into_iter().filter_map(|row| row.inspect_err(told).ok()).collect())
    }

    fn read(row: &Row<'_>) -> rusqlite::Result<Result<Self, StoreError>> {
        let id: String = row.get(1)?;
        let Some(task) = TaskId::parse(&id) else {
            return Ok(Err(StoreError::Corrupt(format!("task {id}, field id"))));
        };
        Ok(Ok(Self {
            seq: row.get(0)?,
            task,
            cancel_requested: row.get(2)?,
            n_spent: row.get(3)?,
            n_died: row.get(4)?,
        }))
    }

    fn end(&self, write: &mut Write<'_>, end: End<'_>) -> Result<(), StoreError> {
        let (state, painting, fault) = match end {
            End::Succeeded(painting) => ("succeeded", Some(record::painting_to_json(painting)), None),
            End::Failed(fault) => ("failed", None, Some(record::fault_to_json(fault))),
            End::Cancelled => ("cancelled", None, None),
        };
        let sql = "UPDATE task SET state = ?2, painting = ?3, fault = ?4, finished_ms = ?5, worker = NULL,
                   lease_expires_ms = NULL WHERE seq = ?1";
        let values = params![self.seq, state, painting, fault, write.now_ms];
        write.connection.prepare_cached(sql)?.execute(values)?;
        write.tell(TaskEvent::Changed(self.task.clone()));
        Ok(())
    }

    fn queue_again(&self, write: &mut Write<'_>, not_before_ms: i64) -> Result<(), StoreError> {
        let sql = "UPDATE task SET state = 'queued', not_before_ms = ?2, worker = NULL, lease_expires_ms = NULL,
                   started_ms = NULL, step = NULL, n_steps = NULL WHERE seq = ?1";
        write.connection.prepare_cached(sql)?.execute(params![self.seq, not_before_ms])?;
        write.tell(TaskEvent::Changed(self.task.clone()));
        Ok(())
    }
}

/// What a claim wants, as JSON that SQL can look into.
struct Lists {
    apps: String,
    classes: String,
}

impl Lists {
    fn of(wanted: &Wanted) -> Self {
        let apps: Vec<&str> = wanted.apps.iter().map(AppId::as_str).collect();
        let classes: Vec<&str> = wanted.classes.iter().map(|class| class.as_str()).collect();
        let list = |names: Vec<&str>| serde_json::Value::from(names).to_string();
        Self { apps: list(apps), classes: list(classes) }
    }
}

fn claim(
    write: &mut Write<'_>,
    worker: &WorkerId,
    wanted: &Lists,
    options: &StoreOptions,
) -> Result<Option<Lease>, StoreError> {
    let expires_ms = write.now_ms.saturating_add(options.lease_ms);
    loop {
        let values = params![worker.as_str(), expires_ms, write.now_ms, wanted.apps, wanted.classes];
        let Some((seq, task)) = take_oldest(write.connection, values)? else { return Ok(None) };
        match task {
            Ok(task) => {
                write.tell(TaskEvent::Changed(task.id.clone()));
                let id = LeaseId { task: task.id.clone(), worker: worker.clone(), attempt: task.attempt };
                return Ok(Some(Lease { id, task }));
            }
            // A row that nobody can read would stand before all others for ever.
            Err(error) => {
                tracing::error!(%error, "a queued task cannot be read; it fails");
                end_unreadable(write, seq)?;
            }
        }
    }
}

/// Makes the oldest task that may run a running one, whether its row can be read or not.
#[expect(clippy::type_complexity, reason = "a row and what became of reading it")]
fn take_oldest(
    connection: &Connection,
    values: impl Params,
) -> Result<Option<(i64, Result<Task, StoreError>)>, StoreError> {
    let sql = format!(
        "UPDATE task SET state = 'running', attempt = attempt + 1, worker = ?1, lease_expires_ms = ?2, started_ms = ?3,
         step = NULL, n_steps = NULL
         WHERE seq = (SELECT seq FROM task
                      WHERE state = 'queued' AND not_before_ms <= ?3 AND app IN (SELECT value FROM json_each(?4))
                            AND (inference_type IS NULL OR inference_type IN (SELECT value FROM json_each(?5)))
                      ORDER BY seq LIMIT 1)
         RETURNING seq, {}",
        rows::COLUMNS
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = statement.query(values)?;
    let Some(row) = found.next()? else { return Ok(None) };
    Ok(Some((row.get("seq")?, rows::task(row))))
}

fn end_unreadable(write: &mut Write<'_>, seq: i64) -> Result<(), StoreError> {
    let fault = Fault::new(ErrorCode::Internal, "the stored task cannot be read");
    let sql = "UPDATE task SET state = 'failed', fault = ?2, finished_ms = ?3, worker = NULL, lease_expires_ms = NULL
               WHERE seq = ?1";
    let values = params![seq, record::fault_to_json(&fault), write.now_ms];
    write.connection.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

fn heartbeat(
    write: &mut Write<'_>,
    lease: &LeaseId,
    progress: Option<Progress>,
    options: &StoreOptions,
) -> Result<Heartbeat, StoreError> {
    let Some(held) = Held::by(write.connection, lease)? else { return Ok(Heartbeat::Lost) };
    let sql = "UPDATE task SET lease_expires_ms = ?2, step = coalesce(?3, step), n_steps = coalesce(?4, n_steps)
               WHERE seq = ?1";
    let expires_ms = write.now_ms.saturating_add(options.lease_ms);
    let (step, n_steps) = (progress.map(|progress| progress.step), progress.map(|progress| progress.n_steps));
    write.connection.prepare_cached(sql)?.execute(params![held.seq, expires_ms, step, n_steps])?;
    Ok(if held.cancel_requested { Heartbeat::Cancel } else { Heartbeat::Continue })
}

fn reap(write: &mut Write<'_>, expired_before_ms: i64, options: &StoreOptions) -> Result<Reaped, StoreError> {
    let mut reaped = Reaped::default();
    for held in Held::expired(write.connection, expired_before_ms)? {
        let n_died = held.n_died + 1;
        let sql = "UPDATE task SET n_died = ?2 WHERE seq = ?1";
        write.connection.prepare_cached(sql)?.execute(params![held.seq, n_died])?;
        if held.cancel_requested {
            held.end(write, End::Cancelled)?;
        } else if held.n_spent < options.attempts_max {
            held.queue_again(write, write.now_ms)?;
            write.tell(TaskEvent::Queued(held.task.clone()));
            reaped.requeued += 1;
        } else {
            let detail = format!("the worker died while painting, {n_died} times in {} attempts", held.n_spent);
            held.end(write, End::Failed(&Fault::new(ErrorCode::Failed, detail)))?;
            reaped.failed += 1;
        }
    }
    Ok(reaped)
}
