//! The folders: a model is there as a whole or not at all, and what is on the disk already is not fetched.

use super::{LARGE, REPOSITORY, Rig, SMALL, content, files_below, model, told};
use hub::download::{Origin, Place, Silent};
use hub::installed::Shelf;
use hub::record::Record;
use std::fs;
use testkit::model_hub::{COMMIT, Fault, sha256};

/// The place of this content in the shared cache.
fn cached(rig: &Rig, name: &str) -> std::path::PathBuf {
    let dir = rig.dir.path().join("cache/models--owner--name/blobs");
    fs::create_dir_all(&dir).unwrap();
    dir.join(name)
}

#[tokio::test]
async fn a_pull_that_failed_leaves_nothing_in_the_models_folder() {
    let rig = Rig::start().await;
    rig.hub.fault(LARGE, [Fault::Status(404, "")]);
    assert!(rig.pull().await.is_err());
    rig.assert_absent();
    let shelf = Shelf::open(&rig.weights(), &hub::registry::built_in()).unwrap();
    assert!(shelf.find(&model()).is_none());
    rig.pull().await.unwrap();
    let shelf = Shelf::open(&rig.weights(), &hub::registry::built_in()).unwrap();
    assert!(shelf.find(&model()).is_some());
}

#[tokio::test]
async fn a_folder_with_a_file_less_counts_as_absent_and_is_mended() {
    let rig = Rig::start().await;
    rig.pull().await.unwrap();
    fs::remove_file(rig.folder().join(LARGE)).unwrap();
    let shelf = Shelf::open(&rig.weights(), &hub::registry::built_in()).unwrap();
    assert!(shelf.find(&model()).is_none());
    let log = rig.pull().await.unwrap();
    assert_eq!((log.n_from(Origin::Kept), log.n_from(Origin::Network)), (1, 1));
    rig.assert_installed();
}

