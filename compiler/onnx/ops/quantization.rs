//! Quantisation, and the integer operators of ONNX. Sums of products stay integers; only their requantisation is
//! computed in floats, as ONNX Runtime does it.

use tcc_ir::ops::{BinaryFn, Broadcast, Conv, Dequantize, MatMul, Quantize, ReduceFn, UnaryFn};
use tcc_ir::{DType, Shape, Tensor, ValueId};

use super::spatial::Windows;
use super::tables::counts;
use crate::onnx::context::NodeContext;
use crate::onnx::error::LowerError;
use crate::onnx::registry::{Entry, microsoft, onnx};

pub(super) const FAMILY: &[Entry] = &[
    onnx("ConvInteger", conv_integer),
    onnx("DequantizeLinear", dequantize_linear),
    onnx("DynamicQuantizeLinear", dynamic_quantize_linear),
    onnx("MatMulInteger", mat_mul_integer),
    onnx("QLinearConv", qlinear_conv),
    onnx("QLinearMatMul", qlinear_mat_mul),
    onnx("QuantizeLinear", quantize_linear),
    microsoft("DequantizeLinear", dequantize_linear),
    microsoft("QuantizeLinear", quantize_linear),
];

/// A float type by its number in ONNX.
fn float_of(number: i64, attribute: &str) -> Result<DType, LowerError> {
    Ok(match number {
        1 => DType::F32,
        10 => DType::F16,
        11 => DType::F64,
        16 => DType::BF16,
        _ => {
            return Err(LowerError::Attribute {
                name: attribute.to_owned(),
                expected: "a floating-point type".to_owned(),
            });
        }
    })
}

/// A quantised type by its number in ONNX.
fn quantized_of(number: i64, attribute: &str) -> Result<DType, LowerError> {
    Ok(match number {
        2 => DType::U8,
        3 => DType::I8,
        4 => DType::U16,
        5 => DType::I16,
        6 => DType::I32,
        17 => DType::F8E4M3,
        19 => DType::F8E5M2,
        21 => DType::U4,
        22 => DType::I4,
        _ => {
            return Err(LowerError::Attribute {
                name: attribute.to_owned(),
                expected: "a quantised type that tcc has: 4- to 32-bit integers, float8e4m3fn or float8e5m2".to_owned(),
            });
        }
    })
}

/// Whether a value is constant and zero everywhere.
fn is_zero(cx: &NodeContext<'_>, value: ValueId) -> Result<bool, LowerError> {
    Ok(match cx.known(value) {
        Some(tensor) => tensor.to_f64s()?.iter().all(|&x| x == 0.0),
        None => false,
    })
}

/// A zero point that matters: `None` for one left out or known to be zero.
pub(super) fn zero_point(cx: &NodeContext<'_>, value: Option<ValueId>) -> Result<Option<ValueId>, LowerError> {
    Ok(match value {
        Some(value) if !is_zero(cx, value)? => Some(value),
        _ => None,
    })
}

/// Gives a scale or zero point of one value, or of one value for each index of `axis`, a shape that broadcasts to a
/// tensor of `rank` dimensions.
pub(super) fn along_axis(
    cx: &mut NodeContext<'_>,
    parameter: ValueId,
    rank: usize,
    axis: usize,
) -> Result<ValueId, LowerError> {
    let shape = cx.shape(parameter).clone();
    if shape.count() == 1 {
        return cx.reshape(parameter, &[]);
    }
    if shape.rank() != 1 {
        return Ok(parameter);
    }
    let mut dims = vec![1; rank];
    match dims.get_mut(axis) {
        Some(dim) => *dim = shape[0],
        None => return Err(LowerError::invalid(format!("axis {axis} is out of range for a tensor of rank {rank}"))),
    }
    cx.reshape(parameter, &dims)
}

/// A tensor with scales and zero points that broadcast to it. Where they hold for blocks of an axis, that axis may be
/// cut into blocks of an own axis.
struct Scaled {
    x: ValueId,
    scale: ValueId,
    zero: Option<ValueId>,
}

