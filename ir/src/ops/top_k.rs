//! Greatest or least elements along an axis.

use serde::{Deserialize, Serialize};

use crate::op::{OpError, Operator, OutputTypes};
use crate::{Tensor, TensorType};

/// The `k` greatest (or least) elements along `axis` in order, and their indices (i64). Of equal elements the one
/// with the lower index comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TopK {
    /// The axis searched.
    pub axis: usize,
    /// How many elements are kept.
    pub k: usize,
    /// Greatest first; else least first.
    pub largest: bool,
}

impl Operator for TopK {
    const NAMES: &'static [&'static str] = &["top_k"];

    fn infer(&self, _inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }

    fn eval(&self, _inputs: &[&Tensor], _outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }
}
