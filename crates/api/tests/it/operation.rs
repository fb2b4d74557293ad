//! What those who run the server ask of it.

use crate::server::{FLUX_DEV, TestServer};
use crate::shape::assert_refused;
use serde_json::json;
use std::time::Duration;
use testkit::client::Client;

#[tokio::test]
async fn health_readiness_and_the_page_need_no_token() {
    let server = TestServer::that_only_accepts().await;
    server.queue(json!({})).await;
    let anonymous = Client::anonymous(server.address);
    assert_eq!(anonymous.get("/healthz").await.json(), json!({"status": "ok"}));
    assert_eq!(anonymous.get("/readyz").await.json(), json!({"status": "ready", "queued": 1, "running": 0}));
    let page = anonymous.get("/").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.text().contains(&format!("curl http://{}/getImagetoImage", server.address)));
    assert!(!page.text().contains("src="), "no assets from elsewhere");
    assert!(page.header("content-security-policy").unwrap().contains("default-src 'none'"));
}

#[tokio::test]
async fn a_server_that_cannot_store_pictures_is_not_ready() {
    let server = TestServer::that_only_accepts().await;
    let (files, moved) = (server.dir.path().join("blobs"), server.dir.path().join("moved"));
    std::fs::rename(&files, &moved).unwrap();
    std::fs::write(&files, "in the way").unwrap();
    let anonymous = Client::anonymous(server.address);
    assert_refused(&anonymous.get("/readyz").await, 503, "Service Unavailable", &["cannot write"]);
    assert_eq!(anonymous.get("/healthz").await.status, 200);
    std::fs::remove_file(&files).unwrap();
    std::fs::rename(&moved, &files).unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(anonymous.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn metrics_count_requests_by_route_and_tell_the_queue() {
    let server = TestServer::that_only_accepts().await;
    server.queue(json!({})).await;
    server.client.get("/v1/tasks/task_secret?token=secret").await;
    server.client.call("BREW", "/nowhere/secret").send().await;
    let text = Client::anonymous(server.address).get("/metrics").await.text();
    let has = |parts: &[&str]| text.lines().any(|line| parts.iter().all(|part| line.contains(part)));
    assert!(has(&["pentimento_http_requests_total", "POST", "\"/getImagetoImage\"", "\"200\""]), "{text}");
    assert!(has(&["pentimento_http_requests_total", "GET", "\"/v1/tasks/{id}\"", "\"404\""]), "{text}");
    assert!(has(&["pentimento_http_requests_total", "OTHER", "\"unmatched\"", "\"404\""]), "{text}");
    assert!(has(&["pentimento_tasks", "queued"]), "{text}");
    assert!(!text.contains("secret"), "a path is a secret");
}

#[tokio::test]
async fn every_answer_has_an_id_of_its_own() {
    let server = TestServer::that_only_accepts().await;
    let mut ids = Vec::new();
    for path in ["/healthz", "/nowhere", "/v1/tasks"] {
        ids.push(server.client.get(path).await.header("x-request-id").unwrap().to_owned());
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let server = TestServer::that_only_accepts().await;
    for (path, status) in [("/healthz", 200), ("/", 200), ("/nowhere", 404)] {
        let reply = server.client.call("HEAD", path).send().await;
        assert_eq!((reply.status, reply.body.len()), (status, 0), "{path}");
    }
    assert_eq!(server.client.call("HEAD", "/getImagetoImage").json(&server.ask(FLUX_DEV)).send().await.status, 405);
}
