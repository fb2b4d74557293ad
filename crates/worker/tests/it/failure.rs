//! What comes of a task when something goes wrong, and that the worker outlives it.

use crate::support::Bench;
use async_trait::async_trait;
use bytes::Bytes;
use domain::fault::ErrorCode;
use domain::id::BlobKey;
use std::sync::Arc;
use std::time::Duration;
use store::contract::{BlobInfo, BlobStore, StoreError};
use worker::Ownership;

#[tokio::test]
async fn a_failing_engine_is_tried_again_and_then_no_more() {
    let bench = Bench::new();
    let worker = bench.start(Ownership::Sole);
    let id = bench.submit(1, |request| request.prompt = "fail please".to_owned()).await;
    let fault = bench.fault(&id).await;
    assert_eq!((fault.code, bench.get(&id).await.attempt), (ErrorCode::Failed, 3));
    assert_eq!(fault.detail, "the engine failed while painting (tried 3 times)");
    assert_eq!((bench.engines.log().runs.len(), bench.n_result_files()), (3, 0));
    worker.stop().await;
}

#[tokio::test]
async fn a_panic_ends_neither_the_worker_nor_its_device() {
    let bench = Bench::new();
    let worker = bench.start(Ownership::Sole);
    let doomed = bench.submit(1, |request| request.prompt = "panic please".to_owned()).await;
    let fault = bench.fault(&doomed).await;
    assert_eq!(fault.detail, "the engine crashed while painting (tried 3 times)");
    let next = bench.submit(2, |_| {}).await;
    bench.painting(&next).await;
    // Each time anew, since nobody knows what a panic left behind.
    assert_eq!(bench.engines.log().loads.len(), 4);
    worker.stop().await;
}

#[tokio::test]
async fn what_no_attempt_can_mend_is_tried_once() {
    let bench = Bench::new();
    let worker = bench.start(Ownership::Sole);
    let refused = bench.submit(1, |request| request.prompt = "refuse please".to_owned()).await;
    let fault = bench.fault(&refused).await;
    assert_eq!((fault.code, fault.detail.as_str()), (ErrorCode::Failed, "too small to paint"));
    let broken = bench.submit(2, |request| request.prompt = "weights please".to_owned()).await;
    let fault = bench.fault(&broken).await;
    assert_eq!(fault.code, ErrorCode::Unavailable);
    assert!(fault.detail.contains("model-1") && !fault.detail.contains("secret"), "{}", fault.detail);
    let missing = bench.submit_without_source(3, |_| {}).await;
    let fault = bench.fault(&missing).await;
    assert_eq!((fault.code, fault.detail.as_str()), (ErrorCode::Failed, "the reference picture is no longer stored"));
    let garbage = BlobKey::parse("s-4.png").unwrap();
    bench.stores.blobs.put(&garbage, "no picture".into()).await.unwrap();
    let unreadable = bench.submit_without_source(4, |_| {}).await;
    assert_eq!(bench.fault(&unreadable).await.code, ErrorCode::SourceUnavailable);
    for id in [refused, broken, missing, unreadable] {
        assert_eq!(bench.get(&id).await.attempt, 1);
    }
    worker.stop().await;
}

#[tokio::test]
async fn what_a_provider_has_refused_or_may_have_been_paid_for_is_not_tried_again() {
    let bench = Bench::new();
    let worker = bench.start(Ownership::Sole);
    let cases = [
        ("unsafe please", ErrorCode::Unsafe, "not in this house"),
        ("lose please", ErrorCode::Failed, "painted, but nobody knows what"),
        ("deny please", ErrorCode::Unavailable, "model-1 cannot be used on this server"),
    ];
    for (n, (prompt, code, detail)) in (1..).zip(cases) {
        let id = bench.submit(n, |request| request.prompt = prompt.to_owned()).await;
        let fault = bench.fault(&id).await;
        assert_eq!((fault.code, fault.detail.as_str()), (code, detail));
        assert_eq!(bench.get(&id).await.attempt, 1, "{prompt}");
    }
    worker.stop().await;
}

#[tokio::test]
async fn who_waits_to_be_tried_again_holds_nobody_up() {
    let mut bench = Bench::new();
    bench.timing.retry_first = Duration::from_secs(600);
    bench.timing.retry_max = Duration::from_secs(600);
    let worker = bench.start(Ownership::Sole);
    let failing = bench.submit(1, |request| request.prompt = "fail please".to_owned()).await;
    let next = bench.submit(2, |_| {}).await;
    bench.painting(&next).await;
    let task = bench.get(&failing).await;
    assert_eq!((task.state.as_str(), task.attempt), ("queued", 1));
    worker.stop().await;
}

/// Has room for everything but thumbnails.
struct NearlyFull(Arc<dyn BlobStore>);

#[async_trait]
impl BlobStore for NearlyFull {
    async fn put(&self, key: &BlobKey, bytes: Bytes) -> Result<(), StoreError> {
        if key.as_str().starts_with("t-") {
            return Err(StoreError::Blobs("the disk is full".to_owned()));
        }
        self.0.put(key, bytes).await
    }

    async fn get(&self, key: &BlobKey) -> Result<Option<Bytes>, StoreError> {
        self.0.get(key).await
    }

    async fn look(&self, key: &BlobKey) -> Result<Option<BlobInfo>, StoreError> {
        self.0.look(key).await
    }

    async fn put_before(&self, ms: i64) -> Result<Vec<BlobKey>, StoreError> {
        self.0.put_before(ms).await
    }

    async fn delete(&self, key: &BlobKey) -> Result<(), StoreError> {
        self.0.delete(key).await
    }
}

#[tokio::test]
async fn an_upload_that_fails_half_way_leaves_nothing_behind() {
    let mut bench = Bench::new();
    bench.stores.blobs = Arc::new(NearlyFull(bench.stores.blobs.clone()));
    let worker = bench.start(Ownership::Sole);
    let id = bench.submit(1, |_| {}).await;
    let fault = bench.fault(&id).await;
    assert_eq!(fault.detail, "a file could not be read or stored (tried 3 times)");
    assert_eq!((fault.code, bench.engines.log().runs.len()), (ErrorCode::Internal, 3));
    worker.stop().await;
    assert_eq!(bench.n_result_files(), 0);
}
