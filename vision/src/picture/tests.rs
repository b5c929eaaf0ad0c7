//! Pictures that cameras write, and bytes that nobody's camera does.

use image::{ImageEncoder, codecs::png::PngEncoder};
use proptest::prelude::*;

use super::*;

const WIDTH: u32 = 120;
const HEIGHT: u32 = 90;
/// To be turned by 90 degrees clockwise, as a phone held upright writes it.
const ROTATED: u16 = 6;

/// Smooth, so that a JPEG of it is near it: red grows to the right, green downwards.
fn rgb() -> RgbImage {
    RgbImage::from_fn(WIDTH, HEIGHT, |x, y| image::Rgb([(2 * x) as u8, (2 * y) as u8, 60]))
}

fn jpeg() -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 90).encode_image(&rgb()).unwrap();
    bytes
}

fn png() -> Vec<u8> {
    png_with(|_| ())
}

fn png_with(set: impl FnOnce(&mut PngEncoder<&mut Vec<u8>>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = PngEncoder::new(&mut bytes);
    set(&mut encoder);
    encoder.write_image(&rgb(), WIDTH, HEIGHT, image::ExtendedColorType::Rgb8).unwrap();
    bytes
}

/// TIFF, little-endian, with one entry: the orientation (tag 0x0112, one SHORT).
fn tiff(orientation: u16) -> Vec<u8> {
    let mut tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    tiff.extend(orientation.to_le_bytes());
    tiff.extend([0; 6]);
    tiff
}

/// A segment behind a JPEG's first marker.
fn with_segment(jpeg: &[u8], marker: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len() + 2).unwrap().to_be_bytes();
    [&jpeg[..2], &[0xff, marker], &length, body, &jpeg[2..]].concat()
}

fn with_exif(jpeg: &[u8], orientation: u16) -> Vec<u8> {
    with_segment(jpeg, 0xe1, &[b"Exif\0\0".as_slice(), &tiff(orientation)].concat())
}

/// A chunk behind a PNG's header. Its CRC is right, as a decoder would else skip it.
fn with_chunk(png: &[u8], kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let crc = crc32(&[kind.as_slice(), body].concat()).to_be_bytes();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&png[..33], &length, kind, body, &crc, &png[33..]].concat()
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    })
}

fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

#[track_caller]
fn refused(bytes: &[u8]) -> PictureError {
    Picture::decode(bytes).unwrap_err()
}

#[test]
fn jpeg_and_png_are_told_by_their_content_and_nothing_else_is_taken() {
    for bytes in [jpeg(), png()] {
        let picture = Picture::decode(&bytes).unwrap();
        assert_eq!((picture.width(), picture.height()), (WIDTH, HEIGHT));
    }
    let others: [&[u8]; 6] =
        [b"", b"GIF89a", b"<svg/>", b"RIFF\0\0\0\0WEBPVP8 ", b"%PDF-1.7", b"\xff\xd8"];
    for other in others {
        assert_eq!(refused(other), PictureError::UnknownFormat);
    }
}

#[test]
fn a_picture_is_turned_upright_by_its_exif() {
    for bytes in [
        with_exif(&jpeg(), ROTATED),
        png_with(|encoder| encoder.set_exif_metadata(tiff(ROTATED)).unwrap()),
    ] {
        let picture = Picture::decode(&bytes).unwrap();
        assert_eq!((picture.width(), picture.height()), (HEIGHT, WIDTH));
        // What grew to the right grows downwards now.
        let red = |x, y| picture.pixels.get_pixel(x, y)[0];
        assert!(red(45, 5) < 40 && red(45, WIDTH - 5) > 200);
    }
}

#[test]
fn an_orientation_that_is_none_is_left_out() {
    for wrong in [0, 9, 65_535] {
        let picture = Picture::decode(&with_exif(&jpeg(), wrong)).unwrap();
        assert_eq!((picture.width(), picture.height()), (WIDTH, HEIGHT));
    }
}

