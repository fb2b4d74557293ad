//! The worker's side: order, leases, fencing, retries, and what becomes of a dead worker's tasks.

use crate::support::{ATTEMPTS_MAX, Bench, LEASE_MS, START_MS, new_task, painting, request, task_id, wanted, worker};
use domain::fault::{ErrorCode, Fault};
use domain::request::{GenerationRequest, InferenceType};
use domain::task::{Progress, TaskState};
use store::contract::{Heartbeat, Lease, LeaseId, NewTask, Reaped, Retry, Settled, TaskEvent, Wanted};

fn fault() -> Fault {
    Fault::new(ErrorCode::Failed, "the engine failed")
}

#[tokio::test]
async fn tasks_are_claimed_in_the_order_of_acceptance() {
    let bench = Bench::new();
    // Neither the name nor the caller's clock decides.
    for n in [3, 1, 2] {
        bench.stores.tasks.submit(NewTask { now_ms: START_MS - i64::from(n), ..new_task(n) }).await.unwrap();
    }
    let mut order = Vec::new();
    while let Some(lease) = bench.claim().await {
        assert_eq!((lease.id.attempt, lease.task.state), (1, TaskState::Running));
        assert_eq!(lease.task.started_ms, Some(START_MS));
        order.push(lease.task.id);
    }
    assert_eq!(order, [task_id(3), task_id(1), task_id(2)]);
}

#[tokio::test]
async fn only_tasks_of_the_named_apps_are_claimed() {
    let bench = Bench::new();
    bench.submit(1).await;
    bench.stores.tasks.submit(NewTask { request: request("b"), ..new_task(2) }).await.unwrap();
    let queue = &bench.stores.queue;
    assert!(queue.claim(&worker(1), &wanted(&[])).await.unwrap().is_none());
    assert!(queue.claim(&worker(1), &wanted(&["c"])).await.unwrap().is_none());
    assert_eq!(queue.claim(&worker(1), &wanted(&["c", "b"])).await.unwrap().unwrap().task.id, task_id(2));
    assert!(queue.claim(&worker(1), &wanted(&["b"])).await.unwrap().is_none());
}

#[tokio::test]
async fn only_tasks_of_the_named_classes_are_claimed_and_those_without_one() {
    let bench = Bench::new();
    for (n, class) in [(1, Some(InferenceType::H100)), (2, Some(InferenceType::A10g)), (3, None)] {
        let request = GenerationRequest { inference_type: class, ..request("a") };
        bench.stores.tasks.submit(NewTask { request, ..new_task(n) }).await.unwrap();
    }
    let claim = async |classes: &[InferenceType]| {
        let wanted = Wanted { classes: classes.to_vec(), ..wanted(&["a"]) };
        bench.stores.queue.claim(&worker(1), &wanted).await.unwrap().map(|lease| lease.task.id)
    };
    assert_eq!(claim(&[InferenceType::A10g, InferenceType::A100]).await, Some(task_id(2)));
    assert_eq!(claim(&[]).await, Some(task_id(3)));
    assert_eq!(claim(&[InferenceType::A100]).await, None);
    assert_eq!(claim(&[InferenceType::H100]).await, Some(task_id(1)));
}

#[tokio::test]
async fn many_workers_never_get_the_same_task() {
    let bench = Bench::new();
    for n in 0..50 {
        bench.submit(n).await;
    }
    let workers: Vec<_> = (0..8)
        .map(|n| {
            let queue = bench.stores.queue.clone();
            tokio::spawn(async move {
                let mut mine = Vec::new();
                while let Some(lease) = queue.claim(&worker(n), &wanted(&["a"])).await.unwrap() {
                    mine.push(lease.task.id);
                }
                mine
            })
        })
        .collect();
    let mut all = Vec::new();
    for worker in workers {
        all.extend(worker.await.unwrap());
    }
    assert_eq!(all.len(), 50);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 50);
}

#[tokio::test]
async fn heartbeats_keep_a_lease_and_tell_progress() {
    let bench = Bench::new();
    bench.submit(1).await;
    let lease = bench.claim().await.unwrap();
    let progress = Progress { step: 2, n_steps: 4 };
    for report in [Some(progress), None] {
        bench.advance(LEASE_MS - 1);
        assert_eq!(bench.stores.queue.heartbeat(&lease.id, report).await.unwrap(), Heartbeat::Continue);
        assert_eq!(bench.stores.queue.reap().await.unwrap(), Reaped::default());
    }
    assert_eq!(bench.get(1).await.progress, Some(progress));
    bench.stores.tasks.cancel(&task_id(1)).await.unwrap();
    assert_eq!(bench.stores.queue.heartbeat(&lease.id, None).await.unwrap(), Heartbeat::Cancel);
    assert_eq!(bench.stores.queue.cancelled(&lease.id).await.unwrap(), Settled::Done);
    assert_eq!(bench.stores.queue.heartbeat(&lease.id, None).await.unwrap(), Heartbeat::Lost);
    assert_eq!(bench.state(1).await, "cancelled");
}

/// Everything that a worker could say of a lease that it lost is refused and changes nothing.
async fn refuse(bench: &Bench, lease: &LeaseId) {
    let queue = &bench.stores.queue;
    let before = bench.stores.tasks.get(&lease.task).await.unwrap();
    assert_eq!(queue.heartbeat(lease, Some(Progress { step: 9, n_steps: 9 })).await.unwrap(), Heartbeat::Lost);
    assert_eq!(queue.complete(lease, painting("zombie")).await.unwrap(), Settled::Lost);
    assert_eq!(queue.fail(lease, fault(), Retry::Never).await.unwrap(), Settled::Lost);
    assert_eq!(queue.cancelled(lease).await.unwrap(), Settled::Lost);
    assert_eq!(queue.release(lease).await.unwrap(), Settled::Lost);
    assert_eq!(bench.stores.tasks.get(&lease.task).await.unwrap(), before);
}

