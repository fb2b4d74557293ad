//! One file: from the model's folder, from the shared cache, or from the network in as many pieces as it takes.

use super::attempts::{Attempt, Failed, attempts};
use super::cache::Cache;
use super::checksum::{self, Checksum, Sha256Hex};
use super::error::PullError;
use super::http::{Answer, Client};
use super::listing::refusal;
use super::part::Part;
use super::progress::{Event, Origin, Progress};
use super::staging::{Found, Staging, Target};
use super::{Plan, PlannedFile};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use std::fs;
use std::path::{Path, PathBuf};

/// What the hub says of a file that lies elsewhere.
const LINKED_ETAG: &str = "x-linked-etag";
const LINKED_SIZE: &str = "x-linked-size";
const REPO_COMMIT: &str = "x-repo-commit";

pub(super) struct Transfer<'a> {
    pub(super) client: &'a Client,
    pub(super) cache: &'a Cache,
    pub(super) plan: &'a Plan,
    /// Which of the plan's files.
    pub(super) file: usize,
    pub(super) staging: &'a Staging,
    pub(super) target: &'a Target,
    pub(super) progress: &'a dyn Progress,
}

/// A verified file on this machine.
pub(super) struct Fetched {
    pub(super) file: usize,
    pub(super) sha256: Sha256Hex,
    /// It lies in the model's folder already; otherwise it waits to be put there.
    pub(super) is_in_place: bool,
}

/// An answer with the content from some byte on.
struct Content {
    answer: Answer,
    from: u64,
}

