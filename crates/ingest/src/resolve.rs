//! From a name to its addresses: a trait, so that a test can play a name server that changes its mind.

use async_trait::async_trait;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// A name server that does not answer keeps a thread long after its fetch has ended; the others' work needs threads too.
const LOOKUPS_AT_ONCE_MAX: usize = 32;

/// Asked once for each host of a fetch; what it answers is checked and pinned.
#[async_trait]
pub trait Resolver: Send + Sync {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The operating system's. So many names at once for the whole process; who comes later waits, within a fetch's time.
pub struct SystemResolver;

static LOOKUPS: Semaphore = Semaphore::const_new(LOOKUPS_AT_ONCE_MAX);

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let host = host.to_owned();
        let permit = LOOKUPS.acquire().await.map_err(io::Error::other)?;
        let look_up = move || {
            let _until_it_answers = permit;
            // The port is none of the resolver's business.
            let found = (host.as_str(), 0).to_socket_addrs()?;
            Ok(found.map(|socket| socket.ip()).collect())
        };
        spawn_blocking(look_up).await.map_err(io::Error::other)?
    }
}
