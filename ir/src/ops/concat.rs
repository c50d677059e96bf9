//! Joining along one axis.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::indexing::check_axis;
use super::movement::{Unit, by_width, from_units, units};
use crate::op::{OpError, Operator, OutputTypes, Work, one, same_dtype};
use crate::{Data, PARALLEL_GRAIN, Shape, Tensor, TensorType};

/// Joins one or more tensors along `axis`; all other extents and the element type are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Concat {
    /// The axis joined along.
    pub axis: usize,
}

impl Operator for Concat {
    const NAMES: &'static [&'static str] = &["concat"];

    fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        let Some(first) = inputs.first() else {
            return Err(OpError::Arity { expected: "one or more".to_owned(), actual: 0 });
        };
        check_axis(self.axis, 0, first)?;
        let mut dims = first.shape.to_vec();
        for (operand, ty) in inputs.iter().enumerate().skip(1) {
            same_dtype(inputs, operand)?;
            let equal = |axis: usize| axis == self.axis || ty.shape[axis] == first.shape[axis];
            if ty.shape.rank() != dims.len() || !(0..dims.len()).all(equal) {
                let expected = format!("the extents of operand 0 ({first}) but along axis {}", self.axis);
                return Err(OpError::shape(operand, expected, ty));
            }
            // Whatever saturates is refused as a shape.
            dims[self.axis] = dims[self.axis].saturating_add(ty.shape[self.axis]);
        }
        one(first.dtype, Shape::new(dims)?)
    }

    fn eval(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        let out = &outputs[0];
        let inner: usize = out.shape[self.axis + 1..].iter().product();
        let runs: Vec<usize> = inputs.iter().map(|x| x.shape()[self.axis] * inner).collect();
        let count = out.shape.count();
        if out.dtype.bits() == 4 && runs.iter().all(|run| run.is_multiple_of(2)) {
            let parts = inputs.iter().map(|x| Ok(x.bytes()?)).collect::<Result<Vec<_>, OpError>>()?;
            let parts: Vec<(&[u8], usize)> = parts.into_iter().zip(runs.iter().map(|run| run / 2)).collect();
            return Ok(vec![Tensor::new(out.clone(), Data::from_bytes(join(&parts, count / 2)))?]);
        }
        by_width!(out.dtype, T => {
            let parts = inputs.iter().map(|x| Ok(units::<T>(x)?)).collect::<Result<Vec<_>, OpError>>()?;
            let parts: Vec<(&[T], usize)> = parts.iter().map(|part| &part[..]).zip(runs).collect();
            Ok(vec![from_units(out, join(&parts, count))?])
        })
    }

    fn work(&self, _inputs: &[&TensorType], _outputs: &[TensorType]) -> Work {
        Work::NONE
    }
}

/// Takes a run from each part in turn, over and over. Each part comes with the length of its runs.
fn join<T: Unit>(parts: &[(&[T], usize)], count: usize) -> Vec<T> {
    let mut starts = Vec::with_capacity(parts.len());
    let mut period = 0;
    for (_, run) in parts {
        starts.push(period);
        period += run;
    }
    let mut out = vec![T::default(); count];
    out.par_chunks_mut(PARALLEL_GRAIN).enumerate().for_each(|(piece, mut out)| {
        let mut position = piece * PARALLEL_GRAIN;
        while !out.is_empty() {
            let (turn, place) = (position / period, position % period);
            // The last part that starts here or before: empty ones start where the next does.
            let part = starts.partition_point(|&start| start <= place) - 1;
            let (elements, run) = parts[part];
            let within = place - starts[part];
            let (now, later) = out.split_at_mut(out.len().min(run - within));
            now.copy_from_slice(&elements[turn * run + within..][..now.len()]);
            position += now.len();
            out = later;
        }
    });
    out
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;
    use crate::DType;
    use crate::testing::{iota, numbers, refusal, run, tensor, ty};

    #[test]
    fn joins_every_type_along_any_axis() {
        for dtype in DType::ALL {
            let (a, b) = (tensor(dtype, &[2, 1], &[0.0, 1.0]), tensor(dtype, &[2, 2], &[1.0, 1.0, 0.0, 0.0]));
            let y = run(Concat { axis: 1 }, &[a.clone(), b.clone()]).unwrap();
            assert_eq!(numbers(&y), [0.0, 1.0, 1.0, 1.0, 0.0, 0.0], "{dtype}");
            let y = run(Concat { axis: 0 }, &[b.clone(), b]).unwrap();
            assert_eq!(numbers(&y), [1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0], "{dtype}");
        }
    }

    #[test]
    fn empty_parts_take_no_place() {
        let (full, empty) = (iota(DType::I4, &[2, 3]), iota(DType::I4, &[2, 0]));
        for parts in [[&empty, &full, &empty], [&full, &empty, &empty], [&empty, &empty, &full]] {
            let y = run(Concat { axis: 1 }, &parts.map(Clone::clone)).unwrap();
            assert_eq!(numbers(&y), numbers(&full));
        }
        assert!(numbers(&run(Concat { axis: 1 }, &[empty.clone(), empty]).unwrap()).is_empty());
    }

    #[test]
    fn runs_longer_than_a_task() {
        let (a, b) = (iota(DType::U16, &[2, 30_000]), iota(DType::U16, &[2, 7]));
        let y = run(Concat { axis: 1 }, &[a.clone(), b.clone()]).unwrap();
        let (a, b) = (numbers(&a), numbers(&b));
        let expected = [&a[..30_000], &b[..7], &a[30_000..], &b[7..]].concat();
        assert_eq!(numbers(&y), expected);
    }

    #[test]
    fn refuses_parts_that_differ() {
        let x = ty(DType::F32, &[2, 3]);
        assert_eq!(
            refusal(Concat { axis: 1 }, &[x.clone(), ty(DType::F32, &[3, 3])]),
            "operand 1 has shape f32[3,3], but must have the extents of operand 0 (f32[2,3]) but along axis 1"
        );
        refusal(Concat { axis: 1 }, &[x.clone(), ty(DType::F16, &[2, 3])]);
        refusal(Concat { axis: 1 }, &[x.clone(), ty(DType::F32, &[2])]);
        refusal(Concat { axis: 2 }, &[x]);
        refusal(Concat { axis: 0 }, &[]);
        let huge = ty(DType::F32, &[1 << 39]);
        refusal(Concat { axis: 0 }, &[huge.clone(), huge.clone(), huge]);
    }
}
