//! The request as `multipart/form-data` (RFC 7578), byte for byte.

use bytes::Bytes;
use engine::EngineError;

/// A body, and the header that says how to read it.
#[derive(Clone)]
pub(crate) struct Form {
    pub(crate) content_type: String,
    pub(crate) body: Bytes,
}

/// A form in the making.
pub(crate) struct FormWriter {
    boundary: String,
    body: Vec<u8>,
}

/// A file of a form.
pub(crate) struct FormFile<'a> {
    pub(crate) name: &'static str,
    pub(crate) file_name: &'static str,
    pub(crate) media_type: &'static str,
    pub(crate) bytes: &'a [u8],
}

impl FormWriter {
    /// With a boundary of 128 random bits, which no prompt and no picture holds.
    pub(crate) fn new() -> Result<Self, EngineError> {
        let mut bytes = [0; 16];
        let failed = |_| EngineError::Failed("the system gives no random bytes".to_owned());
        getrandom::fill(&mut bytes).map_err(failed)?;
        Ok(Self { boundary: format!("pentimento-{:032x}", u128::from_be_bytes(bytes)), body: Vec::new() })
    }

    pub(crate) fn text(&mut self, name: &'static str, value: &str) {
        let head = format!("Content-Disposition: form-data; name=\"{name}\"\r\n");
        self.part(&head, value.as_bytes());
    }

    pub(crate) fn file(&mut self, file: &FormFile<'_>) {
        let FormFile { name, file_name, media_type, bytes } = file;
        let disposition = format!("form-data; name=\"{name}\"; filename=\"{file_name}\"");
        self.part(&format!("Content-Disposition: {disposition}\r\nContent-Type: {media_type}\r\n"), bytes);
    }

    pub(crate) fn finish(mut self) -> Form {
        self.body.extend_from_slice(format!("--{}--\r\n", self.boundary).as_bytes());
        let content_type = format!("multipart/form-data; boundary={}", self.boundary);
        Form { content_type, body: Bytes::from(self.body) }
    }

    fn part(&mut self, head: &str, content: &[u8]) {
        self.body.extend_from_slice(format!("--{}\r\n{head}\r\n", self.boundary).as_bytes());
        self.body.extend_from_slice(content);
        self.body.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_written_as_the_rfc_has_it() {
        let mut writer = FormWriter::new().unwrap();
        let boundary = writer.boundary.clone();
        writer.file(&FormFile { name: "image", file_name: "a.png", media_type: "image/png", bytes: b"\x00\r\n--x" });
        writer.text("prompt", "two\r\nlines");
        let form = writer.finish();
        assert_eq!(form.content_type, format!("multipart/form-data; boundary={boundary}"));
        let expect = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n\
             Content-Type: image/png\r\n\r\n\0\r\n--x\r\n\
             --{boundary}\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\ntwo\r\nlines\r\n--{boundary}--\r\n"
        );
        assert_eq!(form.body, expect.as_bytes());
        assert_ne!(FormWriter::new().unwrap().boundary, boundary);
    }
}
