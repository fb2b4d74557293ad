//! What the hub says of its files is read to the end, and no further than it can be trusted.

use super::{LARGE, REPOSITORY, Rig, files_below, told};
use serde_json::json;
use testkit::model_hub::{COMMIT, git_blob};

#[tokio::test]
async fn every_page_is_read() {
    let rig = Rig::start().await;
    rig.hub.page_len(1);
    rig.pull().await.unwrap();
    rig.assert_installed();
    let pages = rig.hub.asked().iter().filter(|asked| asked.path.contains("/tree/")).count();
    assert_eq!(pages, 4, "a page a file");
}

#[tokio::test]
async fn a_listing_without_end_is_given_up() {
    let rig = Rig::start().await;
    rig.hub.endless();
    assert!(told(rig.pull().await).contains("more than 64 pages"));
}

#[tokio::test]
async fn a_listing_that_is_too_large_is_given_up() {
    let rig = Rig::start().await;
    rig.hub.listing(vec![b' '; 9 << 20]);
    assert!(told(rig.pull().await).contains("one page has more than"));
    let item = |n| json!({"type": "file", "oid": git_blob(b""), "size": 0, "path": format!("{n}")});
    let items: Vec<_> = (0..20_001).map(item).collect();
    rig.hub.listing(serde_json::to_vec(&items).unwrap());
    assert!(told(rig.pull().await).contains("more than 20000 files"));
}

#[tokio::test]
async fn a_file_that_would_lie_elsewhere_spoils_the_listing() {
    for path in [
        "../../escaped",
        "/tmp/escaped",
        "vae/../../../escaped",
        "vae\\..\\..\\escaped.safetensors",
        "C:\\escaped",
        "vae/",
    ] {
        let rig = Rig::start().await;
        let item = |path: &str| json!({"type": "file", "oid": git_blob(b"x"), "size": 1, "path": path});
        rig.hub
            .listing(serde_json::to_vec(&[item("model_index.json"), item("vae/a.safetensors"), item(path)]).unwrap());
        let message = told(rig.pull().await);
        assert!(message.contains("names a file that would lie elsewhere"), "{path}: {message}");
        assert_eq!(files_below(rig.dir.path()), [""; 0], "{path}");
    }
}

#[tokio::test]
async fn a_listing_that_makes_no_sense_is_refused() {
    let item = |oid: &str, path: &str| json!([{"type": "file", "oid": oid, "size": 1, "path": path}]);
    let twice = json!([item(&git_blob(b"x"), "vae/A")[0], item(&git_blob(b"x"), "vae/a")[0]]);
    for (listing, problem) in [
        (json!("nonsense"), "cannot be read"),
        (item("../../etc/passwd", "vae/a"), "no hash of vae/a"),
        (twice, "names a file twice"),
    ] {
        let rig = Rig::start().await;
        rig.hub.listing(listing.to_string());
        let message = told(rig.pull().await);
        assert!(message.starts_with("the list of files of owner/name is not to be trusted"), "{message}");
        assert!(message.contains(problem), "{message}");
    }
}

#[tokio::test]
async fn a_commit_is_40_digits_and_nothing_else() {
    for commit in ["../../../etc", "main", &COMMIT.to_uppercase()] {
        let rig = Rig::start().await;
        rig.hub.commit(REPOSITORY, commit);
        assert!(told(rig.pull().await).contains("its commit is not 40 hexadecimal digits"));
    }
}

#[tokio::test]
async fn what_the_registry_asks_for_must_be_there() {
    let rig = Rig::start().await;
    let mut source = super::source();
    source.files.push(hub::pattern::Pattern::parse("unet/*.safetensors").unwrap());
    let message = told(rig.downloader().plan(&super::model(), &source, None).await);
    assert_eq!(message, "owner/name has no file like unet/*.safetensors at this revision");
    assert_eq!(rig.hub.n_sent(LARGE), 0);
}
