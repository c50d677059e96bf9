//! Loop nests of instructions, brought into the shape that timing and simulation work on: dimensions of one step left
//! out, neighbours merged where every operand walks through them as through one.

use std::ops::Range;

use smallvec::SmallVec;

use super::isa::{Source, Walk};

/// Most walks of one instruction: a destination and three sources.
pub(crate) const OPERANDS: usize = 4;

/// The walks of an instruction by operand: the destination, then the sources. Numbers do not walk.
pub(crate) fn walks_of<'w>(destination: &'w Walk, sources: &'w [Source]) -> [Option<&'w Walk>; OPERANDS] {
    let mut walks = [None; OPERANDS];
    walks[0] = Some(destination);
    for (walk, source) in walks[1..].iter_mut().zip(sources) {
        if let Source::Walk(source) = source {
            *walk = Some(source);
        }
    }
    walks
}

/// Steps of the operands of an instruction, in nibbles: four-bit elements are half a byte apart.
pub(crate) type Steps = [i64; OPERANDS];

/// One dimension of a [`Nest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NestDim {
    /// Number of steps.
    pub size: u64,
    /// Distance between steps for each operand, in nibbles.
    pub steps: Steps,
}

/// A merged loop nest, outermost dimension first; no dimensions for a single element.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Nest {
    dims: SmallVec<[NestDim; 4]>,
}

impl Nest {
    /// The nest of up to [`OPERANDS`] walks over `sizes`; `None` is an operand that does not walk.
    pub fn of_walks(sizes: &[u32], walks: &[Option<&Walk>]) -> Nest {
        Nest::of_axes(sizes, 0..sizes.len(), walks)
    }

    /// The part of a nest over `sizes` that some of its dimensions make.
    pub fn of_axes(sizes: &[u32], axes: Range<usize>, walks: &[Option<&Walk>]) -> Nest {
        Nest::merged(axes.map(|axis| {
            let mut steps = Steps::default();
            for (step, walk) in steps.iter_mut().zip(walks) {
                *step = walk.map_or(0, |walk| walk_step(walk, axis, sizes.len()));
            }
            NestDim { size: u64::from(sizes[axis]), steps }
        }))
    }

    /// The nest of the given dimensions, outermost first.
    pub fn merged(dims: impl DoubleEndedIterator<Item = NestDim>) -> Nest {
        let mut merged: SmallVec<[NestDim; 4]> = SmallVec::new();
        for dim in dims.rev().filter(|dim| dim.size != 1) {
            match merged.last_mut() {
                Some(inner) if continues(&dim, inner) => inner.size = inner.size.saturating_mul(dim.size),
                _ => merged.push(dim),
            }
        }
        merged.reverse();
        Nest { dims: merged }
    }

    /// Number of elements, `u64::MAX` if there are more.
    pub fn count(&self) -> u64 {
        self.dims.iter().fold(1, |count: u64, dim| count.saturating_mul(dim.size))
    }

    /// The innermost dimension; one step for a single element.
    pub fn inner(&self) -> NestDim {
        self.dims.last().copied().unwrap_or(NestDim { size: 1, steps: Steps::default() })
    }

    /// Whether there is more than one element along the innermost dimension.
    pub fn has_inner(&self) -> bool {
        !self.dims.is_empty()
    }

    /// Number of times the innermost dimension is walked.
    pub fn rows(&self) -> u64 {
        let outer = self.dims.len().saturating_sub(1);
        self.dims[..outer].iter().fold(1, |count: u64, dim| count.saturating_mul(dim.size))
    }

    /// Where each operand stands at the start of a row, relative to the start of the nest.
    pub fn row_steps(&self, row: u64) -> Steps {
        let mut steps = Steps::default();
        let mut rest = row;
        for dim in self.dims.iter().rev().skip(1) {
            let index = (rest % dim.size) as i64;
            rest /= dim.size;
            for (at, step) in steps.iter_mut().zip(dim.steps) {
                *at += index * step;
            }
        }
        steps
    }

    /// Where each operand stands at an element, relative to the start of the nest.
    pub fn element_steps(&self, element: u64) -> Steps {
        let inner = self.inner();
        let mut steps = self.row_steps(element / inner.size);
        for (at, step) in steps.iter_mut().zip(inner.steps) {
            *at += (element % inner.size) as i64 * step;
        }
        steps
    }
}

fn continues(outer: &NestDim, inner: &NestDim) -> bool {
    outer.steps.iter().zip(inner.steps).all(|(&outer, step)| {
        i64::try_from(inner.size).ok().and_then(|size| step.checked_mul(size)).is_some_and(|span| span == outer)
    })
}

/// Distance in nibbles between the steps of a walk along a dimension. Four-bit elements lie side by side along the
/// innermost dimension.
pub(crate) fn walk_step(walk: &Walk, axis: usize, rank: usize) -> i64 {
    if walk.dtype.bits() == 4 && axis + 1 == rank {
        1
    } else {
        2 * i64::from(walk.strides.get(axis).copied().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;
    use tcc_ir::DType;

    use super::*;
    use crate::systolic::isa::Memory;

    fn walk(dtype: DType, strides: &[i32]) -> Walk {
        Walk { memory: Memory::Scratchpad, address: 0, dtype, strides: strides.iter().copied().collect() }
    }

    #[test]
    fn dense_dimensions_merge() {
        let dense = walk(DType::F32, &[80, 20, 4]);
        let nest = Nest::of_walks(&[3, 4, 5], &[Some(&dense)]);
        assert_eq!(nest.inner(), NestDim { size: 60, steps: [8, 0, 0, 0] });
        assert_eq!(nest.rows(), 1);
    }

    #[test]
    fn a_broadcast_row_keeps_rows_apart() {
        let (dense, row) = (walk(DType::F32, &[20, 4]), walk(DType::F32, &[0, 4]));
        let nest = Nest::of_walks(&[4, 5], &[Some(&dense), Some(&row)]);
        assert_eq!((nest.rows(), nest.inner().size, nest.count()), (4, 5, 20));
        assert_eq!(nest.row_steps(3), [120, 0, 0, 0]);
    }

    #[test]
    fn packed_nibbles_merge_only_over_whole_bytes() {
        let even = Nest::of_walks(&[3, 4], &[Some(&walk(DType::I4, &[2, 0]))]);
        assert_eq!(even.inner().size, 12);
        let odd = Nest::of_walks(&[3, 5], &[Some(&walk(DType::I4, &[3, 0]))]);
        assert_eq!((odd.rows(), odd.inner().size), (3, 5));
    }

    #[test]
    fn steps_of_one_vanish() {
        let strides = walk(DType::F32, &[999, 4, 7]);
        let nest = Nest::of_walks(&[1, 6, 1], &[Some(&strides)]);
        assert_eq!(nest, Nest { dims: smallvec![NestDim { size: 6, steps: [8, 0, 0, 0] }] });
        assert!(!Nest::of_walks(&[1, 1], &[Some(&strides)]).has_inner());
    }
}
