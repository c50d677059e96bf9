//! Rotary position embedding.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::float::{self, Float, FloatKernel};
use super::{Binary, BinaryFn, Concat, Reshape, Slice};
use crate::op::{OpError, Operator, OutputTypes, Work, operands, same_dtype};
use crate::{Graph, GraphError, Shape, Tensor, TensorType, ValueId};

/// Rotates pairs of the last axis of x by given angles. Operands: x `[.., d]`, cos and sin, which broadcast to `[..,
/// d/2]`. The pair `i` is elements `(i, i + d/2)`, or `(2i, 2i + 1)` if `interleaved`: `(a cos - b sin, b cos + a
/// sin)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Rope {
    /// Pairs are neighbours.
    pub interleaved: bool,
}

/// The shape of the angles for an x of the given shape: half its last extent. `None` if that is odd.
fn half_shape(x: &Shape) -> Option<Shape> {
    let (last, lead) = x.split_last()?;
    if last % 2 == 0 { Shape::new(lead.iter().copied().chain([last / 2])).ok() } else { None }
}

impl Operator for Rope {
    const NAMES: &'static [&'static str] = &["rope"];

    fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        let [x, _, _] = operands(inputs)?;
        float::float_operand(inputs, 0)?;
        let half = half_shape(&x.shape).ok_or_else(|| OpError::shape(0, "an even last dimension", x))?;
        for operand in 1..3 {
            same_dtype(inputs, operand)?;
            if !inputs[operand].shape.broadcasts_to(&half) {
                let expected = format!("a shape that broadcasts to {half}, half of operand 0");
                return Err(OpError::shape(operand, expected, inputs[operand]));
            }
        }
        float::as_first(inputs)
    }

    fn eval(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        float::evaluate(self, inputs, outputs)
    }

    fn work(&self, inputs: &[&TensorType], _outputs: &[TensorType]) -> Work {
        // Two products and a sum for each element.
        Work::elementwise(3 * inputs[0].shape.count() as u64)
    }

    fn decompose(&self, graph: &mut Graph, inputs: &[ValueId]) -> Option<Result<Vec<ValueId>, GraphError>> {
        Some((|| {
            let full = graph.shape(inputs[0]).clone();
            let half = half_shape(&full).unwrap_or_default();
            let rank = full.rank();
            // Interleaved pairs get an axis of their own.
            let (x, axis) = if self.interleaved {
                let paired = Shape::new(half.iter().copied().chain([2])).unwrap_or_default();
                (graph.add(Reshape { shape: paired }, &inputs[..1])?, rank)
            } else {
                (inputs[0], rank - 1)
            };
            let dims = graph.shape(x).clone();
            let part = dims[axis] / 2;
            let mut parts = [x; 2];
            for (index, value) in parts.iter_mut().enumerate() {
                let mut starts = vec![0; dims.rank()];
                starts[axis] = index * part;
                let mut sizes = dims.to_vec();
                sizes[axis] = part;
                *value = graph.add(Slice { starts, steps: vec![1; dims.rank()], sizes }, &[x])?;
                if self.interleaved {
                    *value = graph.add(Reshape { shape: half.clone() }, &[*value])?;
                }
            }
            let [a, b] = parts;
            let mut product = |a, b| graph.add(Binary(BinaryFn::Mul), &[a, b]);
            let (a_cos, b_sin) = (product(a, inputs[1])?, product(b, inputs[2])?);
            let (b_cos, a_sin) = (product(b, inputs[1])?, product(a, inputs[2])?);
            let mut rotated =
                [graph.add(Binary(BinaryFn::Sub), &[a_cos, b_sin])?, graph.add(Binary(BinaryFn::Add), &[b_cos, a_sin])?];
            if self.interleaved {
                let column = Shape::new(half.iter().copied().chain([1])).unwrap_or_default();
                for value in &mut rotated {
                    *value = graph.add(Reshape { shape: column.clone() }, &[*value])?;
                }
            }
            let y = graph.add(Concat { axis }, &rotated)?;
            Ok(vec![if self.interleaved { graph.add(Reshape { shape: full }, &[y])? } else { y }])
        })())
    }
}

