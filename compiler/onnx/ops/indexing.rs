//! Selection and replacement by index, padding, and masks.

use tcc_ir::ops::{BinaryFn, GatherElements, GatherNd, Pad, ScatterElements, ScatterNd, ScatterReduction};
use tcc_ir::{DType, ValueId};

use super::cast::element_type;
use super::tables;
use crate::onnx::context::NodeContext;
use crate::onnx::error::LowerError;
use crate::onnx::registry::{Entry, onnx};

pub(super) const FAMILY: &[Entry] = &[
    onnx("Compress", compress),
    onnx("EyeLike", eye_like),
    onnx("Gather", gather),
    onnx("GatherElements", gather_elements),
    onnx("GatherND", gather_nd),
    onnx("OneHot", one_hot),
    onnx("Pad", pad),
    onnx("ReverseSequence", reverse_sequence),
    onnx("Scatter", scatter_elements),
    onnx("ScatterElements", scatter_elements),
    onnx("ScatterND", scatter_nd),
    onnx("TensorScatter", tensor_scatter),
    onnx("Trilu", trilu),
];

fn gather(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let (data, index) = (cx.input(0)?, cx.input(1)?);
    let axis = cx.axis(cx.int_or("axis", 0)?, cx.rank(data))?;
    Ok(vec![cx.gather(data, index, axis)?])
}

fn gather_elements(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let (data, index) = (cx.input(0)?, cx.input(1)?);
    let axis = cx.axis(cx.int_or("axis", 0)?, cx.rank(data))?;
    Ok(vec![cx.add(GatherElements { axis }, &[data, index])?])
}

fn gather_nd(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let (data, index) = (cx.input(0)?, cx.input(1)?);
    let batch_dims = tables::counts("batch_dims", &[cx.int_or("batch_dims", 0)?], 0)?[0];
    Ok(vec![cx.add(GatherNd { batch_dims }, &[data, index])?])
}

fn scatter_reduction(cx: &NodeContext<'_>) -> Result<ScatterReduction, LowerError> {
    Ok(match cx.string("reduction")?.unwrap_or("none") {
        "none" => ScatterReduction::Replace,
        "add" => ScatterReduction::Add,
        "mul" => ScatterReduction::Mul,
        "max" => ScatterReduction::Max,
        "min" => ScatterReduction::Min,
        other => return Err(LowerError::unsupported(format!("reduction `{other}` is not one of ONNX's"))),
    })
}

fn scatter_elements(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let operands = [cx.input(0)?, cx.input(1)?, cx.input(2)?];
    let axis = cx.axis(cx.int_or("axis", 0)?, cx.rank(operands[0]))?;
    let reduction = scatter_reduction(cx)?;
    Ok(vec![cx.add(ScatterElements { axis, reduction }, &operands)?])
}

fn scatter_nd(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let operands = [cx.input(0)?, cx.input(1)?, cx.input(2)?];
    let reduction = scatter_reduction(cx)?;
    Ok(vec![cx.add(ScatterNd { reduction }, &operands)?])
}

/// Writes new rows of keys or values into a cache, for each sample from its own position on.
fn tensor_scatter(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let (cache, update) = (cx.input(0)?, cx.input(1)?);
    let dims = cx.shape(update).to_vec();
    let rank = dims.len();
    let axis = cx.axis(cx.int_or("axis", -2)?, rank)?;
    if axis == 0 || cx.rank(cache) != rank {
        return Err(LowerError::invalid(format!(
            "an update of {} cannot be written along axis {axis} of {}",
            cx.ty(update),
            cx.ty(cache)
        )));
    }
    let len = cx.shape(cache)[axis];
    let mut places = tables::iota(cx, dims[axis], axis, rank)?;
    if let Some(first) = cx.optional(2) {
        let first = cx.cast(first, DType::I64)?;
        let mut samples = vec![1; rank];
        samples[0] = cx.shape(first).count();
        let first = cx.reshape(first, &samples)?;
        places = cx.binary(BinaryFn::Add, first, places)?;
    }
    match cx.string("mode")?.unwrap_or("linear") {
        "linear" => {}
        "circular" => places = cx.binary_scalar(BinaryFn::Mod, places, len as f64)?,
        other => return Err(LowerError::unsupported(format!("`mode` `{other}` is not one of ONNX's"))),
    }
    let places = cx.broadcast(places, &dims)?;
    let reduction = ScatterReduction::Replace;
    Ok(vec![cx.add(ScatterElements { axis, reduction }, &[cache, places, update])?])
}

