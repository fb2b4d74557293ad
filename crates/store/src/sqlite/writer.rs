//! The one thread that writes. It takes all commands that wait, runs them in one transaction, a savepoint each, and
//! answers when the commit is on the disk: many callers share one sync.

use super::Clock;
use crate::contract::{EventBus, StoreError, TaskEvent};
use rusqlite::Connection;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// Commands that may wait; further callers wait for a place.
const COMMANDS_MAX: usize = 1024;
/// Commands of one transaction, so that no caller waits long behind the others.
const GROUP_MAX: usize = 256;

/// Hands commands to the thread; dropping it waits until the last of them is committed.
pub(super) struct Writer {
    commands: Option<mpsc::Sender<Box<dyn Command>>>,
    thread: Option<JoinHandle<()>>,
}

/// What a command sees of its transaction.
pub(super) struct Write<'a> {
    pub(super) connection: &'a Connection,
    pub(super) now_ms: i64,
    /// Published once the transaction is committed.
    events: &'a mut Vec<TaskEvent>,
}

impl Write<'_> {
    pub(super) fn tell(&mut self, event: TaskEvent) {
        self.events.push(event);
    }
}

impl Writer {
    pub(super) fn start(connection: Connection, clock: Clock, events: Arc<dyn EventBus>) -> Result<Self, StoreError> {
        let (sender, commands) = mpsc::channel(COMMANDS_MAX);
        let thread = WriterThread { connection, clock, events, commands };
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(|| thread.serve())
            .map_err(|error| StoreError::Database(format!("no thread for writing: {error}")))?;
        Ok(Self { commands: Some(sender), thread: Some(thread) })
    }

