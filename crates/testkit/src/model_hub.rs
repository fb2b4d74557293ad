//! A hub of models on the loopback interface, in the manner of huggingface.co: revisions, paged listings, small files
//! from the hub itself, large ones by a redirect to a second server; and whatever can go wrong with them.

use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The commit that every revision stands for, unless a test says otherwise.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// What the URLs of the second server are signed with.
pub const SIGNATURE: &str = "sig-of-the-cdn";
/// Longer than any test's patience with it.
const STALL: Duration = Duration::from_secs(600);
const DRIP: Duration = Duration::from_millis(20);

/// Two servers: the hub, and the one that large files come from.
pub struct ModelHub {
    pub address: SocketAddr,
    pub cdn: SocketAddr,
    state: Arc<Mutex<State>>,
}

/// What goes wrong with one request for a file.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection ends after so many bytes of the body.
    BreakAfter(usize),
    /// No byte comes after so many.
    StallAfter(usize),
    /// One byte at a time.
    Trickle,
    /// Another status, with these lines in its head.
    Status(u16, &'static str),
    /// The whole file, whatever part was asked for.
    IgnoreRange,
    /// Other bytes, whole.
    Content(Vec<u8>),
    /// Another length in the head than the body has.
    Length(usize),
    /// The hub's own header about a file that lies elsewhere.
    LinkedEtag(String),
    /// Another part than was asked for.
    OtherRange,
}

/// One request, as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub of_cdn: bool,
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Of the answer's body, as far as it was sent.
    pub n_sent: usize,
}

#[derive(Default)]
struct State {
    cdn: Option<SocketAddr>,
    repositories: BTreeMap<String, Repository>,
    faults: BTreeMap<String, VecDeque<Fault>>,
    asked: Vec<Asked>,
    page_len: usize,
    endless: bool,
    listing: Option<Vec<u8>>,
}

#[derive(Clone, Default)]
struct Repository {
    files: BTreeMap<String, File>,
    commit: Option<String>,
    /// The only token that is let in, and whether its account has accepted the licence.
    gate: Option<(String, bool)>,
}

#[derive(Clone)]
struct File {
    content: Vec<u8>,
    is_large: bool,
    etag: Option<String>,
}

/// An answer in the making.
struct Reply {
    status: u16,
    headers: String,
    body: Vec<u8>,
    fault: Option<Fault>,
}

impl ModelHub {
    pub async fn start() -> Self {
        let state = Arc::new(Mutex::new(State { page_len: 1000, ..State::default() }));
        let address = serve(state.clone(), false).await;
        let cdn = serve(state.clone(), true).await;
        state.lock().expect("no test panics with it").cdn = Some(cdn);
        Self { address, cdn, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A file that git keeps, sent by the hub itself.
    pub fn small(&self, repository: &str, path: &str, content: impl AsRef<[u8]>) {
        self.add(repository, path, content.as_ref(), false);
    }

    /// A file in large file storage, sent by the second server.
    pub fn large(&self, repository: &str, path: &str, content: impl AsRef<[u8]>) {
        self.add(repository, path, content.as_ref(), true);
    }

    fn add(&self, repository: &str, path: &str, content: &[u8], is_large: bool) {
        let file = File { content: content.to_vec(), is_large, etag: None };
        self.state().repositories.entry(repository.to_owned()).or_default().files.insert(path.to_owned(), file);
    }

    /// All revisions are this commit from now on.
    pub fn commit(&self, repository: &str, commit: &str) {
        self.state().repositories.entry(repository.to_owned()).or_default().commit = Some(commit.to_owned());
    }

    /// The second server calls this copy of the file so from now on.
    pub fn etag(&self, repository: &str, path: &str, etag: &str) {
        let mut state = self.state();
        let file = state.repositories.get_mut(repository).and_then(|repository| repository.files.get_mut(path));
        file.expect("the file was added").etag = Some(etag.to_owned());
    }

    /// Only this token is let in, and only if its account has accepted the licence.
    pub fn gate(&self, repository: &str, token: &str, has_accepted: bool) {
        let gate = Some((token.to_owned(), has_accepted));
        self.state().repositories.entry(repository.to_owned()).or_default().gate = gate;
    }

    /// What goes wrong with the next requests for this file, one after the other.
    pub fn fault(&self, path: &str, faults: impl IntoIterator<Item = Fault>) {
        self.state().faults.entry(path.to_owned()).or_default().extend(faults);
    }

    /// Files on one page of a listing.
    pub fn page_len(&self, page_len: usize) {
        self.state().page_len = page_len;
    }

    /// Every page of a listing names a next one.
    pub fn endless(&self) {
        self.state().endless = true;
    }

    /// Listings are this, whatever there is.
    pub fn listing(&self, body: impl Into<Vec<u8>>) {
        self.state().listing = Some(body.into());
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.state().asked.clone()
    }

    /// The requests that were about this file's content, with what was sent of it.
    pub fn asked_for(&self, path: &str) -> Vec<Asked> {
        let is_it = |asked: &Asked| asked.path.split('?').next().is_some_and(|asked| asked.ends_with(path));
        self.asked()
            .into_iter()
            .filter(|asked| asked.path.contains("/resolve/") || asked.of_cdn)
            .filter(is_it)
            .collect()
    }

    /// Bytes of this file's content that were sent, all requests together.
    pub fn n_sent(&self, path: &str) -> usize {
        self.asked_for(path).iter().map(|asked| asked.n_sent).sum()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics with it")
    }
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

pub fn sha256(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

/// Git's id of a file.
pub fn git_blob(content: &[u8]) -> String {
    hex(&Sha1::new_with_prefix(format!("blob {}\0", content.len())).chain_update(content).finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to memory does not fail");
        text
    })
}

async fn serve(state: Arc<Mutex<State>>, of_cdn: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback interface has a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, state.clone(), of_cdn));
        }
    });
    address
}

