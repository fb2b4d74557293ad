//! `Idempotency-Key`: the same key and body, the same task.

use crate::server::{FLUX_DEV, Setup, TestServer, WorkerSetup};
use crate::shape::{assert_refused, assert_status};
use serde_json::{Value, json};
use std::time::Duration;
use testkit::client::Client;
use testkit::reply::Reply;

async fn ask(client: &Client, key: &str, body: &Value) -> Reply {
    client.call("POST", "/getImagetoImage").header("Idempotency-Key", key).json(body).send().await
}

#[tokio::test]
async fn a_repeated_call_finds_the_same_task_and_fetches_nothing() {
    let server = TestServer::start().await;
    let body = server.ask(FLUX_DEV);
    let first = assert_status(&ask(&server.client, "one", &body).await, 200, "SUCCESS");
    let second = assert_status(&ask(&server.client, "one", &body).await, 200, "SUCCESS");
    assert_eq!(first["task_id"], second["task_id"]);
    assert_eq!(first["output"], second["output"]);
    assert_eq!(server.pictures.n_served(), 1);
    let other = assert_status(&ask(&server.client, "two", &body).await, 200, "SUCCESS");
    assert_ne!(first["task_id"], other["task_id"]);
    let foreign = assert_status(&ask(&server.another_client().await, "one", &body).await, 200, "SUCCESS");
    assert_ne!(first["task_id"], foreign["task_id"], "keys of different owners do not meet");
}

#[tokio::test]
async fn the_same_key_with_another_body_is_409() {
    let server = TestServer::that_only_accepts().await;
    let body = server.ask_with(json!({"celery": true}));
    assert_status(&ask(&server.client, "one", &body).await, 200, "PENDING");
    let other = server.ask_with(json!({"celery": true, "seed": 1}));
    assert_refused(&ask(&server.client, "one", &other).await, 409, "Conflict", &["Idempotency-Key"]);
}

#[tokio::test]
async fn a_key_that_cannot_be_one_is_422() {
    let server = TestServer::that_only_accepts().await;
    let body = server.ask(FLUX_DEV);
    for key in ["", " ", &"k".repeat(256), "\u{e9}"] {
        assert_refused(&ask(&server.client, key, &body).await, 422, "Validation Error", &["Idempotency-Key"]);
    }
    let longest = server.ask_with(json!({"celery": true}));
    assert_status(&ask(&server.client, &"k".repeat(255), &longest).await, 200, "PENDING");
}

#[tokio::test]
async fn many_at_once_make_one_task() {
    let server = TestServer::that_only_accepts().await;
    let body = server.ask_with(json!({"celery": true}));
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let (client, body) = (server.client.clone(), body.clone());
            tokio::spawn(async move { ask(&client, "one", &body).await.json()["task_id"].clone() })
        })
        .collect();
    let mut ids = Vec::new();
    for call in calls {
        ids.push(call.await.unwrap());
    }
    assert!(ids[0].is_string());
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(server.app.depth().await.unwrap().queued, 1);
}

#[tokio::test]
async fn a_caller_that_went_away_finds_its_task_again() {
    let step = WorkerSetup::StepTime(Duration::from_millis(10));
    let server = TestServer::with(Setup { worker: step, ..Setup::default() }).await;
    let body = server.ask(FLUX_DEV);
    let call = server.client.call("POST", "/getImagetoImage").header("Idempotency-Key", "one").json(&body);
    let stream = call.begin().await;
    while server.app.depth().await.unwrap().running == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(stream);
    let again = assert_status(&call.send().await, 200, "SUCCESS");
    assert_eq!(again["output"]["result"].as_array().unwrap().len(), 1);
    assert_eq!(server.pictures.n_served(), 1);
}
