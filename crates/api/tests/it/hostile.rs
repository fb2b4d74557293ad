//! Whatever comes, the answer is whole, of the right shape, and no fault of ours.

use crate::server::{FLUX_DEV, TestServer};
use crate::shape::assert_shape;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use testkit::client::exchange;
use testkit::reply::Reply;
use tokio::runtime::Runtime;

const N_CASES: u32 = 400;

/// Sends each case to one server; says what was sent if the answer is not right.
fn check<S: Strategy>(strategy: S, request: impl Fn(&TestServer, &S::Value) -> Vec<u8>) {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(TestServer::that_only_accepts());
    let config = Config { cases: N_CASES, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&strategy, |case| {
        let sent = request(&server, &case);
        let answer = runtime.block_on(exchange(server.address, &sent));
        judge(&answer).map_err(TestCaseError::fail)
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    let alive = runtime.block_on(server.client.get("/healthz"));
    assert_eq!(alive.status, 200);
}

fn judge(answer: &[u8]) -> Result<(), String> {
    let shown = || String::from_utf8_lossy(&answer[..answer.len().min(300)]).into_owned();
    let reply = Reply::parse(answer).ok_or_else(|| format!("no whole answer: {:?}", shown()))?;
    if reply.status >= 500 {
        return Err(format!("a fault of ours: {}", shown()));
    }
    if reply.body.is_empty() {
        return Err(format!("an empty body: {}", shown()));
    }
    if reply.status >= 400 {
        assert_shape(&reply);
    }
    Ok(())
}

fn post(server: &TestServer, path: &str, body: &[u8]) -> Vec<u8> {
    server.client.call("POST", path).header("content-type", "application/json").body(body).bytes()
}

/// A request that is right except for what the test does to it. It waits for nobody.
fn right_request(server: &TestServer) -> Value {
    server.ask_with(json!({"celery": true, "seed": 1, "batch": 2, "strength": 0.5, "ref_id": "x"}))
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(json!(FLUX_DEV)),
    ];
    leaf.prop_recursive(6, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_field() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "app_id",
        "image",
        "file_url",
        "control_image",
        "prompt",
        "negative_prompt",
        "guidance_scale",
        "batch",
        "strength",
        "width",
        "height",
        "inference_type",
        "seed",
        "num_inference_steps",
        "output_format",
        "ref_id",
        "refID",
        "reference_id",
        "other",
    ])
}

#[test]
fn any_bytes_as_a_body() {
    let paths = prop::sample::select(vec!["/getImagetoImage", "/getImage", "/getImageToImage"]);
    check((paths, prop::collection::vec(any::<u8>(), 0..600)), |server, (path, body)| post(server, path, body));
}

#[test]
fn any_json_as_a_body() {
    let paths = prop::sample::select(vec!["/getImagetoImage", "/getImage"]);
    check((paths, any_json()), |server, (path, body)| post(server, path, body.to_string().as_bytes()));
}

#[test]
fn any_json_in_any_field() {
    check((any_field(), any_json()), |server, (field, value)| {
        let mut body = right_request(server);
        body[*field] = value.clone();
        post(server, "/getImagetoImage", body.to_string().as_bytes())
    });
}

#[test]
fn a_right_body_with_wrong_bytes_in_it() {
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6);
    check((damage, any::<prop::sample::Index>(), any::<bool>()), |server, (damage, end, cut)| {
        // The flag that makes the server wait may be damaged too; then nobody would ever answer.
        let mut body = right_request(server);
        body["app_id"] = json!("ap-nothing");
        let mut bytes = body.to_string().into_bytes();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        if *cut {
            bytes.truncate(end.index(bytes.len()));
        }
        post(server, "/getImagetoImage", &bytes)
    });
}

#[test]
fn any_header_and_any_path() {
    let header = ("[!-9;-~]{1,20}", prop::collection::vec(any::<u8>(), 0..40));
    let known = prop::sample::select(vec![
        "authorization",
        "content-type",
        "content-length",
        "transfer-encoding",
        "host",
        "expect",
        "idempotency-key",
        "connection",
        "upgrade",
        "accept",
        "range",
    ]);
    let headers = prop::collection::vec(prop_oneof![header.clone(), (known.prop_map(str::to_owned), header.1)], 0..4);
    let method = prop_oneof![Just("GET".to_owned()), Just("POST".to_owned()), "[A-Z]{1,10}"];
    let path =
        prop_oneof!["/[!-~]{0,40}", Just("/v1/tasks".to_owned()), "/v1/tasks/[!-~]{0,40}", "/results/[!-~]{0,40}"];
    check((method, path, headers), |server, (method, path, headers)| {
        // An answer to HEAD has no body and one to CONNECT is no answer; both are HTTP's own doing.
        let method = if ["HEAD", "CONNECT"].contains(&method.as_str()) { "GET" } else { method };
        let mut bytes = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n").into_bytes();
        for (name, value) in headers {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend(value.iter().filter(|byte| !b"\r\n".contains(byte)));
            bytes.extend_from_slice(b"\r\n");
        }
        let token = server.client.token.as_deref().unwrap_or_default();
        bytes.extend_from_slice(format!("authorization: Bearer {token}\r\ncontent-length: 2\r\n\r\n{{}}").as_bytes());
        bytes
    });
}

#[test]
fn any_bytes_instead_of_http() {
    check(prop::collection::vec(any::<u8>(), 1..400), |_, bytes| {
        // The end of a head, so that the server need not wait for more.
        [bytes.as_slice(), b"\r\n\r\n"].concat()
    });
}
