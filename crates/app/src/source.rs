//! Where reference pictures come from: the guarded fetcher, or whatever a test puts in its place.

use async_trait::async_trait;
use bytes::Bytes;
use domain::fault::Fault;
use ingest::Fetcher;

#[async_trait]
pub trait Sources: Send + Sync {
    /// The picture's bytes, known to be a picture within every limit. The URL is `http`, `https` or `data:`.
    async fn fetch(&self, url: &str) -> Result<Bytes, Fault>;
}

#[async_trait]
impl Sources for Fetcher {
    async fn fetch(&self, url: &str) -> Result<Bytes, Fault> {
        match Self::fetch(self, url).await {
            Ok(fetched) => Ok(fetched.bytes),
            Err(error) => Err(error.fault()),
        }
    }
}

/// A URL as it is kept with the task: a `data:` URI by its type and length, since the picture itself is kept elsewhere.
pub(crate) fn recorded_url(url: &str) -> String {
    const TYPE_CHARS_MAX: usize = 64;
    if !url.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:")) {
        return url.to_owned();
    }
    let head = url[5..].split(',').next().unwrap_or_default();
    let media_type: String = head.chars().take(TYPE_CHARS_MAX).filter(|c| !c.is_control()).collect();
    format!("data:{media_type},… ({} characters)", url.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_uri_is_recorded_by_its_type_and_length() {
        let uri = format!("data:image/png;base64,{}", "A".repeat(1000));
        assert_eq!(recorded_url(&uri), "data:image/png;base64,… (1022 characters)");
        assert_eq!(recorded_url("DATA:,x"), "data:,… (7 characters)");
        assert!(recorded_url(&format!("data:{}", "x".repeat(9000))).len() < 120);
        assert_eq!(recorded_url("https://example.com/a.png"), "https://example.com/a.png");
    }
}
