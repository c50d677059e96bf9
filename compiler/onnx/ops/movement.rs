//! Shapes and layout: reshaping, permuting, joining, splitting, slicing, tiling.

use tcc_ir::ops::Slice;
use tcc_ir::{Shape, ValueId};

use super::tables;
use crate::onnx::context::NodeContext;
use crate::onnx::error::LowerError;
use crate::onnx::registry::{Entry, onnx};

pub(super) const FAMILY: &[Entry] = &[
    onnx("Concat", concat),
    onnx("DepthToSpace", depth_to_space),
    onnx("Expand", expand),
    onnx("Flatten", flatten),
    onnx("Reshape", reshape),
    onnx("Slice", slice),
    onnx("SpaceToDepth", space_to_depth),
    onnx("Split", split),
    onnx("Squeeze", squeeze),
    onnx("Tile", tile),
    onnx("Transpose", transpose),
    onnx("Unsqueeze", unsqueeze),
];

fn reshape(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let wanted = cx.const_i64s(1)?;
    let keep_zero = cx.flag("allowzero", false)?;
    let old = cx.shape(x).clone();
    let mut dims = Vec::with_capacity(wanted.len());
    let mut free = None;
    for (axis, &dim) in wanted.iter().enumerate() {
        dims.push(match dim {
            -1 if free.is_none() => {
                free = Some(axis);
                1
            }
            0 if !keep_zero => *old.get(axis).ok_or_else(|| {
                LowerError::invalid(format!("shape {wanted:?} keeps axis {axis}, which an operand of shape {old} lacks"))
            })?,
            _ => usize::try_from(dim)
                .map_err(|_| LowerError::invalid(format!("shape {wanted:?} has a negative extent or two of -1")))?,
        });
    }
    if let Some(axis) = free {
        let rest = Shape::new(dims.iter().copied())?.count();
        dims[axis] = old.count().checked_div(rest).ok_or_else(|| {
            LowerError::invalid(format!("the -1 in shape {wanted:?} cannot be told from an operand of shape {old}"))
        })?;
    }
    Ok(vec![cx.reshape(x, &dims)?])
}

fn flatten(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let dims = cx.shape(x).to_vec();
    let axis = cx.int_or("axis", 1)?;
    // The axis may be the rank itself: all in rows.
    let axis = if axis == dims.len() as i64 { dims.len() } else { cx.axis(axis, dims.len())? };
    let (rows, columns) = dims.split_at(axis);
    Ok(vec![cx.reshape(x, &[rows.iter().product(), columns.iter().product()])?])
}

fn transpose(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let rank = cx.rank(x);
    let perm = match cx.ints("perm")? {
        Some(perm) => perm.iter().map(|&axis| cx.axis(axis, rank)).collect::<Result<Vec<_>, _>>()?,
        None => (0..rank).rev().collect(),
    };
    Ok(vec![cx.transpose(x, &perm)?])
}

/// Axes from the attribute, or from input 1 where they moved in operator set 13.
fn axes_of(cx: &NodeContext<'_>) -> Result<Option<Vec<i64>>, LowerError> {
    match cx.ints("axes")? {
        Some(axes) => Ok(Some(axes.to_vec())),
        None => cx.optional_const_i64s(1),
    }
}

fn squeeze(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let dims = cx.shape(x).to_vec();
    let axes = match axes_of(cx)? {
        Some(axes) => cx.axes(&axes, dims.len())?,
        None => (0..dims.len()).filter(|&axis| dims[axis] == 1).collect(),
    };
    if let Some(&axis) = axes.iter().find(|&&axis| dims[axis] != 1) {
        return Err(LowerError::invalid(format!("axis {axis} has extent {} and cannot be squeezed", dims[axis])));
    }
    let kept: Vec<usize> = (0..dims.len()).filter(|axis| !axes.contains(axis)).map(|axis| dims[axis]).collect();
    Ok(vec![cx.reshape(x, &kept)?])
}

