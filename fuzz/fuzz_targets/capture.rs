//! What is taken as a capture keeps every rule, is written as it was read, and is read alike by
//! those that read with less of a check.
#![no_main]

use libfuzzer_sys::fuzz_target;
use punchtrail_protocol::{
    capture::{
        APP_CHARS_MAX, BADGE_CHARS_MAX, CAPTURE_BYTES_MAX, Capture, CaptureText, Fragment,
        INTEGER_LIMIT, UTC_OFFSET_S_MAX,
    },
    strict_json,
};

fuzz_target!(|bytes: &[u8]| {
    let fragment = Fragment::of(bytes);
    assert!(fragment.seq.is_none_or(|seq| (1..INTEGER_LIMIT).contains(&seq)));
    let kept = Capture::parse_kept(bytes);
    let Ok(capture) = Capture::parse(bytes) else { return };
    assert!(bytes.len() <= CAPTURE_BYTES_MAX);
    assert_eq!(strict_json::check(bytes), Ok(()));
    assert_eq!(kept.as_ref(), Ok(&capture));
    assert_eq!(fragment.punch, Some(capture.punch));
    assert_eq!(fragment.seq, Some(capture.seq));
    assert_eq!(fragment.prev, Some(capture.prev));
    assert!(capture.v == 1 && capture.punch.is_v7());
    assert!((-UTC_OFFSET_S_MAX..=UTC_OFFSET_S_MAX).contains(&capture.utc_offset_s));
    assert!((1..INTEGER_LIMIT).contains(&capture.seq) && capture.uptime_ms < INTEGER_LIMIT);
    assert!(capture.employee.is_some() != capture.badge.is_some());
    let badge_chars = capture.badge.as_ref().map_or(1, |badge| badge.chars().count());
    assert!((1..=BADGE_CHARS_MAX).contains(&badge_chars));
    assert!(capture.app.chars().count() <= APP_CHARS_MAX);
    // What was written with escapes may be shorter or longer when it is written again.
    let written = capture.to_bytes();
    if written.len() <= CAPTURE_BYTES_MAX {
        assert_eq!(Capture::parse(&written), Ok(capture.clone()));
    }
    let text = String::from_utf8(bytes.to_vec()).expect("JSON is UTF-8");
    let text = CaptureText::taken(text).expect("what is a capture is taken as its text");
    assert_eq!(text.capture(), Ok(&capture));
    assert_eq!(text.as_str().as_bytes(), bytes);
});
