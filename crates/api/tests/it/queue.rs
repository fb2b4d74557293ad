//! Synchronous and queued calls, status, list, cancellation, and callers that go away.

use crate::server::{FLUX_DEV, SDXL, Setup, TestServer, WorkerSetup, merged};
use crate::shape::{assert_refused, assert_status};
use serde_json::json;
use std::time::Duration;
use tokio::time::sleep;

#[tokio::test]
async fn a_synchronous_call_answers_with_the_result() {
    let server = TestServer::start().await;
    let ask = server.ask_with(json!({"batch": 3, "seed": 7}));
    let body = assert_status(&server.client.post("/getImagetoImage", &ask).await, 200, "SUCCESS");
    assert_eq!((&body["error"], &body["error_data"]), (&json!(null), &json!(null)));
    for list in ["result", "low_res_urls", "Has_NSFW_Content"] {
        assert_eq!(body["output"][list].as_array().unwrap().len(), 3, "{list}");
    }
    assert_eq!(body["output"]["Has_NSFW_Content"], json!([false, false, false]));
    for time in ["startup_time", "runtime"] {
        assert!(body["time_required"][time].as_f64().unwrap() >= 0.0, "{time}");
    }
    assert_eq!((&body["app_id"], &body["input"]["seed"]), (&json!(FLUX_DEV), &json!(7)));
    let status = server.client.post("/getImage", &json!({"id": body["task_id"]})).await;
    let status = assert_status(&status, 200, "SUCCESS");
    assert_eq!(status["output"], body["output"]);
}

#[tokio::test]
async fn a_queued_call_answers_at_once_and_is_asked_later() {
    let server = TestServer::with_steps_of(Duration::from_millis(5)).await;
    let id = server.queue(json!({"celery": true})).await;
    let mut body = server.client.post("/getImage", &json!({"id": id})).await;
    while body.json()["status"] == "PENDING" {
        assert_status(&body, 200, "PENDING");
        sleep(Duration::from_millis(10)).await;
        body = server.client.post("/getImage", &json!({"id": id})).await;
    }
    let body = assert_status(&body, 200, "SUCCESS");
    assert_eq!(body["output"]["result"].as_array().unwrap().len(), 1);
    assert_eq!(body["task_id"], id.as_str());
}

#[tokio::test]
async fn the_exact_state_is_shown() {
    let server = TestServer::that_only_accepts().await;
    let first = server.queue(json!({})).await;
    let second = server.queue(json!({})).await;
    for (id, position) in [(&first, 0), (&second, 1)] {
        let body = server.client.get(&format!("/v1/tasks/{id}")).await.json();
        assert_eq!((&body["state"], &body["position"]), (&json!("queued"), &json!(position)), "{id}");
        assert_eq!((&body["status"], &body["attempt"]), (&json!("PENDING"), &json!(0)));
        assert!(body["created_ms"].is_i64() && body["finished_ms"].is_null());
    }
}

#[tokio::test]
async fn the_list_is_newest_first_in_pages() {
    let server = TestServer::that_only_accepts().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(server.queue(json!({})).await);
        sleep(Duration::from_millis(3)).await;
    }
    ids.reverse();
    let mut seen = Vec::new();
    let mut path = "/v1/tasks?limit=2".to_owned();
    loop {
        let page = server.client.get(&path).await.json();
        seen.extend(page["tasks"].as_array().unwrap().iter().map(|task| task["task_id"].as_str().unwrap().to_owned()));
        let Some(before) = page["next_before"].as_str() else { break };
        path = format!("/v1/tasks?limit=2&before={before}");
    }
    assert_eq!(seen, ids);
    for limit in ["0", "101", "-1", "x", ""] {
        let reply = server.client.get(&format!("/v1/tasks?limit={limit}")).await;
        assert_refused(&reply, 422, "Validation Error", &["limit", "1 to 100"]);
    }
    assert_eq!(server.client.get("/v1/tasks?%ff=%ff&limit=%31").await.status, 200);
}

