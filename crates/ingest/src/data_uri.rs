//! `data:` URIs: a picture inside its own address. The media type is ignored; what the bytes are, they say themselves.

use crate::error::FetchError;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const TOLERANT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The bytes of a URI whose `data:` has been taken off, or what is wrong with it. Sizes are checked before decoding.
pub(crate) fn read(rest: &str, bytes_max: usize) -> Result<Vec<u8>, FetchError> {
    let (kind, data) = rest.split_once(',').ok_or(FetchError::DataUri("it has no comma"))?;
    let is_base64 = kind.trim_end().to_ascii_lowercase().ends_with(";base64");
    if is_base64 { base64_bytes(data, bytes_max) } else { percent_decoded(data, bytes_max) }
}

fn base64_bytes(data: &str, bytes_max: usize) -> Result<Vec<u8>, FetchError> {
    let n_digits_max = bytes_max.div_ceil(3).saturating_mul(4);
    let mut digits = percent_decoded(data, usize::MAX)?;
    digits.retain(|digit| !digit.is_ascii_whitespace());
    if digits.len() > n_digits_max {
        return Err(FetchError::TooManyBytes(bytes_max));
    }
    for digit in &mut digits {
        // The alphabet for URLs differs in two digits.
        match digit {
            b'-' => *digit = b'+',
            b'_' => *digit = b'/',
            _ => {}
        }
    }
    let bytes = TOLERANT.decode(&digits).map_err(|_| FetchError::DataUri("its base64 is malformed"))?;
    if bytes.len() > bytes_max { Err(FetchError::TooManyBytes(bytes_max)) } else { Ok(bytes) }
}

fn percent_decoded(data: &str, bytes_max: usize) -> Result<Vec<u8>, FetchError> {
    let mut bytes = Vec::with_capacity(data.len().min(bytes_max));
    let mut rest = data.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let (decoded, tail) = match (byte, tail) {
            (b'%', [high, low, tail @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (16 * high + low, tail),
                _ => return Err(FetchError::DataUri("a percent sign stands before what is no number")),
            },
            (b'%', _) => return Err(FetchError::DataUri("it ends in a percent sign")),
            // A fragment is none of the data.
            (b'#', _) => break,
            _ => (byte, tail),
        };
        if bytes.len() == bytes_max {
            return Err(FetchError::TooManyBytes(bytes_max));
        }
        bytes.push(decoded);
        rest = tail;
    }
    Ok(bytes)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_read() {
        let spellings = [
            "image/png;base64,aGk/Pg==",
            "image/png;base64,aGk/Pg",
            ";base64,aGk_Pg",
            "image/png;charset=x;BASE64,aGk/Pg==",
            ";base64,aGk%2FPg%3D%3D",
            ";base64,aG k/\nPg==",
            ",hi?>",
            ",%68%69?%3E",
            "text/plain,hi?>#fragment",
        ];
        for spelling in spellings {
            assert_eq!(read(spelling, 4).as_deref(), Ok(&b"hi?>"[..]), "{spelling}");
        }
    }

    #[test]
    fn malformed_data_is_refused() {
        for text in ["image/png;base64", ";base64,a", ";base64,!!!!", ";base64,=aaa", ",%", ",%4", ",%zz", ";base64,ä"]
        {
            assert!(matches!(read(text, 100), Err(FetchError::DataUri(_))), "{text}");
        }
    }

    #[test]
    fn the_limit_is_exact() {
        for text in [",abcde", ";base64,YWJjZGU="] {
            assert_eq!(read(text, 5).as_deref(), Ok(&b"abcde"[..]));
            assert_eq!(read(text, 4), Err(FetchError::TooManyBytes(4)));
        }
    }
}
