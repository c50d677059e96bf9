//! Quantisation of floats to integers.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::elementwise::{map, zip};
use super::layer_norm::widened;
use super::{Binary, BinaryFn, Cast, Unary, UnaryFn, cast, float};
use crate::op::{OpError, Operator, OutputTypes, Work, one};
use crate::{DType, Graph, GraphError, Tensor, TensorType, ValueId, Values};

/// `saturate(round(x / scale) + zero point)`, rounding ties to even. Operands: x, scale (x's type), then the zero
/// point (type `to`) if `zero`; both broadcast to x. Also rounds to 8-bit floats, saturating.
///
/// Computed in binary32 (binary64 for f64) with a division, not a product with the reciprocal. NaN becomes 0 as an
/// integer and stays NaN as an 8-bit float.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Quantize {
    /// The type quantised to.
    pub to: DType,
    /// There is an operand with the zero point.
    pub zero: bool,
}

/// Whether tensors are quantised to this type: an integer of at most 16 bits, i32, or an 8-bit float.
pub(super) fn is_quantized(dtype: DType) -> bool {
    match dtype {
        DType::F8E4M3 | DType::F8E5M2 | DType::I32 => true,
        _ => dtype.is_integer() && dtype.bits() <= 16,
    }
}

/// Least and greatest finite value of a quantised type.
fn range(dtype: DType) -> (f64, f64) {
    match dtype {
        DType::F8E4M3 => (-448.0, 448.0),
        DType::F8E5M2 => (-57344.0, 57344.0),
        _ => dtype.integer_range().map_or((0.0, 1.0), |(low, high)| (low as f64, high as f64)),
    }
}