    /// Runs a command; durable when this returns. Its error undoes it, and it alone.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Write<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let stopped = || StoreError::Database("the writer has stopped".to_owned());
        let (reply, answer) = oneshot::channel();
        let job = Job { work: Some(work), outcome: None, reply };
        let commands = self.commands.as_ref().ok_or_else(stopped)?;
        commands.send(Box::new(job)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

struct WriterThread {
    connection: Connection,
    clock: Clock,
    events: Arc<dyn EventBus>,
    commands: mpsc::Receiver<Box<dyn Command>>,
}

impl WriterThread {
    fn serve(mut self) {
        while let Some(first) = self.commands.blocking_recv() {
            let mut group = vec![first];
            while group.len() < GROUP_MAX {
                let Ok(next) = self.commands.try_recv() else { break };
                group.push(next);
            }
            self.commit(group);
        }
    }

    fn commit(&self, mut group: Vec<Box<dyn Command>>) {
        let committed = self.transact(&mut group);
        let failure = committed.as_ref().err().map(ToString::to_string);
        if let Some(failure) = &failure {
            tracing::error!(error = %failure, commands = group.len(), "a transaction failed");
        }
        for event in committed.into_iter().flatten() {
            self.events.publish(event);
        }
        for command in group {
            command.answer(failure.as_deref());
        }
    }

    fn transact(&self, group: &mut [Box<dyn Command>]) -> rusqlite::Result<Vec<TaskEvent>> {
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let committed = self.apply(group).and_then(|events| {
            self.connection.execute_batch("COMMIT")?;
            Ok(events)
        });
        // Some failures (a full disk) have rolled back already.
        if committed.is_err() && !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK")?;
        }
        committed
    }

    fn apply(&self, group: &mut [Box<dyn Command>]) -> rusqlite::Result<Vec<TaskEvent>> {
        let now_ms = (self.clock)();
        let mut events = Vec::new();
        for command in group {
            let n_events = events.len();
            self.connection.execute_batch("SAVEPOINT command")?;
            let mut write = Write { connection: &self.connection, now_ms, events: &mut events };
            if command.apply(&mut write) == Verdict::Undo {
                events.truncate(n_events);
                self.connection.execute_batch("ROLLBACK TO command")?;
            }
            self.connection.execute_batch("RELEASE command")?;
        }
        Ok(events)
    }
}

/// A command without its types: applied inside the transaction, answered after the commit.
trait Command: Send {
    fn apply(&mut self, write: &mut Write<'_>) -> Verdict;
    fn answer(self: Box<Self>, failure: Option<&str>);
}

#[derive(PartialEq, Eq)]
enum Verdict {
    Keep,
    Undo,
}

struct Job<T, W> {
    work: Option<W>,
    outcome: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, W> Command for Job<T, W>
where
    T: Send,
    W: FnOnce(&mut Write<'_>) -> Result<T, StoreError> + Send,
{
    fn apply(&mut self, write: &mut Write<'_>) -> Verdict {
        let work = self.work.take().expect("applied once, this is a bug");
        // A bug in one command must not take the thread from all the others.
        let outcome = catch_unwind(AssertUnwindSafe(|| work(write)))
            .unwrap_or_else(|_| Err(StoreError::Database("a command panicked".to_owned())));
        let verdict = if outcome.is_ok() { Verdict::Keep } else { Verdict::Undo };
        self.outcome = Some(outcome);
        verdict
    }

    fn answer(self: Box<Self>, failure: Option<&str>) {
        let answer = match (self.outcome, failure) {
            (Some(Err(error)), _) => Err(error),
            (_, Some(failure)) => Err(StoreError::Database(failure.to_owned())),
            (Some(Ok(outcome)), None) => Ok(outcome),
            (None, None) => Err(StoreError::Database("a command was not run".to_owned())),
        };
        // The caller may have gone; what it asked for has happened all the same.
        let _ = self.reply.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Bus;
    use domain::id::TaskId;

    fn writer() -> (Writer, Arc<dyn EventBus>) {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE n (value INTEGER NOT NULL UNIQUE)").unwrap();
        let events: Arc<dyn EventBus> = Arc::new(Bus::new());
        (Writer::start(connection, Arc::new(|| 1), Arc::clone(&events)).unwrap(), events)
    }

    async fn insert(writer: &Writer, value: i64) -> Result<(), StoreError> {
        let work = move |write: &mut Write<'_>| {
            write.tell(TaskEvent::Changed(TaskId::from_random([value as u8; 16])));
            write.connection.execute("INSERT INTO n VALUES (?1)", [value])?;
            Ok(())
        };
        writer.run(work).await
    }

    async fn sum(writer: &Writer) -> i64 {
        let query = "SELECT coalesce(sum(value), 0) FROM n";
        writer.run(move |write| Ok(write.connection.query_row(query, [], |row| row.get(0))?)).await.unwrap()
    }

    #[tokio::test]
    async fn a_failing_command_is_undone_alone() {
        let (writer, events) = writer();
        let mut news = events.subscribe();
        // One poll each puts all three into the channel before the thread can have answered.
        let (first, twin, second) = tokio::join!(insert(&writer, 1), insert(&writer, 1), insert(&writer, 2));
        assert!(first.is_ok() && second.is_ok());
        assert!(matches!(twin, Err(StoreError::Database(_))));
        assert_eq!(sum(&writer).await, 3);
        let told: Vec<TaskEvent> = std::iter::from_fn(|| news.try_recv().ok()).collect();
        let changed = |value| TaskEvent::Changed(TaskId::from_random([value; 16]));
        assert_eq!(told, [changed(1), changed(2)]);
    }

    #[tokio::test]
    async fn a_panic_is_one_caller_s_error() {
        let (writer, _) = writer();
        let work = |write: &mut Write<'_>| -> Result<(), StoreError> {
            write.connection.execute("INSERT INTO n VALUES (5)", [])?;
            panic!("a bug");
        };
        assert!(writer.run(work).await.is_err());
        assert_eq!(sum(&writer).await, 0);
    }

    #[tokio::test]
    async fn a_transaction_that_cannot_begin_fails_its_callers_and_nobody_else() {
        let (writer, _) = writer();
        let breaking = |write: &mut Write<'_>| Ok(write.connection.execute_batch("ROLLBACK")?);
        assert!(writer.run(breaking).await.is_err());
        insert(&writer, 4).await.unwrap();
        assert_eq!(sum(&writer).await, 4);
    }

    #[tokio::test]
    async fn dropping_waits_for_what_was_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("CREATE TABLE n (value INTEGER NOT NULL UNIQUE)").unwrap();
        let writer = Writer::start(connection, Arc::new(|| 1), Arc::new(Bus::new())).unwrap();
        {
            let mut abandoned = Box::pin(insert(&writer, 9));
            // Polled once: sent, but not waited for.
            assert!(futures_poll(&mut abandoned).await);
        }
        drop(writer);
        let kept: i64 =
            Connection::open(&path).unwrap().query_row("SELECT value FROM n", [], |row| row.get(0)).unwrap();
        assert_eq!(kept, 9);
    }

    /// Polls once, whatever comes of it.
    async fn futures_poll(future: &mut (impl Future + Unpin)) -> bool {
        std::future::poll_fn(|context| {
            let _ = std::pin::Pin::new(&mut *future).poll(context);
            std::task::Poll::Ready(true)
        })
        .await
    }
}
