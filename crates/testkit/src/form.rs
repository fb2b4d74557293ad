//! A body of `multipart/form-data`, read to the letter and without the help of what wrote it.

/// One field of a form.
#[derive(Clone, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    pub file_name: Option<String>,
    pub media_type: Option<String>,
    pub bytes: Vec<u8>,
}

/// Never prints pictures.
impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} bytes)", self.name, self.bytes.len())
    }
}

/// The parts in order; `None` if the bytes are not exactly such a body.
pub fn parts(body: &[u8], boundary: &str) -> Option<Vec<Part>> {
    let delimiter = format!("--{boundary}");
    let mut rest = body.strip_prefix(delimiter.as_bytes())?;
    let mut found = Vec::new();
    let between = format!("\r\n{delimiter}");
    loop {
        if rest == b"--\r\n" || rest == b"--" {
            return Some(found);
        }
        rest = rest.strip_prefix(b"\r\n")?;
        let end = position(rest, between.as_bytes())?;
        found.push(part(&rest[..end])?);
        rest = &rest[end + between.len()..];
    }
}

fn part(bytes: &[u8]) -> Option<Part> {
    let head_end = position(bytes, b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..head_end]).ok()?;
    let mut part =
        Part { name: String::new(), file_name: None, media_type: None, bytes: bytes[head_end + 4..].to_vec() };
    for line in head.split("\r\n") {
        let (name, value) = line.split_once(": ")?;
        match name {
            "Content-Disposition" => {
                let mut fields = value.split("; ");
                if fields.next()? != "form-data" {
                    return None;
                }
                for field in fields {
                    let (key, quoted) = field.split_once('=')?;
                    let text = quoted.strip_prefix('"')?.strip_suffix('"')?.to_owned();
                    match key {
                        "name" => part.name = text,
                        "filename" => part.file_name = Some(text),
                        _ => return None,
                    }
                }
            }
            "Content-Type" => part.media_type = Some(value.to_owned()),
            _ => return None,
        }
    }
    (!part.name.is_empty()).then_some(part)
}

fn position(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\nContent-Type: image/png\r\n\
                        \r\n\r\n--\r\n--b\r\nContent-Disposition: form-data; name=\"t\"\r\n\r\n\r\n--b--\r\n";

    #[test]
    fn a_form_is_read_to_the_letter() {
        let read = parts(BODY.as_bytes(), "b").unwrap();
        assert_eq!((read[0].name.as_str(), read[0].bytes.as_slice()), ("f", &b"\r\n--"[..]));
        assert_eq!((read[0].file_name.as_deref(), read[0].media_type.as_deref()), (Some("x"), Some("image/png")));
        assert_eq!((read[1].name.as_str(), read[1].bytes.len(), read.len()), ("t", 0, 2));
    }

    #[test]
    fn what_differs_by_a_letter_is_no_form() {
        for (from, to) in [("--b--", "--b"), ("form-data", "attachment"), ("\"t\"", "t"), ("--b\r\n", "--b\n")] {
            assert!(parts(BODY.replacen(from, to, 1).as_bytes(), "b").is_none(), "{from}");
        }
        assert!(parts(BODY.as_bytes(), "c").is_none());
    }
}
