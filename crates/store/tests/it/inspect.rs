//! What is told of a database without opening it for work.

use crate::support::{Bench, owner};
use std::fs;
use store::contract::{Key, StoreError};
use store::sqlite::{self, Contents};

#[tokio::test]
async fn contents_are_counted_beside_a_running_server_and_after_it() {
    let bench = Bench::new();
    let key = |n: u8| Key { id: owner(n), name: "k".to_owned(), created_ms: 1, revoked_ms: None };
    for n in 1..4 {
        bench.submit(n).await;
        bench.stores.keys.insert(&key(n), [n; 32]).await.unwrap();
    }
    bench.stores.keys.revoke(&owner(2), 5).await.unwrap();
    let contents = Some(Contents { n_tasks: 3, n_keys: 2 });
    assert_eq!(sqlite::inspect(&bench.dir()).unwrap(), contents);
    let Bench { stores, dir, .. } = bench;
    drop(stores);
    assert_eq!(sqlite::inspect(dir.path()).unwrap(), contents);
}

#[test]
fn where_there_is_none_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("not/yet");
    assert_eq!(sqlite::inspect(&missing).unwrap(), None);
    assert_eq!(sqlite::inspect(dir.path()).unwrap(), None);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn damage_is_found_wherever_it_lies() {
    let bench = Bench::new();
    for n in 1..200 {
        bench.submit(n).await;
    }
    let Bench { stores, dir, .. } = bench;
    drop(stores);
    let database = dir.path().join("pentimento.db");
    let whole = fs::read(&database).unwrap();
    let n_pages = whole.len() / 4096;
    assert!(n_pages > 20, "{n_pages} pages");
    for page in [0, 3, n_pages / 2, n_pages - 1] {
        let mut damaged = whole.clone();
        damaged[page * 4096..(page + 1) * 4096].fill(0xa5);
        fs::write(&database, &damaged).unwrap();
        let error = sqlite::inspect(dir.path()).unwrap_err();
        assert!(matches!(error, StoreError::Database(_)), "page {page}: {error}");
    }
    fs::write(&database, &whole[..whole.len() / 2]).unwrap();
    assert!(sqlite::inspect(dir.path()).is_err(), "cut short");
}
