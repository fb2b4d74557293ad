//! Truncated, mutated and boastful files: an error or a picture, never a panic or a huge allocation.

use super::{color_files, read_fixture};
use domain::limits::{SOURCE_BYTES_MAX, SOURCE_PIXELS_MAX};
use imaging::{Format, ImageError, decode, probe, sniff};
use proptest::prelude::*;

#[test]
fn a_file_cut_short_anywhere_is_an_error() {
    let mut passed = Vec::new();
    for (name, bytes) in color_files() {
        let whole = decode(&bytes).unwrap();
        for length in 0..bytes.len() {
            match decode(&bytes[..length]) {
                // What comes after the pixels may be missing: an animation's other frames, an end marker.
                Ok(picture) if picture == whole => {}
                Ok(_) => passed.push(format!("{name} cut to {length} of {}", bytes.len())),
                Err(_) => {}
            }
        }
    }
    assert!(passed.is_empty(), "{} pictures from half a file:\n{}", passed.len(), passed.join("\n"));
}

proptest! {
    #![proptest_config(more_cases())]

    #[test]
    fn mutated_files_never_panic(
        pick in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let files = files();
        let mut bytes = files[pick.index(files.len())].1.clone();
        for (place, value) in edits {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(picture) = decode(&bytes) {
            prop_assert!(picture.size().pixels() <= SOURCE_PIXELS_MAX);
        }
    }

    #[test]
    fn noise_behind_a_magic_number_never_panics(
        magic in prop::sample::select(vec![
            &b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"[..], b"\xff\xd8\xff", b"RIFF\0\0\0\x01WEBPVP8L", b"RIFF\0\0\0\x01WEBPVP8X",
            b"GIF89a", b"BM\0\0\0\0\0\0\0\0", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08",
        ]),
        noise in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let bytes = [magic, &noise].concat();
        prop_assert!(sniff(&bytes).is_some());
        let _ = decode(&bytes);
    }
}

/// `PROPTEST_CASES` asks for even more.
fn more_cases() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig { cases: default.cases.max(3000), failure_persistence: None, ..default }
}

fn files() -> &'static [(String, Vec<u8>)] {
    static FILES: std::sync::OnceLock<Vec<(String, Vec<u8>)>> = std::sync::OnceLock::new();
    FILES.get_or_init(color_files)
}

#[test]
fn a_boastful_png_is_refused_by_its_header() {
    let mut png = read_fixture("color/rgb.png");
    png[16..24].copy_from_slice(&[0, 0, 0x75, 0x30, 0, 0, 0x75, 0x30]); // 30000 x 30000
    let checksum = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&checksum.to_be_bytes());
    assert!(matches!(probe(&png), Err(ImageError::TooManyPixels(size)) if size.width == 30_000));
    assert!(matches!(decode(&png), Err(ImageError::TooManyPixels(_))));
}

#[test]
fn a_boastful_gif_jpeg_bmp_and_tiff_are_refused_by_their_headers() {
    let mut gif = read_fixture("color/rgb.gif");
    gif[6..10].copy_from_slice(&[0xff; 4]);
    assert!(matches!(decode(&gif), Err(ImageError::TooManyPixels(_))));

    let mut jpeg = read_fixture("color/rgb_444.jpg");
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xff; 4]);
    assert!(matches!(decode(&jpeg), Err(ImageError::TooManyPixels(_))));

    let mut bmp = read_fixture("color/rgb.bmp");
    bmp[18..26].copy_from_slice(&[0xff, 0xff, 0, 0, 0xff, 0xff, 0, 0]);
    assert!(matches!(decode(&bmp), Err(ImageError::TooManyPixels(_))));

    let mut tiff = read_fixture("color/rgb.tiff");
    for tag in [[0u8, 1], [1, 1], [22, 1]] {
        // Width, height and rows per strip as LONG.
        let entry = (8..tiff.len() - 12).find(|&at| tiff[at..at + 2] == tag && tiff[at + 4..at + 8] == [1, 0, 0, 0]);
        let entry = entry.unwrap();
        tiff[entry + 2..entry + 4].copy_from_slice(&[4, 0]);
        tiff[entry + 8..entry + 12].copy_from_slice(&[0, 0x80, 0, 0]);
    }
    assert!(matches!(decode(&tiff), Err(ImageError::TooManyPixels(_))), "{:?}", decode(&tiff));
}

