//! Names: looked up once a hop, every address checked, the checked one connected to.

use super::server::{Server, Step, ok, redirect};
use super::{Script, png, policy};
use ingest::{FetchError, FetchPolicy, Fetcher};

#[tokio::test]
async fn a_name_is_looked_up_once_and_its_address_is_pinned() {
    let server = Server::answering(ok(&png())).await;
    // What follows the check is never asked for, so it cannot lead elsewhere.
    let names = Script::new(&[&["127.0.0.1"], &["127.0.0.2"]]);
    let fetcher = Fetcher::with_resolver(policy(), names.clone()).unwrap();
    let fetched = fetcher.fetch(&server.url_at("pictures.test", "/a.png")).await.unwrap();
    assert_eq!(fetched.bytes, png());
    assert_eq!(names.n_asked(), 1);
    assert!(server.heads()[0].contains(&format!("host: pictures.test:{}\r\n", server.address.port())));
}

#[tokio::test]
async fn a_name_that_moves_between_two_hops_is_refused() {
    let server = Server::answering(redirect("/again")).await;
    let names = Script::new(&[&["127.0.0.1"], &["10.0.0.7"]]);
    let fetcher = Fetcher::with_resolver(policy(), names.clone()).unwrap();
    let error = fetcher.fetch(&server.url_at("pictures.test", "/")).await.unwrap_err();
    assert_eq!(error, FetchError::UnusableHost);
    assert_eq!((names.n_asked(), server.n_requests()), (2, 1));
}

#[tokio::test]
async fn a_name_with_one_forbidden_address_is_refused_whole() {
    let server = Server::answering(ok(&png())).await;
    let public_only = FetchPolicy { allowed_sources: Vec::new(), ..policy() };
    for addresses in
        [&["1.1.1.1", "127.0.0.1"][..], &["127.0.0.1"], &["::1"], &["::ffff:127.0.0.1"], &["169.254.169.254"]]
    {
        let fetcher = Fetcher::with_resolver(public_only.clone(), Script::new(&[addresses])).unwrap();
        let error = fetcher.fetch(&server.url_at("pictures.test", "/")).await.unwrap_err();
        assert_eq!(error, FetchError::UnusableHost, "{addresses:?}");
    }
    assert_eq!(server.n_requests(), 0);
}

#[tokio::test]
async fn an_unknown_name_and_a_forbidden_one_are_told_in_the_same_words() {
    let unknown = Fetcher::with_resolver(policy(), Script::new(&[])).unwrap();
    let forbidden = Fetcher::with_resolver(policy(), Script::new(&[&["10.1.2.3"]])).unwrap();
    let unknown = unknown.fetch("http://intranet.corp/").await.unwrap_err();
    let forbidden = forbidden.fetch("http://intranet.corp/").await.unwrap_err();
    assert_eq!(unknown.to_string(), forbidden.to_string());
    assert!(!forbidden.fault("image").detail.contains("10.1.2.3"));
}

#[tokio::test]
async fn localhost_is_refused_and_opened_like_its_address() {
    let server = Server::answering(ok(&png())).await;
    let closed = Fetcher::new(FetchPolicy { allowed_sources: Vec::new(), ..policy() }).unwrap();
    assert_eq!(closed.fetch(&server.url_at("localhost", "/")).await, Err(FetchError::UnusableHost));
    assert_eq!(closed.fetch(&server.url_at("LOCALHOST.", "/")).await, Err(FetchError::UnusableHost));
    assert_eq!(closed.fetch(&server.url("/")).await, Err(FetchError::ForbiddenAddress));
    assert_eq!(server.n_requests(), 0);
    let open = Fetcher::new(policy()).unwrap();
    assert!(open.fetch(&server.url_at("localhost", "/")).await.is_ok());
}

#[tokio::test]
async fn a_closed_port_where_one_may_look_could_not_be_connected_to() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    assert_eq!(super::fetcher().fetch(&url).await, Err(FetchError::Connect));
}

#[tokio::test]
async fn an_open_and_a_closed_port_where_one_may_not_look_are_the_same() {
    let server = Server::start(|_| vec![Step::Send(ok(&png()))]).await;
    let closed = Fetcher::new(FetchPolicy { allowed_sources: Vec::new(), ..policy() }).unwrap();
    let open_port = closed.fetch(&server.url("/")).await.unwrap_err();
    let closed_port = closed.fetch("http://127.0.0.1:1/").await.unwrap_err();
    let other_port = closed.fetch("http://127.0.0.1:65000/").await.unwrap_err();
    assert_eq!(open_port, other_port);
    assert_eq!(closed_port, FetchError::Port(1));
    assert_eq!(server.n_requests(), 0);
}
