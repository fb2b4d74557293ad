//! What can go wrong, in terms a client understands. The table code → HTTP status lives in `api`.

use std::fmt;

/// The kind of a fault, for machines. Never decide by a message's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The body is not what its type says, or a field has the wrong type.
    Malformed,
    /// No key, or one that is unknown or revoked.
    Unauthorized,
    /// No such task, or another key's.
    NotFound,
    /// The same idempotency key came with another body.
    Conflict,
    /// A body or a picture over its limit.
    TooLarge,
    /// A body of another media type.
    UnsupportedMedia,
    /// A value out of range.
    Invalid,
    /// The reference picture could not be had.
    SourceUnavailable,
    /// Over the caller's rate or concurrency limit; try again later.
    RateLimited,
    /// The task failed while running.
    Failed,
    /// Who paints will not, because of what is asked for or of what came out.
    Unsafe,
    /// The task was cancelled.
    Cancelled,
    /// A full queue, absent weights, a store that fails, a server that drains; try again later.
    Unavailable,
    /// Our own bug.
    Internal,
}

impl ErrorCode {
    pub const ALL: [Self; 14] = [
        Self::Malformed,
        Self::Unauthorized,
        Self::NotFound,
        Self::Conflict,
        Self::TooLarge,
        Self::UnsupportedMedia,
        Self::Invalid,
        Self::SourceUnavailable,
        Self::RateLimited,
        Self::Failed,
        Self::Unsafe,
        Self::Cancelled,
        Self::Unavailable,
        Self::Internal,
    ];

    /// The short class a client sees in `error`.
    pub const fn class(self) -> &'static str {
        match self {
            Self::Malformed => "Bad Request",
            Self::Unauthorized => "Authentication Error",
            Self::NotFound => "Not Found",
            Self::Conflict => "Conflict",
            Self::TooLarge => "Payload Too Large",
            Self::UnsupportedMedia => "Unsupported Media Type",
            Self::Invalid => "Validation Error",
            Self::SourceUnavailable => "Image URL Error",
            Self::RateLimited => "Rate Limit Error",
            Self::Failed => "Generation Error",
            Self::Unsafe => "Safety Error",
            Self::Cancelled => "Cancelled",
            Self::Unavailable => "Service Unavailable",
            Self::Internal => "Internal Server Error",
        }
    }

    /// A stable spelling for logs, metrics and database rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unauthorized => "unauthorized",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::TooLarge => "too_large",
            Self::UnsupportedMedia => "unsupported_media",
            Self::Invalid => "invalid",
            Self::SourceUnavailable => "source_unavailable",
            Self::RateLimited => "rate_limited",
            Self::Failed => "failed",
            Self::Unsafe => "unsafe",
            Self::Cancelled => "cancelled",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }
}

/// A fault as a client is told of it. The detail must hold no secret, prompt or inside of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub code: ErrorCode,
    /// One sentence: which field, what it got, what is allowed; or what to do.
    pub detail: String,
    /// When trying again makes sense, seconds.
    pub retry_after_s: Option<u32>,
}

impl Fault {
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), retry_after_s: None }
    }

    #[must_use]
    pub fn retry_after_s(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.class(), self.detail)
    }
}

impl std::error::Error for Fault {}

/// One value that may not be: which field, what it got, what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    pub field: &'static str,
    pub got: String,
    pub allowed: String,
}

impl Invalid {
    pub fn new(field: &'static str, got: impl fmt::Display, allowed: impl Into<String>) -> Self {
        let printable = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        let mut got: String = got.to_string().chars().map(printable).collect();
        if got.is_empty() {
            got.push_str("an empty text");
        }
        if got.chars().count() > 80 {
            got = got.chars().take(80).collect::<String>() + "…";
        }
        Self { field, got, allowed: allowed.into() }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: got {}; allowed: {}", self.field, self.got, self.allowed)
    }
}

impl std::error::Error for Invalid {}

impl From<Invalid> for Fault {
    fn from(invalid: Invalid) -> Self {
        Self::new(ErrorCode::Invalid, invalid.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_its_own_spelling() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::parse(code.as_str()), Some(code));
        }
        assert_eq!(ErrorCode::parse("teapot"), None);
    }

    #[test]
    fn a_value_that_cannot_be_seen_is_told_all_the_same() {
        assert_eq!(Invalid::new("image", "", "a URL").to_string(), "image: got an empty text; allowed: a URL");
        assert_eq!(Invalid::new("app_id", "a\n", "b").got, "a\u{fffd}");
    }

    #[test]
    fn a_long_value_is_not_echoed_whole() {
        let invalid = Invalid::new("prompt", "x".repeat(5000), "at most 4000 characters");
        assert!(invalid.to_string().chars().count() < 160);
    }
}
