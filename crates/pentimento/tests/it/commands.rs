//! What the commands print, where, and their exit codes.

use crate::paint::{copy, input, paint, weights};
use crate::process::{FLUX_DEV, Server, ask, command, run, token};
use std::path::Path;
use testkit::client::Client;

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn in_folder(data: &Path, args: &[&str]) -> std::process::Output {
    run(&[args, &["--data", data.to_str().unwrap()]].concat())
}

#[test]
fn a_key_is_shown_once_listed_without_its_token_and_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let made = in_folder(dir.path(), &["keys", "create", "--name", "the studio"]);
    let token = text(&made.stdout);
    let digits = token.strip_prefix("pk_").unwrap().strip_suffix('\n').unwrap();
    assert!(digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()), "the token, alone");
    assert!(!text(&made.stderr).contains(digits));

    let listed = text(&in_folder(dir.path(), &["keys", "list"]).stdout);
    let id = listed.split_whitespace().next().unwrap();
    assert!(listed.contains("the studio") && listed.contains("active") && !listed.contains(digits));
    assert_eq!(in_folder(dir.path(), &["keys", "revoke", id]).status.code(), Some(0));
    assert!(text(&in_folder(dir.path(), &["keys", "list"]).stdout).contains("revoked"));
    let unknown = in_folder(dir.path(), &["keys", "revoke", "key_0000000000000000"]);
    assert_eq!((unknown.status.code(), text(&unknown.stderr).lines().count()), (Some(1), 1));
    let database = std::fs::read(dir.path().join("pentimento.db")).unwrap();
    let holds = |needle: &[u8]| database.windows(needle.len()).any(|window| window == needle);
    assert!(!holds(digits.as_bytes()), "the token is stored nowhere");
}

#[tokio::test]
async fn keys_come_and_go_beside_a_running_server() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let token = token(dir.path());
    assert_eq!(server.client(&token).get("/v1/tasks").await.status, 200);
    let listed = text(&in_folder(dir.path(), &["keys", "list"]).stdout);
    in_folder(dir.path(), &["keys", "revoke", listed.split_whitespace().next().unwrap()]);
    assert_eq!(server.client(&token).get("/v1/tasks").await.status, 401);
    assert_eq!(Client::anonymous(server.address).get("/healthz").await.status, 200);
}

#[test]
fn a_second_server_on_the_same_folder_ends_with_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Server::start(dir.path(), &[]);
    let second = in_folder(dir.path(), &["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(1));
    let said = text(&second.stderr);
    assert!(said.contains("in use by another server") && said.lines().count() == 1, "{said}");
}

#[test]
fn a_mistake_in_the_call_is_2_and_one_in_the_world_1() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        &["serve", "--listen", "nonsense"][..],
        &["serve", "--allow-source", "10.0.0.0/99"],
        &["serve", "--public-url", "ftp://x"],
        &["serve", "--log", "a=b=c"],
        &["serve", "--gpu-class", "a10g,b200"],
        &["serve", "--gpu-fallback", "maybe"],
        &["serve", "--remote-tasks", "0"],
        &["serve", "--ideogram-url", "https://user:word@example.com"],
        &["keys"],
        &["keys", "create", "--name", ""],
        &["nothing"],
    ] {
        let refused = in_folder(dir.path(), args);
        assert_eq!(refused.status.code(), Some(2), "{args:?}: {}", text(&refused.stderr));
    }
    for args in [&["serve", "--weights", "/nowhere"][..], &["serve", "--catalogue", "/nowhere"]] {
        let failed = in_folder(dir.path(), args);
        let said = text(&failed.stderr);
        assert_eq!((failed.status.code(), said.lines().count()), (Some(1), 1), "{args:?}: {said}");
        assert!(said.contains("/nowhere"), "{said}");
    }
    assert_eq!(run(&["models", "--weights", "/nowhere"]).status.code(), Some(1));
}

