//! `inference_type`: which class of GPU a task names, which it gets, and what if nobody offers it.

use crate::server::{ANIME, FLUX_DEV, SDXL, Setup, TestServer, merged};
use crate::shape::{assert_refused, assert_status};
use domain::gpu::{GpuFallback, GpuOffer};
use domain::request::InferenceType;
use serde_json::{Value, json};

async fn offering(classes: &[InferenceType], fallback: GpuFallback) -> TestServer {
    let gpus = GpuOffer::new(classes, fallback).unwrap();
    TestServer::with(Setup { gpus, ..Setup::default() }).await
}

/// The class that a painted task tells, and what it says was ignored.
async fn painted(server: &TestServer, app_id: &str, more: Value) -> (Value, Value) {
    let reply = server.client.post("/getImagetoImage", &merged(server.ask(app_id), more)).await;
    let input = assert_status(&reply, 200, "SUCCESS")["input"].clone();
    (input["inference_type"].clone(), input["ignored"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_class_that_is_offered_is_painted_on_and_told() {
    let server = TestServer::start().await;
    for class in ["a10g", "a100", "h100"] {
        assert_eq!(painted(&server, ANIME, json!({"inference_type": class})).await, (json!(class), json!([])));
    }
    assert_eq!(painted(&server, ANIME, json!({})).await, (json!("a10g"), json!([])));
    let status = server.client.get("/v1/tasks?limit=1").await.json();
    assert_eq!(status["tasks"][0]["input"]["inference_type"], "a10g");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_class_that_nobody_offers_is_refused_with_what_is_offered() {
    let server = offering(&[InferenceType::A10g, InferenceType::A100], GpuFallback::Refuse).await;
    let body = merged(server.ask(SDXL), json!({"inference_type": "h100", "celery": true}));
    let reply = server.client.post("/getImagetoImage", &body).await;
    assert_refused(&reply, 503, "Service Unavailable", &["inference_type", "got h100", "a10g, a100"]);
    assert!(reply.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().unwrap() > 0));
    assert_eq!(server.pictures.n_served(), 0, "before anything is fetched");
    assert_eq!(painted(&server, SDXL, json!({"inference_type": "a100"})).await, (json!("a100"), json!([])));
    // Elsewhere it means nothing, whatever is offered.
    let elsewhere = painted(&server, FLUX_DEV, json!({"inference_type": "h100"})).await;
    assert_eq!(elsewhere, (Value::Null, json!(["inference_type"])));
    let unknown = merged(server.ask(SDXL), json!({"inference_type": "b200"}));
    let reply = server.client.post("/getImagetoImage", &unknown).await;
    assert_refused(&reply, 422, "Validation Error", &["inference_type", "b200"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_names_no_class_takes_what_there_is() {
    let server = offering(&[InferenceType::H100], GpuFallback::Refuse).await;
    assert_eq!(painted(&server, ANIME, json!({})).await, (json!("h100"), json!([])));
    assert_eq!(painted(&server, ANIME, json!({"inference_type": null})).await, (json!("h100"), json!([])));
    let named = merged(server.ask(ANIME), json!({"inference_type": "a10g"}));
    assert_eq!(server.client.post("/getImagetoImage", &named).await.status, 503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_fallback_the_next_class_takes_it_and_the_answer_says_so() {
    let server = offering(&[InferenceType::A100], GpuFallback::Nearest).await;
    let ignored = json!(["inference_type"]);
    for class in ["a10g", "h100"] {
        let more = json!({"inference_type": class});
        assert_eq!(painted(&server, ANIME, more).await, (json!("a100"), ignored.clone()), "{class}");
    }
    assert_eq!(painted(&server, ANIME, json!({"inference_type": "a100"})).await, (json!("a100"), json!([])));
}

#[tokio::test]
async fn the_list_of_apps_tells_the_classes() {
    let server = offering(&[InferenceType::A100, InferenceType::H100], GpuFallback::Refuse).await;
    let apps = server.client.get("/v1/apps").await.json();
    for app in apps["apps"].as_array().unwrap() {
        let expect = if app["deployed"] == true { json!(["a100", "h100"]) } else { Value::Null };
        assert_eq!(app["inference_types"], expect, "{}", app["slug"]);
    }
}
