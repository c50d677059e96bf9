//! Element-wise arithmetic, comparison and logic.

use tcc_ir::ValueId;
use tcc_ir::ops::{BinaryFn, UnaryFn};

use crate::onnx::context::NodeContext;
use crate::onnx::error::LowerError;
use crate::onnx::registry::{Entry, onnx};

pub(super) const FAMILY: &[Entry] =
    &[onnx("Abs", |cx| unary(cx, UnaryFn::Abs)), onnx("Add", |cx| binary(cx, BinaryFn::Add))];

fn unary(cx: &mut NodeContext<'_>, function: UnaryFn) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    Ok(vec![cx.unary(function, x)?])
}

fn binary(cx: &mut NodeContext<'_>, function: BinaryFn) -> Result<Vec<ValueId>, LowerError> {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    Ok(vec![cx.binary(function, a, b)?])
}
