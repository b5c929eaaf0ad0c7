//! The models' files as rten can read them: weights of eight bits turned into floats.
//!
//! The files that are to be had carry their weights in blocks of eight-bit numbers, each block with
//! a scale and a zero (ONNX `DequantizeLinear` with `block_size`, operator set 21), under a header
//! that claims an older set. No runtime reads that. Here the weights are worked out once, in
//! memory, and the nodes that would do so at run time are taken out; what is left is plain operator
//! set 17.

use std::collections::{HashMap, HashSet};

use rten_onnx::onnx::{DataType, GraphProto, ModelProto, NodeProto, TensorProto};

/// The set of operators that the graphs use once nothing in them is quantised.
const OPERATOR_SET: i64 = 17;

/// Why a model's weights can't be worked out. The files are known by their digests, so none of
/// these is ever seen unless this code is wrong.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    #[error("it isn't ONNX: {0}")]
    NotOnnx(String),
    #[error("it has no {0}")]
    Missing(String),
    #[error("the shapes around {0} don't fit each other")]
    Misshapen(String),
}

/// The model with all its weights as floats, and any size of picture as input.
pub fn in_floats(onnx: &[u8]) -> Result<Vec<u8>, WeightsError> {
    let not_onnx = |error: &dyn std::fmt::Display| WeightsError::NotOnnx(error.to_string());
    let mut model = ModelProto::parse_buf(onnx).map_err(|error| not_onnx(&error))?;
    let graph = model.graph.as_mut().ok_or_else(|| WeightsError::Missing("graph".into()))?;
    fold(graph)?;
    forget_shapes(graph);
    for set in &mut model.opset_import {
        set.version = Some(OPERATOR_SET);
    }
    model.write_buf().map_err(|error| not_onnx(&error))
}

/// Takes out what can be worked out now: weights, their shapes, and a dropout that drops nothing
/// once a model is trained.
fn fold(graph: &mut GraphProto) -> Result<(), WeightsError> {
    let mut constants: HashMap<String, TensorProto> = graph
        .initializer
        .drain(..)
        .map(|tensor| (tensor.name.clone().unwrap_or_default(), tensor))
        .collect();
    let mut renamed: HashMap<String, String> = HashMap::new();
    let mut kept = Vec::new();
    for mut node in std::mem::take(&mut graph.node) {
        for input in &mut node.input {
            if let Some(name) = renamed.get(input) {
                input.clone_from(name);
            }
        }
        match node.op_type.as_deref() {
            Some("DequantizeLinear") => insert(&mut constants, &node, dequantised)?,
            Some("Reshape") if node.input.iter().all(|name| constants.contains_key(name)) => {
                insert(&mut constants, &node, reshaped)?;
            }
            Some("Dropout") => {
                renamed.insert(output(&node)?, input(&node, 0)?);
            }
            Some("Constant") => {}
            _ => kept.push(node),
        }
    }
    let used: HashSet<&String> = kept.iter().flat_map(|node| &node.input).collect();
    constants.retain(|name, _| used.contains(name));
    graph.input.retain(|input| !constants.contains_key(input.name.as_deref().unwrap_or("")));
    graph.initializer = constants.into_values().collect();
    graph.node = kept;
    Ok(())
}

/// The files name the one size that they were exported with, but work with others.
fn forget_shapes(graph: &mut GraphProto) {
    graph.value_info.clear();
    for value in graph.output.iter_mut().chain(&mut graph.input) {
        if let Some(tensor) = value.r#type.as_mut().and_then(|kind| kind.tensor_type.as_mut()) {
            tensor.shape = None;
        }
    }
}

type Constants = HashMap<String, TensorProto>;

fn insert(
    constants: &mut Constants,
    node: &NodeProto,
    work_out: fn(&NodeProto, &Constants) -> Result<TensorProto, WeightsError>,
) -> Result<(), WeightsError> {
    let name = output(node)?;
    let mut tensor = work_out(node, constants)?;
    tensor.name = Some(name.clone());
    constants.insert(name, tensor);
    Ok(())
}

