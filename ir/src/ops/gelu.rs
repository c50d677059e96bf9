//! Gaussian error linear unit.

use serde::{Deserialize, Serialize};

use super::elementwise::map;
use super::float::{self, Float, FloatKernel};
use super::{Binary, BinaryFn, Unary, UnaryFn};
use crate::op::{OpError, Operator, OutputTypes, Work, operands};
use crate::{Graph, GraphError, Tensor, TensorType, ValueId};

/// `x · Φ(x)`, with Φ the normal distribution function: by erf, or by the tanh approximation `0.5 x (1 +
/// tanh(sqrt(2/π) (x + 0.044715 x³)))`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Gelu {
    /// Use the tanh approximation.
    pub tanh: bool,
}

/// sqrt(2/π).
const SQRT_2_OVER_PI: f64 = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
/// The factor of x³ in the tanh approximation.
const CUBIC: f64 = 0.044715;

impl Operator for Gelu {
    const NAMES: &'static [&'static str] = &["gelu"];

    fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        let [_] = operands(inputs)?;
        float::float_operand(inputs, 0)?;
        float::as_first(inputs)
    }

    fn keeps_excess_precision(&self) -> bool {
        true
    }

    fn eval(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        float::evaluate(self, inputs, outputs)
    }

    fn work(&self, inputs: &[&TensorType], _outputs: &[TensorType]) -> Work {
        let steps = if self.tanh { 9 } else { 5 };
        Work::elementwise(steps * inputs[0].shape.count() as u64)
    }

    fn decompose(&self, graph: &mut Graph, inputs: &[ValueId]) -> Option<Result<Vec<ValueId>, GraphError>> {
        Some((|| {
            let x = inputs[0];
            let dtype = graph.ty(x).dtype;
            let number = |graph: &mut Graph, value| graph.constant(Tensor::scalar_of(dtype, value));
            let (one, half) = (number(graph, 1.0), number(graph, 0.5));
            let curve = if self.tanh {
                let cubic = number(graph, CUBIC);
                let factor = number(graph, SQRT_2_OVER_PI);
                let square = graph.add(Binary(BinaryFn::Mul), &[x, x])?;
                let cube = graph.add(Binary(BinaryFn::Mul), &[square, x])?;
                let bent = graph.add(Binary(BinaryFn::Mul), &[cube, cubic])?;
                let sum = graph.add(Binary(BinaryFn::Add), &[x, bent])?;
                let argument = graph.add(Binary(BinaryFn::Mul), &[sum, factor])?;
                graph.add(Unary(UnaryFn::Tanh), &[argument])?
            } else {
                let root = number(graph, std::f64::consts::SQRT_2);
                let argument = graph.add(Binary(BinaryFn::Div), &[x, root])?;
                graph.add(Unary(UnaryFn::Erf), &[argument])?
            };
            let raised = graph.add(Binary(BinaryFn::Add), &[curve, one])?;
            let scaled = graph.add(Binary(BinaryFn::Mul), &[x, raised])?;
            Ok(vec![graph.add(Binary(BinaryFn::Mul), &[scaled, half])?])
        })())
    }
}

impl FloatKernel for Gelu {
    fn run<F: Float>(&self, _inputs: &[&Tensor], values: &[&[F]], _out: &TensorType) -> Result<Vec<F>, OpError> {
        let (one, half) = (F::of(1.0), F::of(0.5));
        Ok(if self.tanh {
            let (cubic, factor) = (F::of(CUBIC), F::of(SQRT_2_OVER_PI));
            map(values[0], |x: F| x * (((x + x * x * x * cubic) * factor).tanh() + one) * half)
        } else {
            let root = F::of(std::f64::consts::SQRT_2);
            map(values[0], |x: F| x * ((x / root).erf() + one) * half)
        })
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
    fn follows_the_normal_distribution() {
        let x = elements(&[4], vec![0.0f64, 1.0, -1.0, 40.0]);
        // Φ(1) = 0.841344746068543.
        let exact = [0.0, 0.841_344_746_068_543, -0.158_655_253_931_457, 40.0];
        for (tanh, tolerance) in [(false, 1e-15), (true, 4e-4)] {
            let y = Gelu { tanh }.eval(&[&x], &[x.ty().clone()]).unwrap()[0].to_f64s().unwrap();
            for (y, exact) in y.into_iter().zip(exact) {
                assert!((y - exact).abs() <= tolerance, "{y} is not {exact}");
            }
        }
    }

    #[test]
    fn agrees_with_its_decomposition() {
        for tanh in [false, true] {
            for dtype in [DType::F64, DType::F32] {
                agrees(Gelu { tanh }, &[spread(dtype, &[37, 53], 1)], 0.0);
            }
            // The decomposition rounds to the narrow type after each of its steps.
            agrees(Gelu { tanh }, &[spread(DType::F16, &[37, 53], 1)], 4.0 * 2.0f64.powi(-11));
            agrees(Gelu { tanh }, &[spread(DType::BF16, &[37, 53], 1)], 4.0 * 2.0f64.powi(-8));
        }
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let x = ty(DType::I32, &[2]);
        assert!(matches!(Gelu { tanh: true }.infer(&[&x]), Err(OpError::DType { operand: 0, .. })));
        assert!(matches!(Gelu { tanh: true }.infer(&[]), Err(OpError::Arity { .. })));
    }
}
