//! What operators that select by index share: reading indices with their checks, and index arithmetic in a graph.

use smallvec::SmallVec;

use super::movement::{Walk, failure, reshape};
use super::{Binary, BinaryFn, Cast, Reduce, ReduceFn, Select};
use crate::op::OpError;
use crate::{DType, Graph, GraphError, Shape, Tensor, TensorType, ValueId};

/// Fails unless `axis` is an axis of `operand`, which has type `ty`.
pub(crate) fn check_axis(axis: usize, operand: usize, ty: &TensorType) -> Result<(), OpError> {
    if axis < ty.shape.rank() { Ok(()) } else { Err(OpError::shape(operand, format!("an axis {axis}"), ty)) }
}

/// Fails unless `operand`, which has type `ty`, can hold indices.
pub(crate) fn check_indices(operand: usize, ty: &TensorType) -> Result<(), OpError> {
    if ty.dtype.is_integer() { Ok(()) } else { Err(OpError::dtype(operand, "an integer type", ty.dtype)) }
}

/// Fails unless the indices (operand 1) of a selection of single elements fit the data (operand 0): of the same rank,
/// and no longer along any axis but the one selected from.
pub(crate) fn check_element_indices(data: &TensorType, indices: &TensorType, axis: usize) -> Result<(), OpError> {
    check_axis(axis, 0, data)?;
    check_indices(1, indices)?;
    let fits = |other: usize| other == axis || indices.shape[other] <= data.shape[other];
    if indices.shape.rank() == data.shape.rank() && (0..data.shape.rank()).all(fits) {
        Ok(())
    } else {
        let expected = format!("the rank of operand 0 ({data}) and no greater extents than it but along axis {axis}");
        Err(OpError::shape(1, expected, indices))
    }
}

/// The depth of the index tuples in the last axis of operand 1, which index the axes of `data` after `batch_dims`.
pub(crate) fn tuple_depth(data: &TensorType, indices: &TensorType, batch_dims: usize) -> Result<usize, OpError> {
    check_indices(1, indices)?;
    let open = data.shape.rank().saturating_sub(batch_dims);
    match indices.shape.last() {
        Some(&depth) if (1..=open).contains(&depth) => Ok(depth),
        _ => {
            Err(OpError::shape(1, format!("a last axis of 1 to {open} elements, to index operand 0 ({data})"), indices))
        }
    }
}

/// The position that an index names along an axis; negative indices count from the end.
fn position(index: i64, extent: usize) -> Result<usize, OpError> {
    let counted = if index < 0 { index.saturating_add(extent as i64) } else { index };
    usize::try_from(counted).ok().filter(|&position| position < extent).ok_or_else(|| {
        OpError::Value(if extent == 0 {
            format!("index {index} selects from an axis that has no elements")
        } else {
            let last = extent - 1;
            format!("index {index} is out of range for an axis of extent {extent}; it must lie in -{extent}..={last}")
        })
    })
}

fn integers(indices: &Tensor) -> Result<Vec<i64>, OpError> {
    indices.to_i64s()?.ok_or_else(|| OpError::dtype(1, "an integer type", indices.dtype()))
}

/// The positions that all indices name along an axis.
pub(crate) fn positions(indices: &Tensor, extent: usize) -> Result<Vec<usize>, OpError> {
    integers(indices)?.into_iter().map(|index| position(index, extent)).collect()
}

/// For each index, the offset in `data` of the element at the same place with its coordinate along `axis` replaced by
/// the index.
pub(crate) fn element_offsets(data: &Shape, indices: &Tensor, axis: usize) -> Result<Vec<usize>, OpError> {
    let strides = data.strides();
    let axes: SmallVec<[(usize, isize); 6]> = (0..data.rank())
        .map(|other| (indices.shape()[other], if other == axis { 0 } else { strides[other] as isize }))
        .collect();
    let indices = integers(indices)?;
    if indices.is_empty() {
        return Ok(Vec::new());
    }
    let mut walk = Walk::new(&axes, 0, 0);
    indices
        .into_iter()
        .map(|index| {
            let offset = walk.position as usize + position(index, data[axis])? * strides[axis];
            walk.advance();
            Ok(offset)
        })
        .collect()
}

/// For each index tuple, the offset in `data` of the slice it names.
pub(crate) fn tuple_offsets(data: &Shape, indices: &Tensor, batch_dims: usize) -> Result<Vec<usize>, OpError> {
    let depth = indices.shape().last().copied().unwrap_or(1);
    let tuples = indices.shape().count() / depth;
    let batches: usize = data[..batch_dims].iter().product();
    let batch_len: usize = data[batch_dims..].iter().product();
    let strides = data.strides();
    let per_batch = (tuples / batches.max(1)).max(1);
    integers(indices)?
        .chunks(depth)
        .enumerate()
        .map(|(tuple, indices)| {
            let mut offset = tuple / per_batch * batch_len;
            for (axis, &index) in (batch_dims..).zip(indices) {
                offset += position(index, data[axis])? * strides[axis];
            }
            Ok(offset)
        })
        .collect()
}