#[tokio::test]
async fn a_zombie_is_refused() {
    let bench = Bench::new();
    bench.submit(1).await;
    let zombie = bench.claim().await.unwrap();
    bench.advance(LEASE_MS);
    assert_eq!(bench.stores.queue.reap().await.unwrap(), Reaped { requeued: 1, failed: 0 });
    refuse(&bench, &zombie.id).await;
    // The same worker takes it again: only the attempt tells the two leases apart.
    let heir = bench.claim().await.unwrap();
    assert_eq!((heir.id.attempt, &heir.id.worker), (2, &zombie.id.worker));
    refuse(&bench, &zombie.id).await;
    assert_eq!(bench.stores.queue.complete(&heir.id, painting("heir")).await.unwrap(), Settled::Done);
    refuse(&bench, &zombie.id).await;
    refuse(&bench, &heir.id).await;
    assert_eq!(bench.get(1).await.state, TaskState::Succeeded(painting("heir")));
    refuse(&bench, &LeaseId { worker: worker(9), ..heir.id.clone() }).await;
}

#[tokio::test]
async fn an_expired_lease_that_nobody_reaped_still_holds() {
    let bench = Bench::new();
    bench.submit(1).await;
    let lease = bench.claim().await.unwrap();
    bench.advance(10 * LEASE_MS);
    assert_eq!(bench.stores.queue.complete(&lease.id, painting("late")).await.unwrap(), Settled::Done);
}

#[tokio::test]
async fn a_lease_that_was_given_back_is_refused_though_it_spent_no_attempt() {
    let bench = Bench::new();
    bench.submit(1).await;
    let mut given_back: Vec<Lease> = Vec::new();
    for _ in 0..3 * ATTEMPTS_MAX {
        let lease = bench.claim().await.unwrap();
        for old in &given_back {
            refuse(&bench, &old.id).await;
        }
        let mut news = bench.stores.events.subscribe();
        assert_eq!(bench.stores.queue.release(&lease.id).await.unwrap(), Settled::Done);
        assert_eq!(news.try_recv(), Ok(TaskEvent::Changed(task_id(1))));
        assert_eq!(news.try_recv(), Ok(TaskEvent::Queued(task_id(1))));
        given_back.push(lease);
    }
    assert_eq!(bench.state(1).await, "queued");
}

#[tokio::test]
async fn a_retry_waits_its_time_and_the_last_attempt_fails() {
    let bench = Bench::new();
    bench.submit(1).await;
    bench.submit(2).await;
    for attempt in 1..ATTEMPTS_MAX {
        let lease = bench.claim().await.unwrap();
        assert_eq!((lease.task.id, lease.id.attempt), (task_id(1), attempt));
        bench.stores.queue.fail(&lease.id, fault(), Retry::AfterMs(500)).await.unwrap();
        let task = bench.get(1).await;
        assert_eq!((task.state, task.progress, task.started_ms), (TaskState::Queued, None, None));
        if attempt == 1 {
            assert_eq!(bench.claim().await.unwrap().task.id, task_id(2), "who waits does not hold the others up");
        }
        bench.advance(499);
        assert!(bench.claim().await.is_none());
        bench.advance(1);
    }
    let last = bench.claim().await.unwrap();
    bench.stores.queue.fail(&last.id, fault(), Retry::AfterMs(500)).await.unwrap();
    let TaskState::Failed(told) = bench.get(1).await.state else { panic!("not failed") };
    assert_eq!((told.code, told.detail.as_str()), (ErrorCode::Failed, "the engine failed (tried 3 times)"));
}

#[tokio::test]
async fn a_fault_of_the_request_is_not_tried_again() {
    let bench = Bench::new();
    bench.submit(1).await;
    let lease = bench.claim().await.unwrap();
    bench.stores.queue.fail(&lease.id, fault(), Retry::Never).await.unwrap();
    assert_eq!(bench.get(1).await.state, TaskState::Failed(fault()));
}

#[tokio::test]
async fn who_asked_to_stop_gets_no_second_attempt() {
    for settle in ["fail", "release", "reap"] {
        let bench = Bench::new();
        bench.submit(1).await;
        let lease = bench.claim().await.unwrap();
        bench.stores.tasks.cancel(&task_id(1)).await.unwrap();
        match settle {
            "fail" => drop(bench.stores.queue.fail(&lease.id, fault(), Retry::AfterMs(1)).await.unwrap()),
            "release" => drop(bench.stores.queue.release(&lease.id).await.unwrap()),
            _ => assert_eq!(bench.stores.queue.reap_all().await.unwrap(), Reaped::default()),
        }
        assert_eq!(bench.state(1).await, "cancelled", "{settle}");
    }
}

#[tokio::test]
async fn workers_that_die_over_a_task_end_it_with_a_reason() {
    let bench = Bench::new();
    bench.submit(1).await;
    for _ in 1..ATTEMPTS_MAX {
        bench.claim().await.unwrap();
        assert_eq!(bench.stores.queue.reap().await.unwrap(), Reaped::default(), "the lease has not run out");
        assert_eq!(bench.stores.queue.reap_all().await.unwrap(), Reaped { requeued: 1, failed: 0 });
    }
    bench.claim().await.unwrap();
    bench.advance(LEASE_MS);
    assert_eq!(bench.stores.queue.reap().await.unwrap(), Reaped { requeued: 0, failed: 1 });
    let TaskState::Failed(told) = bench.get(1).await.state else { panic!("not failed") };
    assert_eq!(told.detail, "the worker died while painting, 3 times in 3 attempts");
}