fn one_hot(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let (index, values) = (cx.input(0)?, cx.input(2)?);
    let depth = cx.const_tensor(1)?.to_f64s()?;
    let depth = match depth[..] {
        [depth] => tables::counts("depth", &[depth as i64], 1)?[0],
        _ => return Err(LowerError::invalid("`depth` must hold one number")),
    };
    let rank = cx.rank(index) + 1;
    let axis = cx.axis(cx.int_or("axis", -1)?, rank)?;
    let index = cx.cast(index, DType::I64)?;
    // Negative indices count from the end.
    let wrapped = cx.binary_scalar(BinaryFn::Add, index, depth as f64)?;
    let negative = cx.binary_scalar(BinaryFn::Lt, index, 0.0)?;
    let index = cx.select(negative, wrapped, index)?;
    let mut dims = cx.shape(index).to_vec();
    dims.insert(axis, 1);
    let index = cx.reshape(index, &dims)?;
    let positions = tables::iota(cx, depth, axis, rank)?;
    let hot = cx.binary(BinaryFn::Eq, index, positions)?;
    let (off, on) = (cx.slice(values, 0, 0, 1)?, cx.slice(values, 0, 1, 1)?);
    let (off, on) = (cx.reshape(off, &[])?, cx.reshape(on, &[])?);
    Ok(vec![cx.select(hot, on, off)?])
}

/// Whether column - row compares to `offset` as `function` says, for the last two axes.
fn diagonal(
    cx: &mut NodeContext<'_>,
    rows: usize,
    columns: usize,
    function: BinaryFn,
    offset: ValueId,
) -> Result<ValueId, LowerError> {
    let row = tables::iota(cx, rows, 0, 2)?;
    let column = tables::iota(cx, columns, 1, 2)?;
    // Compared with the row's own diagonal: both sides stay small, and a constant side folds whatever the mask's size.
    let diagonal = cx.binary(BinaryFn::Add, row, offset)?;
    cx.binary(function, column, diagonal)
}

fn trilu(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let &[.., rows, columns] = cx.shape(x).dims() else {
        return Err(LowerError::invalid(format!("the input must have at least 2 dimensions, but is {}", cx.ty(x))));
    };
    let offset = match cx.optional(1) {
        Some(offset) => {
            let offset = tables::scalar(cx, offset)?;
            cx.cast(offset, DType::I64)?
        }
        None => cx.constant(tcc_ir::Tensor::scalar(0i64)),
    };
    let function = if cx.flag("upper", true)? { BinaryFn::Ge } else { BinaryFn::Le };
    let kept = diagonal(cx, rows, columns, function, offset)?;
    let zero = cx.scalar_like(x, 0.0);
    Ok(vec![cx.select(kept, x, zero)?])
}

fn eye_like(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let &[rows, columns] = cx.shape(x).dims() else {
        return Err(LowerError::invalid(format!("the input must have 2 dimensions, but is {}", cx.ty(x))));
    };
    let dtype = match cx.int("dtype")? {
        Some(code) => element_type(code)?,
        None => cx.dtype(x),
    };
    let offset = cx.constant(tcc_ir::Tensor::scalar(cx.int_or("k", 0)?));
    let ones = diagonal(cx, rows, columns, BinaryFn::Eq, offset)?;
    Ok(vec![cx.cast(ones, dtype)?])
}

fn compress(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let mut x = cx.input(0)?;
    // How many elements are kept depends on the condition.
    let kept = cx.const_i64s(1)?;
    let axis = match cx.int("axis")? {
        Some(axis) => cx.axis(axis, cx.rank(x))?,
        None => {
            x = cx.reshape(x, &[cx.shape(x).count()])?;
            0
        }
    };
    let positions = kept.iter().enumerate().filter(|(_, flag)| **flag != 0).map(|(position, _)| position as i64);
    let positions = tables::indices(cx, positions.collect());
    Ok(vec![cx.gather(x, positions, axis)?])
}

