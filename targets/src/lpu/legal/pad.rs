//! Padding: what is negative cuts, and what is between elements surrounds each of them.

use tcc_ir::ops::{Pad, Slice};
use tcc_ir::{Graph, GraphError, ValueId};

use super::parts::{broadcast, reshape};

/// Whether a padding does nothing but surround.
pub(super) fn surrounds(pad: &Pad) -> bool {
    pad.low.iter().chain(&pad.high).all(|&padding| padding >= 0) && pad.interior.iter().all(|&between| between == 0)
}

/// What is taken of an axis, and what then surrounds it.
struct Axis {
    start: usize,
    size: usize,
    low: i64,
    high: i64,
}

impl Axis {
    /// `None` if nothing is left of the elements.
    fn new(extent: usize, low: i64, high: i64) -> Option<Axis> {
        let cropped = |padding: i64| usize::try_from(padding.min(0).unsigned_abs()).unwrap_or(usize::MAX);
        let size = extent.checked_sub(cropped(low))?.checked_sub(cropped(high))?;
        (size > 0).then_some(Axis { start: cropped(low), size, low: low.max(0), high: high.max(0) })
    }
}

pub(super) fn pad(graph: &mut Graph, op: &Pad, inputs: &[ValueId]) -> Result<Vec<ValueId>, GraphError> {
    let &[x, value] = inputs else { return Ok(graph.add_multi(op.clone(), inputs)?.to_vec()) };
    let spread = spread(graph, op, x, value)?;
    let extents = graph.shape(spread).clone();
    let axes: Option<Vec<Axis>> =
        (0..extents.rank()).map(|axis| Axis::new(extents[axis], op.low[axis], op.high[axis])).collect();
    let Some(axes) = axes else {
        // Nothing of x is left to be seen.
        let padded = |axis: usize| extents[axis] as i128 + i128::from(op.low[axis]) + i128::from(op.high[axis]);
        let dims = (0..extents.rank()).map(|axis| usize::try_from(padded(axis)).unwrap_or(usize::MAX));
        return Ok(vec![broadcast(graph, value, dims)?]);
    };
    let slice = Slice {
        starts: axes.iter().map(|axis| axis.start).collect(),
        steps: vec![1; axes.len()],
        sizes: axes.iter().map(|axis| axis.size).collect(),
    };
    let taken = if slice.sizes[..] == extents[..] { spread } else { graph.add(slice, &[spread])? };
    let (low, high): (Vec<i64>, Vec<i64>) = axes.iter().map(|axis| (axis.low, axis.high)).unzip();
    if low.iter().chain(&high).all(|&padding| padding == 0) {
        return Ok(vec![taken]);
    }
    let surround = Pad { interior: vec![0; low.len()], low, high };
    Ok(vec![graph.add(surround, &[taken, value])?])
}

/// x with values between neighbours. Each element gets an axis of its own, on which they follow it, and those after the last
/// element are cut off.
fn spread(graph: &mut Graph, op: &Pad, x: ValueId, value: ValueId) -> Result<ValueId, GraphError> {
    let shape = graph.shape(x).clone();
    let between = |axis: usize| if shape[axis] > 1 { op.interior[axis] } else { 0 };
    if (0..shape.rank()).all(|axis| between(axis) == 0) {
        return Ok(x);
    }
    let saturated = |axis: usize| shape[axis].saturating_mul(between(axis).saturating_add(1));
    let elements = reshape(graph, x, shape.iter().flat_map(|&extent| [extent, 1]))?;
    let high = (0..shape.rank()).flat_map(|axis| [0, i64::try_from(between(axis)).unwrap_or(i64::MAX)]).collect();
    let follow = Pad { low: vec![0; 2 * shape.rank()], high, interior: vec![0; 2 * shape.rank()] };
    let followed = graph.add(follow, &[elements, value])?;
    let spread = reshape(graph, followed, (0..shape.rank()).map(saturated))?;
    let sizes = (0..shape.rank()).map(|axis| saturated(axis) - between(axis)).collect();
    graph.add(Slice { starts: vec![0; shape.rank()], steps: vec![1; shape.rank()], sizes }, &[spread])
}
