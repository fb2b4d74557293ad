//! A connection to one of the addresses that a caller names, and to no other.

use crate::error::TransportError;
use domain::fault::Invalid;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// How many of a host's addresses are tried.
const ADDRESSES_TRIED_MAX: usize = 4;

/// What an exchange can go over.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The first address that lets us in. The caller's time limit is one for all of them.
pub async fn open(addresses: &[IpAddr], port: u16) -> Result<TcpStream, TransportError> {
    for address in addresses.iter().take(ADDRESSES_TRIED_MAX) {
        if let Ok(stream) = TcpStream::connect(SocketAddr::new(*address, port)).await {
            return Ok(stream);
        }
    }
    Err(TransportError::Connect)
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

    /// `host` is the URL's name or address, so the certificate must be its own, whatever address it led to.
    pub async fn encrypt(&self, host: &str, stream: TcpStream) -> Result<impl Stream + use<>, TransportError> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| TransportError::Tls)?;
        self.connector.connect(name, stream).await.map_err(|_| TransportError::Tls)
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