impl Operator for Quantize {
    const NAMES: &'static [&'static str] = &["quantize"];

    fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        let count = 2 + usize::from(self.zero);
        if inputs.len() != count {
            return Err(OpError::Arity { expected: count.to_string(), actual: inputs.len() });
        }
        if !is_quantized(self.to) {
            let to = self.to;
            return Err(OpError::Attribute(format!(
                "cannot quantise to {to}, only to integers of at most 16 bits, i32 and 8-bit floats"
            )));
        }
        float::float_operand(inputs, 0)?;
        float::broadcasts_to_first(inputs, 1)?;
        if let Some(zero) = inputs.get(2) {
            if zero.dtype != self.to {
                return Err(OpError::dtype(2, format!("{} as the result", self.to), zero.dtype));
            }
            if !zero.shape.broadcasts_to(&inputs[0].shape) {
                return Err(OpError::shape(2, format!("a shape that broadcasts to {}", inputs[0].shape), zero));
            }
        }
        one(self.to, inputs[0].shape.clone())
    }

    fn eval(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        let (x, scale, out) = (inputs[0], inputs[1], &outputs[0]);
        let (low, high) = range(self.to);
        let integer = !self.to.is_float();
        macro_rules! run {
            ($Class:ident, $float:ident, $x:expr, $scale:expr, $round:path) => {{
                let (a, b) = (($x, x.shape()), ($scale, scale.shape()));
                let mut ratio: Vec<$float> = if integer {
                    zip(a, b, &out.shape, |x: $float, scale: $float| $round(x / scale))
                } else {
                    zip(a, b, &out.shape, |x, scale| x / scale)
                };
                if let Some(zero) = inputs.get(2) {
                    if let Values::$Class(zeros) = cast::convert(zero.widen()?, x.dtype()) {
                        let ratios = (&ratio[..], &out.shape);
                        ratio = zip(ratios, (&zeros[..], zero.shape()), &out.shape, |x, zero| x + zero);
                    }
                }
                let (low, high) = (low as $float, high as $float);
                Values::$Class(Cow::Owned(map(&ratio, |x: $float| x.clamp(low, high))))
            }};
        }
        let values = match (x.widen()?, scale.widen()?) {
            (Values::F32(x), Values::F32(scale)) => run!(F32, f32, &x[..], &scale[..], float::round),
            (Values::F64(x), Values::F64(scale)) => run!(F64, f64, &x[..], &scale[..], f64::round_ties_even),
            _ => return Err(OpError::dtype(1, format!("{} as operand 0", x.dtype()), scale.dtype())),
        };
        Ok(vec![Tensor::narrow(out.clone(), cast::convert(values, self.to))])
    }

    fn work(&self, inputs: &[&TensorType], _outputs: &[TensorType]) -> Work {
        // Division, rounding, two bounds, and the zero point for each element.
        Work::elementwise((4 + u64::from(self.zero)) * inputs[0].shape.count() as u64)
    }

    fn decompose(&self, graph: &mut Graph, inputs: &[ValueId]) -> Option<Result<Vec<ValueId>, GraphError>> {
        Some((|| {
            let wide = widened(graph, &inputs[..2])?;
            let dtype = graph.ty(wide[0]).dtype;
            let mut y = graph.add(Binary(BinaryFn::Div), &wide)?;
            if !self.to.is_float() {
                y = graph.add(Unary(UnaryFn::Round), &[y])?;
            }
            if let Some(&zero) = inputs.get(2) {
                let zero = graph.add(Cast { to: dtype }, &[zero])?;
                y = graph.add(Binary(BinaryFn::Add), &[y, zero])?;
            }
            let (low, high) = range(self.to);
            for (function, bound) in [(BinaryFn::Max, low), (BinaryFn::Min, high)] {
                let bound = graph.constant(Tensor::scalar_of(dtype, bound));
                y = graph.add(Binary(function), &[y, bound])?;
            }
            Ok(vec![graph.add(Cast { to: self.to }, &[y])?])
        })())
    }
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;
    use crate::testing::{FLOATS, agrees, elements, spread, ty};

    fn quantize(to: DType, x: &[f32], scale: f32, zero: Option<f64>) -> Vec<f64> {
        let (x, scale) = (elements(&[x.len()], x.to_vec()), Tensor::scalar(scale));
        let op = Quantize { to, zero: zero.is_some() };
        let zero = zero.map(|zero| Tensor::scalar_of(to, zero));
        let operands: Vec<&Tensor> = [&x, &scale].into_iter().chain(&zero).collect();
        op.eval(&operands, &[ty(to, x.shape())]).unwrap()[0].to_f64s().unwrap()
    }

    #[test]
    fn rounds_ties_to_even_and_saturates() {
        let x = [1.0, 3.0, 5.0, -1.0, 1e9, -1e9, f32::NAN, f32::INFINITY];
        assert_eq!(quantize(DType::I8, &x, 2.0, None), [0.0, 2.0, 2.0, 0.0, 127.0, -128.0, 0.0, 127.0]);
        assert_eq!(quantize(DType::U4, &x, 2.0, Some(3.0)), [3.0, 5.0, 5.0, 3.0, 15.0, 0.0, 0.0, 15.0]);
        assert_eq!(quantize(DType::I4, &x, 2.0, Some(-7.0)), [-7.0, -5.0, -5.0, -7.0, 7.0, -8.0, 0.0, 7.0]);
        assert_eq!(quantize(DType::I32, &x[4..6], 0.1, None), [2_147_483_647.0, -2_147_483_648.0]);
    }

    #[test]
    fn divides_rather_than_multiplying_by_the_reciprocal() {
        // In binary32 52.5 / 0.7 is just above 75, and 1 / 0.7 is rounded down.
        let x = [0.7f32 * 0.5, 0.7 * 1.5, 0.7 * 2.5, 0.7 * 7.5];
        let exact: Vec<f64> = x.iter().map(|&x| f64::from((x / 0.7).round_ties_even())).collect();
        assert_eq!(quantize(DType::I8, &x, 0.7, None), exact);
    }

    #[test]
    fn eight_bit_floats_saturate() {
        let x = [1e9, -1e9, 0.3, f32::NEG_INFINITY];
        assert_eq!(quantize(DType::F8E4M3, &x, 1.0, None), [448.0, -448.0, 0.3125, -448.0]);
        assert_eq!(quantize(DType::F8E5M2, &x, 1.0, None), [57344.0, -57344.0, 0.3125, -57344.0]);
        assert!(quantize(DType::F8E4M3, &[f32::NAN], 1.0, None)[0].is_nan());
    }

    #[test]
    fn agrees_with_its_decomposition() {
        for to in DType::ALL.into_iter().filter(|&dtype| is_quantized(dtype)) {
            for dtype in FLOATS {
                let x = spread(dtype, &[3, 4, 65], 1);
                let scale = spread(dtype, &[4, 1], 2);
                let zero = spread(to, &[65], 3);
                agrees(Quantize { to, zero: false }, &[x.clone(), scale.clone()], 0.0);
                agrees(Quantize { to, zero: true }, &[x, scale, zero], 0.0);
            }
        }
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let op = Quantize { to: DType::I8, zero: true };
        let (x, scale, zero) = (ty(DType::F32, &[2, 3]), ty(DType::F32, &[]), ty(DType::I8, &[3]));
        assert_eq!(op.infer(&[&x, &scale, &zero]).unwrap()[0], ty(DType::I8, &[2, 3]));
        assert!(matches!(op.infer(&[&x, &scale]), Err(OpError::Arity { .. })));
        assert!(matches!(op.infer(&[&zero, &scale, &zero]), Err(OpError::DType { operand: 0, .. })));
        assert!(matches!(op.infer(&[&x, &zero, &zero]), Err(OpError::DType { operand: 1, .. })));
        assert!(matches!(op.infer(&[&x, &scale, &scale]), Err(OpError::DType { operand: 2, .. })));
        assert!(matches!(op.infer(&[&x, &scale, &ty(DType::I8, &[2])]), Err(OpError::Shape { operand: 2, .. })));
        for to in [DType::I64, DType::Bool, DType::F16] {
            assert!(matches!(Quantize { to, zero: false }.infer(&[&x, &scale]), Err(OpError::Attribute(_))));
        }
    }
}
