//! Reductions over axes, which stay with extent 1.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::elementwise::map;
use super::float::{self, Float, FloatKernel};
use crate::op::{OpError, Operator, OutputTypes, Work, one, operands};
use crate::{DType, Shape, Tensor, TensorType, Values};

/// Combines all elements along some axes. Reduced axes keep extent 1; a [`Reshape`](super::Reshape) drops them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reduce {
    /// How elements are combined.
    pub function: ReduceFn,
    /// The axes reduced, ascending.
    pub axes: Vec<usize>,
}

/// The functions of [`Reduce`]. Over no elements a sum is 0, a product 1, a maximum the least value of the type, a
/// minimum the greatest, and a mean NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReduceFn {
    /// Greatest element; NaN if any is.
    Max,
    /// Sum divided by count; integers truncate.
    Mean,
    /// Least element; NaN if any is.
    Min,
    /// Product.
    Prod,
    /// Sum.
    Sum,
}

impl Operator for Reduce {
    const NAMES: &'static [&'static str] = &["reduce"];

    fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        let [x] = operands(inputs)?;
        let ordered = self.axes.windows(2).all(|pair| pair[0] < pair[1]);
        if !ordered || self.axes.last().is_some_and(|&axis| axis >= x.shape.rank()) {
            return Err(OpError::shape(0, format!("ascending axes {:?}", self.axes), x));
        }
        let minmax = matches!(self.function, ReduceFn::Max | ReduceFn::Min);
        if x.dtype == DType::Bool && !minmax {
            return Err(OpError::dtype(0, "a number", x.dtype));
        }
        let dims = x.shape.iter().enumerate().map(|(axis, &dim)| if self.axes.contains(&axis) { 1 } else { dim });
        one(x.dtype, Shape::new(dims)?)
    }

    fn keeps_excess_precision(&self) -> bool {
        true
    }

    fn eval(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        let [x] = operands(inputs)?;
        if self.is_row_wise(x.ty()) {
            return float::evaluate(self, inputs, outputs);
        }
        let (low, high) = x.dtype().integer_range().unwrap_or((0, 1));
        let count: usize = self.axes.iter().map(|&axis| x.shape()[axis]).product();
        macro_rules! run {
            ($v:expr, $Class:ident, $low:expr, $high:expr, $max:expr, $min:expr, $add:expr, $mul:expr, $div:expr) => {
                Values::$Class(
                    match self.function {
                        ReduceFn::Max => fold(&$v, x.shape(), &self.axes, $low, $max),
                        ReduceFn::Min => fold(&$v, x.shape(), &self.axes, $high, $min),
                        ReduceFn::Sum => fold(&$v, x.shape(), &self.axes, 0 as _, $add),
                        ReduceFn::Prod => fold(&$v, x.shape(), &self.axes, 1 as _, $mul),
                        ReduceFn::Mean => {
                            let mut sums = fold(&$v, x.shape(), &self.axes, 0 as _, $add);
                            sums.iter_mut().for_each(|sum| *sum = $div(*sum, count));
                            sums
                        }
                    }
                    .into(),
                )
            };
        }
        fn max32(a: f32, b: f32) -> f32 {
            if a.is_nan() || a > b { a } else { b }
        }
        fn min32(a: f32, b: f32) -> f32 {
            if a.is_nan() || a < b { a } else { b }
        }
        fn max64(a: f64, b: f64) -> f64 {
            if a.is_nan() || a > b { a } else { b }
        }
        fn min64(a: f64, b: f64) -> f64 {
            if a.is_nan() || a < b { a } else { b }
        }
        let values = match x.widen()? {
            // Sums of binary32 are carried in binary64, so that the oracle's own rounding does not depend on the order.
            Values::F32(v) if matches!(self.function, ReduceFn::Max | ReduceFn::Min) => {
                run!(v, F32, f32::NEG_INFINITY, f32::INFINITY, max32, min32, |a, b| a + b, |a, b| a * b, |s, _| s)
            }
            Values::F32(v) => {
                let results = match self.function {
                    ReduceFn::Prod => fold(&v, x.shape(), &self.axes, 1.0, |a, x| a * f64::from(x)),
                    _ => fold(&v, x.shape(), &self.axes, 0.0, |a, x| a + f64::from(x)),
                };
                let divisor = if self.function == ReduceFn::Mean { count as f64 } else { 1.0 };
                Values::F32(map(&results, |result| (result / divisor) as f32).into())
            }
            Values::F64(v) => run!(
                v, F64, f64::NEG_INFINITY, f64::INFINITY, max64, min64,
                |a, b| a + b, |a, b| a * b, |s: f64, n: usize| s / n as f64
            ),
            Values::Signed(v) => run!(
                v, Signed, low as i64, high as i64, i64::max, i64::min,
                i64::wrapping_add, i64::wrapping_mul, |s: i64, n: usize| s / (n.max(1) as i64)
            ),
            Values::Unsigned(v) => run!(
                v, Unsigned, low as u64, high as u64, u64::max, u64::min,
                u64::wrapping_add, u64::wrapping_mul, |s: u64, n: usize| s / (n.max(1) as u64)
            ),
        };
        Ok(vec![Tensor::narrow(outputs[0].clone(), values)])
    }

    fn work(&self, inputs: &[&TensorType], _outputs: &[TensorType]) -> Work {
        Work::elementwise(inputs[0].shape.count() as u64)
    }
}