async fn answer(mut stream: TcpStream, state: Arc<Mutex<State>>, of_cdn: bool) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let headers = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    let asked = Asked { of_cdn, path, headers, n_sent: 0 };
    let (reply, place) = {
        let mut state = state.lock().expect("no test panics with it");
        state.asked.push(asked.clone());
        let place = state.asked.len() - 1;
        (state.reply(&asked), place)
    };
    let mut length = reply.body.len();
    if let Some(Fault::Length(other)) = reply.fault {
        length = other;
    }
    let head = format!(
        "HTTP/1.1 {} Because\r\nContent-Length: {length}\r\nConnection: close\r\n{}\r\n",
        reply.status, reply.headers
    );
    // Whoever does not listen to the end has its reasons.
    if stream.write_all(head.as_bytes()).await.is_ok() && head.split(' ').nth(1) != Some("302") {
        send_body(&mut stream, &reply, |n_sent| {
            state.lock().expect("no test panics with it").asked[place].n_sent += n_sent;
        })
        .await;
    }
}

async fn send_body(stream: &mut TcpStream, reply: &Reply, sent: impl Fn(usize)) {
    let end = match reply.fault {
        Some(Fault::BreakAfter(end) | Fault::StallAfter(end)) => end.min(reply.body.len()),
        _ => reply.body.len(),
    };
    let piece_len = if matches!(reply.fault, Some(Fault::Trickle)) { 1 } else { 64 << 10 };
    for piece in reply.body[..end].chunks(piece_len) {
        if stream.write_all(piece).await.is_err() {
            return;
        }
        sent(piece.len());
        if piece_len == 1 {
            tokio::time::sleep(DRIP).await;
        }
    }
    if matches!(reply.fault, Some(Fault::StallAfter(_))) {
        tokio::time::sleep(STALL).await;
    }
    let _ = stream.shutdown().await;
}

impl State {
    fn reply(&mut self, asked: &Asked) -> Reply {
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match parts.as_slice() {
            ["cdn", owner, name, file @ ..] if asked.of_cdn => {
                if query != format!("signature={SIGNATURE}") {
                    return Reply::status(403, "");
                }
                self.content(&format!("{owner}/{name}"), &file.join("/"), asked)
            }
            ["api", "models", owner, name, "revision", _] => self.revision(&format!("{owner}/{name}")),
            ["api", "models", owner, name, "tree", commit] => self.tree(&format!("{owner}/{name}"), commit, query),
            [owner, name, "resolve", _, file @ ..] => self.resolve(&format!("{owner}/{name}"), &file.join("/"), asked),
            _ => Reply::status(404, ""),
        }
    }

    fn revision(&mut self, repository: &str) -> Reply {
        if let Some(reply) = self.status_fault("revision") {
            return reply;
        }
        match self.repositories.get(repository) {
            Some(found) => Reply::json(&json!({"id": repository, "sha": found.commit()}), String::new()),
            None => Reply::status(401, "X-Error-Code: RepoNotFound\r\n"),
        }
    }

    fn tree(&mut self, repository: &str, commit: &str, query: &str) -> Reply {
        if let Some(reply) = self.status_fault("tree") {
            return reply;
        }
        let Some(found) = self.repositories.get(repository).filter(|found| found.commit() == commit) else {
            return Reply::status(404, "X-Error-Code: RevisionNotFound\r\n");
        };
        let cursor = query.split('&').find_map(|pair| pair.strip_prefix("cursor=")).and_then(|text| text.parse().ok());
        let begin = cursor.unwrap_or(0);
        let mut link = String::new();
        if self.endless || begin + self.page_len < found.files.len() {
            let next = begin + self.page_len;
            link = format!("Link: <https://elsewhere.invalid/tree?limit=9&cursor={next}>; rel=\"next\"\r\n");
        }
        if let Some(body) = &self.listing {
            return Reply { status: 200, headers: link, body: body.clone(), fault: None };
        }
        let files = found.files.iter().skip(begin).take(self.page_len);
        let items: Vec<Value> = files.map(|(path, file)| file.item(path)).collect();
        Reply::json(&Value::Array(items), link)
    }

