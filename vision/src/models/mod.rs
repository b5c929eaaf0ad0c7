//! The two models: YuNet finds faces, SFace turns one into numbers that can be compared.
//!
//! Their files aren't part of this repository; the caller brings their bytes, and only those that
//! are known here by their digest are taken. Both were trained by others on pictures that weren't
//! looked at here: what they do well, and for whom, is theirs (YuNet: MIT, SFace: Apache-2.0).

mod lanes;
mod weights;

use std::{num::NonZero, thread::available_parallelism};

use punchtrail_protocol::Digest;
use rten::{Model, ModelOptions, NodeId, Value, ValueView};

use lanes::Lanes;

/// The models and their versions, as it is kept beside each embedding: those of two different sets
/// of models can't be compared.
pub const MODEL: &str = "yunet-2023mar+sface-2021dec";

/// The detector's file, in the folder with both models.
pub const DETECTOR_FILE: &str = "detector.onnx";
/// The embedder's.
pub const EMBEDDER_FILE: &str = "embedder.onnx";

/// `face_detection_yunet_2023mar_int8bq.onnx`, 122,489 bytes.
const DETECTOR_SHA256: &str = "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10";
/// `face_recognition_sface_2021dec_int8bq.onnx`, 10,667,852 bytes.
const EMBEDDER_SHA256: &str = "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee";

/// The detector's outputs: of each kind one for each stride, in the order of [`STRIDES`].
const DETECTOR_OUTPUTS: [&str; 12] = [
    "cls_8", "cls_16", "cls_32", "obj_8", "obj_16", "obj_32", "bbox_8", "bbox_16", "bbox_32",
    "kps_8", "kps_16", "kps_32",
];
/// How many pixels apart the places are where the detector looks for a face.
pub const STRIDES: [usize; 3] = [8, 16, 32];

/// The side of the picture that the embedder takes, in pixels.
pub const CROP_SIDE: usize = 112;
/// How many numbers make an embedding.
pub const EMBEDDING_NUMBERS: usize = 128;

/// Why models can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error(
        "these bytes aren't the {role} that is known here: SHA-256 {found} in place of {wanted}"
    )]
    Unknown { role: &'static str, found: Digest, wanted: &'static str },
    #[error("the {role} can't be made ready: {reason}")]
    Unusable { role: &'static str, reason: String },
}

/// Both models, ready. Shared by reference; some 60 MB of memory.
///
/// Each run of a model takes one thread, and as many run at a time as there are lanes; who comes
/// when all are taken waits. So with a lane for each core a machine is never asked for more than it
/// has, however many threads call. Who must not block calls from a thread that may.
#[derive(Debug)]
pub struct Models {
    detector: Detector,
    embedder: Embedder,
    lanes: Lanes,
}

struct Detector {
    model: Model,
    input: NodeId,
    outputs: [NodeId; 12],
}

struct Embedder {
    model: Model,
    input: NodeId,
    output: NodeId,
}

/// What the detector says about one stride: `cls` and `obj` a number a place, `bbox` four,
/// `kps` ten.
pub struct Signals {
    pub stride: usize,
    pub cls: Vec<f32>,
    pub obj: Vec<f32>,
    pub bbox: Vec<f32>,
    pub kps: Vec<f32>,
}

impl Models {
    /// Makes both models ready, with one lane for each core that this process may use. Takes a
    /// fifth of a second.
    ///
    /// # Errors
    /// If the bytes aren't those known here by their SHA-256, or don't run.
    pub fn load(detector: &[u8], embedder: &[u8]) -> Result<Self, ModelError> {
        Self::load_with_lanes(
            detector,
            embedder,
            available_parallelism().unwrap_or(NonZero::<usize>::MIN),
        )
    }

    /// As [`Models::load`], with so many checks at a time as the caller says.
    ///
    /// # Errors
    /// As [`Models::load`].
    pub fn load_with_lanes(
        detector: &[u8],
        embedder: &[u8],
        lanes: NonZero<usize>,
    ) -> Result<Self, ModelError> {
        let models = Self {
            detector: Detector::load(detector)?,
            embedder: Embedder::load(embedder)?,
            lanes: Lanes::new(lanes),
        };
        models.try_out()?;
        Ok(models)
    }

