//! Who is let in, and who gets to see the token.

use super::{LARGE, REPOSITORY, Rig, told};

const TOKEN: &str = "hf_the_secret";

#[tokio::test]
async fn a_gated_repository_asks_for_the_licence_and_a_token() {
    let rig = Rig::start().await;
    rig.hub.gate(REPOSITORY, TOKEN, true);
    let page = format!("{}/{REPOSITORY}", rig.hub.url());
    let message = told(rig.pull().await);
    assert_eq!(
        message,
        format!("owner/name is gated: accept its licence at {page}, then set HF_TOKEN to a token of that account")
    );
    rig.assert_absent();
}

#[tokio::test]
async fn a_token_that_nobody_knows_is_told_from_one_without_access() {
    let mut rig = Rig::start().await;
    rig.hub.gate(REPOSITORY, TOKEN, false);
    rig.token = Some("hf_another");
    assert!(told(rig.pull().await).ends_with("does not accept the token in HF_TOKEN"));
    rig.token = Some(TOKEN);
    let message = told(rig.pull().await);
    assert!(message.contains("is gated, and the account of HF_TOKEN may not have it: accept the licence at http://"));
    rig.hub.gate(REPOSITORY, TOKEN, true);
    rig.pull().await.unwrap();
    rig.assert_installed();
}

#[tokio::test]
async fn the_token_goes_to_the_hub_and_to_nobody_else() {
    let mut rig = Rig::start().await;
    rig.token = Some(TOKEN);
    rig.hub.gate(REPOSITORY, TOKEN, true);
    rig.pull().await.unwrap();
    let asked = rig.hub.asked();
    assert!(asked.iter().any(|asked| asked.of_cdn) && asked.iter().any(|asked| !asked.of_cdn));
    for asked in asked {
        let expect = (!asked.of_cdn).then(|| format!("Bearer {TOKEN}"));
        assert_eq!(asked.header("authorization"), expect.as_deref(), "{}", asked.path);
        assert!(!asked.path.contains(TOKEN));
        let is_elsewhere = |(name, value): &(String, String)| name != "authorization" && value.contains(TOKEN);
        assert!(!asked.headers.iter().any(is_elsewhere));
    }
}

#[tokio::test]
async fn a_repository_or_a_file_that_is_not_there_is_named() {
    let rig = Rig::start().await;
    let (downloader, model) = (rig.downloader(), super::model());
    let elsewhere = hub::registry::Source { repository: "owner/nothing".to_owned(), ..super::source() };
    let message = told(downloader.plan(&model, &elsewhere, None).await);
    assert!(message.contains("has no repository owner/nothing, or it is private"), "{message}");
    let plan = rig.plan().await.unwrap();
    let mut other = plan.clone();
    other.files[0].path = "vae/gone.safetensors".to_owned();
    let message = told(downloader.pull(&other, &rig.weights(), &hub::download::Silent).await);
    assert!(message.contains("has no file vae/gone.safetensors in owner/name"), "{message}");
    assert!(rig.hub.n_sent(LARGE) <= super::content().len());
}