impl Reduce {
    /// Whether each result comes from one run of floats in memory, which vector code can walk along.
    fn is_row_wise(&self, x: &TensorType) -> bool {
        let rank = x.shape.rank();
        x.dtype.is_float()
            && matches!(self.function, ReduceFn::Max | ReduceFn::Mean | ReduceFn::Sum)
            && self.axes.iter().copied().eq(rank - self.axes.len()..rank)
            && self.axes.iter().all(|&axis| x.shape[axis] > 0)
    }
}

impl FloatKernel for Reduce {
    fn run<F: Float>(&self, inputs: &[&Tensor], values: &[&[F]], out: &TensorType) -> Result<Vec<F>, OpError> {
        let mut y = vec![F::default(); out.shape.count()];
        let len = self.axes.iter().map(|&axis| inputs[0].shape()[axis]).product();
        let f = match self.function {
            ReduceFn::Max => F::max_of,
            ReduceFn::Mean => F::mean,
            _ => F::sum,
        };
        let rows = float::rows_per_task(len);
        y.par_chunks_mut(rows).zip(values[0].par_chunks(rows * len)).for_each(|(y, x)| {
            y.iter_mut().zip(x.chunks(len)).for_each(|(y, x)| *y = f(x));
        });
        Ok(y)
    }
}

/// Folds along `axes` in row-major order of the operand, each result element on one thread.
fn fold<T: Copy + Sync, A: Copy + Send + Sync>(
    x: &[T],
    shape: &Shape,
    axes: &[usize],
    start: A,
    f: impl Fn(A, T) -> A + Sync + Send,
) -> Vec<A> {
    let strides = shape.strides();
    let list = |reduced: bool| -> Vec<(usize, usize)> {
        (0..shape.rank()).filter(|axis| axes.contains(axis) == reduced).map(|axis| (shape[axis], strides[axis])).collect()
    };
    let (kept, reduced) = (list(false), list(true));
    let offsets = |dims: &[(usize, usize)]| -> Vec<usize> {
        dims.iter().fold(vec![0], |offsets, &(size, stride)| {
            offsets.iter().flat_map(|&base| (0..size).map(move |i| base + i * stride)).collect()
        })
    };
    let (kept, reduced) = (offsets(&kept), offsets(&reduced));
    kept.par_iter()
        .with_min_len((crate::PARALLEL_GRAIN / reduced.len().max(1)).max(1))
        .map(|&base| reduced.iter().fold(start, |sum, &offset| f(sum, x[base + offset])))
        .collect()
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;
    use crate::testing::{elements, spread};

    fn reduce(function: ReduceFn, axes: &[usize], x: &Tensor) -> Vec<f64> {
        let op = Reduce { function, axes: axes.to_vec() };
        let out = op.infer(&[x.ty()]).unwrap();
        op.eval(&[x], &out).unwrap()[0].to_f64s().unwrap()
    }

    #[test]
    fn reduces_rows_and_columns() {
        let x = elements(&[2, 3], vec![1.0f32, 2.0, 6.0, -1.0, 0.0, 4.0]);
        assert_eq!(reduce(ReduceFn::Sum, &[1], &x), [9.0, 3.0]);
        assert_eq!(reduce(ReduceFn::Mean, &[1], &x), [3.0, 1.0]);
        assert_eq!(reduce(ReduceFn::Max, &[1], &x), [6.0, 4.0]);
        assert_eq!(reduce(ReduceFn::Min, &[1], &x), [1.0, -1.0]);
        assert_eq!(reduce(ReduceFn::Prod, &[1], &x), [12.0, 0.0]);
        assert_eq!(reduce(ReduceFn::Sum, &[0], &x), [0.0, 2.0, 10.0]);
        assert_eq!(reduce(ReduceFn::Mean, &[0, 1], &x), [2.0]);
        assert_eq!(reduce(ReduceFn::Sum, &[], &x), [1.0, 2.0, 6.0, -1.0, 0.0, 4.0]);
    }

    #[test]
    fn both_ways_of_walking_agree() {
        // Moving the reduced axis to the front takes it off the fast path.
        let x = spread(DType::F32, &[5, 1000], 1);
        let values = x.to_f64s().unwrap();
        let moved = (0..1000).flat_map(|j| (0..5).map(move |i| i * 1000 + j)).map(|at| values[at] as f32).collect();
        let moved = elements(&[1000, 5], moved);
        for function in [ReduceFn::Max, ReduceFn::Min, ReduceFn::Sum, ReduceFn::Mean] {
            assert_eq!(reduce(function, &[1], &x), reduce(function, &[0], &moved), "{function:?}");
        }
    }

    #[test]
    fn nothing_reduces_to_the_neutral_element() {
        let x = elements(&[1, 0], Vec::<f32>::new());
        assert_eq!(reduce(ReduceFn::Sum, &[1], &x), [0.0]);
        assert_eq!(reduce(ReduceFn::Max, &[1], &x), [f64::NEG_INFINITY]);
        assert!(reduce(ReduceFn::Mean, &[1], &x)[0].is_nan());
    }
}
