//! Fetching weights from a hub that speaks the Hugging Face protocol, so that only whole and verified files are ever seen.
//!
//! A pull asks which commit a revision is, lists its files, and takes each from where it is already (the model's folder,
//! the shared cache) or from the network. What arrives is hashed while it is written, to a part file that a later pull
//! goes on with; a verified file waits beside the others, and the model's folder appears when all of them are there.
//! The caller says where everything is: nothing here reads the environment.

mod attempts;
mod cache;
mod checksum;
mod endpoint;
mod error;
mod http;
pub mod licence;
mod listing;
mod part;
mod progress;
mod staging;
mod transfer;

pub(crate) use checksum::sha256_of;
pub use checksum::{Checksum, Sha256Hex};
pub use endpoint::{Endpoint, Token};
pub use error::PullError;
pub(crate) use listing::is_safe;
pub use progress::{Event, Origin, Progress, Silent};
pub use staging::{has_begun, remove};

use crate::disk;
use crate::registry::Source;
use cache::Cache;
use domain::id::ModelId;
use futures::StreamExt;
use http::Client;
use staging::{Found, Staging, Target};
use std::cmp::Reverse;
use std::path::{Path, PathBuf};
use std::time::Duration;
use transfer::Transfer;

/// Files that are fetched at once.
const PARALLEL_MAX: usize = 4;
/// Files up to this size go first: whether the hub lets us in at all shows before the large ones begin.
const SMALL_BYTES_MAX: u64 = 1 << 20;
/// Left free on the disk.
const DISK_RESERVE_BYTES: u64 = 64 << 20;

/// How a hub is reached.
pub struct Settings {
    pub endpoint: Endpoint,
    pub token: Option<Token>,
    /// The shared Hugging Face cache: a folder of `models--owner--name`.
    pub cache: Option<PathBuf>,
    /// Certificates in PEM that are trusted besides the public authorities.
    pub extra_roots_pem: Option<Vec<u8>>,
    pub patience: Patience,
}

/// How long a hub is waited for, and how often it is asked again.
#[derive(Clone, Debug)]
pub struct Patience {
    /// For connecting once, encryption included.
    pub connect: Duration,
    /// For the head of an answer.
    pub answer: Duration,
    /// Between two pieces of a body.
    pub idle: Duration,
    /// A body that brings fewer than `slow_bytes` in this time is given up and asked for again.
    pub slow_window: Duration,
    pub slow_bytes: u64,
    /// Attempts in a row that may fail without bringing `progress_bytes`.
    pub attempts: u32,
    pub progress_bytes: u64,
    /// The first wait between attempts; each is twice the one before.
    pub backoff_min: Duration,
    pub backoff_max: Duration,
    /// A hub that asks for a longer wait is not waited for.
    pub retry_after_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            answer: Duration::from_secs(30),
            idle: Duration::from_secs(30),
            slow_window: Duration::from_secs(30),
            slow_bytes: 32 << 10,
            attempts: 6,
            progress_bytes: 1 << 20,
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_secs(30),
            retry_after_max: Duration::from_secs(300),
        }
    }
}

/// One model at one commit: all that its folder will hold.
#[derive(Clone, Debug)]
pub struct Plan {
    pub model: ModelId,
    /// `owner/name`.
    pub repository: String,
    /// As it was asked for: a branch, a tag or a commit.
    pub revision: String,
    /// 40 hexadecimal digits.
    pub commit: String,
    pub files: Vec<PlannedFile>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedFile {
    /// Within the repository and the model's folder; checked to lead nowhere else.
    pub path: String,
    pub bytes: u64,
    pub checksum: Checksum,
}

/// Where a planned file is to come from, as far as a look without hashing tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It lies in the model's folder, or verified beside it.
    Here,
    /// The shared cache has it.
    Cached,
    /// The network has it; so many bytes of it are here already.
    Remote { have: u64 },
}

