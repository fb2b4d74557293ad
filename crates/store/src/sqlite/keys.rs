//! API keys, by the SHA-256 of their secrets.

use super::Sqlite;
use crate::contract::{Key, KeyStore, StoreError};
use async_trait::async_trait;
use domain::id::KeyId;
use rusqlite::{OptionalExtension, Row, params};

#[async_trait]
impl KeyStore for Sqlite {
    async fn insert(&self, key: &Key, secret_sha256: [u8; 32]) -> Result<(), StoreError> {
        let key = key.clone();
        let sql = "INSERT INTO api_key (id, name, secret_sha256, created_ms, revoked_ms) VALUES (?1, ?2, ?3, ?4, ?5)";
        let work = move |write: &mut super::writer::Write<'_>| {
            let values = params![key.id.as_str(), key.name, secret_sha256, key.created_ms, key.revoked_ms];
            write.connection.prepare_cached(sql)?.execute(values)?;
            Ok(())
        };
        self.writer.run(work).await
    }

    async fn keys(&self) -> Result<Vec<Key>, StoreError> {
        let sql = "SELECT id, name, created_ms, revoked_ms FROM api_key ORDER BY seq";
        self.readers
            .run(move |connection| {
                let mut statement = connection.prepare_cached(sql)?;
                let keys: Vec<Result<Key, StoreError>> = statement.query_map([], read)?.collect::<Result<_, _>>()?;
                keys.into_iter().collect()
            })
            .await
    }

    async fn revoke(&self, id: &KeyId, now_ms: i64) -> Result<bool, StoreError> {
        let id = id.clone();
        // The first revocation is the one that counts.
        let sql = "UPDATE api_key SET revoked_ms = coalesce(revoked_ms, ?2) WHERE id = ?1";
        self.writer
            .run(move |write| Ok(write.connection.prepare_cached(sql)?.execute(params![id.as_str(), now_ms])? > 0))
            .await
    }

    async fn find(&self, secret_sha256: [u8; 32]) -> Result<Option<Key>, StoreError> {
        let sql = "SELECT id, name, created_ms, revoked_ms FROM api_key
                   WHERE secret_sha256 = ?1 AND revoked_ms IS NULL";
        self.readers
            .run(move |connection| {
                connection.prepare_cached(sql)?.query_row([secret_sha256], read).optional()?.transpose()
            })
            .await
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Result<Key, StoreError>> {
    let id: String = row.get(0)?;
    let Some(id) = KeyId::parse(&id) else {
        return Ok(Err(StoreError::Corrupt(format!("key {id}, field id"))));
    };
    Ok(Ok(Key { id, name: row.get(1)?, created_ms: row.get(2)?, revoked_ms: row.get(3)? }))
}
