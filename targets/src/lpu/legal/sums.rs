//! Means and running sums.

use tcc_ir::ops::{BinaryFn, CumSum, Reduce, ReduceFn};
use tcc_ir::{DType, Graph, GraphError, NumberClass, ValueId};

use super::parts::{binary, drop_axis, insert_axis, number, places, reduce, select};
use super::scatter::sum_type;
use crate::products::cast;

/// Sums times the reciprocal of their count, which rounds twice; sums of integers are divided.
pub(super) fn mean(graph: &mut Graph, op: &Reduce, inputs: &[ValueId]) -> Result<Vec<ValueId>, GraphError> {
    let ty = graph.ty(inputs[0]).clone();
    let count: usize = op.axes.iter().map(|&axis| ty.shape[axis]).product();
    let wide = match ty.dtype.class() {
        NumberClass::F32 | NumberClass::F64 => sum_type(ty.dtype),
        // Sums of no more than so many do not wrap.
        _ if ty.dtype.bits() < 32 && count <= 1 << (31 - ty.dtype.bits()) => DType::I32,
        NumberClass::Signed => DType::I64,
        NumberClass::Unsigned => DType::U64,
    };
    let x = cast(graph, inputs[0], wide)?;
    let sum = graph.add(Reduce { function: ReduceFn::Sum, axes: op.axes.clone() }, &[x])?;
    let mean = if wide.is_float() {
        let share = number(graph, wide, 1.0 / count as f64);
        binary(graph, BinaryFn::Mul, sum, share)?
    } else {
        let count = number(graph, wide, count.max(1) as f64);
        binary(graph, BinaryFn::Div, sum, count)?
    };
    Ok(vec![cast(graph, mean, ty.dtype)?])
}

/// A sum for each position, over all elements but those that come after it. They are replaced, not multiplied by 0, which
/// infinities would not stand.
pub(super) fn cum_sum(graph: &mut Graph, op: CumSum, inputs: &[ValueId]) -> Result<Vec<ValueId>, GraphError> {
    let CumSum { axis, exclusive, reverse } = op;
    let ty = graph.ty(inputs[0]).clone();
    let (rank, len) = (ty.shape.rank(), ty.shape[axis]);
    let wide = sum_type(ty.dtype);
    let x = cast(graph, inputs[0], wide)?;
    // Positions lie along `axis`, the elements that are added along the next.
    let x = insert_axis(graph, x, axis)?;
    let position = places(graph, rank + 1, axis, len)?;
    let element = places(graph, rank + 1, axis + 1, len)?;
    let counts = match (reverse, exclusive) {
        (false, false) => BinaryFn::Le,
        (false, true) => BinaryFn::Lt,
        (true, false) => BinaryFn::Ge,
        (true, true) => BinaryFn::Gt,
    };
    let counts = binary(graph, counts, element, position)?;
    let zero = number(graph, wide, 0.0);
    let added = select(graph, counts, x, zero)?;
    let sums = reduce(graph, ReduceFn::Sum, axis + 1, added)?;
    let sums = drop_axis(graph, sums, axis + 1)?;
    Ok(vec![cast(graph, sums, ty.dtype)?])
}
