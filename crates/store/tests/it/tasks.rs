//! The client's side: what is accepted, found, cancelled and forgotten.

use crate::support::{Bench, START_MS, blob, idempotency, new_task, owner, painting, task_id};
use domain::id::BlobKey;
use domain::task::TaskState;
use store::contract::{Depth, NewTask, StoreError, Submission, TaskEvent};
use store::sqlite;

#[tokio::test]
async fn a_submitted_task_is_there_as_it_was_given() {
    let bench = Bench::new();
    let mut news = bench.stores.events.subscribe();
    let accepted = bench.submit(1).await;
    assert_eq!(bench.get(1).await, accepted);
    assert_eq!((accepted.state, accepted.created_ms), (TaskState::Queued, START_MS));
    assert_eq!(news.try_recv(), Ok(TaskEvent::Queued(task_id(1))));
    assert_eq!(bench.stores.tasks.get(&task_id(2)).await.unwrap(), None);
}

#[tokio::test]
async fn a_task_outlives_its_store() {
    let bench = Bench::new();
    let accepted = bench.submit(1).await;
    let (dir, options) = (bench.dir(), bench.options.clone());
    assert!(matches!(sqlite::open(&dir, options.clone()), Err(StoreError::InUse(_))));
    let copy = tempfile::tempdir().unwrap();
    // Neither closed nor checkpointed: what a dead process leaves.
    for file in ["pentimento.db", "pentimento.db-wal"] {
        std::fs::copy(dir.join(file), copy.path().join(file)).unwrap();
    }
    let reopened = sqlite::open(copy.path(), options).unwrap();
    assert_eq!(reopened.tasks.get(&task_id(1)).await.unwrap(), Some(accepted));
    assert_eq!(bench.stores.tasks.depth().await.unwrap(), Depth { queued: 1, running: 0 });
}

#[tokio::test]
async fn a_closed_folder_may_be_opened_again() {
    let bench = Bench::new();
    bench.submit(1).await;
    let (dir, options) = (bench.dir(), bench.options.clone());
    let Bench { stores, .. } = bench;
    let clone = stores.clone();
    drop(stores);
    assert!(matches!(sqlite::open(&dir, options.clone()), Err(StoreError::InUse(_))), "a clone still has it");
    drop(clone);
    let reopened = sqlite::open(&dir, options).unwrap();
    assert!(reopened.tasks.get(&task_id(1)).await.unwrap().is_some());
}

#[tokio::test]
async fn the_same_idempotency_key_is_the_same_task() {
    let bench = Bench::new();
    let tasks = &bench.stores.tasks;
    let with_key = |n, body| NewTask { idempotency: Some(idempotency("k", body)), ..new_task(n) };
    assert!(tasks.remembered(&owner(1), &idempotency("k", 1)).await.unwrap().is_none());
    assert!(matches!(tasks.submit(with_key(1, 1)).await.unwrap(), Submission::Accepted(_)));
    let Submission::Existing(existing) = tasks.submit(with_key(2, 1)).await.unwrap() else { panic!("made anew") };
    assert_eq!(existing.id, task_id(1));
    assert!(matches!(tasks.submit(with_key(2, 9)).await.unwrap(), Submission::Conflict));
    let remembered = tasks.remembered(&owner(1), &idempotency("k", 1)).await.unwrap();
    assert!(matches!(remembered, Some(Submission::Existing(task)) if task.id == task_id(1)));
    let other_body = tasks.remembered(&owner(1), &idempotency("k", 9)).await.unwrap();
    assert!(matches!(other_body, Some(Submission::Conflict)));
    // Another owner's key is another key.
    let stranger = NewTask { owner: owner(2), ..with_key(3, 9) };
    assert!(matches!(tasks.submit(stranger).await.unwrap(), Submission::Accepted(_)));
    assert_eq!(tasks.get(&task_id(2)).await.unwrap(), None);
}

