//! Any sequence of calls against a model of the queue that is short enough to be right by inspection.

use crate::support::{
    ATTEMPTS_MAX, Bench, LEASE_MS, idempotency, new_task, owner, painting, request, task_id, wanted, worker,
};
use domain::fault::{ErrorCode, Fault};
use domain::task::Progress;
use proptest::prelude::*;
use store::contract::{Depth, Heartbeat, LeaseId, NewTask, Reaped, Retry, Settled, Submission};
use store::sqlite;

const APPS: [&str; 2] = ["a", "b"];
const QUEUE_TASKS_MAX: usize = 6;
const OWNER_TASKS_MAX: usize = 4;

#[derive(Clone, Debug)]
enum Call {
    Submit { owner: u8, app: usize, key: Option<(u8, u8)> },
    Claim { worker: u8, app: Option<usize> },
    Heartbeat { lease: usize, progress: Option<u32> },
    Complete { lease: usize },
    Fail { lease: usize, pause_ms: Option<u64> },
    Cancelled { lease: usize },
    Release { lease: usize },
    Cancel { task: usize },
    Reap,
    ReapAll,
    Advance { ms: i64 },
    Purge { age_ms: i64 },
    Reopen,
}

fn call() -> impl Strategy<Value = Call> {
    let key = proptest::option::of((0..3u8, 0..2u8));
    let lease = 0..100usize;
    prop_oneof![
        8 => (1..3u8, 0..2usize, key).prop_map(|(owner, app, key)| Call::Submit { owner, app, key }),
        8 => (1..3u8, proptest::option::of(0..2usize)).prop_map(|(worker, app)| Call::Claim { worker, app }),
        3 => (lease.clone(), proptest::option::of(0..9u32))
            .prop_map(|(lease, progress)| Call::Heartbeat { lease, progress }),
        3 => lease.clone().prop_map(|lease| Call::Complete { lease }),
        3 => (lease.clone(), proptest::option::of(0..2000u64))
            .prop_map(|(lease, pause_ms)| Call::Fail { lease, pause_ms }),
        1 => lease.clone().prop_map(|lease| Call::Cancelled { lease }),
        2 => lease.prop_map(|lease| Call::Release { lease }),
        2 => (0..100usize).prop_map(|task| Call::Cancel { task }),
        2 => Just(Call::Reap),
        1 => Just(Call::ReapAll),
        4 => (1..2 * LEASE_MS).prop_map(|ms| Call::Advance { ms }),
        1 => (0..LEASE_MS).prop_map(|age_ms| Call::Purge { age_ms }),
        1 => Just(Call::Reopen),
    ]
}

/// A task as the model sees it. `state` is `queued`, `running` or an end.
#[derive(Clone, Debug)]
struct Entry {
    n: u8,
    owner: u8,
    app: usize,
    key: Option<(u8, u8)>,
    state: &'static str,
    worker: u8,
    attempt: u32,
    n_released: u32,
    not_before_ms: i64,
    expires_ms: i64,
    cancel_requested: bool,
    step: Option<u32>,
    finished_ms: Option<i64>,
}

impl Entry {
    fn finish(&mut self, state: &'static str, now_ms: i64) {
        (self.state, self.finished_ms) = (state, Some(now_ms));
    }

    fn queue_again(&mut self, not_before_ms: i64) {
        (self.state, self.not_before_ms, self.step) = ("queued", not_before_ms, None);
    }

    fn retry(&mut self, now_ms: i64, pause_ms: i64) {
        if self.cancel_requested {
            self.finish("cancelled", now_ms);
        } else if self.attempt - self.n_released < ATTEMPTS_MAX {
            self.queue_again(now_ms + pause_ms);
        } else {
            self.finish("failed", now_ms);
        }
    }
}

struct Lockstep {
    bench: Bench,
    tasks: Vec<Entry>,
    leases: Vec<LeaseId>,
    n_submitted: u8,
}

impl Lockstep {
    fn new() -> Self {
        let bench = Bench::with(|options| {
            options.queue_tasks_max = QUEUE_TASKS_MAX as u64;
            options.owner_tasks_max = OWNER_TASKS_MAX as u64;
        });
        Self { bench, tasks: Vec::new(), leases: Vec::new(), n_submitted: 0 }
    }

    async fn run(&mut self, call: Call) {
        let now_ms = self.bench.now_ms();
        match call {
            Call::Submit { owner, app, key } => self.submit(owner, app, key).await,
            Call::Claim { worker, app } => self.claim(worker, app).await,
            Call::Heartbeat { lease, progress } => self.heartbeat(lease, progress).await,
            Call::Complete { .. } | Call::Fail { .. } | Call::Cancelled { .. } | Call::Release { .. } => {
                self.settle(&call).await;
            }
            Call::Cancel { task } => self.cancel(task).await,
            Call::Reap => self.reap(now_ms).await,
            Call::ReapAll => self.reap(i64::MAX).await,
            Call::Advance { ms } => self.bench.advance(ms),
            Call::Purge { age_ms } => {
                self.bench.stores.tasks.purge(now_ms - age_ms).await.unwrap();
                self.tasks.retain(|task| task.finished_ms.is_none_or(|finished_ms| finished_ms >= now_ms - age_ms));
            }
            Call::Reopen => self.reopen(),
        }
    }