fn unsqueeze(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let axes = axes_of(cx)?.ok_or(LowerError::MissingInput(1))?;
    let rank = cx.rank(x) + axes.len();
    let axes = cx.axes(&axes, rank)?;
    let mut old = cx.shape(x).to_vec().into_iter();
    let dims: Vec<usize> =
        (0..rank).map(|axis| if axes.binary_search(&axis).is_ok() { 1 } else { old.next().unwrap_or(1) }).collect();
    Ok(vec![cx.reshape(x, &dims)?])
}

fn expand(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let wanted = Shape::new(tables::counts("shape", &cx.const_i64s(1)?, 0)?)?;
    let dims = cx.shape(x).broadcast(&wanted)?;
    Ok(vec![cx.broadcast(x, &dims)?])
}

fn tile(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let repeats = tables::counts("repeats", &cx.const_i64s(1)?, 0)?;
    let dims = cx.shape(x).to_vec();
    if repeats.len() != dims.len() {
        return Err(LowerError::invalid(format!("{} repeats were given for {} axes", repeats.len(), dims.len())));
    }
    // Each repeated axis is split into repetitions and elements, so that repeating is broadcasting.
    let (mut apart, mut repeated) = (Vec::new(), Vec::new());
    for (&dim, &count) in dims.iter().zip(&repeats) {
        if count != 1 {
            apart.push(1);
            repeated.push(count);
        }
        apart.push(dim);
        repeated.push(dim);
    }
    let apart = cx.reshape(x, &apart)?;
    let repeated = cx.broadcast(apart, &repeated)?;
    let joined: Vec<usize> = dims.iter().zip(&repeats).map(|(dim, count)| dim * count).collect();
    Ok(vec![cx.reshape(repeated, &joined)?])
}

fn concat(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let parts = cx.all_inputs()?;
    let &first = parts.first().ok_or(LowerError::MissingInput(0))?;
    let axis = cx.axis(cx.int_or("axis", 1)?, cx.rank(first))?;
    Ok(vec![cx.concat(&parts, axis)?])
}

fn split(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let axis = cx.axis(cx.int_or("axis", 0)?, cx.rank(x))?;
    let len = cx.shape(x)[axis];
    // The sizes were an attribute before operator set 13.
    let sizes = match cx.ints("split")? {
        Some(sizes) => Some(sizes.to_vec()),
        None => cx.optional_const_i64s(1)?,
    };
    let sizes = match sizes {
        Some(sizes) => tables::counts("split", &sizes, 0)?,
        None => {
            let parts = tables::counts("num_outputs", &[cx.int_or("num_outputs", cx.output_count() as i64)?], 1)?[0];
            if parts != cx.output_count() {
                return Err(LowerError::invalid(format!(
                    "`num_outputs` is {parts}, but the node has {} outputs",
                    cx.output_count()
                )));
            }
            let size = len.div_ceil(parts);
            (0..parts).map(|part| size.min(len.saturating_sub(part * size))).collect()
        }
    };
    if sizes.iter().sum::<usize>() != len {
        return Err(LowerError::invalid(format!("the sizes {sizes:?} do not sum to the extent {len} of axis {axis}")));
    }
    let mut start = 0;
    let mut parts = Vec::with_capacity(sizes.len());
    for size in sizes {
        parts.push(cx.slice(x, axis, start, size)?);
        start += size;
    }
    Ok(parts)
}

