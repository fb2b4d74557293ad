//! Lies about length, type, encoding and status.

use super::server::{Server, Step, ok, with_headers};
use super::{fetcher, png, policy};
use domain::fault::ErrorCode;
use imaging::{Format, ImageError};
use ingest::{FetchError, FetchPolicy, Fetcher};

async fn fetched(answer: Vec<u8>) -> Result<ingest::Fetched, FetchError> {
    let server = Server::answering(answer).await;
    fetcher().fetch(&server.url("/picture")).await
}

#[tokio::test]
async fn a_picture_is_fetched_whatever_type_it_is_said_to_be() {
    let answer = ok(&png());
    let answer = String::from_utf8_lossy(&answer[..60]).replace("image/png", "text/xml!").into_bytes();
    let answer = [answer, ok(&png())[60..].to_vec()].concat();
    let fetched = fetched(answer).await.unwrap();
    assert_eq!((fetched.header.format, fetched.header.size.width), (Format::Png, 40));
    assert_eq!(fetched.bytes, png());
}

#[tokio::test]
async fn the_request_asks_for_an_unencoded_image_and_tells_nothing_else() {
    let server = Server::answering(ok(&png())).await;
    fetcher().fetch(&server.url("/a/b?c=d#secret")).await.unwrap();
    let head = server.heads()[0].to_ascii_lowercase();
    assert!(head.starts_with("get /a/b?c=d http/1.1\r\n"), "{head}");
    assert!(head.contains("accept-encoding: identity\r\n"), "{head}");
    let names: Vec<&str> = head.lines().skip(1).filter_map(|line| line.split_once(':')).map(|(name, _)| name).collect();
    assert_eq!(names, ["host", "user-agent", "accept", "accept-encoding", "connection"]);
}

#[tokio::test]
async fn chunks_and_an_end_by_closing_are_read() {
    let body = png();
    let (first, second) = body.split_at(50);
    let chunk = |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    let chunked = [chunk(first), chunk(second), b"0\r\n\r\n".to_vec()].concat();
    assert_eq!(fetched(with_headers(200, "Transfer-Encoding: chunked\r\n", &chunked)).await.unwrap().bytes, png());
    assert_eq!(fetched(with_headers(200, "Connection: close\r\n", &png())).await.unwrap().bytes, png());
}

#[tokio::test]
async fn an_announced_length_over_the_limit_is_refused_before_the_body() {
    let server = Server::start(|_| {
        let head = with_headers(200, "Content-Length: 20971521\r\n", b"");
        vec![Step::Send(head), Step::Wait(std::time::Duration::from_secs(60))]
    })
    .await;
    let error = fetcher().fetch(&server.url("/")).await.unwrap_err();
    assert_eq!(error, FetchError::TooManyBytes(20 << 20));
    assert_eq!(error.fault("image").code, ErrorCode::TooLarge);
}

#[tokio::test]
async fn a_stream_over_the_limit_is_hung_up_on() {
    let small = FetchPolicy { bytes_max: 100_000, ..policy() };
    for headers in ["Connection: close\r\n", "Transfer-Encoding: chunked\r\n"] {
        let chunked = headers.contains("chunked");
        let start =
            if chunked { [b"800\r\n", &png()[..32], &[0; 2016], b"\r\n"].concat() } else { png()[..32].to_vec() };
        let more = if chunked { [&b"400\r\n"[..], &[0; 1024], b"\r\n"].concat() } else { vec![0; 1024] };
        let server = Server::start(move |_| {
            vec![Step::Send(with_headers(200, headers, &start)), Step::SendForever(more.clone())]
        })
        .await;
        let error = Fetcher::new(small.clone()).unwrap().fetch(&server.url("/")).await.unwrap_err();
        assert_eq!(error, FetchError::TooManyBytes(100_000), "{headers}");
        // What the system's buffers took, but no more.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let n_sent = server.n_sent();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert_eq!(server.n_sent(), n_sent, "the connection is still open");
    }
}

#[tokio::test]
async fn the_limit_is_exact() {
    let length = png().len();
    let server = Server::answering(ok(&png())).await;
    let with_limit = |bytes_max| Fetcher::new(FetchPolicy { bytes_max, ..policy() }).unwrap();
    assert!(with_limit(length).fetch(&server.url("/")).await.is_ok());
    let error = with_limit(length - 1).fetch(&server.url("/")).await.unwrap_err();
    assert_eq!(error, FetchError::TooManyBytes(length - 1));
}

#[tokio::test]
async fn a_length_that_promises_more_than_comes_is_an_error() {
    let headers = format!("Content-Length: {}\r\n", png().len() + 10);
    assert_eq!(fetched(with_headers(200, &headers, &png())).await, Err(FetchError::BadAnswer));
}

#[tokio::test]
async fn what_comes_after_the_promised_length_is_not_read() {
    let headers = format!("Content-Length: {}\r\n", png().len());
    let body = [png(), vec![7; 5000]].concat();
    assert_eq!(fetched(with_headers(200, &headers, &body)).await.unwrap().bytes, png());
}

#[tokio::test]
async fn a_malformed_answer_is_an_error() {
    let bad = [
        &b"SSH-2.0-OpenSSH_9.2\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"",
    ];
    for answer in bad {
        assert_eq!(fetched(answer.to_vec()).await, Err(FetchError::BadAnswer), "{}", answer.escape_ascii());
    }
}

