//! Activation functions and softmax.

use tcc_ir::ops::{ArgFn, ArgReduce, BinaryFn, Gelu, ReduceFn, Softmax, UnaryFn};
use tcc_ir::{DType, ValueId};

use super::tables;
use crate::onnx::context::NodeContext;
use crate::onnx::error::LowerError;
use crate::onnx::registry::{Entry, onnx};

pub(super) const FAMILY: &[Entry] = &[
    onnx("Celu", celu),
    onnx("Clip", clip),
    onnx("Elu", elu),
    onnx("Gelu", gelu),
    onnx("HardSigmoid", hard_sigmoid),
    onnx("HardSwish", hard_swish),
    onnx("Hardmax", hardmax),
    onnx("LeakyRelu", leaky_relu),
    onnx("LogSoftmax", |cx| along_axis(cx, log_softmax)),
    onnx("Mish", mish),
    onnx("PRelu", p_relu),
    onnx("Relu", relu),
    onnx("Selu", selu),
    onnx("Shrink", shrink),
    onnx("Sigmoid", sigmoid),
    onnx("Softmax", |cx| along_axis(cx, |cx, x, axis| cx.add(Softmax { axis }, &[x]))),
    onnx("Softplus", softplus),
    onnx("Softsign", softsign),
    onnx("Swish", swish),
    onnx("ThresholdedRelu", thresholded_relu),
];

fn relu(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    Ok(vec![cx.binary_scalar(BinaryFn::Max, x, 0.0)?])
}

fn sigmoid(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    Ok(vec![cx.unary(UnaryFn::Sigmoid, x)?])
}

fn softplus(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    Ok(vec![cx.unary(UnaryFn::Softplus, x)?])
}

/// `alpha · x + beta`, limited to 0..1.
pub(super) fn ramp(cx: &mut NodeContext<'_>, x: ValueId, alpha: f64, beta: f64) -> Result<ValueId, LowerError> {
    let scaled = cx.binary_scalar(BinaryFn::Mul, x, alpha)?;
    let shifted = cx.binary_scalar(BinaryFn::Add, scaled, beta)?;
    let above = cx.binary_scalar(BinaryFn::Max, shifted, 0.0)?;
    cx.binary_scalar(BinaryFn::Min, above, 1.0)
}

fn hard_sigmoid(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let (alpha, beta) = (cx.float_or("alpha", 0.2)?, cx.float_or("beta", 0.5)?);
    Ok(vec![ramp(cx, x, alpha.into(), beta.into())?])
}

fn hard_swish(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let gate = ramp(cx, x, 1.0 / 6.0, 0.5)?;
    Ok(vec![cx.binary(BinaryFn::Mul, x, gate)?])
}

/// `x` where it is not negative, else `below`.
fn where_negative(cx: &mut NodeContext<'_>, x: ValueId, below: ValueId) -> Result<ValueId, LowerError> {
    let negative = cx.binary_scalar(BinaryFn::Lt, x, 0.0)?;
    cx.select(negative, below, x)
}

fn leaky_relu(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let alpha = cx.float_or("alpha", 0.01)?;
    let below = cx.binary_scalar(BinaryFn::Mul, x, alpha.into())?;
    Ok(vec![where_negative(cx, x, below)?])
}

fn p_relu(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let (x, slope) = (cx.input(0)?, cx.input(1)?);
    let below = cx.binary(BinaryFn::Mul, x, slope)?;
    Ok(vec![where_negative(cx, x, below)?])
}

/// `alpha · (e^(x / width) - 1)`.
fn exponential_tail(cx: &mut NodeContext<'_>, x: ValueId, alpha: f64, width: f64) -> Result<ValueId, LowerError> {
    let x = if width == 1.0 { x } else { cx.binary_scalar(BinaryFn::Div, x, width)? };
    let exp = cx.unary(UnaryFn::Exp, x)?;
    let tail = cx.binary_scalar(BinaryFn::Sub, exp, 1.0)?;
    if alpha == 1.0 { Ok(tail) } else { cx.binary_scalar(BinaryFn::Mul, tail, alpha) }
}

fn elu(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let alpha = cx.float_or("alpha", 1.0)?;
    let below = exponential_tail(cx, x, alpha.into(), 1.0)?;
    Ok(vec![where_negative(cx, x, below)?])
}

fn selu(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let (alpha, gamma) = (cx.float_or("alpha", 1.673_263_2)?, cx.float_or("gamma", 1.050_701)?);
    let below = exponential_tail(cx, x, alpha.into(), 1.0)?;
    let elu = where_negative(cx, x, below)?;
    Ok(vec![cx.binary_scalar(BinaryFn::Mul, elu, gamma.into())?])
}

fn celu(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let alpha = f64::from(cx.float_or("alpha", 1.0)?);
    let below = exponential_tail(cx, x, alpha, alpha)?;
    Ok(vec![where_negative(cx, x, below)?])
}

