//! Conversion of quantised integers to floats.

use serde::{Deserialize, Serialize};

use crate::op::{OpError, Operator, OutputTypes};
use crate::{Tensor, TensorType};

/// `(x - zero point) · scale`. Operands: x, scale (the result's type), then the zero point (x's type) if `zero`; both
/// broadcast to x.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dequantize {
    /// There is an operand with the zero point.
    pub zero: bool,
}

impl Operator for Dequantize {
    const NAMES: &'static [&'static str] = &["dequantize"];

    fn infer(&self, _inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }

    fn eval(&self, _inputs: &[&Tensor], _outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }
}
