//! From a name to its addresses: a trait, so that a test can play a name server that changes its mind.

use async_trait::async_trait;
use std::io;
use std::net::IpAddr;

/// Asked once for each host of a fetch; what it answers is checked and pinned.
#[async_trait]
pub trait Resolver: Send + Sync {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The operating system's.
pub struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        // The port is none of the resolver's business.
        let found = tokio::net::lookup_host((host, 0)).await?;
        Ok(found.map(|socket| socket.ip()).collect())
    }
}
