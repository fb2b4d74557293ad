//! The other spellings of the same endpoint.

use crate::server::{FLUX_DEV, TestServer, merged, without};
use crate::shape::{assert_refused, assert_status};
use serde_json::json;

#[tokio::test]
async fn the_path_may_be_spelled_two_ways() {
    let server = TestServer::start().await;
    for path in ["/getImagetoImage", "/getImageToImage"] {
        let body = assert_status(&server.client.post(path, &server.ask(FLUX_DEV)).await, 200, "SUCCESS");
        assert_eq!(body["output"]["result"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn the_picture_may_be_called_file_url() {
    let server = TestServer::that_only_accepts().await;
    let ask = without(server.ask_with(json!({"celery": true})), "image");
    let (url, other) = (server.pictures.url("64x64.png"), server.pictures.url("32x32.png"));
    let body = server.client.post("/getImagetoImage", &merged(ask.clone(), json!({"file_url": url}))).await;
    assert_eq!(assert_status(&body, 200, "PENDING")["input"]["image"], url.as_str());
    let both = merged(ask.clone(), json!({"file_url": url, "image": url}));
    assert_status(&server.client.post("/getImagetoImage", &both).await, 200, "PENDING");
    let contrary = merged(ask, json!({"file_url": url, "image": other}));
    assert_refused(&server.client.post("/getImagetoImage", &contrary).await, 422, "Validation Error", &["file_url"]);
}

#[tokio::test]
async fn the_callers_reference_has_three_names_and_comes_back() {
    let server = TestServer::that_only_accepts().await;
    for name in ["ref_id", "refID", "reference_id"] {
        let ask = server.ask_with(json!({"celery": true, name: "mine"}));
        let body = assert_status(&server.client.post("/getImagetoImage", &ask).await, 200, "PENDING");
        assert_eq!(body["ref_id"], "mine", "{name}");
        assert_eq!(body["input"]["ignored"], json!([]));
        let status = server.client.post("/getImage", &json!({"id": body["task_id"]})).await;
        assert_eq!(assert_status(&status, 200, "PENDING")["ref_id"], "mine", "remembered with the task");
        let status = server.client.post("/getImage", &json!({"id": body["task_id"], name: "this call"})).await;
        assert_eq!(assert_status(&status, 200, "PENDING")["ref_id"], "this call");
        let refused = server.ask_with(json!({"batch": 99, name: "mine"}));
        let body = server.client.post("/getImagetoImage", &refused).await;
        assert_eq!(assert_refused(&body, 422, "Validation Error", &["batch"])["ref_id"], "mine");
    }
}

#[tokio::test]
async fn a_task_may_be_named_id_or_task_id() {
    let server = TestServer::that_only_accepts().await;
    let id = server.queue(json!({})).await;
    for name in ["id", "task_id"] {
        let body = assert_status(&server.client.post("/getImage", &json!({name: id})).await, 200, "PENDING");
        assert_eq!(body["task_id"], id.as_str());
    }
}

#[tokio::test]
async fn the_bearer_scheme_and_the_media_type_ignore_case() {
    let server = TestServer::that_only_accepts().await;
    let token = server.client.token.clone().unwrap();
    let anonymous = testkit::client::Client::anonymous(server.address);
    let call = anonymous
        .call("POST", "/getImagetoImage")
        .header("Authorization", &format!("bearer  {token}"))
        .header("Content-Type", "Application/JSON; charset=UTF-8")
        .body(server.ask_with(json!({"celery": true})).to_string());
    assert_status(&call.send().await, 200, "PENDING");
}

#[tokio::test]
async fn spellings_that_contradict_each_other_are_refused() {
    let server = TestServer::that_only_accepts().await;
    let ask = server.ask_with(json!({"ref_id": "a", "refID": "b"}));
    let refused = server.client.post("/getImagetoImage", &ask).await;
    assert_refused(&refused, 422, "Validation Error", &["ref_id"]);
    let same = server.ask_with(json!({"celery": true, "ref_id": "a", "refID": "a"}));
    assert_status(&server.client.post("/getImagetoImage", &same).await, 200, "PENDING");
    let refused = server.client.post("/getImage", &json!({"id": "a", "task_id": "b"})).await;
    assert_refused(&refused, 422, "Validation Error", &["task_id"]);
}

#[tokio::test]
async fn the_callers_reference_is_limited_and_told_with_every_refusal() {
    let server = TestServer::that_only_accepts().await;
    let id = server.queue(json!({})).await;
    let long = server.client.post("/getImage", &json!({"id": id, "refID": "x".repeat(257)})).await;
    assert_refused(&long, 422, "Validation Error", &["ref_id", "257", "256"]);
    let mistyped = server.client.post("/getImage", &json!({"id": 5, "refID": "mine"})).await;
    assert_eq!(assert_refused(&mistyped, 400, "Bad Request", &["id"])["ref_id"], "mine");
    let ask = server.ask_with(json!({"batch": "x", "ref_id": "mine"}));
    let body = assert_refused(&server.client.post("/getImagetoImage", &ask).await, 400, "Bad Request", &["batch"]);
    assert_eq!((&body["ref_id"], &body["app_id"]), (&json!("mine"), &ask["app_id"]));
}