    /// Small files come from here, large ones by a redirect.
    fn resolve(&mut self, repository: &str, path: &str, asked: &Asked) -> Reply {
        let Some(found) = self.repositories.get(repository) else {
            return Reply::status(401, "X-Error-Code: RepoNotFound\r\n");
        };
        let token = asked.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        match (&found.gate, token) {
            (Some(_), None) => return Reply::status(401, "X-Error-Code: GatedRepo\r\n"),
            (Some((right, _)), Some(token)) if token != right => return Reply::status(401, ""),
            (None, _) | (Some((_, true)), Some(_)) => {}
            (Some((_, false)), Some(_)) => return Reply::status(403, "X-Error-Code: GatedRepo\r\n"),
        }
        let commit = found.commit();
        let Some(file) = found.files.get(path).cloned() else {
            return Reply::status(404, "X-Error-Code: EntryNotFound\r\n");
        };
        let mut reply = if file.is_large {
            let cdn = self.cdn.expect("it is set before anybody asks");
            let mut etag = sha256(&file.content);
            let faults = self.faults.get_mut(path);
            if let Some(Fault::LinkedEtag(_)) = faults.as_ref().and_then(|faults| faults.front())
                && let Some(Fault::LinkedEtag(other)) = faults.and_then(VecDeque::pop_front)
            {
                etag = other;
            }
            let (size, signature) = (file.content.len(), format!("signature={SIGNATURE}"));
            let target = format!("Location: http://{cdn}/cdn/{repository}/{path}?{signature}\r\n");
            Reply::status(302, &format!("{target}X-Linked-Etag: \"{etag}\"\r\nX-Linked-Size: {size}\r\n"))
        } else {
            self.content(repository, path, asked)
        };
        let _ = write!(reply.headers, "X-Repo-Commit: {commit}\r\n");
        reply
    }

    fn content(&mut self, repository: &str, path: &str, asked: &Asked) -> Reply {
        let fault = self.faults.get_mut(path).and_then(VecDeque::pop_front);
        if let Some(Fault::Status(status, headers)) = fault {
            return Reply::status(status, headers);
        }
        let found = self.repositories.get(repository).and_then(|repository| repository.files.get(path));
        let Some(file) = found else { return Reply::status(404, "") };
        let content = if let Some(Fault::Content(other)) = &fault { other.clone() } else { file.content.clone() };
        let etag = file.etag();
        let range =
            asked.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        let is_same_copy = asked.header("if-range").is_none_or(|copy| copy == etag);
        let ignores = matches!(fault, Some(Fault::IgnoreRange)) || !is_same_copy;
        let headers = format!("ETag: {etag}\r\n");
        match range.filter(|_| !ignores) {
            None => Reply { status: 200, headers, body: content, fault },
            Some(begin) if begin >= content.len() => Reply::status(416, &headers),
            Some(begin) => {
                let begin: usize = if matches!(fault, Some(Fault::OtherRange)) { begin - 1 } else { begin };
                let range = format!("Content-Range: bytes {begin}-{}/{}\r\n", content.len() - 1, content.len());
                Reply { status: 206, headers: headers + &range, body: content[begin..].to_vec(), fault }
            }
        }
    }

    fn status_fault(&mut self, place: &str) -> Option<Reply> {
        match self.faults.get_mut(place).and_then(VecDeque::pop_front) {
            Some(Fault::Status(status, headers)) => Some(Reply::status(status, headers)),
            _ => None,
        }
    }
}

impl Repository {
    fn commit(&self) -> String {
        self.commit.clone().unwrap_or_else(|| COMMIT.to_owned())
    }
}

impl File {
    fn item(&self, path: &str) -> Value {
        let (oid, size) = (git_blob(&self.content), self.content.len());
        if self.is_large {
            let lfs = json!({"oid": sha256(&self.content), "size": size, "pointerSize": 135});
            return json!({"type": "file", "oid": oid, "size": size, "path": path, "lfs": lfs});
        }
        json!({"type": "file", "oid": oid, "size": size, "path": path})
    }

    fn etag(&self) -> String {
        let usual = || format!("\"{}\"", git_blob(&self.content));
        self.etag.clone().unwrap_or_else(usual)
    }
}

impl Reply {
    fn status(status: u16, headers: &str) -> Self {
        Self { status, headers: headers.to_owned(), body: Vec::new(), fault: None }
    }

    fn json(value: &Value, headers: String) -> Self {
        Self { status: 200, headers, body: value.to_string().into_bytes(), fault: None }
    }
}
