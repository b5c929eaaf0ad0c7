//! From measures to what a worker is told, the first thing first.

use punchtrail_protocol::guidance::Guidance;

use super::{Measures, Quality};
use crate::Face;

/// What a picture has to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floors {
    /// The darkest that a face may be, 0 to 100.
    pub brightness_min: u8,
    /// The lightest that a face may be, 0 to 100.
    pub brightness_max: u8,
    /// The least sharpness, 0 to 100, as [`Quality::sharpness`] scales it.
    pub sharpness_min: u8,
    /// The least width of a face's box, in pixels of the picture.
    pub face_px_min: u32,
}

impl Default for Floors {
    /// As measured on the portraits that the tests use and on what was made of them by plain sums
    /// (another picture of the same person has a similarity of 0.60 or more to the untouched ones,
    /// and is taken from 0.40 on):
    ///
    /// - brightness of untouched ones 36 to 64; at 3 to 6 they still had 0.50 and more, at 1 to 3
    ///   not; at 85 still 0.55, beyond 90 down to 0.30;
    /// - sharpness of untouched ones 60 to 81; of blurred ones at 24 to 28 still 0.53 and more, at
    ///   12 to 19 down to 0.44, at 8 to 13 down to 0.35;
    /// - width: faces of 40 pixels were still recognised, of 24 not always.
    fn default() -> Self {
        Self { brightness_min: 10, brightness_max: 85, sharpness_min: 22, face_px_min: 80 }
    }
}

/// A second face counts if it is this part as wide as the first: then both stand before the device.
/// A smaller one is somebody in the background, a poster, a face on a shirt.
const SECOND_FACE: f32 = 0.6;
/// With less of it in the picture, a face isn't before the camera.
const INSIDE_MIN: f32 = 0.8;
/// The light is behind a dark face if the picture is this many times as light.
const LIGHT_BEHIND: f32 = 2.0;
/// One half of the face has less than this part of the other's light. Those with 0.16 were still
/// recognised.
const SIDE_LIGHT_MIN: f32 = 0.12;
/// The face is turned away, left or right: up to 0.20 from the front, 0.86 in profile.
const YAW_MAX: f32 = 0.35;
/// Up or down: 0.49 to 0.69 from the front. Wide, since there was no picture of another.
const PITCH: std::ops::RangeInclusive<f32> = 0.25..=0.85;
/// Flat things over an eye had 0.00, bare eyes 0.17 and more.
const EYES_MIN: f32 = 0.10;
/// Black bars had up to 0.16, bare eyes 0.42 and more.
const EYES_LUMA_MIN: f32 = 0.25;
/// Flat masks had 0.00, bare mouths 0.11 and more.
const MOUTH_MIN: f32 = 0.06;
/// Blue masks had 30 to 80, bare mouths up to 28. White and black ones have no colour of their own.
const MOUTH_CHROMA_MAX: f32 = 33.0;
/// Portraits had 12 and more, and below this hardly any was recognised. What isn't a face has less
/// than 6.
const NORM_MIN: f32 = 9.0;

/// Whether a second face is as near as the first.
pub fn several(faces: &[Face]) -> bool {
    matches!(faces, [first, second, ..] if second.width >= first.width * SECOND_FACE)
}

/// What to do, the first thing first; nothing if the picture can be compared. `covered_head` leaves
/// out what would ask for the head to be bared.
///
/// The order is that of what has to be right for the next to be told at all: a face turned away has
/// eyes and mouth elsewhere, one that is too dark has no edges, one that is blurred or burnt out is
/// as flat as a mask.
pub fn guide(
    faces: &[Face],
    measures: Option<&Measures>,
    floors: &Floors,
    covered_head: bool,
) -> Vec<Guidance> {
    let Some(measures) = measures else { return vec![Guidance::LookAtCamera] };
    let quality = Quality::of(measures);
    let (dark, light) =
        (quality.brightness < floors.brightness_min, quality.brightness > floors.brightness_max);
    let blurred = !dark && quality.sharpness < floors.sharpness_min;
    let turned = measures.yaw.abs() > YAW_MAX || !PITCH.contains(&measures.pitch);
    let clear = !light && !blurred && !turned;
    let said = [
        (measures.inside < INSIDE_MIN, Guidance::LookAtCamera),
        (several(faces), Guidance::OnePerson),
        (quality.face_px < floors.face_px_min, Guidance::ComeCloser),
        (dark && !measures.light_behind(), Guidance::MoreLight),
        (light || dark && measures.light_behind(), Guidance::LightBehind),
        (!dark && measures.side_light < SIDE_LIGHT_MIN, Guidance::MoreLight),
        (blurred, Guidance::HoldStill),
        (clear && !covered_head && measures.eyes_covered(), Guidance::TakeOffCapOrGlasses),
        (clear && measures.mouth_covered(), Guidance::UncoverFace),
        (turned, Guidance::LookAtCamera),
    ];
    let mut guidance: Vec<Guidance> = Vec::new();
    for (_, what) in said.into_iter().filter(|(wrong, _)| *wrong) {
        if !guidance.contains(&what) {
            guidance.push(what);
        }
    }
    if guidance.is_empty() && measures.norm.is_none_or(|norm| norm < NORM_MIN) {
        guidance.push(Guidance::LookAtCamera);
    }
    guidance
}

