//! Searches for the greatest and least elements.
//!
//! All elements are compared with the extreme, or with each other, and places are found among numbers that count them.
//!
//! NaN is neither less nor greater than anything. In a line that holds it, the extreme is found in the first place, or in
//! the last if that is asked for; and which elements are the first of several is undefined, but all places lie in the line.

use tcc_ir::ops::{ArgFn, ArgReduce, BinaryFn, ReduceFn, TopK};
use tcc_ir::{DType, Graph, GraphError, ValueId};

use super::parts::{binary, drop_axis, insert_axis, least, number, places, reduce, select};
use super::scatter::comparable;
use crate::products::cast;

/// The place of the extreme, found as the least (or greatest) place that holds it.
pub(super) fn arg_reduce(graph: &mut Graph, op: ArgReduce, inputs: &[ValueId]) -> Result<Vec<ValueId>, GraphError> {
    let dtype = comparable(graph.ty(inputs[0]).dtype);
    let x = cast(graph, inputs[0], dtype)?;
    let place = place_of_extreme(graph, op, x)?;
    Ok(vec![cast(graph, place, DType::I64)?])
}

/// The place (i32) of the extreme along an axis, which stays with extent 1.
fn place_of_extreme(graph: &mut Graph, op: ArgReduce, x: ValueId) -> Result<ValueId, GraphError> {
    let ArgReduce { function, axis, select_last } = op;
    let (rank, len) = (graph.shape(x).rank(), graph.shape(x)[axis]);
    let (extreme, short) = match function {
        ArgFn::Max => (ReduceFn::Max, BinaryFn::Lt),
        ArgFn::Min => (ReduceFn::Min, BinaryFn::Gt),
    };
    let extreme = reduce(graph, extreme, axis, x)?;
    let short = binary(graph, short, x, extreme)?;
    let places = places(graph, rank, axis, len)?;
    let (beyond, choice) = if select_last { (-1.0, ReduceFn::Max) } else { (len as f64, ReduceFn::Min) };
    let beyond = number(graph, DType::I32, beyond);
    let held = select(graph, short, beyond, places)?;
    reduce(graph, choice, axis, held)
}

/// Ranks are counted: of all elements, those that come before. Each of the `k` places then finds its element by its rank.
pub(super) fn top_k(graph: &mut Graph, op: TopK, inputs: &[ValueId]) -> Result<Vec<ValueId>, GraphError> {
    let TopK { axis, k, .. } = op;
    let to = graph.ty(inputs[0]).dtype;
    let x = cast(graph, inputs[0], comparable(to))?;
    let (rank, len) = (graph.shape(x).rank(), graph.shape(x)[axis]);
    // Whether each element (second axis) is the one for each place (first axis).
    let chosen = if k == 1 {
        let function = if op.largest { ArgFn::Max } else { ArgFn::Min };
        let first = place_of_extreme(graph, ArgReduce { function, axis, select_last: false }, x)?;
        let first = insert_axis(graph, first, axis)?;
        let numbers = places(graph, rank + 1, axis + 1, len)?;
        binary(graph, BinaryFn::Eq, numbers, first)?
    } else {
        let ranks = ranks(graph, op, x)?;
        let ranks = insert_axis(graph, ranks, axis)?;
        let numbers = places(graph, rank + 1, axis, k)?;
        binary(graph, BinaryFn::Eq, numbers, ranks)?
    };
    // Exactly one is, so that the greatest of it and of nothing else is it, whatever it is.
    let x = insert_axis(graph, x, axis)?;
    let nothing = least(graph, comparable(to));
    let values = select(graph, chosen, x, nothing)?;
    let values = reduce(graph, ReduceFn::Max, axis + 1, values)?;
    let values = drop_axis(graph, values, axis + 1)?;
    let indices = places(graph, rank + 1, axis + 1, len)?;
    let zero = number(graph, DType::I32, 0.0);
    let indices = select(graph, chosen, indices, zero)?;
    let indices = reduce(graph, ReduceFn::Max, axis + 1, indices)?;
    let indices = drop_axis(graph, indices, axis + 1)?;
    Ok(vec![cast(graph, values, to)?, cast(graph, indices, DType::I64)?])
}

/// How many elements of its line come before each element.
fn ranks(graph: &mut Graph, op: TopK, x: ValueId) -> Result<ValueId, GraphError> {
    let axis = op.axis;
    let (rank, len) = (graph.shape(x).rank(), graph.shape(x)[axis]);
    // Elements lie along `axis`, those that they are compared with along the next.
    let element = insert_axis(graph, x, axis + 1)?;
    let other = insert_axis(graph, x, axis)?;
    let (before, before_or_equal) =
        if op.largest { (BinaryFn::Gt, BinaryFn::Ge) } else { (BinaryFn::Lt, BinaryFn::Le) };
    let before = binary(graph, before, other, element)?;
    let before_or_equal = binary(graph, before_or_equal, other, element)?;
    // Of equals, those with lower indices come before.
    let place = places(graph, rank + 1, axis, len)?;
    let other_place = places(graph, rank + 1, axis + 1, len)?;
    let lower = binary(graph, BinaryFn::Lt, other_place, place)?;
    let comes_before = select(graph, lower, before_or_equal, before)?;
    let counted = cast(graph, comes_before, DType::I32)?;
    let ranks = reduce(graph, ReduceFn::Sum, axis + 1, counted)?;
    drop_axis(graph, ranks, axis + 1)
}
