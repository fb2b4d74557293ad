//! Keys cannot see each other's tasks, not even that there are any.

use crate::server::TestServer;
use crate::shape::assert_status;
use serde_json::json;

#[tokio::test]
async fn another_keys_task_is_as_unknown_as_none() {
    let server = TestServer::that_only_accepts().await;
    let id = server.queue(json!({})).await;
    let stranger = server.another_client().await;
    let none = "task_00000000000000000000000000000000";
    for (method, path) in [
        ("GET", "/v1/tasks/{id}"),
        ("DELETE", "/v1/tasks/{id}"),
        ("GET", "/v1/tasks/{id}/events"),
        ("GET", "/v1/tasks?before={id}"),
    ] {
        let theirs = stranger.call(method, &path.replace("{id}", &id)).send().await;
        let nobodys = stranger.call(method, &path.replace("{id}", none)).send().await;
        assert_eq!(theirs.status, 404, "{method} {path}");
        assert_eq!(theirs.text(), nobodys.text(), "{method} {path}");
    }
    let theirs = stranger.post("/getImage", &json!({"id": id})).await;
    let nobodys = stranger.post("/getImage", &json!({"id": none})).await;
    assert_eq!((theirs.status, theirs.text()), (404, nobodys.text()));
    assert_eq!(stranger.get("/v1/tasks").await.json()["tasks"], json!([]));
    assert_status(&server.client.post("/getImage", &json!({"id": id})).await, 200, "PENDING");
    assert_eq!(server.client.get(&format!("/v1/tasks/{id}")).await.json()["state"], "queued", "nobody cancelled it");
}
