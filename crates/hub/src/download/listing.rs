//! What the hub says of a repository: which commit a revision is, and which files it has. Nothing of it is trusted.

use super::PlannedFile;
use super::attempts::{Attempt, Failed, attempts};
use super::checksum::{Checksum, Sha256Hex, is_hex};
use super::error::PullError;
use super::http::{Answer, Client};
use crate::registry::Source;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use std::collections::BTreeSet;
use url::Url;

const PAGE_BYTES_MAX: usize = 8 << 20;
const PAGES_MAX: usize = 64;
const FILES_MAX: usize = 20_000;
const PATH_BYTES_MAX: usize = 512;
/// What file systems take for one name.
const NAME_BYTES_MAX: usize = 200;
/// How the hub says why it refuses.
const ERROR_CODE: &str = "x-error-code";

#[derive(Deserialize)]
struct Revision {
    sha: String,
}

#[derive(Deserialize)]
struct Item {
    #[serde(rename = "type")]
    kind: String,
    oid: String,
    #[serde(default)]
    size: u64,
    path: String,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

/// The commit that a branch, a tag or a commit's own name stands for.
pub(super) async fn commit(client: &Client, repository: &str, revision: &str) -> Result<String, PullError> {
    let url =
        client.endpoint.at(["api", "models"].into_iter().chain(repository.split('/')).chain(["revision", revision]));
    let (bytes, _) = page(client, repository, &url).await?;
    let wrong = |problem: &str| PullError::Listing { repository: repository.to_owned(), problem: problem.to_owned() };
    let found: Revision = serde_json::from_slice(&bytes).map_err(|_| wrong("it names no commit"))?;
    if is_hex(&found.sha, 40) { Ok(found.sha) } else { Err(wrong("its commit is not 40 hexadecimal digits")) }
}

/// All files at a commit.
pub(super) async fn files(client: &Client, repository: &str, commit: &str) -> Result<Vec<PlannedFile>, PullError> {
    let wrong = |problem: String| PullError::Listing { repository: repository.to_owned(), problem };
    let parts = ["api", "models"].into_iter().chain(repository.split('/')).chain(["tree", commit]);
    let tree = client.endpoint.at(parts);
    let mut cursor = None;
    let mut files = Vec::new();
    for _ in 0..PAGES_MAX {
        let mut url = tree.clone();
        url.query_pairs_mut()
            .append_pair("recursive", "true")
            .extend_pairs(cursor.map(|text: String| ("cursor", text)));
        let (bytes, headers) = page(client, repository, &url).await?;
        let items: Vec<Item> = serde_json::from_slice(&bytes).map_err(|_| wrong("it cannot be read".to_owned()))?;
        for item in items.into_iter().filter(|item| item.kind != "directory") {
            files.push(file(item).map_err(&wrong)?);
        }
        if files.len() > FILES_MAX {
            return Err(wrong(format!("it has more than {FILES_MAX} files")));
        }
        cursor = next_cursor(&url, &headers);
        if cursor.is_none() {
            return distinct(files).map_err(wrong);
        }
    }
    Err(wrong(format!("it has more than {PAGES_MAX} pages")))
}

/// Those that the registry asks for.
pub(super) fn choose(source: &Source, listed: Vec<PlannedFile>) -> Result<Vec<PlannedFile>, PullError> {
    if let Some(pattern) = source.files.iter().find(|pattern| !listed.iter().any(|file| pattern.matches(&file.path))) {
        let (repository, pattern) = (source.repository.clone(), pattern.to_string());
        return Err(PullError::NoFile { repository, pattern });
    }
    Ok(listed.into_iter().filter(|file| source.files.iter().any(|pattern| pattern.matches(&file.path))).collect())
}

/// Refuses what differs from what this version knows: somebody exchanged a file on the way to us.
pub(super) fn compare_with_known(host: &str, source: &Source, files: &[PlannedFile]) -> Result<(), PullError> {
    for known in &source.known {
        let Some(file) = files.iter().find(|file| file.path == known.path) else {
            return Err(PullError::NoFile { repository: source.repository.clone(), pattern: known.path.clone() });
        };
        let unexpected = |what| PullError::Unexpected { host: host.to_owned(), path: file.path.clone(), what };
        if known.bytes.is_some_and(|bytes| bytes != file.bytes) {
            return Err(unexpected("size"));
        }
        if known.sha256.as_deref().is_some_and(|sha256| sha256 != file.checksum.as_str()) {
            return Err(unexpected("hash"));
        }
    }
    Ok(())
}

/// What a status other than success means for this repository.
pub(super) fn refusal(client: &Client, repository: &str, what: &str, answer: &Answer) -> PullError {
    let host = client.endpoint.host();
    let (repository, page) = (repository.to_owned(), client.endpoint.page(repository));
    let code = [&answer.headers, &answer.hub_headers].into_iter().find_map(|headers| headers.get(ERROR_CODE));
    match (answer.status, code.map(http::HeaderValue::as_bytes)) {
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, Some(b"GatedRepo")) if client.has_token() => {
            PullError::GatedForToken { repository, page }
        }
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, Some(b"GatedRepo")) => {
            PullError::GatedWithoutToken { repository, page }
        }
        // The hub does not tell strangers whether a repository is private or not there at all.
        (_, Some(b"RepoNotFound")) => PullError::Absent {
            host,
            what: format!("repository {repository}, or it is private and HF_TOKEN may not see it"),
        },
        (StatusCode::UNAUTHORIZED, _) if client.has_token() => PullError::Token { host },
        (StatusCode::UNAUTHORIZED, _) => PullError::GatedWithoutToken { repository, page },
        (StatusCode::FORBIDDEN, _) => PullError::Forbidden { host, repository },
        (StatusCode::NOT_FOUND, _) => PullError::Absent { host, what: what.to_owned() },
        (status, _) => PullError::Status { host, status: status.as_u16() },
    }
}

