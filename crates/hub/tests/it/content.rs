//! What arrives is what was declared, in however many pieces it comes, or it does not arrive.

use super::{LARGE, REPOSITORY, Rig, SMALL, content, model, source, told};
use hub::download::{Origin, Silent};
use testkit::model_hub::{COMMIT, Fault, ModelHub};

#[tokio::test]
async fn a_pull_brings_what_the_registry_asks_for_and_nothing_else() {
    let rig = Rig::start().await;
    let log = rig.pull().await.unwrap();
    rig.assert_installed();
    assert_eq!(log.n_from(Origin::Network), 2);
    assert_eq!(rig.hub.n_sent("README.md") + rig.hub.n_sent("/model.safetensors"), rig.hub.n_sent(LARGE));
    let is_pinned = |path: &str| path.contains("/revision/main") || path.contains(COMMIT) || path.contains("/cdn/");
    assert!(rig.hub.asked().iter().all(|asked| is_pinned(&asked.path)), "one commit throughout");
}

#[tokio::test]
async fn a_second_pull_asks_for_no_file() {
    let rig = Rig::start().await;
    rig.pull().await.unwrap();
    let plan = rig.plan().await.unwrap();
    let n_asked = rig.hub.asked().len();
    assert!(!rig.downloader().pull(&plan, &rig.weights(), &Silent).await.unwrap(), "nothing was missing");
    assert_eq!(rig.hub.asked().len(), n_asked);
}

#[tokio::test]
async fn a_break_in_mid_file_is_gone_on_with_where_it_was() {
    let rig = Rig::start().await;
    rig.hub.fault(LARGE, [Fault::BreakAfter(200_000), Fault::BreakAfter(300_000)]);
    let log = rig.pull().await.unwrap();
    rig.assert_installed();
    assert_eq!(rig.hub.n_sent(LARGE), content().len(), "no byte was sent twice");
    let ranges: Vec<_> = rig
        .hub
        .asked_for(LARGE)
        .iter()
        .filter(|asked| asked.of_cdn)
        .map(|asked| asked.header("range").map(str::to_owned))
        .collect();
    assert_eq!(ranges, [None, Some("bytes=200000-".to_owned()), Some("bytes=500000-".to_owned())]);
    assert!(log.holds("Retry") && log.holds("Begin { have: 500000 }"));
}

#[tokio::test]
async fn a_later_pull_goes_on_with_what_an_earlier_one_left() {
    let mut rig = Rig::start().await;
    rig.patience.attempts = 1;
    rig.hub.fault(LARGE, [Fault::BreakAfter(700_000)]);
    assert!(told(rig.pull().await).contains("broke off"));
    rig.assert_absent();
    assert_eq!(std::fs::metadata(rig.part()).unwrap().len(), 700_000);
    let plan = rig.plan().await.unwrap();
    let survey = rig.downloader().survey(&plan, &rig.weights());
    assert!(survey.contains(&hub::download::Place::Remote { have: 700_000 }), "{survey:?}");
    rig.pull().await.unwrap();
    rig.assert_installed();
    assert_eq!(rig.hub.n_sent(LARGE), content().len());
}

#[tokio::test]
async fn bytes_that_went_bad_on_the_disk_are_found_and_fetched_again() {
    let mut rig = Rig::start().await;
    rig.patience.attempts = 1;
    rig.hub.fault(LARGE, [Fault::BreakAfter(700_000)]);
    assert!(rig.pull().await.is_err());
    let mut bytes = std::fs::read(rig.part()).unwrap();
    bytes[1234] ^= 1;
    std::fs::write(rig.part(), bytes).unwrap();
    rig.patience.attempts = 3;
    let log = rig.pull().await.unwrap();
    assert!(log.holds("another hash"));
    rig.assert_installed();
}

#[tokio::test]
async fn a_whole_part_is_not_asked_for_again() {
    let mut rig = Rig::start().await;
    rig.patience.attempts = 1;
    rig.hub.fault(LARGE, [Fault::BreakAfter(1000)]);
    assert!(rig.pull().await.is_err());
    std::fs::write(rig.part(), content()).unwrap();
    rig.pull().await.unwrap();
    rig.assert_installed();
    assert_eq!(rig.hub.n_sent(LARGE), 1000);
}

#[tokio::test]
async fn a_wrong_hash_is_refused_and_the_bad_bytes_are_deleted() {
    let rig = Rig::start().await;
    let mut other = content();
    other[1_000_000] ^= 1;
    rig.hub.fault(LARGE, [Fault::Content(other)]);
    let message = told(rig.pull().await);
    assert_eq!(message, format!("{LARGE} arrived with another hash than declared; what had arrived was deleted"));
    rig.assert_absent();
    assert!(!rig.part().exists());
    rig.pull().await.unwrap();
    rig.assert_installed();
}

