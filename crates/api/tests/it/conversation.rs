//! HTTP itself: whatever the client does with the connection, it gets an answer of the right shape.

use crate::server::{FLUX_DEV, Setup, TestServer, WorkerSetup};
use crate::shape::{assert_refused, assert_shape};
use serde_json::json;
use std::time::Duration;
use testkit::client::exchange;
use testkit::reply::Reply;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn refused_head(server: &TestServer, request: &[u8], status: u16) {
    let bytes = exchange(server.address, request).await;
    let shown = String::from_utf8_lossy(&request[..request.len().min(60)]).into_owned();
    let reply = Reply::parse(&bytes).unwrap_or_else(|| panic!("{shown:?}: {:?}", String::from_utf8_lossy(&bytes)));
    assert_eq!(reply.status, status, "{shown:?}: {}", reply.text());
    assert_eq!(assert_shape(&reply)["status"], "FAILED");
}

#[tokio::test]
async fn a_malformed_head_is_answered() {
    let server = TestServer::that_only_accepts().await;
    for head in [
        "GARBAGE\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon here\r\n\r\n",
        "GET / HTTP/1.1\r\nbad name : x\r\n\r\n",
        "GET / HTTP/1.1\r\nname: a\0b\r\n\r\n",
        "G\u{e9}T / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 99999999999999999999999\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n",
    ] {
        refused_head(&server, head.as_bytes(), 400).await;
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_answered() {
    let server = TestServer::that_only_accepts().await;
    let long = "x".repeat(200_000);
    refused_head(&server, format!("GET / HTTP/1.1\r\nlong: {long}\r\n\r\n").as_bytes(), 431).await;
    let many = "header: x\r\n".repeat(300);
    refused_head(&server, format!("GET / HTTP/1.1\r\n{many}\r\n").as_bytes(), 431).await;
    let bytes = exchange(server.address, format!("GET /{long} HTTP/1.1\r\n\r\n").as_bytes()).await;
    let reply = Reply::parse(&bytes).unwrap();
    assert!([414, 431].contains(&reply.status), "{}", reply.status);
    assert_shape(&reply);
}

#[tokio::test]
async fn a_body_that_breaks_its_own_framing_is_400() {
    let server = TestServer::that_only_accepts().await;
    let token = server.client.token.clone().unwrap();
    let head = format!(
        "POST /getImagetoImage HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n"
    );
    for body in ["zz\r\nhello\r\n0\r\n\r\n", "5\r\nhelloworld\r\n0\r\n\r\n", "-1\r\n\r\n", "fffffffffffffffff\r\n\r\n"]
    {
        refused_head(&server, format!("{head}transfer-encoding: chunked\r\n\r\n{body}").as_bytes(), 400).await;
    }
    // Fewer bytes than announced, then no more.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(format!("{head}content-length: 100\r\n\r\n{{\"a\"").as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_refused(&Reply::parse(&answer).unwrap(), 400, "Bad Request", &["broke off"]);
}

#[tokio::test]
async fn a_slow_client_is_told_that_it_is_too_slow() {
    let mut setup = Setup { worker: WorkerSetup::Absent, ..Setup::default() };
    setup.limits.head_read = Duration::from_millis(300);
    setup.limits.body_read = Duration::from_millis(300);
    let server = TestServer::with(setup).await;
    let token = server.client.token.clone().unwrap();
    refused_head(&server, b"GET / HTTP/1.1\r\nhost: x\r\nslow: ", 400).await;
    let head = format!(
        "POST /getImagetoImage HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         content-length: 100\r\n\r\n{{"
    );
    let reply = Reply::parse(&exchange(server.address, head.as_bytes()).await).unwrap();
    assert_refused(&reply, 400, "Bad Request", &["did not arrive"]);
    assert!(exchange(server.address, b"").await.is_empty(), "who says nothing is owed nothing");
}

#[tokio::test]
async fn a_connection_serves_many_requests_and_mistakes_of_meaning_do_not_end_it() {
    let server = TestServer::that_only_accepts().await;
    let token = server.client.token.clone().unwrap();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    for body in ["{}", "nonsense", "[]"] {
        let request = format!(
            "POST /getImagetoImage HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let reply = loop {
            let mut buffer = [0; 4096];
            let n_bytes = stream.read(&mut buffer).await.unwrap();
            assert_ne!(n_bytes, 0, "the connection was closed");
            answer.extend_from_slice(&buffer[..n_bytes]);
            if answer.ends_with(b"}") {
                break Reply::parse(&answer).unwrap();
            }
        };
        assert!([400, 422].contains(&reply.status), "{}", reply.status);
        assert_shape(&reply);
    }
    // Several at once, the last of them no HTTP.
    let pipelined = b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\nGET /nowhere HTTP/1.1\r\nhost: x\r\n\r\nrubbish\r\n\r\n";
    stream.write_all(pipelined).await.unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.unwrap();
    let statuses: Vec<&str> =
        answers.split("HTTP/1.1 ").filter(|part| !part.is_empty()).map(|part| &part[..3]).collect();
    assert_eq!(statuses, ["404", "404", "400"], "{answers}");
}

#[tokio::test]
async fn a_client_that_still_sends_gets_its_refusal() {
    let server = TestServer::that_only_accepts().await;
    let anonymous = testkit::client::Client::anonymous(server.address);
    let call = anonymous.call("POST", "/getImagetoImage").header("content-type", "application/json");
    for _ in 0..5 {
        let reply = call.clone().body(vec![b' '; 20 << 20]).send().await;
        assert_refused(&reply, 401, "Authentication Error", &[]);
    }
}

#[tokio::test]
async fn an_expectation_is_met() {
    let server = TestServer::that_only_accepts().await;
    let ask = server.ask_with(json!({"celery": true}));
    let reply = server.client.call("POST", "/getImagetoImage").header("expect", "100-continue").json(&ask).send().await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["app_id"], FLUX_DEV);
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answers_is_let_go() {
    let mut setup = Setup { worker: WorkerSetup::Absent, ..Setup::default() };
    setup.limits.connections = 1;
    setup.limits.write_stall = Duration::from_millis(300);
    setup.limits.linger = Duration::from_millis(300);
    let server = TestServer::with(setup).await;
    let mut greedy = TcpStream::connect(server.address).await.unwrap();
    // More than the buffers of both ends hold, unless the server gives up first.
    let asking = tokio::spawn(async move {
        while greedy.write_all(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n").await.is_ok() {}
        greedy
    });
    tokio::time::timeout(Duration::from_secs(30), asking).await.expect("its requests are not read for ever").unwrap();
    let next = tokio::time::timeout(Duration::from_secs(30), server.client.get("/healthz")).await;
    assert_eq!(next.expect("its place is free").status, 200);
}
