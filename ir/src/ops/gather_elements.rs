//! Selection of single elements along an axis.

use serde::{Deserialize, Serialize};

use crate::op::{OpError, Operator, OutputTypes};
use crate::{Tensor, TensorType};

/// Result element `[.., i, ..]` is operand 0 at the same position with the index along `axis` replaced by operand 1's
/// element (ONNX GatherElements). Negative indices count from the end; an index out of range is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GatherElements {
    /// The axis selected from.
    pub axis: usize,
}

impl Operator for GatherElements {
    const NAMES: &'static [&'static str] = &["gather_elements"];

    fn infer(&self, _inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }

    fn eval(&self, _inputs: &[&Tensor], _outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }
}
