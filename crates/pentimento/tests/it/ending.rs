//! How the server ends when it is asked to.
#![cfg(unix)]

use crate::process::{Server, ask, token};
use std::time::Duration;
use testkit::pictures::PictureServer;

const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_caller_gets_its_picture_before_the_server_ends() {
    let dir = tempfile::tempdir().unwrap();
    let token = token(dir.path());
    let pictures = PictureServer::start().await;
    let mut server = Server::start(dir.path(), &["--allow-source", "127.0.0.0/8", "--drain", "60"]);
    let client = server.client(&token);
    let mut body = ask(&pictures.url("128x128.png"), 20);
    body["celery"] = false.into();
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.post("/getImagetoImage", &body).await }
    });
    while client.get("/readyz").await.json()["running"] != 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.signal("-TERM");
    let reply = waiting.await.unwrap();
    assert_eq!((reply.status, &reply.json()["status"]), (200, &"SUCCESS".into()));
    assert_eq!(server.end_within(SOON).code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_does_not_end_in_time_is_given_back_and_a_second_signal_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let token = token(dir.path());
    let pictures = PictureServer::start().await;
    let mut server = Server::start(dir.path(), &["--allow-source", "127.0.0.0/8", "--drain", "0"]);
    let client = server.client(&token);
    let reply = client.post("/getImagetoImage", &ask(&pictures.url("768x768.png"), 50)).await;
    let id = reply.json()["task_id"].as_str().unwrap().to_owned();
    while client.get("/readyz").await.json()["running"] != 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.signal("-TERM");
    assert_eq!(server.end_within(SOON).code(), Some(0));

    let mut server = Server::start(dir.path(), &["--drain", "3600"]);
    let client = server.client(&token);
    let path = format!("/v1/tasks/{id}");
    while client.get("/readyz").await.json()["running"] != 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let task = client.get(&path).await.json();
    assert_eq!((&task["state"], &task["attempt"]), (&"running".into(), &2.into()), "it was given back and begun again");
    server.signal("-INT");
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.signal("-INT");
    assert_eq!(server.end_within(Duration::from_secs(5)).code(), Some(1));
}
