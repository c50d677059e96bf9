//! Quantised operators of ONNX Runtime. Products sum integers; everything else is computed in floats between a
//! dequantisation and a quantisation.

use tcc_ir::ops::{BinaryFn, ReduceFn, Softmax, UnaryFn};
use tcc_ir::{DType, ValueId};

use super::super::quantization::{
    dequantize, dynamic_quantize, for_columns, for_rows, integer_mat_mul, quantize, requantize,
};
use super::fused::leaky_relu;
use crate::onnx::context::NodeContext;
use crate::onnx::error::LowerError;
use crate::onnx::registry::{Entry, microsoft};

pub(in crate::onnx::ops) const FAMILY: &[Entry] = &[
    microsoft("DynamicQuantizeMatMul", dynamic_quantize_mat_mul),
    microsoft("MatMulIntegerToFloat", mat_mul_integer_to_float),
    microsoft("QGemm", q_gemm),
    microsoft("QLinearAdd", add),
    microsoft("QLinearConcat", concat),
    microsoft("QLinearGlobalAveragePool", global_average_pool),
    microsoft("QLinearLeakyRelu", |cx| {
        let slope = f64::from(cx.float_or("alpha", 0.01)?);
        unary(cx, |cx, x| leaky_relu(cx, x, slope))
    }),
    microsoft("QLinearMul", |cx| binary(cx, BinaryFn::Mul)),
    microsoft("QLinearSigmoid", |cx| unary(cx, |cx, x| cx.unary(UnaryFn::Sigmoid, x))),
    microsoft("QLinearSoftmax", softmax),
];

/// A tensor with one scale and zero point, from three consecutive inputs, as floats.
fn floats(cx: &mut NodeContext<'_>, first: usize) -> Result<ValueId, LowerError> {
    let (x, scale) = (cx.input(first)?, cx.input(first + 1)?);
    let scale = cx.reshape(scale, &[])?;
    let zero = cx.optional(first + 2).map(|zero| cx.reshape(zero, &[])).transpose()?;
    dequantize(cx, x, scale, zero)
}

/// Quantises by the scale at input `first` and the zero point behind it.
fn quantized(cx: &mut NodeContext<'_>, x: ValueId, first: usize, to: DType) -> Result<ValueId, LowerError> {
    let scale = cx.input(first)?;
    let scale = cx.reshape(scale, &[])?;
    let zero = cx.optional(first + 1).map(|zero| cx.reshape(zero, &[])).transpose()?;
    quantize(cx, x, scale, zero, to)
}

fn binary(cx: &mut NodeContext<'_>, function: BinaryFn) -> Result<Vec<ValueId>, LowerError> {
    let to = cx.dtype(cx.input(0)?);
    let (a, b) = (floats(cx, 0)?, floats(cx, 3)?);
    let y = cx.binary(function, a, b)?;
    Ok(vec![quantized(cx, y, 6, to)?])
}

/// A constant of one element.
fn number(cx: &NodeContext<'_>, value: ValueId) -> Result<Option<f32>, LowerError> {
    let Some(tensor) = cx.known(value) else { return Ok(None) };
    Ok(match tensor.to_f64s()?[..] {
        [number] => Some(number as f32),
        _ => None,
    })
}

