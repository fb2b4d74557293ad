//! `SIGKILL` at random moments with tasks queued and running: none lost, none done twice, none stuck.

use crate::process::{Server, ask, token};
use domain::quantity::Size;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use testkit::client::Client;
use testkit::pictures::{PictureServer, png_size};
use tokio::time::{Instant, sleep};

const N_ROUNDS: u32 = 20;
const TASKS_PER_ROUND: u32 = 4;
/// The latest moment of a kill: a few paintings on a quiet machine.
const LIFE_MS_MAX: u64 = 900;
/// Tasks that kills must interrupt for the test to mean anything.
const N_KILLED_AT_WORK_MIN: usize = 3;
/// For all that is left after the last kill, on a busy machine.
const FINISH_PATIENCE: Duration = Duration::from_secs(240);

/// What is known of the tasks, by the idempotency key of each.
#[derive(Default)]
struct Ledger {
    /// Acknowledged: must be there for ever.
    accepted: BTreeMap<String, String>,
    /// The task as it was when it was first seen to be over: it may never change again.
    over: BTreeMap<String, Value>,
    /// Of each task, how many attempts the logs call successful.
    successes: BTreeMap<String, u32>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_nothing_repeat_nothing_and_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let token = token(dir.path());
    let pictures = PictureServer::start().await;
    let body = ask(&pictures.url("64x64.png"), 3);
    let mut random = Random::from_clock();
    let seed = random.0;
    let mut ledger = Ledger::default();
    let mut keys: Vec<String> = Vec::new();
    for round in 0..N_ROUNDS {
        keys.extend((0..TASKS_PER_ROUND).map(|n| format!("round {round} task {n}")));
        let server = Server::start(dir.path(), &["--allow-source", "127.0.0.0/8"]);
        let client = server.client(&token);
        let life = Duration::from_millis(random.below(LIFE_MS_MAX));
        let submitting = submit(&client, &keys, &body, &mut ledger);
        // The kill comes in the middle of whatever is going on.
        let _ = tokio::time::timeout(life, async { (submitting.await, sleep(LIFE).await) }).await;
        ledger.read_log(&server.kill());
    }
    let server = Server::start(dir.path(), &["--allow-source", "127.0.0.0/8"]);
    let client = server.client(&token);
    submit(&client, &keys, &body, &mut ledger).await;
    assert_eq!(ledger.accepted.len(), keys.len(), "seed {seed}: everything is accepted in the end");
    let until = Instant::now() + FINISH_PATIENCE;
    while ledger.over.len() < keys.len() {
        assert!(Instant::now() < until, "seed {seed}: {} of {} are over", ledger.over.len(), keys.len());
        ledger.look(&client).await;
        sleep(Duration::from_millis(100)).await;
    }
    ledger.look(&client).await;
    check(&client, &ledger, &keys, seed).await;
    ledger.read_log(&server.kill());
    for (id, n_successes) in &ledger.successes {
        assert_eq!(*n_successes, 1, "seed {seed}: {id} was done more than once");
    }
}

/// Longer than any life of a server here.
const LIFE: Duration = Duration::from_millis(LIFE_MS_MAX);

/// Sends every call that has no answer yet, under its key; looks at the tasks in between.
async fn submit(client: &Client, keys: &[String], body: &Value, ledger: &mut Ledger) {
    for key in keys {
        if !ledger.accepted.contains_key(key) {
            let call = client.call("POST", "/getImagetoImage").header("Idempotency-Key", key).json(body);
            let Some(reply) = call.try_send().await else { return };
            assert_eq!(reply.status, 200, "{}", reply.text());
            let id = reply.json()["task_id"].as_str().unwrap().to_owned();
            ledger.accepted.insert(key.clone(), id);
        }
    }
    ledger.look(client).await;
}

async fn check(client: &Client, ledger: &Ledger, keys: &[String], seed: u64) {
    let ids: BTreeSet<&String> = ledger.accepted.values().collect();
    assert_eq!(ids.len(), keys.len(), "seed {seed}: each key has a task of its own");
    let listed = client.get("/v1/tasks?limit=100").await.json()["tasks"].as_array().unwrap().clone();
    assert_eq!(listed.len(), keys.len(), "seed {seed}: no call made two tasks");
    let depth = client.get("/readyz").await.json();
    assert_eq!((&depth["queued"], &depth["running"]), (&0.into(), &0.into()), "seed {seed}: nothing is stuck");
    let mut n_succeeded = 0;
    for (id, task) in &ledger.over {
        match task["state"].as_str().unwrap() {
            "succeeded" => {
                n_succeeded += 1;
                let picture = client.get_url(task["output"]["result"][0].as_str().unwrap()).await;
                assert_eq!(png_size(&picture.body), Size::new(64, 64), "seed {seed}: {id}");
            }
            // A task that had the bad luck to be running at so many kills.
            "failed" => {
                assert_eq!(task["attempt"], 3, "seed {seed}: {id} failed before its attempts were spent: {task}");
                assert!(task["error_data"].is_string(), "seed {seed}: {id} has no reason: {task}");
            }
            other => panic!("seed {seed}: {id} ended as {other}"),
        }
    }
    let n_begun_again = ledger.over.values().filter(|task| task["attempt"].as_u64() > Some(1)).count();
    assert!(n_begun_again >= N_KILLED_AT_WORK_MIN, "seed {seed}: only {n_begun_again} tasks were killed at work");
    assert!(n_succeeded * 10 >= keys.len() * 9, "seed {seed}: only {n_succeeded} of {} succeeded", keys.len());
}

impl Ledger {
    /// Reads the tasks that are not known to be over, and one that is.
    async fn look(&mut self, client: &Client) {
        let known = self.over.keys().next().cloned();
        let open = self.accepted.values().filter(|id| !self.over.contains_key(*id)).cloned();
        for id in open.chain(known).collect::<Vec<_>>() {
            let Some(reply) = client.call("GET", &format!("/v1/tasks/{id}")).try_send().await else { return };
            assert_eq!(reply.status, 200, "{id} is lost: {}", reply.text());
            let mut task = reply.json();
            // The server has another port each time, so its URLs differ in that.
            for list in ["result", "low_res_urls"] {
                let Some(urls) = task["output"][list].as_array_mut() else { continue };
                for url in urls {
                    let name = url.as_str().unwrap().rsplit('/').next().unwrap().to_owned();
                    *url = format!("http://server/results/{name}").into();
                }
            }
            if let Some(before) = self.over.get(&id) {
                assert_eq!(*before, task, "what is over may not change");
            } else if ["succeeded", "failed", "cancelled"].contains(&task["state"].as_str().unwrap()) {
                self.over.insert(id, task);
            }
        }
    }

    fn read_log(&mut self, lines: &[String]) {
        for line in lines.iter().filter(|line| line.contains("an attempt ended") && line.contains("succeeded")) {
            let id = line.split("task.id=").nth(1).unwrap().split_whitespace().next().unwrap();
            *self.successes.entry(id.to_owned()).or_default() += 1;
        }
    }
}

/// Another sequence in every run; a failure names its beginning.
struct Random(u64);

impl Random {
    fn from_clock() -> Self {
        Self(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 | 1)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}
