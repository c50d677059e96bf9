//! Conversion between element types.

use serde::{Deserialize, Serialize};

use super::elementwise::map;
use crate::op::{OpError, Operator, OutputTypes, one, operands};
use crate::{DType, NumberClass, Tensor, TensorType, Values};

/// Converts every element to another type: floats round to nearest even, float to integer truncates and saturates,
/// integers wrap, and anything but zero is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cast {
    /// The type converted to.
    pub to: DType,
}

impl Operator for Cast {
    const NAMES: &'static [&'static str] = &["cast"];

    fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        let [x] = operands(inputs)?;
        one(self.to, x.shape.clone())
    }

    fn keeps_excess_precision(&self) -> bool {
        !matches!(self.to, DType::F16 | DType::BF16)
    }

    fn eval(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        let [x] = operands(inputs)?;
        if x.dtype() == self.to {
            return Ok(vec![x.clone()]);
        }
        Ok(vec![Tensor::narrow(outputs[0].clone(), convert(x.widen()?, self.to))])
    }
}

/// Brings values into the class of `to`, ready to be narrowed to it.
pub(crate) fn convert(values: Values<'_>, to: DType) -> Values<'static> {
    // Floats saturate at the range of the integer itself, not of the 64-bit class, or they would wrap when narrowed.
    let (low, high) = to.integer_range().unwrap_or((0, 1));
    let (low, high) = (low as f64, high as f64);
    let truth = to == DType::Bool;
    macro_rules! from_float {
        ($v:expr) => {
            match to.class() {
                NumberClass::F32 => Values::F32(map($v, |x| x as f32).into()),
                NumberClass::F64 => Values::F64(map($v, |x| x as f64).into()),
                NumberClass::Signed => Values::Signed(map($v, |x| (x as f64).clamp(low, high) as i64).into()),
                NumberClass::Unsigned if truth => Values::Unsigned(map($v, |x| u64::from(x != 0.0)).into()),
                NumberClass::Unsigned => Values::Unsigned(map($v, |x| (x as f64).clamp(low, high) as u64).into()),
            }
        };
    }
    macro_rules! from_integer {
        ($v:expr) => {
            match to.class() {
                NumberClass::F32 => Values::F32(map($v, |x| x as f32).into()),
                NumberClass::F64 => Values::F64(map($v, |x| x as f64).into()),
                NumberClass::Signed => Values::Signed(map($v, |x| x as i64).into()),
                NumberClass::Unsigned if truth => Values::Unsigned(map($v, |x| u64::from(x != 0)).into()),
                NumberClass::Unsigned => Values::Unsigned(map($v, |x| x as u64).into()),
            }
        };
    }
    match &values {
        Values::F32(v) => from_float!(&v[..]),
        Values::F64(v) => from_float!(&v[..]),
        Values::Signed(v) => from_integer!(&v[..]),
        Values::Unsigned(v) => from_integer!(&v[..]),
    }
}
