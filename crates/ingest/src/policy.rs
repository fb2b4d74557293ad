//! What a fetch may do: whom it may ask besides the public, how much it may bring, how long it may take.

use crate::address::{IpRange, is_public};
use domain::limits::{FETCH_S_MAX, REDIRECTS_MAX, SOURCE_BYTES_MAX, SOURCES_BYTES_MAX};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// The defaults are the system's limits, with public addresses alone.
#[derive(Clone)]
pub struct FetchPolicy {
    /// Ranges that may be asked although they are not public.
    pub allowed_sources: Vec<IpRange>,
    pub bytes_max: usize,
    /// All pictures together that this fetcher brought and that somebody still holds, or is bringing.
    pub bytes_together_max: usize,
    /// For everything: names, redirects, the last byte.
    pub time_max: Duration,
    /// For connecting once, encryption included.
    pub connect_time_max: Duration,
    pub redirects_max: usize,
    /// Certificates in PEM that are trusted besides the public authorities.
    pub extra_roots_pem: Option<Vec<u8>>,
}

impl Default for FetchPolicy {
    fn default() -> Self {
        Self {
            allowed_sources: Vec::new(),
            bytes_max: SOURCE_BYTES_MAX,
            bytes_together_max: SOURCES_BYTES_MAX,
            time_max: Duration::from_secs(FETCH_S_MAX),
            connect_time_max: Duration::from_secs(3),
            redirects_max: REDIRECTS_MAX,
            extra_roots_pem: None,
        }
    }
}

impl FetchPolicy {
    /// The addresses of one host that may be asked, in the resolver's order; none, if the host is refused.
    ///
    /// One forbidden address spoils the host: no honest name points at the public and at a private network at once, a
    /// name made for an attack does. Only addresses in a range that the operator opened are taken from such a mix, so
    /// that `localhost` works with one of its two addresses opened.
    pub(crate) fn usable(&self, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let opened: Vec<IpAddr> = addresses.iter().copied().filter(|address| self.opens(*address)).collect();
        if !opened.is_empty() {
            return opened;
        }
        if addresses.iter().all(|address| is_public(*address)) { addresses.to_vec() } else { Vec::new() }
    }

    fn opens(&self, address: IpAddr) -> bool {
        self.allowed_sources.iter().any(|range| range.contains(address))
    }
}

impl fmt::Debug for FetchPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchPolicy")
            .field("allowed_sources", &self.allowed_sources)
            .field("bytes_max", &self.bytes_max)
            .field("bytes_together_max", &self.bytes_together_max)
            .field("time_max", &self.time_max)
            .field("connect_time_max", &self.connect_time_max)
            .field("redirects_max", &self.redirects_max)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usable(allowed: &[&str], addresses: &[&str]) -> Vec<String> {
        let allowed_sources = allowed.iter().map(|text| IpRange::parse(text).unwrap()).collect();
        let policy = FetchPolicy { allowed_sources, ..FetchPolicy::default() };
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        policy.usable(&addresses).iter().map(IpAddr::to_string).collect()
    }

    #[test]
    fn one_forbidden_address_spoils_the_host() {
        assert_eq!(usable(&[], &["1.1.1.1", "2606:4700::1"]), ["1.1.1.1", "2606:4700::1"]);
        assert!(usable(&[], &["1.1.1.1", "10.0.0.1"]).is_empty());
        assert!(usable(&[], &[]).is_empty());
    }

    #[test]
    fn an_opened_range_is_taken_from_a_mix_and_alone() {
        assert_eq!(usable(&["127.0.0.0/8"], &["::1", "127.0.0.1", "1.1.1.1"]), ["127.0.0.1"]);
        assert!(usable(&["127.0.0.0/8"], &["10.0.0.1"]).is_empty());
    }
}
