//! Selection of slices by index tuples.

use serde::{Deserialize, Serialize};

use crate::op::{OpError, Operator, OutputTypes};
use crate::{Tensor, TensorType};

/// The last axis of operand 1 holds index tuples into operand 0's axes after `batch_dims` common leading ones (ONNX
/// GatherND).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GatherNd {
    /// Leading axes that both operands share.
    pub batch_dims: usize,
}

impl Operator for GatherNd {
    const NAMES: &'static [&'static str] = &["gather_nd"];

    fn infer(&self, _inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }

    fn eval(&self, _inputs: &[&Tensor], _outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }
}
