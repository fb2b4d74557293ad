//! Cancelling what waits and what runs.

use crate::support::Bench;
use domain::quantity::Steps;
use domain::task::TaskState;
use std::time::Duration;
use store::contract::TaskEvent;
use worker::Ownership;

#[tokio::test]
async fn a_running_task_stops_within_one_step() {
    let bench = Bench::with_steps_of(Duration::from_millis(400));
    let worker = bench.start(Ownership::Sole);
    let mut news = bench.stores.events.subscribe();
    let id = bench.submit(1, |request| request.steps = Steps::new(50).unwrap()).await;
    while !matches!(news.recv().await.unwrap(), TaskEvent::Progress(..)) {}
    bench.stores.tasks.cancel(&id).await.unwrap();
    let n_steps = bench.engines.log().n_steps;
    assert_eq!(bench.until_final(&id).await.state, TaskState::Cancelled);
    let n_more = bench.engines.log().n_steps - n_steps;
    assert!(n_more <= 1, "{n_more} steps after the cancellation");
    assert_eq!(bench.n_result_files(), 0);
    // The engine is still good.
    let next = bench.submit(2, |request| request.steps = Steps::new(1).unwrap()).await;
    bench.painting(&next).await;
    assert_eq!(bench.engines.log().loads.len(), 1);
    worker.stop().await;
}

#[tokio::test]
async fn a_queued_task_that_was_cancelled_is_never_begun() {
    let bench = Bench::with_steps_of(Duration::from_millis(50));
    let worker = bench.start(Ownership::Sole);
    let first = bench.submit(1, |request| request.seed = 1).await;
    let second = bench.submit(2, |request| request.seed = 2).await;
    bench.until(&first, "it runs", |task| task.state == TaskState::Running).await;
    bench.stores.tasks.cancel(&second).await.unwrap();
    assert_eq!(bench.get(&second).await.state, TaskState::Cancelled);
    bench.painting(&first).await;
    let third = bench.submit(3, |request| request.seed = 3).await;
    bench.painting(&third).await;
    assert_eq!(bench.engines.log().runs, [1, 3]);
    worker.stop().await;
}
