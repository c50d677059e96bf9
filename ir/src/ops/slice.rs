//! Regular selection along every axis.

use serde::{Deserialize, Serialize};

use crate::op::{OpError, Operator, OutputTypes, Work, one, operands};
use crate::{Shape, Tensor, TensorType};

/// Element `i` of an axis of the result is element `start + i·step` of that axis of the operand. A view.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slice {
    /// First element taken of each axis (any value where the size is 0).
    pub starts: Vec<usize>,
    /// Distance between elements taken of each axis; negative ones walk backwards.
    pub steps: Vec<i64>,
    /// Number of elements taken of each axis.
    pub sizes: Vec<usize>,
}

impl Slice {
    /// The axis that it cuts of a value of this shape, if that is one, and the others stay whole: of it, elements that follow
    /// one another are taken.
    pub fn cut_axis(&self, shape: &Shape) -> Option<usize> {
        let mut cut = (0..shape.rank()).filter(|&axis| self.sizes[axis] != shape[axis]);
        let axis = cut.next()?;
        let plain = (0..shape.rank()).all(|axis| self.steps[axis] == 1 || self.sizes[axis] == 1);
        (cut.next().is_none() && plain).then_some(axis)
    }
}

impl Operator for Slice {
    const NAMES: &'static [&'static str] = &["slice"];

    fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        let [x] = operands(inputs)?;
        let rank = x.shape.rank();
        if [self.starts.len(), self.steps.len(), self.sizes.len()] != [rank; 3] {
            let expected = format!("as many axes as there are starts {:?}, steps {:?} and sizes {:?}", self.starts, self.steps, self.sizes);
            return Err(OpError::shape(0, expected, x));
        }
        for axis in 0..rank {
            let (start, step, size) = (self.starts[axis], self.steps[axis], self.sizes[axis]);
            if step == 0 {
                return Err(OpError::Attribute(format!("the step along axis {axis} is 0, but must lead somewhere")));
            }
            if size == 0 {
                continue;
            }
            // A start within the axis keeps the sum within 128 bits, whatever step and size are.
            let last = |start: usize| start as i128 + (size - 1) as i128 * i128::from(step);
            if start >= x.shape[axis] || !(0..x.shape[axis] as i128).contains(&last(start)) {
                let expected = format!("an axis {axis} that holds {size} elements from {start} in steps of {step}");
                return Err(OpError::shape(0, expected, x));
            }
        }
        one(x.dtype, Shape::new(self.sizes.iter().copied())?)
    }

    fn eval(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        let [x] = operands(inputs)?;
        let own = x.shape().strides();
        let mut offset = 0;
        let mut strides = vec![0; own.len()];
        // Starts and steps mean something only where elements are taken; elsewhere they may be huge.
        if !self.sizes.contains(&0) {
            for axis in 0..own.len() {
                offset += (self.starts[axis] * own[axis]) as isize;
                if self.sizes[axis] > 1 {
                    strides[axis] = self.steps[axis] as isize * own[axis] as isize;
                }
            }
        }
        Ok(vec![super::movement::read_strided(x, offset, &strides, &outputs[0])?])
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

    fn slice(starts: &[usize], steps: &[i64], sizes: &[usize]) -> Slice {
        Slice { starts: starts.to_vec(), steps: steps.to_vec(), sizes: sizes.to_vec() }
    }

    #[test]
    fn steps_both_ways_in_every_type() {
        for dtype in DType::ALL {
            let x = tensor(dtype, &[2, 3], &[0.0, 1.0, 1.0, 1.0, 0.0, 0.0]);
            let y = run(slice(&[1, 2], &[-1, -2], &[2, 2]), &[x]).unwrap();
            assert_eq!(numbers(&y), [0.0, 1.0, 1.0, 0.0], "{dtype}");
        }
    }

    #[test]
    fn four_bit_slices_may_start_within_a_byte() {
        let y = run(slice(&[3], &[1], &[3]), &[tensor(DType::I4, &[7], &[0.0, 1.0, 2.0, -3.0, 4.0, -5.0, 6.0])]).unwrap();
        assert_eq!(numbers(&y), [-3.0, 4.0, -5.0]);
    }

    #[test]
    fn nothing_is_taken_from_anywhere() {
        let y = run(slice(&[usize::MAX, 0], &[i64::MIN, 1], &[0, 3]), &[iota(DType::F32, &[2, 3])]).unwrap();
        assert_eq!(y.shape().dims(), [0, 3]);
    }

    #[test]
    fn a_single_element_may_have_any_step() {
        let y = run(slice(&[1], &[i64::MIN], &[1]), &[iota(DType::U16, &[3])]).unwrap();
        assert_eq!(numbers(&y), [1.0]);
    }

    #[test]
    fn refuses_what_lies_outside() {
        let x = ty(DType::F32, &[4]);
        assert_eq!(
            refusal(slice(&[1], &[2], &[3]), std::slice::from_ref(&x)),
            "operand 0 has shape f32[4], but must have an axis 0 that holds 3 elements from 1 in steps of 2"
        );
        for (start, step, size) in
            [(4, 1, 1), (0, -1, 2), (usize::MAX, i64::MAX, usize::MAX), (3, i64::MIN, usize::MAX), (0, 1, usize::MAX)]
        {
            refusal(slice(&[start], &[step], &[size]), std::slice::from_ref(&x));
        }
        refusal(slice(&[0], &[0], &[1]), std::slice::from_ref(&x));
        refusal(slice(&[0, 0], &[1], &[1]), &[x]);
    }
}