#[tokio::test]
async fn a_queued_task_is_cancelled_at_once() {
    let server = TestServer::that_only_accepts().await;
    let id = server.queue(json!({})).await;
    let body = server.client.delete(&format!("/v1/tasks/{id}")).await;
    assert_eq!((body.status, &body.json()["state"]), (200, &json!("cancelled")));
    let status = server.client.post("/getImage", &json!({"id": id})).await;
    assert_refused(&status, 500, "Cancelled", &["cancelled"]);
    assert_eq!(
        server.client.delete(&format!("/v1/tasks/{id}")).await.json()["state"],
        "cancelled",
        "twice is no error"
    );
}

#[tokio::test]
async fn a_running_task_is_cancelled_within_one_step() {
    let server = TestServer::with_steps_of(Duration::from_millis(100)).await;
    let id = server.queue(json!({"num_inference_steps": 50})).await;
    server.reaches(&id, "running").await;
    let asked = std::time::Instant::now();
    assert_eq!(server.client.delete(&format!("/v1/tasks/{id}")).await.status, 200);
    server.reaches(&id, "cancelled").await;
    assert!(asked.elapsed() < Duration::from_secs(2), "took {:?}", asked.elapsed());
}

#[tokio::test]
async fn a_task_that_is_over_is_not_cancelled() {
    let server = TestServer::start().await;
    let body = server.client.post("/getImagetoImage", &server.ask(FLUX_DEV)).await.json();
    let id = body["task_id"].as_str().unwrap();
    let cancelled = server.client.delete(&format!("/v1/tasks/{id}")).await;
    assert_eq!((cancelled.status, &cancelled.json()["state"]), (200, &json!("succeeded")));
}

#[tokio::test]
async fn a_caller_that_disconnects_frees_its_place() {
    let server = TestServer::with_steps_of(Duration::from_millis(50)).await;
    let ask = server.ask_with(json!({"num_inference_steps": 50}));
    let call = server.client.call("POST", "/getImagetoImage").json(&ask);
    let running = call.begin().await;
    while server.app.depth().await.unwrap().running == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    let queued = call.begin().await;
    while server.app.depth().await.unwrap().queued == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    drop(queued);
    drop(running);
    let freed = async {
        while server.app.depth().await.unwrap() != store::contract::Depth::default() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    // Fifty steps would take 2.5 s.
    tokio::time::timeout(Duration::from_secs(2), freed).await.expect("both places are free");
    let tasks = server.client.get("/v1/tasks").await.json()["tasks"].as_array().unwrap().clone();
    assert!(tasks.iter().all(|task| task["state"] == "cancelled"), "{tasks:?}");
}

#[tokio::test]
async fn a_queued_task_outlives_its_callers_connection() {
    let server = TestServer::with_steps_of(Duration::from_millis(5)).await;
    let id = server.queue(json!({})).await;
    server.reaches(&id, "succeeded").await;
}

#[tokio::test]
async fn a_caller_that_waits_too_long_gets_the_tasks_id() {
    let setup = Setup {
        worker: WorkerSetup::StepTime(Duration::from_millis(50)),
        sync_wait: Duration::from_millis(100),
        ..Setup::default()
    };
    let server = TestServer::with(setup).await;
    let body = assert_status(&server.client.post("/getImagetoImage", &server.ask(FLUX_DEV)).await, 200, "PENDING");
    server.reaches(body["task_id"].as_str().unwrap(), "succeeded").await;
}

#[tokio::test]
async fn the_same_request_and_seed_give_the_same_bytes() {
    let server = TestServer::start().await;
    let mut pictures = Vec::new();
    for seed in [5, 5, 6] {
        let ask = merged(server.ask(SDXL), json!({"seed": seed}));
        let body = assert_status(&server.client.post("/getImagetoImage", &ask).await, 200, "SUCCESS");
        pictures.push(server.client.get_url(body["output"]["result"][0].as_str().unwrap()).await.body);
    }
    assert_eq!(pictures[0], pictures[1]);
    assert_ne!(pictures[0], pictures[2]);
}
