//! Selection of slices by index.
//!
//! A read takes its address from data, so that rows are gathered with indices that are computed; an index that counts from
//! the end is counted from the start first. Which type has signs says whether that has been done. What is selected by
//! constants is movement that is known beforehand: where it consists of few regular pieces, these are cut out.

use tcc_ir::ops::{BinaryFn, Concat, Gather};
use tcc_ir::{DType, Graph, GraphError, OpError, Shape, Tensor, ValueId};

use super::parts::{binary, broadcast, failure, number, reshape, select, slice_axis, transpose};
use crate::products::cast;

/// Most pieces that are cut out and joined instead of gathered.
const MOST_PIECES: usize = 4;

/// Whether the machine runs a gather: of rows, and with indices that count from the start, which no few pieces hold.
pub(super) fn runs(graph: &Graph, gather: Gather, inputs: &[ValueId]) -> bool {
    let extent = graph.shape(inputs[0])[gather.axis];
    match constants(graph, inputs[1]) {
        _ if gather.axis != 0 => false,
        None => !graph.ty(inputs[1]).dtype.is_signed(),
        Some(indices) => {
            let positions = indices.iter().map(|&index| usize::try_from(index).ok().filter(|&at| at < extent));
            positions.collect::<Option<Vec<usize>>>().is_some_and(|positions| pieces(&positions).is_none())
        }
    }
}

/// Cuts constant pieces out, and gathers rows otherwise.
pub(super) fn gather(graph: &mut Graph, gather: Gather, inputs: &[ValueId]) -> Result<Vec<ValueId>, GraphError> {
    let (data, axis) = (inputs[0], gather.axis);
    let shape = graph.shape(data).clone();
    let indices = match constants(graph, inputs[1]) {
        Some(indices) => {
            let positions = indices.into_iter().map(|index| position(graph, index, shape[axis]));
            let positions = positions.collect::<Result<Vec<usize>, GraphError>>()?;
            if let Some(pieces) = pieces(&positions) {
                let cut = cut(graph, data, axis, &pieces)?;
                let dims: Vec<usize> = [&shape[..axis], graph.shape(inputs[1]), &shape[axis + 1..]].concat();
                return Ok(vec![reshape(graph, cut, dims)?]);
            }
            constant_indices(graph, graph.shape(inputs[1]).clone(), &positions)?
        }
        None => count_from_start(graph, inputs[1], shape[axis])?,
    };
    // The axis selected from becomes the first, and what takes its place goes back there.
    let front = [axis].into_iter().chain((0..shape.rank()).filter(|&other| other != axis)).collect();
    let rows = transpose(graph, data, front)?;
    let gathered = graph.add(Gather { axis: 0 }, &[rows, indices])?;
    let places = graph.shape(indices).rank();
    let back = (places..places + axis).chain(0..places).chain(places + axis..places + shape.rank() - 1).collect();
    Ok(vec![transpose(graph, gathered, back)?])
}

/// Indices that are constants whose values are known.
pub(super) fn constants(graph: &Graph, indices: ValueId) -> Option<Vec<i64>> {
    graph.as_constant(indices)?.to_i64s().ok().flatten()
}

/// The position that an index names along an axis of `extent` elements.
pub(super) fn position(graph: &Graph, index: i64, extent: usize) -> Result<usize, GraphError> {
    let counted = if index < 0 { index.saturating_add(extent as i64) } else { index };
    usize::try_from(counted).ok().filter(|&position| position < extent).ok_or_else(|| {
        let message =
            format!("index {index} lies outside an axis of {extent} elements; check the indices of this node");
        failure(graph, "gather", OpError::Value(message))
    })
}

/// A constant of indices that count from the start.
pub(super) fn constant_indices(graph: &mut Graph, shape: Shape, positions: &[usize]) -> Result<ValueId, GraphError> {
    let tensor = if positions.iter().all(|&position| u32::try_from(position).is_ok()) {
        Tensor::from_vec(shape, positions.iter().map(|&position| position as u32).collect())
    } else {
        Tensor::from_vec(shape, positions.iter().map(|&position| position as u64).collect())
    };
    let tensor = tensor.map_err(|error| failure(graph, "constant", error))?;
    Ok(graph.constant(tensor))
}

/// Computed indices along an axis of `extent` elements, counted from the start: of a type without sign.
pub(super) fn count_from_start(graph: &mut Graph, indices: ValueId, extent: usize) -> Result<ValueId, GraphError> {
    if !graph.ty(indices).dtype.is_signed() {
        return Ok(indices);
    }
    // An index that is in range fits in 32 bits if its axis does, and bytes are what arithmetic takes time for.
    let (signed, unsigned) =
        if i32::try_from(extent).is_ok() { (DType::I32, DType::U32) } else { (DType::I64, DType::U64) };
    let indices = cast(graph, indices, signed)?;
    let extent = number(graph, signed, extent as f64);
    let counted = wrap(graph, indices, extent)?;
    cast(graph, counted, unsigned)
}

/// Indices with the extent added to those that are less than 0. Both have one type with sign.
pub(super) fn wrap(graph: &mut Graph, indices: ValueId, extent: ValueId) -> Result<ValueId, GraphError> {
    let zero = number(graph, graph.ty(indices).dtype, 0.0);
    let negative = binary(graph, BinaryFn::Lt, indices, zero)?;
    let wrapped = binary(graph, BinaryFn::Add, indices, extent)?;
    select(graph, negative, wrapped, indices)
}

/// Positions that follow each other with one distance, which is 0 if they are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    start: usize,
    step: i64,
    size: usize,
}

/// The pieces that positions consist of, if they are few. No positions are one piece.
fn pieces(positions: &[usize]) -> Option<Vec<Piece>> {
    let Some((&first, rest)) = positions.split_first() else {
        return Some(vec![Piece { start: 0, step: 1, size: 0 }]);
    };
    let mut pieces = vec![Piece { start: first, step: 1, size: 1 }];
    let mut last = first;
    for &position in rest {
        let distance = position as i64 - last as i64;
        last = position;
        let few = pieces.len() < MOST_PIECES;
        match pieces.last_mut() {
            Some(piece) if piece.size == 1 => (piece.step, piece.size) = (distance, 2),
            Some(piece) if piece.step == distance => piece.size += 1,
            _ if few => pieces.push(Piece { start: position, step: 1, size: 1 }),
            _ => return None,
        }
    }
    Some(pieces)
}

fn cut(graph: &mut Graph, data: ValueId, axis: usize, pieces: &[Piece]) -> Result<ValueId, GraphError> {
    let mut parts = Vec::with_capacity(pieces.len());
    for &Piece { start, step, size } in pieces {
        parts.push(if step == 0 {
            let one = slice_axis(graph, data, axis, (start, 1, 1))?;
            let mut dims = graph.shape(data).to_vec();
            dims[axis] = size;
            broadcast(graph, one, dims)?
        } else {
            slice_axis(graph, data, axis, (start, step, size))?
        });
    }
    match parts[..] {
        [part] => Ok(part),
        _ => graph.add(Concat { axis }, &parts),
    }
}
