//! Where reference pictures come from: the guarded fetcher, or whatever a test puts in its place.

use async_trait::async_trait;
use bytes::Bytes;
use domain::fault::{ErrorCode, Fault};
use ingest::{FetchError, Fetcher};

use crate::turns::Turn;

/// Pictures that are decoded at a time, since the largest allowed takes some 700 MB.
pub(crate) const DECODERS: usize = 2;

#[async_trait]
pub trait Sources: Send + Sync {
    /// The picture's bytes, whose header is in order and within every limit. The URL is `http`, `https` or `data:`; a
    /// fault names the field that it stood in.
    async fn fetch(&self, field: &'static str, url: &str) -> Result<Bytes, Fault>;
}

#[async_trait]
impl Sources for Fetcher {
    async fn fetch(&self, field: &'static str, url: &str) -> Result<Bytes, Fault> {
        Self::fetch(self, url).await.map(|fetched| fetched.bytes).map_err(|error| error.fault(field))
    }
}

/// The fetcher looks at the header alone; a picture that breaks off after it is refused here, before a task is made of
/// it.
pub(crate) async fn whole(field: &'static str, bytes: Bytes, turn: Turn) -> Result<Bytes, Fault> {
    // The turn goes along: decoding does not end when the caller hangs up.
    let decode = move || {
        let _turn = turn;
        imaging::decode(&bytes).map(|_| bytes)
    };
    let decoded = tokio::task::spawn_blocking(decode).await.map_err(|_| unchecked())?;
    decoded.map_err(|error| FetchError::Image(error).fault(field))
}

pub(crate) fn unchecked() -> Fault {
    Fault::new(ErrorCode::Internal, "the picture could not be checked; try again")
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
    use crate::turns::Turns;

    #[tokio::test]
    async fn a_picture_that_breaks_off_is_refused() {
        let metadata = imaging::Metadata { software: String::new(), model: String::new(), seed: None };
        let picture = imaging::Picture::filled(domain::quantity::Size::new(64, 64), [1, 2, 3]);
        let png = imaging::encode(&picture, domain::request::OutputFormat::Png, &metadata).unwrap();
        let turns = Turns::new(1);
        let key = domain::id::KeyId::from_random([1; 8]);
        let turn = async || turns.to_decode(&key).await.unwrap();
        assert!(whole("image", Bytes::from(png.clone()), turn().await).await.is_ok());
        let half = Bytes::from(png[..png.len() / 2].to_vec());
        let fault = whole("control_image", half, turn().await).await.unwrap_err();
        assert_eq!(fault.code, ErrorCode::SourceUnavailable);
        assert!(fault.detail.starts_with("control_image: "), "{fault}");
    }

    #[test]
    fn a_data_uri_is_recorded_by_its_type_and_length() {
        let uri = format!("data:image/png;base64,{}", "A".repeat(1000));
        assert_eq!(recorded_url(&uri), "data:image/png;base64,… (1022 characters)");
        assert_eq!(recorded_url("DATA:,x"), "data:,… (7 characters)");
        assert!(recorded_url(&format!("data:{}", "x".repeat(9000))).len() < 120);
        assert_eq!(recorded_url("https://example.com/a.png"), "https://example.com/a.png");
    }
}