#[tokio::test]
async fn a_small_file_is_checked_as_git_knows_it() {
    let rig = Rig::start().await;
    rig.hub.fault(SMALL, [Fault::Content(br#"{"_class_name": "EvilPipeline"}"#.to_vec())]);
    assert!(told(rig.pull().await).starts_with("model_index.json arrived with another hash"));
    rig.assert_absent();
}

#[tokio::test]
async fn a_wrong_size_is_refused() {
    for fault in [
        Fault::Content(content()[..5000].to_vec()),
        Fault::Content([content(), vec![0; 10]].concat()),
        Fault::Length(99),
    ] {
        let rig = Rig::start().await;
        rig.hub.fault(LARGE, [fault]);
        let message = told(rig.pull().await);
        assert!(message.starts_with(&format!("{LARGE} arrived with another size")), "{message}");
        rig.assert_absent();
    }
}

#[tokio::test]
async fn a_server_that_knows_no_ranges_sends_it_all_again() {
    let rig = Rig::start().await;
    rig.hub.fault(LARGE, [Fault::BreakAfter(200_000), Fault::IgnoreRange]);
    let log = rig.pull().await.unwrap();
    rig.assert_installed();
    assert!(log.holds("from the beginning"));
    assert_eq!(rig.hub.n_sent(LARGE), 200_000 + content().len());
}

#[tokio::test]
async fn a_part_of_another_copy_is_started_over() {
    let mut rig = Rig::start().await;
    rig.patience.attempts = 1;
    rig.hub.etag(REPOSITORY, LARGE, "\"first\"");
    rig.hub.fault(LARGE, [Fault::BreakAfter(200_000)]);
    assert!(rig.pull().await.is_err());
    rig.hub.etag(REPOSITORY, LARGE, "\"second\"");
    let log = rig.pull().await.unwrap();
    rig.assert_installed();
    assert!(log.holds("from the beginning"));
    let last = rig.hub.asked_for(LARGE).pop().unwrap();
    assert_eq!((last.header("if-range"), last.n_sent), (Some("\"first\""), content().len()));
}

#[tokio::test]
async fn a_tag_that_is_weak_asks_nothing_and_its_change_is_seen() {
    let mut rig = Rig::start().await;
    rig.patience.attempts = 1;
    rig.hub.etag(REPOSITORY, LARGE, "W/\"first\"");
    rig.hub.fault(LARGE, [Fault::BreakAfter(200_000)]);
    assert!(rig.pull().await.is_err());
    rig.hub.etag(REPOSITORY, LARGE, "W/\"second\"");
    let log = rig.pull().await.unwrap();
    rig.assert_installed();
    assert!(log.holds("changed since"));
    assert!(rig.hub.asked_for(LARGE).iter().all(|asked| asked.header("if-range").is_none()));
}

#[tokio::test]
async fn the_wrong_rest_is_not_taken() {
    let rig = Rig::start().await;
    rig.hub.fault(LARGE, [Fault::BreakAfter(200_000), Fault::OtherRange]);
    let log = rig.pull().await.unwrap();
    rig.assert_installed();
    assert!(log.holds("another part"));
}

#[tokio::test]
async fn a_hub_that_contradicts_its_list_is_not_believed() {
    let rig = Rig::start().await;
    rig.hub.fault(LARGE, [Fault::LinkedEtag("f".repeat(64))]);
    assert!(told(rig.pull().await).contains("another content of vae/model.safetensors than a moment ago"));
    rig.assert_absent();
}

#[tokio::test]
async fn content_that_this_version_knows_is_compared_before_anything_is_fetched() {
    let rig = Rig::start().await;
    let known = |bytes, sha256: Option<String>| {
        let mut source = source();
        source.known.push(hub::registry::KnownFile { path: LARGE.to_owned(), bytes, sha256 });
        source
    };
    let right = testkit::model_hub::sha256(&content());
    let n_bytes = content().len() as u64;
    let downloader = rig.downloader();
    let plan = async |source| downloader.plan(&model(), &source, None).await;
    assert!(plan(known(Some(n_bytes), Some(right.clone()))).await.is_ok());
    assert!(told(plan(known(Some(n_bytes + 1), None)).await).contains("another size of vae/model.safetensors"));
    let wrong = known(None, Some("0".repeat(64)));
    assert!(told(plan(wrong.clone()).await).contains("another hash of vae/model.safetensors"));
    let elsewhere = downloader.plan(&model(), &wrong, Some("a-branch")).await;
    assert!(elsewhere.is_ok(), "what is known holds for the registry's revision alone");
}

#[tokio::test]
async fn files_of_no_bytes_and_of_one_content_are_files() {
    let rig = Rig::start().await;
    for path in ["vae/empty.safetensors", "vae/void.safetensors"] {
        rig.hub.small(REPOSITORY, path, "");
    }
    rig.hub.large(REPOSITORY, "vae/twin.safetensors", content());
    rig.pull().await.unwrap();
    rig.assert_installed();
    assert_eq!(std::fs::metadata(rig.folder().join("vae/void.safetensors")).unwrap().len(), 0);
    assert_eq!(std::fs::read(rig.folder().join("vae/twin.safetensors")).unwrap(), content());
}

#[tokio::test]
async fn many_files_come_at_once() {
    let hub = ModelHub::start().await;
    let rig = Rig { hub, ..Rig::start().await };
    rig.hub.small(REPOSITORY, SMALL, "{}");
    rig.hub.large(REPOSITORY, LARGE, content());
    for number in 0..30 {
        rig.hub.large(REPOSITORY, &format!("vae/{number}.safetensors"), vec![number; 10_000 + usize::from(number)]);
    }
    let log = rig.pull().await.unwrap();
    assert_eq!(log.n_from(Origin::Network), 32);
    rig.assert_installed();
}