#[tokio::test]
async fn a_repeated_call_is_answered_even_when_the_queue_is_full() {
    let bench = Bench::with(|options| options.queue_tasks_max = 1);
    let with_key = |n| NewTask { idempotency: Some(idempotency("k", 1)), ..new_task(n) };
    assert!(matches!(bench.stores.tasks.submit(with_key(1)).await.unwrap(), Submission::Accepted(_)));
    assert!(matches!(bench.stores.tasks.submit(new_task(2)).await.unwrap(), Submission::QueueFull));
    assert!(matches!(bench.stores.tasks.submit(with_key(3)).await.unwrap(), Submission::Existing(_)));
}

#[tokio::test]
async fn limits_count_what_is_not_over() {
    let bench = Bench::with(|options| {
        options.queue_tasks_max = 3;
        options.owner_tasks_max = 2;
    });
    let tasks = &bench.stores.tasks;
    let of = |n, who| NewTask { owner: owner(who), ..new_task(n) };
    bench.submit(1).await;
    bench.submit(2).await;
    assert!(matches!(tasks.submit(of(3, 1)).await.unwrap(), Submission::OwnerFull));
    assert!(matches!(tasks.submit(of(3, 2)).await.unwrap(), Submission::Accepted(_)));
    assert!(matches!(tasks.submit(of(4, 3)).await.unwrap(), Submission::QueueFull));
    // A running task still counts; a finished one does not.
    let lease = bench.claim().await.unwrap();
    assert!(matches!(tasks.submit(of(4, 1)).await.unwrap(), Submission::OwnerFull));
    bench.stores.queue.complete(&lease.id, painting("1")).await.unwrap();
    assert!(matches!(tasks.submit(of(4, 1)).await.unwrap(), Submission::Accepted(_)));
}

#[tokio::test]
async fn limits_hold_when_many_submit_at_once() {
    let bench = Bench::with(|options| options.queue_tasks_max = 5);
    let submits: Vec<_> = (0..40)
        .map(|n| {
            let tasks = bench.stores.tasks.clone();
            tokio::spawn(async move { tasks.submit(new_task(n)).await.unwrap() })
        })
        .collect();
    let mut n_accepted = 0;
    for submit in submits {
        n_accepted += u32::from(matches!(submit.await.unwrap(), Submission::Accepted(_)));
    }
    assert_eq!(n_accepted, 5);
    assert_eq!(bench.stores.tasks.depth().await.unwrap(), Depth { queued: 5, running: 0 });
}

#[tokio::test]
async fn pages_go_from_new_to_old_and_show_one_owner() {
    let bench = Bench::new();
    let tasks = &bench.stores.tasks;
    for n in 1..=5 {
        bench.submit(n).await;
    }
    tasks.submit(NewTask { owner: owner(2), ..new_task(9) }).await.unwrap();
    let ids = |page: Vec<domain::task::Task>| page.into_iter().map(|task| task.id).collect::<Vec<_>>();
    let first = ids(tasks.list(&owner(1), 2, None).await.unwrap());
    assert_eq!(first, [task_id(5), task_id(4)]);
    let second = ids(tasks.list(&owner(1), 9, Some(&task_id(4))).await.unwrap());
    assert_eq!(second, [task_id(3), task_id(2), task_id(1)]);
    assert!(tasks.list(&owner(1), 9, Some(&task_id(9))).await.unwrap().is_empty(), "another owner's task is no place");
}

#[tokio::test]
async fn positions_count_who_is_before() {
    let bench = Bench::new();
    for n in 1..=3 {
        bench.submit(n).await;
    }
    let position = async |n| bench.stores.tasks.position(&task_id(n)).await.unwrap();
    assert_eq!((position(1).await, position(3).await, position(7).await), (Some(0), Some(2), None));
    bench.claim().await.unwrap();
    assert_eq!((position(1).await, position(3).await), (None, Some(1)));
}