/// Cuts `axis` into blocks of `size` where that is even, else repeats the scales.
fn blocked(
    cx: &mut NodeContext<'_>,
    x: ValueId,
    scale: ValueId,
    zero: Option<ValueId>,
    axis: usize,
    size: usize,
) -> Result<Scaled, LowerError> {
    let dims = cx.shape(x).to_vec();
    // A block that is longer than the axis holds all of it, and is not repeated any further.
    let size = size.min(dims[axis]).max(1);
    let expected: Vec<usize> =
        dims.iter().enumerate().map(|(i, &dim)| if i == axis { dim.div_ceil(size) } else { dim }).collect();
    for parameter in [Some(scale), zero].into_iter().flatten() {
        if cx.shape(parameter)[..] != expected {
            return Err(LowerError::invalid(format!(
                "blocks of {size} along axis {axis} of {} need scales and zero points of shape {expected:?}, not {}",
                cx.shape(x),
                cx.shape(parameter)
            )));
        }
    }
    let mut unit = expected.clone();
    unit.insert(axis + 1, 1);
    if dims[axis].is_multiple_of(size) {
        let mut cut = expected;
        cut.insert(axis + 1, size);
        let x = cx.reshape(x, &cut)?;
        let scale = cx.reshape(scale, &unit)?;
        let zero = zero.map(|zero| cx.reshape(zero, &unit)).transpose()?;
        return Ok(Scaled { x, scale, zero });
    }
    let mut repeat = |parameter: ValueId| -> Result<ValueId, LowerError> {
        let parameter = cx.reshape(parameter, &unit)?;
        let mut repeated = unit.clone();
        repeated[axis + 1] = size;
        let parameter = cx.add(Broadcast { shape: Shape::new(repeated)? }, &[parameter])?;
        let mut joined = expected.clone();
        joined[axis] *= size;
        let parameter = cx.reshape(parameter, &joined)?;
        cx.slice(parameter, axis, 0, dims[axis])
    };
    let scale = repeat(scale)?;
    let zero = zero.map(repeat).transpose()?;
    Ok(Scaled { x, scale, zero })
}

/// Makes scales and zero points broadcast to x: those of blocks along `axis` if there is a block size, else one for all
/// or for each index of `axis`.
fn scaled(
    cx: &mut NodeContext<'_>,
    x: ValueId,
    scale: ValueId,
    zero: Option<ValueId>,
    axis: usize,
    block: Option<usize>,
) -> Result<Scaled, LowerError> {
    if let Some(size) = block {
        return blocked(cx, x, scale, zero, axis, size);
    }
    let rank = cx.rank(x);
    let scale = along_axis(cx, scale, rank, axis)?;
    let zero = zero.map(|zero| along_axis(cx, zero, rank, axis)).transpose()?;
    Ok(Scaled { x, scale, zero })
}

/// The block size of a node, if it has one, and its axis.
fn block_attributes(cx: &NodeContext<'_>, x: ValueId, scale: ValueId) -> Result<(usize, Option<usize>), LowerError> {
    let block = cx.int_or("block_size", 0)?;
    let block = usize::try_from(block)
        .map_err(|_| LowerError::Attribute { name: "block_size".to_owned(), expected: "not negative".to_owned() })?;
    // One scale for all elements needs no axis, and the default one may then be out of range.
    let axis = match cx.rank(x) {
        _ if block == 0 && cx.shape(scale).count() == 1 => 0,
        rank => cx.axis(cx.int_or("axis", 1)?, rank)?,
    };
    Ok((axis, (block != 0).then_some(block)))
}

/// Turns integers into floats by scales that hold for blocks along `axis` if there is a block size, else for all
/// elements or for each index of `axis`.
pub(super) fn dequantize_along(
    cx: &mut NodeContext<'_>,
    x: ValueId,
    scale: ValueId,
    zero: Option<ValueId>,
    axis: usize,
    block: Option<usize>,
) -> Result<ValueId, LowerError> {
    let dims = cx.shape(x).to_vec();
    let parts = scaled(cx, x, scale, zero, axis, block)?;
    let y = dequantize(cx, parts.x, parts.scale, parts.zero)?;
    // Only blocks have given x an axis more.
    if block.is_some() { cx.reshape(y, &dims) } else { Ok(y) }
}

