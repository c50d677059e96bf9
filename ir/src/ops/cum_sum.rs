//! Running sums along an axis.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::cast::convert;
use super::elementwise::map;
use super::indexing::check_axis;
use crate::op::{OpError, Operator, OutputTypes, Work, one, operands};
use crate::{DType, Shape, Tensor, TensorType, Values};

/// Sum of all elements up to each position along `axis`. Integers wrap; floats of at most 32 bits are carried in
/// binary64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CumSum {
    /// The axis summed along.
    pub axis: usize,
    /// Leave out the element at the position itself.
    pub exclusive: bool,
    /// Sum from the end.
    pub reverse: bool,
}

impl Operator for CumSum {
    const NAMES: &'static [&'static str] = &["cum_sum"];

    fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        let [x] = operands(inputs)?;
        check_axis(self.axis, 0, x)?;
        if x.dtype == DType::Bool {
            return Err(OpError::dtype(0, "a number", x.dtype));
        }
        one(x.dtype, x.shape.clone())
    }

    fn eval(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        let [x] = operands(inputs)?;
        let values = match x.widen()? {
            // Binary32 is carried in binary64, as in `Reduce`.
            Values::F32(v) => {
                let sums = self.sums(map(&v, f64::from), x.shape(), |a, b| a + b);
                convert(Values::F64(sums.into()), DType::F32)
            }
            Values::F64(v) => Values::F64(self.sums(v.into_owned(), x.shape(), |a, b| a + b).into()),
            Values::Signed(v) => Values::Signed(self.sums(v.into_owned(), x.shape(), i64::wrapping_add).into()),
            Values::Unsigned(v) => Values::Unsigned(self.sums(v.into_owned(), x.shape(), u64::wrapping_add).into()),
        };
        Ok(vec![Tensor::narrow(outputs[0].clone(), values)])
    }

    fn work(&self, inputs: &[&TensorType], _outputs: &[TensorType]) -> Work {
        Work::elementwise(inputs[0].shape.count() as u64)
    }
}

impl CumSum {
    /// Replaces elements by their running sums.
    fn sums<T: Copy + Default + Send + Sync>(&self, mut x: Vec<T>, shape: &Shape, add: fn(T, T) -> T) -> Vec<T> {
        let len = shape[self.axis];
        let inner: usize = shape[self.axis + 1..].iter().product();
        if x.is_empty() {
            return x;
        }
        x.par_chunks_mut(len * inner).for_each(|block| {
            let mut sums = vec![T::default(); inner];
            for step in 0..len {
                let index = if self.reverse { len - 1 - step } else { step };
                for (x, sum) in block[index * inner..][..inner].iter_mut().zip(&mut sums) {
                    let before = *sum;
                    *sum = add(before, *x);
                    *x = if self.exclusive { before } else { *sum };
                }
            }
        });
        x
    }
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;
    use crate::testing::{iota, numbers, refusal, run, tensor, ty};

    fn cum_sum(axis: usize, exclusive: bool, reverse: bool) -> CumSum {
        CumSum { axis, exclusive, reverse }
    }

    #[test]
    fn sums_every_number_type_in_all_four_ways() {
        for dtype in DType::ALL.into_iter().filter(|&dtype| dtype != DType::Bool) {
            let x = [tensor(dtype, &[3], &[1.0, 2.0, 3.0])];
            for (exclusive, reverse, expected) in [
                (false, false, [1.0, 3.0, 6.0]),
                (true, false, [0.0, 1.0, 3.0]),
                (false, true, [6.0, 5.0, 3.0]),
                (true, true, [5.0, 3.0, 0.0]),
            ] {
                assert_eq!(numbers(&run(cum_sum(0, exclusive, reverse), &x).unwrap()), expected, "{dtype}");
            }
        }
    }

    #[test]
    fn sums_along_outer_axes() {
        let x = [iota(DType::I32, &[2, 2, 2])];
        let y = run(cum_sum(1, false, false), &x).unwrap();
        assert_eq!(numbers(&y), [0.0, 1.0, 2.0, 4.0, 4.0, 5.0, 10.0, 12.0]);
    }

    #[test]
    fn integers_wrap_and_floats_keep_small_terms() {
        let x = [tensor(DType::I4, &[2], &[7.0, 1.0])];
        assert_eq!(numbers(&run(cum_sum(0, false, false), &x).unwrap()), [7.0, -8.0]);
        let x = [tensor(DType::F32, &[3], &[1e8, 1.0, -1e8])];
        assert_eq!(numbers(&run(cum_sum(0, false, false), &x).unwrap()), [1e8, 1e8, 1.0]);
    }

    #[test]
    fn empty_and_refused_operands() {
        assert_eq!(run(cum_sum(0, true, false), &[iota(DType::F32, &[0, 3])]).unwrap().shape().dims(), [0, 3]);
        assert_eq!(run(cum_sum(0, true, false), &[iota(DType::F32, &[3, 0])]).unwrap().shape().dims(), [3, 0]);
        refusal(cum_sum(0, false, false), &[ty(DType::Bool, &[3])]);
        refusal(cum_sum(1, false, false), &[ty(DType::F32, &[3])]);
    }
}