/// A constant of 64-bit integers.
fn constant(graph: &mut Graph, dims: &[usize], values: Vec<i64>) -> Result<ValueId, GraphError> {
    let tensor = Shape::new(dims.iter().copied())
        .map_err(OpError::from)
        .and_then(|shape| Ok(Tensor::from_vec(shape, values)?))
        .map_err(|error| failure(graph, "constant", error))?;
    Ok(graph.constant(tensor))
}

/// Most numbers that a decomposition counts out: the shapes of a model are not bounded by its size.
const MAX_COUNTED: usize = 1 << 26;

/// Fails if `count` numbers in a row would be absurdly many. To be called before they are made.
pub(crate) fn check_counted(graph: &Graph, count: usize) -> Result<(), GraphError> {
    if count <= MAX_COUNTED {
        return Ok(());
    }
    let message = format!("an axis of {count} elements is to be counted out, but at most {MAX_COUNTED} can be");
    Err(failure(graph, "constant", OpError::Value(message)))
}

/// A constant that counts along `axis`, in steps of `step`, and broadcasts along the other axes.
fn count_along(graph: &mut Graph, rank: usize, axis: usize, len: usize, step: usize) -> Result<ValueId, GraphError> {
    check_counted(graph, len)?;
    let mut dims = vec![1; rank];
    dims[axis] = len;
    constant(graph, &dims, (0..len).map(|i| (i * step) as i64).collect())
}

/// Adds the nodes that turn indices into i64 positions. `extents` broadcasts to the indices.
fn count_from_start(graph: &mut Graph, indices: ValueId, extents: ValueId) -> Result<ValueId, GraphError> {
    let indices = match graph.ty(indices).dtype {
        DType::I64 => indices,
        _ => graph.add(Cast { to: DType::I64 }, &[indices])?,
    };
    let zero = graph.constant(Tensor::scalar(0i64));
    let negative = graph.add(Binary(BinaryFn::Lt), &[indices, zero])?;
    let wrapped = graph.add(Binary(BinaryFn::Add), &[indices, extents])?;
    graph.add(Select {}, &[negative, wrapped, indices])
}

/// Adds the nodes that compute what [`element_offsets`] does, in the shape of the indices.
pub(crate) fn add_element_offsets(
    graph: &mut Graph,
    data: &Shape,
    indices: ValueId,
    axis: usize,
) -> Result<ValueId, GraphError> {
    let strides = data.strides();
    let extent = graph.constant(Tensor::scalar(data[axis] as i64));
    let mut offsets = count_from_start(graph, indices, extent)?;
    if strides[axis] != 1 {
        let stride = graph.constant(Tensor::scalar(strides[axis] as i64));
        offsets = graph.add(Binary(BinaryFn::Mul), &[offsets, stride])?;
    }
    for other in (0..data.rank()).filter(|&other| other != axis) {
        let len = graph.shape(indices)[other];
        if len > 1 {
            let counts = count_along(graph, data.rank(), other, len, strides[other])?;
            offsets = graph.add(Binary(BinaryFn::Add), &[offsets, counts])?;
        }
    }
    Ok(offsets)
}

/// Adds the nodes that compute, for each index tuple, the row of the slice it names when the batch axes and the axes
/// indexed of `data` are flattened into one. The result has the shape of the indices without their last axis.
pub(crate) fn add_tuple_rows(
    graph: &mut Graph,
    data: &Shape,
    indices: ValueId,
    batch_dims: usize,
) -> Result<ValueId, GraphError> {
    let shape = graph.shape(indices).clone();
    let depth = shape.last().copied().unwrap_or(1);
    let indexed = &data[batch_dims..batch_dims + depth];
    let extents = constant(graph, &[depth], indexed.iter().map(|&extent| extent as i64).collect())?;
    let mut rows = count_from_start(graph, indices, extents)?;
    if depth > 1 {
        let steps = (1..=depth).map(|axis| indexed[axis..].iter().product::<usize>() as i64).collect();
        let steps = constant(graph, &[depth], steps)?;
        rows = graph.add(Binary(BinaryFn::Mul), &[rows, steps])?;
        rows = graph.add(Reduce { function: ReduceFn::Sum, axes: vec![shape.rank() - 1] }, &[rows])?;
    }
    rows = reshape(graph, rows, shape[..shape.rank() - 1].iter().copied())?;
    let mut step: usize = indexed.iter().product();
    for axis in (0..batch_dims).rev() {
        if data[axis] > 1 {
            let counts = count_along(graph, shape.rank() - 1, axis, data[axis], step)?;
            rows = graph.add(Binary(BinaryFn::Add), &[rows, counts])?;
        }
        step *= data[axis];
    }
    Ok(rows)
}
