//! Every kind of file, color and orientation shows the pixels that Pillow shows.

use super::{read_fixture, rows_of};
use domain::quantity::Size;
use imaging::{Format, ImageError, decode, probe, sniff};

#[test]
fn every_file_shows_what_pillow_shows() {
    let rows = rows_of("color/expected.json");
    let wrong: Vec<String> = rows.iter().filter_map(mismatch).collect();
    assert!(rows.len() > 50, "the fixtures are missing");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn mismatch(row: &serde_json::Value) -> Option<String> {
    let file = row["file"].as_str().unwrap();
    let bytes = read_fixture(&format!("color/{file}"));
    let number = |value: &serde_json::Value| value.as_u64().unwrap() as u32;
    let picture = match decode(&bytes) {
        Ok(picture) => picture,
        Err(error) => return Some(format!("{file}: {error}")),
    };
    let size = Size::new(number(&row["width"]), number(&row["height"]));
    if picture.size() != size {
        return Some(format!("{file}: it is {}, not {size}", picture.size()));
    }
    for pixel in row["pixels"].as_array().unwrap() {
        let values: Vec<u32> = pixel.as_array().unwrap().iter().map(number).collect();
        let start = 3 * (values[1] * size.width + values[0]) as usize;
        let seen = &picture.pixels()[start..start + 3];
        let far = seen.iter().zip(&values[2..]).any(|(a, b)| u32::from(*a).abs_diff(*b) > number(&row["tolerance"]));
        if far {
            return Some(format!("{file} at {}, {}: {seen:?}, not {:?}", values[0], values[1], &values[2..]));
        }
    }
    None
}

#[test]
fn every_file_is_sniffed_as_what_its_name_says() {
    for row in rows_of("color/expected.json") {
        let file = row["file"].as_str().unwrap().to_owned();
        let format = match file.rsplit('.').next().unwrap() {
            "png" => Format::Png,
            "jpg" => Format::Jpeg,
            "webp" => Format::Webp,
            "gif" => Format::Gif,
            "bmp" => Format::Bmp,
            _ => Format::Tiff,
        };
        let bytes = read_fixture(&format!("color/{file}"));
        assert_eq!(sniff(&bytes), Some(format), "{file}");
        assert_eq!(probe(&bytes).map(|header| header.format), Ok(format), "{file}");
    }
}

#[test]
fn the_header_tells_the_size_as_stored() {
    let header = probe(&read_fixture("color/orientation_6.jpg")).unwrap();
    assert_eq!(header.size, Size::new(32, 24));
    assert_eq!(decode(&read_fixture("color/orientation_6.jpg")).unwrap().size(), Size::new(24, 32));
}

#[test]
fn what_is_no_image_of_ours_is_told_what_is_allowed() {
    assert_eq!(decode(b"<!doctype html>").unwrap_err(), ImageError::Unrecognized);
    assert_eq!(decode(b"").unwrap_err(), ImageError::Unrecognized);
    let avif = decode(b"\0\0\0\x20ftypavif\0\0\0\0").unwrap_err();
    assert_eq!(avif.to_string(), "AVIF images are not supported; allowed: PNG, JPEG, WebP, GIF, BMP, TIFF");
}

#[test]
fn a_kind_of_tiff_that_is_not_decoded_is_named_as_such_and_not_as_damaged() {
    let mut tiff = read_fixture("color/gray.tiff");
    let photometric = (8..tiff.len() - 12).find(|&at| tiff[at..at + 8] == [6, 1, 3, 0, 1, 0, 0, 0]).unwrap();
    tiff[photometric + 8] = 3; // a palette
    let error = decode(&tiff).unwrap_err();
    assert!(matches!(error, ImageError::UnsupportedKind { format: Format::Tiff, .. }), "{error}");
}
