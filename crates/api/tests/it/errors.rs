//! Section 4 of the contract: each error, and its shape.

use crate::server::{CANNY, FLUX_DEV, Setup, TestServer, WorkerSetup, merged};
use crate::shape::{assert_refused, assert_shape, assert_status};
use domain::limits::BODY_BYTES_MAX;
use serde_json::json;
use std::collections::HashMap;
use std::time::Duration;
use store::sqlite::StoreOptions;
use testkit::client::{Client, exchange};
use testkit::pictures::{PictureServer, http_answer};
use testkit::reply::Reply;

#[tokio::test]
async fn a_body_that_is_not_a_json_object_is_400() {
    let server = TestServer::that_only_accepts().await;
    for body in
        ["", " ", "{", "nonsense", "[]", "null", "\"text\"", "7", "{\"a\":1}}", "{'a':1}", "{\"a\": NaN}", "\u{feff}{}"]
    {
        for path in ["/getImagetoImage", "/getImage"] {
            let call = server.client.call("POST", path).header("content-type", "application/json").body(body);
            assert_refused(&call.send().await, 400, "Bad Request", &["body"]);
        }
    }
    for body in [&b"{\"prompt\": \"\xff\xfe\"}"[..], b"\x00\x01\x02", b"{\"prompt\": \"\\ud800\"}"] {
        let call = server.client.call("POST", "/getImagetoImage").header("content-type", "application/json").body(body);
        assert_refused(&call.send().await, 400, "Bad Request", &["not JSON"]);
    }
}

#[tokio::test]
async fn no_valid_token_is_401() {
    let server = TestServer::that_only_accepts().await;
    let anonymous = Client::anonymous(server.address);
    let unknown = format!("Bearer pk_{}", "0".repeat(64));
    let calls = [
        ("POST", "/getImagetoImage"),
        ("POST", "/getImageToImage"),
        ("POST", "/getImage"),
        ("GET", "/v1/tasks"),
        ("GET", "/v1/apps"),
        ("GET", "/v1/tasks/x"),
        ("GET", "/v1/tasks/x/events"),
        ("DELETE", "/v1/tasks/x"),
    ];
    for (method, path) in calls {
        let call = anonymous.call(method, path).json(&server.ask(FLUX_DEV));
        let mut replies = vec![call.send().await];
        for header in ["", "Bearer", "Bearer ", "Basic abc", "Bearer pk_123", "pk_123", &unknown] {
            replies.push(call.clone().header("authorization", header).send().await);
        }
        for reply in replies {
            assert_refused(&reply, 401, "Authentication Error", &[]);
            assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        }
    }
}

#[tokio::test]
async fn a_revoked_key_is_401() {
    let server = TestServer::that_only_accepts().await;
    assert_eq!(server.client.get("/v1/tasks").await.status, 200);
    let id = server.app.keys().list().await.unwrap()[0].id.clone();
    server.app.keys().revoke(id.as_str()).await.unwrap();
    assert_refused(&server.client.get("/v1/tasks").await, 401, "Authentication Error", &["revoked"]);
}

#[tokio::test]
async fn the_token_is_checked_before_the_body() {
    let server = TestServer::that_only_accepts().await;
    // A body that never comes.
    let head = format!("POST /getImagetoImage HTTP/1.1\r\nhost: {}\r\ncontent-length: 1000000\r\n\r\n", server.address);
    let reply = Reply::parse(&exchange(server.address, head.as_bytes()).await).unwrap();
    assert_refused(&reply, 401, "Authentication Error", &[]);
}

#[tokio::test]
async fn an_unknown_task_is_404() {
    let server = TestServer::that_only_accepts().await;
    for id in ["", "x", "task_", "task_00000000000000000000000000000000", "../../etc/passwd"] {
        let reply = server.client.post("/getImage", &json!({"id": id})).await;
        assert_refused(&reply, 404, "Not Found", &["no task"]);
    }
    for id in ["x", "task_00000000000000000000000000000000", "%2e%2e", "%ff"] {
        for (method, path) in [("GET", format!("/v1/tasks/{id}")), ("DELETE", format!("/v1/tasks/{id}"))] {
            let reply = server.client.call(method, &path).send().await;
            assert!([400, 404].contains(&reply.status), "{}", reply.status);
            assert_eq!(assert_shape(&reply)["status"], "FAILED");
        }
        let reply = server.client.get(&format!("/v1/tasks/{id}/events")).await;
        assert!([400, 404].contains(&reply.status));
        assert_shape(&reply);
    }
    assert_refused(&server.client.post("/getImage", &json!({})).await, 422, "Validation Error", &["id"]);
    assert_refused(&server.client.post("/getImage", &json!({"id": 5})).await, 400, "Bad Request", &["id", "5"]);
}

