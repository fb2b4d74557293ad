//! The API as a document: kept beside the code, and true.

use crate::server::TestServer;
use serde_json::Value;
use std::path::Path;

/// Set it to write the document instead of comparing it.
const UPDATE: &str = "UPDATE_OPENAPI";

#[test]
fn the_document_in_the_repository_is_what_the_server_serves() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, api::openapi::document()).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == api::openapi::document(), "openapi.json differs; {UPDATE}=1 cargo test -p api writes it anew");
}

#[tokio::test]
async fn every_path_of_the_document_has_a_route() {
    let server = TestServer::that_only_accepts().await;
    let document = server.client.get("/openapi.json").await.json();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 9, "{paths:?}");
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().unwrap() {
            let path = path.replace("{id}", "x").replace("{name}", "x");
            let reply = server.client.call(&method.to_uppercase(), &path).send().await;
            assert_ne!(reply.status, 405, "{method} {path}");
            let is_route = reply.status != 404 || !reply.text().contains("no such route");
            assert!(is_route, "{method} {path}");
            assert!(operation["operationId"].is_string(), "{method} {path}");
        }
    }
    let envelope = &document["components"]["schemas"]["Envelope"]["properties"];
    for field in ["time_required", "error", "error_data", "input", "output", "app_id", "task_id", "status"] {
        assert!(envelope[field] != Value::Null, "{field}");
    }
}
