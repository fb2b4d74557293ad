//! The device and the providers side by side: neither waits for the other, and each keeps the rules.

use crate::support::{Bench, REMOTE_TASKS};
use domain::id::{AppId, TaskId};
use domain::quantity::Steps;
use domain::request::GenerationRequest;
use domain::task::TaskState;
use std::time::{Duration, Instant};
use worker::Ownership;

/// Painted elsewhere.
fn remote(request: &mut GenerationRequest) {
    request.app = AppId::parse("app-4").unwrap();
    request.steps = Steps::new(1).unwrap();
}

/// On this machine, for some steps.
fn local(n_steps: i64) -> impl FnOnce(&mut GenerationRequest) {
    move |request| request.steps = Steps::new(n_steps).unwrap()
}

/// A bench whose steps take so long here and so long elsewhere.
fn bench(here: Duration, elsewhere: Duration) -> Bench {
    let bench = Bench::with_steps_of(here);
    *bench.engines.remote_step_time.lock().unwrap() = elsewhere;
    bench
}

async fn is_running(bench: &Bench, id: &TaskId) {
    bench.until(id, "it runs", |task| task.state == TaskState::Running).await;
}

#[tokio::test]
async fn a_slow_painting_here_delays_no_call() {
    let bench = bench(Duration::from_millis(200), Duration::ZERO);
    let slow = bench.submit(1, local(50)).await;
    let waiting = bench.submit(2, local(1)).await;
    let worker = bench.start(Ownership::Sole);
    is_running(&bench, &slow).await;
    for n in 3..10 {
        let id = bench.submit(n, remote).await;
        assert_eq!(bench.painting(&id).await.model.as_str(), "model-4");
    }
    assert_eq!(bench.get(&slow).await.state, TaskState::Running, "it takes ten seconds");
    assert_eq!(bench.get(&waiting).await.attempt, 0, "the device has one task at a time");
    bench.stores.tasks.cancel(&slow).await.unwrap();
    bench.painting(&waiting).await;
    worker.stop().await;
}

#[tokio::test]
async fn slow_calls_delay_no_painting_here_and_run_side_by_side() {
    let bench = bench(Duration::ZERO, Duration::from_secs(3));
    let begun = Instant::now();
    let mut calls = Vec::new();
    for n in 0..=REMOTE_TASKS as u8 {
        calls.push(bench.submit(n, remote).await);
    }
    let worker = bench.start(Ownership::Sole);
    for id in &calls[..REMOTE_TASKS] {
        is_running(&bench, id).await;
    }
    for n in 10..15 {
        let id = bench.submit(n, local(1)).await;
        bench.painting(&id).await;
    }
    assert_eq!(bench.get(&calls[REMOTE_TASKS]).await.attempt, 0, "one more than may be under way");
    assert!(begun.elapsed() < Duration::from_secs(3), "the device waited for the calls: {:?}", begun.elapsed());
    for id in &calls {
        bench.painting(id).await;
    }
    // Two rounds, not one after the other.
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    worker.stop().await;
}

#[tokio::test]
async fn draining_waits_for_both_lanes_and_begins_nothing_in_either() {
    let bench = bench(Duration::from_millis(500), Duration::from_millis(700));
    let (here, elsewhere) = (bench.submit(1, local(1)).await, bench.submit(2, remote).await);
    let mut more = vec![bench.submit(3, local(1)).await];
    for n in 4..4 + REMOTE_TASKS as u8 {
        more.push(bench.submit(n, remote).await);
    }
    let worker = bench.start(Ownership::Sole);
    is_running(&bench, &here).await;
    is_running(&bench, &elsewhere).await;
    worker.stop().await;
    for id in [&here, &elsewhere] {
        assert_eq!(bench.get(id).await.state.as_str(), "succeeded");
    }
    for id in [&more[0], more.last().unwrap()] {
        let task = bench.get(id).await;
        assert_eq!((task.state, task.attempt), (TaskState::Queued, 0));
    }
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_given_back_at_the_end() {
    let mut bench = bench(Duration::ZERO, Duration::from_secs(3));
    bench.timing.drain_grace = Duration::from_millis(50);
    bench.timing.stop_grace = Duration::from_millis(100);
    let id = bench.submit(1, remote).await;
    let worker = bench.start(Ownership::Sole);
    is_running(&bench, &id).await;
    let asked = Instant::now();
    worker.stop().await;
    assert!(asked.elapsed() < Duration::from_secs(2), "waited for the call: {:?}", asked.elapsed());
    assert_eq!(bench.get(&id).await.state, TaskState::Queued);
}

#[tokio::test]
async fn leases_of_calls_are_kept_and_calls_cancelled_and_tried_again_like_any_task() {
    let bench = bench(Duration::ZERO, crate::support::LEASE.mul_f64(1.5));
    let worker = bench.start(Ownership::Shared);
    let failing = bench.submit(1, |request| {
        remote(request);
        request.prompt = "panic please".to_owned();
    });
    let failing = failing.await;
    let long = bench.submit(2, remote).await;
    let cancelled = bench.submit(3, |request| {
        remote(request);
        request.steps = Steps::new(3).unwrap();
    });
    let cancelled = cancelled.await;
    is_running(&bench, &cancelled).await;
    bench.stores.tasks.cancel(&cancelled).await.unwrap();
    bench.painting(&long).await;
    assert_eq!(bench.get(&long).await.attempt, 1, "its lease was kept");
    assert_eq!(bench.until_final(&cancelled).await.state, TaskState::Cancelled);
    assert!(bench.fault(&failing).await.detail.ends_with("(tried 3 times)"));
    worker.stop().await;
}
