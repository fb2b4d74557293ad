//! Section 3 of the contract: the twelve apps and their sizes.

use crate::server::{CANNY, REDUX, Setup, TestServer, merged};
use crate::shape::{assert_refused, assert_status};
use domain::quantity::Size;
use serde_json::{Value, json};
use testkit::pictures::{png, png_size};

const TAKES_INPUT: [&str; 8] = [
    "ap-fGhKl3mfkdlpqrshuwwabc",
    "ap-mNqZx4rtyjvbcfghwklpde",
    "ap-gWfZx8rjvtyqopmnbcdehij",
    "ap-Jf2aKs8dPqXzRb1Yv6hN7L",
    "ap-vcbg1l7bBuScbDuUOk3Shl",
    "ap-Rgtph3LFS9rRT5X7XREazo",
    "ap-nM68b4WwQ6VzdNwwXBrOHE",
    "ap-Zj2zfXKq52zvpib7jGqYFp",
];
const LISTED: [(&str, &[(u32, u32)]); 4] = [
    ("ap-hTjXy7qplkzvnmwqrsdabc", &[(720, 1280), (960, 1280), (1024, 1024), (1280, 960), (1280, 720)]),
    ("ap-gFhLq9zvbnmopxkytswabc", &[(720, 1280), (800, 1000), (1024, 1024), (1280, 720), (1600, 676)]),
    ("ap-hJkLm8nqwertyuiopasdfg", &[(1024, 1024), (800, 1000), (720, 1280), (1280, 720), (1600, 676)]),
    (
        "ap-eRSyl0imzrUrbvgdAYwDTl",
        &[
            (1024, 1024),
            (1152, 896),
            (896, 1152),
            (1216, 832),
            (832, 1216),
            (1344, 768),
            (768, 1344),
            (1536, 640),
            (640, 1536),
        ],
    ),
];

async fn painted_size(server: &TestServer, body: &Value) -> Size {
    let reply = assert_status(&server.client.post("/getImagetoImage", body).await, 200, "SUCCESS");
    png_size(&server.client.get_url(reply["output"]["result"][0].as_str().unwrap()).await.body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_takes_the_inputs_size_paints_it() {
    let server = TestServer::start().await;
    for app_id in TAKES_INPUT {
        assert_eq!(painted_size(&server, &server.ask(app_id)).await, Size::new(64, 48), "{app_id}");
    }
    let large = server.ask_with(json!({"image": server.pictures.url("2000x500.png")}));
    assert_eq!(painted_size(&server, &large).await, Size::new(1536, 384), "scaled down, aspect ratio kept");
    let odd = server.ask_with(json!({"image": server.pictures.url("65x33.png")}));
    assert_eq!(painted_size(&server, &odd).await, Size::new(65, 33));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_with_a_list_paints_each_listed_size_and_no_other() {
    let server = TestServer::start().await;
    let all: Vec<(u32, u32)> = LISTED.iter().flat_map(|(_, sizes)| sizes.iter().copied()).collect();
    for (app_id, sizes) in LISTED {
        for (width, height) in sizes.iter().copied() {
            let body = merged(server.ask(app_id), json!({"width": width, "height": height}));
            assert_eq!(painted_size(&server, &body).await, Size::new(width, height), "{app_id}");
        }
        let unlisted = all.iter().copied().filter(|size| !sizes.contains(size));
        for (width, height) in unlisted.chain([(512, 512), (1024, 1023), (0, 0), (676, 1600)]) {
            let body = merged(server.ask(app_id), json!({"width": width, "height": height, "celery": true}));
            let reply = server.client.post("/getImagetoImage", &body).await;
            let given = format!("{width}x{height}");
            let listed = format!("{}x{}", sizes[0].0, sizes[0].1);
            assert_refused(&reply, 422, "Validation Error", &[&given, &listed, "allowed"]);
        }
        let body = server.ask(app_id);
        assert_eq!(painted_size(&server, &body).await, Size::new(1024, 1024), "the default of {app_id}");
    }
}

#[tokio::test]
async fn half_a_size_names_the_other_half() {
    let server = TestServer::that_only_accepts().await;
    for (given, missing) in [("width", "height"), ("height", "width")] {
        let body = merged(server.ask(REDUX), json!({given: 1024, "celery": true}));
        assert_refused(
            &server.client.post("/getImagetoImage", &body).await,
            422,
            "Validation Error",
            &[missing, "1024x1024"],
        );
    }
}

#[tokio::test]
async fn the_list_of_apps_tells_what_may_be_asked() {
    let server =
        TestServer::with(Setup { absent: vec!["flux-canny", "pentimento-nano-canny"], ..Setup::default() }).await;
    let apps = server.client.get("/v1/apps").await.json()["apps"].as_array().unwrap().clone();
    let ids: Vec<&str> = apps.iter().map(|app| app["app_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 12);
    for id in TAKES_INPUT.iter().chain(LISTED.iter().map(|(id, _)| id)) {
        assert!(ids.contains(id), "{id}");
    }
    for (id, sizes) in LISTED {
        let app = apps.iter().find(|app| app["app_id"] == id).unwrap();
        let mut told: Vec<&str> = app["sizes"].as_array().unwrap().iter().map(|size| size.as_str().unwrap()).collect();
        let mut expect: Vec<String> = sizes.iter().map(|(width, height)| format!("{width}x{height}")).collect();
        told.sort_unstable();
        expect.sort_unstable();
        assert_eq!(told, expect, "{id}");
    }
    let canny = apps.iter().find(|app| app["app_id"] == CANNY).unwrap();
    assert_eq!(canny["model"], Value::Null);
    assert!(canny["how_to_install"].as_str().unwrap().contains("`pentimento pull flux-canny`"));
    let flux_dev = apps.iter().find(|app| app["slug"] == "flux-dev").unwrap();
    assert_eq!((&flux_dev["model"], &flux_dev["sizes"]), (&json!("flux-dev"), &Value::Null));
}

#[tokio::test]
async fn a_picture_may_come_in_the_request_itself() {
    let server = TestServer::start().await;
    let base64 = {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for chunk in png(Size::new(40, 30)).chunks(3) {
            let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
            for idx in 0..4 {
                let digit = ALPHABET[(word >> (18 - 6 * idx) & 63) as usize];
                text.push(if idx <= chunk.len() { digit as char } else { '=' });
            }
        }
        text
    };
    let body = server.ask_with(json!({"image": format!("data:image/png;base64,{base64}")}));
    let reply = assert_status(&server.client.post("/getImagetoImage", &body).await, 200, "SUCCESS");
    let echoed = reply["input"]["image"].as_str().unwrap();
    assert!(echoed.starts_with("data:image/png;base64,…") && echoed.len() < 100, "{echoed}");
    let url = reply["output"]["result"][0].as_str().unwrap();
    assert_eq!(png_size(&server.client.get_url(url).await.body), Size::new(40, 30));
}
