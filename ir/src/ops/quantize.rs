//! Quantisation of floats to integers.

use serde::{Deserialize, Serialize};

use crate::op::{OpError, Operator, OutputTypes};
use crate::{DType, Tensor, TensorType};

/// `saturate(round(x / scale) + zero point)`, rounding ties to even. Operands: x, scale (x's type), then the zero
/// point (type `to`) if `zero`; both broadcast to x. Also rounds to 8-bit floats, saturating.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Quantize {
    /// The type quantised to.
    pub to: DType,
    /// There is an operand with the zero point.
    pub zero: bool,
}

impl Operator for Quantize {
    const NAMES: &'static [&'static str] = &["quantize"];

    fn infer(&self, _inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }

    fn eval(&self, _inputs: &[&Tensor], _outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }
}
