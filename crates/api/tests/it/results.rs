//! Result URLs: whole, typed, unguessable, and gone after a while.

use crate::server::{FLUX_DEV, Setup, TestServer};
use crate::shape::{assert_refused, assert_status};
use domain::quantity::Size;
use serde_json::{Value, json};
use std::time::Duration;
use testkit::client::Client;
use testkit::pictures::png_size;

async fn painted(server: &TestServer, more: Value) -> Value {
    let ask = server.ask_with(more);
    assert_status(&server.client.post("/getImagetoImage", &ask).await, 200, "SUCCESS")["output"].clone()
}

#[tokio::test]
async fn results_and_thumbnails_come_in_the_format_asked_for() {
    let server = TestServer::start().await;
    let anonymous = Client::anonymous(server.address);
    for (format, media_type, magic) in [
        ("png", "image/png", &b"\x89PNG"[..]),
        ("jpeg", "image/jpeg", b"\xff\xd8\xff"),
        ("webp", "image/webp", b"RIFF"),
    ] {
        let output = painted(&server, json!({"output_format": format})).await;
        for list in ["result", "low_res_urls"] {
            let url = output[list][0].as_str().unwrap();
            assert!(url.starts_with(&format!("http://{}/results/", server.address)), "{url}");
            let reply = anonymous.get_url(url).await;
            assert_eq!(reply.status, 200, "needs no token");
            if list == "result" {
                assert_eq!(reply.header("content-type"), Some(media_type));
                assert!(reply.body.starts_with(magic));
            }
            assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
            assert_eq!(reply.header("content-disposition"), Some("inline"));
            let max_age = reply.header("cache-control").unwrap().split("max-age=").nth(1).unwrap();
            let seconds: u64 = max_age.split(',').next().unwrap().parse().unwrap();
            assert!((3500..=3600).contains(&seconds), "{seconds}");
        }
    }
}

#[tokio::test]
async fn a_thumbnail_is_smaller_than_its_picture() {
    let server = TestServer::start().await;
    let output = painted(&server, json!({"image": server.pictures.url("1200x600.png")})).await;
    let full = server.client.get_url(output["result"][0].as_str().unwrap()).await;
    let low = server.client.get_url(output["low_res_urls"][0].as_str().unwrap()).await;
    assert_eq!(png_size(&full.body), Size::new(1200, 600));
    assert_ne!(full.body, low.body);
    assert!(low.body.len() < full.body.len());
}

#[tokio::test]
async fn names_are_unguessable_and_all_different() {
    let server = TestServer::start().await;
    let output = painted(&server, json!({"batch": 8})).await;
    let urls =
        [output["result"].as_array().unwrap().clone(), output["low_res_urls"].as_array().unwrap().clone()].concat();
    let mut names: Vec<&str> = urls.iter().map(|url| url.as_str().unwrap().rsplit('/').next().unwrap()).collect();
    for name in &names {
        let digits = name.split(['-', '.']).nth(1).unwrap();
        assert!(digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit()), "{name}");
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 16);
}

#[tokio::test]
async fn other_names_are_404() {
    let server = TestServer::start().await;
    for name in ["r-00000000000000000000000000000000.png", "..%2f..%2fstore.db", "%2e%2e", "x", ".png", "a%00b.png"] {
        let reply = server.client.get(&format!("/results/{name}")).await;
        assert_refused(&reply, 404, "Not Found", &["no result"]);
    }
}

#[tokio::test]
async fn a_result_expires() {
    let server = TestServer::with(Setup { keep_results: Duration::from_millis(1500), ..Setup::default() }).await;
    let output = painted(&server, json!({})).await;
    let url = output["result"][0].as_str().unwrap();
    assert_eq!(server.client.get_url(url).await.status, 200);
    tokio::time::sleep(Duration::from_millis(1600)).await;
    assert_refused(&server.client.get_url(url).await, 404, "Not Found", &["expired"]);
}

#[tokio::test]
async fn results_that_are_being_sent_share_a_limit() {
    let server = TestServer::start().await;
    let url = painted(&server, json!({})).await["result"][0].as_str().unwrap().to_owned();
    let n_bytes = server.client.get_url(&url).await.body.len();

    let server = TestServer::with(Setup { results_bytes: n_bytes * 2, ..Setup::default() }).await;
    let url = painted(&server, json!({})).await["result"][0].as_str().unwrap().to_owned();
    for _ in 0..8 {
        assert_eq!(server.client.get_url(&url).await.status, 200, "what was sent is given back");
    }

    let server = TestServer::with(Setup { results_bytes: n_bytes / 2, ..Setup::default() }).await;
    let url = painted(&server, json!({})).await["result"][0].as_str().unwrap().to_owned();
    let reply = server.client.get_url(&url).await;
    assert_refused(&reply, 503, "Service Unavailable", &["too many results"]);
    assert_eq!(reply.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn urls_are_what_the_operator_or_the_host_header_says() {
    let server =
        TestServer::with(Setup { public_url: Some("https://pictures.example/api/".into()), ..Setup::default() }).await;
    let url = painted(&server, json!({})).await["result"][0].as_str().unwrap().to_owned();
    assert!(url.starts_with("https://pictures.example/api/results/"), "{url}");

    let server = TestServer::start().await;
    let body = server.ask(FLUX_DEV).to_string();
    let token = server.client.token.clone().unwrap();
    for (host, expect) in
        [("front.example:81", "http://front.example:81/"), ("evil.example/x?", &format!("http://{}/", server.address))]
    {
        let request = format!(
            "POST /getImagetoImage HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let reply = testkit::client::exchange(server.address, request.as_bytes()).await;
        let reply = testkit::reply::Reply::parse(&reply).unwrap();
        let url = reply.json()["output"]["result"][0].as_str().unwrap().to_owned();
        assert!(url.starts_with(expect), "{url}");
    }
}
