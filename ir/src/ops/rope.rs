//! Rotary position embedding.

use serde::{Deserialize, Serialize};

use crate::op::{OpError, Operator, OutputTypes};
use crate::{Tensor, TensorType};

/// Rotates pairs of the last axis of x by given angles. Operands: x `[.., d]`, cos and sin, which broadcast to `[..,
/// d/2]`. The pair `i` is elements `(i, i + d/2)`, or `(2i, 2i + 1)` if `interleaved`: `(a cos - b sin, b cos + a
/// sin)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Rope {
    /// Pairs are neighbours.
    pub interleaved: bool,
}

impl Operator for Rope {
    const NAMES: &'static [&'static str] = &["rope"];

    fn infer(&self, _inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }

    fn eval(&self, _inputs: &[&Tensor], _outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }
}
