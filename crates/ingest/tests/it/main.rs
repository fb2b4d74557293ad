//! The fetcher against a real server on loopback that does everything a server should not.

mod body;
mod hosts;
mod redirects;
mod server;
mod spellings;
mod stalls;
mod tls;

use async_trait::async_trait;
use domain::quantity::Size;
use domain::request::OutputFormat;
use imaging::{Metadata, Picture};
use ingest::{FetchPolicy, Fetcher, IpRange, Resolver};
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A policy with loopback's first address opened, and times that a test can wait for.
fn policy() -> FetchPolicy {
    FetchPolicy {
        allowed_sources: vec![IpRange::parse("127.0.0.1").unwrap()],
        time_max: Duration::from_millis(1500),
        connect_time_max: Duration::from_millis(500),
        ..FetchPolicy::default()
    }
}

fn fetcher() -> Fetcher {
    Fetcher::new(policy()).unwrap()
}

/// A valid file of some size.
fn png() -> Vec<u8> {
    let size = Size::new(40, 30);
    let pixels = (0..3 * size.pixels()).map(|idx| (idx * 37 % 251) as u8).collect();
    let metadata = Metadata { software: "test".into(), model: "test".into(), seed: None };
    imaging::encode(&Picture::new(size, pixels).unwrap(), OutputFormat::Png, &metadata).unwrap()
}

/// Gives one answer after the other, the last again and again.
struct Script {
    answers: Mutex<Vec<Vec<IpAddr>>>,
    n_asked: AtomicUsize,
}

impl Script {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let read = |answer: &&[&str]| answer.iter().map(|text| text.parse().unwrap()).collect();
        let mut answers: Vec<Vec<IpAddr>> = answers.iter().map(read).collect();
        answers.reverse();
        Arc::new(Self { answers: Mutex::new(answers), n_asked: AtomicUsize::new(0) })
    }

    fn n_asked(&self) -> usize {
        self.n_asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Resolver for Script {
    async fn resolve(&self, _host: &str) -> io::Result<Vec<IpAddr>> {
        self.n_asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap();
        match answers.len() {
            0 => Err(io::ErrorKind::NotFound.into()),
            1 => Ok(answers[0].clone()),
            _ => Ok(answers.pop().unwrap()),
        }
    }
}
