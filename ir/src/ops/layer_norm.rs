//! Normalisation to mean 0 and variance 1.

use serde::{Deserialize, Serialize};

use crate::op::{OpError, Operator, OutputTypes};
use crate::{Real, Tensor, TensorType};

/// Over all axes from `axis` on: `(x - mean) / sqrt(variance + epsilon) · scale + bias`, computed in binary32 or
/// wider. Operands: x, scale, then bias if `bias`; scale and bias broadcast to x.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LayerNorm {
    /// First normalised axis.
    pub axis: usize,
    /// Added to the variance.
    pub epsilon: Real,
    /// There is an operand with the bias.
    pub bias: bool,
}

impl Operator for LayerNorm {
    const NAMES: &'static [&'static str] = &["layer_norm"];

    fn infer(&self, _inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }

    fn eval(&self, _inputs: &[&Tensor], _outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }
}