/// Turns integers into floats. Scale and zero point broadcast to x.
pub(super) fn dequantize(
    cx: &mut NodeContext<'_>,
    x: ValueId,
    scale: ValueId,
    zero: Option<ValueId>,
) -> Result<ValueId, LowerError> {
    let zero = zero_point(cx, zero)?;
    let operands: Vec<ValueId> = [x, scale].into_iter().chain(zero).collect();
    cx.add(Dequantize { zero: zero.is_some() }, &operands)
}

/// Turns floats into integers of type `to`. Scale and zero point broadcast to x.
pub(super) fn quantize(
    cx: &mut NodeContext<'_>,
    x: ValueId,
    scale: ValueId,
    zero: Option<ValueId>,
    to: DType,
) -> Result<ValueId, LowerError> {
    let zero = zero_point(cx, zero)?;
    let operands: Vec<ValueId> = [x, scale].into_iter().chain(zero).collect();
    cx.add(Quantize { to, zero: zero.is_some() }, &operands)
}

fn quantize_linear(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let (x, scale, zero) = (cx.input(0)?, cx.input(1)?, cx.optional(2));
    let declared = match cx.int_or("output_dtype", 0)? {
        0 => None,
        number => Some(quantized_of(number, "output_dtype")?),
    };
    let to = declared.or(zero.map(|zero| cx.dtype(zero))).unwrap_or(DType::U8);
    if to.is_float() && !cx.flag("saturate", true)? {
        return Err(LowerError::unsupported("rounding to 8-bit floats without saturation (saturate = 0)"));
    }
    let precision = match cx.int_or("precision", 0)? {
        0 if cx.dtype(x).is_float() => cx.dtype(x),
        0 => cx.dtype(scale),
        number => float_of(number, "precision")?,
    };
    let dims = cx.shape(x).to_vec();
    let (axis, block) = block_attributes(cx, x, scale)?;
    let (x, scale) = (cx.cast(x, precision)?, cx.cast(scale, precision)?);
    let parts = scaled(cx, x, scale, zero, axis, block)?;
    let y = quantize(cx, parts.x, parts.scale, parts.zero, to)?;
    Ok(vec![cx.reshape(y, &dims)?])
}

fn dequantize_linear(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let (x, scale, zero) = (cx.input(0)?, cx.input(1)?, cx.optional(2));
    let (axis, block) = block_attributes(cx, x, scale)?;
    let y = dequantize_along(cx, x, scale, zero, axis, block)?;
    Ok(vec![match cx.int_or("output_dtype", 0)? {
        0 => y,
        number => cx.cast(y, float_of(number, "output_dtype")?)?,
    }])
}

fn dynamic_quantize_linear(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let (y, scale, zero) = dynamic_quantize(cx, x)?;
    Ok(vec![y, scale, zero])
}

/// Quantises to 8 bits without sign by the range that x turns out to have. Returns the integers, their scale and their
/// zero point (scalars).
pub(super) fn dynamic_quantize(
    cx: &mut NodeContext<'_>,
    x: ValueId,
) -> Result<(ValueId, ValueId, ValueId), LowerError> {
    let axes: Vec<usize> = (0..cx.rank(x)).collect();
    let nil = cx.scalar_like(x, 0.0);
    // The range takes in 0, so that padding is exact.
    let high = cx.reduce(ReduceFn::Max, x, &axes, false)?;
    let high = cx.binary(BinaryFn::Max, high, nil)?;
    let low = cx.reduce(ReduceFn::Min, x, &axes, false)?;
    let low = cx.binary(BinaryFn::Min, low, nil)?;
    let range = cx.binary(BinaryFn::Sub, high, low)?;
    let scale = cx.binary_scalar(BinaryFn::Div, range, 255.0)?;
    let flat = cx.binary(BinaryFn::Eq, range, nil)?;
    let unit = cx.scalar_like(x, 1.0);
    let scale = cx.select(flat, unit, scale)?;
    let zero = cx.binary(BinaryFn::Div, low, scale)?;
    let zero = cx.unary(UnaryFn::Neg, zero)?;
    let zero = quantize(cx, zero, unit, None, DType::U8)?;
    let y = cx.add(Quantize { to: DType::U8, zero: true }, &[x, scale, zero])?;
    Ok((y, scale, zero))
}

