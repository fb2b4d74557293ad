//! Why a picture could not be fetched, in words that give nothing away.
//!
//! A name that does not resolve and a name that resolves to a forbidden address are the same error: telling them apart
//! would let a stranger list the names of our network. An address is never told.

use domain::fault::{ErrorCode, Fault};
use domain::limits::URL_CHARS_MAX;
use imaging::ImageError;
use transport::TransportError;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    #[error("the URL cannot be read; allowed: an http, https or data: URL")]
    BadUrl,
    #[error("the URL has {0} characters; allowed: at most {URL_CHARS_MAX}")]
    UrlTooLong(usize),
    #[error("the URL's scheme is {0}; allowed: http, https and data")]
    Scheme(String),
    #[error("the URL holds a user name or a password; allowed: a URL without")]
    Credentials,
    #[error("the URL's port is {0}; allowed: 80, 443 and those from 1024 on")]
    Port(u16),
    #[error("the data: URI cannot be read: {0}")]
    DataUri(&'static str),
    /// The URL spells an address.
    #[error("the host's address may not be fetched from; allowed: public addresses")]
    ForbiddenAddress,
    #[error("the host name leads to no address that may be fetched from; allowed: public addresses")]
    UnusableHost,
    #[error("could not connect to the host")]
    Connect,
    #[error("no secure connection to the host: its certificate or its encryption is not accepted")]
    Tls,
    #[error("the picture did not arrive within {0} s")]
    TimedOut(u64),
    #[error("the host redirects more than {0} times")]
    TooManyRedirects(usize),
    #[error("the host redirects to what is no URL")]
    BadRedirect,
    #[error("the host redirects from https to http; allowed: https once begun")]
    Downgrade,
    #[error("the host answered with status {0}; allowed: 200")]
    Status(u16),
    #[error("the host sent an encoded body; allowed: no Content-Encoding")]
    Encoded,
    #[error("the host's answer is malformed or ended early")]
    BadAnswer,
    #[error("the picture has more than {0} bytes, which is the limit")]
    TooManyBytes(usize),
    /// Together with the others that are being brought.
    #[error("too many pictures are being fetched at once; try again")]
    Crowded,
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl FetchError {
    /// What the client is told of the field with the URL: 413 for a picture over a limit, 503 where there is no room for
    /// it now, 424 for everything else.
    pub fn fault(&self, field: &str) -> Fault {
        let code = match self {
            Self::TooManyBytes(_)
            | Self::Image(ImageError::TooManyBytes(_) | ImageError::TooManyPixels(_) | ImageError::TooMuchMemory(_)) => {
                ErrorCode::TooLarge
            }
            Self::Crowded => return Fault::new(ErrorCode::Unavailable, self.to_string()).retry_after_s(1),
            _ => ErrorCode::SourceUnavailable,
        };
        Fault::new(code, format!("{field}: {self}"))
    }
}

impl From<TransportError> for FetchError {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::Connect => Self::Connect,
            TransportError::Tls => Self::Tls,
            TransportError::BadAnswer => Self::BadAnswer,
            TransportError::TooManyBytes(bytes_max) => Self::TooManyBytes(bytes_max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::quantity::Size;

    #[test]
    fn over_a_limit_is_too_large_and_all_else_is_unavailable() {
        let too_large = [
            FetchError::TooManyBytes(1),
            FetchError::Image(ImageError::TooManyPixels(Size::new(9, 9))),
            FetchError::Image(ImageError::TooManyBytes(1)),
        ];
        for error in too_large {
            assert_eq!(error.fault("image").code, ErrorCode::TooLarge, "{error}");
        }
        for error in [FetchError::BadUrl, FetchError::Status(404), FetchError::Image(ImageError::Unrecognized)] {
            assert_eq!(error.fault("image").code, ErrorCode::SourceUnavailable, "{error}");
            assert!(error.fault("control_image").detail.starts_with("control_image: "), "{error}");
        }
        assert_eq!(FetchError::Crowded.fault("image").code, ErrorCode::Unavailable);
    }
}