/// A path that leads nowhere but into its folder, on every system.
pub(crate) fn is_safe(path: &str) -> bool {
    let is_reserved = |c: char| c.is_control() || matches!(c, '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|');
    let is_name = |part: &str| {
        !part.is_empty() && part.len() <= NAME_BYTES_MAX && part != "." && part != ".." && !part.ends_with(['.', ' '])
    };
    path.len() <= PATH_BYTES_MAX && !path.contains(is_reserved) && path.split('/').all(is_name)
}

async fn page(client: &Client, repository: &str, url: &Url) -> Result<(Vec<u8>, HeaderMap), PullError> {
    let ask = async || {
        // Who is offline should not have to wait to be told.
        let unreachable = |error| match error {
            error @ PullError::Unreachable { .. } => Failed::Final(error),
            error => error.into(),
        };
        let answer = client.get(url.clone(), &[]).await.map_err(unreachable)?;
        if answer.status != StatusCode::OK {
            let what = format!("such revision of {repository}");
            let error = refusal(client, repository, &what, &answer);
            return Err(Failed::by_status(&client.patience, &answer, client.endpoint.host(), error));
        }
        let headers = answer.headers.clone();
        let problem = || format!("one page has more than {PAGE_BYTES_MAX} bytes");
        let too_large = || PullError::Listing { repository: repository.to_owned(), problem: problem() };
        Ok((answer.body.collect(PAGE_BYTES_MAX).await?.ok_or_else(too_large)?, headers))
    };
    attempts(&client.patience, |_, _| {}, async || Attempt { outcome: ask().await, n_bytes: 0 }).await
}

/// Where the next page begins. Only this is taken of the link: it may not lead us, and the token, elsewhere.
fn next_cursor(url: &Url, headers: &HeaderMap) -> Option<String> {
    let link = headers.get_all(header::LINK).iter().filter_map(|link| link.to_str().ok());
    let next = link.flat_map(|link| link.split(',')).find(|link| link.contains("rel=\"next\""))?;
    let target = next.split_once('<')?.1.split_once('>')?.0;
    let target = url.join(target).ok()?;
    target.query_pairs().find(|(name, _)| name == "cursor").map(|(_, value)| value.into_owned())
}

fn file(item: Item) -> Result<PlannedFile, String> {
    if !is_safe(&item.path) {
        return Err("it names a file that would lie elsewhere".to_owned());
    }
    let (checksum, bytes) = match &item.lfs {
        Some(lfs) => (Sha256Hex::parse(&lfs.oid).map(Checksum::Sha256), lfs.size),
        None => (Checksum::git_blob(&item.oid), item.size),
    };
    let checksum = checksum.ok_or_else(|| format!("it has no hash of {}", item.path))?;
    Ok(PlannedFile { path: item.path, bytes, checksum })
}

/// One file under two names, or a file where another has its folder, would be written over each other. Some systems
/// take capitals for small letters.
fn distinct(files: Vec<PlannedFile>) -> Result<Vec<PlannedFile>, String> {
    let paths: BTreeSet<String> = files.iter().map(|file| file.path.to_lowercase()).collect();
    let below_a_file = |path: &String| path.match_indices('/').any(|(at, _)| paths.contains(&path[..at]));
    if paths.len() < files.len() || paths.iter().any(below_a_file) {
        return Err("it names a file twice".to_owned());
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_within_the_folder_are_safe() {
        for path in ["model_index.json", "vae/config.json", "a/b/c-1_2.x", "\u{e9}/\u{4e2d}.json", ".gitattributes"] {
            assert!(is_safe(path), "{path}");
        }
        let long = format!("{}/x", "a".repeat(201));
        for path in [
            "",
            "/etc/passwd",
            "../x",
            "a/../x",
            "a/..",
            "a//b",
            "./a",
            "a/",
            "..",
            "a\\..\\x",
            "C:/x",
            "c:x",
            "a\0b",
            "a\nb",
            "nul. ",
            "a.",
            "x|y",
            &long,
            &"a/".repeat(300),
        ] {
            assert!(!is_safe(path), "{path:?}");
        }
    }

    #[test]
    fn the_link_gives_a_cursor_and_nothing_else() {
        let url = Url::parse("http://hub.test/api/models/o/n/tree/c?recursive=true").unwrap();
        let cursor = |text: &str| {
            next_cursor(&url, &HeaderMap::from_iter([(header::LINK, http::HeaderValue::from_str(text).unwrap())]))
        };
        assert_eq!(cursor("<http://evil.test/x?cursor=a%3D%3D&limit=2>; rel=\"next\""), Some("a==".to_owned()));
        assert_eq!(cursor("<?cursor=b>; rel=\"next\""), Some("b".to_owned()));
        assert_eq!(cursor("<?cursor=b>; rel=\"prev\""), None);
        assert_eq!(cursor("nonsense; rel=\"next\""), None);
    }

    #[test]
    fn a_file_may_be_named_once() {
        let planned = |path: &str| {
            let checksum = Checksum::git_blob(&"0".repeat(40)).unwrap();
            PlannedFile { path: path.to_owned(), bytes: 1, checksum }
        };
        let check = |paths: &[&str]| distinct(paths.iter().map(|path| planned(path)).collect()).is_ok();
        assert!(check(&["a/b", "a/c", "ab"]));
        assert!(!check(&["a/b", "A/B"]));
        assert!(!check(&["a", "a/b"]));
    }
}
