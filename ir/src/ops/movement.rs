//! What movement operators share: reading and writing elements by their width, whatever their type is.
//!
//! Movement never looks into an element, so one copy of the code per width serves all types. Four-bit elements are taken
//! apart to a byte each and packed again, unless whole bytes can be moved.

use std::borrow::Cow;

use bytemuck::Pod;
use rayon::prelude::*;
use smallvec::SmallVec;

use super::Reshape;
use crate::op::OpError;
use crate::{AbsentData, Data, Graph, GraphError, PARALLEL_GRAIN, Shape, Tensor, TensorType, ValueId};

/// An unsigned integer that carries the bits of one element: `u8` for four-bit types too.
pub(crate) trait Unit: Pod + Default + Send + Sync {}

impl Unit for u8 {}
impl Unit for u16 {}
impl Unit for u32 {}
impl Unit for u64 {}

/// Evaluates an expression with `$T` standing for the [`Unit`] that carries elements of `$dtype`.
macro_rules! by_width {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype.bits() {
            64 => {
                type $T = u64;
                $body
            }
            32 => {
                type $T = u32;
                $body
            }
            16 => {
                type $T = u16;
                $body
            }
            _ => {
                type $T = u8;
                $body
            }
        }
    };
}
pub(crate) use by_width;

/// The bits of all elements. `T` must be the unit that [`by_width!`] chooses for the tensor's type.
pub(crate) fn units<T: Unit>(x: &Tensor) -> Result<Cow<'_, [T]>, AbsentData> {
    if x.dtype().bits() != 4 {
        return x.elements();
    }
    let bytes = x.bytes()?;
    let nibble = |i: usize| (bytes[i / 2] >> (4 * (i % 2))) & 0xf;
    let nibbles: Vec<u8> = (0..x.shape().count()).into_par_iter().with_min_len(PARALLEL_GRAIN).map(nibble).collect();
    Ok(Cow::Owned(bytemuck::cast_vec(nibbles)))
}

/// A tensor of the given bits. `T` must be the unit that [`by_width!`] chooses for the tensor's type.
pub(crate) fn from_units<T: Unit>(ty: &TensorType, units: Vec<T>) -> Result<Tensor, OpError> {
    let data = if ty.dtype.bits() == 4 {
        let pack = |pair: &[u8]| pair[0] | pair.get(1).map_or(0, |high| high << 4);
        let nibbles: &[u8] = bytemuck::cast_slice(&units);
        Data::from_bytes(nibbles.par_chunks(2).with_min_len(PARALLEL_GRAIN).map(pack).collect())
    } else {
        Data::from_elements(units)
    };
    Ok(Tensor::new(ty.clone(), data)?)
}

/// Reads the elements at `offset + Σ index·stride` of `x` (in elements) into a dense tensor of type `ty`.
///
/// Strides of axes with fewer than two elements do not matter.
pub(crate) fn read_strided(x: &Tensor, offset: isize, strides: &[isize], ty: &TensorType) -> Result<Tensor, OpError> {
    by_width!(ty.dtype, T => from_units(ty, collect(&units::<T>(x)?, offset, strides, &ty.shape)))
}

fn collect<T: Unit>(x: &[T], offset: isize, strides: &[isize], shape: &Shape) -> Vec<T> {
    let mut out = vec![T::default(); shape.count()];
    if out.is_empty() {
        return out;
    }
    let mut axes = merge(shape, strides);
    let (row, step) = axes.pop().unwrap_or((1, 1));
    out.par_chunks_mut(PARALLEL_GRAIN).enumerate().for_each(|(piece, mut out)| {
        let first = piece * PARALLEL_GRAIN;
        let mut column = first % row;
        let mut walk = Walk::new(&axes, offset, first / row);
        while !out.is_empty() {
            let (now, later) = out.split_at_mut(out.len().min(row - column));
            let start = walk.position + column as isize * step;
            match step {
                0 => now.fill(x[start as usize]),
                1 => now.copy_from_slice(&x[start as usize..][..now.len()]),
                _ => now.iter_mut().enumerate().for_each(|(i, out)| *out = x[(start + i as isize * step) as usize]),
            }
            out = later;
            column = 0;
            walk.advance();
        }
    });
    out
}

