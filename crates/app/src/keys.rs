//! API keys: made, listed, revoked and recognized. The secret itself is shown once and kept nowhere.

use crate::{now_ms, random_bytes, store_failed};
use domain::fault::{ErrorCode, Fault, Invalid};
use domain::id::KeyId;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::sync::Arc;
use store::contract::{Key, KeyStore};

const SECRET_PREFIX: &str = "pk_";
const SECRET_BYTES: usize = 32;
const NAME_CHARS_MAX: usize = 100;

#[derive(Clone)]
pub struct Keys {
    store: Arc<dyn KeyStore>,
}

/// Whoever sent a request, known by a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub key: KeyId,
}

/// A key that was just made.
pub struct NewKey {
    pub key: Key,
    pub secret: Secret,
}

/// What a client writes after `Bearer`. Has no `Debug`, so that no log can hold it.
pub struct Secret(String);

impl Secret {
    /// The one look at it that its owner gets.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Keys {
    pub fn new(store: Arc<dyn KeyStore>) -> Self {
        Self { store }
    }

    pub async fn create(&self, name: &str) -> Result<NewKey, Fault> {
        let n_chars = name.chars().count();
        if name.trim().is_empty() || n_chars > NAME_CHARS_MAX || name.chars().any(char::is_control) {
            let allowed = format!("1 to {NAME_CHARS_MAX} characters, none of them a control character");
            return Err(Invalid::new("name", format!("{n_chars} characters"), allowed).into());
        }
        let mut secret = String::from(SECRET_PREFIX);
        for byte in random_bytes::<SECRET_BYTES>()? {
            write!(secret, "{byte:02x}").expect("writing to memory does not fail");
        }
        let id = KeyId::from_random(random_bytes()?);
        let key = Key { id, name: name.trim().to_owned(), created_ms: now_ms(), revoked_ms: None };
        self.store.insert(&key, digest(&secret)).await.map_err(store_failed)?;
        Ok(NewKey { key, secret: Secret(secret) })
    }

    /// Oldest first, revoked ones included.
    pub async fn list(&self) -> Result<Vec<Key>, Fault> {
        self.store.keys().await.map_err(store_failed)
    }

    /// Revoking twice is no error; the first time counts.
    pub async fn revoke(&self, id: &str) -> Result<(), Fault> {
        let unknown = || Fault::new(ErrorCode::NotFound, "no key has this id; `pentimento keys list` shows them");
        let id = KeyId::parse(id).ok_or_else(unknown)?;
        let known = self.store.revoke(&id, now_ms()).await.map_err(store_failed)?;
        if known { Ok(()) } else { Err(unknown()) }
    }

    /// The secret is looked up by its digest, so no comparison's time tells how much of it was right.
    pub async fn authenticate(&self, secret: &str) -> Result<Caller, Fault> {
        let unknown = || Fault::new(ErrorCode::Unauthorized, "the bearer token is unknown or revoked");
        let digits = secret.strip_prefix(SECRET_PREFIX).ok_or_else(unknown)?;
        let well_formed = digits.len() == 2 * SECRET_BYTES && digits.bytes().all(|b| b.is_ascii_hexdigit());
        if !well_formed {
            return Err(unknown());
        }
        let key = self.store.find(digest(secret)).await.map_err(store_failed)?;
        key.map(|key| Caller { key: key.id }).ok_or_else(unknown)
    }
}

fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}
