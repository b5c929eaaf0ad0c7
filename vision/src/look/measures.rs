//! What can be told of a face by plain sums over its pixels and marks.
//!
//! Everything is taken on the face as the embedder sees it, 112 x 112, so that the numbers don't
//! depend on how far away it was. What they can't see: whether the face is alive; a cap that leaves
//! the eyes free; a cover with a pattern (only flat ones stand out); glasses through which the eyes
//! are seen.

use crate::{Face, Picture, Point, faces::Crop, models::CROP_SIDE};

/// How good a face is, as it is shown and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quality {
    /// Mean luma, 0 to 100 of what is possible.
    pub brightness: u8,
    /// 0 to 100: `25 log10(1 + v)`, where v is the variance of the face's Laplacian over its luma
    /// of 0 to 255. A portrait has 60 to 85, one that is too blurred to compare under 20.
    pub sharpness: u8,
    /// The width of the face's box, in pixels of the picture.
    pub face_px: u32,
}

/// What was measured on one face. Luma is 0 to 255, as BT.601 weighs the colours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measures {
    /// Width of the face's box in pixels.
    pub face_px: f32,
    /// Mean luma of the face.
    pub luma: f32,
    /// Mean luma of the whole picture.
    pub picture_luma: f32,
    /// Luma of the darker half of the face, as a part of that of the lighter one.
    pub side_light: f32,
    /// Variance of the Laplacian.
    pub laplacian: f32,
    /// How far the nose is from between the eyes, along their line, in distances between them:
    /// about 0 from the front, beyond 0.35 turned away, towards 1 in profile.
    pub yaw: f32,
    /// How far down the nose is between eyes and mouth: about 0.5 from the front. There were no
    /// pictures to say how far it goes for one that looks up or down.
    pub pitch: f32,
    /// How much of the face's box lies within the picture, 0 to 1.
    pub inside: f32,
    /// How much there is to see at the eye with less of it: the deviation of its patch's luma as a
    /// part of its mean, so that a weak light or one from the side doesn't change it. Next to
    /// nothing if a flat thing covers it.
    pub eyes: f32,
    /// Luma of the lighter eye's patch as a part of the cheeks'. Dark glasses make it small.
    pub eyes_luma: f32,
    /// The same as `eyes`, of the mouth.
    pub mouth: f32,
    /// How far the mouth's colour is from the cheeks', as chroma of 0 to 180: a beard has up to 30.
    pub mouth_chroma: f32,
    /// The embedding's norm; none if none was made.
    pub norm: Option<f32>,
}

/// A rectangle in the crop, its edges in pixels, right and lower excluded.
struct Patch {
    left: usize,
    top: usize,
    right: usize,
    bottom: usize,
}

const FACE: Patch = Patch { left: 20, top: 24, right: 92, bottom: 108 };
const FACE_LEFT: Patch = Patch { right: 56, ..FACE };
const FACE_RIGHT: Patch = Patch { left: 56, ..FACE };
const EYES: [Patch; 2] = [
    Patch { left: 29, top: 47, right: 48, bottom: 58 },
    Patch { left: 64, top: 47, right: 83, bottom: 58 },
];
const MOUTH: Patch = Patch { left: 38, top: 85, right: 74, bottom: 101 };
const CHEEKS: [Patch; 2] = [
    Patch { left: 24, top: 62, right: 42, bottom: 74 },
    Patch { left: 70, top: 62, right: 88, bottom: 74 },
];

impl Quality {
    pub(super) fn of(measures: &Measures) -> Self {
        Self {
            brightness: percent(measures.luma / 255.0 * 100.0),
            sharpness: percent(25.0 * (1.0 + measures.laplacian).log10()),
            face_px: measures.face_px.max(0.0) as u32,
        }
    }
}

fn percent(value: f32) -> u8 {
    value.round().clamp(0.0, 100.0) as u8
}

