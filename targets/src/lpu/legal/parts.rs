//! What rewrites are made of: small pieces of graph, and the constants in them.

use tcc_ir::ops::{Binary, BinaryFn, Broadcast, Reduce, ReduceFn, Reshape, Select, Slice, Transpose};
use tcc_ir::{DType, Graph, GraphError, OpError, Shape, Tensor, ValueId};

/// Most numbers that a rewrite counts out: the shapes of a model are not bounded by its size.
const MOST_COUNTED: usize = 1 << 26;

/// An error met while `op` is being written at the end of `graph`.
pub(super) fn failure(graph: &Graph, op: &'static str, error: impl Into<OpError>) -> GraphError {
    GraphError { origin: graph.origin().clone(), op, error: error.into() }
}

fn shape(graph: &Graph, op: &'static str, dims: impl IntoIterator<Item = usize>) -> Result<Shape, GraphError> {
    Shape::new(dims).map_err(|error| failure(graph, op, error))
}

/// The elements under another shape.
pub(super) fn reshape(
    graph: &mut Graph,
    value: ValueId,
    dims: impl IntoIterator<Item = usize>,
) -> Result<ValueId, GraphError> {
    let shape = shape(graph, "reshape", dims)?;
    if graph.shape(value) == &shape { Ok(value) } else { graph.add(Reshape { shape }, &[value]) }
}

/// The value with an axis of extent 1 before `axis`.
pub(super) fn insert_axis(graph: &mut Graph, value: ValueId, axis: usize) -> Result<ValueId, GraphError> {
    let mut dims = graph.shape(value).to_vec();
    dims.insert(axis, 1);
    reshape(graph, value, dims)
}

/// The value without `axis`, which has extent 1.
pub(super) fn drop_axis(graph: &mut Graph, value: ValueId, axis: usize) -> Result<ValueId, GraphError> {
    let mut dims = graph.shape(value).to_vec();
    dims.remove(axis);
    reshape(graph, value, dims)
}

/// The value repeated until it has these extents.
pub(super) fn broadcast(
    graph: &mut Graph,
    value: ValueId,
    dims: impl IntoIterator<Item = usize>,
) -> Result<ValueId, GraphError> {
    let shape = shape(graph, "broadcast", dims)?;
    if graph.shape(value) == &shape { Ok(value) } else { graph.add(Broadcast { shape }, &[value]) }
}

/// The value with its axes in another order.
pub(super) fn transpose(graph: &mut Graph, value: ValueId, perm: Vec<usize>) -> Result<ValueId, GraphError> {
    if perm.is_sorted() { Ok(value) } else { graph.add(Transpose { perm }, &[value]) }
}

/// The value with its last two axes exchanged.
pub(super) fn swap_last(graph: &mut Graph, value: ValueId) -> Result<ValueId, GraphError> {
    let rank = graph.shape(value).rank();
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.swap(rank - 2, rank - 1);
    transpose(graph, value, perm)
}

/// `size` elements along `axis` from `start` on, in steps of `step`.
pub(super) fn slice_axis(
    graph: &mut Graph,
    value: ValueId,
    axis: usize,
    (start, step, size): (usize, i64, usize),
) -> Result<ValueId, GraphError> {
    let mut sizes = graph.shape(value).to_vec();
    if (start, step, size) == (0, 1, sizes[axis]) {
        return Ok(value);
    }
    let (mut starts, mut steps) = (vec![0; sizes.len()], vec![1; sizes.len()]);
    (starts[axis], steps[axis], sizes[axis]) = (start, step, size);
    graph.add(Slice { starts, steps, sizes }, &[value])
}

/// A function of two values.
pub(super) fn binary(graph: &mut Graph, function: BinaryFn, a: ValueId, b: ValueId) -> Result<ValueId, GraphError> {
    graph.add(Binary(function), &[a, b])
}

/// `yes` where `condition` holds, else `no`.
pub(super) fn select(graph: &mut Graph, condition: ValueId, yes: ValueId, no: ValueId) -> Result<ValueId, GraphError> {
    graph.add(Select {}, &[condition, yes, no])
}

/// The value reduced along one axis, which stays with extent 1.
pub(super) fn reduce(
    graph: &mut Graph,
    function: ReduceFn,
    axis: usize,
    value: ValueId,
) -> Result<ValueId, GraphError> {
    if graph.shape(value)[axis] == 1 {
        return Ok(value);
    }
    graph.add(Reduce { function, axes: vec![axis] }, &[value])
}

/// A number of a type.
pub(super) fn number(graph: &mut Graph, dtype: DType, value: f64) -> ValueId {
    graph.constant(Tensor::scalar_of(dtype, value))
}

/// The least number of a type, which no other is less than.
pub(super) fn least(graph: &mut Graph, dtype: DType) -> ValueId {
    let least = dtype.integer_range().map_or(f64::NEG_INFINITY, |(least, _)| least as f64);
    number(graph, dtype, if dtype == DType::Bool { 0.0 } else { least })
}

/// The greatest number of a type, which no other is greater than.
pub(super) fn greatest(graph: &mut Graph, dtype: DType) -> ValueId {
    let greatest = dtype.integer_range().map_or(f64::INFINITY, |(_, greatest)| greatest as f64);
    number(graph, dtype, if dtype == DType::Bool { 1.0 } else { greatest })
}

/// A constant of integers of 32 bits.
pub(super) fn integers(graph: &mut Graph, dims: &[usize], values: Vec<i32>) -> Result<ValueId, GraphError> {
    let shape = shape(graph, "constant", dims.iter().copied())?;
    let tensor = Tensor::from_vec(shape, values).map_err(|error| failure(graph, "constant", error))?;
    Ok(graph.constant(tensor))
}

/// Fails if there are more numbers to count out than is sane. To be called before they are made.
pub(super) fn check_counted(graph: &Graph, len: usize) -> Result<(), GraphError> {
    if len <= MOST_COUNTED {
        return Ok(());
    }
    let message = format!("an axis of {len} elements is to be counted out, but at most {MOST_COUNTED} can be");
    Err(failure(graph, "constant", OpError::Value(message)))
}

/// A constant (i32) of `rank` axes that counts `len` places along one of them, from 0, and is broadcast along the others.
pub(super) fn places(graph: &mut Graph, rank: usize, axis: usize, len: usize) -> Result<ValueId, GraphError> {
    check_counted(graph, len)?;
    let mut dims = vec![1; rank];
    dims[axis] = len;
    integers(graph, &dims, (0..len).map(|place| place as i32).collect())
}
