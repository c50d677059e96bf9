//! Repetition along axes of extent 1.

use serde::{Deserialize, Serialize};

use crate::op::{OpError, Operator, OutputTypes, Work, one, operands};
use crate::{Shape, Tensor, TensorType};

/// Repeats a tensor until it has `shape`, by NumPy's rules. A view: never moves data on a machine with strided
/// access.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Broadcast {
    /// The shape broadcast to.
    pub shape: Shape,
}

impl Operator for Broadcast {
    const NAMES: &'static [&'static str] = &["broadcast"];

    fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        let [x] = operands(inputs)?;
        if !x.shape.broadcasts_to(&self.shape) {
            return Err(OpError::shape(0, format!("a shape that broadcasts to {}", self.shape), x));
        }
        one(x.dtype, self.shape.clone())
    }

    fn eval(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        let [x] = operands(inputs)?;
        let strides = x.shape().broadcast_strides(&self.shape);
        let strides: Vec<isize> = strides.into_iter().map(|stride| stride as isize).collect();
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

    fn to(dims: &[usize]) -> Broadcast {
        Broadcast { shape: Shape::new(dims.iter().copied()).unwrap() }
    }

    #[test]
    fn repeats_in_every_type() {
        for dtype in DType::ALL {
            let x = tensor(dtype, &[2, 1], &[0.0, 1.0]);
            let y = run(to(&[2, 2, 3]), &[x]).unwrap();
            assert_eq!(numbers(&y), [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0], "{dtype}");
        }
    }

    #[test]
    fn scalars_and_empty_results() {
        assert_eq!(numbers(&run(to(&[3]), &[tensor(DType::F32, &[], &[7.0])]).unwrap()), [7.0, 7.0, 7.0]);
        assert_eq!(numbers(&run(to(&[]), &[tensor(DType::U4, &[], &[7.0])]).unwrap()), [7.0]);
        assert!(numbers(&run(to(&[0, 3]), &[iota(DType::I4, &[1, 3])]).unwrap()).is_empty());
    }

    #[test]
    fn rows_longer_than_a_task() {
        let y = run(to(&[3, 40_000]), &[tensor(DType::I32, &[3, 1], &[1.0, 2.0, 3.0])]).unwrap();
        let expected: Vec<f64> = (0..120_000).map(|i| (i / 40_000 + 1) as f64).collect();
        assert_eq!(numbers(&y), expected);
    }

    #[test]
    fn refuses_to_shrink() {
        let message = refusal(to(&[1, 3]), &[ty(DType::F32, &[2, 3])]);
        assert_eq!(message, "operand 0 has shape f32[2,3], but must have a shape that broadcasts to [1,3]");
    }
}
