//! How the hub is reached, as the environment tells every tool that speaks to it.

use crate::failure::Failure;
use hub::download::{Downloader, Endpoint, Patience, PullError, Settings, Token};
use std::env;
use std::path::PathBuf;

/// The hub that `HF_ENDPOINT` names, with the token and the cache that other tools have left.
pub(crate) fn downloader() -> Result<Downloader, Failure> {
    if is_on("HF_HUB_OFFLINE") {
        return Err(Failure::because("HF_HUB_OFFLINE is set; nothing is fetched"));
    }
    let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| Endpoint::DEFAULT.to_owned());
    let extra_roots_pem = match path("SSL_CERT_FILE") {
        None => None,
        Some(file) => Some(std::fs::read(&file).map_err(|error| unreadable("SSL_CERT_FILE", &file, &error))?),
    };
    let settings = Settings {
        endpoint: Endpoint::parse(&endpoint).map_err(wrong)?,
        token: token()?,
        cache: path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE")).or_else(|| Some(home()?.join("hub"))),
        extra_roots_pem,
        patience: Patience::default(),
    };
    Downloader::new(settings).map_err(wrong)
}

/// `HF_TOKEN`, or the file that `hf auth login` writes.
fn token() -> Result<Option<Token>, Failure> {
    if let Some(text) = text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN")) {
        return Token::parse(&text).map(Some).map_err(wrong);
    }
    let Some(file) = path("HF_TOKEN_PATH").or_else(|| Some(home()?.join("token"))) else { return Ok(None) };
    match std::fs::read_to_string(&file) {
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => Token::parse(&text).map(Some).map_err(wrong),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable("HF_TOKEN_PATH", &file, &error)),
    }
}

/// The folder that Hugging Face's tools share.
fn home() -> Option<PathBuf> {
    let in_cache = |cache: PathBuf| cache.join("huggingface");
    path("HF_HOME")
        .or_else(|| path("XDG_CACHE_HOME").map(in_cache))
        .or_else(|| path("HOME").or_else(|| path("USERPROFILE")).map(|home| in_cache(home.join(".cache"))))
}

fn text(variable: &str) -> Option<String> {
    env::var(variable).ok().filter(|text| !text.trim().is_empty())
}

fn path(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|text| !text.is_empty()).map(PathBuf::from)
}

fn is_on(variable: &str) -> bool {
    text(variable).is_some_and(|text| ["1", "on", "yes", "true"].contains(&text.to_lowercase().as_str()))
}

fn wrong(error: PullError) -> Failure {
    Failure::usage(error)
}

fn unreadable(variable: &str, file: &std::path::Path, error: &std::io::Error) -> Failure {
    Failure::usage(format!("{variable}: {} cannot be read: {error}", file.display()))
}
