//! First frames of simulated devices: one grey picture, and a comment that makes each another.
//!
//! A server keeps a photo by the digest of its bytes and may decode it, so each has to have bytes
//! of its own and be a JPEG all the same. The pixels are the same in all of them; what differs
//! stands in comment segments, which every decoder passes over. There is no face to be found.

use std::sync::LazyLock;

use punchtrail_protocol::PunchId;
use rand::{Rng, SeedableRng, rngs::StdRng};

/// How large a first frame is, in bytes: about what a kiosk's camera makes of 640 x 480 pixels when
/// it saves space.
pub const PICTURE_BYTES: usize = 20_000;
/// Its sides, in pixels.
const SIDES_PX: [u16; 2] = [640, 480];
/// The most bytes that one comment holds: its length counts itself and has two bytes.
const COMMENT_BYTES_MAX: usize = 65_533;
/// What stands around a comment, in bytes.
const COMMENT_MARGIN_BYTES: usize = 4;

static GREY: LazyLock<Vec<u8>> = LazyLock::new(grey);

/// The first frame of a punch, always the same for it and another than any other punch's.
pub fn first_frame(punch: PunchId) -> Vec<u8> {
    let half = |at: usize| {
        let bytes = punch.0.as_bytes();
        (at..at + 8).fold(0_u64, |all, place| all << 8 | u64::from(bytes[place]))
    };
    let mut dice = StdRng::seed_from_u64(half(0).rotate_left(32) ^ half(8));
    let mut comment = vec![0; PICTURE_BYTES - GREY.len() - COMMENT_MARGIN_BYTES];
    dice.fill_bytes(&mut comment);
    comment[..16].copy_from_slice(punch.0.as_bytes());
    commented(&GREY, &comment)
}

/// The same picture with `comment` in it, in as many segments as it takes; anything but a JPEG
/// stays as it is.
pub fn commented(jpeg: &[u8], comment: &[u8]) -> Vec<u8> {
    let Some(rest) = jpeg.strip_prefix(&[0xff, 0xd8]) else { return jpeg.to_vec() };
    let mut bytes = vec![0xff, 0xd8];
    for part in comment.chunks(COMMENT_BYTES_MAX) {
        segment(&mut bytes, 0xfe, part);
    }
    bytes.extend_from_slice(rest);
    bytes
}

/// A baseline JPEG of one grey, as small as one can be: each block is "no other than the last, and
/// nothing more", two bits, since its tables know nothing else.
fn grey() -> Vec<u8> {
    let [width, height] = SIDES_PX.map(u16::to_be_bytes);
    let blocks = usize::from(SIDES_PX[0].div_ceil(8)) * usize::from(SIDES_PX[1].div_ceil(8));
    let mut bytes = vec![0xff, 0xd8];
    // All steps are 1; there is nothing to be divided by them.
    segment(&mut bytes, 0xdb, &[&[0][..], &[1; 64]].concat());
    let frame = [8, height[0], height[1], width[0], width[1], 1, 1, 0x11, 0];
    segment(&mut bytes, 0xc0, &frame);
    // One code of one bit for each kind of number: the difference 0, the end of a block.
    for kind in [0x00, 0x10] {
        let mut table = [0; 18];
        (table[0], table[1]) = (kind, 1);
        segment(&mut bytes, 0xc4, &table);
    }
    segment(&mut bytes, 0xda, &[1, 1, 0x00, 0, 63, 0]);
    bytes.resize(bytes.len() + (2 * blocks).div_ceil(8), 0);
    bytes.extend([0xff, 0xd9]);
    bytes
}

fn segment(bytes: &mut Vec<u8>, marker: u8, body: &[u8]) {
    let length = u16::try_from(body.len() + 2).unwrap_or(u16::MAX).to_be_bytes();
    bytes.extend([0xff, marker, length[0], length[1]]);
    bytes.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use punchtrail_protocol::Digest;
    use punchtrail_vision::Picture;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn each_punch_has_a_frame_of_its_own_that_can_be_decoded() {
        let [first, second] = [1, 2].map(|n| first_frame(PunchId(Uuid::from_u128(n))));
        assert_eq!(first, first_frame(PunchId(Uuid::from_u128(1))), "always the same for it");
        assert_ne!(Digest::of(&first), Digest::of(&second));
        for frame in [first, second] {
            assert_eq!(frame.len(), PICTURE_BYTES);
            let picture = Picture::decode(&frame).unwrap();
            assert_eq!([picture.width(), picture.height()], SIDES_PX.map(u32::from));
            assert!(picture.rgb().windows(2).all(|two| two[0] == two[1]), "one grey");
        }
    }

    #[test]
    fn a_comment_of_any_length_and_bytes_leaves_the_picture_what_it_is() {
        let plain = Picture::decode(&GREY).unwrap();
        for length in [0, 1, COMMENT_BYTES_MAX, COMMENT_BYTES_MAX + 1, 300_000] {
            let with = commented(&GREY, &vec![0xff; length]);
            assert_eq!(Picture::decode(&with).as_ref(), Ok(&plain), "{length}");
            assert!(with.len() >= GREY.len() + length);
        }
        assert_eq!(commented(b"\x89PNG", b"x"), b"\x89PNG");
    }
}