/// Extent and stride of each axis that matters, outermost first, with neighbours that are one run made one axis.
fn merge(shape: &[usize], strides: &[isize]) -> SmallVec<[(usize, isize); 6]> {
    let mut axes: SmallVec<[(usize, isize); 6]> = SmallVec::new();
    for (&extent, &stride) in shape.iter().zip(strides).filter(|&(&extent, _)| extent != 1) {
        match axes.last_mut() {
            Some(outer) if outer.1 == stride * extent as isize => *outer = (outer.0 * extent, stride),
            _ => axes.push((extent, stride)),
        }
    }
    axes
}

/// Visits the positions of a strided tensor in row-major order.
pub(crate) struct Walk<'a> {
    /// Extent and stride of each axis, outermost first.
    axes: &'a [(usize, isize)],
    index: SmallVec<[usize; 6]>,
    /// `offset + Σ index·stride` of the element the walk stands on.
    pub(crate) position: isize,
}

impl<'a> Walk<'a> {
    /// A walk that stands on element number `first`. Extents must not be 0.
    pub(crate) fn new(axes: &'a [(usize, isize)], offset: isize, first: usize) -> Self {
        let mut index = SmallVec::from_elem(0, axes.len());
        let mut position = offset;
        let mut rest = first;
        for (index, &(extent, stride)) in index.iter_mut().zip(axes).rev() {
            *index = rest % extent;
            rest /= extent;
            position += *index as isize * stride;
        }
        Walk { axes, index, position }
    }

    /// Goes to the next element; after the last one, to the first.
    pub(crate) fn advance(&mut self) {
        for (index, &(extent, stride)) in self.index.iter_mut().zip(self.axes).rev() {
            *index += 1;
            self.position += stride;
            if *index < extent {
                return;
            }
            self.position -= *index as isize * stride;
            *index = 0;
        }
    }
}

/// Puts `rows` runs of `row` elements of `x` one after the other; run `i` starts at element `start(i)`, a multiple of
/// `row`.
pub(crate) fn take_rows(
    x: &Tensor,
    rows: usize,
    row: usize,
    start: impl Fn(usize) -> usize + Sync,
    ty: &TensorType,
) -> Result<Tensor, OpError> {
    if ty.dtype.bits() == 4 && row.is_multiple_of(2) {
        let bytes = take(x.bytes()?, rows, row / 2, |i| start(i) / 2);
        return Ok(Tensor::new(ty.clone(), Data::from_bytes(bytes))?);
    }
    by_width!(ty.dtype, T => from_units(ty, take(&units::<T>(x)?, rows, row, start)))
}

fn take<T: Unit>(x: &[T], rows: usize, row: usize, start: impl Fn(usize) -> usize + Sync) -> Vec<T> {
    let mut out = vec![T::default(); rows * row];
    if out.is_empty() {
        return out;
    }
    let group = (PARALLEL_GRAIN / row).max(1);
    out.par_chunks_mut(row * group).enumerate().for_each(|(piece, out)| {
        for (i, out) in out.chunks_mut(row).enumerate() {
            out.copy_from_slice(&x[start(piece * group + i)..][..row]);
        }
    });
    out
}

/// Adds a [`Reshape`], unless the value has that shape already.
pub(crate) fn reshape(
    graph: &mut Graph,
    value: ValueId,
    dims: impl IntoIterator<Item = usize>,
) -> Result<ValueId, GraphError> {
    let shape = Shape::new(dims).map_err(|error| failure(graph, "reshape", error))?;
    if graph.shape(value) == &shape { Ok(value) } else { graph.add(Reshape { shape }, &[value]) }
}

/// An error met while `op` is being written at the end of `graph`.
pub(crate) fn failure(graph: &Graph, op: &'static str, error: impl Into<OpError>) -> GraphError {
    GraphError { origin: graph.origin().clone(), op, error: error.into() }
}