/// Known scales and zero points are folded into one factor for each operand and one addend, in the order of ONNX
/// Runtime, on which depends to which side a result halfway between two steps is rounded.
fn add(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let mut parameters = [0.0f32; 6];
    for (parameter, index) in parameters.iter_mut().zip([1, 2, 4, 5, 6, 7]) {
        let is_zero_point = matches!(index, 2 | 5 | 7);
        *parameter = match cx.optional(index) {
            None if is_zero_point => 0.0,
            value => match value.map(|value| number(cx, value)).transpose()?.flatten() {
                Some(number) => number,
                None => return binary(cx, BinaryFn::Add),
            },
        };
    }
    let [a_scale, a_zero, b_scale, b_zero, y_scale, y_zero] = parameters;
    let (a_factor, b_factor) = (a_scale / y_scale, b_scale / y_scale);
    let addend = y_zero - a_factor.mul_add(a_zero, b_factor * b_zero);
    let (a, b) = (cx.input(0)?, cx.input(3)?);
    let to = cx.dtype(a);
    let (a, b) = (cx.cast(a, DType::F32)?, cx.cast(b, DType::F32)?);
    let a = cx.binary_scalar(BinaryFn::Mul, a, f64::from(a_factor))?;
    let b = cx.binary_scalar(BinaryFn::Mul, b, f64::from(b_factor))?;
    let b = cx.binary_scalar(BinaryFn::Add, b, f64::from(addend))?;
    let y = cx.binary(BinaryFn::Add, a, b)?;
    let unit = cx.scalar_like(y, 1.0);
    Ok(vec![quantize(cx, y, unit, None, to)?])
}