/// `(weight - zero) * scale`, where zero and scale are shared by a block of weights along one axis.
fn dequantised(node: &NodeProto, constants: &Constants) -> Result<TensorProto, WeightsError> {
    let [quantised, scales, zeros] = [0, 1, 2].map(|i| constant(node, constants, i));
    let (quantised, scales, zeros) = (quantised?, scales?, zeros?);
    let misshapen = || WeightsError::Misshapen(node.input.join(", "));
    let axis = attribute(node, "axis").and_then(|axis| usize::try_from(axis).ok());
    let axis = axis.filter(|axis| *axis < quantised.dims.len()).ok_or_else(misshapen)?;
    let block = attribute(node, "block_size").and_then(|size| usize::try_from(size).ok());
    let block = block.filter(|size| *size > 0).ok_or_else(misshapen)?;
    let along = side(quantised.dims[axis])?;
    let inner = quantised.dims[axis + 1..].iter().try_fold(1, |all, dim| Ok(all * side(*dim)?))?;
    let blocks = along.div_ceil(block);
    let (weights, scales, zeros) = (bytes(quantised), floats(scales), bytes(zeros));
    let weight = |(i, weight): (usize, u8)| {
        let (outer, place, inside) = (i / inner / along, i / inner % along, i % inner);
        let shared = (outer * blocks + place / block) * inner + inside;
        let (scale, zero) = (scales.get(shared)?, *zeros.get(shared)?);
        Some((f32::from(weight.cast_signed()) - f32::from(zero.cast_signed())) * scale)
    };
    let floats: Option<Vec<f32>> = weights.into_iter().enumerate().map(weight).collect();
    Ok(TensorProto {
        dims: quantised.dims.clone(),
        data_type: Some(DataType::FLOAT),
        float_data: floats.ok_or_else(misshapen)?,
        ..TensorProto::default()
    })
}

fn reshaped(node: &NodeProto, constants: &Constants) -> Result<TensorProto, WeightsError> {
    let mut tensor = constant(node, constants, 0)?.clone();
    let shape = constant(node, constants, 1)?;
    tensor.dims = eights(shape).map(i64::from_le_bytes).collect();
    tensor.dims.extend(&shape.int64_data);
    let wanted = tensor.dims.iter().try_fold(1, |all, dim| Ok(all * side(*dim)?))?;
    if wanted != tensor.float_data.len() {
        return Err(WeightsError::Misshapen(node.input.join(", ")));
    }
    Ok(tensor)
}

fn side(dim: i64) -> Result<usize, WeightsError> {
    usize::try_from(dim)
        .ok()
        .filter(|side| (1..1 << 20).contains(side))
        .ok_or_else(|| WeightsError::Misshapen(format!("a side of {dim}")))
}

fn input(node: &NodeProto, i: usize) -> Result<String, WeightsError> {
    node.input.get(i).cloned().ok_or_else(|| WeightsError::Missing(format!("input {i}")))
}

fn output(node: &NodeProto) -> Result<String, WeightsError> {
    node.output.first().cloned().ok_or_else(|| WeightsError::Missing("output".into()))
}

fn constant<'a>(
    node: &NodeProto,
    constants: &'a Constants,
    i: usize,
) -> Result<&'a TensorProto, WeightsError> {
    let name = input(node, i)?;
    constants.get(&name).ok_or(WeightsError::Missing(name))
}

fn attribute(node: &NodeProto, name: &str) -> Option<i64> {
    node.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(name))?.i
}

fn bytes(tensor: &TensorProto) -> Vec<u8> {
    tensor.raw_data.as_ref().map(|raw| raw.borrow().clone()).unwrap_or_default()
}

fn floats(tensor: &TensorProto) -> Vec<f32> {
    let raw = bytes(tensor);
    let raw = raw.as_chunks::<4>().0.iter().copied().map(f32::from_le_bytes);
    raw.chain(tensor.float_data.iter().copied()).collect()
}

fn eights(tensor: &TensorProto) -> impl Iterator<Item = [u8; 8]> {
    bytes(tensor).as_chunks::<8>().0.to_vec().into_iter()
}
