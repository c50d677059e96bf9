//! Replacement of single elements along an axis.

use serde::{Deserialize, Serialize};

use crate::op::{OpError, Operator, OutputTypes};
use super::ScatterReduction;
use crate::{Tensor, TensorType};

/// Operand 0 with the elements that operand 1 (indices) names along `axis` combined with those of operand 2 (ONNX
/// ScatterElements), in row-major order of the indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ScatterElements {
    /// The axis indexed.
    pub axis: usize,
    /// How an update combines with what is there.
    pub reduction: ScatterReduction,
}

impl Operator for ScatterElements {
    const NAMES: &'static [&'static str] = &["scatter_elements"];

    fn infer(&self, _inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }

    fn eval(&self, _inputs: &[&Tensor], _outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }
}
