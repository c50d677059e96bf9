//! Normalisations.

use tcc_ir::ops::{BinaryFn, LayerNorm, Pad, ReduceFn, RmsNorm, UnaryFn, Window};
use tcc_ir::{DType, ValueId};

use super::tables::counts;
use super::pooling::lp_norm;
use crate::onnx::context::NodeContext;
use crate::onnx::error::LowerError;
use crate::onnx::registry::{Entry, microsoft, onnx};

pub(super) const FAMILY: &[Entry] = &[
    onnx("BatchNormalization", batch_normalization),
    onnx("GroupNormalization", group_normalization),
    onnx("InstanceNormalization", instance_normalization),
    onnx("LRN", local_response),
    onnx("LayerNormalization", layer_normalization),
    onnx("LpNormalization", lp_normalization),
    onnx("MeanVarianceNormalization", mean_variance),
    onnx("RMSNormalization", rms_normalization),
    // ONNX Runtime's optimiser writes it into either domain.
    onnx("SimplifiedLayerNormalization", rms_normalization),
    microsoft("SimplifiedLayerNormalization", rms_normalization),
];

/// What statistics are computed in: binary32, or the operand's own type if that is wider.
fn stash(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// 1 / sqrt(x + epsilon).
fn inverse_root(cx: &mut NodeContext<'_>, x: ValueId, epsilon: f64) -> Result<ValueId, LowerError> {
    let safe = cx.binary_scalar(BinaryFn::Add, x, epsilon)?;
    cx.unary(UnaryFn::Rsqrt, safe)
}

/// Mean over axes, and the mean square distance from it; both keep the axes with extent 1.
fn moments(cx: &mut NodeContext<'_>, x: ValueId, axes: &[usize]) -> Result<(ValueId, ValueId), LowerError> {
    let mean = cx.reduce(ReduceFn::Mean, x, axes, true)?;
    let distance = cx.binary(BinaryFn::Sub, x, mean)?;
    let square = cx.binary(BinaryFn::Mul, distance, distance)?;
    Ok((mean, cx.reduce(ReduceFn::Mean, square, axes, true)?))
}

fn layer_normalization(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let (x, scale) = (cx.input(0)?, cx.input(1)?);
    let rank = cx.rank(x);
    let axis = cx.axis(cx.int_or("axis", -1)?, rank)?;
    let epsilon = f64::from(cx.float_or("epsilon", 1e-5)?);
    let bias = cx.optional(2);
    let operands: Vec<ValueId> = [Some(x), Some(scale), bias].into_iter().flatten().collect();
    let y = cx.add(LayerNorm { axis, epsilon: epsilon.into(), bias: bias.is_some() }, &operands)?;
    if !cx.wants(1) && !cx.wants(2) {
        return Ok(vec![y]);
    }
    let axes: Vec<usize> = (axis..rank).collect();
    let wide = stash(cx.dtype(x));
    let wide = cx.cast(x, wide)?;
    let (mean, variance) = moments(cx, wide, &axes)?;
    Ok(vec![y, mean, inverse_root(cx, variance, epsilon)?])
}

fn rms_normalization(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let (x, scale) = (cx.input(0)?, cx.input(1)?);
    let rank = cx.rank(x);
    let axis = cx.axis(cx.int_or("axis", -1)?, rank)?;
    let epsilon = f64::from(cx.float_or("epsilon", 1e-5)?);
    // The result has the scale's type; the work is done in the wider of the two.
    let result = cx.dtype(scale);
    let dtype = if cx.dtype(x).bits() > result.bits() { cx.dtype(x) } else { result };
    let (wide, wide_scale) = (cx.cast(x, dtype)?, cx.cast(scale, dtype)?);
    let y = cx.add(RmsNorm { axis, epsilon: epsilon.into() }, &[wide, wide_scale])?;
    let y = cx.cast(y, result)?;
    if !cx.wants(1) {
        return Ok(vec![y]);
    }
    let axes: Vec<usize> = (axis..rank).collect();
    let dtype = stash(cx.dtype(x));
    let wide = cx.cast(x, dtype)?;
    let squares = cx.binary(BinaryFn::Mul, wide, wide)?;
    let mean = cx.reduce(ReduceFn::Mean, squares, &axes, true)?;
    Ok(vec![y, inverse_root(cx, mean, epsilon)?])
}

/// A vector over channels, shaped to broadcast along axis 1 of a tensor of `rank` dimensions.
fn per_channel(cx: &mut NodeContext<'_>, vector: ValueId, rank: usize, dtype: DType) -> Result<ValueId, LowerError> {
    let mut dims = vec![1; rank];
    dims[1] = cx.shape(vector).count();
    let vector = cx.reshape(vector, &dims)?;
    cx.cast(vector, dtype)
}

/// Fails unless the input has a channel axis.
fn with_channels(cx: &NodeContext<'_>, x: ValueId) -> Result<usize, LowerError> {
    match cx.rank(x) {
        0 | 1 => Err(LowerError::invalid(format!("the input must have a channel axis, but is {}", cx.ty(x)))),
        rank => Ok(rank),
    }
}

fn batch_normalization(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let rank = with_channels(cx, x)?;
    let dtype = cx.dtype(x);
    let epsilon = f64::from(cx.float_or("epsilon", 1e-5)?);
    let mut vectors = Vec::with_capacity(4);
    for index in 1..5 {
        let vector = cx.input(index)?;
        vectors.push(per_channel(cx, vector, rank, dtype)?);
    }
    let (scale, bias, old_mean, old_variance) = (vectors[0], vectors[1], vectors[2], vectors[3]);
    let training = cx.flag("training_mode", false)?;
    let (mean, variance) = if training {
        let axes: Vec<usize> = (0..rank).filter(|&axis| axis != 1).collect();
        moments(cx, x, &axes)?
    } else {
        (old_mean, old_variance)
    };
    // Everything that does not depend on x comes to one factor and one offset for each channel, which fold.
    let inverse = inverse_root(cx, variance, epsilon)?;
    let factor = cx.binary(BinaryFn::Mul, scale, inverse)?;
    let shift = cx.binary(BinaryFn::Mul, mean, factor)?;
    let offset = cx.binary(BinaryFn::Sub, bias, shift)?;
    let scaled = cx.binary(BinaryFn::Mul, x, factor)?;
    let mut outputs = vec![cx.binary(BinaryFn::Add, scaled, offset)?];
    if training {
        let momentum = f64::from(cx.float_or("momentum", 0.9)?);
        for (index, old, new) in [(3, old_mean, mean), (4, old_variance, variance)] {
            let old = cx.binary_scalar(BinaryFn::Mul, old, momentum)?;
            let new = cx.binary_scalar(BinaryFn::Mul, new, 1.0 - momentum)?;
            let running = cx.binary(BinaryFn::Add, old, new)?;
            let (ty, like) = (cx.shape(running).count(), cx.input(index)?);
            let running = cx.reshape(running, &[ty])?;
            let like = cx.dtype(like);
            outputs.push(cx.cast(running, like)?);
        }
    }
    Ok(outputs)
}

fn instance_normalization(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let rank = with_channels(cx, x)?;
    let (dtype, epsilon) = (cx.dtype(x), cx.float_or("epsilon", 1e-5)?);
    let (scale, bias) = (cx.input(1)?, cx.input(2)?);
    let (scale, bias) = (per_channel(cx, scale, rank, dtype)?, per_channel(cx, bias, rank, dtype)?);
    normalise_and_scale(cx, x, scale, bias, epsilon)
}

/// Normalises all axes from 2 on, then scales and shifts by what need not be constant along them.
fn normalise_and_scale(
    cx: &mut NodeContext<'_>,
    x: ValueId,
    scale: ValueId,
    bias: ValueId,
    epsilon: f32,
) -> Result<Vec<ValueId>, LowerError> {
    Ok(vec![cx.add(LayerNorm { axis: 2, epsilon: epsilon.into(), bias: true }, &[x, scale, bias])?])
}

fn group_normalization(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    with_channels(cx, x)?;
    let (dims, dtype) = (cx.shape(x).to_vec(), cx.dtype(x));
    let expected = || LowerError::Attribute { name: "num_groups".to_owned(), expected: "an integer".to_owned() };
    let groups = counts("num_groups", &[cx.int("num_groups")?.ok_or_else(expected)?], 1)?[0];
    if dims[1] % groups != 0 {
        return Err(LowerError::invalid(format!("{} channels do not fall into {groups} groups", dims[1])));
    }
    let members = dims[1] / groups;
    let apart: Vec<usize> = [dims[0], groups, members].into_iter().chain(dims[2..].iter().copied()).collect();
    let grouped = cx.reshape(x, &apart)?;
    let mut vectors = Vec::with_capacity(2);
    for index in [1, 2] {
        // One number for each group before operator set 21, then one for each channel.
        let vector = cx.input(index)?;
        let each = if cx.shape(vector).count() == groups { 1 } else { members };
        let mut own = vec![1; apart.len()];
        (own[1], own[2]) = (groups, each);
        let vector = cx.reshape(vector, &own)?;
        vectors.push(cx.cast(vector, dtype)?);
    }
    let epsilon = cx.float_or("epsilon", 1e-5)?;
    let y = normalise_and_scale(cx, grouped, vectors[0], vectors[1], epsilon)?[0];
    Ok(vec![cx.reshape(y, &dims)?])
}

fn lp_normalization(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let axis = cx.axis(cx.int_or("axis", -1)?, cx.rank(x))?;
    let p = cx.int_or("p", 2)?;
    let norm = lp_norm(cx, x, p, |cx, x| cx.reduce(ReduceFn::Sum, x, &[axis], true))?;
    // All zeros stay zeros.
    let empty = cx.binary_scalar(BinaryFn::Eq, norm, 0.0)?;
    let one = cx.scalar_like(norm, 1.0);
    let norm = cx.select(empty, one, norm)?;
    Ok(vec![cx.binary(BinaryFn::Div, x, norm)?])
}

fn mean_variance(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let axes = cx.axes(cx.ints("axes")?.unwrap_or(&[0, 2, 3]), cx.rank(x))?;
    let (mean, variance) = moments(cx, x, &axes)?;
    let distance = cx.binary(BinaryFn::Sub, x, mean)?;
    let deviation = cx.unary(UnaryFn::Sqrt, variance)?;
    let safe = cx.binary_scalar(BinaryFn::Add, deviation, 1e-9)?;
    Ok(vec![cx.binary(BinaryFn::Div, distance, safe)?])
}

fn local_response(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let rank = with_channels(cx, x)?;
    let size = counts("size", &[cx.int_or("size", 0)?], 1)?[0];
    let (alpha, beta) = (f64::from(cx.float_or("alpha", 1e-4)?), f64::from(cx.float_or("beta", 0.75)?));
    let bias = f64::from(cx.float_or("bias", 1.0)?);
    let squares = cx.binary(BinaryFn::Mul, x, x)?;
    let (mut low, mut high) = (vec![0; rank], vec![0; rank]);
    (low[1], high[1]) = (((size - 1) / 2) as i64, (size / 2) as i64);
    let zero = cx.scalar_like(x, 0.0);
    let padded = cx.add(Pad { low, high, interior: vec![0; rank] }, &[squares, zero])?;
    let neighbours = cx.add(Window { axis: 1, size, step: 1, dilation: 1 }, &[padded])?;
    let sum = cx.reduce(ReduceFn::Sum, neighbours, &[2], false)?;
    let scaled = cx.binary_scalar(BinaryFn::Mul, sum, alpha / size as f64)?;
    let base = cx.binary_scalar(BinaryFn::Add, scaled, bias)?;
    let divisor = cx.binary_scalar(BinaryFn::Pow, base, beta)?;
    Ok(vec![cx.binary(BinaryFn::Div, x, divisor)?])
}
