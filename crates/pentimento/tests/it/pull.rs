//! `pentimento pull`, and what becomes of what it brings, against a hub on the loopback interface.

use crate::process::command;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use testkit::model_hub::{COMMIT, Fault, ModelHub, sha256};

const CANNY: &str = "black-forest-labs/FLUX.1-Canny-dev";
const DEPTH: &str = "depth-anything/Depth-Anything-V2-Base-hf";
const TOKEN: &str = "hf_the_secret";
const WEIGHTS_FILE: &str = "transformer/diffusion_pytorch_model.safetensors";

/// A hub with small models under the names of large ones, and a data folder.
struct Rig {
    hub: ModelHub,
    dir: TempDir,
}

impl Rig {
    async fn start() -> Self {
        let hub = ModelHub::start().await;
        add_folder(&hub, CANNY, &goldens().join("models/flux-control-tiny"), "");
        hub.large(CANNY, "flux1-canny-dev.safetensors", vec![1; 1000]);
        hub.small(DEPTH, "config.json", "{}");
        hub.small(DEPTH, "preprocessor_config.json", "{}");
        hub.large(DEPTH, "model.safetensors", vec![5; 200_000]);
        Self { hub, dir: tempfile::tempdir().unwrap() }
    }

    fn data(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    fn folder(&self, model: &str) -> PathBuf {
        self.dir.path().join("weights").join(model)
    }

    fn run(&self, args: &[&str]) -> Ended {
        self.run_with(args, &[("HF_TOKEN", TOKEN)])
    }

    /// In the rig's data folder, with this in the environment.
    fn run_with(&self, args: &[&str], environment: &[(&str, &str)]) -> Ended {
        Ended::of(&self.command(args, environment).output().unwrap())
    }

    fn command(&self, args: &[&str], environment: &[(&str, &str)]) -> std::process::Command {
        let mut command = command(&[args, &["--data", self.data()]].concat());
        command.env("HF_ENDPOINT", self.hub.url()).envs(environment.iter().copied()).stdin(Stdio::null());
        command
    }
}

/// What a process said; never a secret.
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ended {
    #[track_caller]
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        for secret in [TOKEN, testkit::model_hub::SIGNATURE] {
            assert!(!out.contains(secret) && !err.contains(secret), "{out}{err}");
        }
        Self { code: output.status.code(), out, err }
    }

    #[track_caller]
    fn fine(self) -> Self {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.err);
        self
    }

    /// One line that holds this.
    #[track_caller]
    fn refused(&self, code: i32, words: &str) {
        let last = self.err.lines().last().unwrap_or_default();
        assert!(self.code == Some(code) && last.starts_with("pentimento: ") && last.contains(words), "{}", self.err);
    }

    #[track_caller]
    fn row(&self, name: &str) -> &str {
        self.out
            .lines()
            .find(|line| line.split_whitespace().next() == Some(name))
            .unwrap_or_else(|| panic!("{}", self.out))
    }
}

fn goldens() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../parity/goldens"))
}

