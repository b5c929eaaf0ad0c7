//! What Rekognition says of faces, read; and what a worker can do where a face can't be compared.
//!
//! Brightness, sharpness and size are held against the site's policy. The other bounds are fixed:
//! they follow what Amazon advises for pictures to be compared.

use aws_sdk_rekognition::types::FaceDetail;
use punchtrail_domain::punch::{Failing, Floors, Miss, Quality};
use punchtrail_protocol::guidance::Guidance;

use super::super::Asked;

/// From which confidence on something is taken to be so, in percent: a face to be one, sunglasses
/// to be worn.
const CONFIDENCE_MIN: f32 = 90.0;
/// Another face is as near as the largest if it is this part of its width.
const AS_NEAR: f32 = 0.6;
/// How far a face may be turned to a side.
const YAW_MAX_DEG: f32 = 45.0;
/// How far it may look up or down. Amazon advises 30 down and 45 up, and doesn't say which of the
/// two is negative, so this is the wider one for both.
const PITCH_MAX_DEG: f32 = 45.0;

/// One face on a picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Face {
    /// That it is one, in percent.
    confidence: f32,
    /// As a part of the picture's.
    width: f32,
    brightness: f32,
    sharpness: f32,
    yaw_deg: f32,
    pitch_deg: f32,
    eyes_are_shut: bool,
    wears_sunglasses: bool,
    is_covered: bool,
}

impl Face {
    /// Reads one; none if it lacks what the API always tells, or tells no number.
    pub(super) fn read(detail: &FaceDetail) -> Option<Self> {
        let (quality, pose) = (detail.quality()?, detail.pose()?);
        let finite = |value: Option<f32>| value.filter(|value| value.is_finite());
        let sure = |value: bool, confidence: Option<f32>| {
            value && confidence.is_some_and(|confidence| confidence >= CONFIDENCE_MIN)
        };
        let (eyes, glasses) = (detail.eyes_open(), detail.sunglasses());
        Some(Self {
            confidence: finite(detail.confidence())?,
            width: finite(detail.bounding_box()?.width())?,
            brightness: finite(quality.brightness())?,
            sharpness: finite(quality.sharpness())?,
            yaw_deg: finite(pose.yaw())?,
            pitch_deg: finite(pose.pitch())?,
            eyes_are_shut: eyes.is_some_and(|eyes| sure(!eyes.value(), eyes.confidence())),
            wears_sunglasses: glasses.is_some_and(|worn| sure(worn.value(), worn.confidence())),
            is_covered: detail
                .face_occluded()
                .is_some_and(|covered| sure(covered.value(), covered.confidence())),
        })
    }

    fn quality(&self, picture_width_px: u32) -> Quality {
        // Saturating; a face that goes over the edge may be told as wider than the picture.
        let percent = |value: f32| value.round().clamp(0.0, 100.0) as u8;
        Quality {
            brightness: percent(self.brightness),
            sharpness: percent(self.sharpness),
            face_px: (f64::from(self.width) * f64::from(picture_width_px)).round() as u32,
        }
    }

    /// What the worker can do, the first thing first; nothing for a face that can be compared.
    fn guidance(&self, quality: Quality, floors: Floors, covered_head: bool) -> Vec<Guidance> {
        let is_turned = self.yaw_deg.abs() > YAW_MAX_DEG || self.pitch_deg.abs() > PITCH_MAX_DEG;
        // Sunglasses count as a cover, and so may a scarf, which is expected of a covered head.
        let has_cover = self.is_covered && !self.wears_sunglasses && !covered_head;
        [
            (quality.face_px < floors.face_px_min, Guidance::ComeCloser),
            (quality.brightness < floors.brightness_min, Guidance::MoreLight),
            (quality.brightness > floors.brightness_max, Guidance::LightBehind),
            (quality.sharpness < floors.sharpness_min, Guidance::HoldStill),
            (self.wears_sunglasses, Guidance::TakeOffCapOrGlasses),
            (has_cover, Guidance::UncoverFace),
            (is_turned || self.eyes_are_shut, Guidance::LookAtCamera),
        ]
        .into_iter()
        .filter_map(|(so, guidance)| so.then_some(guidance))
        .collect()
    }
}

/// The quality of the one face that can be compared.
///
/// # Errors
/// What is wrong with the picture, and the quality of its largest face.
pub(super) fn clear(
    faces: &[Face],
    picture_width_px: u32,
    asked: &Asked<'_>,
) -> Result<Quality, (Option<Quality>, Failing)> {
    let faces = || faces.iter().filter(|face| face.confidence >= CONFIDENCE_MIN);
    let failing = |miss, guidance| Failing { miss, guidance };
    let Some(largest) = faces().max_by(|a, b| a.width.total_cmp(&b.width)) else {
        return Err((None, failing(Miss::NoFace, vec![Guidance::LookAtCamera])));
    };
    let quality = largest.quality(picture_width_px);
    if faces().filter(|face| face.width >= largest.width * AS_NEAR).count() > 1 {
        return Err((Some(quality), failing(Miss::SeveralFaces, vec![Guidance::OnePerson])));
    }
    let guidance = largest.guidance(quality, asked.floors, asked.covered_head);
    if guidance.is_empty() {
        return Ok(quality);
    }
    Err((Some(quality), failing(Miss::Unclear, guidance)))
}

