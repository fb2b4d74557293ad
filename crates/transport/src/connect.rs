//! A connection to one of the addresses that a caller names, and to no other.

use crate::error::TransportError;
use domain::fault::Invalid;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// How many of a host's addresses are tried.
const ADDRESSES_TRIED_MAX: usize = 4;
/// How long one of them is waited for before the next is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);

/// What an exchange can go over.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Where an exchange goes.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// In the order in which they are tried.
    pub addresses: &'a [IpAddr],
    pub port: u16,
    /// The URL's name or address, if the connection is to be encrypted: the certificate must be its own, whatever address
    /// it led to.
    pub encrypted_for: Option<&'a str>,
}

/// Whose certificates are believed. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    connector: TlsConnector,
}

impl Tls {
    /// Trusts the public authorities and the certificates in this PEM text.
    pub fn new(extra_roots_pem: Option<&[u8]>) -> Result<Self, Invalid> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(pem) = extra_roots_pem {
            add_roots(&mut roots, pem)?;
        }
        // The provider is named, so that no other crate's choice can change it.
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring supports the default versions, this is a bug")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { connector: TlsConnector::from(Arc::new(config)) })
    }

    /// Connects, and encrypts where that is wanted. Waits without end: the caller's time limit is one for all of it.
    pub async fn connect(&self, to: Destination<'_>) -> Result<Box<dyn Stream>, TransportError> {
        let stream = open(to.addresses, to.port).await?;
        let Some(host) = to.encrypted_for else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(host.to_owned()).map_err(|_| TransportError::Tls)?;
        Ok(Box::new(self.connector.connect(name, stream).await.map_err(|_| TransportError::Tls)?))
    }
}

/// The first address that lets us in. One that answers nothing holds up the next for a moment only ("happy eyeballs",
/// RFC 8305).
async fn open(addresses: &[IpAddr], port: u16) -> Result<TcpStream, TransportError> {
    let mut waiting = addresses.iter().take(ADDRESSES_TRIED_MAX);
    let mut attempts = JoinSet::new();
    loop {
        match waiting.next() {
            Some(address) => _ = attempts.spawn(TcpStream::connect(SocketAddr::new(*address, port))),
            None if attempts.is_empty() => return Err(TransportError::Connect),
            None => {}
        }
        let ended = if waiting.len() == 0 {
            attempts.join_next().await
        } else {
            timeout(HEAD_START, attempts.join_next()).await.unwrap_or_default()
        };
        if let Some(Ok(Ok(stream))) = ended {
            return Ok(stream);
        }
    }
}

fn add_roots(roots: &mut RootCertStore, pem: &[u8]) -> Result<(), Invalid> {
    let invalid = |got: &str| Invalid::new("extra roots", got, "certificates in PEM");
    let mut n_added = 0;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| invalid("malformed PEM"))?;
        roots.add(certificate).map_err(|_| invalid("a malformed certificate"))?;
        n_added += 1;
    }
    if n_added == 0 { Err(invalid("no certificate")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::time::Instant;
    use tokio::net::TcpListener;

    /// For documentation (RFC 5737): what is sent there is lost, or is refused at once where there is no way there.
    const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn an_address_that_answers_nothing_does_not_take_the_others_time() {
        let listener = TcpListener::bind((HERE, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let begin = Instant::now();
        assert!(open(&[NOBODY, NOBODY, HERE], port).await.is_ok());
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    }

    #[tokio::test]
    async fn without_an_address_that_lets_us_in_there_is_no_connection() {
        let port = TcpListener::bind((HERE, 0)).await.unwrap().local_addr().unwrap().port();
        assert_eq!(open(&[HERE, HERE], port).await.unwrap_err(), TransportError::Connect);
        assert_eq!(open(&[], port).await.unwrap_err(), TransportError::Connect);
    }
}
