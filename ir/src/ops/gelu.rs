//! Gaussian error linear unit.

use serde::{Deserialize, Serialize};

use crate::op::{OpError, Operator, OutputTypes};
use crate::{Tensor, TensorType};

/// `x · Φ(x)`, with Φ the normal distribution function: by erf, or by the tanh approximation `0.5 x (1 +
/// tanh(sqrt(2/π) (x + 0.044715 x³)))`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Gelu {
    /// Use the tanh approximation.
    pub tanh: bool,
}

impl Operator for Gelu {
    const NAMES: &'static [&'static str] = &["gelu"];

    fn infer(&self, _inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }

    fn eval(&self, _inputs: &[&Tensor], _outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }
}
