//! What goes wrong with a call: what is tried again, what is not, and in which words.

use crate::support::{Steps, config, paint, paint_watched, plan, refused};
use engine::EngineError;
use providers::ideogram::{ApiKey, Backoff, BaseUrl, IdeogramConfig};
use std::time::{Duration, Instant};
use testkit::ideogram::{IdeogramServer, Turn, error_answer, json_answer};
use testkit::pictures::http_answer;

/// Fails in this way although the server would paint next, after one call alone.
async fn is_final(turn: Turn) -> EngineError {
    let server = IdeogramServer::start().await;
    server.next([turn]);
    let error = refused(paint(config(&server), plan()).await);
    assert_eq!(server.calls().len(), 1, "asked again after: {error}");
    error
}

#[tokio::test]
async fn a_call_that_was_turned_away_is_tried_again() {
    for status in ["429 Too Many Requests", "500 Internal Server Error", "502 Bad Gateway", "503 Service Unavailable"] {
        let server = IdeogramServer::start().await;
        server.next([Turn::Say(error_answer(status, "")), Turn::Say(error_answer(status, ""))]);
        assert_eq!(paint(config(&server), plan()).await.unwrap().images.len(), 1, "{status}");
        let calls = server.calls();
        assert_eq!(calls.len(), 3);
        assert_eq!(calls[0].parts, calls[2].parts, "the same request each time");
    }
}

#[tokio::test]
async fn tries_are_counted_and_the_last_error_told() {
    let server = IdeogramServer::start().await;
    server.next(vec![Turn::Say(error_answer("429 Too Many Requests", "")); 9]);
    let error = refused(paint(config(&server), plan()).await);
    assert!(matches!(&error, EngineError::Failed(why) if why.contains("429") && why.contains("4 times")), "{error}");
    assert_eq!(server.calls().len(), 4);
}

