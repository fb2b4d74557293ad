//! The program's processes, and what they say.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use testkit::client::Client;

const PROGRAM: &str = env!("CARGO_BIN_EXE_pentimento");
/// Longer than a start takes on a busy machine.
const START_PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const FLUX_DEV: &str = "ap-fGhKl3mfkdlpqrshuwwabc";

pub(crate) fn run(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

/// With this in the environment besides.
pub(crate) fn run_with(environment: &[(&str, &str)], args: &[&str]) -> Output {
    command(args).envs(environment.iter().copied()).output().unwrap()
}

/// Without what the machine's own environment says, and what its user has in the usual folders.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    let is_heard = |name: &str| {
        ["PENTIMENTO_", "HF_", "HUGGING"].iter().any(|begin| name.starts_with(begin)) || name == "SSL_CERT_FILE"
    };
    for (name, _) in std::env::vars().filter(|(name, _)| is_heard(name)) {
        command.env_remove(name);
    }
    for home in ["HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA", "USERPROFILE"] {
        command.env(home, concat!(env!("CARGO_TARGET_TMPDIR"), "/nobody"));
    }
    command.args(args);
    command
}

/// Makes a key and returns its token.
pub(crate) fn token(data: &Path) -> String {
    let made = run(&["keys", "create", "--name", "test", "--data", data.to_str().unwrap()]);
    assert!(made.status.success());
    String::from_utf8(made.stdout).unwrap().trim_end().to_owned()
}

/// A body that waits for nobody and fetches nothing.
pub(crate) fn ask(picture: &str, n_steps: u32) -> Value {
    json!({"app_id": FLUX_DEV, "image": picture, "prompt": "a red house", "num_inference_steps": n_steps, "celery": true})
}

/// A running server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(crate) fn start(data: &Path, more: &[&str]) -> Self {
        Self::start_with(&[], data, more)
    }

    /// With this in the environment besides.
    pub(crate) fn start_with(environment: &[(&str, &str)], data: &Path, more: &[&str]) -> Self {
        let args = [&["serve", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()], more].concat();
        let mut command = command(&args);
        let mut child = command.envs(environment.iter().copied()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (sender, receiver) = channel();
        let lines = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some(address) = line.split("listening on http://").nth(1) {
                    // Nobody listens any more once the address is known.
                    let _ = sender.send(address.parse().unwrap());
                }
                lines.lock().unwrap().push(line);
            }
        });
        let address = Self::address(&receiver, &log);
        Self { child, address, log }
    }

    fn address(receiver: &Receiver<SocketAddr>, log: &Mutex<Vec<String>>) -> SocketAddr {
        receiver.recv_timeout(START_PATIENCE).unwrap_or_else(|_| panic!("no start: {:?}", log.lock().unwrap()))
    }

    pub(crate) fn client(&self, token: &str) -> Client {
        Client::new(self.address, token)
    }

    /// `SIGKILL`: the process does nothing more. Returns what it had logged.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// Waits for the process to end by itself.
    pub(crate) fn end_within(&mut self, patience: Duration) -> ExitStatus {
        let until = Instant::now() + patience;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the server did not end: {:?}", self.log.lock().unwrap());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
