//! Padding with one value.

use std::ops::Range;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::movement::{Unit, by_width, from_units, units};
use crate::op::{OpError, Operator, OutputTypes, Work, one, operands, same_dtype};
use crate::{PARALLEL_GRAIN, Shape, Tensor, TensorType};

/// Surrounds operand 0 with operand 1, a scalar of the same type, and puts `interior` copies of it between
/// neighbours. Negative `low` or `high` crop (after interior padding).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pad {
    /// Elements added before each axis.
    pub low: Vec<i64>,
    /// Elements added after each axis.
    pub high: Vec<i64>,
    /// Elements added between neighbours along each axis.
    pub interior: Vec<usize>,
}

impl Pad {
    /// The padded extent of an axis of `extent` elements; negative if more is cropped than there is.
    fn padded(&self, axis: usize, extent: usize) -> i128 {
        let gaps = extent.saturating_sub(1) as i128 * self.interior[axis] as i128;
        extent as i128 + gaps + i128::from(self.low[axis]) + i128::from(self.high[axis])
    }
}

impl Operator for Pad {
    const NAMES: &'static [&'static str] = &["pad"];

    fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        let [x, value] = operands(inputs)?;
        same_dtype(inputs, 1)?;
        if value.shape.rank() != 0 {
            return Err(OpError::shape(1, "no dimensions: a scalar", value));
        }
        let rank = x.shape.rank();
        if [self.low.len(), self.high.len(), self.interior.len()] != [rank; 3] {
            let Pad { low, high, interior } = self;
            let expected = format!("as many axes as there are paddings {low:?}, {high:?} and {interior:?}");
            return Err(OpError::shape(0, expected, x));
        }
        let mut dims = Vec::with_capacity(rank);
        for axis in 0..rank {
            let padded = self.padded(axis, x.shape[axis]);
            if padded < 0 {
                let (low, high) = (self.low[axis], self.high[axis]);
                return Err(OpError::shape(0, format!("enough elements to crop by low {low} and high {high} along axis {axis}"), x));
            }
            dims.push(usize::try_from(padded).unwrap_or(usize::MAX));
        }
        one(x.dtype, Shape::new(dims)?)
    }

    fn eval(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        let [x, value] = operands(inputs)?;
        let out = &outputs[0];
        by_width!(out.dtype, T => {
            let value = units::<T>(value)?.first().copied().unwrap_or_default();
            let mut padded = vec![value; out.shape.count()];
            if !padded.is_empty() && x.shape().count() > 0 {
                self.fill(&units::<T>(x)?, x.shape(), &mut padded, &out.shape);
            }
            Ok(vec![from_units(out, padded)?])
        })
    }

    fn work(&self, _inputs: &[&TensorType], _outputs: &[TensorType]) -> Work {
        Work::NONE
    }
}

impl Pad {
    /// Puts the elements of `x` in their places in `out`. Neither is empty.
    fn fill<T: Unit>(&self, x: &[T], shape: &Shape, out: &mut [T], out_shape: &Shape) {
        let untouched = |axis: usize| self.low[axis] == 0 && self.high[axis] == 0 && self.interior[axis] == 0;
        // Trailing axes that nothing is added to move as one block of elements; the axis before them is a row.
        let Some(row_axis) = (0..shape.rank()).rev().find(|&axis| !untouched(axis)) else {
            return out.copy_from_slice(x);
        };
        let block: usize = shape[row_axis + 1..].iter().product();
        let axes: Vec<Axis> = (0..=row_axis).map(|axis| Axis::new(self, axis, shape[axis], out_shape[axis])).collect();
        let (row, outer) = (&axes[row_axis], &axes[..row_axis]);
        let row_len = out_shape[row_axis] * block;
        let group = (PARALLEL_GRAIN / row_len).max(1);
        out.par_chunks_mut(row_len * group).enumerate().for_each(|(piece, out)| {
            for (index, out) in out.chunks_mut(row_len).enumerate() {
                let mut rest = piece * group + index;
                let (mut source, mut step) = (0, 1);
                let mut inside = true;
                for (axis, &extent) in outer.iter().zip(&out_shape[..row_axis]).rev() {
                    match axis.source(rest % extent) {
                        Some(i) => source += i * step,
                        None => inside = false,
                    }
                    rest /= extent;
                    step *= axis.extent;
                }
                if !inside {
                    continue;
                }
                let x = &x[source * row.extent * block..][..row.extent * block];
                if row.pitch == 1 && !row.taken.is_empty() {
                    let start = row.place(row.taken.start);
                    let x = &x[row.taken.start * block..row.taken.end * block];
                    out[start * block..][..x.len()].copy_from_slice(x);
                } else {
                    for i in row.taken.clone() {
                        out[row.place(i) * block..][..block].copy_from_slice(&x[i * block..][..block]);
                    }
                }
            }
        });
    }
}

/// Where the elements of one axis go.
struct Axis {
    /// Elements before padding.
    extent: usize,
    /// The elements that are not cropped.
    taken: Range<usize>,
    /// Place of element 0, which may be cropped.
    low: i128,
    /// Distance between the places of neighbours.
    pitch: i128,
}

