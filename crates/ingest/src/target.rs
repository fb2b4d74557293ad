//! One place to ask: a URL that has passed every check that needs no network.

use crate::error::FetchError;
use domain::limits::URL_CHARS_MAX;
use std::net::IpAddr;
use url::{Host, Position, Url};

/// An http or https URL without credentials, on a port that may be asked.
#[derive(Clone)]
pub(crate) struct Target {
    url: Url,
}

/// Where the name of the host comes from.
pub(crate) enum Place {
    Address(IpAddr),
    /// Lower case, without a dot at its end.
    Name(String),
}

impl Target {
    pub(crate) fn parse(text: &str) -> Result<Self, FetchError> {
        if text.len() > URL_CHARS_MAX {
            return Err(FetchError::UrlTooLong(text.chars().count()));
        }
        Url::parse(text).map_err(|_| FetchError::BadUrl).and_then(Self::checked)
    }

    /// Where a redirect leads, which may be told relative to here.
    pub(crate) fn follow(&self, location: &[u8]) -> Result<Self, FetchError> {
        let location = std::str::from_utf8(location).map_err(|_| FetchError::BadRedirect)?;
        if location.len() > URL_CHARS_MAX {
            return Err(FetchError::UrlTooLong(location.chars().count()));
        }
        let next = self.url.join(location).map_err(|_| FetchError::BadRedirect).and_then(Self::checked)?;
        if self.is_https() && !next.is_https() {
            return Err(FetchError::Downgrade);
        }
        Ok(next)
    }

    fn checked(url: Url) -> Result<Self, FetchError> {
        const SCHEME_CHARS_MAX: usize = 20;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(FetchError::Scheme(url.scheme().chars().take(SCHEME_CHARS_MAX).collect()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(FetchError::Credentials);
        }
        let target = Self { url };
        match target.port() {
            80 | 443 | 1024.. => Ok(target),
            // Below live mail, file and remote-control services that may mistake a request for theirs.
            port => Err(FetchError::Port(port)),
        }
    }

    pub(crate) fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    pub(crate) fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or_default()
    }

    /// The parser has turned decimal, octal, hexadecimal, short and full-width spellings into addresses already.
    pub(crate) fn place(&self) -> Result<Place, FetchError> {
        match self.url.host().ok_or(FetchError::BadUrl)? {
            Host::Ipv4(address) => Ok(Place::Address(address.into())),
            Host::Ipv6(address) => Ok(Place::Address(address.into())),
            Host::Domain(name) => match name.trim_end_matches('.') {
                "" => Err(FetchError::BadUrl),
                name => Ok(Place::Name(name.to_owned())),
            },
        }
    }

    /// Whose certificate must be shown.
    pub(crate) fn host(&self) -> Result<String, FetchError> {
        Ok(match self.place()? {
            Place::Address(address) => address.to_string(),
            Place::Name(name) => name,
        })
    }

    /// For the `Host` header: the port only where it is not the scheme's own.
    pub(crate) fn authority(&self) -> &str {
        &self.url[Position::BeforeHost..Position::AfterPort]
    }

    /// For the request line; a fragment stays at home.
    pub(crate) fn path_and_query(&self) -> &str {
        &self.url[Position::BeforePath..Position::AfterQuery]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str, expected: FetchError) {
        assert_eq!(Target::parse(text).err(), Some(expected), "{text}");
    }

    #[test]
    fn what_needs_no_network_is_checked_without() {
        refused("nonsense", FetchError::BadUrl);
        refused("http://", FetchError::BadUrl);
        refused("http://[::1", FetchError::BadUrl);
        refused("http://a b/", FetchError::BadUrl);
        refused("file:///etc/passwd", FetchError::Scheme("file".into()));
        refused("gopher://example.com/", FetchError::Scheme("gopher".into()));
        refused("ftp://example.com/", FetchError::Scheme("ftp".into()));
        refused("http://user@example.com/", FetchError::Credentials);
        refused("http://:word@example.com/", FetchError::Credentials);
        refused("http://example.com@127.0.0.1/", FetchError::Credentials);
        refused("http://example.com:22/", FetchError::Port(22));
        refused("https://example.com:25/", FetchError::Port(25));
        refused("http://example.com:0/", FetchError::Port(0));
        refused(&format!("http://example.com/{}", "a".repeat(9000)), FetchError::UrlTooLong(9019));
    }

    #[test]
    fn the_request_names_host_port_path_and_query_alone() {
        let target = Target::parse("http://Example.COM:8080/a%20b?c=d#e").unwrap();
        assert_eq!((target.authority(), target.path_and_query()), ("example.com:8080", "/a%20b?c=d"));
        let target = Target::parse("https://example.com:443").unwrap();
        assert_eq!((target.authority(), target.path_and_query(), target.port()), ("example.com", "/", 443));
    }

    #[test]
    fn a_redirect_may_be_relative_and_never_loses_encryption() {
        let target = Target::parse("https://example.com/a/b").unwrap();
        let next = target.follow(b"../c?d").unwrap();
        assert_eq!((next.authority(), next.path_and_query()), ("example.com", "/c?d"));
        assert!(target.follow(b"//other.example/").unwrap().is_https());
        assert_eq!(target.follow(b"http://example.com/").err(), Some(FetchError::Downgrade));
        assert_eq!(target.follow(b"http://[").err(), Some(FetchError::BadRedirect));
        assert_eq!(target.follow(b"\xff").err(), Some(FetchError::BadRedirect));
        assert_eq!(target.follow(b"file:///etc/passwd").err(), Some(FetchError::Scheme("file".into())));
        assert_eq!(target.follow(b"data:,x").err(), Some(FetchError::Scheme("data".into())));
        let plain = Target::parse("http://example.com/").unwrap();
        assert!(plain.follow(b"https://example.com/").unwrap().is_https());
    }
}