fn slice(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let dims = cx.shape(x).to_vec();
    // Starts, ends and axes were attributes before operator set 10.
    let (starts, ends, axes, steps) = match (cx.ints("starts")?, cx.ints("ends")?) {
        (Some(starts), Some(ends)) => (starts.to_vec(), ends.to_vec(), cx.ints("axes")?.map(<[i64]>::to_vec), None),
        _ => (cx.const_i64s(1)?, cx.const_i64s(2)?, cx.optional_const_i64s(3)?, cx.optional_const_i64s(4)?),
    };
    let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()].iter().any(|&len| len != starts.len()) {
        return Err(LowerError::invalid("starts, ends, axes and steps must have one length"));
    }
    cx.axes(&axes, dims.len())?;
    let mut op = Slice { starts: vec![0; dims.len()], steps: vec![1; dims.len()], sizes: dims.clone() };
    for (index, &axis) in axes.iter().enumerate() {
        let axis = cx.axis(axis, dims.len())?;
        if steps[index] == 0 {
            return Err(LowerError::invalid(format!("the step along axis {axis} is 0")));
        }
        let (start, size) = selection(dims[axis], starts[index], ends[index], steps[index]);
        (op.starts[axis], op.steps[axis], op.sizes[axis]) = (start, steps[index], size);
        if size <= 1 {
            // The step of a single element is of no account, and hostile ones would overflow.
            op.steps[axis] = 1;
        }
    }
    let whole = op.sizes == dims && op.steps.iter().all(|&step| step == 1);
    Ok(vec![if whole { x } else { cx.add(op, &[x])? }])
}

/// First element and number of elements that `start:end:step` selects of an axis, as NumPy does.
fn selection(len: usize, start: i64, end: i64, step: i64) -> (usize, usize) {
    let (len, step) = (len as i128, i128::from(step));
    let (least, most) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let bound = |position: i64| {
        let position = i128::from(position);
        (if position < 0 { position + len } else { position }).clamp(least, most)
    };
    let (start, end) = (bound(start), bound(end));
    let span = if step > 0 { end - start } else { start - end };
    let size = if span <= 0 { 0 } else { (span - 1) / step.abs() + 1 };
    // Both are within 0..=len, which came from a usize; an empty selection may start anywhere.
    if size == 0 { (0, 0) } else { (start as usize, size as usize) }
}

/// Batch, channels, height and width of an image, and the block size.
fn image(cx: &NodeContext<'_>, x: ValueId) -> Result<([usize; 4], usize), LowerError> {
    let size = tables::counts("blocksize", &[cx.int_or("blocksize", 0)?], 1)?[0];
    match *cx.shape(x).dims() {
        [n, c, h, w] => Ok(([n, c, h, w], size)),
        _ => Err(LowerError::invalid(format!("the input must have 4 dimensions, but is {}", cx.ty(x)))),
    }
}

fn depth_to_space(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let ([n, c, h, w], size) = image(cx, x)?;
    let depth = c / (size * size);
    let moved = match cx.string("mode")?.unwrap_or("DCR") {
        "DCR" => {
            let apart = cx.reshape(x, &[n, size, size, depth, h, w])?;
            cx.transpose(apart, &[0, 3, 4, 1, 5, 2])?
        }
        "CRD" => {
            let apart = cx.reshape(x, &[n, depth, size, size, h, w])?;
            cx.transpose(apart, &[0, 1, 4, 2, 5, 3])?
        }
        mode => return Err(LowerError::unsupported(format!("mode `{mode}` is neither `DCR` nor `CRD`"))),
    };
    Ok(vec![cx.reshape(moved, &[n, depth, h * size, w * size])?])
}

fn space_to_depth(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let ([n, c, h, w], size) = image(cx, x)?;
    let apart = cx.reshape(x, &[n, c, h / size, size, w / size, size])?;
    let moved = cx.transpose(apart, &[0, 3, 5, 1, 2, 4])?;
    Ok(vec![cx.reshape(moved, &[n, c * size * size, h / size, w / size])?])
}

#[cfg(test)]
mod tests {
    use super::selection;

    #[test]
    fn selects_as_numpy() {
        assert_eq!(selection(10, 1, -1, 1), (1, 8));
        assert_eq!(selection(10, 0, i64::MAX, 3), (0, 4));
        assert_eq!(selection(10, -1, i64::MIN, -1), (9, 10));
        assert_eq!(selection(10, 20, 0, -4), (9, 3));
        assert_eq!(selection(10, 5, 5, 1), (0, 0));
        assert_eq!(selection(0, 0, i64::MAX, 1), (0, 0));
        assert_eq!(selection(10, 9, i64::MIN, i64::MIN), (9, 1));
    }
}
