//! A process that writes as fast as it can is killed at random moments: what it was told is done stays done.

use crate::support::{new_task, painting, wanted, worker};
use domain::id::TaskId;
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use store::contract::{NewTask, Settled, Stores, Submission};
use store::sqlite::{self, StoreOptions};

const N_ROUNDS: u32 = 10;
/// Names the folder to the process that is going to be killed.
const FOLDER: &str = "STORE_CRASH_TEST_FOLDER";
const ROUND: &str = "STORE_CRASH_TEST_ROUND";
const TEST_NAME: &str = "crash::what_was_acknowledged_survives_a_kill";

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Some(folder) = std::env::var_os(FOLDER) {
        runtime.block_on(write_until_killed(Path::new(&folder)));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut told = Told::default();
    for round in 0..N_ROUNDS {
        let mut child = spawn_writer(dir.path(), round);
        told.listen_and_kill(&mut child, round);
        runtime.block_on(verify(dir.path(), &told));
    }
    assert!(told.submitted.len() > 50 && told.completed.len() > 5, "the writers hardly came to write: {told:?}");
}

/// What the writers were told is durable.
#[derive(Default)]
struct Told {
    submitted: HashSet<String>,
    completed: HashSet<String>,
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} submitted, {} completed", self.submitted.len(), self.completed.len())
    }
}

impl Told {
    fn listen_and_kill(&mut self, child: &mut Child, round: u32) {
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut killed_at = None;
        let mut line = String::new();
        loop {
            line.clear();
            let n_bytes = lines.read_line(&mut line).unwrap();
            // A line without its end was cut off by the kill: nobody was told.
            if n_bytes == 0 || !line.ends_with('\n') {
                break;
            }
            let is_new = match line.trim().split_once(' ') {
                Some(("submitted", id)) => self.submitted.insert(id.to_owned()),
                Some(("completed", id)) => self.completed.insert(id.to_owned()),
                _ => continue,
            };
            assert!(is_new, "told twice: {line}");
            // The first news starts the clock; the moment differs from round to round.
            let moment = *killed_at.get_or_insert_with(|| {
                Instant::now() + Duration::from_micros(random_up_to(20_000 * u64::from(round + 1)))
            });
            if Instant::now() >= moment {
                child.kill().unwrap();
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

async fn verify(dir: &Path, told: &Told) {
    let stores = sqlite::open(dir, options()).unwrap();
    for id in &told.submitted {
        let task = stores.tasks.get(&TaskId::parse(id).unwrap()).await.unwrap();
        assert!(task.is_some(), "the task {id} was acknowledged and is lost");
    }
    for id in &told.completed {
        let task = stores.tasks.get(&TaskId::parse(id).unwrap()).await.unwrap().unwrap();
        assert_eq!(task.state.as_str(), "succeeded", "{id} was settled and is not");
    }
    let database = rusqlite::Connection::open(dir.join("pentimento.db")).unwrap();
    let health: String = database.pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap();
    assert_eq!(health, "ok");
}

fn spawn_writer(dir: &Path, round: u32) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([TEST_NAME, "--exact", "--nocapture"])
        .env(FOLDER, dir)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Many submit at once, so that commits hold groups; two workers finish what they get.
async fn write_until_killed(dir: &Path) {
    let round: u8 = std::env::var(ROUND).unwrap().parse().unwrap();
    let stores = sqlite::open(dir, options()).unwrap();
    stores.queue.reap_all().await.unwrap();
    let mut actors = Vec::new();
    for actor in 0..8 {
        actors.push(tokio::spawn(submit_for_ever(stores.clone(), round, actor)));
    }
    for n in 0..2 {
        actors.push(tokio::spawn(work_for_ever(stores.clone(), n)));
    }
    for actor in actors {
        actor.await.unwrap();
    }
}

async fn submit_for_ever(stores: Stores, round: u8, actor: u8) {
    for n in 0..u32::MAX {
        let mut bytes = [0; 16];
        (bytes[0], bytes[1]) = (round, actor);
        bytes[12..].copy_from_slice(&n.to_le_bytes());
        let task = NewTask { id: TaskId::from_random(bytes), ..new_task(1) };
        let Submission::Accepted(task) = stores.tasks.submit(task).await.unwrap() else { return };
        say("submitted", &task.id);
    }
}

async fn work_for_ever(stores: Stores, n: u8) {
    loop {
        let Some(lease) = stores.queue.claim(&worker(n), &wanted(&["a"])).await.unwrap() else {
            tokio::task::yield_now().await;
            continue;
        };
        let settled = stores.queue.complete(&lease.id, painting(lease.id.task.as_str())).await.unwrap();
        if settled == Settled::Done {
            say("completed", &lease.id.task);
        }
    }
}

/// One write of one line, past the test harness, which would keep it back.
fn say(what: &str, id: &TaskId) {
    let line = format!("\n{what} {id}\n");
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

fn options() -> StoreOptions {
    StoreOptions { queue_tasks_max: u64::MAX, owner_tasks_max: u64::MAX, ..StoreOptions::default() }
}

fn random_up_to(max: u64) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(max) % max
}
