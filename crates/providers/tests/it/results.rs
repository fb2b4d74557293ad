//! The links of an answer: a stranger's, however well we know who sent them.

use crate::support::{config, paint, plan, refused};
use domain::quantity::Size;
use engine::{EngineError, Output, Plan};
use ingest::FetchPolicy;
use providers::ideogram::IdeogramConfig;
use testkit::ideogram::{IdeogramServer, Turn, error_answer};
use testkit::pictures::{http_answer, png};

/// What becomes of a link that answers so, each answer in its turn.
async fn linked(answers: Vec<Vec<u8>>) -> (Result<Output, EngineError>, usize) {
    let server = IdeogramServer::start().await;
    let link = server.serve("/result", answers);
    server.next([Turn::Link(vec![Some(link)])]);
    let outcome = paint(config(&server), plan()).await;
    assert_eq!(server.calls().len(), 1, "a call that was paid for is not repeated for a link");
    (outcome, server.n_results_served())
}

#[tokio::test]
async fn a_picture_of_any_type_and_size_comes_as_asked() {
    let server = IdeogramServer::start().await;
    let picture = imaging::Picture::filled(Size::new(1000, 900), [9, 99, 199]);
    let metadata = imaging::Metadata { software: "x".to_owned(), model: "x".to_owned(), seed: None };
    let jpeg = imaging::encode(&picture, domain::request::OutputFormat::Jpeg, &metadata).unwrap();
    let links = vec![
        Some(server.serve("/a", [http_answer("200 OK", "application/octet-stream", &jpeg)])),
        Some(server.serve("/b", [http_answer("200 OK", "image/webp", &png(Size::new(64, 64)))])),
    ];
    server.next([Turn::Link(links)]);
    let output = paint(config(&server), Plan { batch: 2, ..plan() }).await.unwrap();
    assert!(output.images.iter().all(|image| image.size() == Size::new(1024, 1024)));
    let first = &output.images[0].pixels()[..3];
    assert!(
        first.iter().zip([9_i32, 99, 199]).all(|(value, expect)| (i32::from(*value) - expect).abs() < 4),
        "in order"
    );
}

#[tokio::test]
async fn a_link_that_stumbles_is_asked_again() {
    let good = http_answer("200 OK", "image/png", &png(Size::new(64, 64)));
    for stumble in [error_answer("503 Service Unavailable", ""), error_answer("429 Too Many", ""), good[..200].to_vec()]
    {
        let (outcome, n_served) = linked(vec![stumble, good.clone()]).await;
        assert_eq!((outcome.unwrap().images.len(), n_served), (1, 2));
    }
}

#[tokio::test]
async fn what_is_no_picture_is_lost_and_told() {
    let broken = png(Size::new(64, 64));
    let cases = [
        (error_answer("404 Not Found", ""), "status 404", 1),
        (error_answer("403 Forbidden", ""), "status 403", 1),
        (error_answer("500 Oops", ""), "status 500", 4),
        (http_answer("200 OK", "image/png", b"<html>this is no picture at all</html>"), "not an image", 1),
        (http_answer("200 OK", "image/png", &broken[..broken.len() / 2]), "cannot be read", 1),
        (error_answer("302 Found", "location: file:///etc/passwd\r\n"), "scheme is file", 1),
    ];
    for (answer, why, n_asked) in cases {
        let (outcome, n_served) = linked(vec![answer]).await;
        let error = refused(outcome);
        assert!(matches!(&error, EngineError::Lost(told) if told.contains(why)), "{why}: {error}");
        assert_eq!(n_served, n_asked, "{why}");
    }
}

#[tokio::test]
async fn a_picture_over_the_limit_is_lost() {
    let server = IdeogramServer::start().await;
    let link = server.serve("/large", [http_answer("200 OK", "image/png", &png(Size::new(512, 512)))]);
    server.next([Turn::Link(vec![Some(link)])]);
    let usual = config(&server);
    let results = FetchPolicy { bytes_max: 500, ..usual.results };
    let error = refused(paint(IdeogramConfig { results, ..usual }, plan()).await);
    assert!(matches!(&error, EngineError::Lost(told) if told.contains("more than 500 bytes")), "{error}");
}

#[tokio::test]
async fn a_link_into_a_private_network_is_not_followed() {
    let server = IdeogramServer::start().await;
    let inside = server.serve("/inside", [http_answer("200 OK", "image/png", &png(Size::new(8, 8)))]);
    let by_name = inside.replace("127.0.0.1", "localhost");
    let redirect = error_answer("302 Found", "location: http://10.0.0.1/\r\n");
    let redirecting = server.serve("/redirecting", [redirect]);
    // As in earnest: nothing is opened, so that even loopback is another network.
    let closed = IdeogramConfig { results: FetchPolicy::default(), ..config(&server) };
    for (link, config) in [
        (inside, closed.clone()),
        (
            by_name,
            IdeogramConfig { backoff: providers::ideogram::Backoff { tries_max: 1, ..closed.backoff }, ..closed },
        ),
        (redirecting, config(&server)),
    ] {
        let n_served = server.n_results_served();
        server.next([Turn::Link(vec![Some(link.clone())])]);
        let error = refused(paint(config, plan()).await);
        assert!(matches!(&error, EngineError::Lost(told) if told.contains("public addresses")), "{error}");
        assert_eq!(server.n_results_served() - n_served, usize::from(link.ends_with("/redirecting")));
    }
}

#[tokio::test]
async fn a_link_to_nowhere_is_lost() {
    for link in ["", "nonsense", "ftp://example.com/a.png", "http://user:4711@example.com/"] {
        let server = IdeogramServer::start().await;
        server.next([Turn::Link(vec![Some(link.to_owned())])]);
        let error = refused(paint(config(&server), plan()).await);
        assert!(matches!(&error, EngineError::Lost(told) if told.contains("could not be fetched")), "{link}: {error}");
    }
}
