//! Regular selection along every axis.

use serde::{Deserialize, Serialize};

use crate::op::{OpError, Operator, OutputTypes};
use crate::{Tensor, TensorType};

/// Element `i` of an axis of the result is element `start + i·step` of that axis of the operand. A view.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slice {
    /// First element taken of each axis (any value where the size is 0).
    pub starts: Vec<usize>,
    /// Distance between elements taken of each axis; negative ones walk backwards.
    pub steps: Vec<i64>,
    /// Number of elements taken of each axis.
    pub sizes: Vec<usize>,
}

impl Operator for Slice {
    const NAMES: &'static [&'static str] = &["slice"];

    fn infer(&self, _inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }

    fn eval(&self, _inputs: &[&Tensor], _outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }
}