#[tokio::test]
async fn an_unknown_route_is_404_and_a_wrong_method_405() {
    let server = TestServer::that_only_accepts().await;
    for path in ["/nothing", "/getimagetoimage", "/v1", "/results", "/results/", "/%00", "/v1/tasks/a/b", "//"] {
        assert_refused(&server.client.get(path).await, 404, "Not Found", &[]);
    }
    for (method, path, allow) in [
        ("GET", "/getImagetoImage", "POST"),
        ("PUT", "/getImage", "POST"),
        ("PATCH", "/v1/tasks", "GET"),
        ("BREW", "/", "GET"),
    ] {
        let reply = server.client.call(method, path).send().await;
        assert_refused(&reply, 405, "Method Not Allowed", &["method"]);
        assert!(reply.header("allow").unwrap().contains(allow), "{method} {path}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_413() {
    let server = TestServer::that_only_accepts().await;
    let call = server.client.call("POST", "/getImagetoImage").header("content-type", "application/json");
    let reply = call.clone().body(vec![b' '; BODY_BYTES_MAX + 1]).send().await;
    assert_refused(&reply, 413, "Payload Too Large", &["33554432"]);
    // Without a length the limit is met on the way.
    let chunk = [format!("{:x}\r\n", 1 << 20).into_bytes(), vec![b' '; 1 << 20], b"\r\n".to_vec()].concat();
    let head = String::from_utf8(call.bytes()).unwrap().replace("content-length: 0", "transfer-encoding: chunked");
    let bytes = [head.into_bytes(), chunk.repeat(34), b"0\r\n\r\n".to_vec()].concat();
    let reply = Reply::parse(&exchange(server.address, &bytes).await).unwrap();
    assert_refused(&reply, 413, "Payload Too Large", &["33554432"]);
}

#[tokio::test]
async fn another_type_than_json_is_415() {
    let server = TestServer::that_only_accepts().await;
    for media_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""] {
        let call = server.client.call("POST", "/getImagetoImage").header("content-type", media_type).body("{}");
        assert_refused(&call.send().await, 415, "Unsupported Media Type", &["application/json"]);
    }
    let call = server.client.call("POST", "/getImagetoImage").body("{}");
    assert_refused(&call.send().await, 415, "Unsupported Media Type", &["nothing", "application/json"]);
}

#[tokio::test]
async fn a_picture_that_cannot_be_had_is_424_and_one_too_large_413() {
    // Says that it has 65535x65535 pixels.
    let bomb = include_bytes!("bomb.png");
    let huge = b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: 99999999\r\n\r\n".to_vec();
    let answers = HashMap::from([
        ("/gone".to_owned(), http_answer("410 Gone", "text/plain", b"")),
        ("/bomb".to_owned(), http_answer("200 OK", "image/png", bomb)),
        ("/huge".to_owned(), huge),
    ]);
    let pictures = PictureServer::with(answers).await;
    let server = TestServer::that_only_accepts().await;
    let ask = async |url: &str| {
        let body = server.ask_with(json!({"image": url, "celery": true}));
        server.client.post("/getImagetoImage", &body).await
    };
    for url in
        [pictures.url("absent.jpg"), pictures.url("gone"), pictures.url("text"), "http://127.0.0.1:9/x".to_owned()]
    {
        assert_refused(&ask(&url).await, 424, "Image URL Error", &["image"]);
    }
    for url in [
        "http://",
        "http://a b/",
        "http://[::1",
        "data:",
        "data:image/png;base64,!!!",
        "data:,hello",
        "http://10.0.0.1/",
    ] {
        assert_refused(&ask(url).await, 424, "Image URL Error", &["image"]);
    }
    for url in [pictures.url("bomb"), pictures.url("huge")] {
        assert_refused(&ask(&url).await, 413, "Payload Too Large", &["image"]);
    }
    // The error names what the request named.
    let body = ask(&pictures.url("gone")).await.json();
    assert_eq!(body["app_id"], FLUX_DEV);
}

#[tokio::test]
async fn the_servers_own_network_is_out_of_bounds() {
    let server = TestServer::with(Setup { may_fetch_locally: false, ..Setup::default() }).await;
    for host in ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f000001", "169.254.169.254"] {
        let url = server.pictures.url("64x64.png").replace("127.0.0.1", host);
        let reply = server.client.post("/getImagetoImage", &server.ask_with(json!({"image": url}))).await;
        assert_refused(&reply, 424, "Image URL Error", &["public"]);
    }
    assert_eq!(server.pictures.n_served(), 0);
}

