//! Apps over HTTP, each with the small weights that stand for its own.

use crate::paint::weights;
use crate::process::{Server, token};
use domain::quantity::Size;
use serde_json::{Value, json};
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
        let reply = server.client(&token).post("/getImagetoImage", &body).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let answer = reply.json();
        assert_eq!((&answer["output"]["model"], &answer["input"]["ignored"]), (&json!(model), &json!([])), "{answer}");
        let url = answer["output"]["result"][0].as_str().unwrap();
        assert_eq!(png_size(&server.client(&token).get_url(url).await.body), size, "{model}");
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
        let reply = server.client(&token).post("/getImagetoImage", &ask(app, &picture, more)).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let answer = reply.json();
        assert_eq!((&answer["output"]["model"], &answer["input"]["ignored"]), (&json!(model), &json!([])), "{answer}");
        let url = answer["output"]["result"][0].as_str().unwrap();
        assert_eq!(png_size(&server.client(&token).get_url(url).await.body), size, "{model}");
    }
}
