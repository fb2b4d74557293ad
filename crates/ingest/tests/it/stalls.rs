//! A server that takes its time takes none of ours.

use super::server::{Server, Step, ok, with_headers};
use super::{Script, fetcher, png, policy};
use ingest::{FetchError, FetchPolicy, Fetcher};
use std::time::{Duration, Instant};

const FOREVER: Duration = Duration::from_secs(3600);

async fn timed_out(script: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static) {
    let server = Server::start(script).await;
    let begun = Instant::now();
    assert_eq!(fetcher().fetch(&server.url("/")).await, Err(FetchError::TimedOut(1)));
    let taken = begun.elapsed();
    assert!(taken >= Duration::from_millis(1400) && taken < Duration::from_secs(5), "{taken:?}");
}

#[tokio::test]
async fn a_server_that_never_answers() {
    timed_out(|_| vec![Step::Wait(FOREVER)]).await;
}

#[tokio::test]
async fn a_server_that_stops_within_its_headers() {
    timed_out(|_| vec![Step::Send(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()), Step::Wait(FOREVER)]).await;
}

#[tokio::test]
async fn a_server_that_stops_within_its_body() {
    timed_out(|_| {
        let answer = ok(&png());
        vec![Step::Send(answer[..answer.len() / 2].to_vec()), Step::Wait(FOREVER)]
    })
    .await;
}

#[tokio::test]
async fn a_server_that_drips() {
    timed_out(|_| {
        let drip = |byte: u8| [Step::Send(vec![byte]), Step::Wait(Duration::from_millis(50))];
        ok(&png()).into_iter().flat_map(drip).collect()
    })
    .await;
}

#[tokio::test]
async fn slow_redirects_share_one_limit() {
    let server = Server::start(|_| {
        let answer = with_headers(302, "Location: /again\r\nContent-Length: 0\r\n", b"");
        vec![Step::Wait(Duration::from_millis(600)), Step::Send(answer)]
    })
    .await;
    assert_eq!(fetcher().fetch(&server.url("/")).await, Err(FetchError::TimedOut(1)));
    assert_eq!(server.n_requests(), 3);
}

#[tokio::test]
async fn an_address_that_swallows_packets_costs_no_more_than_the_connecting_limit() {
    // A full backlog answers no more handshakes.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    for _ in 0..4 {
        let connecting = tokio::net::TcpStream::connect(address);
        waiting.push(tokio::time::timeout(Duration::from_millis(100), connecting).await);
    }
    let begun = Instant::now();
    assert_eq!(fetcher().fetch(&format!("http://{address}/")).await, Err(FetchError::Connect));
    let taken = begun.elapsed();
    assert!(taken >= Duration::from_millis(450) && taken < Duration::from_millis(1400), "{taken:?}");
}

#[tokio::test]
async fn a_name_server_that_never_answers() {
    struct Silent;
    #[async_trait::async_trait]
    impl ingest::Resolver for Silent {
        async fn resolve(&self, _host: &str) -> std::io::Result<Vec<std::net::IpAddr>> {
            std::future::pending().await
        }
    }
    let fetcher = Fetcher::with_resolver(policy(), std::sync::Arc::new(Silent)).unwrap();
    assert_eq!(fetcher.fetch("http://pictures.test/").await, Err(FetchError::TimedOut(1)));
}

#[tokio::test]
async fn an_answer_in_time_is_taken_with_many_addresses_and_the_first_dead() {
    let server = Server::answering(ok(&png())).await;
    let policy = FetchPolicy { allowed_sources: vec![ingest::IpRange::parse("127.0.0.0/8").unwrap()], ..policy() };
    // Nothing listens on the first.
    let names = Script::new(&[&["127.0.0.9", "127.0.0.1"]]);
    let fetcher = Fetcher::with_resolver(policy, names).unwrap();
    assert!(fetcher.fetch(&server.url_at("pictures.test", "/")).await.is_ok());
}