#[tokio::test]
async fn too_many_or_too_long_headers_are_an_error() {
    let many = "X-Filler: 1\r\n".repeat(65);
    assert_eq!(fetched(with_headers(200, &many, &png())).await, Err(FetchError::BadAnswer));
    let long = format!("X-Filler: {}\r\n", "a".repeat(200_000));
    assert_eq!(fetched(with_headers(200, &long, &png())).await, Err(FetchError::BadAnswer));
}

#[tokio::test]
async fn an_encoded_body_is_refused_whatever_it_unpacks_to() {
    for encoding in ["gzip", "br", "deflate", "zstd", "x-gzip", "identity, gzip"] {
        let headers = format!("Content-Encoding: {encoding}\r\nContent-Length: {}\r\n", png().len());
        assert_eq!(fetched(with_headers(200, &headers, &png())).await, Err(FetchError::Encoded), "{encoding}");
    }
    let headers = format!("Content-Encoding: Identity\r\nContent-Length: {}\r\n", png().len());
    assert!(fetched(with_headers(200, &headers, &png())).await.is_ok());
    // A gzip stream without a word about it is no image.
    let unsaid = [&[0x1f, 0x8b, 8, 0][..], &[0; 100]].concat();
    assert_eq!(fetched(ok(&unsaid)).await, Err(FetchError::Image(ImageError::Unrecognized)));
}

#[tokio::test]
async fn any_status_but_200_is_an_error() {
    for status in [201, 204, 206, 300, 304, 400, 401, 403, 404, 429, 500, 503] {
        let answer = with_headers(status, "Content-Length: 0\r\n", b"");
        assert_eq!(fetched(answer).await, Err(FetchError::Status(status)));
    }
}

#[tokio::test]
async fn a_page_is_hung_up_on_as_soon_as_it_shows() {
    let server = Server::start(|_| {
        let page = [&b"<!doctype html><title>Not a picture</title>"[..], &[b' '; 64]].concat();
        vec![Step::Send(with_headers(200, "Connection: close\r\n", &page)), Step::SendForever(vec![b' '; 1024])]
    })
    .await;
    let error = fetcher().fetch(&server.url("/")).await.unwrap_err();
    assert_eq!(error, FetchError::Image(ImageError::Unrecognized));
    assert_eq!(error.fault("image").code, ErrorCode::SourceUnavailable);
}

#[tokio::test]
async fn an_empty_body_and_other_files_are_no_pictures() {
    assert_eq!(fetched(ok(b"")).await, Err(FetchError::Image(ImageError::Unrecognized)));
    assert_eq!(fetched(ok(b"\x89PN")).await, Err(FetchError::Image(ImageError::Unrecognized)));
    let pdf = [&b"%PDF-1.7"[..], &[0; 100]].concat();
    assert_eq!(fetched(ok(&pdf)).await, Err(FetchError::Image(ImageError::Unsupported("PDF"))));
}

#[tokio::test]
async fn a_picture_of_too_many_pixels_is_refused_by_its_header() {
    // A GIF needs no checksum to boast.
    let bomb = [&b"GIF89a\xff\xff\xff\xff\0\0\0"[..], &[0; 100]].concat();
    let error = fetched(ok(&bomb)).await.unwrap_err();
    assert!(matches!(error, FetchError::Image(ImageError::TooManyPixels(_))), "{error}");
    assert_eq!(error.fault("image").code, ErrorCode::TooLarge);
}

#[tokio::test]
async fn a_data_uri_is_a_picture_too() {
    use base64::Engine;
    let digits = base64::engine::general_purpose::STANDARD.encode(png());
    let uri = format!("data:text/html;base64,{digits}");
    assert_eq!(fetcher().fetch(&uri).await.unwrap().bytes, png());
    assert_eq!(fetcher().fetch(&uri.replacen("data", "DATA", 1)).await.unwrap().bytes, png());
    let small = Fetcher::new(FetchPolicy { bytes_max: 10, ..policy() }).unwrap();
    assert_eq!(small.fetch(&uri).await, Err(FetchError::TooManyBytes(10)));
    let page = fetcher().fetch("data:image/png,<!doctype html>").await.unwrap_err();
    assert_eq!(page, FetchError::Image(ImageError::Unrecognized));
}

#[tokio::test]
async fn what_was_fetched_is_not_printed() {
    let fetched = fetched(ok(&png())).await.unwrap();
    assert_eq!(format!("{fetched:?}"), format!("Fetched(PNG 40x30, {} bytes)", png().len()));
}

#[tokio::test]
async fn pictures_that_somebody_holds_have_a_limit_together() {
    let server = Server::answering(ok(&png())).await;
    let inline = png().iter().fold("data:image/png,".to_owned(), |uri, byte| uri + &format!("%{byte:02x}"));
    let bytes_together_max = inline.len() + png().len();
    let fetcher = Fetcher::new(FetchPolicy { bytes_together_max, ..policy() }).unwrap();
    let first = fetcher.fetch(&server.url("/")).await.unwrap();
    let second = fetcher.fetch(&inline).await.unwrap();
    for url in [server.url("/"), inline.clone()] {
        let error = fetcher.fetch(&url).await.unwrap_err();
        assert_eq!((&error, error.fault("image").code), (&FetchError::Crowded, ErrorCode::Unavailable));
    }
    let shared = first.bytes.clone();
    drop((first, second));
    assert!(fetcher.fetch(&inline).await.is_ok());
    drop(shared);
    assert!(fetcher.fetch(&server.url("/")).await.is_ok());
}
