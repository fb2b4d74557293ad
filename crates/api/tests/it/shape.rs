//! What every answer must look like.

use serde_json::Value;
use testkit::reply::Reply;

/// The eight fields, each of its kind.
#[track_caller]
pub(crate) fn assert_shape(reply: &Reply) -> Value {
    let body = reply.json();
    let object = body.as_object().unwrap_or_else(|| panic!("not an object: {body}"));
    for name in ["time_required", "input", "output"] {
        assert!(object.get(name).is_some_and(Value::is_object), "{name} in {body}");
    }
    for name in ["error", "error_data", "app_id", "task_id"] {
        let is_right = object.get(name).is_some_and(|value| value.is_null() || value.is_string());
        assert!(is_right, "{name} in {body}");
    }
    let status = object.get("status").and_then(Value::as_str).unwrap_or_default();
    assert!(["PENDING", "SUCCESS", "FAILED"].contains(&status), "{body}");
    assert_eq!(reply.header("content-type"), Some("application/json"));
    body
}

/// An error of this status and class, whose detail names all of this.
#[track_caller]
pub(crate) fn assert_refused(reply: &Reply, status: u16, class: &str, named: &[&str]) -> Value {
    assert_eq!(reply.status, status, "{}", reply.text());
    let body = assert_shape(reply);
    assert_eq!(body["status"], "FAILED", "{body}");
    assert_eq!(body["error"], class, "{body}");
    let detail = body["error_data"].as_str().unwrap_or_default();
    for name in named {
        assert!(detail.contains(name), "{name} is not in: {detail}");
    }
    body
}

#[track_caller]
pub(crate) fn assert_status(reply: &Reply, http_status: u16, status: &str) -> Value {
    assert_eq!(reply.status, http_status, "{}", reply.text());
    let body = assert_shape(reply);
    assert_eq!(body["status"], status, "{body}");
    body
}