fn add_folder(hub: &ModelHub, repository: &str, dir: &Path, prefix: &str) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() {
            add_folder(hub, repository, &path, &format!("{name}/"));
        } else if name.ends_with(".safetensors") {
            hub.large(repository, &name, fs::read(path).unwrap());
        } else {
            hub.small(repository, &name, fs::read(path).unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pulled_model_paints_without_further_options() {
    let rig = Rig::start().await;
    rig.hub.gate(CANNY, TOKEN, true);
    let pulled = rig.run(&["pull", "flux-canny", "--accept-licence"]).fine();
    for words in [
        &format!("flux-canny: {CANNY} at commit {COMMIT} (main)"),
        "licence: FLUX.1 [dev] Non-Commercial License, not for commercial use: https://",
        "gated",
        WEIGHTS_FILE,
        "to fetch",
        "flux-canny is installed at",
    ] {
        assert!(pulled.out.contains(words), "{words} is not in: {}", pulled.out);
    }
    assert!(pulled.err.contains("fetched (16 of 16)"), "{}", pulled.err);
    assert!(!pulled.err.contains('\u{1b}'), "no terminal, no bars");
    assert!(!rig.folder("flux-canny").join("flux1-canny-dev.safetensors").exists(), "nobody reads it");
    assert!(!rig.folder("flux-canny").join("tokenizer_2/spiece.model").exists(), "nobody reads it");

    let models = rig.run(&["models"]).fine();
    assert!(models.row("flux-canny").contains("installed"), "{}", models.out);
    assert!(rig.run(&["doctor"]).fine().out.contains("flux-canny"));
    let (input, out) = (goldens().join("inputs/in_96x64.png"), rig.dir.path().join("out.png"));
    let prompt = "a photo of a red car, cinematic lighting, highly detailed";
    let fixed = ["paint", input.to_str().unwrap(), prompt, "-o", out.to_str().unwrap(), "--app", "flux-canny"];
    let options =
        ["--steps", "4", "--guidance-scale", "30", "--seed", "21", "--strength", "1", "--max-sequence-length", "64"];
    rig.run(&[&fixed[..], &options].concat()).fine();
    let picture = |path: &Path| imaging::decode(&fs::read(path).unwrap()).unwrap();
    let recorded = picture(&goldens().join("cases/flux_control_canny/image.png"));
    let levels = picture(&out).pixels().iter().zip(recorded.pixels()).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(levels.is_some_and(|off| off <= 1), "{levels:?}");

    let again = rig.run(&["pull", "flux-canny"]).fine();
    assert!(again.out.contains("flux-canny was complete at") && again.out.contains("; 0 B to fetch"), "{}", again.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_licence_is_asked_for_once() {
    let rig = Rig::start().await;
    let refused = rig.run(&["pull", "depth-anything-v2-base"]);
    refused.refused(2, "these licences have to be accepted: CC-BY-NC-4.0; --accept-licence");
    assert!(refused.out.contains("not for commercial use"), "it was shown");
    assert_eq!(rig.hub.n_sent("model.safetensors"), 0);
    rig.run(&["pull", "depth-anything-v2-base", "--yes"]).fine();
    rig.run(&["models", "remove", "depth-anything-v2-base"]).fine();
    rig.run(&["pull", "depth-anything-v2-base"]).fine();
    assert!(rig.folder("depth-anything-v2-base").join("model.safetensors").is_file());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_shows_everything_and_changes_nothing() {
    let rig = Rig::start().await;
    let shown = rig.run(&["pull", "depth-anything-v2-base", "--dry-run"]).fine();
    assert!(shown.out.contains("model.safetensors") && shown.out.contains("200.00 kB"), "{}", shown.out);
    assert!(shown.out.contains("3 files, 200.00 kB; 200.00 kB to fetch"), "{}", shown.out);
    assert_eq!(fs::read_dir(rig.dir.path()).unwrap().count(), 0);
    assert_eq!(rig.hub.n_sent("model.safetensors"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_let_in_reads_what_to_do() {
    let rig = Rig::start().await;
    rig.hub.gate(CANNY, TOKEN, false);
    let pull = ["pull", "flux-canny", "--accept-licence"];
    let page = format!("{}/{CANNY}", rig.hub.url());
    rig.run_with(&pull, &[]).refused(1, &format!("accept its licence at {page}, then set HF_TOKEN"));
    rig.run(&pull).refused(1, "the account of HF_TOKEN may not have it");
    rig.run_with(&pull, &[("HF_TOKEN", "hf_another")]).refused(1, "does not accept the token in HF_TOKEN");
    rig.run_with(&pull, &[("HF_TOKEN", "two words")]).refused(2, "HF_TOKEN: allowed");
    assert!(!rig.folder("flux-canny").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_of_other_tools_is_found() {
    let rig = Rig::start().await;
    rig.hub.gate(DEPTH, TOKEN, true);
    let home = rig.dir.path().join("hf");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("token"), format!("{TOKEN}\n")).unwrap();
    rig.run_with(&["pull", "depth-anything-v2-base", "--yes"], &[("HF_HOME", home.to_str().unwrap())]).fine();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cache_of_other_tools_is_used() {
    let rig = Rig::start().await;
    let blobs = rig.dir.path().join("cache/models--depth-anything--Depth-Anything-V2-Base-hf/blobs");
    fs::create_dir_all(&blobs).unwrap();
    let content = vec![5; 200_000];
    fs::write(blobs.join(sha256(&content)), content).unwrap();
    let cache = rig.dir.path().join("cache");
    let pulled =
        rig.run_with(&["pull", "depth-anything-v2-base", "--yes"], &[("HF_HUB_CACHE", cache.to_str().unwrap())]);
    let pulled = pulled.fine();
    assert!(
        pulled.out.contains("in the shared cache") && pulled.err.contains("from the shared cache"),
        "{}",
        pulled.err
    );
    assert_eq!(rig.hub.n_sent("model.safetensors"), 0);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_pull_is_gone_on_with() {
    let rig = Rig::start().await;
    rig.hub.fault("model.safetensors", [Fault::StallAfter(150_000)]);
    let pull = ["pull", "depth-anything-v2-base", "--yes"];
    let child = rig.command(&pull, &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while rig.hub.n_sent("model.safetensors") < 150_000 && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The bytes are on their way through the program's hands.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let signalled = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(signalled.unwrap().success());
    let ended = Ended::of(&child.wait_with_output().unwrap());
    ended.refused(130, "interrupted; the same command goes on with what has arrived");
    assert!(!rig.folder("depth-anything-v2-base").exists());
    let models = rig.run(&["models"]).fine();
    assert!(models.row("depth-anything-v2-base").contains("incomplete"), "{}", models.out);

    let shown = rig.run(&["pull", "depth-anything-v2-base", "--dry-run"]).fine();
    assert!(shown.out.contains("150.00 kB of it are here"), "{}", shown.out);
    rig.run(&pull).fine();
    assert_eq!(rig.hub.n_sent("model.safetensors"), 200_000, "no byte was sent twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_is_one_clear_line() {
    let rig = Rig::start().await;
    rig.hub.fault("model.safetensors", [Fault::Content(vec![6; 200_000])]);
    let pull = ["pull", "depth-anything-v2-base", "--yes"];
    rig.run(&pull)
        .refused(1, "model.safetensors arrived with another hash than declared; what had arrived was deleted");
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let offline = rig.run_with(&pull, &[("HF_ENDPOINT", &format!("http://{gone}"))]);
    offline.refused(1, "cannot be reached; is this machine online?");
    rig.run_with(&pull, &[("HF_HUB_OFFLINE", "1")]).refused(1, "HF_HUB_OFFLINE is set");
    rig.run_with(&pull, &[("HF_ENDPOINT", "nonsense")]).refused(2, "HF_ENDPOINT: allowed");
    rig.run(&["pull", "sdxl-base"]).refused(1, "has no repository stabilityai/stable-diffusion-xl-base-1.0");
    rig.run(&["pull", "nothing"]).refused(2, "got nothing; allowed: flux-dev");
    rig.run(&["pull", "cartoon"]).refused(2, "cannot be pulled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_weights_under_a_known_name_are_refused() {
    let rig = Rig::start().await;
    let schnell = "black-forest-labs/FLUX.1-schnell";
    add_folder(&rig.hub, schnell, &goldens().join("models/flux-schnell-tiny"), "");
    for path in ["text_encoder_2/model-00001-of-00002.safetensors", "text_encoder_2/model-00002-of-00002.safetensors"] {
        rig.hub.large(schnell, path, "forged");
    }
    let refused = rig.run(&["pull", "flux-schnell", "--yes"]);
    refused.refused(1, "declares another size of text_encoder/model.safetensors than this version knows");
    // A revision that the operator names is the operator's business.
    rig.run(&["pull", "flux-schnell", "--yes", "--revision", "refs/pr/1"]).fine();
    assert!(rig.hub.asked().iter().any(|asked| asked.path.ends_with("/revision/refs%2Fpr%2F1")));
    let models = rig.run(&["models"]).fine();
    assert!(models.row("flux-schnell").contains("installed"));
    let app = models.out.lines().find(|line| line.contains(crate::process::FLUX_DEV)).unwrap();
    assert!(app.contains("flux-schnell"), "what is pulled serves: {app}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_are_listed_verified_and_removed() {
    let rig = Rig::start().await;
    let listed = rig.run(&["models"]).fine();
    for (model, words) in [
        ("pentimento-nano", &["embedded", "flux-dev"][..]),
        ("flux-dev", &["available", "(non-commercial)", "yes"]),
        ("sdxl-base", &["available", "RAIL"]),
        ("cartoon", &["absent"]),
        ("ideogram-remix", &["no key"]),
    ] {
        let row = listed.row(model);
        assert!(words.iter().all(|word| row.contains(word)), "{row}");
    }
    rig.run(&["pull", "depth-anything-v2-base", "--yes"]).fine();
    let json: serde_json::Value = serde_json::from_str(&rig.run(&["models", "--json"]).fine().out).unwrap();
    let models = json["models"].as_array().unwrap();
    let depth = models.iter().find(|model| model["id"] == "depth-anything-v2-base").unwrap();
    assert_eq!(
        (&depth["state"], &depth["commit"], &depth["non_commercial"]),
        (&"installed".into(), &COMMIT.into(), &true.into())
    );
    assert!(depth["bytes"].as_u64().unwrap() > 200_000);
    assert!(
        json["apps"]
            .as_array()
            .unwrap()
            .iter()
            .any(|app| app["slug"] == "flux-dev" && app["model"] == "pentimento-nano")
    );

    let verified = rig.run(&["models", "verify", "depth-anything-v2-base"]).fine();
    assert_eq!(verified.out.lines().filter(|line| line.starts_with("ok ")).count(), 3, "{}", verified.out);
    let file = rig.folder("depth-anything-v2-base").join("model.safetensors");
    fs::write(&file, vec![6; 200_000]).unwrap();
    let damaged = rig.run(&["models", "verify", "depth-anything-v2-base"]);
    damaged.refused(
        1,
        "1 files of depth-anything-v2-base are damaged; `pentimento pull depth-anything-v2-base` mends them",
    );
    assert!(rig.run(&["models"]).fine().row("depth-anything-v2-base").contains("incomplete"));
    rig.run(&["pull", "depth-anything-v2-base"]).fine();
    rig.run(&["models", "verify", "depth-anything-v2-base"]).fine();
    rig.run(&["models", "remove", "depth-anything-v2-base"]).fine();
    assert!(!rig.folder("depth-anything-v2-base").exists());
    rig.run(&["models", "remove", "depth-anything-v2-base"]).refused(1, "there is no depth-anything-v2-base in");
    rig.run(&["models", "verify", "flux-dev"]).refused(1, "there is no flux-dev in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_of_ones_own_is_filled_and_used() {
    let rig = Rig::start().await;
    let own = rig.dir.path().join("own");
    let weights = ["--weights", own.to_str().unwrap()];
    rig.run(&[&["pull", "depth-anything-v2-base", "--yes"], &weights[..]].concat()).fine();
    assert!(own.join("depth-anything-v2-base/model.safetensors").is_file());
    assert!(rig.run(&[&["models"], &weights[..]].concat()).fine().row("depth-anything-v2-base").contains("installed"));
    assert!(rig.run(&["models"]).fine().row("depth-anything-v2-base").contains("available"), "elsewhere");
}
