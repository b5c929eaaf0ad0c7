//! How large a picture says that it is, and where it ends, from its markers alone (ITU-T T.81,
//! B.1; PNG, 11.2.2).
//!
//! The JPEG decoder fills what is missing with grey and reads no further than it must, so that it
//! tells neither a picture that was cut off nor one that something else hangs behind.

const SOF_FIRST: u8 = 0xc0;
const SOF_LAST: u8 = 0xcf;
/// Between the frames' markers stand three that are none: DHT, JPG, DAC.
const NO_SOF: [u8; 3] = [0xc4, 0xc8, 0xcc];
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;

/// One marker of a JPEG, and where what belongs to it starts and ends.
struct Segment {
    marker: u8,
    body: usize,
    end: usize,
}

/// The segment whose marker stands at `at` or, after bytes that are none, behind it.
fn segment(bytes: &[u8], at: usize) -> Option<Segment> {
    let before = bytes.get(at..)?.windows(2).position(|two| is_marker(two[0], two[1]))?;
    let (marker, body) = (bytes[at + before + 1], at + before + 2);
    let end = if is_bare(marker) {
        body
    } else {
        let length = bytes.get(body..body + 2)?;
        body + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2)
    };
    (end <= bytes.len()).then_some(Segment { marker, body, end })
}

/// Within a scan 0xFF 0x00 is a byte of it, as restart markers are; 0xFF 0xFF is padding.
fn is_marker(first: u8, second: u8) -> bool {
    first == 0xff && !matches!(second, 0x00 | 0xd0..=0xd7 | 0xff)
}

/// Markers that no length follows: SOI, EOI, TEM.
fn is_bare(marker: u8) -> bool {
    matches!(marker, 0x01 | 0xd8 | EOI)
}

/// Width and height of a JPEG by its first frame header; none if the bytes end before it.
pub fn jpeg_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let mut at = 0;
    loop {
        let Segment { marker, body, end } = segment(bytes, at)?;
        if matches!(marker, EOI | SOS) {
            return None;
        }
        if (SOF_FIRST..=SOF_LAST).contains(&marker) && !NO_SOF.contains(&marker) {
            let size = bytes.get(body + 3..body + 7)?;
            let side = |i: usize| u32::from(u16::from_be_bytes([size[i], size[i + 1]]));
            return Some((side(2), side(0)));
        }
        at = end;
    }
}

/// The first byte behind a JPEG's end; none if it doesn't end.
pub fn jpeg_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let Segment { marker, end, .. } = segment(bytes, at)?;
        if marker == EOI {
            return Some(end);
        }
        at = end;
    }
}

/// Width and height of a PNG by its header, which has to be its first chunk.
pub fn png_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let header = bytes.get(12..24)?;
    let side = |i: usize| {
        header.get(i..i + 4).and_then(|four| four.try_into().ok()).map(u32::from_be_bytes)
    };
    Some((side(4)?, side(8)?))
}
