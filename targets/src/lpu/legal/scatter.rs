//! Replacement of slices and elements by index.
//!
//! Writes take no address from data. So every place of the result looks for the updates that name it: places and updates are
//! compared with each other, and what does not meet counts as nothing. The order of updates on one place only shows in the
//! last digits of sums and products of floats.

use tcc_ir::ops::{BinaryFn, Concat, Gather, ReduceFn, ScatterElements, ScatterNd, ScatterReduction};
use tcc_ir::{DType, Graph, GraphError, Shape, ValueId};

use super::parts::{
    binary, check_counted, drop_axis, greatest, insert_axis, integers, least, number, places, reduce, reshape, select,
    slice_axis,
};
use super::selection::{constant_indices, constants, position, wrap};
use crate::products::cast;

/// Index tuples become numbers of rows in the data with all indexed axes made one.
///
/// An index that is out of range along its axis may then name another row, or none.
pub(super) fn scatter_nd(graph: &mut Graph, op: ScatterNd, inputs: &[ValueId]) -> Result<Vec<ValueId>, GraphError> {
    let &[data, indices, updates] = inputs else { return Ok(graph.add_multi(op, inputs)?.to_vec()) };
    let shape = graph.shape(data).clone();
    let tuples = graph.shape(indices).clone();
    let depth = tuples.last().copied().unwrap_or(1);
    let count = tuples.count() / depth;
    let (indexed, rest) = shape.split_at(depth);
    let (rows, columns) = (indexed.iter().product(), rest.iter().product());
    if graph.shape(updates).count() == 0 {
        return Ok(vec![data]);
    }
    let flat = reshape(graph, data, [rows, columns])?;
    let updates = reshape(graph, updates, [count, columns])?;
    let result = match (op.reduction, constants(graph, indices)) {
        (ScatterReduction::Replace, Some(indices)) => replace_known(graph, flat, updates, indexed, &indices)?,
        (ScatterReduction::Replace, None) => {
            let names = names_of_rows(graph, indices, indexed)?;
            replace_rows(graph, flat, updates, names)?
        }
        _ => {
            let names = names_of_rows(graph, indices, indexed)?;
            let names = insert_axis(graph, names, 2)?;
            combine(graph, op.reduction, 0, flat, names, updates)?
        }
    };
    Ok(vec![reshape(graph, result, shape.iter().copied())?])
}

/// Elements and updates meet within their own line along the axis.
pub(super) fn scatter_elements(
    graph: &mut Graph,
    op: ScatterElements,
    inputs: &[ValueId],
) -> Result<Vec<ValueId>, GraphError> {
    let &[data, indices, updates] = inputs else { return Ok(graph.add_multi(op, inputs)?.to_vec()) };
    let shape = graph.shape(data).clone();
    let reached = graph.shape(indices).clone();
    if reached.count() == 0 {
        return Ok(vec![data]);
    }
    let axis = op.axis;
    let indices = cast(graph, indices, DType::I32)?;
    let extent = number(graph, DType::I32, shape[axis] as f64);
    let indices = wrap(graph, indices, extent)?;
    let indices = insert_axis(graph, indices, axis)?;
    let places = places(graph, shape.rank() + 1, axis, shape[axis])?;
    let names = binary(graph, BinaryFn::Eq, places, indices)?;
    // Indices need not reach to the end of the other axes. What lies beyond stays as it is.
    let others = || (0..shape.rank()).filter(|&other| other != axis && reached[other] < shape[other]);
    let mut region = data;
    for other in others() {
        region = slice_axis(graph, region, other, (0, 1, reached[other]))?;
    }
    let mut result = combine(graph, op.reduction, axis, region, names, updates)?;
    for other in others() {
        let mut beyond = slice_axis(graph, data, other, (reached[other], 1, shape[other] - reached[other]))?;
        for later in others().filter(|&later| later > other) {
            beyond = slice_axis(graph, beyond, later, (0, 1, reached[later]))?;
        }
        result = graph.add(Concat { axis: other }, &[result, beyond])?;
    }
    Ok(vec![result])
}

/// Whether each update (second axis) names each row (first axis).
fn names_of_rows(graph: &mut Graph, indices: ValueId, indexed: &[usize]) -> Result<ValueId, GraphError> {
    let depth = indexed.len();
    let count = graph.shape(indices).count() / depth;
    let rows = indexed.iter().product();
    let indices = cast(graph, indices, DType::I32)?;
    let indices = reshape(graph, indices, [count, depth])?;
    let extents = integers(graph, &[depth], indexed.iter().map(|&extent| extent as i32).collect())?;
    let mut numbers = wrap(graph, indices, extents)?;
    if depth > 1 {
        let steps = (1..=depth).map(|axis| indexed[axis..].iter().product::<usize>() as i32).collect();
        let steps = integers(graph, &[depth], steps)?;
        numbers = binary(graph, BinaryFn::Mul, numbers, steps)?;
        numbers = reduce(graph, ReduceFn::Sum, 1, numbers)?;
    }
    let numbers = reshape(graph, numbers, [1, count])?;
    let places = places(graph, 2, 0, rows)?;
    binary(graph, BinaryFn::Eq, places, numbers)
}

