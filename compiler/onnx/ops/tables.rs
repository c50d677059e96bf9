//! Constants that lowerings compute themselves: tables, masks and interpolation matrices.

use tcc_ir::{DType, NumberClass, Shape, Tensor, TensorType, ValueId, Values};

use crate::onnx::context::NodeContext;
use crate::onnx::error::LowerError;

/// Most elements that a lowering makes up out of nothing, so that a hostile attribute cannot ask for all memory.
const MAX_TABLE_ELEMENTS: usize = 1 << 24;

/// A constant of `dims` whose elements, in row-major order, are `values` rounded to `dtype`.
pub(super) fn table(
    cx: &mut NodeContext<'_>,
    dtype: DType,
    dims: &[usize],
    values: Vec<f64>,
) -> Result<ValueId, LowerError> {
    let shape = Shape::new(dims.iter().copied())?;
    if shape.count() != values.len() {
        return Err(LowerError::invalid(format!("{} values were given for a constant of shape {shape}", values.len())));
    }
    let values = match dtype.class() {
        NumberClass::F32 => Values::F32(values.iter().map(|&value| value as f32).collect()),
        NumberClass::F64 => Values::F64(values.into()),
        NumberClass::Signed => Values::Signed(values.iter().map(|&value| value as i64).collect()),
        NumberClass::Unsigned => Values::Unsigned(values.iter().map(|&value| value as u64).collect()),
    };
    Ok(cx.constant(Tensor::narrow(TensorType::new(dtype, shape), values)))
}

/// A vector of indices.
pub(super) fn indices(cx: &mut NodeContext<'_>, values: Vec<i64>) -> ValueId {
    cx.constant(Tensor::vector_i64(values))
}

/// The integers `0..len` along `axis` of a tensor of `rank` dimensions, all others of extent 1.
pub(super) fn iota(cx: &mut NodeContext<'_>, len: usize, axis: usize, rank: usize) -> Result<ValueId, LowerError> {
    check_table(&[len])?;
    let numbers = indices(cx, (0..len as i64).collect());
    let mut dims = vec![1; rank];
    if let Some(dim) = dims.get_mut(axis) {
        *dim = len;
    }
    cx.reshape(numbers, &dims)
}

/// Fails if a constant of `dims` would be absurdly large. To be called before its elements are computed.
pub(super) fn check_table(dims: &[usize]) -> Result<(), LowerError> {
    let shape = Shape::new(dims.iter().copied())?;
    if shape.count() > MAX_TABLE_ELEMENTS {
        return Err(LowerError::unsupported(format!(
            "it needs a table of shape {shape}, which is more than the {MAX_TABLE_ELEMENTS} elements that tcc makes up"
        )));
    }
    Ok(())
}

/// An attribute or constant that counts something: positive, and small enough to compute with.
pub(super) fn counts(name: &str, values: &[i64], least: i64) -> Result<Vec<usize>, LowerError> {
    values
        .iter()
        .map(|&value| match usize::try_from(value) {
            Ok(count) if value >= least && value <= i64::from(i32::MAX) => Ok(count),
            _ => Err(LowerError::invalid(format!("`{name}` holds {value}, but must be from {least} to {}", i32::MAX))),
        })
        .collect()
}

/// A value of one element as a scalar.
pub(super) fn scalar(cx: &mut NodeContext<'_>, value: ValueId) -> Result<ValueId, LowerError> {
    if cx.shape(value).count() != 1 {
        return Err(LowerError::invalid(format!(
            "`{}` must hold one element, but is {}",
            cx.name_of(value),
            cx.ty(value)
        )));
    }
    cx.reshape(value, &[])
}

/// The one integer that a constant input holds.
pub(super) fn const_int(cx: &NodeContext<'_>, index: usize) -> Result<i64, LowerError> {
    match cx.const_i64s(index)?[..] {
        [value] => Ok(value),
        ref values => {
            Err(LowerError::invalid(format!("input {index} must hold one integer, but holds {}", values.len())))
        }
    }
}