#[tokio::test]
async fn retry_after_is_obeyed_up_to_a_limit() {
    let server = IdeogramServer::start().await;
    server.next([Turn::Say(error_answer("429 Too Many Requests", "retry-after: 1\r\n"))]);
    let begun = Instant::now();
    paint(config(&server), plan()).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());

    server.next([Turn::Say(error_answer("503 Service Unavailable", "retry-after: 86400\r\n"))]);
    let usual = config(&server);
    let backoff = Backoff { asked_max: Duration::from_millis(300), ..usual.backoff };
    let begun = Instant::now();
    paint(IdeogramConfig { backoff, ..usual }, plan()).await.unwrap();
    assert!((0.3..5.0).contains(&begun.elapsed().as_secs_f64()), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_refusal_for_safety_says_so_and_is_final() {
    let body = serde_json::json!({"error": "a harbor at dusk is not allowed"});
    let error = is_final(Turn::Say(json_answer("422 Unprocessable Entity", &body))).await;
    assert!(matches!(&error, EngineError::Unsafe(why) if why.contains("safety check")), "{error}");
}

#[tokio::test]
async fn a_key_that_is_not_accepted_is_for_the_operator_to_mend() {
    let server = IdeogramServer::start().await;
    let config = IdeogramConfig { key: ApiKey::parse("another").unwrap(), ..config(&server) };
    let error = refused(paint(config, plan()).await);
    assert!(matches!(&error, EngineError::Denied(why) if why.contains("401")), "{error}");
    assert_eq!(server.calls().len(), 1);
    for status in ["402 Payment Required", "403 Forbidden"] {
        let error = is_final(Turn::Say(error_answer(status, ""))).await;
        assert!(matches!(error, EngineError::Denied(_)), "{error}");
    }
}

#[tokio::test]
async fn the_key_does_not_follow_a_redirect() {
    let other = IdeogramServer::start().await;
    let location = format!("location: {}/v1/ideogram-v3/remix\r\n", other.url());
    let error = is_final(Turn::Say(error_answer("307 Temporary Redirect", &location))).await;
    assert!(matches!(&error, EngineError::Denied(why) if why.contains("not followed")), "{error}");
    assert!(other.calls().is_empty());
}

#[tokio::test]
async fn a_request_that_is_wrong_is_not_repeated() {
    for status in ["400 Bad Request", "404 Not Found", "413 Payload Too Large"] {
        let error = is_final(Turn::Say(error_answer(status, ""))).await;
        assert!(matches!(&error, EngineError::Refused(why) if why.contains(&status[..3])), "{error}");
    }
}

#[tokio::test]
async fn what_may_have_been_charged_is_not_asked_again() {
    let painted = serde_json::json!({"created": "x", "data": [{"is_image_safe": true, "url": "http://127.0.0.1/a"}]});
    let whole = json_answer("200 OK", &painted);
    let half = whole[..whole.len() - 20].to_vec();
    let cases = [
        ("silence and the end", Turn::Say(Vec::new()), "before an answer"),
        ("half a head", Turn::Say(whole[..12].to_vec()), "before an answer"),
        ("half a body", Turn::Say(half), "within the answer"),
        ("no HTTP", Turn::Say(b"hello\r\n\r\n".to_vec()), "before an answer"),
        ("a page", Turn::Say(http_answer("200 OK", "text/html", b"<html>")), "no JSON"),
        ("JSON by another name", Turn::Say(http_answer("200 OK", "image/png", b"{}")), "no JSON"),
        ("broken JSON", Turn::Say(http_answer("200 OK", "application/json", b"{\"data\": [")), "cannot be read"),
        ("other JSON", Turn::Say(json_answer("200 OK", &serde_json::json!({"data": 5}))), "cannot be read"),
        ("too much", Turn::Say(http_answer("200 OK", "application/json", &vec![b' '; (1 << 20) + 1])), "too large"),
        ("a gateway without patience", Turn::Say(error_answer("504 Gateway Timeout", "")), "504"),
        ("accepted, no more", Turn::Say(error_answer("202 Accepted", "")), "202"),
        ("no picture", Turn::Link(Vec::new()), "0 pictures instead of 1"),
    ];
    for (name, turn, why) in cases {
        let error = is_final(turn).await;
        assert!(matches!(&error, EngineError::Lost(told) if told.contains(why)), "{name}: {error}");
    }
}

#[tokio::test]
async fn silence_ends_after_the_limit_of_one_call() {
    let server = IdeogramServer::start().await;
    server.next([Turn::PaintAfter(Duration::from_secs(30))]);
    let config = IdeogramConfig { call_time_max: Duration::from_millis(1200), ..config(&server) };
    let begun = Instant::now();
    let error = refused(paint(config, plan()).await);
    assert!(matches!(&error, EngineError::Lost(why) if why.contains("within 1 s")), "{error}");
    assert!((1.2..5.0).contains(&begun.elapsed().as_secs_f64()), "{:?}", begun.elapsed());
    assert_eq!(server.calls().len(), 1);
}

/// Of a request that is larger than all that systems keep for a connection, whether anybody reads it or not.
fn large_plan() -> engine::Plan {
    engine::Plan { negative_prompt: Some("fog ".repeat(8 << 20)), ..plan() }
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_request_has_left_is_made_again() {
    let server = IdeogramServer::start().await;
    server.next([Turn::HangUpAfter(1000), Turn::HangUpAfter(0)]);
    assert_eq!(paint(config(&server), large_plan()).await.unwrap().images.len(), 1);
    assert_eq!(server.calls().len(), 3);
}

#[tokio::test]
async fn a_host_that_cannot_be_reached_is_tried_and_told() {
    let server = IdeogramServer::start().await;
    let closed = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    for (url, why) in [
        (format!("http://{closed}"), "could not connect"),
        (format!("https://{}", server.address), "could not connect"),
        ("http://nowhere.invalid".to_owned(), "leads to no address"),
    ] {
        let config = IdeogramConfig { base_url: BaseUrl::parse(&url).unwrap(), ..config(&server) };
        let error = refused(paint(config, plan()).await);
        assert!(
            matches!(&error, EngineError::Failed(told) if told.contains(why) && told.contains("4 times")),
            "{error}"
        );
    }
    assert!(server.calls().is_empty());
}

#[tokio::test]
async fn whoever_asks_to_stop_is_heard_at_each_step_and_while_waiting() {
    let server = IdeogramServer::start().await;
    for stop_after in 1..=2 {
        let steps = Steps { stop_after: Some(stop_after), ..Steps::default() };
        let (outcome, steps) = paint_watched(config(&server), plan(), steps).await;
        assert!(matches!(refused(outcome), EngineError::Cancelled));
        assert_eq!(steps.told.len(), stop_after);
    }
    assert_eq!(server.calls().len(), 1, "the first stop came before the call");
    assert_eq!(server.n_results_served(), 0);

    server.next([Turn::PaintAfter(Duration::from_secs(4))]);
    let begun = Instant::now();
    let steps = Steps { stop_within: Some(1), ..Steps::default() };
    assert!(matches!(refused(paint_watched(config(&server), plan(), steps).await.0), EngineError::Cancelled));
    server.next([Turn::Say(error_answer("429 Too Many Requests", "retry-after: 4\r\n"))]);
    let steps = Steps { stop_within: Some(1), ..Steps::default() };
    assert!(matches!(refused(paint_watched(config(&server), plan(), steps).await.0), EngineError::Cancelled));
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}