/// Replacement by constant indices: each row of the result is a known one of data and updates.
fn replace_known(
    graph: &mut Graph,
    data: ValueId,
    updates: ValueId,
    indexed: &[usize],
    indices: &[i64],
) -> Result<ValueId, GraphError> {
    let rows = graph.shape(data)[0];
    check_counted(graph, rows)?;
    let mut sources: Vec<usize> = (0..rows).collect();
    for (update, tuple) in indices.chunks(indexed.len()).enumerate() {
        let mut row = 0;
        for (&index, &extent) in tuple.iter().zip(indexed) {
            row = row * extent + position(graph, index, extent)?;
        }
        sources[row] = rows + update;
    }
    let all = graph.add(Concat { axis: 0 }, &[data, updates])?;
    let sources = constant_indices(graph, Shape::vector(rows), &sources)?;
    graph.add(Gather { axis: 0 }, &[all, sources])
}

/// The number of the last update that names each place, along `axis` of `names`; -1 where none does.
fn last_update(graph: &mut Graph, names: ValueId, axis: usize) -> Result<ValueId, GraphError> {
    let (rank, count) = (graph.shape(names).rank(), graph.shape(names)[axis]);
    let numbers = places(graph, rank, axis, count)?;
    let none = number(graph, DType::I32, -1.0);
    let named = select(graph, names, numbers, none)?;
    reduce(graph, ReduceFn::Max, axis, named)
}

/// Rows that are named are gathered from the updates.
fn replace_rows(graph: &mut Graph, data: ValueId, updates: ValueId, names: ValueId) -> Result<ValueId, GraphError> {
    let rows = graph.shape(data)[0];
    let last = last_update(graph, names, 1)?;
    let zero = number(graph, DType::I32, 0.0);
    let named = binary(graph, BinaryFn::Ge, last, zero)?;
    let last = binary(graph, BinaryFn::Max, last, zero)?;
    let last = cast(graph, last, DType::U32)?;
    let last = reshape(graph, last, [rows])?;
    let found = graph.add(Gather { axis: 0 }, &[updates, last])?;
    select(graph, named, found, data)
}

/// Combines data with the updates that name their places. Places lie along `axis` of data, updates along the same axis of
/// their own, and `names` has both: places along `axis`, updates along the one after it.
fn combine(
    graph: &mut Graph,
    reduction: ScatterReduction,
    axis: usize,
    data: ValueId,
    names: ValueId,
    updates: ValueId,
) -> Result<ValueId, GraphError> {
    let to = graph.ty(data).dtype;
    let (function, fold, dtype) = match reduction {
        ScatterReduction::Replace => {
            let updates = insert_axis(graph, updates, axis)?;
            let data = insert_axis(graph, data, axis + 1)?;
            return replace_elements(graph, axis, data, names, updates);
        }
        ScatterReduction::Add => (BinaryFn::Add, ReduceFn::Sum, sum_type(to)),
        ScatterReduction::Mul => (BinaryFn::Mul, ReduceFn::Prod, sum_type(to)),
        ScatterReduction::Max => (BinaryFn::Max, ReduceFn::Max, comparable(to)),
        ScatterReduction::Min => (BinaryFn::Min, ReduceFn::Min, comparable(to)),
    };
    let data = cast(graph, data, dtype)?;
    let updates = cast(graph, updates, dtype)?;
    let updates = insert_axis(graph, updates, axis)?;
    let data = insert_axis(graph, data, axis + 1)?;
    let nothing = match reduction {
        ScatterReduction::Max => least(graph, dtype),
        ScatterReduction::Min => greatest(graph, dtype),
        ScatterReduction::Mul => number(graph, dtype, 1.0),
        ScatterReduction::Add | ScatterReduction::Replace => number(graph, dtype, 0.0),
    };
    let named = select(graph, names, updates, nothing)?;
    let all = reduce(graph, fold, axis + 1, named)?;
    let result = binary(graph, function, data, all)?;
    let result = drop_axis(graph, result, axis + 1)?;
    cast(graph, result, to)
}

/// The last update that names each place, found by its number, where there is one.
fn replace_elements(
    graph: &mut Graph,
    axis: usize,
    data: ValueId,
    names: ValueId,
    updates: ValueId,
) -> Result<ValueId, GraphError> {
    let (rank, count) = (graph.shape(names).rank(), graph.shape(names)[axis + 1]);
    let result = if count == 1 {
        select(graph, names, updates, data)?
    } else {
        let last = last_update(graph, names, axis + 1)?;
        let numbers = places(graph, rank, axis + 1, count)?;
        let is_last = binary(graph, BinaryFn::Eq, numbers, last)?;
        let nothing = least(graph, graph.ty(data).dtype);
        let update = select(graph, is_last, updates, nothing)?;
        let update = reduce(graph, ReduceFn::Max, axis + 1, update)?;
        let zero = number(graph, DType::I32, 0.0);
        let named = binary(graph, BinaryFn::Ge, last, zero)?;
        select(graph, named, update, data)?
    };
    drop_axis(graph, result, axis + 1)
}

/// What sums and products of a type are computed in: halves and 8-bit floats would be rounded where they are stored.
pub(super) fn sum_type(dtype: DType) -> DType {
    if dtype.is_float() && dtype.bits() < 32 { DType::F32 } else { dtype }
}

/// What elements of a type are compared as: truth values have no order.
pub(super) fn comparable(dtype: DType) -> DType {
    if dtype == DType::Bool { DType::U8 } else { dtype }
}
