//! Keys, also from a second process's point of view.

use crate::support::{Bench, owner};
use store::contract::Key;
use store::sqlite;

fn key(n: u8) -> Key {
    Key { id: owner(n), name: format!("key {n}"), created_ms: i64::from(n), revoked_ms: None }
}

#[tokio::test]
async fn a_key_is_found_by_its_secret_until_it_is_revoked() {
    let bench = Bench::new();
    let keys = &bench.stores.keys;
    keys.insert(&key(1), [1; 32]).await.unwrap();
    keys.insert(&key(2), [2; 32]).await.unwrap();
    assert_eq!(keys.find([1; 32]).await.unwrap(), Some(key(1)));
    assert_eq!(keys.find([3; 32]).await.unwrap(), None);
    assert!(keys.revoke(&owner(1), 50).await.unwrap());
    assert!(keys.revoke(&owner(1), 60).await.unwrap(), "revoking twice is no error");
    assert!(!keys.revoke(&owner(9), 50).await.unwrap());
    assert_eq!(keys.find([1; 32]).await.unwrap(), None);
    let revoked = Key { revoked_ms: Some(50), ..key(1) };
    assert_eq!(keys.keys().await.unwrap(), [revoked, key(2)]);
}

#[tokio::test]
async fn a_secret_serves_one_key_only() {
    let bench = Bench::new();
    bench.stores.keys.insert(&key(1), [1; 32]).await.unwrap();
    assert!(bench.stores.keys.insert(&key(2), [1; 32]).await.is_err());
    assert!(bench.stores.keys.insert(&key(1), [2; 32]).await.is_err());
}

#[tokio::test]
async fn keys_are_managed_beside_a_running_server() {
    let bench = Bench::new();
    let beside = sqlite::open_keys(&bench.dir()).unwrap();
    beside.insert(&key(1), [1; 32]).await.unwrap();
    assert_eq!(bench.stores.keys.find([1; 32]).await.unwrap(), Some(key(1)));
    let (second, third) = (key(2), key(3));
    let (_, here, there) =
        tokio::join!(bench.submit(1), bench.stores.keys.insert(&second, [2; 32]), beside.insert(&third, [3; 32]),);
    assert!(here.is_ok() && there.is_ok());
    assert_eq!(beside.keys().await.unwrap().len(), 3);
    assert!(beside.revoke(&owner(1), 5).await.unwrap());
    assert_eq!(bench.stores.keys.find([1; 32]).await.unwrap(), None);
}

#[tokio::test]
async fn the_first_key_may_come_before_the_first_server() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    sqlite::open_keys(&data).unwrap().insert(&key(1), [1; 32]).await.unwrap();
    let stores = sqlite::open(&data, sqlite::StoreOptions::default()).unwrap();
    assert_eq!(stores.keys.find([1; 32]).await.unwrap(), Some(key(1)));
}
