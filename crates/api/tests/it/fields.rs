//! Section 1 of the contract: each field's type, bounds and default.

use crate::server::{ANIME, FLUX_DEV, REDUX, TestServer, merged, without};
use crate::shape::{assert_refused, assert_status};
use serde_json::{Value, json};

/// Asks with one field at this value; the task is only queued.
async fn ask(server: &TestServer, app_id: &str, field: &str, value: &Value) -> testkit::reply::Reply {
    let body = merged(server.ask(app_id), json!({"celery": true, field: value}));
    server.client.post("/getImagetoImage", &body).await
}

struct Row {
    field: &'static str,
    accepted: Vec<Value>,
    /// 422: of the right type, but not allowed.
    out_of_range: Vec<Value>,
    /// What the detail of a 422 says is allowed.
    allowed: &'static str,
    /// 400.
    mistyped: Vec<Value>,
}

fn rows() -> impl Iterator<Item = Row> {
    texts().into_iter().chain(numbers())
}

fn texts() -> Vec<Row> {
    let no_text = json!([1, 1.5, true, [], {}, ["x"]]);
    let long = |n: usize| "x".repeat(n);
    vec![
        row("app_id", json!([FLUX_DEV]), json!(["", "ap-unknown", "flux-dev"]), FLUX_DEV, no_text.clone()),
        row(
            "image",
            json!([]),
            json!(["", "x", "ftp://a/b", "file:///etc/passwd"]),
            "an http, https or data: URL",
            no_text.clone(),
        ),
        row(
            "control_image",
            json!([]),
            json!(["", "x", "ftp://a/b", "file:///etc/passwd"]),
            "an http, https or data: URL",
            no_text.clone(),
        ),
        row(
            "prompt",
            json!(["x", long(4000), "Ω ☃ \u{1f3a8}"]),
            json!(["", "  ", long(4001), "a\u{0}b"]),
            "",
            no_text.clone(),
        ),
        row("negative_prompt", json!(["", "x", long(4000)]), json!([long(4001), "\u{0}"]), "", no_text.clone()),
        row(
            "output_format",
            json!(["png", "jpeg", "webp"]),
            json!(["", "bmp", "PNG"]),
            "png, jpeg or webp",
            no_text.clone(),
        ),
        row(
            "inference_type",
            json!(["a10g", "a100", "h100"]),
            json!(["", "b200", "A100"]),
            "a10g, a100 or h100",
            no_text.clone(),
        ),
        row("ref_id", json!(["", "mine", long(256)]), json!([long(257)]), "at most 256 characters", no_text),
        row("celery", json!([]), json!([]), "", json!(["true", 1, 0, [], {}])),
    ]
}

fn numbers() -> Vec<Row> {
    let no_number = json!(["1", true, [], {}, "", "x"]);
    let no_whole = json!(["1", true, [], {}, 1.5]);
    vec![
        row(
            "guidance_scale",
            json!([1, 1.0, 7.5, 30, 30.0]),
            json!([0.999, 0, -1, 30.01, 31, 1e300]),
            "a number from 1 to 30",
            no_number.clone(),
        ),
        row("strength", json!([0, 0.0, 0.35, 1, 1.0]), json!([-0.01, 1.01, 2, -1]), "a number from 0 to 1", no_number),
        row(
            "batch",
            json!([1, 2, 8, 3.0]),
            json!([0, 9, -1, 1_000_000, 1e300]),
            "a whole number from 1 to 8",
            no_whole.clone(),
        ),
        row(
            "num_inference_steps",
            json!([1, 50, 28.0]),
            json!([0, 51, -5, -1e300]),
            "a whole number from 1 to 50",
            no_whole.clone(),
        ),
        row(
            "width",
            json!([256, 1536]),
            json!([255, 1537, 0, -1, 1e20]),
            "a whole number from 256 to 1536",
            no_whole.clone(),
        ),
        row(
            "height",
            json!([256, 1536]),
            json!([255, 1537, 0, -1, 1e20]),
            "a whole number from 256 to 1536",
            no_whole.clone(),
        ),
        row(
            "seed",
            json!([0, 1, u64::MAX, 7.0]),
            json!([-1, 1e300, -1e20]),
            "a whole number from 0 to 18446744073709551615",
            no_whole,
        ),
    ]
}

/// The lists are JSON arrays.
fn row(field: &'static str, accepted: Value, out_of_range: Value, allowed: &'static str, mistyped: Value) -> Row {
    let list = |values: Value| values.as_array().unwrap().clone();
    Row { field, accepted: list(accepted), out_of_range: list(out_of_range), allowed, mistyped: list(mistyped) }
}