#[cfg(test)]
mod tests {
    use super::{super::super::Thresholds, *};
    use crate::{identity::References, testing::photos::HeldPhotos};

    const GOOD: Face = Face {
        confidence: 99.9,
        width: 0.3,
        brightness: 70.0,
        sharpness: 80.0,
        yaw_deg: 5.0,
        pitch_deg: -5.0,
        eyes_are_shut: false,
        wears_sunglasses: false,
        is_covered: false,
    };

    const FLOORS: Floors =
        Floors { brightness_min: 30, brightness_max: 95, sharpness_min: 20, face_px_min: 100 };

    fn seen(faces: &[Face], covered_head: bool) -> Result<Quality, (Miss, Vec<Guidance>)> {
        let asked = Asked {
            picture: &[],
            references: References { photos: &[], store: &HeldPhotos::default() },
            floors: FLOORS,
            thresholds: Thresholds { rekognition: 9_900, local: 0 },
            covered_head,
        };
        clear(faces, 640, &asked).map_err(|(_, failing)| (failing.miss, failing.guidance))
    }

    #[test]
    fn a_good_face_is_compared_and_its_quality_told() {
        let quality = Quality { brightness: 70, sharpness: 80, face_px: 192 };
        assert_eq!(seen(&[GOOD], false), Ok(quality));
    }

    #[test]
    fn each_thing_that_is_wrong_has_its_guidance() {
        let wrong = [
            (Face { width: 0.15, ..GOOD }, Guidance::ComeCloser),
            (Face { brightness: 29.0, ..GOOD }, Guidance::MoreLight),
            (Face { brightness: 96.0, ..GOOD }, Guidance::LightBehind),
            (Face { sharpness: 19.0, ..GOOD }, Guidance::HoldStill),
            (Face { wears_sunglasses: true, ..GOOD }, Guidance::TakeOffCapOrGlasses),
            (Face { is_covered: true, ..GOOD }, Guidance::UncoverFace),
            (Face { yaw_deg: -46.0, ..GOOD }, Guidance::LookAtCamera),
            (Face { pitch_deg: 46.0, ..GOOD }, Guidance::LookAtCamera),
            (Face { eyes_are_shut: true, ..GOOD }, Guidance::LookAtCamera),
        ];
        for (face, guidance) in wrong {
            assert_eq!(seen(&[face], false), Err((Miss::Unclear, vec![guidance])), "{face:?}");
        }
    }

    #[test]
    fn what_is_on_the_bound_is_good_enough() {
        let bound = Face { brightness: 30.0, sharpness: 20.0, yaw_deg: 45.0, ..GOOD };
        assert!(seen(&[Face { width: 100.0 / 640.0, ..bound }], false).is_ok());
        assert!(seen(&[Face { brightness: 95.0, ..bound }], false).is_ok());
    }

    #[test]
    fn several_things_are_told_in_their_order_and_a_cause_before_its_effect() {
        let poor = Face {
            width: 0.1,
            sharpness: 1.0,
            wears_sunglasses: true,
            is_covered: true,
            eyes_are_shut: true,
            yaw_deg: 90.0,
            ..GOOD
        };
        let guidance = vec![
            Guidance::ComeCloser,
            Guidance::HoldStill,
            Guidance::TakeOffCapOrGlasses,
            Guidance::LookAtCamera,
        ];
        assert_eq!(seen(&[poor], false), Err((Miss::Unclear, guidance)));
    }

    #[test]
    fn nobody_with_a_covered_head_is_asked_to_uncover_it() {
        assert!(seen(&[Face { is_covered: true, ..GOOD }], true).is_ok());
        let glasses = Face { wears_sunglasses: true, is_covered: true, ..GOOD };
        let guidance = vec![Guidance::TakeOffCapOrGlasses];
        assert_eq!(seen(&[glasses], true), Err((Miss::Unclear, guidance)));
    }

    #[test]
    fn one_person_at_a_time_and_who_stands_behind_does_not_count() {
        let near = Face { width: 0.18, ..GOOD };
        let several = (Miss::SeveralFaces, vec![Guidance::OnePerson]);
        assert_eq!(seen(&[GOOD, near], false), Err(several));
        assert!(seen(&[Face { width: 0.17, ..GOOD }, GOOD], false).is_ok());
        assert!(seen(&[GOOD, Face { confidence: 60.0, ..GOOD }], false).is_ok(), "not a face");
    }

    #[test]
    fn where_there_is_no_face_the_worker_looks_at_the_camera() {
        let none = (Miss::NoFace, vec![Guidance::LookAtCamera]);
        assert_eq!(seen(&[], false), Err(none.clone()));
        assert_eq!(seen(&[Face { confidence: 89.0, ..GOOD }], false), Err(none));
    }

    #[test]
    fn a_face_without_what_the_api_always_tells_is_not_read() {
        assert_eq!(Face::read(&FaceDetail::builder().confidence(99.0).build()), None);
    }
}
