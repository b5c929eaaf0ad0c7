//! A face brought to the place and size that the embedder was trained on.

use super::{Face, Point};
use crate::{Picture, models::CROP_SIDE};

/// Where the embedder wants the five marks, in pixels of a crop of 112 x 112 (the template that
/// ArcFace and SFace share): left eye, right eye, nose, corners of the mouth.
pub const TEMPLATE: [Point; 5] = [
    Point { x: 38.2946, y: 51.6963 },
    Point { x: 73.5318, y: 51.5014 },
    Point { x: 56.0252, y: 71.7366 },
    Point { x: 41.5493, y: 92.3655 },
    Point { x: 70.7299, y: 92.2041 },
];
/// So many samples a side are averaged for one pixel of the crop at most, when the face is larger.
const SAMPLES_MAX: f32 = 2.0;

/// 112 x 112 pixels, red, green and blue, 0 to 255, row by row.
pub struct Crop {
    pub pixels: Vec<[f32; 3]>,
}

/// Turns, scales and moves, and does nothing else: `x' = a x - b y + dx`, `y' = b x + a y + dy`.
#[derive(Debug, Clone, Copy)]
struct Similarity {
    a: f32,
    b: f32,
    dx: f32,
    dy: f32,
}

impl Crop {
    /// None if the face's marks all lie in one place.
    pub fn of(picture: &Picture, face: &Face) -> Option<Self> {
        let back = Similarity::between(&TEMPLATE, &face.marks)?;
        let samples = back.scale().round().clamp(1.0, SAMPLES_MAX) as usize;
        let mut pixels = Vec::with_capacity(CROP_SIDE * CROP_SIDE);
        for y in 0..CROP_SIDE {
            for x in 0..CROP_SIDE {
                pixels.push(average(picture, &back, x as f32, y as f32, samples));
            }
        }
        Some(Self { pixels })
    }

    /// As the embedder takes it: planes of red, green and blue.
    pub fn planes(&self) -> Vec<f32> {
        (0..3).flat_map(|channel| self.pixels.iter().map(move |pixel| pixel[channel])).collect()
    }
}

fn average(picture: &Picture, back: &Similarity, x: f32, y: f32, samples: usize) -> [f32; 3] {
    let step = 1.0 / samples as f32;
    let first = (step - 1.0) / 2.0;
    let mut sum = [0.0; 3];
    for i in 0..samples * samples {
        let (across, down) = ((i % samples) as f32 * step, (i / samples) as f32 * step);
        let sample = between_pixels(picture, back.apply(x + first + across, y + first + down));
        for (all, one) in sum.iter_mut().zip(sample) {
            *all += one;
        }
    }
    sum.map(|all| all * step * step)
}

/// The colour at a place between pixels; black outside the picture.
fn between_pixels(picture: &Picture, at: Point) -> [f32; 3] {
    let (left, top) = (at.x.floor(), at.y.floor());
    let (right_part, low_part) = (at.x - left, at.y - top);
    let corners = [
        (0.0, 0.0, (1.0 - right_part) * (1.0 - low_part)),
        (1.0, 0.0, right_part * (1.0 - low_part)),
        (0.0, 1.0, (1.0 - right_part) * low_part),
        (1.0, 1.0, right_part * low_part),
    ];
    let mut colour = [0.0; 3];
    for (across, down, part) in corners {
        if let Some(pixel) = pixel(picture, left + across, top + down) {
            for (all, one) in colour.iter_mut().zip(pixel) {
                *all += f32::from(*one) * part;
            }
        }
    }
    colour
}

fn pixel(picture: &Picture, x: f32, y: f32) -> Option<&[u8; 3]> {
    let inside = x >= 0.0 && y >= 0.0 && x < picture.width() as f32 && y < picture.height() as f32;
    let index = inside.then(|| y as usize * picture.width() as usize + x as usize)?;
    picture.rgb().as_chunks::<3>().0.get(index)
}

impl Similarity {
    /// The one that brings `from` nearest to `to` (least squares).
    fn between(from: &[Point; 5], to: &[Point; 5]) -> Option<Self> {
        let (from_middle, to_middle) = (middle(from), middle(to));
        let (mut a, mut b, mut spread, mut target) = (0.0, 0.0, 0.0, 0.0);
        for (from, to) in from.iter().zip(to) {
            let (x, y) = (from.x - from_middle.x, from.y - from_middle.y);
            let (to_x, to_y) = (to.x - to_middle.x, to.y - to_middle.y);
            a += x * to_x + y * to_y;
            b += x * to_y - y * to_x;
            spread += x * x + y * y;
            target += to_x * to_x + to_y * to_y;
        }
        let (a, b) = (a / spread, b / spread);
        let some = a.is_finite() && b.is_finite() && target > 1.0;
        some.then_some(Self {
            a,
            b,
            dx: to_middle.x - a * from_middle.x + b * from_middle.y,
            dy: to_middle.y - b * from_middle.x - a * from_middle.y,
        })
    }

    fn apply(&self, x: f32, y: f32) -> Point {
        Point { x: self.a * x - self.b * y + self.dx, y: self.b * x + self.a * y + self.dy }
    }

    fn scale(&self) -> f32 {
        self.a.hypot(self.b)
    }
}

fn middle(points: &[Point; 5]) -> Point {
    let sum = |of: fn(&Point) -> f32| points.iter().map(of).sum::<f32>() / 5.0;
    Point { x: sum(|point| point.x), y: sum(|point| point.y) }
}