impl Transfer<'_> {
    pub(super) async fn run(self) -> Result<Fetched, PullError> {
        let (sha256, origin, is_in_place) = match self.in_place().await? {
            Some(sha256) => (sha256, Origin::Kept, true),
            None => match self.waiting().await? {
                Some(sha256) => (sha256, Origin::Kept, false),
                None => match self.cached().await? {
                    Some(sha256) => (sha256, Origin::Cache, false),
                    None => (self.download().await?, Origin::Network, false),
                },
            },
        };
        self.tell(Event::Done(origin));
        Ok(Fetched { file: self.file, sha256, is_in_place })
    }

    /// What lies in the model's folder. A folder that no pull made is completed, but nothing in it is written over.
    async fn in_place(&self) -> Result<Option<Sha256Hex>, PullError> {
        let found = match self.target.find(self.planned()) {
            Found::Recorded(sha256) => return Ok(Some(sha256)),
            Found::Nothing => return Ok(None),
            Found::Likely(path) => match self.verify(&path).await {
                // One of ours is brought anew where it cannot be read.
                Err(_) if !self.target.is_foreign() => None,
                verified => verified?,
            },
            Found::Other => None,
        };
        if found.is_none() && self.target.is_foreign() {
            let (dir, path) = (self.target.dir().to_owned(), self.planned().path.clone());
            return Err(PullError::Foreign { dir, path });
        }
        Ok(found)
    }

    /// What an earlier pull verified; hashed again, since that pull may have been of another commit.
    async fn waiting(&self) -> Result<Option<Sha256Hex>, PullError> {
        let path = self.staging.whole(self.planned());
        if fs::metadata(&path).is_ok_and(|found| found.len() == self.planned().bytes) {
            return self.verify(&path).await;
        }
        Ok(None)
    }

    async fn cached(&self) -> Result<Option<Sha256Hex>, PullError> {
        let Some(path) = self.cache.find(self.plan, self.planned()) else { return Ok(None) };
        // A cache that cannot be read is as good as none.
        let Ok(Some(sha256)) = self.verify(&path).await else {
            self.tell(Event::StartOver("the copy in the shared cache is damaged"));
            return Ok(None);
        };
        let (whole, part) = (self.staging.whole(self.planned()), self.staging.part(self.planned()));
        let adopting = tokio::task::spawn_blocking(move || adopt(&path, &whole, &part));
        adopting.await.expect("copying does not panic, this is a bug")?;
        Ok(Some(sha256))
    }

    async fn download(&self) -> Result<Sha256Hex, PullError> {
        let retry = |error: &PullError, wait| self.tell(Event::Retry { problem: &error.to_string(), wait });
        let part = self.staging.part(self.planned());
        let sha256 = attempts(&self.client.patience, retry, async || {
            let before = part.have(self.planned()).0;
            let outcome = self.attempt(&part).await;
            Attempt { outcome, n_bytes: part.have(self.planned()).0.saturating_sub(before) }
        });
        let sha256 = sha256.await?;
        part.finish(&self.staging.whole(self.planned()))?;
        Ok(sha256)
    }

    async fn attempt(&self, part: &Part) -> Result<Sha256Hex, Failed> {
        let file = self.planned();
        let (have, etag) = part.have(file);
        if have == file.bytes {
            self.tell(Event::Begin { have });
            return self.take(part, None, have, etag).await;
        }
        let content = match self.ask(have, etag.as_deref()).await? {
            Ok(content) => content,
            Err(problem) => {
                self.tell(Event::StartOver(problem));
                part.discard()?;
                let from_the_beginning = self.ask(0, None).await?;
                from_the_beginning.map_err(|_| PullError::Broken { host: self.client.endpoint.host() })?
            }
        };
        if have > 0 && content.from == 0 {
            self.tell(Event::StartOver("the hub sends it from the beginning"));
        }
        let etag = text(&content.answer.headers, header::ETAG.as_str()).map(str::to_owned);
        self.tell(Event::Begin { have: content.from });
        let from = content.from;
        self.take(part, Some(content.answer), from, etag).await
    }

    /// Asks for what is missing. The inner error says why what is here is of no use.
    async fn ask(&self, have: u64, etag: Option<&str>) -> Result<Result<Content, &'static str>, Failed> {
        let (file, client) = (self.planned(), self.client);
        let repository = self.plan.repository.split('/');
        let url = client.endpoint.at(repository.chain(["resolve", &self.plan.commit]).chain(file.path.split('/')));
        let answer = client.get(url, &range_headers(have, etag)).await?;
        match answer.status {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => self.compare_with_declared(&answer)?,
            StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => return Ok(Err("the hub has no such rest of it")),
            _ => {
                let what = format!("file {} in {}", file.path, self.plan.repository);
                let error = refusal(client, &self.plan.repository, &what, &answer);
                return Err(Failed::by_status(&client.patience, &answer, client.endpoint.host(), error));
            }
        }
        let from = if answer.status == StatusCode::OK { 0 } else { have };
        if answer.status == StatusCode::PARTIAL_CONTENT {
            let is_another = |(old, new)| old != new;
            if etag.zip(text(&answer.headers, header::ETAG.as_str())).is_some_and(is_another) {
                return Ok(Err("the file has changed since"));
            }
            if content_range(&answer.headers) != Some((have, file.bytes)) {
                return Ok(Err("the hub sends another part of it than the missing one"));
            }
        }
        let announced = text(&answer.headers, header::CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok());
        if announced.is_some_and(|announced: u64| announced != file.bytes - from) {
            return Err(Failed::Final(PullError::Mismatch { path: file.path.clone(), what: "size" }));
        }
        Ok(Ok(Content { answer, from }))
    }

    /// What the hub says of the file while it sends it must be what it said in its list.
    fn compare_with_declared(&self, answer: &Answer) -> Result<(), PullError> {
        let (file, headers) = (self.planned(), &answer.hub_headers);
        let hash = text(headers, LINKED_ETAG).map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
        let is_other_hash =
            matches!(file.checksum, Checksum::Sha256(_)) && hash.is_some_and(|hash| hash != file.checksum.as_str());
        let is_other_size = text(headers, LINKED_SIZE).is_some_and(|size| size.parse() != Ok(file.bytes));
        let is_other_commit = text(headers, REPO_COMMIT).is_some_and(|commit| commit != self.plan.commit);
        if is_other_hash || is_other_size || is_other_commit {
            return Err(PullError::Changed { host: self.client.endpoint.host(), path: file.path.clone() });
        }
        Ok(())
    }

    /// Writes what comes after the first `from` bytes, and verifies the whole.
    async fn take(
        &self,
        part: &Part,
        answer: Option<Answer>,
        from: u64,
        etag: Option<String>,
    ) -> Result<Sha256Hex, Failed> {
        let file = self.planned();
        let mismatch = |what| Failed::Final(PullError::Mismatch { path: file.path.clone(), what });
        let writer = part.write(file, from, etag, self.staging.writer().await);
        let mut n_bytes = from;
        let mut broken = None;
        if let Some(mut answer) = answer {
            loop {
                let piece = match answer.body.next().await {
                    Ok(Some(piece)) => piece,
                    Ok(None) => break,
                    Err(error) => {
                        broken = Some(error);
                        break;
                    }
                };
                let n_piece = piece.len() as u64;
                n_bytes += n_piece;
                if n_bytes > file.bytes || !writer.push(piece).await {
                    break;
                }
                self.tell(Event::Bytes(n_piece));
            }
        }
        // Also what is wrong with the disk, which goes before what is wrong with the network.
        let written = writer.end().await?;
        if n_bytes > file.bytes {
            part.discard()?;
            return Err(mismatch("size"));
        }
        if let Some(error) = broken {
            return Err(error.into());
        }
        if written.n_bytes < file.bytes {
            return Err(PullError::Broken { host: self.client.endpoint.host() }.into());
        }
        if let Some(sha256) = written.verify(&self.staging.whole(file))? {
            return Ok(sha256);
        }
        part.discard()?;
        if from > 0 {
            // What was here before may have been the fault.
            let error = PullError::Mismatch { path: file.path.clone(), what: "hash" };
            return Err(Failed::Passing { error, wait: None });
        }
        Err(mismatch("hash"))
    }

    /// The SHA-256 of a file on the disk, if it is the planned one.
    async fn verify(&self, path: &Path) -> Result<Option<Sha256Hex>, PullError> {
        let (path, file) = (path.to_owned(), self.planned().clone());
        let hashing = tokio::task::spawn_blocking(move || {
            checksum::verify(&path, &file.checksum, file.bytes).map_err(PullError::file(path))
        });
        hashing.await.expect("hashing does not panic, this is a bug")
    }

    fn planned(&self) -> &PlannedFile {
        &self.plan.files[self.file]
    }

    fn tell(&self, event: Event<'_>) {
        self.progress.tell(self.file, event);
    }
}