fn unary(
    cx: &mut NodeContext<'_>,
    function: impl FnOnce(&mut NodeContext<'_>, ValueId) -> Result<ValueId, LowerError>,
) -> Result<Vec<ValueId>, LowerError> {
    let to = cx.dtype(cx.input(0)?);
    let x = floats(cx, 0)?;
    let y = function(cx, x)?;
    Ok(vec![quantized(cx, y, 3, to)?])
}

fn concat(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let count = cx.input_count();
    if count < 5 || !(count - 2).is_multiple_of(3) {
        return Err(LowerError::invalid(format!("{count} inputs are not a scale, a zero point and triples of inputs")));
    }
    let to = cx.dtype(cx.input(1)?);
    let mut parts = Vec::with_capacity(count / 3);
    for first in (2..count).step_by(3) {
        parts.push(if same_quantization(cx, first)? {
            cx.input(first)?
        } else {
            let part = floats(cx, first)?;
            quantized(cx, part, 0, to)?
        });
    }
    let axis = cx
        .int("axis")?
        .ok_or_else(|| LowerError::Attribute { name: "axis".to_owned(), expected: "there".to_owned() })?;
    let axis = cx.axis(axis, cx.rank(parts[0]))?;
    Ok(vec![cx.concat(&parts, axis)?])
}

/// Whether the part at input `first` of a concatenation has the scale and zero point of the result.
fn same_quantization(cx: &NodeContext<'_>, first: usize) -> Result<bool, LowerError> {
    for (own, result) in [(first + 1, 0), (first + 2, 1)] {
        let (own, result) = (cx.input(own)?, cx.input(result)?);
        let same = match (cx.known(own), cx.known(result)) {
            (Some(own), Some(result)) => own.dtype() == result.dtype() && own.bytes()? == result.bytes()?,
            _ => own == result,
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

fn softmax(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let (to, dims) = (cx.dtype(x), cx.shape(x).to_vec());
    let flattened = cx.int_or("opset", 13)? < 13;
    let axis = cx.axis(cx.int_or("axis", if flattened { 1 } else { -1 })?, dims.len())?;
    let mut y = floats(cx, 0)?;
    if flattened {
        let (rows, columns) = (dims[..axis].iter().product(), dims[axis..].iter().product());
        let matrix = cx.reshape(y, &[rows, columns])?;
        let matrix = cx.add(Softmax { axis: 1 }, &[matrix])?;
        y = cx.reshape(matrix, &dims)?;
    } else {
        y = cx.add(Softmax { axis }, &[y])?;
    }
    // ONNX Runtime multiplies by the inverse of the scale, rounded down to an integer.
    let scale = cx.input(3)?;
    let scale = cx.reshape(scale, &[])?;
    let inverse = cx.unary(UnaryFn::Recip, scale)?;
    let inverse = cx.unary(UnaryFn::Floor, inverse)?;
    let scale = cx.unary(UnaryFn::Recip, inverse)?;
    let zero = cx.optional(4).map(|zero| cx.reshape(zero, &[])).transpose()?;
    Ok(vec![quantize(cx, y, scale, zero, to)?])
}

fn global_average_pool(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let rank = cx.rank(cx.input(0)?);
    let axes: Vec<usize> =
        if cx.flag("channels_last", false)? { (1..rank.saturating_sub(1)).collect() } else { (2..rank).collect() };
    unary(cx, |cx, x| cx.reduce(ReduceFn::Mean, x, &axes, true))
}

fn q_gemm(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let (a, a_scale, a_zero) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (b, b_scale, b_zero) = (cx.input(3)?, cx.input(4)?, cx.input(5)?);
    let transpose = (cx.flag("transA", false)?, cx.flag("transB", false)?);
    let (a_scale, a_zero) = (cx.reshape(a_scale, &[])?, cx.reshape(a_zero, &[])?);
    let b_scale = for_columns(cx, b_scale)?;
    let b_zero = if transpose.1 { for_rows(cx, b_zero)? } else { for_columns(cx, b_zero)? };
    let mut sums = integer_mat_mul(cx, (a, Some(a_zero)), (b, Some(b_zero)), transpose)?;
    if let Some(bias) = cx.optional(6) {
        sums = cx.binary(BinaryFn::Add, sums, bias)?;
    }
    let alpha = cx.float_or("alpha", 1.0)?;
    let mut factor = cx.binary_scalar(BinaryFn::Mul, a_scale, f64::from(alpha))?;
    factor = cx.binary(BinaryFn::Mul, factor, b_scale)?;
    Ok(vec![match cx.optional(7) {
        Some(y_scale) => {
            let y_scale = cx.reshape(y_scale, &[])?;
            let factor = cx.binary(BinaryFn::Div, factor, y_scale)?;
            let y_zero = cx.input(8)?;
            let to = cx.dtype(y_zero);
            let y_zero = cx.reshape(y_zero, &[])?;
            requantize(cx, sums, factor, Some(y_zero), to)?
        }
        None => {
            let sums = cx.cast(sums, cx.dtype(factor))?;
            cx.binary(BinaryFn::Mul, sums, factor)?
        }
    }])
}

/// Scales i32 sums to floats and adds a bias, if there is one.
fn scaled(
    cx: &mut NodeContext<'_>,
    sums: ValueId,
    (a_scale, b_scale): (ValueId, ValueId),
    bias: Option<ValueId>,
) -> Result<Vec<ValueId>, LowerError> {
    let factor = cx.binary(BinaryFn::Mul, a_scale, b_scale)?;
    let sums = cx.cast(sums, cx.dtype(factor))?;
    let y = cx.binary(BinaryFn::Mul, sums, factor)?;
    Ok(vec![match bias {
        Some(bias) => cx.binary(BinaryFn::Add, y, bias)?,
        None => y,
    }])
}

fn mat_mul_integer_to_float(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let (a, b, a_scale, b_scale) = (cx.input(0)?, cx.input(1)?, cx.input(2)?, cx.input(3)?);
    let a_zero = cx.optional(4).map(|zero| for_rows(cx, zero)).transpose()?;
    let b_zero = cx.optional(5).map(|zero| for_columns(cx, zero)).transpose()?;
    let (a_scale, b_scale) = (for_rows(cx, a_scale)?, for_columns(cx, b_scale)?);
    let sums = integer_mat_mul(cx, (a, a_zero), (b, b_zero), (false, false))?;
    scaled(cx, sums, (a_scale, b_scale), cx.optional(6))
}

fn dynamic_quantize_mat_mul(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let (a, b, b_scale) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let b_zero = cx.optional(3).map(|zero| for_columns(cx, zero)).transpose()?;
    let b_scale = for_columns(cx, b_scale)?;
    let (a, a_scale, a_zero) = dynamic_quantize(cx, a)?;
    let sums = integer_mat_mul(cx, (a, Some(a_zero)), (b, b_zero), (false, false))?;
    scaled(cx, sums, (a_scale, b_scale), cx.optional(4))
}