#[test]
fn a_side_of_zero_is_an_error() {
    let mut png = read_fixture("color/rgb.png");
    png[16..20].fill(0);
    let checksum = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&checksum.to_be_bytes());
    assert!(matches!(decode(&png), Err(ImageError::Broken { format: Format::Png, .. })));

    let mut gif = read_fixture("color/rgb.gif");
    gif[6..10].fill(0);
    assert!(matches!(decode(&gif), Err(ImageError::Broken { format: Format::Gif, .. })));

    let mut bmp = read_fixture("color/rgb.bmp");
    bmp[18..22].fill(0);
    assert!(decode(&bmp).is_err());
}

#[test]
fn a_tiff_whose_offsets_point_nowhere_is_an_error() {
    let tiff = read_fixture("color/rgb.tiff");
    for offset in [0u32, 1, 7, 1000, 0x7fff_ffff, u32::MAX] {
        let mut bytes = tiff.clone();
        bytes[4..8].copy_from_slice(&offset.to_le_bytes());
        assert!(decode(&bytes).is_err(), "directory at {offset}");
    }
    let directory = u32::from_le_bytes(tiff[4..8].try_into().unwrap()) as usize;
    let n_entries = usize::from(tiff[directory]);
    for entry in 0..n_entries {
        for value in [[0xff; 4], [0, 0, 0, 0x80], [0xff, 0xff, 0, 0]] {
            for field in [4, 8] {
                let mut bytes = tiff.clone();
                let at = directory + 2 + 12 * entry + field;
                bytes[at..at + 4].copy_from_slice(&value);
                let _ = decode(&bytes);
            }
        }
    }
}

#[test]
fn a_webp_chunk_or_frame_larger_than_the_file_is_an_error() {
    let webp = read_fixture("color/orientation_5.webp");
    let exif = webp.windows(4).position(|name| name == b"EXIF").unwrap();
    let mut bytes = webp.clone();
    bytes[exif + 4..exif + 8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(decode(&bytes), Err(ImageError::Broken { format: Format::Webp, .. })));

    let webp = read_fixture("color/rgba_lossy.webp");
    let frame = webp.windows(3).position(|code| code == [0x9d, 0x01, 0x2a]).unwrap();
    let mut bytes = webp.clone();
    bytes[frame + 3..frame + 7].copy_from_slice(&[0xff, 0x3f, 0xff, 0x3f]);
    assert!(matches!(decode(&bytes), Err(ImageError::Broken { format: Format::Webp, .. })));
}

#[test]
fn a_profile_that_unpacks_to_a_gigabyte_does_not() {
    // A valid zlib stream of 80 MB of zeros, over what chunks may unpack to, from 80 kB.
    let mut packed = Vec::new();
    let mut zeros = flate_of_zeros(80 << 20);
    packed.extend_from_slice(b"p\0\0");
    packed.append(&mut zeros);
    let png = read_fixture("color/rgb.png");
    let mut bytes = png[..33].to_vec();
    bytes.extend_from_slice(&chunk(*b"iCCP", &packed));
    bytes.extend_from_slice(&png[33..]);
    // Whether the decoder refuses the file or drops the profile, it must not keep the zeros.
    match decode(&bytes) {
        Ok(picture) => assert_eq!(picture, decode(&png).unwrap()),
        Err(error) => assert!(matches!(error, ImageError::TooMuchMemory(_) | ImageError::Broken { .. }), "{error}"),
    }
}

#[test]
fn too_many_bytes_are_refused_before_anything_is_read() {
    let mut bytes = read_fixture("color/rgb.png");
    bytes.resize(SOURCE_BYTES_MAX + 1, 0);
    assert_eq!(decode(&bytes), Err(ImageError::TooManyBytes(SOURCE_BYTES_MAX as u64 + 1)));
}

#[test]
fn an_error_is_one_short_line() {
    for (name, bytes) in color_files() {
        let error = decode(&bytes[..bytes.len() / 3]).unwrap_err().to_string();
        assert!(error.len() < 300 && !error.contains('\n'), "{name}: {error}");
    }
}

fn chunk(kind: [u8; 4], data: &[u8]) -> Vec<u8> {
    let checked = [&kind, data].concat();
    [&(data.len() as u32).to_be_bytes(), checked.as_slice(), &crc32(&checked).to_be_bytes()].concat()
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// A PNG of zeros holds the zlib stream that we want.
fn flate_of_zeros(n_bytes: usize) -> Vec<u8> {
    let side = 4096;
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, side, (n_bytes / side as usize) as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_filter(png::Filter::NoFilter);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&vec![0; n_bytes]).unwrap();
    writer.finish().unwrap();
    let mut stream = Vec::new();
    let mut at = 8;
    while at < file.len() {
        let length = u32::from_be_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        if &file[at + 4..at + 8] == b"IDAT" {
            stream.extend_from_slice(&file[at + 8..at + 8 + length]);
        }
        at += 12 + length;
    }
    stream
}