fn softsign(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let size = cx.unary(UnaryFn::Abs, x)?;
    let below = cx.binary_scalar(BinaryFn::Add, size, 1.0)?;
    Ok(vec![cx.binary(BinaryFn::Div, x, below)?])
}

fn gelu(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let tanh = match cx.string("approximate")? {
        None | Some("none") => false,
        Some("tanh") => true,
        Some(_) => {
            return Err(LowerError::Attribute {
                name: "approximate".to_owned(),
                expected: "`none` or `tanh`".to_owned(),
            });
        }
    };
    Ok(vec![cx.add(Gelu { tanh }, &[x])?])
}

fn swish(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let alpha = cx.float_or("alpha", 1.0)?;
    let scaled = if alpha == 1.0 { x } else { cx.binary_scalar(BinaryFn::Mul, x, alpha.into())? };
    let gate = cx.unary(UnaryFn::Sigmoid, scaled)?;
    Ok(vec![cx.binary(BinaryFn::Mul, x, gate)?])
}

fn mish(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let softplus = cx.unary(UnaryFn::Softplus, x)?;
    let gate = cx.unary(UnaryFn::Tanh, softplus)?;
    Ok(vec![cx.binary(BinaryFn::Mul, x, gate)?])
}

fn thresholded_relu(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let alpha = cx.float_or("alpha", 1.0)?;
    let above = cx.binary_scalar(BinaryFn::Gt, x, alpha.into())?;
    let zero = cx.scalar_like(x, 0.0);
    Ok(vec![cx.select(above, x, zero)?])
}

fn shrink(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    // Limits and bias are applied in binary32 at least: an integer tensor has fractional ones too.
    let dtype = cx.dtype(x);
    let wide = if dtype.is_float() { x } else { cx.cast(x, DType::F64)? };
    let (bias, limit) = (f64::from(cx.float_or("bias", 0.0)?), f64::from(cx.float_or("lambd", 0.5)?));
    let below = cx.binary_scalar(BinaryFn::Lt, wide, -limit)?;
    let above = cx.binary_scalar(BinaryFn::Gt, wide, limit)?;
    let raised = cx.binary_scalar(BinaryFn::Add, wide, bias)?;
    let lowered = cx.binary_scalar(BinaryFn::Sub, wide, bias)?;
    let zero = cx.scalar_like(wide, 0.0);
    let upper = cx.select(above, lowered, zero)?;
    let result = cx.select(below, raised, upper)?;
    Ok(vec![cx.cast(result, dtype)?])
}

fn clip(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let mut x = cx.input(0)?;
    for (index, name, function) in [(1, "min", BinaryFn::Max), (2, "max", BinaryFn::Min)] {
        // The limits were attributes before operator set 11.
        let limit = match (cx.optional(index), cx.float(name)?) {
            (Some(limit), _) => tables::scalar(cx, limit)?,
            (None, Some(limit)) => cx.scalar_like(x, limit.into()),
            (None, None) => continue,
        };
        x = cx.binary(function, x, limit)?;
    }
    Ok(vec![x])
}

/// Applies a function along `axis`. Before operator set 13 the axis meant: flatten to a matrix there, and work along
/// its rows.
fn along_axis(
    cx: &mut NodeContext<'_>,
    function: impl Fn(&mut NodeContext<'_>, ValueId, usize) -> Result<ValueId, LowerError>,
) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let dims = cx.shape(x).to_vec();
    let flattens = cx.opset() < 13;
    let axis = cx.axis(cx.int_or("axis", if flattens { 1 } else { -1 })?, dims.len())?;
    if !flattens || axis + 1 == dims.len() {
        return Ok(vec![function(cx, x, axis)?]);
    }
    let (rows, columns) = dims.split_at(axis);
    let matrix = cx.reshape(x, &[rows.iter().product(), columns.iter().product()])?;
    let result = function(cx, matrix, 1)?;
    Ok(vec![cx.reshape(result, &dims)?])
}

fn log_softmax(cx: &mut NodeContext<'_>, x: ValueId, axis: usize) -> Result<ValueId, LowerError> {
    let max = cx.reduce(ReduceFn::Max, x, &[axis], true)?;
    let shifted = cx.binary(BinaryFn::Sub, x, max)?;
    let exp = cx.unary(UnaryFn::Exp, shifted)?;
    let sum = cx.reduce(ReduceFn::Sum, exp, &[axis], true)?;
    let log = cx.unary(UnaryFn::Log, sum)?;
    cx.binary(BinaryFn::Sub, shifted, log)
}

fn hardmax(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    along_axis(cx, |cx, x, axis| {
        let (rank, len, dtype) = (cx.rank(x), cx.shape(x)[axis], cx.dtype(x));
        let best = cx.add(ArgReduce { function: ArgFn::Max, axis, select_last: false }, &[x])?;
        let positions = tables::iota(cx, len, axis, rank)?;
        let chosen = cx.binary(BinaryFn::Eq, best, positions)?;
        cx.cast(chosen, dtype)
    })
}