impl Measures {
    /// `inside` and `norm` as the fields of these names; `small` is the whole picture.
    pub(super) fn of(
        face: &Face,
        crop: &Crop,
        small: &Picture,
        inside: f32,
        norm: Option<f32>,
    ) -> Self {
        let luma: Vec<f32> = crop.pixels.iter().map(|pixel| luma_of(*pixel)).collect();
        let mean_of = |patch: &Patch| mean(patch.of(&luma));
        let [left, right] = [&FACE_LEFT, &FACE_RIGHT].map(mean_of);
        let cheeks = CHEEKS.each_ref().map(mean_of).iter().sum::<f32>() / 2.0;
        let eyes = EYES.each_ref().map(|eye| detail(eye, &luma));
        let eyes_luma = EYES.each_ref().map(mean_of).into_iter().fold(0.0, f32::max);
        let [yaw, pitch] = pose(&face.marks);
        Self {
            face_px: face.width,
            luma: mean_of(&FACE),
            picture_luma: picture_luma(small),
            side_light: left.min(right) / left.max(right).max(1.0),
            laplacian: laplacian(&luma),
            yaw,
            pitch,
            inside,
            eyes: eyes[0].min(eyes[1]),
            eyes_luma: eyes_luma / cheeks.max(1.0),
            mouth: detail(&MOUTH, &luma),
            mouth_chroma: mouth_chroma(crop),
            norm,
        }
    }
}

impl Patch {
    fn of<'a, T: Copy>(&self, whole: &'a [T]) -> impl Iterator<Item = T> + Clone + use<'a, T> {
        let (left, right) = (self.left, self.right);
        let rows = whole.chunks_exact(CROP_SIDE).skip(self.top).take(self.bottom - self.top);
        rows.flat_map(move |row| row.iter().take(right).skip(left).copied())
    }
}

fn luma_of([red, green, blue]: [f32; 3]) -> f32 {
    0.299 * red + 0.587 * green + 0.114 * blue
}

fn mean(values: impl Iterator<Item = f32>) -> f32 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    sum / f32::max(count, 1.0)
}

/// Deviation as a part of the mean.
fn detail(patch: &Patch, luma: &[f32]) -> f32 {
    variance(patch.of(luma)).sqrt() / mean(patch.of(luma)).max(1.0)
}

fn variance(values: impl Iterator<Item = f32> + Clone) -> f32 {
    let middle = mean(values.clone());
    mean(values.map(|value| (value - middle) * (value - middle)))
}

/// Each pixel against its four neighbours; the crop's outer pixels have none and are left out.
fn laplacian(luma: &[f32]) -> f32 {
    let inner = (1..CROP_SIDE - 1).flat_map(|y| (1..CROP_SIDE - 1).map(move |x| y * CROP_SIDE + x));
    variance(inner.map(|i| {
        luma[i - 1] + luma[i + 1] + luma[i - CROP_SIDE] + luma[i + CROP_SIDE] - 4.0 * luma[i]
    }))
}

fn picture_luma(small: &Picture) -> f32 {
    let pixels = small.rgb().as_chunks::<3>().0;
    mean(pixels.iter().map(|pixel| luma_of(pixel.map(f32::from))))
}

/// Yaw and pitch, both in the face's own directions, so that a head held aslant reads the same.
fn pose([left_eye, right_eye, nose, left_mouth, right_mouth]: &[Point; 5]) -> [f32; 2] {
    let between = |a: &Point, b: &Point| Point { x: (a.x + b.x) / 2.0, y: (a.y + b.y) / 2.0 };
    let (eyes, mouth) = (between(left_eye, right_eye), between(left_mouth, right_mouth));
    let (across_x, across_y) = (right_eye.x - left_eye.x, right_eye.y - left_eye.y);
    let apart = across_x.hypot(across_y).max(1.0);
    let (unit_x, unit_y) = (across_x / apart, across_y / apart);
    let (nose_x, nose_y) = (nose.x - eyes.x, nose.y - eyes.y);
    let down = (mouth.y - eyes.y) * unit_x - (mouth.x - eyes.x) * unit_y;
    let nose_down = nose_y * unit_x - nose_x * unit_y;
    [(nose_x * unit_x + nose_y * unit_y) / apart, nose_down / down.max(1.0)]
}

fn mouth_chroma(crop: &Crop) -> f32 {
    let chroma = |patch: &Patch| {
        let pixels = patch.of(&crop.pixels);
        let luma = |pixel: [f32; 3]| luma_of(pixel);
        let blue = mean(pixels.clone().map(|pixel| 0.564 * (pixel[2] - luma(pixel))));
        let red = mean(pixels.map(|pixel| 0.713 * (pixel[0] - luma(pixel))));
        [blue, red]
    };
    let [left, right] = [&CHEEKS[0], &CHEEKS[1]].map(chroma);
    let mouth = chroma(&MOUTH);
    f32::hypot(mouth[0] - (left[0] + right[0]) / 2.0, mouth[1] - (left[1] + right[1]) / 2.0)
}
