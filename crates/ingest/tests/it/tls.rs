//! Encryption: the certificate must be trusted and the name's own.

use super::server::{Server, Step, ok, redirect};
use super::{Script, png, policy};
use ingest::{FetchError, FetchPolicy, Fetcher};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

const CERTIFICATE: &[u8] = include_bytes!("../fixtures/server.pem");
const KEY: &[u8] = include_bytes!("../fixtures/server.key.pem");

fn acceptor() -> TlsAcceptor {
    let chain = vec![CertificateDer::from_pem_slice(CERTIFICATE).unwrap()];
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(KEY).unwrap())
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

async fn server() -> Server {
    let plain = Server::answering(ok(&png())).await;
    let plain_url = plain.url("/");
    let script = move |path: &str| {
        let _ = &plain;
        vec![Step::Send(if path == "/down" { redirect(&plain_url) } else { ok(&png()) })]
    };
    Server::start_with(script, Some(acceptor())).await
}

fn trusting() -> FetchPolicy {
    FetchPolicy { extra_roots_pem: Some(CERTIFICATE.to_vec()), ..policy() }
}

fn fetcher(policy: FetchPolicy) -> Fetcher {
    Fetcher::with_resolver(policy, Script::new(&[&["127.0.0.1"]])).unwrap()
}

fn url(server: &Server, host: &str, path: &str) -> String {
    format!("https://{host}:{}{path}", server.address.port())
}

#[tokio::test]
async fn a_trusted_certificate_for_the_name_or_the_address_is_accepted() {
    let server = server().await;
    for host in ["pictures.test", "pictures.test.", "127.0.0.1"] {
        let fetched = fetcher(trusting()).fetch(&url(&server, host, "/")).await;
        assert_eq!(fetched.map(|fetched| fetched.bytes), Ok(png().into()), "{host}");
    }
}

#[tokio::test]
async fn an_unknown_authority_and_another_name_are_refused() {
    let server = server().await;
    let unknown = fetcher(policy()).fetch(&url(&server, "pictures.test", "/")).await;
    assert_eq!(unknown, Err(FetchError::Tls));
    let other = fetcher(trusting()).fetch(&url(&server, "other.test", "/")).await;
    assert_eq!(other, Err(FetchError::Tls));
    assert_eq!(server.n_requests(), 0);
}

#[tokio::test]
async fn a_server_without_encryption_is_refused() {
    let plain = Server::answering(ok(&png())).await;
    let error = fetcher(trusting()).fetch(&url(&plain, "pictures.test", "/")).await.unwrap_err();
    assert!(matches!(error, FetchError::Tls | FetchError::Connect), "{error}");
}

#[tokio::test]
async fn encryption_is_never_lost_on_the_way() {
    let server = server().await;
    let error = fetcher(trusting()).fetch(&url(&server, "pictures.test", "/down")).await.unwrap_err();
    assert_eq!(error, FetchError::Downgrade);
    let up = url(&server, "pictures.test", "/");
    let plain = Server::start(move |_| vec![Step::Send(redirect(&up))]).await;
    assert!(fetcher(trusting()).fetch(&plain.url_at("pictures.test", "/")).await.is_ok());
}

#[test]
fn roots_that_cannot_be_read_are_named() {
    for pem in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let policy = FetchPolicy { extra_roots_pem: Some(pem.as_bytes().to_vec()), ..FetchPolicy::default() };
        let error = Fetcher::new(policy).err().unwrap().to_string();
        assert!(error.starts_with("extra roots: got "), "{error}");
    }
}
