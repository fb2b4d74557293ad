//! Several workers on one queue, and the heirs of dead ones.

use crate::support::{Bench, LEASE};
use domain::id::{AppId, WorkerId};
use domain::quantity::Steps;
use domain::task::{Painting, TaskState};
use std::time::{Duration, Instant};
use store::contract::{Lease, Settled, Wanted};
use worker::Ownership;

/// Takes a lease as a worker would that dies before its first heartbeat.
async fn die_over(bench: &Bench) -> Lease {
    let wanted = Wanted { apps: vec![AppId::parse("app-1").unwrap()], classes: Vec::new() };
    bench.stores.queue.claim(&WorkerId::from_random([9; 8]), &wanted).await.unwrap().unwrap()
}

#[tokio::test]
async fn two_workers_share_a_queue_without_doing_anything_twice() {
    let bench = Bench::with_steps_of(Duration::from_millis(1));
    let workers = [bench.start(Ownership::Shared), bench.start(Ownership::Shared)];
    let mut ids = Vec::new();
    for n in 0..30 {
        ids.push(bench.submit(n, |request| request.seed = n.into()).await);
    }
    for id in &ids {
        assert_eq!(bench.painting(id).await.images.len(), 1);
    }
    let mut runs = bench.engines.log().runs;
    runs.sort_unstable();
    assert_eq!(runs, (0..30).collect::<Vec<u64>>());
    assert_eq!(bench.n_result_files(), 60);
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test]
async fn a_lease_is_kept_while_the_work_lasts_longer() {
    let bench = Bench::with_steps_of(LEASE);
    let workers = [bench.start(Ownership::Shared), bench.start(Ownership::Shared)];
    let id = bench.submit(1, |request| request.steps = Steps::new(2).unwrap()).await;
    bench.painting(&id).await;
    assert_eq!((bench.get(&id).await.attempt, bench.engines.log().runs.len()), (1, 1));
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test]
async fn a_dead_worker_s_task_is_taken_over_when_its_lease_has_run_out() {
    let bench = Bench::new();
    let id = bench.submit(1, |_| {}).await;
    let died = Instant::now();
    let zombie = die_over(&bench).await;
    let worker = bench.start(Ownership::Shared);
    let painting = bench.painting(&id).await;
    assert!(died.elapsed() >= LEASE, "taken from a worker that may have lived");
    assert_eq!(bench.get(&id).await.attempt, 2);
    let late = Painting { runtime_s: 0.0, ..painting.clone() };
    assert_eq!(bench.stores.queue.complete(&zombie.id, late).await.unwrap(), Settled::Lost);
    assert_eq!(bench.get(&id).await.state, TaskState::Succeeded(painting));
    worker.stop().await;
}

#[tokio::test]
async fn a_sole_worker_takes_its_predecessor_s_tasks_at_once() {
    let mut bench = Bench::new();
    let id = bench.submit(1, |_| {}).await;
    die_over(&bench).await;
    // Reaping by the clock would come far too late.
    bench.timing.lease = Duration::from_secs(3600);
    let worker = bench.start(Ownership::Sole);
    bench.painting(&id).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_whose_lease_was_taken_stops_and_leaves_nothing() {
    let bench = Bench::with_steps_of(Duration::from_millis(100));
    let worker = bench.start(Ownership::Shared);
    let id = bench.submit(1, |request| request.steps = Steps::new(40).unwrap()).await;
    bench.until(&id, "it runs", |task| task.state == TaskState::Running).await;
    bench.stores.queue.reap_all().await.unwrap();
    // Nobody else is there, so the same worker takes it again once it has noticed.
    bench.until(&id, "it runs again", |task| task.attempt == 2).await;
    assert!(bench.engines.log().n_steps < 40, "painted to the end for nobody");
    bench.stores.tasks.cancel(&id).await.unwrap();
    bench.until_final(&id).await;
    assert_eq!(bench.n_result_files(), 0);
    worker.stop().await;
}
