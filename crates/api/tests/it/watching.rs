//! `GET /v1/tasks/{id}/events`: queued position, each step, done.

use crate::server::{Setup, TestServer, WorkerSetup};
use serde_json::{Value, json};
use std::time::Duration;

/// Name and data of each event.
fn events(text: &str) -> Vec<(String, Value)> {
    let field = |block: &str, name: &str| {
        block.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
    };
    let blocks = text.split("\n\n").filter(|block| block.contains("event:"));
    blocks
        .map(|block| {
            let data = field(block, "data:").unwrap();
            (field(block, "event:").unwrap(), serde_json::from_str(&data).unwrap())
        })
        .collect()
}

#[tokio::test]
async fn the_stream_tells_position_steps_and_end_and_ends() {
    let server = TestServer::with_steps_of(Duration::from_millis(40)).await;
    let first = server.queue(json!({"num_inference_steps": 5})).await;
    let second = server.queue(json!({"num_inference_steps": 5})).await;
    server.reaches(&first, "running").await;
    let reply = server.client.get(&format!("/v1/tasks/{second}/events")).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/event-stream")));
    let events = events(&reply.text());
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(events[0], ("queued".to_owned(), json!({"position": 0})));
    assert_eq!(names.last(), Some(&"done"));
    let steps: Vec<u64> =
        events.iter().filter(|(name, _)| name == "step").map(|(_, data)| data["step"].as_u64().unwrap()).collect();
    assert!(steps.len() >= 3 && steps.is_sorted_by(|a, b| a < b), "{steps:?}");
    assert!(events.iter().filter(|(name, _)| name == "step").all(|(_, data)| data["n_steps"] == 5));
    let (_, done) = events.last().unwrap();
    assert_eq!((&done["state"], &done["task_id"]), (&json!("succeeded"), &json!(second)));
    assert_eq!(done["output"]["result"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_task_that_is_over_tells_only_that() {
    let server = TestServer::start().await;
    for (prompt, state) in [("a cat", "succeeded"), ("fail please", "failed")] {
        let id = server.queue(json!({"prompt": prompt})).await;
        server.reaches(&id, state).await;
        let told = events(&server.client.get(&format!("/v1/tasks/{id}/events")).await.text());
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].0.as_str(), &told[0].1["state"]), ("done", &json!(state)));
    }
}

#[tokio::test]
async fn a_cancelled_task_ends_its_streams() {
    let server = TestServer::with(Setup { worker: WorkerSetup::Absent, ..Setup::default() }).await;
    let id = server.queue(json!({})).await;
    let watching = tokio::spawn({
        let (client, path) = (server.client.clone(), format!("/v1/tasks/{id}/events"));
        async move { client.get(&path).await.text() }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.client.delete(&format!("/v1/tasks/{id}")).await;
    let told = events(&watching.await.unwrap());
    let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["queued", "done"]);
    assert_eq!(told[1].1["state"], "cancelled");
}
