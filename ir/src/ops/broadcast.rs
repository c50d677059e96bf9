//! Repetition along axes of extent 1.

use serde::{Deserialize, Serialize};

use crate::op::{OpError, Operator, OutputTypes};
use crate::{Shape, Tensor, TensorType};

/// Repeats a tensor until it has `shape`, by NumPy's rules. A view: never moves data on a machine with strided
/// access.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Broadcast {
    /// The shape broadcast to.
    pub shape: Shape,
}

impl Operator for Broadcast {
    const NAMES: &'static [&'static str] = &["broadcast"];

    fn infer(&self, _inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }

    fn eval(&self, _inputs: &[&Tensor], _outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }
}