impl Measures {
    fn light_behind(&self) -> bool {
        self.picture_luma > self.luma.max(1.0) * LIGHT_BEHIND
    }

    fn eyes_covered(&self) -> bool {
        self.eyes < EYES_MIN || self.eyes_luma < EYES_LUMA_MIN
    }

    fn mouth_covered(&self) -> bool {
        self.mouth < MOUTH_MIN || self.mouth_chroma > MOUTH_CHROMA_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Point;

    const GOOD: Measures = Measures {
        face_px: 250.0,
        luma: 130.0,
        picture_luma: 125.0,
        side_light: 0.8,
        laplacian: 900.0,
        yaw: 0.02,
        pitch: 0.58,
        inside: 1.0,
        eyes: 0.4,
        eyes_luma: 0.6,
        mouth: 0.36,
        mouth_chroma: 9.0,
        norm: Some(12.8),
    };

    fn face(width: f32) -> Face {
        let marks = [Point { x: 0.0, y: 0.0 }; 5];
        Face { x: 0.0, y: 0.0, width, height: width, score: 0.9, marks }
    }

    fn told(measures: Measures) -> Vec<Guidance> {
        guide(&[face(250.0)], Some(&measures), &Floors::default(), false)
    }

    #[test]
    fn each_measure_has_its_own_guidance() {
        assert_eq!(told(GOOD), []);
        for (measures, wanted) in [
            (Measures { inside: 0.7, ..GOOD }, Guidance::LookAtCamera),
            (Measures { face_px: 79.0, ..GOOD }, Guidance::ComeCloser),
            (Measures { luma: 20.0, picture_luma: 25.0, ..GOOD }, Guidance::MoreLight),
            (Measures { luma: 20.0, ..GOOD }, Guidance::LightBehind),
            (Measures { luma: 230.0, ..GOOD }, Guidance::LightBehind),
            (Measures { side_light: 0.1, ..GOOD }, Guidance::MoreLight),
            (Measures { laplacian: 5.0, ..GOOD }, Guidance::HoldStill),
            (Measures { eyes: 0.0, ..GOOD }, Guidance::TakeOffCapOrGlasses),
            (Measures { eyes_luma: 0.1, ..GOOD }, Guidance::TakeOffCapOrGlasses),
            (Measures { mouth: 0.0, ..GOOD }, Guidance::UncoverFace),
            (Measures { mouth_chroma: 50.0, ..GOOD }, Guidance::UncoverFace),
            (Measures { yaw: -0.86, ..GOOD }, Guidance::LookAtCamera),
            (Measures { pitch: 0.1, ..GOOD }, Guidance::LookAtCamera),
            (Measures { norm: Some(5.5), ..GOOD }, Guidance::LookAtCamera),
        ] {
            assert_eq!(told(measures), [wanted], "{measures:?}");
        }
        assert_eq!(guide(&[], None, &Floors::default(), false), [Guidance::LookAtCamera]);
    }

    #[test]
    fn several_are_told_in_order_and_what_the_first_hides_is_not() {
        let bad = Measures { face_px: 50.0, luma: 20.0, laplacian: 1.0, mouth: 0.0, ..GOOD };
        let order = [Guidance::ComeCloser, Guidance::LightBehind, Guidance::UncoverFace];
        assert_eq!(told(bad), order, "in the dark there are no edges to judge sharpness by");
        let profile = Measures { yaw: 0.8, eyes: 0.0, mouth: 0.0, ..GOOD };
        assert_eq!(told(profile), [Guidance::LookAtCamera]);
        let burnt = Measures { luma: 250.0, eyes: 0.0, ..GOOD };
        assert_eq!(told(burnt), [Guidance::LightBehind]);
    }

    #[test]
    fn a_second_face_counts_from_six_tenths_on() {
        for (second, counts) in [(150.0, true), (149.0, false), (250.0, true)] {
            let faces = [face(250.0), face(second)];
            let told = guide(&faces, Some(&GOOD), &Floors::default(), false);
            assert_eq!(told.contains(&Guidance::OnePerson), counts);
        }
    }

    #[test]
    fn nobody_is_asked_to_bare_a_head_that_stays_covered() {
        let covered = Measures { eyes: 0.0, eyes_luma: 0.1, ..GOOD };
        assert_eq!(guide(&[face(250.0)], Some(&covered), &Floors::default(), true), []);
    }
}
