//! An HTTP answer, read without the help of the libraries that the server is made of.

use serde_json::Value;

#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    /// Reads one whole answer; `None` if the bytes are not one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let head_end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..head_end]).ok()?;
        let mut lines = head.split("\r\n");
        let mut status_line = lines.next()?.splitn(3, ' ');
        if !status_line.next()?.starts_with("HTTP/1.") {
            return None;
        }
        let status: u16 = status_line.next()?.parse().ok()?;
        let rest = &bytes[head_end + 4..];
        if status == 100 {
            return Self::parse(rest);
        }
        let headers: Option<Vec<(String, String)>> = lines
            .map(|line| line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())))
            .collect();
        let mut reply = Self { status, headers: headers?, body: rest.to_vec() };
        if reply.header("transfer-encoding") == Some("chunked") {
            reply.body = dechunked(rest)?;
        } else if let Some(length) = reply.header("content-length") {
            reply.body.truncate(length.parse().ok()?);
        }
        Some(reply)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: status {}, body {:?}", self.status, self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The chunks as far as they came: a stream that was cut off is an answer too.
fn dechunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(line_end) = rest.windows(2).position(|window| window == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..line_end]).ok()?, 16).ok()?;
        let chunk = &rest[line_end + 2..];
        if length == 0 || chunk.len() < length + 2 {
            break;
        }
        body.extend_from_slice(&chunk[..length]);
        rest = &chunk[length + 2..];
    }
    Some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_bodies_are_read() {
        let plain = Reply::parse(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").unwrap();
        assert_eq!((plain.status, plain.text().as_str()), (200, "hi"));
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n";
        assert_eq!(Reply::parse(chunked).unwrap().text(), "abcd");
        let continued = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(Reply::parse(continued).unwrap().status, 404);
        assert!(Reply::parse(b"").is_none() && Reply::parse(b"hello\r\n\r\n").is_none());
    }
}
