//! Greatest or least elements along an axis.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::indexing::check_axis;
use super::movement::take_rows;
use super::order::Ordered;
use crate::op::{OpError, Operator, OutputTypes, Work, operands};
use crate::{DType, Shape, Tensor, TensorType, Values};

/// The `k` greatest (or least) elements along `axis` in order, and their indices (i64). Of equal elements the one
/// with the lower index comes first. NaN counts as greater than every number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TopK {
    /// The axis searched.
    pub axis: usize,
    /// How many elements are kept.
    pub k: usize,
    /// Greatest first; else least first.
    pub largest: bool,
}

impl Operator for TopK {
    const NAMES: &'static [&'static str] = &["top_k"];

    fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        let [x] = operands(inputs)?;
        check_axis(self.axis, 0, x)?;
        if self.k > x.shape[self.axis] {
            return Err(OpError::shape(0, format!("at least k = {} elements along axis {}", self.k, self.axis), x));
        }
        let dims = x.shape.iter().enumerate().map(|(axis, &dim)| if axis == self.axis { self.k } else { dim });
        let shape = Shape::new(dims)?;
        Ok(smallvec::smallvec![TensorType::new(x.dtype, shape.clone()), TensorType::new(DType::I64, shape)])
    }

    fn eval(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        let [x] = operands(inputs)?;
        let ranked = match x.widen()? {
            Values::F32(v) => self.rank(&v, x.shape()),
            Values::F64(v) => self.rank(&v, x.shape()),
            Values::Signed(v) => self.rank(&v, x.shape()),
            Values::Unsigned(v) => self.rank(&v, x.shape()),
        };
        // Ranked indices are line by line; both results are laid out along the axis.
        let inner: usize = x.shape()[self.axis + 1..].iter().product();
        let (len, count) = (x.shape()[self.axis], outputs[1].shape.count());
        let place = |i: usize| (i / (self.k * inner), i / inner % self.k, i % inner);
        let index = |i: usize| {
            let (outer, nth, column) = place(i);
            ranked[(outer * inner + column) * self.k + nth]
        };
        let element = |i: usize| {
            let (outer, _, column) = place(i);
            (outer * len + index(i)) * inner + column
        };
        let indices = (0..count).map(|i| index(i) as i64).collect();
        Ok(vec![
            take_rows(x, count, 1, element, &outputs[0])?,
            Tensor::from_vec(outputs[1].shape.clone(), indices)?,
        ])
    }

    fn work(&self, inputs: &[&TensorType], _outputs: &[TensorType]) -> Work {
        // Comparisons of a sort.
        let levels = usize::BITS - inputs[0].shape[self.axis].leading_zeros();
        Work::elementwise(inputs[0].shape.count() as u64 * u64::from(levels))
    }
}

impl TopK {
    /// The indices of the `k` first elements of each line along the axis, line by line.
    fn rank<T: Ordered>(&self, x: &[T], shape: &Shape) -> Vec<usize> {
        let len = shape[self.axis];
        let inner: usize = shape[self.axis + 1..].iter().product();
        if self.k == 0 || x.is_empty() {
            return Vec::new();
        }
        let mut ranked = vec![0; x.len() / len * self.k];
        ranked.par_chunks_mut(self.k).enumerate().for_each(|(line, ranked)| {
            let start = line / inner * len * inner + line % inner;
            let at = |i: usize| x[start + i * inner];
            // Indices differ, so that the order is strict and an unstable sort has one result.
            let order = |&a: &usize, &b: &usize| {
                let by_value = if self.largest { at(b).order(at(a)) } else { at(a).order(at(b)) };
                by_value.then(a.cmp(&b))
            };
            let mut indices: Vec<usize> = (0..len).collect();
            if self.k < len {
                indices.select_nth_unstable_by(self.k, order);
                indices.truncate(self.k);
            }
            indices.sort_unstable_by(order);
            ranked.copy_from_slice(&indices);
        });
        ranked
    }
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;
    use crate::testing::{iota, numbers, random, refusal, run_all, tensor, ty};

    fn top(k: usize, axis: usize, largest: bool) -> TopK {
        TopK { axis, k, largest }
    }

    #[test]
    fn lower_index_first_in_every_type() {
        for dtype in DType::ALL {
            let x = [tensor(dtype, &[5], &[0.0, 1.0, 0.0, 1.0, 1.0])];
            let [values, indices] = run_all(top(4, 0, true), &x).unwrap().try_into().unwrap();
            assert_eq!((numbers(&values), numbers(&indices)), (vec![1.0, 1.0, 1.0, 0.0], vec![1.0, 3.0, 4.0, 0.0]));
            let [values, indices] = run_all(top(3, 0, false), &x).unwrap().try_into().unwrap();
            assert_eq!((numbers(&values), numbers(&indices)), (vec![0.0, 0.0, 1.0], vec![0.0, 2.0, 1.0]), "{dtype}");
        }
    }

    #[test]
    fn agrees_with_a_full_sort_along_any_axis() {
        let x = random(DType::I32, &[3, 40, 5], 7);
        let all = numbers(&x);
        for (axis, outer, len, inner) in [(0, 1, 3, 200), (1, 3, 40, 5), (2, 120, 5, 1)] {
            for k in [1, 2, len] {
                let [values, indices] = run_all(top(k, axis, true), std::slice::from_ref(&x)).unwrap().try_into().unwrap();
                let (values, indices) = (numbers(&values), numbers(&indices));
                for (o, i) in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))) {
                    let mut line: Vec<(f64, usize)> = (0..len).map(|j| (all[(o * len + j) * inner + i], j)).collect();
                    line.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
                    for (nth, (value, index)) in line.into_iter().take(k).enumerate() {
                        let at = (o * k + nth) * inner + i;
                        assert_eq!((values[at], indices[at]), (value, index as f64));
                    }
                }
            }
        }
    }

    #[test]
    fn nan_is_greatest() {
        let x = [tensor(DType::BF16, &[3], &[1.0, f64::NAN, f64::INFINITY])];
        assert_eq!(numbers(&run_all(top(3, 0, true), &x).unwrap()[1]), [1.0, 2.0, 0.0]);
        assert_eq!(numbers(&run_all(top(3, 0, false), &x).unwrap()[1]), [0.0, 2.0, 1.0]);
    }

    #[test]
    fn none_are_kept_or_there() {
        assert_eq!(run_all(top(0, 0, true), &[iota(DType::I4, &[3])]).unwrap()[0].shape().dims(), [0]);
        assert_eq!(run_all(top(2, 1, true), &[iota(DType::F32, &[0, 3])]).unwrap()[1].shape().dims(), [0, 2]);
        assert_eq!(run_all(top(0, 0, true), &[iota(DType::F32, &[0])]).unwrap()[1].shape().dims(), [0]);
    }

    #[test]
    fn refuses_to_keep_more_than_there_are() {
        let message = refusal(top(4, 1, true), &[ty(DType::F32, &[9, 3])]);
        assert_eq!(message, "operand 0 has shape f32[9,3], but must have at least k = 4 elements along axis 1");
        refusal(top(usize::MAX, 0, true), &[ty(DType::F32, &[9])]);
        refusal(top(1, 1, true), &[ty(DType::F32, &[9])]);
    }
}