impl Plan {
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// Fetches models from one hub.
pub struct Downloader {
    client: Client,
    cache: Cache,
}

impl Downloader {
    /// Fails if the extra roots cannot be read.
    pub fn new(settings: Settings) -> Result<Self, PullError> {
        let Settings { endpoint, token, cache, extra_roots_pem, patience } = settings;
        let client = Client::new(endpoint, token, extra_roots_pem.as_deref(), patience)?;
        Ok(Self { client, cache: Cache::new(cache) })
    }

    /// Asks the hub what a pull would bring. Without a `revision`, the registry's.
    pub async fn plan(&self, model: &ModelId, source: &Source, revision: Option<&str>) -> Result<Plan, PullError> {
        let repository = source.repository.clone();
        let asked = revision.unwrap_or(&source.revision);
        let commit = listing::commit(&self.client, &repository, asked).await?;
        let listed = listing::files(&self.client, &repository, &commit).await?;
        let files = listing::choose(source, listed)?;
        if asked == source.revision {
            listing::compare_with_known(&self.client.endpoint.host(), source, &files)?;
        }
        Ok(Plan { model: model.clone(), repository, revision: asked.to_owned(), commit, files })
    }

    /// What a pull of this plan would find where, in the plan's order. Hashes nothing and changes nothing.
    pub fn survey(&self, plan: &Plan, weights: &Path) -> Vec<Place> {
        let target = Target::look(plan, weights);
        let place = |file: &PlannedFile| {
            let is_here = matches!(target.find(file), Found::Recorded(_) | Found::Likely(_));
            if is_here || staging::whole_bytes(plan, weights, file) == Some(file.bytes) {
                Place::Here
            } else if self.cache.find(plan, file).is_some() {
                Place::Cached
            } else {
                Place::Remote { have: staging::part_bytes(plan, weights, file) }
            }
        };
        plan.files.iter().map(place).collect()
    }

    /// Brings what is missing, and puts the model into its folder below `weights`. Can be given up at any time: what
    /// has arrived is used by the next pull. Returns whether anything was missing.
    pub async fn pull(&self, plan: &Plan, weights: &Path, progress: &dyn Progress) -> Result<bool, PullError> {
        let staging = Staging::open(plan, weights)?;
        let target = Target::look(plan, weights);
        if target.is_complete() {
            return Ok(false);
        }
        staging.check_space(&target, self.bytes_needed(plan, weights))?;
        let mut order: Vec<usize> = (0..plan.files.len()).collect();
        order.sort_by_key(|idx| (plan.files[*idx].bytes > SMALL_BYTES_MAX, Reverse(plan.files[*idx].bytes)));
        let fetches = order.into_iter().map(|file| {
            let (client, cache) = (&self.client, &self.cache);
            Transfer { client, cache, plan, file, staging: &staging, target: &target, progress }.run()
        });
        let mut fetches = futures::stream::iter(fetches).buffer_unordered(PARALLEL_MAX);
        let mut outcome = Ok(Vec::new());
        while let (Ok(done), Some(fetched)) = (&mut outcome, fetches.next().await) {
            match fetched {
                Ok(fetched) => done.push(fetched),
                Err(error) => outcome = Err(error),
            }
        }
        drop(fetches);
        staging.settle().await;
        staging.install(plan, &target, &outcome?)?;
        Ok(true)
    }

    /// A second name for a cached file takes no room; where the file system can give none, its copy does.
    fn bytes_to_copy(&self, plan: &Plan, file: &PlannedFile, weights: &Path) -> u64 {
        let is_beside = |cached: PathBuf| disk::is_one_file_system(&cached, weights);
        if self.cache.find(plan, file).is_some_and(is_beside) { 0 } else { file.bytes }
    }

    fn bytes_needed(&self, plan: &Plan, weights: &Path) -> u64 {
        let places = self.survey(plan, weights);
        let missing = |(file, place): (&PlannedFile, Place)| match place {
            Place::Remote { have } => file.bytes.saturating_sub(have),
            Place::Here => 0,
            Place::Cached => self.bytes_to_copy(plan, file, weights),
        };
        plan.files.iter().zip(places).map(missing).sum()
    }
}
