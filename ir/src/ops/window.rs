//! Sliding windows as an axis of their own.

use serde::{Deserialize, Serialize};

use super::indexing::check_axis;
use crate::op::{OpError, Operator, OutputTypes, Work, one, operands};
use crate::{Shape, Tensor, TensorType};

/// Replaces `axis` of extent n by two: the positions of a window and the elements within it. Result element `[.., p,
/// e, ..]` is operand element `[.., p·step + e·dilation, ..]`; windows that would reach over the end are left out. A
/// view; convolutions and poolings are contractions and reductions over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Window {
    /// The axis that the window slides along.
    pub axis: usize,
    /// Elements in a window, at least 1.
    pub size: usize,
    /// Distance between windows, at least 1.
    pub step: usize,
    /// Distance between elements of a window, at least 1.
    pub dilation: usize,
}

impl Window {
    /// How many windows fit along an axis of `extent` elements.
    pub fn positions(&self, extent: usize) -> usize {
        let reach = self.size.saturating_sub(1).saturating_mul(self.dilation);
        // The last element of the first window has index `reach`.
        if reach < extent { (extent - 1 - reach) / self.step.max(1) + 1 } else { 0 }
    }
}

impl Operator for Window {
    const NAMES: &'static [&'static str] = &["window"];

    fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        let [x] = operands(inputs)?;
        check_axis(self.axis, 0, x)?;
        for (name, value) in [("size", self.size), ("step", self.step), ("dilation", self.dilation)] {
            if value == 0 {
                return Err(OpError::Attribute(format!("the {name} of a window is 0, but must be at least 1")));
            }
        }
        let (before, after) = (&x.shape[..self.axis], &x.shape[self.axis + 1..]);
        let windows = [self.positions(x.shape[self.axis]), self.size];
        one(x.dtype, Shape::new(before.iter().chain(&windows).chain(after).copied())?)
    }

    fn eval(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        let [x] = operands(inputs)?;
        let mut strides: Vec<isize> = x.shape().strides().into_iter().map(|stride| stride as isize).collect();
        let stride = strides[self.axis];
        let positions = outputs[0].shape[self.axis];
        // Where there is one position or element, the distance to the next means nothing and may be huge.
        strides[self.axis] = if positions > 1 { stride * self.step as isize } else { 0 };
        let dilated = if positions > 0 && self.size > 1 { stride * self.dilation as isize } else { 0 };
        strides.insert(self.axis + 1, dilated);
        Ok(vec![super::movement::read_strided(x, 0, &strides, &outputs[0])?])
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
    fn overlapping_windows_in_every_type() {
        for dtype in DType::ALL {
            let x = tensor(dtype, &[4], &[0.0, 1.0, 1.0, 0.0]);
            let y = run(Window { axis: 0, size: 2, step: 1, dilation: 1 }, &[x]).unwrap();
            assert_eq!(numbers(&y), [0.0, 1.0, 1.0, 1.0, 1.0, 0.0], "{dtype}");
        }
    }

    #[test]
    fn inner_axes_stay_together() {
        let y = run(Window { axis: 0, size: 2, step: 2, dilation: 2 }, &[iota(DType::U8, &[6, 2])]).unwrap();
        assert_eq!(y.shape().dims(), [2, 2, 2]);
        assert_eq!(numbers(&y), [0.0, 1.0, 4.0, 5.0, 4.0, 5.0, 8.0, 9.0]);
    }

    #[test]
    fn windows_over_the_end_are_left_out() {
        let window = Window { axis: 0, size: 3, step: 2, dilation: 1 };
        assert_eq!(numbers(&run(window, &[iota(DType::I8, &[4])]).unwrap()), [0.0, 1.0, 2.0]);
        assert_eq!(run(window, &[iota(DType::I8, &[2])]).unwrap().shape().dims(), [0, 3]);
        assert_eq!(run(window, &[iota(DType::I8, &[0])]).unwrap().shape().dims(), [0, 3]);
    }

    #[test]
    fn huge_distances_are_harmless() {
        let huge = usize::MAX;
        let x = [iota(DType::I8, &[3])];
        assert_eq!(numbers(&run(Window { axis: 0, size: 2, step: huge, dilation: 1 }, &x).unwrap()), [0.0, 1.0]);
        assert_eq!(numbers(&run(Window { axis: 0, size: 1, step: 1, dilation: huge }, &x).unwrap()), [0.0, 1.0, 2.0]);
        assert!(run(Window { axis: 0, size: 2, step: 1, dilation: huge }, &x).unwrap().bytes().unwrap().is_empty());
        refusal(Window { axis: 0, size: huge, step: 1, dilation: huge }, &[ty(DType::I8, &[3])]);
    }

    #[test]
    fn refuses_windows_that_do_not_move() {
        let x = ty(DType::F32, &[4]);
        let message = refusal(Window { axis: 0, size: 1, step: 0, dilation: 1 }, std::slice::from_ref(&x));
        assert_eq!(message, "the step of a window is 0, but must be at least 1");
        refusal(Window { axis: 1, size: 1, step: 1, dilation: 1 }, &[x]);
    }
}
