//! Written files read back, tell what made them, and are the same every time.

use domain::quantity::Size;
use domain::request::OutputFormat;
use imaging::{Format, Metadata, Picture, decode, encode, sniff};

fn picture() -> Picture {
    let size = Size::new(37, 21);
    let pixels = (0..size.height).flat_map(|y| (0..size.width).flat_map(move |x| [6 * x as u8, 12 * y as u8, 128]));
    Picture::new(size, pixels.collect()).unwrap()
}

fn metadata() -> Metadata {
    Metadata { software: "Pentimento 9.8.7".into(), model: "flux-dev".into(), seed: Some(42) }
}

fn contains(file: &[u8], text: &str) -> bool {
    file.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn every_format_reads_back() {
    let formats = [Format::Png, Format::Jpeg, Format::Webp];
    for (output, format) in OutputFormat::ALL.into_iter().zip(formats) {
        let file = encode(&picture(), output, &metadata()).unwrap();
        assert_eq!(sniff(&file), Some(format));
        assert_eq!(format.media_type(), output.media_type());
        let back = decode(&file).unwrap();
        let far = back.pixels().iter().zip(picture().pixels()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        let allowed = if format == Format::Jpeg { 12 } else { 0 };
        assert!(back.size() == picture().size() && far <= allowed, "{format}: {far}");
    }
}

#[test]
fn a_file_tells_software_model_and_seed_and_is_the_same_every_time() {
    for format in OutputFormat::ALL {
        let file = encode(&picture(), format, &metadata()).unwrap();
        for text in ["Pentimento 9.8.7", "flux-dev", "42"] {
            assert!(contains(&file, text), "{format:?} lacks {text}");
        }
        assert_eq!(file, encode(&picture(), format, &metadata()).unwrap());
    }
}

#[test]
fn without_a_seed_none_is_told_and_any_text_is_taken() {
    let metadata = Metadata { software: String::new(), model: "Größe \0 模型".into(), seed: None };
    for format in OutputFormat::ALL {
        let file = encode(&picture(), format, &metadata).unwrap();
        assert!(!contains(&file, "seed") && !contains(&file, "Seed"), "{format:?}");
        assert_eq!(decode(&file).unwrap().size(), picture().size());
    }
}

#[test]
fn a_single_pixel_is_a_picture() {
    for format in OutputFormat::ALL {
        let dot = Picture::filled(Size::new(1, 1), [200, 100, 50]);
        let back = decode(&encode(&dot, format, &metadata()).unwrap()).unwrap();
        assert_eq!(back.size(), Size::new(1, 1), "{format:?}");
    }
}