    async fn submit(&mut self, owner_n: u8, app_idx: usize, key: Option<(u8, u8)>) {
        self.n_submitted += 1;
        let n = self.n_submitted;
        let new = NewTask {
            owner: owner(owner_n),
            request: request(APPS[app_idx]),
            idempotency: key.map(|(key, body)| idempotency(&key.to_string(), body)),
            now_ms: self.bench.now_ms(),
            ..new_task(n)
        };
        let answer = self.bench.stores.tasks.submit(new).await.unwrap();
        let twin = self.tasks.iter().find(|task| {
            task.owner == owner_n && key.is_some() && task.key.map(|(name, _)| name) == key.map(|(name, _)| name)
        });
        let unfinished = |task: &&Entry| task.finished_ms.is_none();
        let n_all = self.tasks.iter().filter(unfinished).count();
        let n_own = self.tasks.iter().filter(unfinished).filter(|task| task.owner == owner_n).count();
        match (answer, twin) {
            (Submission::Existing(task), Some(twin)) => {
                assert_eq!((task.id, key), (task_id(twin.n), twin.key));
            }
            (Submission::Conflict, Some(twin)) => assert_ne!(key, twin.key),
            (Submission::OwnerFull, None) => assert_eq!(n_own, OWNER_TASKS_MAX),
            (Submission::QueueFull, None) => assert_eq!(n_all, QUEUE_TASKS_MAX),
            (Submission::Accepted(task), None) => {
                assert!(task.id == task_id(n) && n_own < OWNER_TASKS_MAX && n_all < QUEUE_TASKS_MAX);
                self.tasks.push(Entry {
                    n,
                    owner: owner_n,
                    app: app_idx,
                    key,
                    state: "queued",
                    worker: 0,
                    attempt: 0,
                    n_released: 0,
                    not_before_ms: 0,
                    expires_ms: 0,
                    cancel_requested: false,
                    step: None,
                    finished_ms: None,
                });
            }
            (answer, twin) => panic!("answered {answer:?} with a twin {twin:?}"),
        }
    }

    async fn claim(&mut self, worker_n: u8, app_idx: Option<usize>) {
        let wanted_apps = match app_idx {
            Some(idx) => wanted(&[APPS[idx]]),
            None => wanted(&APPS),
        };
        let now_ms = self.bench.now_ms();
        let answer = self.bench.stores.queue.claim(&worker(worker_n), &wanted_apps).await.unwrap();
        let is_wanted = |task: &&mut Entry| {
            task.state == "queued" && task.not_before_ms <= now_ms && app_idx.is_none_or(|idx| idx == task.app)
        };
        // The model keeps its tasks in the order of acceptance.
        let Some(task) = self.tasks.iter_mut().find(is_wanted) else {
            assert!(answer.is_none(), "claimed {answer:?}");
            return;
        };
        task.attempt += 1;
        (task.state, task.worker, task.expires_ms, task.step) = ("running", worker_n, now_ms + LEASE_MS, None);
        let lease = answer.expect("a task waits");
        let expected = LeaseId { task: task_id(task.n), worker: worker(worker_n), attempt: task.attempt };
        assert_eq!(lease.id, expected);
        assert!(!self.leases.contains(&lease.id), "a lease was given out twice");
        self.leases.push(lease.id);
    }

    /// One of all leases ever given, and the task that it still holds.
    fn lease(&mut self, pick: usize) -> Option<(LeaseId, Option<&mut Entry>)> {
        let lease = self.leases.get(pick % self.leases.len().max(1))?.clone();
        let held = self.tasks.iter_mut().find(|task| {
            task.state == "running"
                && task_id(task.n) == lease.task
                && worker(task.worker) == lease.worker
                && task.attempt == lease.attempt
        });
        Some((lease, held))
    }

    async fn heartbeat(&mut self, pick: usize, progress: Option<u32>) {
        let now_ms = self.bench.now_ms();
        let queue = self.bench.stores.queue.clone();
        let Some((lease, held)) = self.lease(pick) else { return };
        let expected = match held {
            None => Heartbeat::Lost,
            Some(task) => {
                task.expires_ms = now_ms + LEASE_MS;
                task.step = progress.or(task.step);
                if task.cancel_requested { Heartbeat::Cancel } else { Heartbeat::Continue }
            }
        };
        let progress = progress.map(|step| Progress { step, n_steps: 9 });
        assert_eq!(queue.heartbeat(&lease, progress).await.unwrap(), expected);
    }