impl Axis {
    fn new(pad: &Pad, axis: usize, extent: usize, padded: usize) -> Self {
        let (low, pitch) = (i128::from(pad.low[axis]), pad.interior[axis] as i128 + 1);
        // The first element whose place is `place` or later.
        let first_from = |place: i128| {
            let distance = place - low;
            (distance.div_euclid(pitch) + i128::from(distance.rem_euclid(pitch) > 0)).clamp(0, extent as i128) as usize
        };
        Axis { extent, taken: first_from(0)..first_from(padded as i128), low, pitch }
    }

    /// The place of an element that is not cropped.
    fn place(&self, element: usize) -> usize {
        (self.low + element as i128 * self.pitch) as usize
    }

    /// The element whose place this is, if one's is.
    fn source(&self, place: usize) -> Option<usize> {
        let distance = place as i128 - self.low;
        let element = usize::try_from(distance / self.pitch).ok()?;
        (distance % self.pitch == 0 && self.taken.contains(&element)).then_some(element)
    }
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;
    use crate::DType;
    use crate::testing::{iota, numbers, refusal, run, tensor, ty};

    fn pad(low: &[i64], high: &[i64], interior: &[usize]) -> Pad {
        Pad { low: low.to_vec(), high: high.to_vec(), interior: interior.to_vec() }
    }

    #[test]
    fn surrounds_every_type() {
        for dtype in DType::ALL {
            let x = [tensor(dtype, &[1, 2], &[0.0, 1.0]), Tensor::scalar_of(dtype, 1.0)];
            let y = run(pad(&[1, 0], &[0, 1], &[0, 1]), &x).unwrap();
            assert_eq!(numbers(&y), [1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0], "{dtype}");
        }
    }

    #[test]
    fn every_mixture_agrees_with_the_definition() {
        let value = Tensor::scalar_of(DType::I8, -1.0);
        for (n, inner) in [(0, 1), (1, 1), (4, 1), (4, 3)] {
            let x = iota(DType::I8, &[2, n, inner]);
            for low in -3..=3i64 {
                for high in -3..=3i64 {
                    for interior in 0..3usize {
                        let gaps = n.saturating_sub(1) * interior;
                        let padded = (n + gaps) as i64 + low + high;
                        let op = pad(&[0, low, 0], &[1, high, 0], &[0, interior, 0]);
                        if padded < 0 {
                            refusal(op, &[x.ty().clone(), value.ty().clone()]);
                            continue;
                        }
                        let mut expected = vec![-1.0; 3 * padded as usize * inner];
                        for outer in 0..2 {
                            for i in 0..n {
                                let place = low + (i * (interior + 1)) as i64;
                                if (0..padded).contains(&place) {
                                    for j in 0..inner {
                                        expected[(outer * padded as usize + place as usize) * inner + j] =
                                            ((outer * n + i) * inner + j) as f64 % 16.0;
                                    }
                                }
                            }
                        }
                        assert_eq!(numbers(&run(op.clone(), &[x.clone(), value.clone()]).unwrap()), expected, "{op:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn outer_axes_crop_and_spread_too() {
        let x = [tensor(DType::U4, &[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), Tensor::scalar_of(DType::U4, 9.0)];
        let y = run(pad(&[-1, 1], &[0, -1], &[1, 0]), &x).unwrap();
        assert_eq!(y.shape().dims(), [4, 2]);
        assert_eq!(numbers(&y), [9.0, 9.0, 9.0, 3.0, 9.0, 9.0, 9.0, 5.0]);
        assert_eq!(numbers(&run(pad(&[], &[], &[]), &[x[1].clone(), x[1].clone()]).unwrap()), [9.0]);
    }

    #[test]
    fn refuses_what_cannot_be() {
        let (x, value) = (ty(DType::F32, &[4]), ty(DType::F32, &[]));
        assert_eq!(
            refusal(pad(&[-3], &[-2], &[0]), &[x.clone(), value.clone()]),
            "operand 0 has shape f32[4], but must have enough elements to crop by low -3 and high -2 along axis 0"
        );
        for (low, high, interior) in
            [(i64::MIN, i64::MIN, 0), (i64::MAX, i64::MAX, usize::MAX), (i64::MIN, 0, 0), (0, 0, usize::MAX)]
        {
            refusal(pad(&[low], &[high], &[interior]), &[x.clone(), value.clone()]);
        }
        refusal(pad(&[0], &[0, 0], &[0]), &[x.clone(), value]);
        refusal(pad(&[0], &[0], &[0]), &[x.clone(), ty(DType::F16, &[])]);
        refusal(pad(&[0], &[0], &[0]), &[x, ty(DType::F32, &[1])]);
    }

    #[test]
    fn huge_paddings_may_cancel() {
        let x = [iota(DType::F32, &[4]), Tensor::scalar_of(DType::F32, -1.0)];
        let y = run(pad(&[i64::MAX], &[-i64::MAX], &[0]), &x).unwrap();
        assert_eq!(numbers(&y), [-1.0; 4]);
    }
}
