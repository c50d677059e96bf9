//! Normalisation to root mean square 1.

use serde::{Deserialize, Serialize};

use super::elementwise::zip;
use super::float::{self, Float, FloatKernel};
use super::layer_norm::{check, divide_by_rms, narrowed, normalise, scale_to_unit_rms, widened};
use super::{Binary, BinaryFn};
use crate::op::{OpError, Operator, OutputTypes, Work};
use crate::{Graph, GraphError, Real, Tensor, TensorType, ValueId};

/// Over all axes from `axis` on: `x / sqrt(mean(x²) + epsilon) · scale`, computed in binary32 or wider. Operands: x,
/// scale, which broadcasts to x.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RmsNorm {
    /// First normalised axis.
    pub axis: usize,
    /// Added to the mean square.
    pub epsilon: Real,
}

impl Operator for RmsNorm {
    const NAMES: &'static [&'static str] = &["rms_norm"];

    fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        check(inputs, 2, self.axis, self.epsilon)?;
        float::as_first(inputs)
    }

    fn eval(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        float::evaluate(self, inputs, outputs)
    }

    fn work(&self, inputs: &[&TensorType], _outputs: &[TensorType]) -> Work {
        // Square, sum, division and scale for each element.
        Work::elementwise(4 * inputs[0].shape.count() as u64)
    }

    fn decompose(&self, graph: &mut Graph, inputs: &[ValueId]) -> Option<Result<Vec<ValueId>, GraphError>> {
        Some((|| {
            let dtype = graph.ty(inputs[0]).dtype;
            let wide = widened(graph, inputs)?;
            let axes = (self.axis..graph.shape(wide[0]).rank()).collect();
            let y = divide_by_rms(graph, wide[0], axes, self.epsilon)?;
            let y = graph.add(Binary(BinaryFn::Mul), &[y, wide[1]])?;
            Ok(vec![narrowed(graph, y, dtype)?])
        })())
    }
}

impl FloatKernel for RmsNorm {
    fn run<F: Float>(&self, inputs: &[&Tensor], values: &[&[F]], out: &TensorType) -> Result<Vec<F>, OpError> {
        let normalised = normalise(values[0], out, self.axis, |row| scale_to_unit_rms(row, self.epsilon));
        Ok(zip((&normalised, &out.shape), (values[1], inputs[1].shape()), &out.shape, |x, scale| x * scale))
    }
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;
    use crate::DType;
    use crate::testing::{FLOATS, agrees, elements, spread, ty};

    #[test]
    fn normalises_to_root_mean_square_1() {
        let op = RmsNorm { axis: 0, epsilon: Real(0.0) };
        let x = elements(&[4], vec![1.0f64, -1.0, 5.0, 3.0]);
        let y = op.eval(&[&x, &elements(&[1], vec![1.5f64])], &[x.ty().clone()]).unwrap();
        assert_eq!(y[0].to_f64s().unwrap(), [0.5, -0.5, 2.5, 1.5]);
    }

    #[test]
    fn agrees_with_its_decomposition() {
        for dtype in FLOATS {
            for axis in 0..3 {
                let (x, scale) = (spread(dtype, &[2, 7, 33], 1), spread(dtype, &[7, 1], 2));
                agrees(RmsNorm { axis, epsilon: Real(1e-6) }, &[x, scale], 0.0);
            }
        }
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let op = RmsNorm { axis: 1, epsilon: Real(1e-5) };
        let x = ty(DType::F32, &[2, 3]);
        assert!(matches!(op.infer(&[&x]), Err(OpError::Arity { .. })));
        assert!(matches!(op.infer(&[&x, &ty(DType::F32, &[2])]), Err(OpError::Shape { operand: 1, .. })));
        assert!(matches!(RmsNorm { axis: 2, ..op }.infer(&[&x, &x]), Err(OpError::Shape { operand: 0, .. })));
        let negative = RmsNorm { epsilon: Real(-1.0), ..op };
        assert!(matches!(negative.infer(&[&x, &x]), Err(OpError::Attribute(_))));
    }
}
