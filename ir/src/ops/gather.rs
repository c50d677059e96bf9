//! Selection of slices by index.

use serde::{Deserialize, Serialize};

use super::indexing::{check_axis, check_indices, positions};
use super::movement::take_rows;
use crate::op::{OpError, Operator, OutputTypes, Work, one, operands};
use crate::{Shape, Tensor, TensorType};

/// Replaces `axis` of operand 0 by the shape of operand 1 (integers): the slices that the indices name, in order.
/// Negative indices count from the end; an index out of range is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Gather {
    /// The axis selected from.
    pub axis: usize,
}

impl Operator for Gather {
    const NAMES: &'static [&'static str] = &["gather"];

    fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        let [data, indices] = operands(inputs)?;
        check_axis(self.axis, 0, data)?;
        check_indices(1, indices)?;
        let (before, after) = (&data.shape[..self.axis], &data.shape[self.axis + 1..]);
        one(data.dtype, Shape::new(before.iter().chain(indices.shape.iter()).chain(after).copied())?)
    }

    fn eval(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        let [data, indices] = operands(inputs)?;
        let extent = data.shape()[self.axis];
        let outer: usize = data.shape()[..self.axis].iter().product();
        let row: usize = data.shape()[self.axis + 1..].iter().product();
        let positions = positions(indices, extent)?;
        let taken = positions.len();
        let start = |i: usize| (i / taken * extent + positions[i % taken]) * row;
        Ok(vec![take_rows(data, outer * taken, row, start, &outputs[0])?])
    }

    fn work(&self, _inputs: &[&TensorType], _outputs: &[TensorType]) -> Work {
        Work::NONE
    }
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;
    use crate::DType;
    use crate::testing::{iota, numbers, refusal, run, tensor, ty};

    #[test]
    fn selects_rows_of_every_type() {
        for dtype in DType::ALL {
            let data = tensor(dtype, &[2, 3], &[0.0, 1.0, 1.0, 1.0, 0.0, 0.0]);
            let y = run(Gather { axis: 0 }, &[data, Tensor::vector_i64(vec![1, 0, -1])]).unwrap();
            assert_eq!(numbers(&y), [1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0], "{dtype}");
        }
    }

    #[test]
    fn indices_may_be_any_integer() {
        for dtype in DType::ALL.into_iter().filter(|dtype| dtype.is_integer()) {
            let y = run(Gather { axis: 1 }, &[iota(DType::F32, &[2, 4]), tensor(dtype, &[1, 2], &[3.0, 1.0])]).unwrap();
            assert_eq!(y.shape().dims(), [2, 1, 2]);
            assert_eq!(numbers(&y), [3.0, 1.0, 7.0, 5.0], "{dtype}");
        }
        refusal(Gather { axis: 0 }, &[ty(DType::F32, &[2]), ty(DType::F32, &[2])]);
        refusal(Gather { axis: 0 }, &[ty(DType::F32, &[2]), ty(DType::Bool, &[2])]);
    }

    #[test]
    fn four_bit_rows_move_by_bytes_or_by_halves() {
        let index = Tensor::scalar(1i32);
        let y = run(Gather { axis: 0 }, &[iota(DType::U4, &[2, 4]), index.clone()]).unwrap();
        assert_eq!(numbers(&y), [4.0, 5.0, 6.0, 7.0]);
        let y = run(Gather { axis: 0 }, &[iota(DType::U4, &[2, 3]), index]).unwrap();
        assert_eq!(numbers(&y), [3.0, 4.0, 5.0]);
    }

    #[test]
    fn empty_selections() {
        let none = Tensor::vector_i64(vec![]);
        assert_eq!(run(Gather { axis: 0 }, &[iota(DType::F32, &[2, 3]), none.clone()]).unwrap().shape().dims(), [0, 3]);
        assert_eq!(run(Gather { axis: 0 }, &[iota(DType::F32, &[0, 3]), none]).unwrap().shape().dims(), [0, 3]);
    }

    #[test]
    fn names_the_index_that_is_out_of_range() {
        let data = iota(DType::F32, &[2, 3]);
        let error = run(Gather { axis: 1 }, &[data.clone(), Tensor::vector_i64(vec![0, 3])]).unwrap_err();
        assert_eq!(error.to_string(), "index 3 is out of range for an axis of extent 3; it must lie in -3..=2");
        for index in [-4, i64::MIN, i64::MAX] {
            assert!(run(Gather { axis: 1 }, &[data.clone(), Tensor::scalar(index)]).is_err());
        }
        assert!(run(Gather { axis: 0 }, &[iota(DType::F32, &[0]), Tensor::scalar(0i64)]).is_err());
        refusal(Gather { axis: 2 }, &[data.ty().clone(), ty(DType::I64, &[])]);
    }
}
