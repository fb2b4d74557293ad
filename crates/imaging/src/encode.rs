//! A picture to the bytes of a file. The same picture and metadata give the same bytes: no clock, no chance.

use crate::error::ImageError;
use crate::format::Format;
use crate::picture::Picture;
use domain::request::OutputFormat;
use image::codecs::{jpeg::JpegEncoder, webp::WebPEncoder};
use image::{ExtendedColorType, ImageEncoder};

const JPEG_QUALITY: u8 = 92;

/// This program, as it signs files.
pub const SOFTWARE: &str = concat!("Pentimento ", env!("CARGO_PKG_VERSION"));

/// What a file tells of its making. Never the prompt: a picture is passed on, and what was asked for is private.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Usually [`SOFTWARE`].
    pub software: String,
    /// The weights that painted it.
    pub model: String,
    pub seed: Option<u64>,
}

/// PNG with text chunks; JPEG of quality 92 and lossless WebP with an Exif block.
pub fn encode(picture: &Picture, format: OutputFormat, metadata: &Metadata) -> Result<Vec<u8>, ImageError> {
    match format {
        OutputFormat::Png => png_file(picture, metadata).map_err(|error| ImageError::encoding(Format::Png, error)),
        OutputFormat::Jpeg => {
            let mut file = Vec::new();
            let encoder = JpegEncoder::new_with_quality(&mut file, JPEG_QUALITY);
            write(encoder, picture, metadata).map_err(|error| ImageError::encoding(Format::Jpeg, error))?;
            Ok(file)
        }
        OutputFormat::Webp => {
            let mut file = Vec::new();
            let encoder = WebPEncoder::new_lossless(&mut file);
            write(encoder, picture, metadata).map_err(|error| ImageError::encoding(Format::Webp, error))?;
            Ok(file)
        }
    }
}

fn write(mut encoder: impl ImageEncoder, picture: &Picture, metadata: &Metadata) -> image::ImageResult<()> {
    encoder.set_exif_metadata(exif(metadata)).map_err(image::ImageError::Unsupported)?;
    let size = picture.size();
    encoder.write_image(picture.pixels(), size.width, size.height, ExtendedColorType::Rgb8)
}

fn png_file(picture: &Picture, metadata: &Metadata) -> Result<Vec<u8>, png::EncodingError> {
    let mut file = Vec::new();
    let size = picture.size();
    let mut encoder = png::Encoder::new(&mut file, size.width, size.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Balanced);
    encoder.set_source_srgb(png::SrgbRenderingIntent::Perceptual);
    let seed = metadata.seed.map(|seed| seed.to_string());
    let texts = [("Software", Some(&metadata.software)), ("Model", Some(&metadata.model)), ("Seed", seed.as_ref())];
    for (keyword, text) in texts {
        let Some(text) = text else { continue };
        if text.is_ascii() {
            encoder.add_text_chunk(keyword.to_owned(), text.clone())?;
        } else {
            encoder.add_itxt_chunk(keyword.to_owned(), text.clone())?;
        }
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(picture.pixels())?;
    writer.finish()?;
    Ok(file)
}

/// A TIFF of one directory with two ASCII entries, ImageDescription and Software.
fn exif(metadata: &Metadata) -> Vec<u8> {
    const IMAGE_DESCRIPTION: u16 = 0x010e;
    const SOFTWARE: u16 = 0x0131;
    const ASCII: u16 = 2;
    const HEADER_BYTES: usize = 8;
    const ENTRY_BYTES: usize = 12;

    let seed = metadata.seed.map(|seed| format!(", seed {seed}")).unwrap_or_default();
    let entries =
        [(IMAGE_DESCRIPTION, ascii(&format!("model {}{seed}", metadata.model))), (SOFTWARE, ascii(&metadata.software))];
    let mut block = b"II\x2a\0\x08\0\0\0".to_vec();
    block.extend_from_slice(&(entries.len() as u16).to_le_bytes());
    // The texts stand behind the directory: a count, its entries, and the offset of a next one.
    let mut offset = HEADER_BYTES + 2 + ENTRY_BYTES * entries.len() + 4;
    for (tag, text) in &entries {
        block.extend_from_slice(&tag.to_le_bytes());
        block.extend_from_slice(&ASCII.to_le_bytes());
        block.extend_from_slice(&(text.len() as u32).to_le_bytes());
        block.extend_from_slice(&(offset as u32).to_le_bytes());
        offset += text.len();
    }
    block.extend_from_slice(&0u32.to_le_bytes());
    for (_, text) in &entries {
        block.extend_from_slice(text);
    }
    block
}

/// NUL-terminated, of even length so that the next text is aligned, and of 5 bytes or more: a shorter one would have
/// to stand in the entry itself.
fn ascii(text: &str) -> Vec<u8> {
    const TEXT_BYTES_MIN: usize = 6;
    let mut bytes: Vec<u8> = text.chars().map(|c| if matches!(c, ' '..='~') { c as u8 } else { b'?' }).collect();
    bytes.push(0);
    while bytes.len() < TEXT_BYTES_MIN || !bytes.len().is_multiple_of(2) {
        bytes.push(0);
    }
    bytes
}
