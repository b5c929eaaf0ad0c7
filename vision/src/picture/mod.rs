//! A picture from outside: decoded within limits, upright, and nothing but its pixels.
//!
//! What a stranger sends is looked at only as far as it is one JPEG or PNG. Its size is read from
//! its header before memory is taken for pixels; what follows the image's end is cut off before any
//! decoder sees it; its metadata isn't kept, save that its orientation is applied.

mod end;

use std::io::Cursor;

use fast_image_resize::{
    FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer, images::Image, images::ImageRef,
};
use image::{
    DynamicImage, ImageDecoder, ImageError, Limits, RgbImage,
    codecs::{
        jpeg::{JpegDecoder, JpegEncoder},
        png::PngDecoder,
    },
    metadata::Orientation,
};
use punchtrail_protocol::wire::PHOTO_BYTES_MAX;

/// The longest that a side may be, in pixels.
pub const SIDE_PX_MAX: u32 = 8_192;
/// The shortest that a side may be, in pixels: on less no face can be told from another.
pub const SIDE_PX_MIN: u32 = 80;
/// The most pixels that a picture may have: 24 megapixels, as good phones take them.
pub const PIXELS_MAX: u64 = 24_000_000;
/// The longest side of a thumbnail, in pixels.
pub const THUMBNAIL_SIDE_PX: u32 = 160;

/// What a decoder may take: 24 megapixels with four channels of eight bits. One with sixteen bits
/// a channel has to be smaller.
const DECODED_BYTES_MAX: u64 = PIXELS_MAX * 4;
const JPEG_QUALITY: u8 = 90;
const THUMBNAIL_QUALITY: u8 = 80;
const JPEG_MAGIC: [u8; 3] = [0xff, 0xd8, 0xff];
const PNG_MAGIC: [u8; 8] = *b"\x89PNG\r\n\x1a\n";

/// Why some bytes aren't taken as a picture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PictureError {
    #[error("the picture has {bytes} bytes; at most {PHOTO_BYTES_MAX} are taken")]
    TooManyBytes { bytes: usize },
    #[error("this is neither a JPEG nor a PNG by its first bytes")]
    UnknownFormat,
    #[error(
        "the picture is {width} x {height} pixels; at most {SIDE_PX_MAX} a side and {PIXELS_MAX} \
         in all are taken"
    )]
    TooLarge { width: u32, height: u32 },
    #[error(
        "the picture is {width} x {height} pixels; each side has to have at least {SIDE_PX_MIN}"
    )]
    TooSmall { width: u32, height: u32 },
    #[error("the picture would take more than {DECODED_BYTES_MAX} bytes of memory")]
    TooMuchMemory,
    #[error("the PNG is animated; only still pictures are taken")]
    Animated,
    #[error("the picture ends before its pixels do: it was cut off on the way")]
    Truncated,
    #[error("the picture can't be decoded: {0}")]
    Broken(String),
}

/// A decoded picture: upright pixels of eight bits for red, green and blue, and nothing else.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    pixels: RgbImage,
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Picture({} x {})", self.width(), self.height())
    }
}

impl Picture {
    /// Decodes a JPEG or a still PNG, whichever it is by its content, and turns it upright as its
    /// EXIF orientation says. An orientation that can't be read counts as none, as does one that a
    /// PNG tells only behind its pixels.
    ///
    /// The largest that is taken needs a few hundred MB for a moment: whoever calls bounds how many
    /// are decoded at a time.
    ///
    /// # Errors
    /// As [`PictureError`] names them. Limits are checked on the header, before pixels are decoded.
    pub fn decode(bytes: &[u8]) -> Result<Self, PictureError> {
        if bytes.len() > PHOTO_BYTES_MAX {
            return Err(PictureError::TooManyBytes { bytes: bytes.len() });
        }
        if bytes.starts_with(&JPEG_MAGIC) {
            let (width, height) = end::jpeg_size(bytes).ok_or(PictureError::Truncated)?;
            check_size(width, height)?;
            let end = end::jpeg_end(bytes).ok_or(PictureError::Truncated)?;
            Self::from_decoder(JpegDecoder::new(Cursor::new(&bytes[..end])).map_err(broken)?)
        } else if bytes.starts_with(&PNG_MAGIC) {
            let (width, height) = end::png_size(bytes).ok_or(PictureError::Truncated)?;
            check_size(width, height)?;
            let decoder = PngDecoder::with_limits(Cursor::new(bytes), limits()).map_err(broken)?;
            if decoder.is_apng().map_err(broken)? {
                return Err(PictureError::Animated);
            }
            Self::from_decoder(decoder)
        } else {
            Err(PictureError::UnknownFormat)
        }
    }