#[tokio::test]
async fn each_field_has_its_type_and_its_bounds() {
    let server = TestServer::that_only_accepts().await;
    for row in rows() {
        for value in &row.accepted {
            assert_status(&ask(&server, FLUX_DEV, row.field, value).await, 200, "PENDING");
        }
        for value in &row.out_of_range {
            let reply = ask(&server, FLUX_DEV, row.field, value).await;
            assert_refused(&reply, 422, "Validation Error", &[row.field, "got", "allowed", row.allowed]);
        }
        for value in &row.mistyped {
            let reply = ask(&server, FLUX_DEV, row.field, value).await;
            assert_refused(&reply, 400, "Bad Request", &[row.field, "got", "expected"]);
        }
    }
}

#[tokio::test]
async fn a_number_is_echoed_as_it_was_accepted() {
    let server = TestServer::that_only_accepts().await;
    for (field, value) in [
        ("guidance_scale", json!(7.5)),
        ("strength", json!(0.35)),
        ("batch", json!(3)),
        ("seed", json!(u64::MAX)),
        ("num_inference_steps", json!(12)),
        ("output_format", json!("webp")),
        ("negative_prompt", json!("fog")),
        ("prompt", json!("a Ω")),
    ] {
        let body = ask(&server, FLUX_DEV, field, &value).await.json();
        assert_eq!(body["input"][field], value, "{field}");
    }
}

#[tokio::test]
async fn required_fields_are_required() {
    let server = TestServer::that_only_accepts().await;
    for field in ["app_id", "image", "prompt"] {
        let reply = server.client.post("/getImagetoImage", &without(server.ask(FLUX_DEV), field)).await;
        assert_refused(&reply, 422, "Validation Error", &[field, "got nothing", "allowed"]);
    }
    let promptless = merged(without(server.ask(REDUX), "prompt"), json!({"celery": true}));
    let body = assert_status(&server.client.post("/getImagetoImage", &promptless).await, 200, "PENDING");
    assert_eq!(body["input"]["prompt"], "");
}

#[tokio::test]
async fn null_is_as_good_as_silence() {
    let server = TestServer::that_only_accepts().await;
    // Silence about `celery` means to wait, and nobody works here.
    for row in rows().filter(|row| row.field != "celery") {
        let reply = ask(&server, FLUX_DEV, row.field, &Value::Null).await;
        match row.field {
            "app_id" | "image" | "prompt" => {
                assert_refused(&reply, 422, "Validation Error", &[row.field]);
            }
            _ => {
                assert_status(&reply, 200, "PENDING");
            }
        }
        if row.field == "num_inference_steps" {
            assert_eq!(reply.json()["input"]["num_inference_steps"], 28);
        }
    }
}

#[tokio::test]
async fn silence_takes_the_defaults() {
    let server = TestServer::that_only_accepts().await;
    let body = merged(server.ask(ANIME), json!({"celery": true}));
    let body = assert_status(&server.client.post("/getImagetoImage", &body).await, 200, "PENDING");
    let input = &body["input"];
    assert_eq!(input["batch"], 1);
    assert_eq!(input["strength"], 0.7);
    assert_eq!(input["negative_prompt"], "");
    assert_eq!(input["inference_type"], "a10g");
    assert_eq!(input["output_format"], "png");
    assert_eq!(input["guidance_scale"], 5.0);
    assert_eq!(input["celery"], true);
    assert_eq!((&input["width"], &input["height"]), (&Value::Null, &Value::Null));
    assert_eq!(input["ignored"], json!([]));
    assert!(input["seed"].is_u64());
    assert_eq!(body["app_id"], ANIME);
    assert_eq!(body["output"], json!({}));
    assert_eq!(body["time_required"], json!({}));
}

#[tokio::test]
async fn a_parameter_without_effect_is_told_and_no_error() {
    let server = TestServer::that_only_accepts().await;
    let more =
        json!({"celery": true, "width": 512, "height": 512, "inference_type": "h100", "sampler": "x", "n": {"a": []}});
    let body = assert_status(&server.client.post("/getImagetoImage", &server.ask_with(more)).await, 200, "PENDING");
    assert_eq!(body["input"]["ignored"], json!(["width", "height", "inference_type", "n", "sampler"]));
    assert_eq!(body["input"]["inference_type"], Value::Null);
}