/// Multiplies integer matrices into i32. Operands may be vectors; zero points must broadcast to their matrix.
pub(super) fn integer_mat_mul(
    cx: &mut NodeContext<'_>,
    a: (ValueId, Option<ValueId>),
    b: (ValueId, Option<ValueId>),
    transpose: (bool, bool),
) -> Result<ValueId, LowerError> {
    let (a_zero, b_zero) = (zero_point(cx, a.1)?, zero_point(cx, b.1)?);
    let (a, b) = (a.0, b.0);
    let (a_rank, b_rank) = (cx.rank(a), cx.rank(b));
    let a = if a_rank == 1 { cx.reshape(a, &[1, cx.shape(a)[0]])? } else { a };
    let b = if b_rank == 1 { cx.reshape(b, &[cx.shape(b)[0], 1])? } else { b };
    let op = MatMul {
        transpose_a: transpose.0,
        transpose_b: transpose.1,
        a_zero: a_zero.is_some(),
        b_zero: b_zero.is_some(),
    };
    let operands: Vec<ValueId> = [a, b].into_iter().chain(a_zero).chain(b_zero).collect();
    let product = cx.add(op, &operands)?;
    let mut dims = cx.shape(product).to_vec();
    if b_rank == 1 {
        dims.pop();
    }
    if a_rank == 1 {
        dims.remove(dims.len() - if b_rank == 1 { 1 } else { 2 });
    }
    cx.reshape(product, &dims)
}

/// A zero point or scale of the left matrix: one value, one for each row, or of the matrix's rank already.
pub(super) fn for_rows(cx: &mut NodeContext<'_>, parameter: ValueId) -> Result<ValueId, LowerError> {
    match cx.shape(parameter).clone() {
        shape if shape.count() == 1 => cx.reshape(parameter, &[]),
        shape if shape.rank() == 1 => cx.reshape(parameter, &[shape[0], 1]),
        _ => Ok(parameter),
    }
}

/// A zero point or scale of the right matrix: one value, one for each column, or of the matrix's rank already.
pub(super) fn for_columns(cx: &mut NodeContext<'_>, parameter: ValueId) -> Result<ValueId, LowerError> {
    if cx.shape(parameter).count() == 1 { cx.reshape(parameter, &[]) } else { Ok(parameter) }
}

fn mat_mul_integer(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    let a_zero = cx.optional(2).map(|zero| for_rows(cx, zero)).transpose()?;
    let b_zero = cx.optional(3).map(|zero| for_columns(cx, zero)).transpose()?;
    Ok(vec![integer_mat_mul(cx, (a, a_zero), (b, b_zero), (false, false))?])
}

/// Brings i32 sums to a quantised type: times `factor` in binary32, rounded to even, plus the zero point, saturated.
pub(super) fn requantize(
    cx: &mut NodeContext<'_>,
    sums: ValueId,
    factor: ValueId,
    zero: Option<ValueId>,
    to: DType,
) -> Result<ValueId, LowerError> {
    let wide = cx.cast(sums, DType::F32)?;
    let scaled = cx.binary(BinaryFn::Mul, wide, factor)?;
    let unit = cx.constant(Tensor::scalar(1.0f32));
    quantize(cx, scaled, unit, zero, to)
}

