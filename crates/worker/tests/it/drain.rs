//! Going in good order: what runs is finished or given back, and nothing more is begun.

use crate::support::Bench;
use domain::quantity::Steps;
use domain::task::TaskState;
use std::time::{Duration, Instant};
use worker::Ownership;

#[tokio::test]
async fn an_idle_worker_stops_at_once() {
    let mut bench = Bench::new();
    bench.timing.poll = Duration::from_secs(600);
    let worker = bench.start(Ownership::Sole);
    tokio::time::sleep(Duration::from_millis(50)).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_running_task_is_finished_and_no_other_begun() {
    let bench = Bench::with_steps_of(Duration::from_millis(100));
    let running = bench.submit(1, |_| {}).await;
    let waiting = bench.submit(2, |_| {}).await;
    let worker = bench.start(Ownership::Sole);
    bench.until(&running, "it runs", |task| task.state == TaskState::Running).await;
    worker.stop().await;
    assert_eq!(bench.get(&running).await.state.as_str(), "succeeded");
    let task = bench.get(&waiting).await;
    assert_eq!((task.state, task.attempt), (TaskState::Queued, 0));
}

#[tokio::test]
async fn a_task_that_would_take_too_long_is_given_back() {
    let mut bench = Bench::with_steps_of(Duration::from_millis(100));
    bench.timing.drain_grace = Duration::from_millis(50);
    let id = bench.submit(1, |request| request.steps = Steps::new(50).unwrap()).await;
    // More often than there are attempts: giving back spends none.
    for _ in 0..4 {
        let worker = bench.start(Ownership::Sole);
        bench.until(&id, "it runs", |task| task.state == TaskState::Running).await;
        worker.stop().await;
        assert_eq!(bench.get(&id).await.state, TaskState::Queued);
    }
    assert_eq!(bench.n_result_files(), 0);
}

#[tokio::test]
async fn an_engine_that_does_not_listen_is_left_behind() {
    let mut bench = Bench::with_steps_of(Duration::from_secs(3));
    bench.timing.drain_grace = Duration::from_millis(10);
    bench.timing.stop_grace = Duration::from_millis(100);
    let id = bench.submit(1, |_| {}).await;
    let worker = bench.start(Ownership::Sole);
    bench.until(&id, "it runs", |task| task.state == TaskState::Running).await;
    let asked = Instant::now();
    worker.stop().await;
    assert!(asked.elapsed() < Duration::from_secs(2), "waited for the step: {:?}", asked.elapsed());
    assert_eq!(bench.get(&id).await.state, TaskState::Queued);
}

#[tokio::test]
async fn a_worker_without_anybody_to_stop_it_stops() {
    let bench = Bench::new();
    let worker = bench.start(Ownership::Sole);
    drop(worker.shutdown);
    tokio::time::timeout(Duration::from_secs(30), worker.handle).await.unwrap().unwrap().unwrap();
}