fn reverse_sequence(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let dims = cx.shape(x).to_vec();
    let batch_axis = cx.axis(cx.int_or("batch_axis", 1)?, dims.len())?;
    let time_axis = cx.axis(cx.int_or("time_axis", 0)?, dims.len())?;
    if batch_axis == time_axis {
        return Err(LowerError::invalid("`batch_axis` and `time_axis` are the same"));
    }
    let lens = tables::counts("sequence_lens", &cx.const_i64s(1)?, 0)?;
    let (batches, steps) = (dims[batch_axis], dims[time_axis]);
    if lens.len() != batches || lens.iter().any(|&len| len > steps) {
        return Err(LowerError::invalid(format!("`sequence_lens` must hold {batches} lengths of at most {steps}")));
    }
    tables::check_table(&[batches, steps])?;
    // Batch and time together become one axis, from which every row is taken by its place.
    let mut perm = vec![batch_axis, time_axis];
    perm.extend((0..dims.len()).filter(|&axis| axis != batch_axis && axis != time_axis));
    let places = lens.iter().enumerate().flat_map(|(batch, &len)| {
        (0..steps).map(move |step| (batch * steps + if step < len { len - 1 - step } else { step }) as i64)
    });
    let places = tables::indices(cx, places.collect());
    let moved = cx.transpose(x, &perm)?;
    let moved_dims = cx.shape(moved).to_vec();
    let rows: Vec<usize> = [batches * steps].into_iter().chain(moved_dims[2..].iter().copied()).collect();
    let rows = cx.reshape(moved, &rows)?;
    let reversed = cx.gather(rows, places, 0)?;
    let reversed = cx.reshape(reversed, &moved_dims)?;
    let mut back = vec![0; perm.len()];
    for (place, &axis) in perm.iter().enumerate() {
        back[axis] = place;
    }
    Ok(vec![cx.transpose(reversed, &back)?])
}

fn pad(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let dims = cx.shape(x).to_vec();
    // Amounts and value were attributes before operator set 11.
    let pads = match cx.ints("pads")? {
        Some(pads) => pads.to_vec(),
        None => cx.const_i64s(1)?,
    };
    let axes = match cx.optional_const_i64s(3)? {
        Some(axes) => axes.iter().map(|&axis| cx.axis(axis, dims.len())).collect::<Result<Vec<_>, _>>()?,
        None => (0..dims.len()).collect(),
    };
    if pads.len() != 2 * axes.len() || pads.iter().any(|amount| amount.unsigned_abs() > i32::MAX as u64) {
        return Err(LowerError::invalid(format!("{} axes take twice as many sane amounts, not {pads:?}", axes.len())));
    }
    let (mut low, mut high) = (vec![0; dims.len()], vec![0; dims.len()]);
    for (index, &axis) in axes.iter().enumerate() {
        low[axis] += pads[index];
        high[axis] += pads[axes.len() + index];
    }
    match cx.string("mode")?.unwrap_or("constant") {
        "constant" => {
            let value = match (cx.optional(2), cx.float("value")?) {
                (Some(value), _) => tables::scalar(cx, value)?,
                (None, value) => cx.scalar_like(x, value.unwrap_or(0.0).into()),
            };
            if low.iter().chain(&high).all(|&amount| amount == 0) {
                return Ok(vec![x]);
            }
            let interior = vec![0; dims.len()];
            Ok(vec![cx.add(Pad { low, high, interior }, &[x, value])?])
        }
        mode => {
            // The source of each element along an axis is known, so every axis is one selection.
            let source: fn(i64, i64) -> i64 = match mode {
                "edge" => |position, len| position.clamp(0, len - 1),
                "reflect" => |position, len| {
                    let period = (2 * (len - 1)).max(1);
                    let position = position.rem_euclid(period);
                    if position < len { position } else { period - position }
                },
                "wrap" => |position, len| position.rem_euclid(len),
                _ => return Err(LowerError::unsupported(format!("padding mode `{mode}` is not one of ONNX's"))),
            };
            let mut result = x;
            for (axis, &dim) in dims.iter().enumerate() {
                if low[axis] == 0 && high[axis] == 0 {
                    continue;
                }
                let len = dim as i64;
                let places = (-low[axis]).min(len + high[axis])..len + high[axis];
                if len == 0 && !places.is_empty() {
                    return Err(LowerError::invalid(format!("axis {axis} is empty, so there is nothing to pad it with")));
                }
                tables::check_table(&[(places.end - places.start) as usize])?;
                let places = tables::indices(cx, places.map(|position| source(position, len)).collect());
                result = cx.gather(result, places, axis)?;
            }
            Ok(vec![result])
        }
    }
}
