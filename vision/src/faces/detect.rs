//! From the detector's numbers to faces (YuNet, as OpenCV's `FaceDetectorYN` reads it).

use super::{Face, Point};
use crate::{
    Models, Picture,
    models::{STRIDES, Signals},
};

/// The longest sides that a picture is looked at with, first the one that is tried first.
pub const SIDES_PX: [u32; 2] = [320, 640];
/// Sides of the detector's input are multiples of its greatest stride.
const MULTIPLE: usize = STRIDES[2];
/// Below this it is no face. Portraits have 0.9; what is heavily blurred falls below.
const SCORE_MIN: f32 = 0.6;
/// Boxes that share more than this are boxes of one face.
const OVERLAP_MAX: f32 = 0.3;
/// At the first side a face has to be so wide, in pixels, for its marks to be placed well.
const FIRST_WIDTH_MIN: f32 = 48.0;
/// More faces than this are not listed: one is one too many already.
const FACES_MAX: usize = 16;
/// A box can't be longer than e^this strides, whatever the numbers say.
const LOG_SIDE_MAX: f32 = 6.0;

/// A picture as the detector takes it: planes of blue, green and red, 0 to 255, filled up with
/// black to the right and below.
pub struct Input {
    pub planes: Vec<f32>,
    pub width: usize,
    pub height: usize,
    /// What was made smaller, as pixels: the picture's light is measured on it.
    pub small: Picture,
}

/// The faces, and the input they were found in.
pub fn faces(models: &Models, picture: &Picture) -> (Vec<Face>, Input) {
    let [first_side, second_side] = SIDES_PX;
    let input = Input::of(picture, first_side);
    let found = at(models, picture, &input);
    let shrunk = input.small.width() as f32 / picture.width() as f32;
    let good = found.first().is_some_and(|face| face.width * shrunk >= FIRST_WIDTH_MIN);
    if good || picture.width().max(picture.height()) <= first_side {
        return (found, input);
    }
    let input = Input::of(picture, second_side);
    (at(models, picture, &input), input)
}

fn at(models: &Models, picture: &Picture, input: &Input) -> Vec<Face> {
    let scale = picture.width() as f32 / input.small.width() as f32;
    let signals = models.detect(&input.planes, input.width, input.height);
    let found = signals.iter().flat_map(|signals| candidates(signals, input.width));
    let mut faces = best_of_each(found.collect());
    for face in &mut faces {
        face.scale(scale);
    }
    faces.sort_by(|a, b| b.width.total_cmp(&a.width));
    faces
}

impl Input {
    /// The picture with its longest side at most so long, in pixels.
    pub fn of(picture: &Picture, side_px: u32) -> Self {
        let small = picture.fitted(side_px);
        let (columns, rows) = (small.width() as usize, small.height() as usize);
        let (width, height) = (columns.next_multiple_of(MULTIPLE), rows.next_multiple_of(MULTIPLE));
        let mut planes = vec![0.0; 3 * width * height];
        for (plane, channel) in planes.chunks_exact_mut(width * height).zip([2, 1, 0]) {
            let lines = plane.chunks_exact_mut(width);
            for (line, row) in lines.zip(small.rgb().chunks_exact(3 * columns)) {
                for (value, pixel) in line.iter_mut().zip(row.as_chunks::<3>().0) {
                    *value = f32::from(pixel[channel]);
                }
            }
        }
        Self { planes, width, height, small }
    }
}

/// Each place of one stride that is sure enough of a face.
fn candidates(signals: &Signals, width: usize) -> impl Iterator<Item = Face> {
    let columns = width / signals.stride;
    let stride = signals.stride as f32;
    let scores = signals.cls.iter().zip(&signals.obj);
    let marks = signals.kps.as_chunks::<10>().0;
    let places = scores.zip(signals.bbox.as_chunks::<4>().0).zip(marks).enumerate();
    places.filter_map(move |(i, (((cls, obj), bbox), kps))| {
        let score = (cls.clamp(0.0, 1.0) * obj.clamp(0.0, 1.0)).sqrt();
        let (column, row) = ((i % columns) as f32, (i / columns) as f32);
        // Not `<`: a score that is no number isn't one of a face.
        (score >= SCORE_MIN).then(|| face(score, bbox, kps, [column, row], stride))
    })
}

fn face(score: f32, bbox: &[f32; 4], kps: &[f32; 10], place: [f32; 2], stride: f32) -> Face {
    let [column, row] = place;
    let [width, height] = [bbox[2], bbox[3]].map(|log| log.min(LOG_SIDE_MAX).exp() * stride);
    let mut marks = [Point { x: 0.0, y: 0.0 }; 5];
    for (mark, [x, y]) in marks.iter_mut().zip(kps.as_chunks::<2>().0) {
        *mark = Point { x: (column + x) * stride, y: (row + y) * stride };
    }
    Face {
        x: (column + bbox[0]) * stride - width / 2.0,
        y: (row + bbox[1]) * stride - height / 2.0,
        width,
        height,
        score,
        marks,
    }
}

fn best_of_each(mut found: Vec<Face>) -> Vec<Face> {
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Face> = Vec::new();
    for face in found {
        if kept.len() < FACES_MAX && kept.iter().all(|other| face.overlap(other) <= OVERLAP_MAX) {
            kept.push(face);
        }
    }
    kept
}

impl Face {
    fn scale(&mut self, by: f32) {
        let numbers = [&mut self.x, &mut self.y, &mut self.width, &mut self.height];
        let marks = self.marks.iter_mut().flat_map(|mark| [&mut mark.x, &mut mark.y]);
        for number in numbers.into_iter().chain(marks) {
            *number *= by;
        }
    }

    /// How much of the box lies within the picture, 0 to 1.
    pub(crate) fn inside(&self, picture: &Picture) -> f32 {
        let (width, height) = (picture.width() as f32, picture.height() as f32);
        let both =
            shared(self.x, self.width, 0.0, width) * shared(self.y, self.height, 0.0, height);
        both / (self.width * self.height).max(1.0)
    }

    /// What two boxes share, as a part of what both cover.
    fn overlap(&self, other: &Self) -> f32 {
        let both = shared(self.x, self.width, other.x, other.width)
            * shared(self.y, self.height, other.y, other.height);
        let all = self.width * self.height + other.width * other.height - both;
        if all > 0.0 { both / all } else { 0.0 }
    }
}

/// How long the piece is that two lie on, each from its start and so long.
fn shared(a: f32, a_side: f32, b: f32, b_side: f32) -> f32 {
    ((a + a_side).min(b + b_side) - a.max(b)).max(0.0)
}