#[tokio::test]
async fn over_the_rate_limit_is_429() {
    let setup = Setup { submissions_per_minute: 2, worker: WorkerSetup::Absent, ..Setup::default() };
    let server = TestServer::with(setup).await;
    server.queue(json!({})).await;
    server.queue(json!({})).await;
    let reply = server.client.post("/getImagetoImage", &server.ask(FLUX_DEV)).await;
    assert_refused(&reply, 429, "Rate Limit Error", &["2 submissions a minute"]);
    assert_eq!(reply.header("retry-after"), Some("30"));
    assert_eq!(server.pictures.n_served(), 2, "a refused request fetches nothing");
}

#[tokio::test]
async fn over_the_concurrency_limit_is_429_for_this_key_alone() {
    let store = StoreOptions { owner_tasks_max: 1, ..StoreOptions::default() };
    let server = TestServer::with(Setup { store, worker: WorkerSetup::Absent, ..Setup::default() }).await;
    server.queue(json!({})).await;
    let ask = server.ask_with(json!({"celery": true}));
    let reply = server.client.post("/getImagetoImage", &ask).await;
    assert_refused(&reply, 429, "Rate Limit Error", &["unfinished"]);
    assert_eq!(server.pictures.n_served(), 1, "a refused request fetches nothing");
    assert!(reply.header("retry-after").is_some());
    assert_status(&server.another_client().await.post("/getImagetoImage", &ask).await, 200, "PENDING");
}

#[tokio::test]
async fn a_full_queue_is_503() {
    let store = StoreOptions { queue_tasks_max: 1, ..StoreOptions::default() };
    let server = TestServer::with(Setup { store, worker: WorkerSetup::Absent, ..Setup::default() }).await;
    server.queue(json!({})).await;
    let reply = server.client.post("/getImagetoImage", &server.ask(FLUX_DEV)).await;
    assert_refused(&reply, 503, "Service Unavailable", &["the queue is full"]);
    assert!(reply.header("retry-after").is_some());
}

#[tokio::test]
async fn an_app_without_weights_is_503_and_says_what_installs_them() {
    let server =
        TestServer::with(Setup { absent: vec!["flux-canny", "pentimento-nano-canny"], ..Setup::default() }).await;
    let reply = server.client.post("/getImagetoImage", &server.ask(CANNY)).await;
    let named =
        ["Flux Canny", "`pentimento pull flux-canny`", "https://huggingface.co/black-forest-labs/FLUX.1-Canny-dev"];
    assert_refused(&reply, 503, "Service Unavailable", &named);
    assert!(reply.header("retry-after").is_some());
    assert_eq!(server.pictures.n_served(), 0);
}

#[tokio::test]
async fn a_task_that_fails_is_500_with_its_reason() {
    let server = TestServer::start().await;
    for prompt in ["fail please", "panic please"] {
        let ask = merged(server.ask(FLUX_DEV), json!({"prompt": prompt, "ref_id": "mine"}));
        let body = assert_refused(&server.client.post("/getImagetoImage", &ask).await, 500, "Generation Error", &[]);
        assert!(!body["error_data"].as_str().unwrap().is_empty());
        assert_eq!((&body["ref_id"], &body["input"]["prompt"]), (&json!("mine"), &json!(prompt)));
        assert!(body["time_required"]["runtime"].is_number(), "{body}");
        let again = server.client.post("/getImage", &json!({"id": body["task_id"]})).await;
        assert_refused(&again, 500, "Generation Error", &[]);
        let exact = server.client.get(&format!("/v1/tasks/{}", body["task_id"].as_str().unwrap())).await;
        assert_eq!((exact.status, &exact.json()["state"]), (200, &json!("failed")));
    }
}

#[tokio::test]
async fn more_requests_than_may_be_at_once_are_503() {
    let mut setup = Setup { worker: WorkerSetup::StepTime(Duration::from_millis(100)), ..Setup::default() };
    setup.limits.requests = 1;
    let server = TestServer::with(setup).await;
    let waiting = server.client.call("POST", "/getImagetoImage").json(&server.ask(FLUX_DEV));
    let stream = waiting.begin().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let reply = server.client.get("/v1/tasks").await;
    assert_refused(&reply, 503, "Service Unavailable", &["too many requests"]);
    assert_eq!(reply.header("retry-after"), Some("1"));
    assert_eq!(server.client.get("/healthz").await.status, 200, "health is asked beside the limit");
    drop(stream);
}
