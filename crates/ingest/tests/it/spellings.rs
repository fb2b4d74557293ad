//! Every way to spell an address or a URL that leads where a stranger may not look.

use super::{Script, policy};
use domain::fault::ErrorCode;
use ingest::{FetchError, FetchPolicy, Fetcher};
use std::time::Duration;

/// Addresses, however spelled: refused without any lookup.
const FORBIDDEN: &[&str] = &[
    "http://127.0.0.1/",
    "http://127.0.0.1./",
    "http://127.1/",
    "http://127.0.1/",
    "http://0/",
    "http://0.0.0.0/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0X7F000001/",
    "http://017700000001/",
    "http://0177.0.0.1/",
    "http://0x7f.0.0.1/",
    "http://0x7f.1/",
    "http://127.0x0.0.01/",
    "http://%31%32%37.0.0.1/",
    "http://127%2e0.0.1/",
    "http://①②⑦.⓪.⓪.①/",
    "http://127。0。0。1/",
    "http://１２７.0.0.1/",
    "HTTP://127.0.0.1/",
    "http:127.0.0.1/",
    "http:\\\\127.0.0.1\\",
    "http:///127.0.0.1/",
    "  http://127.0.0.1/  ",
    "http://127.0.0.1\t/",
    "http://10.0.0.1/",
    "http://10.255.255.255/",
    "http://167772161/",
    "http://172.16.0.1/",
    "http://172.31.255.254/",
    "http://192.168.1.1/",
    "http://3232235777/",
    "http://169.254.169.254/latest/meta-data/",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://0251.0376.0251.0376/",
    "http://169.254.43518/",
    "http://100.64.0.1/",
    "http://100.100.100.200/",
    "http://168.63.129.16/",
    "http://192.0.0.192/",
    "http://192.0.2.1/",
    "http://198.18.0.1/",
    "http://198.51.100.1/",
    "http://203.0.113.1/",
    "http://224.0.0.1/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://4294967295/",
    "http://[::]/",
    "http://[::1]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[0:0:0:0:0:ffff:10.0.0.1]/",
    "http://[::127.0.0.1]/",
    "http://[::ffff:0:127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b::169.254.169.254]/",
    "http://[64:ff9b:1::a00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[2002:a9fe:a9fe::1]/",
    "http://[2001::1]/",
    "http://[2001:db8::1]/",
    "http://[fe80::1]/",
    "http://[fec0::1]/",
    "http://[fc00::1]/",
    "http://[fd00:ec2::254]/",
    "http://[ff02::1]/",
    "http://[100::1]/",
    "http://[::1]:8080/",
    "https://127.0.0.1/",
    "https://[::1]/",
];

/// Refused before any lookup, each for a reason of its own.
const MALFORMED: &[&str] = &[
    "",
    "/etc/passwd",
    "example.com",
    "//example.com/",
    "http://",
    "http://?",
    "http://#",
    "http://.",
    "http://..../",
    "http://256.0.0.1/",
    "http://1.2.3.4.5/",
    "http://0x100000000/",
    "http://127.0.0.1.nip.io:99999/",
    "http://[::1",
    "http://[fe80::1%25eth0]/",
    "http://[::1%lo]/",
    "http://[127.0.0.1]/",
    "http://a b/",
    "http://a%00b/",
    "http://a%20b/",
    "http://exa<mple.com/",
    "http://user@example.com/",
    "http://user:word@example.com/",
    "http://example.com@127.0.0.1/",
    "http://127.0.0.1%2f@example.com/",
    "http://example.com:22/",
    "http://example.com:0/",
    "http://example.com:25/",
    "http://example.com:6/",
    "https://example.com:1023/",
    "file:///etc/passwd",
    "file://localhost/etc/passwd",
    "ftp://example.com/a.png",
    "gopher://example.com:70/_",
    "dict://example.com:11211/",
    "javascript:alert(1)",
    "blob:http://example.com/x",
    "unix:///var/run/docker.sock",
    "jar:http://example.com!/",
    "data:",
    "data:image/png",
    "data:image/png;base64",
    "data:;base64,%%%",
];

fn public_only() -> FetchPolicy {
    FetchPolicy { allowed_sources: Vec::new(), time_max: Duration::from_secs(30), ..policy() }
}

#[tokio::test]
async fn every_spelling_of_a_forbidden_address_is_refused() {
    for url in FORBIDDEN {
        let names = Script::new(&[&["1.1.1.1"]]);
        let fetcher = Fetcher::with_resolver(public_only(), names.clone()).unwrap();
        let error = fetcher.fetch(url).await.unwrap_err();
        assert_eq!(error, FetchError::ForbiddenAddress, "{url}");
        assert_eq!(error.fault("image").code, ErrorCode::SourceUnavailable);
        assert_eq!(names.n_asked(), 0, "{url} was looked up");
    }
}

#[tokio::test]
async fn every_malformed_url_is_refused_before_any_lookup() {
    for url in MALFORMED {
        let names = Script::new(&[&["127.0.0.1"]]);
        let fetcher = Fetcher::with_resolver(policy(), names.clone()).unwrap();
        let error = fetcher.fetch(url).await.unwrap_err();
        assert!(!matches!(error, FetchError::Connect | FetchError::TimedOut(_)), "{url}: {error}");
        assert_eq!(names.n_asked(), 0, "{url} was looked up");
    }
}

#[tokio::test]
async fn every_name_that_leads_to_a_forbidden_address_is_refused() {
    let names = [
        "localhost",
        "LOCALHOST",
        "localhost.",
        "a.localhost",
        "localtest.me",
        "127.0.0.1.nip.io",
        "metadata.google.internal",
        "xn--bcher-kva.example",
        "bücher.example",
        "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
        "ip6-localhost",
        "host.docker.internal",
    ];
    for name in names {
        for address in ["127.0.0.1", "::1", "10.1.2.3", "::ffff:10.1.2.3", "169.254.169.254", "0.0.0.0"] {
            let fetcher = Fetcher::with_resolver(public_only(), Script::new(&[&[address]])).unwrap();
            let error = fetcher.fetch(&format!("http://{name}/a.png")).await.unwrap_err();
            assert_eq!(error, FetchError::UnusableHost, "{name} at {address}");
            assert!(!error.to_string().contains(address));
        }
    }
}
