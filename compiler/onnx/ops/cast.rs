//! Conversion between element types.

use tcc_ir::{DType, ValueId};

use crate::onnx::context::NodeContext;
use crate::onnx::error::LowerError;
use crate::onnx::registry::{Entry, onnx};
use crate::onnx::tensor::{self, WeightProblem};

pub(super) const FAMILY: &[Entry] = &[onnx("Cast", cast), onnx("CastLike", cast_like)];

/// The element type that ONNX numbers `code`.
pub(super) fn element_type(code: i64) -> Result<DType, LowerError> {
    let known = i32::try_from(code).ok().map(tensor::dtype);
    known
        .unwrap_or(Err(WeightProblem::Unsupported(format!("type {code}"))))
        .map_err(|problem| LowerError::unsupported(problem.to_string()))
}

fn cast(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let code = cx
        .int("to")?
        .ok_or_else(|| LowerError::Attribute { name: "to".to_owned(), expected: "an element type".to_owned() })?;
    let to = element_type(code)?;
    convert(cx, x, to)
}

fn cast_like(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let (x, like) = (cx.input(0)?, cx.input(1)?);
    let to = cx.dtype(like);
    convert(cx, x, to)
}

fn convert(cx: &mut NodeContext<'_>, x: ValueId, to: DType) -> Result<Vec<ValueId>, LowerError> {
    let small_float = matches!(to, DType::F8E4M3 | DType::F8E5M2);
    if small_float && !cx.flag("saturate", true)? {
        return Err(LowerError::unsupported(format!(
            "casts to {to} saturate in tcc; export the model with saturate=1"
        )));
    }
    // ONNX leaves out-of-range values of narrow integers open, but its own tests wrap them as wider integers do.
    let wraps = matches!(to, DType::I4 | DType::U4) && cx.dtype(x).is_float();
    let x = if wraps { cx.cast(x, DType::I32)? } else { x };
    Ok(vec![cx.cast(x, to)?])
}
