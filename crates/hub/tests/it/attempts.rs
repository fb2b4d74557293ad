//! A hub that is busy, slow or silent is asked again, as often and as late as it says, and not forever.

use super::{LARGE, Rig, told};
use std::time::{Duration, Instant};
use testkit::model_hub::Fault;

#[tokio::test]
async fn a_hub_that_is_busy_is_asked_again_when_it_says() {
    let rig = Rig::start().await;
    rig.hub.fault(LARGE, [Fault::Status(429, "Retry-After: 1\r\n")]);
    let begun = Instant::now();
    let log = rig.pull().await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(log.holds("wait: 1s"));
    rig.assert_installed();
}

#[tokio::test]
async fn a_wait_that_is_too_long_is_told_instead() {
    let rig = Rig::start().await;
    rig.hub.fault(LARGE, [Fault::Status(503, "Retry-After: 4000\r\n")]);
    assert!(told(rig.pull().await).contains("asks to wait 4000 s"));
}

#[tokio::test]
async fn errors_of_the_server_pass_or_end_the_pull() {
    for status in [500, 502, 503, 504] {
        let rig = Rig::start().await;
        rig.hub.fault(LARGE, [Fault::Status(status, ""), Fault::Status(status, "")]);
        rig.hub.fault("revision", [Fault::Status(status, "")]);
        rig.hub.fault("tree", [Fault::Status(status, "")]);
        rig.pull().await.unwrap();
        rig.assert_installed();
    }
    let rig = Rig::start().await;
    rig.hub.fault(LARGE, vec![Fault::Status(500, ""); 3]);
    assert!(told(rig.pull().await).contains("answers with status 500"));
    assert_eq!(rig.hub.asked_for(LARGE).iter().filter(|asked| asked.of_cdn).count(), 3, "as many as attempts");
}

#[tokio::test]
async fn a_refusal_is_not_repeated() {
    let rig = Rig::start().await;
    rig.hub.fault(LARGE, [Fault::Status(410, "")]);
    assert!(told(rig.pull().await).contains("status 410"));
    assert_eq!(rig.hub.asked_for(LARGE).iter().filter(|asked| asked.of_cdn).count(), 1);
}

#[tokio::test]
async fn a_body_that_stops_is_given_up_and_gone_on_with() {
    let rig = Rig::start().await;
    rig.hub.fault(LARGE, [Fault::StallAfter(400_000)]);
    let begun = Instant::now();
    let log = rig.pull().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(log.holds("took too long") && log.holds("Begin { have: 400000 }"));
    rig.assert_installed();
}

#[tokio::test]
async fn a_body_that_trickles_is_given_up() {
    let rig = Rig::start().await;
    rig.hub.fault(LARGE, vec![Fault::Trickle; 3]);
    let begun = Instant::now();
    let outcome = tokio::time::timeout(Duration::from_secs(20), rig.pull()).await;
    assert!(told(outcome.expect("it is given up")).contains("took too long"));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_machine_without_a_network_is_told_so() {
    let mut rig = Rig::start().await;
    // Nobody listens there any more.
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    rig.hub.address = gone;
    let message = told(rig.pull().await);
    assert_eq!(message, format!("{gone} cannot be reached; is this machine online?"));
}