    /// Runs both once on black. What works now works with any picture: only the numbers change, and
    /// the detector's sides. So a run that fails later is nothing that callers have to handle.
    fn try_out(&self) -> Result<(), ModelError> {
        let unusable = |role| ModelError::Unusable { role, reason: "it doesn't run".into() };
        let side = STRIDES[2];
        let black = vec![0.0; 3 * CROP_SIDE * CROP_SIDE];
        let signals = self.detector.run(&self.lanes, &black[..3 * side * side], side, side);
        signals.ok_or_else(|| unusable("detector"))?;
        self.numbers(&black).ok_or_else(|| unusable("embedder"))?;
        Ok(())
    }

    /// Runs the detector on a prepared picture: planes of blue, green, red, 0 to 255.
    pub(crate) fn detect(&self, planes: &[f32], width: usize, height: usize) -> Vec<Signals> {
        self.detector.run(&self.lanes, planes, width, height).unwrap_or_default()
    }

    /// Runs the embedder on a prepared face: planes of red, green, blue, 0 to 255.
    pub(crate) fn numbers(&self, planes: &[f32]) -> Option<Vec<f32>> {
        self.embedder.run(&self.lanes, planes)
    }
}

impl Detector {
    fn load(bytes: &[u8]) -> Result<Self, ModelError> {
        let role = "detector";
        let model = known_model(role, bytes, DETECTOR_SHA256)?;
        let node = |name| node(role, &model, name);
        let mut outputs = [node("input")?; 12];
        for (output, name) in outputs.iter_mut().zip(DETECTOR_OUTPUTS) {
            *output = node(name)?;
        }
        Ok(Self { input: node("input")?, outputs, model })
    }

    /// Sides have to be multiples of the greatest stride.
    fn run(
        &self,
        lanes: &Lanes,
        planes: &[f32],
        width: usize,
        height: usize,
    ) -> Option<Vec<Signals>> {
        let input = ValueView::from_shape([1, 3, height, width], planes).ok()?;
        let options = lanes.take();
        let outputs = self
            .model
            .run_n(vec![(self.input, input.into())], self.outputs, Some(options.run_options()))
            .ok()?;
        let mut numbers = outputs.into_iter().map(numbers_of);
        let mut next = || -> Option<[Vec<f32>; 3]> {
            Some([numbers.next()??, numbers.next()??, numbers.next()??])
        };
        let (cls, obj, bbox, kps) = (next()?, next()?, next()?, next()?);
        let of_stride = STRIDES.into_iter().zip(cls).zip(obj).zip(bbox).zip(kps);
        Some(
            of_stride
                .map(|((((stride, cls), obj), bbox), kps)| Signals { stride, cls, obj, bbox, kps })
                .collect(),
        )
    }
}

impl Embedder {
    fn load(bytes: &[u8]) -> Result<Self, ModelError> {
        let role = "embedder";
        let model = known_model(role, bytes, EMBEDDER_SHA256)?;
        Ok(Self { input: node(role, &model, "data")?, output: node(role, &model, "fc1")?, model })
    }

    fn run(&self, lanes: &Lanes, planes: &[f32]) -> Option<Vec<f32>> {
        let input = ValueView::from_shape([1, 3, CROP_SIDE, CROP_SIDE], planes).ok()?;
        let options = lanes.take();
        let [output] = self
            .model
            .run_n(vec![(self.input, input.into())], [self.output], Some(options.run_options()))
            .ok()?;
        numbers_of(output).filter(|numbers| numbers.len() == EMBEDDING_NUMBERS)
    }
}

fn numbers_of(output: Value) -> Option<Vec<f32>> {
    output.into_tensor::<f32>().map(|tensor| tensor.into_data())
}

fn known_model(
    role: &'static str,
    bytes: &[u8],
    wanted: &'static str,
) -> Result<Model, ModelError> {
    let found = Digest::of(bytes);
    if found.to_string() != wanted {
        return Err(ModelError::Unknown { role, found, wanted });
    }
    let unusable = |reason: String| ModelError::Unusable { role, reason };
    let floats = weights::in_floats(bytes).map_err(|error| unusable(error.to_string()))?;
    ModelOptions::with_all_ops()
        .prepack_weights(true)
        .load(floats)
        .map_err(|error| unusable(error.to_string()))
}

fn node(role: &'static str, model: &Model, name: &str) -> Result<NodeId, ModelError> {
    model.node_id(name).map_err(|error| ModelError::Unusable { role, reason: error.to_string() })
}

macro_rules! opaque_debug {
    ($($type:ty),*) => {$(
        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($type)).finish_non_exhaustive()
            }
        }
    )*};
}
opaque_debug!(Detector, Embedder);
