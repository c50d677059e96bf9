//! Conversion of quantised integers to floats.

use serde::{Deserialize, Serialize};

use super::elementwise::{map, zip};
use super::layer_norm::{narrowed, widened};
use super::quantize::is_quantized;
use super::{Binary, BinaryFn, cast, float};
use crate::op::{OpError, Operator, OutputTypes, Work, one};
use crate::{DType, Graph, GraphError, NumberClass, Tensor, TensorType, ValueId, Values};

/// `(x - zero point) · scale`. Operands: x, scale (the result's type), then the zero point (x's type) if `zero`; both
/// broadcast to x.
///
/// Integers are subtracted in i32 (wrapping) and 8-bit floats in f32; the product is computed in binary32 (binary64
/// for f64) and rounded to the result's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dequantize {
    /// There is an operand with the zero point.
    pub zero: bool,
}

impl Operator for Dequantize {
    const NAMES: &'static [&'static str] = &["dequantize"];

    fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        let count = 2 + usize::from(self.zero);
        if inputs.len() != count {
            return Err(OpError::Arity { expected: count.to_string(), actual: inputs.len() });
        }
        let (x, scale) = (inputs[0], inputs[1]);
        if !is_quantized(x.dtype) {
            return Err(OpError::dtype(0, "an integer of at most 16 bits, i32 or an 8-bit float", x.dtype));
        }
        float::float_operand(inputs, 1)?;
        if !scale.shape.broadcasts_to(&x.shape) {
            return Err(OpError::shape(1, format!("a shape that broadcasts to {}", x.shape), scale));
        }
        if self.zero {
            float::broadcasts_to_first(inputs, 2)?;
        }
        one(scale.dtype, x.shape.clone())
    }

    fn eval(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        let (x, scale, out) = (inputs[0], inputs[1], &outputs[0]);
        let zero = inputs.get(2);
        let wide = if out.dtype == DType::F64 { DType::F64 } else { DType::F32 };
        let differences = if x.dtype().is_float() {
            let x = x.widen()?;
            match (&x, zero.map(|zero| zero.widen()).transpose()?, zero) {
                (Values::F32(a), Some(Values::F32(b)), Some(zero)) => {
                    let b = (&b[..], zero.shape());
                    cast::convert(Values::F32(zip((a, &out.shape), b, &out.shape, |x, zero| x - zero).into()), wide)
                }
                _ => cast::convert(x, wide),
            }
        } else {
            let a = integers(x)?;
            let differences = match zero {
                None => a,
                Some(zero) => {
                    zip((&a, &out.shape), (&integers(zero)?, zero.shape()), &out.shape, i32::wrapping_sub)
                }
            };
            match wide {
                DType::F64 => Values::F64(map(&differences, f64::from).into()),
                _ => Values::F32(map(&differences, |x| x as f32).into()),
            }
        };
        let values = match (differences, scale.widen()?) {
            (Values::F32(a), Values::F32(b)) => {
                Values::F32(zip((&a, &out.shape), (&b, scale.shape()), &out.shape, |x, scale| x * scale).into())
            }
            (Values::F64(a), Values::F64(b)) => {
                Values::F64(zip((&a, &out.shape), (&b, scale.shape()), &out.shape, |x, scale| x * scale).into())
            }
            _ => return Err(OpError::dtype(1, "the result's float type", scale.dtype())),
        };
        Ok(vec![Tensor::narrow(out.clone(), values)])
    }

    fn work(&self, inputs: &[&TensorType], _outputs: &[TensorType]) -> Work {
        Work::elementwise((1 + u64::from(self.zero)) * inputs[0].shape.count() as u64)
    }

    fn decompose(&self, graph: &mut Graph, inputs: &[ValueId]) -> Option<Result<Vec<ValueId>, GraphError>> {
        Some((|| {
            let scale = widened(graph, &inputs[1..2])?[0];
            let x = graph.ty(inputs[0]).dtype;
            let exact = if x.is_float() { DType::F32 } else { DType::I32 };
            let mut y = narrowed(graph, inputs[0], exact)?;
            if let Some(&zero) = inputs.get(2) {
                let zero = narrowed(graph, zero, exact)?;
                y = graph.add(Binary(BinaryFn::Sub), &[y, zero])?;
            }
            let wide = graph.ty(scale).dtype;
            let y = narrowed(graph, y, wide)?;
            let y = graph.add(Binary(BinaryFn::Mul), &[y, scale])?;
            let result = graph.ty(inputs[1]).dtype;
            Ok(vec![narrowed(graph, y, result)?])
        })())
    }
}

/// The elements of an integer tensor of at most 32 bits; weights, which are 8 bits wide, take the short way.
fn integers(x: &Tensor) -> Result<Vec<i32>, OpError> {
    Ok(match (x.dtype(), x.dtype().class()) {
        (DType::I8, _) => map(&x.elements::<i8>()?, i32::from),
        (DType::U8, _) => map(x.bytes()?, i32::from),
        (DType::I32, _) => x.elements::<i32>()?.into_owned(),
        (_, NumberClass::Signed | NumberClass::Unsigned) => match x.widen()? {
            Values::Signed(v) => map(&v, |x| x as i32),
            Values::Unsigned(v) => map(&v, |x| x as i32),
            Values::F32(_) | Values::F64(_) => Vec::new(),
        },
        (dtype, _) => return Err(OpError::dtype(0, "an integer", dtype)),
    })
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;
    use crate::testing::{FLOATS, agrees, elements, spread, ty};

    #[test]
    fn subtracts_the_zero_point_before_scaling() {
        let x = elements(&[2, 2], vec![0u8, 255, 128, 7]);
        let (scale, zero) = (elements(&[2, 1], vec![0.5f32, 2.0]), elements(&[2], vec![128u8, 0]));
        let y = Dequantize { zero: true }.eval(&[&x, &scale, &zero], &[ty(DType::F32, &[2, 2])]).unwrap();
        assert_eq!(y[0].to_f64s().unwrap(), [-64.0, 127.5, 0.0, 14.0]);
    }

    #[test]
    fn agrees_with_its_decomposition() {
        for from in DType::ALL.into_iter().filter(|&dtype| is_quantized(dtype)) {
            for dtype in FLOATS {
                let (x, scale, zero) = (spread(from, &[3, 67], 1), spread(dtype, &[3, 1], 2), spread(from, &[67], 3));
                agrees(Dequantize { zero: false }, &[x.clone(), scale.clone()], 0.0);
                agrees(Dequantize { zero: true }, &[x, scale, zero], 0.0);
            }
        }
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let op = Dequantize { zero: true };
        let (x, scale) = (ty(DType::U8, &[2, 3]), ty(DType::F16, &[3]));
        assert_eq!(op.infer(&[&x, &scale, &ty(DType::U8, &[])]).unwrap()[0], ty(DType::F16, &[2, 3]));
        assert!(matches!(op.infer(&[&x, &scale]), Err(OpError::Arity { .. })));
        assert!(matches!(op.infer(&[&scale, &scale, &scale]), Err(OpError::DType { operand: 0, .. })));
        assert!(matches!(op.infer(&[&x, &x, &x]), Err(OpError::DType { operand: 1, .. })));
        assert!(matches!(op.infer(&[&x, &scale, &scale]), Err(OpError::DType { operand: 2, .. })));
        assert!(matches!(op.infer(&[&x, &ty(DType::F16, &[2]), &x]), Err(OpError::Shape { operand: 1, .. })));
        let wide = ty(DType::I64, &[2]);
        assert!(matches!(op.infer(&[&wide, &scale, &wide]), Err(OpError::DType { operand: 0, .. })));
    }
}
