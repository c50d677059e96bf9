//! Element-wise arithmetic, comparison and logic.

use tcc_ir::ops::{BinaryFn, UnaryFn};
use tcc_ir::{DType, ValueId};

use crate::onnx::context::NodeContext;
use crate::onnx::error::LowerError;
use crate::onnx::registry::{Entry, onnx};

pub(super) const FAMILY: &[Entry] = &[
    onnx("Abs", |cx| unary(cx, UnaryFn::Abs)),
    onnx("Add", |cx| binary(cx, BinaryFn::Add)),
    onnx("And", |cx| binary(cx, BinaryFn::And)),
    onnx("BitShift", bit_shift),
    onnx("BitwiseAnd", |cx| binary(cx, BinaryFn::And)),
    onnx("BitwiseNot", |cx| unary(cx, UnaryFn::Not)),
    onnx("BitwiseOr", |cx| binary(cx, BinaryFn::Or)),
    onnx("BitwiseXor", |cx| binary(cx, BinaryFn::Xor)),
    onnx("Ceil", |cx| unary(cx, UnaryFn::Ceil)),
    onnx("Cos", |cx| unary(cx, UnaryFn::Cos)),
    onnx("Cosh", cosh),
    onnx("Div", |cx| binary(cx, BinaryFn::Div)),
    onnx("Equal", |cx| binary(cx, BinaryFn::Eq)),
    onnx("Erf", |cx| unary(cx, UnaryFn::Erf)),
    onnx("Exp", |cx| unary(cx, UnaryFn::Exp)),
    onnx("Floor", |cx| unary(cx, UnaryFn::Floor)),
    onnx("Greater", |cx| binary(cx, BinaryFn::Gt)),
    onnx("GreaterOrEqual", |cx| binary(cx, BinaryFn::Ge)),
    onnx("IsInf", is_inf),
    onnx("IsNaN", |cx| unary(cx, UnaryFn::IsNan)),
    onnx("Less", |cx| binary(cx, BinaryFn::Lt)),
    onnx("LessOrEqual", |cx| binary(cx, BinaryFn::Le)),
    onnx("Log", |cx| unary(cx, UnaryFn::Log)),
    onnx("Max", |cx| variadic(cx, BinaryFn::Max)),
    onnx("Mean", mean),
    onnx("Min", |cx| variadic(cx, BinaryFn::Min)),
    onnx("Mod", modulo),
    onnx("Mul", |cx| binary(cx, BinaryFn::Mul)),
    onnx("Neg", |cx| unary(cx, UnaryFn::Neg)),
    onnx("Not", |cx| unary(cx, UnaryFn::Not)),
    onnx("Or", |cx| binary(cx, BinaryFn::Or)),
    onnx("Pow", pow),
    onnx("Reciprocal", |cx| unary(cx, UnaryFn::Recip)),
    onnx("Round", |cx| unary(cx, UnaryFn::Round)),
    onnx("Sign", |cx| unary(cx, UnaryFn::Sign)),
    onnx("Sin", |cx| unary(cx, UnaryFn::Sin)),
    onnx("Sinh", sinh),
    onnx("Sqrt", |cx| unary(cx, UnaryFn::Sqrt)),
    onnx("Sub", |cx| binary(cx, BinaryFn::Sub)),
    onnx("Sum", |cx| variadic(cx, BinaryFn::Add)),
    onnx("Tan", |cx| unary(cx, UnaryFn::Tan)),
    onnx("Tanh", |cx| unary(cx, UnaryFn::Tanh)),
    onnx("Where", select),
    onnx("Xor", |cx| binary(cx, BinaryFn::Xor)),
];

fn unary(cx: &mut NodeContext<'_>, function: UnaryFn) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    Ok(vec![cx.unary(function, x)?])
}

fn binary(cx: &mut NodeContext<'_>, function: BinaryFn) -> Result<Vec<ValueId>, LowerError> {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    Ok(vec![cx.binary(function, a, b)?])
}

fn fold(cx: &mut NodeContext<'_>, function: BinaryFn) -> Result<ValueId, LowerError> {
    let inputs = cx.all_inputs()?;
    let (&first, rest) = inputs.split_first().ok_or(LowerError::MissingInput(0))?;
    rest.iter().try_fold(first, |result, &input| cx.binary(function, result, input))
}

fn variadic(cx: &mut NodeContext<'_>, function: BinaryFn) -> Result<Vec<ValueId>, LowerError> {
    Ok(vec![fold(cx, function)?])
}

fn mean(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let sum = fold(cx, BinaryFn::Add)?;
    let count = cx.input_count() as f64;
    Ok(vec![if count == 1.0 { sum } else { cx.binary_scalar(BinaryFn::Div, sum, count)? }])
}

fn bit_shift(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    match cx.string("direction")? {
        Some("LEFT") => binary(cx, BinaryFn::Shl),
        Some("RIGHT") => binary(cx, BinaryFn::Shr),
        _ => Err(LowerError::Attribute { name: "direction".to_owned(), expected: "LEFT or RIGHT".to_owned() }),
    }
}

/// (e^x + e^-x) / 2.
fn half_exponentials(cx: &mut NodeContext<'_>, x: ValueId) -> Result<ValueId, LowerError> {
    let up = cx.unary(UnaryFn::Exp, x)?;
    let minus = cx.unary(UnaryFn::Neg, x)?;
    let down = cx.unary(UnaryFn::Exp, minus)?;
    let sum = cx.binary(BinaryFn::Add, up, down)?;
    cx.binary_scalar(BinaryFn::Mul, sum, 0.5)
}

fn cosh(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    Ok(vec![half_exponentials(cx, x)?])
}

fn sinh(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    // The difference of two exponentials would lose all digits near 0; tanh x · cosh x does not.
    let x = cx.input(0)?;
    let cosh = half_exponentials(cx, x)?;
    let tanh = cx.unary(UnaryFn::Tanh, x)?;
    Ok(vec![cx.binary(BinaryFn::Mul, tanh, cosh)?])
}

fn is_inf(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let infinite = cx.unary(UnaryFn::IsInf, x)?;
    let side = match (cx.flag("detect_negative", true)?, cx.flag("detect_positive", true)?) {
        (true, true) => return Ok(vec![infinite]),
        (false, true) => cx.binary_scalar(BinaryFn::Gt, x, 0.0)?,
        (true, false) => cx.binary_scalar(BinaryFn::Lt, x, 0.0)?,
        (false, false) => cx.unary(UnaryFn::Not, infinite)?,
    };
    Ok(vec![cx.binary(BinaryFn::And, infinite, side)?])
}

fn modulo(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let function = if cx.flag("fmod", false)? { BinaryFn::Rem } else { BinaryFn::Mod };
    binary(cx, function)
}

fn pow(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let (base, exponent) = (cx.input(0)?, cx.input(1)?);
    let dtype = cx.dtype(base);
    // The result has the type of the base; a fractional power of an integer is taken before it is truncated.
    let wide = if dtype.is_integer() && cx.dtype(exponent).is_float() { DType::F64 } else { dtype };
    let (base, exponent) = (cx.cast(base, wide)?, cx.cast(exponent, wide)?);
    let power = cx.binary(BinaryFn::Pow, base, exponent)?;
    Ok(vec![cx.cast(power, dtype)?])
}

fn select(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let (condition, yes, no) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    Ok(vec![cx.select(condition, yes, no)?])
}