impl FloatKernel for Rope {
    fn run<F: Float>(&self, inputs: &[&Tensor], values: &[&[F]], out: &TensorType) -> Result<Vec<F>, OpError> {
        let mut y = vec![F::default(); out.shape.count()];
        let half = half_shape(&out.shape).unwrap_or_default();
        let (Some((&pairs, lead)), false) = (half.split_last(), y.is_empty()) else {
            return Ok(y);
        };
        let strides = [1, 2].map(|operand| inputs[operand].shape().broadcast_strides(&half));
        let steps = [0, 1].map(|operand| strides[operand][lead.len()]);
        let rotate = |row: usize, y: &mut [F]| {
            let x = &values[0][row * 2 * pairs..][..2 * pairs];
            let mut starts = [0; 2];
            let mut rest = row;
            for axis in (0..lead.len()).rev() {
                let index = rest % lead[axis];
                rest /= lead[axis];
                for (start, strides) in starts.iter_mut().zip(&strides) {
                    *start += index * strides[axis];
                }
            }
            let (cos, sin) = (&values[1][starts[0]..], &values[2][starts[1]..]);
            for i in 0..pairs {
                let (first, second) = if self.interleaved { (2 * i, 2 * i + 1) } else { (i, i + pairs) };
                let (a, b, cos, sin) = (x[first], x[second], cos[i * steps[0]], sin[i * steps[1]]);
                y[first] = a * cos - b * sin;
                y[second] = b * cos + a * sin;
            }
        };
        let rows = float::rows_per_task(2 * pairs);
        y.par_chunks_mut(2 * pairs * rows).enumerate().for_each(|(task, y)| {
            y.chunks_mut(2 * pairs).enumerate().for_each(|(row, y)| rotate(task * rows + row, y));
        });
        Ok(y)
    }
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;
    use crate::DType;
    use crate::testing::{agrees, elements, spread, ty};

    #[test]
    fn rotates_pairs() {
        let x = elements(&[1, 4], vec![1.0f32, 2.0, 3.0, 4.0]);
        // A quarter turn of the first pair, none of the second.
        let (cos, sin) = (elements(&[2], vec![0.0f32, 1.0]), elements(&[2], vec![1.0f32, 0.0]));
        for (interleaved, expected) in [(false, [-3.0, 2.0, 1.0, 4.0]), (true, [-2.0, 1.0, 3.0, 4.0])] {
            let y = Rope { interleaved }.eval(&[&x, &cos, &sin], &[x.ty().clone()]).unwrap();
            assert_eq!(y[0].to_f64s().unwrap(), expected);
        }
    }

    #[test]
    fn agrees_with_its_decomposition() {
        for interleaved in [false, true] {
            for (dtype, tolerance) in
                [(DType::F64, 0.0), (DType::F32, 0.0), (DType::F16, 2.0f64.powi(-9)), (DType::BF16, 2.0f64.powi(-6))]
            {
                let x = spread(dtype, &[2, 3, 5, 8], 1);
                let (cos, sin) = (spread(dtype, &[2, 1, 5, 4], 2), spread(dtype, &[5, 1], 3));
                agrees(Rope { interleaved }, &[x, cos, sin], tolerance);
            }
        }
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let op = Rope { interleaved: false };
        let x = ty(DType::F32, &[2, 6]);
        let angles = ty(DType::F32, &[3]);
        assert!(op.infer(&[&x, &angles, &angles]).is_ok());
        assert!(matches!(op.infer(&[&angles, &angles, &angles]), Err(OpError::Shape { operand: 0, .. })));
        assert!(matches!(op.infer(&[&x, &angles, &x]), Err(OpError::Shape { operand: 2, .. })));
        let half = ty(DType::F16, &[3]);
        assert!(matches!(op.infer(&[&x, &half, &angles]), Err(OpError::DType { operand: 1, .. })));
        let scalar = ty(DType::F32, &[]);
        assert!(matches!(op.infer(&[&scalar, &scalar, &scalar]), Err(OpError::Shape { operand: 0, .. })));
    }
}