/// A second name for the content where the file system can give one, a copy elsewhere.
fn adopt(path: &Path, whole: &Path, part: &Part) -> Result<(), PullError> {
    part.discard()?;
    let dir = whole.parent().map_or_else(PathBuf::new, Path::to_owned);
    fs::create_dir_all(&dir).map_err(PullError::file(&dir))?;
    // Of the content itself, not of a link that leads to it.
    let content = fs::canonicalize(path).map_err(PullError::file(path))?;
    let _ = fs::remove_file(whole);
    if fs::hard_link(&content, whole).is_ok() {
        return Ok(());
    }
    part.copy(&content, whole)
}

/// The rest of a file; and, where the copy has a tag that stands for its very bytes, only of that copy. The tag of
/// another copy of the same content may differ, so that it is no matter of course that the rest comes.
fn range_headers(have: u64, etag: Option<&str>) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    if have > 0 {
        let range = HeaderValue::try_from(format!("bytes={have}-")).expect("digits make a header, this is a bug");
        headers.push((header::RANGE, range));
        let strong = etag.filter(|etag| etag.starts_with('"')).and_then(|etag| HeaderValue::try_from(etag).ok());
        headers.extend(strong.map(|etag| (header::IF_RANGE, etag)));
    }
    headers
}

/// Where the bytes of an answer begin, and how many there are in all.
fn content_range(headers: &HeaderMap) -> Option<(u64, u64)> {
    let range = text(headers, header::CONTENT_RANGE.as_str())?.strip_prefix("bytes ")?;
    let (part, total) = range.split_once('/')?;
    Some((part.split_once('-')?.0.parse().ok()?, total.parse().ok()?))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
