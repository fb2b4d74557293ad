//! From a URL to checked bytes.

use crate::data_uri;
use crate::error::FetchError;
use crate::http1::{self, Answer};
use crate::policy::FetchPolicy;
use crate::resolve::{Resolver, SystemResolver};
use crate::target::{Place, Target};
use bytes::Bytes;
use domain::fault::Invalid;
use domain::memory::{Budget, Held, Share};
use imaging::{Header, probe};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::time::timeout;
use transport::{Destination, Tls, TransportError};

/// Fetches pictures by a policy. Cheap to share, no state between fetches.
pub struct Fetcher {
    policy: FetchPolicy,
    resolver: Arc<dyn Resolver>,
    tls: Tls,
    memory: Budget,
}

/// The bytes of an image file whose header is in order.
#[derive(Clone, PartialEq, Eq)]
pub struct Fetched {
    pub bytes: Bytes,
    pub header: Header,
}

impl Fetcher {
    /// Fails if the policy's extra roots cannot be read.
    pub fn new(policy: FetchPolicy) -> Result<Self, Invalid> {
        Self::with_resolver(policy, Arc::new(SystemResolver))
    }

    pub fn with_resolver(policy: FetchPolicy, resolver: Arc<dyn Resolver>) -> Result<Self, Invalid> {
        let tls = Tls::new(policy.extra_roots_pem.as_deref())?;
        let memory = Budget::new(policy.bytes_together_max);
        Ok(Self { policy, resolver, tls, memory })
    }

    /// The picture at an http, https or `data:` URL.
    pub async fn fetch(&self, url: &str) -> Result<Fetched, FetchError> {
        let time_max = self.policy.time_max;
        let whole = async {
            let bytes = self.bytes_of(url.trim()).await?;
            checked(bytes).await
        };
        timeout(time_max, whole).await.unwrap_or(Err(FetchError::TimedOut(time_max.as_secs().max(1))))
    }

    async fn bytes_of(&self, url: &str) -> Result<Bytes, FetchError> {
        const DATA: &str = "data:";
        match url.split_at_checked(DATA.len()) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case(DATA) => {
                let mut memory = self.memory.share();
                memory.grow_to(rest.len()).map_err(|_| FetchError::Crowded)?;
                decoded(rest.to_owned(), self.policy.bytes_max, memory).await
            }
            _ => self.download(Target::parse(url)?).await,
        }
    }

    /// Each hop is checked as if it were the first.
    async fn download(&self, mut target: Target) -> Result<Bytes, FetchError> {
        for _ in 0..=self.policy.redirects_max {
            match self.ask(&target).await? {
                Answer::Picture(bytes) => return Ok(bytes),
                Answer::Redirect(location) => target = target.follow(&location)?,
            }
        }
        Err(FetchError::TooManyRedirects(self.policy.redirects_max))
    }

    async fn ask(&self, target: &Target) -> Result<Answer, FetchError> {
        let addresses = self.addresses(target).await?;
        let host = if target.is_https() { Some(target.host()?) } else { None };
        let to = Destination { addresses: &addresses, port: target.port(), encrypted_for: host.as_deref() };
        let connecting = timeout(self.policy.connect_time_max, self.tls.connect(to));
        let stream = connecting.await.unwrap_or(Err(TransportError::Connect))?;
        http1::get(stream, target, self.policy.bytes_max, self.memory.share()).await
    }

    /// The only lookup of this hop: what it brings is checked, and connected to.
    async fn addresses(&self, target: &Target) -> Result<Vec<IpAddr>, FetchError> {
        let (found, refusal) = match target.place()? {
            Place::Address(address) => (vec![address], FetchError::ForbiddenAddress),
            Place::Name(name) => (self.resolver.resolve(&name).await.unwrap_or_default(), FetchError::UnusableHost),
        };
        let usable = self.policy.usable(&found);
        if usable.is_empty() { Err(refusal) } else { Ok(usable) }
    }
}

/// Decoding megabytes takes a while too.
async fn decoded(rest: String, bytes_max: usize, memory: Share) -> Result<Bytes, FetchError> {
    let decode = move || data_uri::read(&rest, bytes_max).map(|bytes| Held::new(bytes, memory));
    tokio::task::spawn_blocking(decode).await.map_err(|_| FetchError::BadAnswer)?.map(Bytes::from_owner)
}

/// Reading a header can take a while with hostile bytes, so it is not done among the tasks that wait for the network.
async fn checked(bytes: Bytes) -> Result<Fetched, FetchError> {
    let probed = bytes.clone();
    let header = tokio::task::spawn_blocking(move || probe(&probed)).await.map_err(|_| FetchError::BadAnswer)??;
    Ok(Fetched { bytes, header })
}

/// Never prints the picture.
impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Header { format, size } = self.header;
        write!(f, "Fetched({format} {size}, {} bytes)", self.bytes.len())
    }
}
