//! Pictures from strangers: whatever the bytes, decoding ends within its limits, and what is
//! decoded can be cleaned, made small and decoded again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use punchtrail_vision::{PIXELS_MAX, Picture, SIDE_PX_MAX, THUMBNAIL_SIDE_PX};

/// Larger ones take as long to encode as all others together.
const ENCODED_PIXELS_MAX: u64 = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Ok(picture) = Picture::decode(bytes) else { return };
    let (width, height) = (picture.width(), picture.height());
    let pixels = u64::from(width) * u64::from(height);
    assert!(width.max(height) <= SIDE_PX_MAX && pixels <= PIXELS_MAX);
    assert_eq!(picture.rgb().len() as u64, 3 * pixels);
    if pixels > ENCODED_PIXELS_MAX {
        return;
    }
    let cleaned = Picture::decode(&picture.cleaned()).expect("what was encoded is a picture");
    assert_eq!((cleaned.width(), cleaned.height()), (width, height));
    let side = picture.fitted(THUMBNAIL_SIDE_PX);
    assert!(side.width().max(side.height()) <= THUMBNAIL_SIDE_PX);
    let _may_be_too_thin = Picture::decode(&picture.thumbnail());
});
