//! Every hop is checked as if it were the first.

use super::server::{Server, Step, ok, redirect, with_headers};
use super::{fetcher, png, policy};
use ingest::{FetchError, Fetcher};

/// `/n` redirects to `/n-1`, `/0` is the picture.
async fn countdown() -> Server {
    Server::start(|path| {
        let left: u32 = path[1..].parse().unwrap();
        let bytes = if left == 0 { ok(&png()) } else { redirect(&format!("/{}", left - 1)) };
        vec![Step::Send(bytes)]
    })
    .await
}

#[tokio::test]
async fn three_redirects_are_followed_and_a_fourth_is_not() {
    let server = countdown().await;
    assert_eq!(fetcher().fetch(&server.url("/3")).await.unwrap().bytes, png());
    assert_eq!(server.n_requests(), 4);
    assert_eq!(fetcher().fetch(&server.url("/4")).await, Err(FetchError::TooManyRedirects(3)));
    assert_eq!(server.n_requests(), 8);
}

#[tokio::test]
async fn a_loop_ends() {
    let server = Server::answering(redirect("/again")).await;
    assert_eq!(fetcher().fetch(&server.url("/")).await, Err(FetchError::TooManyRedirects(3)));
}

#[tokio::test]
async fn a_redirect_to_where_one_may_not_go_is_refused() {
    let private = [
        "http://127.0.0.2/",
        "http://10.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]/",
        "http://2130706434/",
        "http://[::ffff:127.0.0.1]/",
        "//192.168.0.1/x.png",
    ];
    for location in private {
        let server = Server::answering(redirect(location)).await;
        assert_eq!(fetcher().fetch(&server.url("/")).await, Err(FetchError::ForbiddenAddress), "{location}");
        assert_eq!(server.n_requests(), 1, "{location}");
    }
}

#[tokio::test]
async fn a_redirect_to_what_is_no_picture_place_is_refused() {
    let cases = [
        ("file:///etc/passwd", FetchError::Scheme("file".into())),
        ("data:image/png;base64,AAAA", FetchError::Scheme("data".into())),
        ("http://user:word@127.0.0.1:9999/", FetchError::Credentials),
        ("http://127.0.0.1:22/", FetchError::Port(22)),
        ("http://[", FetchError::BadRedirect),
    ];
    for (location, expected) in cases {
        let server = Server::answering(redirect(location)).await;
        assert_eq!(fetcher().fetch(&server.url("/")).await, Err(expected), "{location}");
    }
}

#[tokio::test]
async fn a_redirect_to_nowhere_is_refused() {
    let server = Server::answering(with_headers(301, "Content-Length: 0\r\n", b"")).await;
    assert_eq!(fetcher().fetch(&server.url("/")).await, Err(FetchError::BadRedirect));
}

#[tokio::test]
async fn without_redirects_allowed_none_is_followed() {
    let server = countdown().await;
    let fetcher = Fetcher::new(ingest::FetchPolicy { redirects_max: 0, ..policy() }).unwrap();
    assert_eq!(fetcher.fetch(&server.url("/1")).await, Err(FetchError::TooManyRedirects(0)));
    assert!(fetcher.fetch(&server.url("/0")).await.is_ok());
}
