//! Softmax along one axis.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::float::{self, Float, FloatKernel};
use super::{Binary, BinaryFn, Reduce, ReduceFn, Unary, UnaryFn};
use crate::op::{OpError, Operator, OutputTypes, Work, one, operands};
use crate::{Graph, GraphError, Tensor, TensorType, ValueId};

/// e^x divided by the sum of e^x along `axis`, computed after subtracting the maximum.
///
/// A row that is all -inf gives NaN, as dividing 0 by 0 does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Softmax {
    /// The axis summed over.
    pub axis: usize,
}

impl Operator for Softmax {
    const NAMES: &'static [&'static str] = &["softmax"];

    fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        let [x] = operands(inputs)?;
        if !x.dtype.is_float() {
            return Err(OpError::dtype(0, "a float", x.dtype));
        }
        if self.axis >= x.shape.rank() {
            return Err(OpError::shape(0, format!("an axis {}", self.axis), x));
        }
        one(x.dtype, x.shape.clone())
    }

    fn keeps_excess_precision(&self) -> bool {
        true
    }

    fn eval(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        float::evaluate(self, inputs, outputs)
    }

    fn work(&self, _inputs: &[&TensorType], outputs: &[TensorType]) -> Work {
        // Maximum, subtraction, exponential, sum and division for each element.
        Work::elementwise(5 * outputs[0].shape.count() as u64)
    }

    fn decompose(&self, graph: &mut Graph, inputs: &[ValueId]) -> Option<Result<Vec<ValueId>, GraphError>> {
        Some((|| {
            let max = graph.add(Reduce { function: ReduceFn::Max, axes: vec![self.axis] }, inputs)?;
            let shifted = graph.add(Binary(BinaryFn::Sub), &[inputs[0], max])?;
            let exp = graph.add(Unary(UnaryFn::Exp), &[shifted])?;
            let sum = graph.add(Reduce { function: ReduceFn::Sum, axes: vec![self.axis] }, &[exp])?;
            Ok(vec![graph.add(Binary(BinaryFn::Div), &[exp, sum])?])
        })())
    }
}

impl FloatKernel for Softmax {
    fn run<F: Float>(&self, _inputs: &[&Tensor], values: &[&[F]], out: &TensorType) -> Result<Vec<F>, OpError> {
        let len = out.shape[self.axis];
        let inner: usize = out.shape[self.axis + 1..].iter().product();
        let mut y = values[0].to_vec();
        if y.is_empty() {
            return Ok(y);
        }
        if inner == 1 {
            y.par_chunks_mut(len * float::rows_per_task(len))
                .for_each(|rows| rows.chunks_mut(len).for_each(|row| float::softmax_row(row, false)));
        } else {
            // Elements of one row lie apart; each is brought together, computed, and put back.
            y.par_chunks_mut(len * inner).for_each(|block| {
                let mut row = vec![F::default(); len];
                for i in 0..inner {
                    row.iter_mut().zip(block[i..].iter().step_by(inner)).for_each(|(to, &from)| *to = from);
                    float::softmax_row(&mut row, false);
                    block[i..].iter_mut().step_by(inner).zip(&row).for_each(|(to, &from)| *to = from);
                }
            });
        }
        Ok(y)
    }
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;
    use crate::DType;
    use crate::testing::{agrees, elements, spread};

    #[test]
    fn agrees_with_its_decomposition() {
        for axis in 0..3 {
            for dtype in [DType::F64, DType::F32] {
                agrees(Softmax { axis }, &[spread(dtype, &[4, 5, 37], 1)], 1e-15);
            }
            // The decomposition rounds to the narrow type after each of its steps.
            agrees(Softmax { axis }, &[spread(DType::F16, &[4, 5, 37], 1)], 4.0 * 2.0f64.powi(-11));
        }
    }

    #[test]
    fn masked_rows_are_nan() {
        let x = elements(&[2, 2], vec![f32::NEG_INFINITY, f32::NEG_INFINITY, f32::NEG_INFINITY, 3.0]);
        let y = Softmax { axis: 1 }.eval(&[&x], &[x.ty().clone()]).unwrap()[0].to_f64s().unwrap();
        assert!(y[0].is_nan() && y[1].is_nan());
        assert_eq!(y[2..], [0.0, 1.0]);
    }
}
