//! The credited pictures, as they are and as a kiosk's camera would have them.

use std::io::Cursor;

use image::{
    DynamicImage, Rgb, RgbImage,
    codecs::jpeg::JpegEncoder,
    imageops::{FilterType, overlay, resize},
};
use punchtrail_testkit::{Faces, PICTURES};

/// A usual frame of a kiosk's camera, in pixels.
const KIOSK_PX: [u32; 2] = [1_280, 960];
/// What is beside the picture in such a frame.
const GREY: Rgb<u8> = Rgb([128; 3]);
const JPEG_QUALITY: u8 = 90;

/// A picture, and whom it shows.
#[derive(Debug, Clone)]
pub struct Frame {
    pub bytes: Vec<u8>,
    /// The picture that a check compares it with.
    pub reference: &'static str,
}

/// All of them as they are: portraits of 204 x 244 to 747 x 900 pixels.
pub fn as_they_are(faces: &Faces) -> Vec<Frame> {
    let frame = |name| Frame { bytes: faces.picture(name), reference: reference_of(name) };
    PICTURES.into_iter().map(frame).collect()
}

/// All of them as kiosks' frames.
///
/// # Errors
/// When one can't be read or written as a picture.
pub fn at_a_kiosk(faces: &Faces) -> anyhow::Result<Vec<Frame>> {
    let frame =
        |name| Ok(Frame { bytes: kiosk(&faces.picture(name))?, reference: reference_of(name) });
    PICTURES.into_iter().map(frame).collect()
}

/// Those of b are compared with b's first, all others with a's second: the first is too small.
fn reference_of(name: &str) -> &'static str {
    match name.starts_with("person_b") {
        true => "person_b_1",
        false => "person_a_2",
    }
}

/// A picture scaled to the height of a kiosk's frame, in its middle, with grey beside it, as a
/// JPEG.
///
/// # Errors
/// When it can't be read or written as a picture.
pub fn kiosk(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let [width, height] = KIOSK_PX;
    let picture = image::load_from_memory(bytes)?.into_rgb8();
    let scale = (f64::from(height) / f64::from(picture.height()))
        .min(f64::from(width) / f64::from(picture.width()));
    let [scaled_width, scaled_height] = [picture.width(), picture.height()]
        .map(|side| ((f64::from(side) * scale).round() as u32).max(1));
    let scaled = resize(&picture, scaled_width, scaled_height, FilterType::Triangle);
    let mut frame = RgbImage::from_pixel(width, height, GREY);
    let middle = |all: u32, part: u32| i64::from(all.saturating_sub(part) / 2);
    overlay(&mut frame, &scaled, middle(width, scaled_width), middle(height, scaled_height));
    let mut out = Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(frame)
        .write_with_encoder(JpegEncoder::new_with_quality(&mut out, JPEG_QUALITY))?;
    Ok(out.into_inner())
}

#[cfg(test)]
mod tests {
    use image::ImageFormat;
    use punchtrail_simulator::picture::commented;
    use punchtrail_vision::Picture;

    use super::*;

    #[test]
    fn a_frame_has_the_kiosks_size_whatever_the_pictures_shape() {
        for sides in [[204, 244], [900, 300], [1_280, 960]] {
            let mut bytes = Cursor::new(Vec::new());
            let picture = RgbImage::from_pixel(sides[0], sides[1], Rgb([200, 10, 10]));
            picture.write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
            let frame = kiosk(&bytes.into_inner()).unwrap();
            let decoded = Picture::decode(&commented(&frame, b"another")).unwrap();
            assert_eq!([decoded.width(), decoded.height()], KIOSK_PX);
            assert_eq!(decoded, Picture::decode(&frame).unwrap());
        }
    }
}
