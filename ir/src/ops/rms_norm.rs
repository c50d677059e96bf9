//! Normalisation to root mean square 1.

use serde::{Deserialize, Serialize};

use crate::op::{OpError, Operator, OutputTypes};
use crate::{Real, Tensor, TensorType};

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

    fn infer(&self, _inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }

    fn eval(&self, _inputs: &[&Tensor], _outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }
}
