//! Apps over HTTP, each with the small weights that stand for its own.

use crate::paint::{input, weights};
use crate::process::{FLUX_DEV, Server, token};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::quantity::Size;
use domain::request::OutputFormat;
use imaging::{Canny, Metadata, Picture};
use serde_json::{Value, json};
use testkit::client::Client;
use testkit::pictures::{PictureServer, png_size};

const CANNY: &str = "ap-mNqZx4rtyjvbcfghwklpde";
const REDUX: &str = "ap-gFhLq9zvbnmopxkytswabc";
const DEPTH: &str = "ap-gWfZx8rjvtyqopmnbcdehij";
const SDXL: &str = "ap-eRSyl0imzrUrbvgdAYwDTl";

/// A body that asks for little work.
fn ask(app: &str, picture: &str, more: Value) -> Value {
    let mut body = json!({"app_id": app, "image": picture, "num_inference_steps": 1, "seed": 3});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// The model paints one picture of this size, and uses all that it was asked for.
async fn answers(client: &Client, body: &Value, model: &str, size: Size) {
    let reply = client.post("/getImagetoImage", body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let answer = reply.json();
    assert_eq!((&answer["output"]["model"], &answer["input"]["ignored"]), (&json!(model), &json!([])), "{answer}");
    let url = answer["output"]["result"][0].as_str().unwrap();
    assert_eq!(png_size(&client.get_url(url).await.body), size, "{model}");
}

#[tokio::test]
async fn the_apps_of_flux_answer_with_pictures() {
    let weights = weights(&[
        ("flux-control-tiny", "flux-canny"),
        ("flux-control-tiny", "flux-depth"),
        ("depth-anything-tiny", "depth-anything-v2-small"),
        ("flux-redux-tiny", "flux-redux"),
        ("flux-dev-tiny", "flux-dev"),
    ]);
    let data = tempfile::tempdir().unwrap();
    let token = token(data.path());
    let options = ["--allow-source", "127.0.0.0/8", "--weights", weights.path().to_str().unwrap()];
    let server = Server::start(data.path(), &options);
    let pictures = PictureServer::start().await;
    let picture = pictures.url("90x70.png");
    let asked = [
        (ask(CANNY, &picture, json!({"prompt": "a house"})), "flux-canny", Size::new(90, 70)),
        (ask(CANNY, &picture, json!({"prompt": "a house", "strength": 1})), "flux-canny", Size::new(90, 70)),
        (ask(DEPTH, &picture, json!({"prompt": "a house"})), "flux-depth", Size::new(90, 70)),
        (ask(REDUX, &picture, json!({"width": 800, "height": 1000})), "flux-redux", Size::new(800, 1000)),
    ];
    for (body, model, size) in asked {
        answers(&server.client(&token), &body, model, size).await;
    }
}

#[tokio::test]
async fn without_any_weights_the_embedded_models_answer() {
    let data = tempfile::tempdir().unwrap();
    let token = token(data.path());
    let server = Server::start(data.path(), &["--allow-source", "127.0.0.0/8"]);
    let pictures = PictureServer::start().await;
    let picture = pictures.url("90x70.png");
    for (app, model) in [(FLUX_DEV, "pentimento-nano"), (CANNY, "pentimento-nano-canny")] {
        let body = ask(app, &picture, json!({"prompt": "watercolour painting"}));
        answers(&server.client(&token), &body, model, Size::new(90, 70)).await;
    }
}

#[tokio::test]
async fn the_apps_of_sdxl_answer_with_pictures() {
    let deployed = [
        ("ap-Jf2aKs8dPqXzRb1Yv6hN7L", "turbo-vision"),
        ("ap-vcbg1l7bBuScbDuUOk3Shl", "qolaba-style"),
        ("ap-Rgtph3LFS9rRT5X7XREazo", "cartoon"),
        ("ap-nM68b4WwQ6VzdNwwXBrOHE", "realistic"),
        ("ap-Zj2zfXKq52zvpib7jGqYFp", "anime"),
    ];
    let mut models = vec![("sdxl-tiny", "sdxl-base")];
    models.extend(deployed.map(|(_, model)| ("sdxl-turbo-tiny", model)));
    let weights = weights(&models);
    let data = tempfile::tempdir().unwrap();
    let token = token(data.path());
    let options = ["--allow-source", "127.0.0.0/8", "--weights", weights.path().to_str().unwrap()];
    let server = Server::start(data.path(), &options);
    let pictures = PictureServer::start().await;
    let picture = pictures.url("90x70.png");
    let mut asked =
        vec![(SDXL, "sdxl-base", json!({"prompt": "a house", "width": 640, "height": 1536}), Size::new(640, 1536))];
    asked.extend(deployed.map(|(app, model)| {
        (app, model, json!({"prompt": "a house", "negative_prompt": "fog", "guidance_scale": 5}), Size::new(90, 70))
    }));
    for (app, model, more, size) in asked {
        answers(&server.client(&token), &ask(app, &picture, more), model, size).await;
    }
}

fn data_uri(picture: &Picture) -> String {
    let metadata = Metadata { software: String::new(), model: String::new(), seed: None };
    let png = imaging::encode(picture, OutputFormat::Png, &metadata).unwrap();
    format!("data:image/png;base64,{}", STANDARD.encode(png))
}

#[tokio::test]
async fn a_control_picture_of_the_callers_own_is_painted_under() {
    let weights = weights(&[("flux-control-tiny", "flux-canny"), ("flux-dev-tiny", "flux-dev")]);
    let data = tempfile::tempdir().unwrap();
    let token = token(data.path());
    let server = Server::start(data.path(), &["--weights", weights.path().to_str().unwrap()]);
    let source = imaging::decode(&std::fs::read(input("in_96x64")).unwrap()).unwrap();
    let edges = imaging::canny(&source, Canny::default());
    let painted = async |app: &str, more: Value| {
        let reply = server.client(&token).post("/getImagetoImage", &ask(app, &data_uri(&source), more)).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let answer = reply.json();
        let url = answer["output"]["result"][0].as_str().unwrap().to_owned();
        (server.client(&token).get_url(&url).await.body, answer["input"].clone())
    };
    let (found, input) = painted(CANNY, json!({"prompt": "a house"})).await;
    assert_eq!(input["control_image"], Value::Null);
    let (given, input) = painted(CANNY, json!({"prompt": "a house", "control_image": data_uri(&edges)})).await;
    assert_eq!(found, given, "the same edges");
    assert!(input["control_image"].as_str().unwrap().starts_with("data:image/png;base64,…"), "{input}");
    let nothing = Picture::filled(source.size(), [0; 3]);
    let (other, _) = painted(CANNY, json!({"prompt": "a house", "control_image": data_uri(&nothing)})).await;
    assert_ne!(found, other);

    // An app that takes none does not even fetch it.
    let unused = json!({"prompt": "a house", "control_image": "https://127.0.0.1:1/edges.png"});
    let (_, input) = painted(FLUX_DEV, unused).await;
    assert_eq!((&input["ignored"], &input["control_image"]), (&json!(["control_image"]), &Value::Null));
}