#[test]
fn cleaned_holds_pixels_and_nothing_else() {
    let marked = with_exif(&jpeg(), ROTATED);
    let marked = with_segment(&marked, 0xfe, b"a comment");
    let marked = with_segment(&marked, 0xe1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>");
    let marked = [marked, b"PK\x03\x04 an archive behind it".to_vec()].concat();
    let secrets: [&[u8]; 6] = [b"Exif", b"comment", b"xmpmeta", b"PK\x03\x04", b"adobe", b"ICC"];
    assert!(secrets[..5].iter().all(|secret| holds(&marked, secret)));
    let picture = Picture::decode(&marked).unwrap();
    for made in [picture.cleaned(), picture.thumbnail()] {
        assert!(secrets.iter().all(|secret| !holds(&made, secret)));
        assert_eq!(end::jpeg_end(&made), Some(made.len()));
    }
    let again = Picture::decode(&picture.cleaned()).unwrap();
    assert_eq!((again.width(), again.height()), (HEIGHT, WIDTH));
    let off = again.rgb().iter().zip(picture.rgb()).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(off < Some(40), "{off:?}");
}

#[test]
fn what_follows_the_end_is_not_looked_at() {
    for bytes in [jpeg(), png()] {
        let long = [bytes.clone(), vec![0xff; 1000], jpeg(), png()].concat();
        assert_eq!(Picture::decode(&long).unwrap(), Picture::decode(&bytes).unwrap());
    }
}

#[test]
fn a_thumbnail_is_small_and_of_the_same_form() {
    let large = Picture::decode(&jpeg()).unwrap().resized(1600, 1200);
    let small = Picture::decode(&large.thumbnail()).unwrap();
    assert_eq!((small.width(), small.height()), (THUMBNAIL_SIDE_PX, 120));
    let small = Picture::decode(&jpeg()).unwrap();
    assert_eq!(small.fitted(500), small);
    assert_eq!(Picture { pixels: RgbImage::new(8000, 80) }.fitted(160).height(), 2);
}

#[test]
fn cut_off_anywhere_it_is_an_error() {
    let bytes = jpeg();
    for length in 3..bytes.len() {
        assert_eq!(refused(&bytes[..length]), PictureError::Truncated, "{length}");
    }
    let bytes = png();
    // Behind its pixels a PNG only says that it ends: nothing is lost with that.
    let pixels_end = bytes.len() - 12 - 8;
    for length in 8..pixels_end {
        let error = refused(&bytes[..length]);
        assert!(matches!(error, PictureError::Truncated | PictureError::Broken(_)), "{error}");
    }
}

#[test]
fn a_header_that_claims_too_much_is_refused_before_memory_is_taken() {
    let side = 60_000_u32;
    let mut bytes = jpeg();
    let frame = bytes.windows(2).position(|two| two == [0xff, 0xc0]).unwrap();
    bytes[frame + 5..frame + 7].copy_from_slice(&(side as u16).to_be_bytes());
    bytes[frame + 7..frame + 9].copy_from_slice(&(side as u16).to_be_bytes());
    assert_eq!(refused(&bytes), PictureError::TooLarge { width: side, height: side });
    let mut bytes = png();
    bytes[16..20].copy_from_slice(&side.to_be_bytes());
    bytes[20..24].copy_from_slice(&side.to_be_bytes());
    assert_eq!(refused(&bytes), PictureError::TooLarge { width: side, height: side });
}

#[test]
fn sizes_are_limited_at_both_ends() {
    assert_eq!(check_size(6_000, 4_000), Ok(()));
    assert_eq!(check_size(80, 8_192), Ok(()));
    for (width, height) in [(6_000, 4_001), (8_193, 80), (80, 8_193), (u32::MAX, u32::MAX)] {
        assert_eq!(check_size(width, height), Err(PictureError::TooLarge { width, height }));
    }
    for (width, height) in [(79, 80), (80, 79), (0, 500)] {
        assert_eq!(check_size(width, height), Err(PictureError::TooSmall { width, height }));
    }
}

#[test]
fn a_pixel_of_sixteen_bits_takes_more_memory() {
    let mut bytes = Vec::new();
    let wide = image::ImageBuffer::<image::Rgb<u16>, _>::new(6_000, 3_000);
    wide.write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
    assert_eq!(refused(&bytes), PictureError::TooMuchMemory);
}

#[test]
fn a_byte_too_many_is_one() {
    let mut bytes = jpeg();
    bytes.resize(PHOTO_BYTES_MAX, 0);
    assert!(Picture::decode(&bytes).is_ok());
    bytes.push(0);
    assert_eq!(refused(&bytes), PictureError::TooManyBytes { bytes: PHOTO_BYTES_MAX + 1 });
}

#[test]
fn an_animated_png_is_refused() {
    let two_frames = [0, 0, 0, 2, 0, 0, 0, 0];
    assert_eq!(refused(&with_chunk(&png(), b"acTL", &two_frames)), PictureError::Animated);
}

#[test]
fn what_is_transparent_is_white() {
    let mut bytes = Vec::new();
    let clear = image::RgbaImage::from_pixel(WIDTH, HEIGHT, image::Rgba([0, 0, 0, 0]));
    clear.write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
    assert!(Picture::decode(&bytes).unwrap().rgb().iter().all(|value| *value == 255));
}

#[test]
fn pixels_that_are_not_as_many_as_said_are_refused() {
    assert_eq!(Picture::from_rgb(100, 100, vec![0; 29_999]), Err(PictureError::Truncated));
    assert!(Picture::from_rgb(100, 100, vec![0; 30_000]).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever comes, it is a picture within limits or an error; never a panic.
    #[test]
    fn mutated_pictures_never_panic(
        which in 0..4_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..24),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let exif = |encoder: &mut PngEncoder<&mut Vec<u8>>| {
            encoder.set_exif_metadata(tiff(3)).unwrap();
        };
        let mut bytes = [jpeg(), with_exif(&jpeg(), 5), png(), png_with(exif)][which].clone();
        for (place, value) in changes {
            *place.get_mut(&mut bytes) = value;
        }
        bytes.truncate(cut.map_or(bytes.len(), |place| place.index(bytes.len())));
        within_limits(&bytes)?;
    }

    #[test]
    fn random_bytes_never_panic(
        kind in 0..3_usize,
        mut tail in prop::collection::vec(any::<u8>(), 0..2048),
    ) {
        let mut bytes = [&[][..], &JPEG_MAGIC, &PNG_MAGIC][kind].to_vec();
        bytes.append(&mut tail);
        within_limits(&bytes)?;
    }
}

fn within_limits(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(picture) = Picture::decode(bytes) {
        prop_assert!(check_size(picture.width(), picture.height()).is_ok());
        prop_assert!(Picture::decode(&picture.cleaned()).is_ok());
    }
    Ok(())
}
