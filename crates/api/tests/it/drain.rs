//! The end of a server: what is in flight finishes, nothing new begins.

use crate::server::{FLUX_DEV, TestServer};
use crate::shape::{assert_refused, assert_status};
use serde_json::json;
use std::time::Duration;
use tokio::time::{sleep, timeout};

#[tokio::test]
async fn a_waiting_caller_gets_its_result_and_newcomers_a_503() {
    let server = TestServer::with_steps_of(Duration::from_millis(30)).await;
    let waiting = tokio::spawn({
        let (client, ask) = (server.client.clone(), server.ask_with(json!({"num_inference_steps": 20})));
        async move { client.post("/getImagetoImage", &ask).await }
    });
    while server.app.depth().await.unwrap().running == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    server.drain.begin(Duration::from_secs(30));
    assert_refused(&server.client.get("/readyz").await, 503, "Service Unavailable", &["about to end"]);
    let refused = server.client.post("/getImagetoImage", &server.ask(FLUX_DEV)).await;
    assert_refused(&refused, 503, "Service Unavailable", &["about to end"]);
    assert!(refused.header("retry-after").is_some());
    assert_eq!(server.client.get("/healthz").await.status, 200);
    assert_status(&waiting.await.unwrap(), 200, "SUCCESS");
    timeout(Duration::from_secs(5), server.served).await.expect("nobody is left").unwrap();
}

#[tokio::test]
async fn at_the_last_moment_a_caller_gets_its_tasks_id() {
    let server = TestServer::with_steps_of(Duration::from_millis(200)).await;
    let waiting = tokio::spawn({
        let (client, ask) = (server.client.clone(), server.ask_with(json!({"num_inference_steps": 50})));
        async move { client.post("/getImagetoImage", &ask).await }
    });
    while server.app.depth().await.unwrap().running == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    server.drain.begin(Duration::from_millis(100));
    let body = assert_status(&waiting.await.unwrap(), 200, "PENDING");
    assert!(body["task_id"].is_string());
    timeout(Duration::from_secs(5), server.served).await.expect("the server ends").unwrap();
    assert_eq!(server.app.depth().await.unwrap().running, 1, "the task goes on without its caller");
}

#[tokio::test]
async fn idle_connections_and_streams_do_not_hold_the_server_up() {
    let server = TestServer::that_only_accepts().await;
    let idle = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let id = server.queue(json!({})).await;
    let stream = server.client.call("GET", &format!("/v1/tasks/{id}/events")).begin().await;
    sleep(Duration::from_millis(50)).await;
    server.drain.begin(Duration::from_secs(30));
    timeout(Duration::from_secs(5), server.served).await.expect("nobody is left").unwrap();
    drop((idle, stream));
}

#[tokio::test]
async fn a_server_that_has_drained_says_so_until_its_tasks_are_done() {
    let server = TestServer::that_only_accepts().await;
    let id = server.queue(json!({})).await;
    server.drain.begin(Duration::ZERO);
    let closing = timeout(Duration::from_secs(5), server.served).await.expect("nobody waits").unwrap();
    let answers = tokio::spawn(closing.turn_away());
    // Also long after the drain's last moment, which cuts off whoever was there before.
    sleep(Duration::from_millis(2500)).await;
    assert_refused(&server.client.get("/readyz").await, 503, "Service Unavailable", &["about to end"]);
    assert_status(&server.client.post("/getImage", &json!({"id": id})).await, 200, "PENDING");
    answers.abort();
}