#[tokio::test]
async fn a_new_commit_takes_the_place_of_the_old_one() {
    let rig = Rig::start().await;
    rig.hub.small(REPOSITORY, "vae/old.safetensors", "goes away");
    rig.pull().await.unwrap();
    fs::write(rig.folder().join("notes.txt"), "mine").unwrap();
    let next = "f".repeat(40);
    rig.hub.commit(REPOSITORY, &next);
    rig.hub.listing("");
    let rig = Rig { hub: Rig::start().await.hub, ..rig };
    rig.hub.commit(REPOSITORY, &next);
    rig.hub.small(REPOSITORY, SMALL, r#"{"_class_name": "FluxImg2ImgPipeline"}"#);
    let log = rig.pull().await.unwrap();
    assert_eq!((log.n_from(Origin::Kept), log.n_from(Origin::Network)), (1, 1));
    rig.assert_installed();
    assert!(fs::read_to_string(rig.folder().join(SMALL)).unwrap().contains("Img2Img"));
    assert!(!rig.folder().join("vae/old.safetensors").exists(), "the pull that brought it is over");
    assert!(rig.folder().join("notes.txt").exists(), "what no pull brought is nobody's business");
    assert_eq!(Record::read(&rig.folder()).unwrap().unwrap().commit, next);
}

#[tokio::test]
async fn the_shared_cache_is_used_and_not_changed() {
    let rig = Rig::start().await;
    let path = cached(&rig, &sha256(&content()));
    fs::write(&path, content()).unwrap();
    let plan = rig.plan().await.unwrap();
    assert!(rig.downloader().survey(&plan, &rig.weights()).contains(&Place::Cached));
    let log = rig.pull().await.unwrap();
    assert_eq!((log.n_from(Origin::Cache), rig.hub.n_sent(LARGE)), (1, 0));
    rig.assert_installed();
    assert_eq!(fs::read(&path).unwrap(), content());
}

#[tokio::test]
async fn a_snapshot_of_the_cache_will_do_and_a_link_is_followed() {
    let rig = Rig::start().await;
    let elsewhere = cached(&rig, "elsewhere");
    fs::write(&elsewhere, content()).unwrap();
    let snapshot = rig.dir.path().join(format!("cache/models--owner--name/snapshots/{COMMIT}/vae"));
    fs::create_dir_all(&snapshot).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("../../../blobs/elsewhere", snapshot.join("model.safetensors")).unwrap();
    #[cfg(not(unix))]
    fs::copy(&elsewhere, snapshot.join("model.safetensors")).unwrap();
    rig.pull().await.unwrap();
    assert_eq!(rig.hub.n_sent(LARGE), 0);
    rig.assert_installed();
    assert!(!fs::symlink_metadata(rig.folder().join(LARGE)).unwrap().is_symlink(), "the cache may be emptied");
}

#[tokio::test]
async fn a_damaged_cache_is_not_believed() {
    let rig = Rig::start().await;
    let mut bytes = content();
    bytes[5] ^= 1;
    fs::write(cached(&rig, &sha256(&content())), bytes).unwrap();
    let log = rig.pull().await.unwrap();
    assert!(log.holds("cache is damaged"));
    rig.assert_installed();
}

#[tokio::test]
async fn a_folder_that_somebody_else_made_is_completed_or_left_alone() {
    let rig = Rig::start().await;
    fs::create_dir_all(rig.folder().join("vae")).unwrap();
    fs::write(rig.folder().join(LARGE), content()).unwrap();
    let log = rig.pull().await.unwrap();
    assert_eq!((log.n_from(Origin::Kept), rig.hub.n_sent(LARGE)), (1, 0));
    rig.assert_installed();
    fs::remove_file(rig.folder().join(SMALL)).unwrap();
    rig.pull().await.unwrap();
    hub::download::remove(&rig.weights(), &model()).unwrap();
    assert_eq!(files_below(&rig.folder()), [LARGE], "no pull brought it");

    let rig = Rig::start().await;
    fs::create_dir_all(rig.folder()).unwrap();
    fs::write(rig.folder().join(SMALL), "my own").unwrap();
    let message = told(rig.pull().await);
    assert!(message.contains("was not put there by a pull, and its model_index.json is another file"), "{message}");
    assert_eq!(files_below(&rig.folder()), [SMALL]);
    assert_eq!(fs::read_to_string(rig.folder().join(SMALL)).unwrap(), "my own");
}

#[tokio::test]
async fn two_pulls_of_one_model_do_not_collide() {
    let rig = Rig::start().await;
    rig.hub.fault(LARGE, [Fault::StallAfter(100)]);
    let plan = rig.plan().await.unwrap();
    let weights = rig.weights();
    let (first, second) = (rig.downloader(), rig.downloader());
    let late = async {
        while rig.hub.asked_for(LARGE).is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        second.pull(&plan, &weights, &Silent).await
    };
    let (first, second) = futures::join!(first.pull(&plan, &weights, &Silent), late);
    assert_eq!(told(second), "another pull of a-model is running");
    first.unwrap();
    rig.assert_installed();
}

#[tokio::test]
async fn one_models_own_folder_is_no_place_for_models() {
    let rig = Rig::start().await;
    fs::create_dir_all(rig.weights()).unwrap();
    fs::write(rig.weights().join(SMALL), "{}").unwrap();
    assert!(told(rig.pull().await).contains("is one model's own folder"));
}

#[tokio::test]
async fn a_pull_larger_than_the_disk_does_not_begin() {
    let rig = Rig::start().await;
    let mut plan = rig.plan().await.unwrap();
    plan.files[0].bytes = 1 << 60;
    let message = told(rig.downloader().pull(&plan, &rig.weights(), &Silent).await);
    assert!(message.contains("free; the download needs 1099511627"), "{message}");
    assert_eq!(rig.hub.n_sent(LARGE), 0);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_disk_that_fills_up_is_told_as_such() {
    // A device that is always full stands where the bytes would go.
    let rig = Rig::start().await;
    fs::create_dir_all(rig.part().parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/dev/full", rig.part()).unwrap();
    let message = told(rig.pull().await);
    assert!(message.starts_with("the disk is full") || message.contains("cannot be used"), "{message}");
    rig.assert_absent();
}

#[tokio::test]
async fn a_damaged_file_is_found_and_mended_by_the_next_pull() {
    let rig = Rig::start().await;
    rig.pull().await.unwrap();
    let mut bytes = content();
    bytes[77] ^= 1;
    fs::write(rig.folder().join(LARGE), bytes).unwrap();
    assert!(rig.folder().join(LARGE).exists() && Record::read(&rig.folder()).unwrap().unwrap().is_whole(&rig.folder()));
    let mut told = Vec::new();
    let mut record = Record::read(&rig.folder()).unwrap().unwrap();
    let n_damaged = record.verify(&rig.folder(), |file, damage| told.push((file.path.clone(), damage))).unwrap();
    assert_eq!(n_damaged, 1);
    assert!(
        told.contains(&(LARGE.to_owned(), Some(hub::record::Damage::Hash))) && told.contains(&(SMALL.to_owned(), None))
    );
    let shelf = Shelf::open(&rig.weights(), &hub::registry::built_in()).unwrap();
    assert!(shelf.find(&model()).is_none(), "nobody paints with it");
    let log = rig.pull().await.unwrap();
    assert_eq!((log.n_from(Origin::Kept), log.n_from(Origin::Network)), (1, 1));
    rig.assert_installed();
}

#[tokio::test]
async fn what_a_pull_brought_can_be_taken_away_and_nothing_else() {
    let rig = Rig::start().await;
    rig.pull().await.unwrap();
    fs::write(rig.folder().join("notes.txt"), "mine").unwrap();
    let n_bytes = hub::download::remove(&rig.weights(), &model()).unwrap();
    assert!(n_bytes > content().len() as u64);
    assert_eq!(files_below(&rig.folder()), ["notes.txt"]);
    let message = told(hub::download::remove(&rig.weights(), &model()));
    assert!(message.contains("was not put there by a pull"), "{message}");
    fs::remove_file(rig.folder().join("notes.txt")).unwrap();
    rig.hub.fault(LARGE, [Fault::Status(410, "")]);
    assert!(rig.pull().await.is_err() && hub::download::has_begun(&rig.weights(), &model()));
    assert!(hub::download::remove(&rig.weights(), &model()).unwrap() > 0, "the small file had arrived");
    assert!(!hub::download::has_begun(&rig.weights(), &model()));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_models_folder_may_lie_on_another_disk() {
    use std::os::unix::fs::MetadataExt;
    let rig = Rig::start().await;
    let device = |path: &std::path::Path| fs::metadata(path).map(|found| found.dev()).ok();
    let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else { return };
    fs::create_dir_all(rig.weights()).unwrap();
    if device(elsewhere.path()) == device(&rig.weights()) {
        return;
    }
    std::os::unix::fs::symlink(elsewhere.path(), rig.folder()).unwrap();
    rig.pull().await.unwrap();
    rig.assert_installed();
    assert!(files_below(elsewhere.path()).iter().all(|file| !file.contains(".new")));
}
