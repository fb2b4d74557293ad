//! What Ideogram answers: links to pictures, each with the word whether it is safe.

use serde::Deserialize;
use serde_json::Error;

/// One picture that was painted.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Painted {
    /// Where to fetch it, for a limited time.
    At(String),
    /// It was called unsafe; there is nothing to fetch.
    Withheld,
}

#[derive(Deserialize)]
struct Answer {
    data: Vec<Image>,
}

#[derive(Deserialize)]
struct Image {
    url: Option<String>,
    is_image_safe: bool,
}

/// The pictures of an answer in order. A safe one without a link is kept as a link to nowhere, which no fetcher follows.
pub(crate) fn read(body: &[u8]) -> Result<Vec<Painted>, Error> {
    let answer: Answer = serde_json::from_slice(body)?;
    let painted = |image: Image| match image {
        Image { is_image_safe: false, .. } => Painted::Withheld,
        Image { url, .. } => Painted::At(url.unwrap_or_default()),
    };
    Ok(answer.data.into_iter().map(painted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_refusals_are_told_apart_and_the_rest_is_passed_over() {
        let body = br#"{"created": "2000-01-23 04:56:07+00:00", "data": [
            {"prompt": "p", "resolution": "1024x1024", "is_image_safe": true, "seed": 1, "url": "https://a/b?c", "x": 1},
            {"is_image_safe": false, "url": null}, {"is_image_safe": false, "url": ""}, {"is_image_safe": true}]}"#;
        let painted = read(body).unwrap();
        let links: Vec<Option<&str>> = painted
            .iter()
            .map(|painted| match painted {
                Painted::At(url) => Some(url.as_str()),
                Painted::Withheld => None,
            })
            .collect();
        assert_eq!(links, [Some("https://a/b?c"), None, None, Some("")]);
        for bad in ["", "{}", "[]", r#"{"data": 1}"#, r#"{"data": [{"url": "https://a"}]}"#, r#"{"data": ["#] {
            assert!(read(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