#[tokio::test]
async fn a_queued_task_is_cancelled_at_once_and_a_running_one_is_asked() {
    let bench = Bench::new();
    let tasks = &bench.stores.tasks;
    bench.submit(1).await;
    bench.submit(2).await;
    let lease = bench.claim().await.unwrap();
    let mut news = bench.stores.events.subscribe();
    let asked = tasks.cancel(&task_id(1)).await.unwrap().unwrap();
    assert!(asked.cancel_requested && asked.state == TaskState::Running);
    let ended = tasks.cancel(&task_id(2)).await.unwrap().unwrap();
    assert_eq!((ended.state, ended.finished_ms), (TaskState::Cancelled, Some(START_MS)));
    assert_eq!(news.try_recv(), Ok(TaskEvent::Changed(task_id(1))));
    assert_eq!(news.try_recv(), Ok(TaskEvent::Changed(task_id(2))));
    assert_eq!(bench.claim().await.map(|lease| lease.id), None);
    assert_eq!(tasks.cancel(&task_id(7)).await.unwrap(), None);
    // What is over stays as it is.
    bench.stores.queue.complete(&lease.id, painting("1")).await.unwrap();
    let over = tasks.cancel(&task_id(1)).await.unwrap().unwrap();
    assert_eq!(over.state, TaskState::Succeeded(painting("1")));
}

#[tokio::test]
async fn purging_forgets_old_ends_and_tells_their_files() {
    let bench = Bench::new();
    let tasks = &bench.stores.tasks;
    let shared = NewTask { source: blob("s-shared"), control: Some(blob("s-control")), ..new_task(1) };
    let keyed = NewTask { idempotency: Some(idempotency("k", 1)), ..shared };
    tasks.submit(keyed.clone()).await.unwrap();
    tasks.submit(NewTask { id: task_id(2), idempotency: None, ..keyed.clone() }).await.unwrap();
    let lease = bench.claim().await.unwrap();
    bench.stores.queue.complete(&lease.id, painting("1")).await.unwrap();
    bench.advance(100);
    assert!(tasks.purge(START_MS).await.unwrap().is_empty(), "not yet old");
    let mut orphans = tasks.purge(START_MS + 1).await.unwrap();
    orphans.sort();
    assert_eq!(orphans, [blob("r-1"), blob("t-1")], "the source and the control still serve the other task");
    assert_eq!(tasks.get(&task_id(2)).await.unwrap().unwrap().control, Some(blob("s-control")));
    assert_eq!(tasks.get(&task_id(1)).await.unwrap(), None);
    assert_eq!(bench.state(2).await, "queued");
    // The idempotency key lives as long as its task.
    assert!(matches!(tasks.submit(NewTask { id: task_id(3), ..keyed }).await.unwrap(), Submission::Accepted(_)));
    for n in [2, 3] {
        tasks.cancel(&task_id(n)).await.unwrap();
    }
    let mut orphans = tasks.purge(i64::MAX).await.unwrap();
    orphans.sort();
    assert_eq!(orphans, [blob("s-control"), blob("s-shared")]);
}

#[tokio::test]
async fn purging_goes_through_more_than_one_transaction_s_worth() {
    let bench = Bench::new();
    for n in 0..=250 {
        bench.submit(n).await;
        bench.stores.tasks.cancel(&task_id(n)).await.unwrap();
    }
    let orphans: std::collections::HashSet<BlobKey> =
        bench.stores.tasks.purge(i64::MAX).await.unwrap().into_iter().collect();
    assert_eq!(orphans.len(), 251);
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_named_and_blocks_nobody() {
    let bench = Bench::new();
    bench.submit(1).await;
    bench.submit(2).await;
    let broken = bench.raw();
    let sql = "UPDATE task SET request = replace(request, '\"png\"', '\"a secret\"') WHERE id = ?1";
    assert_eq!(broken.execute(sql, [task_id(1).as_str()]).unwrap(), 1);
    let error = bench.stores.tasks.get(&task_id(1)).await.unwrap_err().to_string();
    assert!(error.contains(task_id(1).as_str()) && error.contains("request.output_format"), "{error}");
    assert!(!error.contains("secret"), "{error}");
    assert_eq!(bench.claim().await.unwrap().task.id, task_id(2));
    let state: String =
        broken.query_row("SELECT state FROM task WHERE id = ?1", [task_id(1).as_str()], |row| row.get(0)).unwrap();
    assert_eq!(state, "failed");
}
