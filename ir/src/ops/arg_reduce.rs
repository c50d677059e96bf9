//! Position of an extreme along an axis.

use std::cmp::Ordering;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::indexing::check_axis;
use super::order::Ordered;
use crate::op::{OpError, Operator, OutputTypes, Work, one, operands};
use crate::{DType, PARALLEL_GRAIN, Shape, Tensor, TensorType, Values};

/// Index (i64) of the greatest or least element along `axis`, which stays with extent 1. The first of equals, or the
/// last if `select_last`. NaN counts as greater than every number; 0 and -0 are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ArgReduce {
    /// Which extreme.
    pub function: ArgFn,
    /// The axis searched.
    pub axis: usize,
    /// Take the last of equal elements.
    pub select_last: bool,
}

/// Which extreme [`ArgReduce`] looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArgFn {
    /// The greatest element.
    Max,
    /// The least element.
    Min,
}

impl Operator for ArgReduce {
    const NAMES: &'static [&'static str] = &["arg_reduce"];

    fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        let [x] = operands(inputs)?;
        check_axis(self.axis, 0, x)?;
        if x.shape[self.axis] == 0 {
            return Err(OpError::shape(0, format!("at least one element along axis {}", self.axis), x));
        }
        let dims = x.shape.iter().enumerate().map(|(axis, &dim)| if axis == self.axis { 1 } else { dim });
        one(DType::I64, Shape::new(dims)?)
    }

    fn eval(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        let [x] = operands(inputs)?;
        let indices = match x.widen()? {
            Values::F32(v) => self.search(&v, x.shape()),
            Values::F64(v) => self.search(&v, x.shape()),
            Values::Signed(v) => self.search(&v, x.shape()),
            Values::Unsigned(v) => self.search(&v, x.shape()),
        };
        Ok(vec![Tensor::from_vec(outputs[0].shape.clone(), indices)?])
    }

    fn work(&self, inputs: &[&TensorType], _outputs: &[TensorType]) -> Work {
        Work::elementwise(inputs[0].shape.count() as u64)
    }
}

impl ArgReduce {
    fn search<T: Ordered>(&self, x: &[T], shape: &Shape) -> Vec<i64> {
        let len = shape[self.axis];
        let inner: usize = shape[self.axis + 1..].iter().product();
        let wanted = match self.function {
            ArgFn::Max => Ordering::Greater,
            ArgFn::Min => Ordering::Less,
        };
        (0..x.len() / len)
            .into_par_iter()
            .with_min_len((PARALLEL_GRAIN / len).max(1))
            .map(|line| {
                let start = line / inner * len * inner + line % inner;
                let at = |i: usize| x[start + i * inner];
                (1..len).fold(0, |best, i| match at(i).order(at(best)) {
                    Ordering::Equal if self.select_last => i,
                    order if order == wanted => i,
                    _ => best,
                }) as i64
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;
    use crate::testing::{iota, numbers, refusal, run, tensor, ty};

    fn arg(function: ArgFn, axis: usize, select_last: bool) -> ArgReduce {
        ArgReduce { function, axis, select_last }
    }

    #[test]
    fn first_and_last_of_equals_in_every_type() {
        for dtype in DType::ALL {
            let x = tensor(dtype, &[5], &[1.0, 0.0, 1.0, 0.0, 1.0]);
            for (function, select_last, expected) in
                [(ArgFn::Max, false, 0.0), (ArgFn::Max, true, 4.0), (ArgFn::Min, false, 1.0), (ArgFn::Min, true, 3.0)]
            {
                let y = run(arg(function, 0, select_last), std::slice::from_ref(&x)).unwrap();
                assert_eq!(numbers(&y), [expected], "{dtype} {function:?}");
            }
        }
    }

    #[test]
    fn searches_inner_and_outer_axes() {
        let x = [tensor(DType::I8, &[2, 3], &[-1.0, 5.0, 2.0, 3.0, -7.0, 4.0])];
        let y = run(arg(ArgFn::Max, 0, false), &x).unwrap();
        assert_eq!((y.shape().dims(), numbers(&y)), (&[1, 3][..], vec![1.0, 0.0, 1.0]));
        let y = run(arg(ArgFn::Min, 1, false), &x).unwrap();
        assert_eq!((y.shape().dims(), numbers(&y)), (&[2, 1][..], vec![0.0, 1.0]));
    }

    #[test]
    fn nan_is_greatest() {
        let x = [tensor(DType::F16, &[4], &[f64::INFINITY, f64::NAN, 0.0, f64::NAN])];
        assert_eq!(numbers(&run(arg(ArgFn::Max, 0, false), &x).unwrap()), [1.0]);
        assert_eq!(numbers(&run(arg(ArgFn::Max, 0, true), &x).unwrap()), [3.0]);
        assert_eq!(numbers(&run(arg(ArgFn::Min, 0, false), &x).unwrap()), [2.0]);
        let zeros = [tensor(DType::F64, &[2], &[-0.0, 0.0])];
        assert_eq!(numbers(&run(arg(ArgFn::Max, 0, false), &zeros).unwrap()), [0.0]);
    }

    #[test]
    fn an_empty_axis_has_no_extreme() {
        let message = refusal(arg(ArgFn::Max, 0, false), &[ty(DType::F32, &[0, 2])]);
        assert_eq!(message, "operand 0 has shape f32[0,2], but must have at least one element along axis 0");
        refusal(arg(ArgFn::Max, 1, false), &[ty(DType::F32, &[2])]);
        let y = run(arg(ArgFn::Max, 1, false), &[iota(DType::F32, &[0, 2])]).unwrap();
        assert_eq!(y.shape().dims(), [0, 1]);
    }
}