fn qlinear_mat_mul(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let (a, b) = (cx.input(0)?, cx.input(3)?);
    let (a_scale, b_scale, y_scale) = (cx.input(1)?, cx.input(4)?, cx.input(6)?);
    let (a_zero, b_zero, y_zero) = (cx.input(2)?, cx.input(5)?, cx.input(7)?);
    let to = cx.dtype(y_zero);
    let (a_scale, a_zero) = (for_rows(cx, a_scale)?, for_rows(cx, a_zero)?);
    let (b_scale, b_zero) = (for_columns(cx, b_scale)?, for_columns(cx, b_zero)?);
    let (y_scale, y_zero) = (for_rows(cx, y_scale)?, for_rows(cx, y_zero)?);
    let sums = integer_mat_mul(cx, (a, Some(a_zero)), (b, Some(b_zero)), (false, false))?;
    let factor = requantization_factor(cx, a_scale, b_scale, y_scale)?;
    Ok(vec![requantize(cx, sums, factor, Some(y_zero), to)?])
}

/// `a_scale · b_scale / y_scale`, in this order, on which the last bit depends.
pub(super) fn requantization_factor(
    cx: &mut NodeContext<'_>,
    a_scale: ValueId,
    b_scale: ValueId,
    y_scale: ValueId,
) -> Result<ValueId, LowerError> {
    let (a_scale, b_scale, y_scale) =
        (cx.cast(a_scale, DType::F32)?, cx.cast(b_scale, DType::F32)?, cx.cast(y_scale, DType::F32)?);
    let product = cx.binary(BinaryFn::Mul, a_scale, b_scale)?;
    cx.binary(BinaryFn::Div, product, y_scale)
}

/// Convolves integers into i32.
fn integer_conv(
    cx: &mut NodeContext<'_>,
    (x, x_zero): (ValueId, Option<ValueId>),
    (w, w_zero): (ValueId, Option<ValueId>),
) -> Result<ValueId, LowerError> {
    let rank = cx.rank(x);
    if rank < 3 || cx.rank(w) != rank {
        return Err(LowerError::invalid(format!(
            "input {} and weight {} must have the same rank, of at least 3",
            cx.shape(x),
            cx.shape(w)
        )));
    }
    let windows = Windows::of(cx, &cx.shape(x)[2..], cx.shape(w)[2..].to_vec())?;
    let groups = counts("group", &[cx.int_or("group", 1)?], 1)?[0];
    let (x_zero, w_zero) = (zero_point(cx, x_zero)?, zero_point(cx, w_zero)?);
    let x_zero = x_zero.map(|zero| cx.reshape(zero, &[])).transpose()?;
    let w_zero = w_zero.map(|zero| for_columns(cx, zero)).transpose()?;
    let op = Conv {
        strides: windows.strides,
        low: windows.low,
        high: windows.high,
        dilations: windows.dilations,
        groups,
        x_zero: x_zero.is_some(),
        w_zero: w_zero.is_some(),
    };
    let operands: Vec<ValueId> = [x, w].into_iter().chain(x_zero).chain(w_zero).collect();
    cx.add(op, &operands)
}

fn conv_integer(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let (x, w) = ((cx.input(0)?, cx.optional(2)), (cx.input(1)?, cx.optional(3)));
    Ok(vec![integer_conv(cx, x, w)?])
}

fn qlinear_conv(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let (x, w, y_zero) = (cx.input(0)?, cx.input(3)?, cx.input(7)?);
    let (x_zero, w_zero) = (cx.input(2)?, cx.input(5)?);
    let mut sums = integer_conv(cx, (x, Some(x_zero)), (w, Some(w_zero)))?;
    let rank = cx.rank(sums);
    if let Some(bias) = cx.optional(8) {
        let bias = along_axis(cx, bias, rank, 1)?;
        sums = cx.binary(BinaryFn::Add, sums, bias)?;
    }
    let (x_scale, w_scale, y_scale) = (cx.input(1)?, cx.input(4)?, cx.input(6)?);
    let x_scale = cx.reshape(x_scale, &[])?;
    let w_scale = along_axis(cx, w_scale, rank, 1)?;
    let y_scale = cx.reshape(y_scale, &[])?;
    let to = cx.dtype(y_zero);
    let y_zero = cx.reshape(y_zero, &[])?;
    let factor = requantization_factor(cx, x_scale, w_scale, y_scale)?;
    Ok(vec![requantize(cx, sums, factor, Some(y_zero), to)?])
}