    fn from_decoder(mut decoder: impl ImageDecoder) -> Result<Self, PictureError> {
        let (width, height) = decoder.dimensions();
        check_size(width, height)?;
        decoder.set_limits(limits()).map_err(broken)?;
        if decoder.total_bytes() > DECODED_BYTES_MAX {
            return Err(PictureError::TooMuchMemory);
        }
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let decoded = DynamicImage::from_decoder(decoder).map_err(broken)?;
        let mut upright = DynamicImage::ImageRgb8(opaque(decoded));
        upright.apply_orientation(orientation);
        Ok(Self { pixels: upright.into_rgb8() })
    }

    /// Pixels that somebody has already: three bytes each, red, green and blue, row by row.
    ///
    /// # Errors
    /// If they aren't `width * height` pixels, or the size is none that [`Picture::decode`] takes.
    pub fn from_rgb(width: u32, height: u32, rgb: Vec<u8>) -> Result<Self, PictureError> {
        check_size(width, height)?;
        let pixels = RgbImage::from_raw(width, height, rgb).ok_or(PictureError::Truncated)?;
        Ok(Self { pixels })
    }

    /// Width in pixels, upright.
    pub fn width(&self) -> u32 {
        self.pixels.width()
    }

    /// Height in pixels, upright.
    pub fn height(&self) -> u32 {
        self.pixels.height()
    }

    /// The pixels: three bytes each, red, green and blue, row by row from the top.
    pub fn rgb(&self) -> &[u8] {
        self.pixels.as_raw()
    }

    /// The picture as a JPEG made anew from its pixels, upright: no EXIF, XMP, colour profile or
    /// comment, and nothing behind its end.
    ///
    /// Colours of a picture with a profile of its own are taken as sRGB.
    pub fn cleaned(&self) -> Vec<u8> {
        self.jpeg(JPEG_QUALITY)
    }

    /// A small JPEG for lists, its longest side [`THUMBNAIL_SIDE_PX`] or what the picture has.
    pub fn thumbnail(&self) -> Vec<u8> {
        self.fitted(THUMBNAIL_SIDE_PX).jpeg(THUMBNAIL_QUALITY)
    }

    /// The picture made smaller, so that its longest side has `side_px`; unchanged if it is so
    /// already. Never larger.
    pub fn fitted(&self, side_px: u32) -> Self {
        let longest = self.width().max(self.height());
        if longest <= side_px {
            return self.clone();
        }
        let scaled = |side: u32| {
            let part = f64::from(side) * f64::from(side_px) / f64::from(longest);
            (part.round() as u32).max(1)
        };
        self.resized(scaled(self.width()), scaled(self.height()))
    }

    /// Averages over the area that each new pixel covers, so that fine patterns don't turn coarse.
    pub(crate) fn resized(&self, width: u32, height: u32) -> Self {
        let mut smaller = Image::new(width, height, PixelType::U8x3);
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
        let done = ImageRef::new(self.width(), self.height(), self.rgb(), PixelType::U8x3)
            .map(|whole| Resizer::new().resize(&whole, &mut smaller, &options));
        debug_assert!(matches!(done, Ok(Ok(()))), "three bytes a pixel on both sides");
        let pixels = RgbImage::from_raw(width, height, smaller.into_vec()).unwrap_or_default();
        Self { pixels }
    }

    fn jpeg(&self, quality: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        let made = JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(&self.pixels);
        debug_assert!(made.is_ok(), "a Vec takes all, and a JPEG's sides may have 65,535");
        bytes
    }
}

/// What is transparent is seen on white.
fn opaque(decoded: DynamicImage) -> RgbImage {
    if !decoded.color().has_alpha() {
        return decoded.into_rgb8();
    }
    let with_alpha = decoded.into_rgba8();
    RgbImage::from_fn(with_alpha.width(), with_alpha.height(), |x, y| {
        let [red, green, blue, alpha] = with_alpha.get_pixel(x, y).0;
        let on_white = |part: u8| {
            ((u32::from(part) * u32::from(alpha) + 255 * (255 - u32::from(alpha))) / 255) as u8
        };
        image::Rgb([on_white(red), on_white(green), on_white(blue)])
    })
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(SIDE_PX_MAX);
    limits.max_image_height = Some(SIDE_PX_MAX);
    limits.max_alloc = Some(DECODED_BYTES_MAX);
    limits
}

fn check_size(width: u32, height: u32) -> Result<(), PictureError> {
    let pixels = u64::from(width) * u64::from(height);
    if width > SIDE_PX_MAX || height > SIDE_PX_MAX || pixels > PIXELS_MAX {
        return Err(PictureError::TooLarge { width, height });
    }
    if width < SIDE_PX_MIN || height < SIDE_PX_MIN {
        return Err(PictureError::TooSmall { width, height });
    }
    Ok(())
}

fn broken(error: ImageError) -> PictureError {
    match &error {
        ImageError::Limits(_) => PictureError::TooMuchMemory,
        ImageError::IoError(io) if io.kind() == std::io::ErrorKind::UnexpectedEof => {
            PictureError::Truncated
        }
        _ => PictureError::Broken(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
