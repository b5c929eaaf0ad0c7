//! How wide a picture is, from its header alone: Rekognition tells a face's size as a part of it.

use std::io::Cursor;

use image::{ImageDecoder, ImageFormat, ImageReader, metadata::Orientation};

/// The width in pixels as the picture is looked at; none if it is no JPEG or PNG, or its header
/// can't be read. Rekognition turns a JPEG as its Exif data says, and no PNG.
pub(super) fn width_px(picture: &[u8]) -> Option<u32> {
    let reader = ImageReader::new(Cursor::new(picture)).with_guessed_format().ok()?;
    let turns = reader.format()? == ImageFormat::Jpeg;
    let mut decoder = reader.into_decoder().ok()?;
    let (width, height) = decoder.dimensions();
    let on_its_side = turns
        && matches!(
            decoder.orientation(),
            Ok(Orientation::Rotate90
                | Orientation::Rotate270
                | Orientation::Rotate90FlipH
                | Orientation::Rotate270FlipH)
        );
    Some(if on_its_side { height } else { width })
}

#[cfg(test)]
mod tests {
    use image::RgbImage;

    use super::*;

    fn picture(format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        RgbImage::new(64, 48).write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    /// An APP1 segment that says how a JPEG is turned.
    fn turned(jpeg: &[u8], orientation: u8) -> Vec<u8> {
        let exif: &[u8] = &[
            b'E',
            b'x',
            b'i',
            b'f',
            0,
            0,
            b'M',
            b'M',
            0,
            42,
            0,
            0,
            0,
            8, // big-endian TIFF
            0,
            1,
            0x01,
            0x12,
            0,
            3,
            0,
            0,
            0,
            1,
            0,
            orientation,
            0,
            0, // one entry: orientation
            0,
            0,
            0,
            0,
        ];
        let length = u16::try_from(exif.len() + 2).unwrap().to_be_bytes();
        [&jpeg[..2], &[0xff, 0xe1], &length, exif, &jpeg[2..]].concat()
    }

    #[test]
    fn the_width_is_that_of_the_picture_as_it_is_looked_at() {
        let jpeg = picture(ImageFormat::Jpeg);
        assert_eq!(width_px(&picture(ImageFormat::Png)), Some(64));
        assert_eq!(width_px(&jpeg), Some(64));
        assert_eq!(width_px(&turned(&jpeg, 3)), Some(64), "upside down");
        assert_eq!(width_px(&turned(&jpeg, 6)), Some(48), "on its side");
    }

    #[test]
    fn what_is_no_picture_has_no_width() {
        let jpeg = picture(ImageFormat::Jpeg);
        for bytes in [&b""[..], b"not a picture", &jpeg[..8], b"GIF89a", b"\x89PNG\r\n\x1a\n"] {
            assert_eq!(width_px(bytes), None);
        }
    }
}