    async fn settle(&mut self, call: &Call) {
        let now_ms = self.bench.now_ms();
        let queue = self.bench.stores.queue.clone();
        let (Call::Complete { lease: pick }
        | Call::Fail { lease: pick, .. }
        | Call::Cancelled { lease: pick }
        | Call::Release { lease: pick }) = *call
        else {
            return;
        };
        let Some((lease, held)) = self.lease(pick) else { return };
        let expected = if held.is_some() { Settled::Done } else { Settled::Lost };
        let fault = Fault::new(ErrorCode::Failed, "why");
        let mut nobody = Entry { n: 0, ..blank() };
        let task = held.unwrap_or(&mut nobody);
        let answer = match *call {
            Call::Complete { .. } => {
                task.finish("succeeded", now_ms);
                queue.complete(&lease, painting(&format!("{}-{}", lease.task, lease.attempt))).await
            }
            Call::Fail { pause_ms: Some(pause_ms), .. } => {
                task.retry(now_ms, pause_ms as i64);
                queue.fail(&lease, fault, Retry::AfterMs(pause_ms)).await
            }
            Call::Fail { pause_ms: None, .. } => {
                task.finish(if task.cancel_requested { "cancelled" } else { "failed" }, now_ms);
                queue.fail(&lease, fault, Retry::Never).await
            }
            Call::Cancelled { .. } => {
                task.finish("cancelled", now_ms);
                queue.cancelled(&lease).await
            }
            _ => {
                task.n_released += 1;
                if task.cancel_requested {
                    task.finish("cancelled", now_ms);
                } else {
                    task.queue_again(now_ms);
                }
                queue.release(&lease).await
            }
        };
        assert_eq!(answer.unwrap(), expected);
    }

    async fn cancel(&mut self, pick: usize) {
        let now_ms = self.bench.now_ms();
        let idx = pick % self.tasks.len().max(1);
        let Some(task) = self.tasks.get_mut(idx) else { return };
        match task.state {
            "queued" => {
                task.cancel_requested = true;
                task.finish("cancelled", now_ms);
            }
            "running" => task.cancel_requested = true,
            _ => {}
        }
        let answer = self.bench.stores.tasks.cancel(&task_id(task.n)).await.unwrap().unwrap();
        assert_eq!((answer.state.as_str(), answer.cancel_requested), (task.state, task.cancel_requested));
    }

    async fn reap(&mut self, before_ms: i64) {
        let now_ms = self.bench.now_ms();
        let queue = &self.bench.stores.queue;
        let answer = if before_ms == i64::MAX { queue.reap_all().await } else { queue.reap().await }.unwrap();
        let mut reaped = Reaped::default();
        for task in self.tasks.iter_mut().filter(|task| task.state == "running" && task.expires_ms <= before_ms) {
            task.retry(now_ms, 0);
            reaped.requeued += u64::from(task.state == "queued");
            reaped.failed += u64::from(task.state == "failed");
        }
        assert_eq!(answer, reaped);
    }

    /// Closes the folder and opens it again: everything must be on the disk.
    fn reopen(&mut self) {
        let elsewhere = tempfile::tempdir().unwrap();
        let stand_in = sqlite::open(elsewhere.path(), self.bench.options.clone()).unwrap();
        drop(std::mem::replace(&mut self.bench.stores, stand_in));
        self.bench.stores = sqlite::open(&self.bench.dir(), self.bench.options.clone()).unwrap();
    }

    async fn compare(&self) {
        let tasks = &self.bench.stores.tasks;
        let mut depth = Depth::default();
        for entry in &self.tasks {
            let task = tasks.get(&task_id(entry.n)).await.unwrap().expect("the store lost a task");
            assert_eq!(
                (task.state.as_str(), task.attempt, task.cancel_requested, task.finished_ms),
                (entry.state, entry.attempt, entry.cancel_requested, entry.finished_ms),
            );
            assert_eq!(task.progress.map(|progress| progress.step), entry.step);
            let position = (entry.state == "queued").then_some(depth.queued);
            assert_eq!(tasks.position(&task_id(entry.n)).await.unwrap(), position);
            depth.queued += u64::from(entry.state == "queued");
            depth.running += u64::from(entry.state == "running");
        }
        assert_eq!(tasks.depth().await.unwrap(), depth);
        for who in 1..3 {
            let listed = tasks.list(&owner(who), 1000, None).await.unwrap();
            let expected: Vec<_> =
                self.tasks.iter().rev().filter(|task| task.owner == who).map(|task| task_id(task.n)).collect();
            assert_eq!(listed.into_iter().map(|task| task.id).collect::<Vec<_>>(), expected);
        }
    }
}

/// Takes what a refused settlement would have changed.
fn blank() -> Entry {
    Entry {
        n: 0,
        owner: 0,
        app: 0,
        key: None,
        state: "running",
        worker: 0,
        attempt: 1,
        n_released: 0,
        not_before_ms: 0,
        expires_ms: 0,
        cancel_requested: false,
        step: None,
        finished_ms: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn the_store_does_what_the_model_does(calls in proptest::collection::vec(call(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut lockstep = Lockstep::new();
            for call in calls {
                lockstep.run(call).await;
            }
            lockstep.compare().await;
        });
    }
}