#[test]
fn models_and_doctor_tell_what_is_there() {
    let models = text(&run(&["models"]).stdout);
    let row = models.lines().find(|line| line.contains(FLUX_DEV)).unwrap();
    assert!(row.contains("pentimento-nano") && row.contains("embedded"), "{row}");
    let row = models.lines().find(|line| line.starts_with("flux-canny") && line.contains("ap-")).unwrap();
    assert!(row.contains("pentimento-nano-canny"), "{row}");
    assert!(models.contains("`pentimento pull flux-redux`"));
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("not/yet");
    let doctor = in_folder(&data, &["doctor", "--allow-source", "127.0.0.0/8"]);
    let said = text(&doctor.stdout);
    assert_eq!((doctor.status.code(), said.lines().count()), (Some(0), 9), "{said}");
    for part in [
        "cpu",
        "speed: at most f32",
        "memory",
        "data",
        "ok    database: none yet",
        "disk",
        "weights: pentimento-nano",
        "no key of ideogram",
        "127.0.0.0/8",
    ] {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
    assert!(!data.exists(), "a look leaves nothing behind");
}

#[test]
fn a_bench_tells_speeds_and_shares_of_every_stage() {
    let ran = run(&["bench", "--size", "64x48", "--steps", "2", "--runs", "1", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap_or_else(|_| panic!("{ran:?}"));
    for stage in ["text", "vae_encode", "step", "vae_decode", "total"] {
        let of = |value: &serde_json::Value| value[stage].as_f64().filter(|value| *value > 0.0);
        assert!(of(&report).is_some() && of(&report["gflops"]).is_some(), "{stage}: {report}");
        assert!(of(&report["share_of_peak"]).is_some_and(|share| share < 1.0), "{stage}: {report}");
    }
    assert_eq!((&report["width"], &report["height"], &report["steps"]), (&64.into(), &48.into(), &2.into()));
    assert!(report["peaks"]["f32_gflops"].as_f64() > Some(0.0), "{report}");
    assert_eq!(report["precisions"]["vae"], "f32");
    let table = run(&["bench", "--size", "32", "--steps", "1", "--runs", "1"]);
    let said = text(&table.stdout);
    assert!(said.starts_with("pentimento-nano, 32x32, 1 steps") && said.contains("peaks of this machine"), "{said}");
    assert_eq!(run(&["bench", "--size", "0"]).status.code(), Some(2));
}

#[test]
fn a_bench_of_random_numbers_needs_no_weights_and_refuses_what_does_not_fit() {
    let medium = ["bench", "--synthetic", "medium", "--size", "32", "--steps", "1", "--runs", "1"];
    let ran = run(&[&medium[..], &["--only", "text", "--json"]].concat());
    let report: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap_or_else(|_| panic!("{ran:?}"));
    assert_eq!((&report["model"], &report["step"]), (&"synthetic-medium".into(), &0.0.into()));
    assert!(report["text"].as_f64() > Some(0.0) && report["gflops"]["text"].as_f64() > Some(0.0), "{report}");
    for part in [&[][..], &["--only", "transformer"]] {
        let refused = run(&[&["bench", "--synthetic", "flux-dev", "--memory-budget", "5GiB"], part].concat());
        let said = text(&refused.stderr);
        assert_eq!((refused.status.code(), said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.contains("MiB of memory, and weights may take 5120 MiB"), "{said}");
    }
    for wrong in [&["--synthetic", "flux"][..], &["--synthetic", "medium", "--only", "unet"], &["--only", "vae"]] {
        assert_eq!(run(&[&["bench"], wrong].concat()).status.code(), Some(2), "{wrong:?}");
    }
}

const OWN_APP: &str = r#"
    [[app]]
    id = "ap-own"
    slug = "own"
    name = "Our Own"
    models = ["pentimento-nano"]
    mode = "plain"
    sizes = ["96x64"]
    prompt = "optional"
    deployed = false
    guidance_scale = 3.5
    steps = 2
    strength = 0.5
"#;

#[tokio::test]
async fn an_operators_own_app_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("own.toml");
    std::fs::write(&file, OWN_APP).unwrap();
    let token = token(dir.path());
    let server = Server::start(dir.path(), &["--catalogue", file.to_str().unwrap(), "--allow-source", "127.0.0.0/8"]);
    let pictures = testkit::pictures::PictureServer::start().await;
    let mut body = ask(&pictures.url("64x64.png"), 2);
    body["app_id"] = "ap-own".into();
    body["celery"] = false.into();
    let reply = server.client(&token).post("/getImagetoImage", &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let url = reply.json()["output"]["result"][0].as_str().unwrap().to_owned();
    let picture = server.client(&token).get_url(&url).await;
    assert_eq!(testkit::pictures::png_size(&picture.body), domain::quantity::Size::new(96, 64));
}

#[test]
fn a_picture_is_painted_by_an_operators_own_app_too() {
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (dir.path().join("own.toml"), dir.path().join("out.png"));
    std::fs::write(&file, OWN_APP).unwrap();
    let names = ["paint", &input("in_64x64"), "", "--output", out.to_str().unwrap(), "--app", "own"];
    let unknown = in_folder(dir.path(), &names);
    assert_eq!(unknown.status.code(), Some(2));
    let painted = in_folder(dir.path(), &[&names[..], &["--catalogue", file.to_str().unwrap()]].concat());
    assert_eq!(painted.status.code(), Some(0), "{}", text(&painted.stderr));
    assert!(out.is_file());
}

#[test]
fn paint_names_the_file_that_is_at_fault_before_it_works() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.png");
    let paint = |image: &str, options: &[&str]| {
        let ended = run(&[&["paint", image, "a cat", "--output", out.to_str().unwrap()], options].concat());
        assert_eq!(ended.status.code(), Some(1));
        text(&ended.stderr)
    };
    std::fs::create_dir(dir.path().join("out-2.png")).unwrap();
    let unwritable = paint("/nowhere.png", &["--batch", "2"]);
    assert!(unwritable.contains("out-2.png cannot be written: "), "{unwritable}");
    assert!(!dir.path().join("out-1.png").exists(), "a try leaves nothing behind");
    assert!(paint("/nowhere.png", &[]).contains("the picture: /nowhere.png: "));
    let control = paint(&input("in_64x64"), &["--control-image", "/nowhere.png"]);
    assert!(control.contains("the control picture: /nowhere.png: "), "{control}");
    let broken = dir.path().join("broken.png");
    std::fs::write(&broken, "no picture").unwrap();
    let control = paint(&input("in_64x64"), &["--control-image", broken.to_str().unwrap()]);
    assert!(control.contains("the control picture cannot be read: "), "{control}");
}

#[test]
fn a_pull_that_is_not_complete_is_not_painted_with() {
    let weights = weights(&[("flux-dev-tiny", "flux-dev")]);
    let folder = weights.path().join("flux-dev");
    let record = r#"{"repository": "o/n", "revision": "main", "commit": "0", "complete": false, "files": []}"#;
    std::fs::write(folder.join("pentimento-pull.json"), record).unwrap();
    let said = paint(&folder, &input("in_64x64"), "a cat", &["--steps", "1"]).unwrap_err();
    assert!(said.contains("flux-dev is not complete; pull the model again"), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_key_whose_token_nobody_saw_is_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let args = ["keys", "create", "--name", "lost", "--data", dir.path().to_str().unwrap()];
    let made = command(&args).stdout(full).output().unwrap();
    assert_eq!((made.status.code(), text(&made.stderr).lines().count()), (Some(1), 1));
    let listed = text(&in_folder(dir.path(), &["keys", "list"]).stdout);
    assert!(listed.contains("revoked") && !listed.contains("active"), "{listed}");
}

#[tokio::test]
async fn pictures_whose_database_was_lost_are_not_swept_away() {
    let dir = tempfile::tempdir().unwrap();
    let token = token(dir.path());
    assert!(text(&in_folder(dir.path(), &["doctor"]).stdout).contains("database: sound, 0 tasks and 1 keys"));
    std::fs::create_dir_all(dir.path().join("blobs/7f")).unwrap();
    std::fs::write(dir.path().join("blobs/7f/r-0123.png"), "a picture").unwrap();
    let database = dir.path().join("pentimento.db");
    let kept = dir.path().join("backup.db");
    std::fs::rename(&database, &kept).unwrap();
    for arguments in [&["serve", "--listen", "127.0.0.1:0"][..], &["keys", "list"], &["keys", "create", "--name", "n"]]
    {
        let refused = in_folder(dir.path(), arguments);
        let said = text(&refused.stderr);
        assert!(refused.status.code() == Some(1) && said.contains("is missing or empty"), "{arguments:?}: {said}");
        assert!(!database.exists(), "{arguments:?}");
    }
    let doctor = in_folder(dir.path(), &["doctor"]);
    let said = text(&doctor.stdout);
    assert!(said.contains("wrong database:") && said.contains("backup"), "{said}");
    assert_eq!((doctor.status.code(), text(&doctor.stderr).contains("1 finding is wrong")), (Some(1), true));
    std::fs::rename(&kept, &database).unwrap();
    let server = Server::start(dir.path(), &[]);
    assert_eq!(server.client(&token).get("/healthz").await.status, 200);
}

#[tokio::test]
async fn a_damaged_model_is_told_at_the_start_and_serves_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("weights/flux-dev");
    copy(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/pentimento-nano")), &model);
    let whole = text(&in_folder(dir.path(), &["doctor"]).stdout);
    assert!(whole.contains("ok    weights: flux-dev"), "{whole}");
    let file = model.join("transformer/diffusion_pytorch_model.safetensors");
    let length = std::fs::metadata(&file).unwrap().len();
    std::fs::File::options().write(true).open(&file).unwrap().set_len(length / 2).unwrap();
    let said = text(&in_folder(dir.path(), &["doctor"]).stdout);
    assert!(said.contains("wrong weights: flux-dev cannot be used") && said.contains("transformer"), "{said}");
    let listed = text(&in_folder(dir.path(), &["models"]).stdout);
    assert!(listed.contains("flux-dev: the weights of flux-dev cannot be used on this server"), "{listed}");
    let server = Server::start(dir.path(), &[]);
    let reply = server.client(&token(dir.path())).post("/getImagetoImage", &ask("https://example.com/a.png", 1)).await;
    assert_eq!(reply.status, 503, "{}", reply.text());
    let detail = reply.json()["error_data"].to_string();
    assert!(detail.contains("cannot be used on this server") && !detail.contains("transformer"), "{detail}");
}
