//! Replacement of slices by index tuples.

use serde::{Deserialize, Serialize};

use crate::op::{OpError, Operator, OutputTypes};
use crate::{Tensor, TensorType};

/// Operand 0 with the slices that the tuples in the last axis of operand 1 name combined with those of operand 2
/// (ONNX ScatterND), in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ScatterNd {
    /// How an update combines with what is there.
    pub reduction: ScatterReduction,
}

/// How an update combines with the element it falls on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScatterReduction {
    /// The update replaces it.
    Replace,
    /// Their sum.
    Add,
    /// Their product.
    Mul,
    /// The greater.
    Max,
    /// The lesser.
    Min,
}

impl Operator for ScatterNd {
    const NAMES: &'static [&'static str] = &["scatter_nd"];

    fn infer(&self, _inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }

    fn eval(&self, _inputs: &[&Tensor], _outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }
}
