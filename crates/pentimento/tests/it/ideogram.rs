//! Ideogram Remix from the client's request to the picture that we serve, with a local server in Ideogram's place.

use crate::process::{Server, run, run_with, token};
use domain::quantity::Size;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use testkit::client::Client;
use testkit::ideogram::{IdeogramServer, KEY, Turn, error_answer, json_answer};
use testkit::pictures::{PictureServer, png, png_size};
use testkit::reply::Reply;

const REMIX: &str = "ap-hTjXy7qplkzvnmwqrsdabc";
const PROMPT: &str = "xyzzy plugh at dusk";

fn start(data: &Path, ideogram: &IdeogramServer) -> Server {
    let options = ["--ideogram-url", &ideogram.url(), "--allow-source", "127.0.0.0/8", "--log", "trace"];
    Server::start_with(&[("PENTIMENTO_IDEOGRAM_KEY", KEY)], data, &options)
}

async fn ask(client: &Client, pictures: &PictureServer, more: Value) -> Reply {
    let mut body = json!({"app_id": REMIX, "image": pictures.url("640x480.png"), "prompt": PROMPT});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    client.post("/getImagetoImage", &body).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remix_is_painted_there_and_served_here() {
    let dir = tempfile::tempdir().unwrap();
    let (ideogram, pictures) = (IdeogramServer::start().await, PictureServer::start().await);
    let token = token(dir.path());
    let server = start(dir.path(), &ideogram);
    let client = server.client(&token);
    let asked = json!({"width": 720, "height": 1280, "batch": 2, "strength": 0.4, "seed": 7, "negative_prompt": "fog", "guidance_scale": 9});
    let reply = ask(&client, &pictures, asked).await;
    let body = reply.json();
    assert_eq!((reply.status, &body["status"]), (200, &"SUCCESS".into()), "{}", reply.text());
    assert_eq!(body["output"]["model"], "ideogram-remix");
    assert_eq!(body["output"]["Has_NSFW_Content"], json!([false, false]));
    assert_eq!(body["input"]["ignored"], json!(["guidance_scale"]));
    for list in ["result", "low_res_urls"] {
        assert_eq!(body["output"][list].as_array().unwrap().len(), 2);
    }
    let ours = format!("http://{}/results/", server.address);
    for url in body["output"]["result"].as_array().unwrap() {
        let url = url.as_str().unwrap();
        assert!(url.starts_with(&ours), "{url}");
        assert_eq!(png_size(&client.get_url(url).await.body), Size::new(720, 1280));
    }
    let [call] = &ideogram.calls()[..] else { panic!("one call") };
    let sent = ["prompt", "image_weight", "resolution", "num_images", "seed", "negative_prompt"];
    let sent = sent.map(|name| call.text(name).unwrap());
    assert_eq!(sent, [PROMPT, "60", "736x1312", "2", "7", "fog"]);

    let log = server.kill().join("\n");
    assert!(log.contains("loaded a model"), "there is a log");
    for secret in [KEY, "4711", "xyzzy", "/painted/", "sig="] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ideogram_refuses_withholds_or_loses_is_told_in_the_contracts_terms() {
    let dir = tempfile::tempdir().unwrap();
    let (ideogram, pictures) = (IdeogramServer::start().await, PictureServer::start().await);
    let token = token(dir.path());
    let server = start(dir.path(), &ideogram);
    let client = server.client(&token);
    let mut turns = vec![Turn::Say(json_answer("422 Unprocessable Entity", &json!({"error": PROMPT})))];
    turns.push(Turn::Say(error_answer("403 Forbidden", "")));
    turns.push(Turn::Say(Vec::new()));
    ideogram.next(turns);
    for (class, detail) in [
        ("Safety Error", "Ideogram's safety check refuses the prompt or the reference picture"),
        ("Service Unavailable", "ideogram-remix cannot be used on this server"),
        ("Generation Error", "it may have painted and charged"),
    ] {
        let reply = ask(&client, &pictures, json!({})).await;
        let body = reply.json();
        assert_eq!((reply.status, &body["status"], &body["error"]), (500, &"FAILED".into(), &class.into()));
        assert!(body["error_data"].as_str().unwrap().contains(detail), "{body}");
        assert!(!body["error_data"].as_str().unwrap().contains("xyzzy"));
    }
    assert_eq!(ideogram.calls().len(), 3, "none of them is tried again");

    let link = format!("{}/painted/0/1024x1024.png", ideogram.url());
    ideogram.next([Turn::Link(vec![Some(link), None])]);
    let body = ask(&client, &pictures, json!({"batch": 2})).await.json();
    assert_eq!(body["output"]["Has_NSFW_Content"], json!([false, true]), "{body}");
    let withheld = client.get_url(body["output"]["result"][1].as_str().unwrap()).await.body;
    assert!(imaging::decode(&withheld).unwrap().pixels().iter().all(|value| *value == 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remix_does_not_wait_for_what_is_painted_here() {
    let dir = tempfile::tempdir().unwrap();
    let (ideogram, pictures) = (IdeogramServer::start().await, PictureServer::start().await);
    let token = token(dir.path());
    let server = start(dir.path(), &ideogram);
    let client = server.client(&token);
    let slow = crate::process::ask(&pictures.url("768x768.png"), 50);
    let id = client.post("/getImagetoImage", &slow).await.json()["task_id"].as_str().unwrap().to_owned();
    while client.get("/readyz").await.json()["running"] != 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let begun = Instant::now();
    assert_eq!(ask(&client, &pictures, json!({})).await.status, 200);
    let task = client.get(&format!("/v1/tasks/{id}")).await.json();
    assert_eq!(task["state"], "running", "the remix took {:?}", begun.elapsed());
}

#[tokio::test]
async fn without_a_key_the_answer_says_how_to_give_one() {
    let dir = tempfile::tempdir().unwrap();
    let token = token(dir.path());
    let server = Server::start(dir.path(), &["--allow-source", "127.0.0.0/8"]);
    let pictures = PictureServer::start().await;
    let reply = ask(&server.client(&token), &pictures, json!({})).await;
    assert_eq!(reply.status, 503);
    for part in ["PENTIMENTO_IDEOGRAM_KEY", "--ideogram-key-file"] {
        assert!(reply.json()["error_data"].as_str().unwrap().contains(part), "{}", reply.text());
    }
    assert_eq!(pictures.n_served(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paint_asks_ideogram_with_the_key_of_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let ideogram = IdeogramServer::start().await;
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (key, source, out) = (path("key"), path("in.png"), path("out.png"));
    std::fs::write(&key, format!("{KEY}\n")).unwrap();
    std::fs::write(&source, png(Size::new(64, 48))).unwrap();
    let url = ideogram.url();
    let size = ["--width", "1280", "--height", "720", "--allow-source", "127.0.0.1"];
    let args = [&["paint", &source, PROMPT, "-o", &out, "--app", "ideogram-remix", "--ideogram-url", &url], &size[..]];
    let args = args.concat();
    let paint = |args: Vec<String>| {
        tokio::task::spawn_blocking(move || run(&args.iter().map(String::as_str).collect::<Vec<_>>()))
    };
    let owned = |more: &[&str]| args.iter().chain(more).map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
    let closed = paint(owned(&[])).await.unwrap();
    assert_eq!(closed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&closed.stderr).contains("PENTIMENTO_IDEOGRAM_KEY"));
    let painted = paint(owned(&["--ideogram-key-file", &key])).await.unwrap();
    assert!(painted.status.success(), "{}", String::from_utf8_lossy(&painted.stderr));
    assert_eq!(png_size(&std::fs::read(&out).unwrap()), Size::new(1280, 720));
    assert_eq!(ideogram.calls().len(), 1);
}

#[test]
fn whether_a_key_is_set_is_told_and_the_key_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let said = |environment: &[(&str, &str)], args: &[&str]| {
        let output = run_with(environment, args);
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        assert!(!said.contains("4711"), "{said}");
        said
    };
    let key = [("PENTIMENTO_IDEOGRAM_KEY", KEY)];
    let row = |said: String| said.lines().find(|line| line.starts_with("ideogram-remix ")).unwrap().to_owned();
    assert!(row(said(&key, &["models"])).contains("key set"));
    assert!(row(said(&[], &["models"])).contains("no key"));
    assert!(row(said(&[("PENTIMENTO_IDEOGRAM_KEY", " ")], &["models"])).contains("no key"));
    let doctor = ["doctor", "--data", data];
    assert!(said(&key, &doctor).contains("ok    providers: the key of ideogram is set"));
    let plain = [key[0], ("PENTIMENTO_IDEOGRAM_URL", "http://proxy")];
    assert!(said(&plain, &doctor).contains("warn  providers: the key of ideogram is set, and sent over plain http"));
    let broken = [("PENTIMENTO_IDEOGRAM_KEY", "sesame 4711")];
    assert!(said(&broken, &["models"]).contains("PENTIMENTO_IDEOGRAM_KEY: Ideogram key: got something else"));
    let absent = run(&["models", "--ideogram-key-file", "/nowhere"]);
    assert_eq!(absent.status.code(), Some(1));
}
