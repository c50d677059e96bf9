//! Sliding windows as an axis of their own.

use serde::{Deserialize, Serialize};

use crate::op::{OpError, Operator, OutputTypes};
use crate::{Tensor, TensorType};

/// Replaces `axis` of extent n by two: the positions of a window and the elements within it. Result element `[.., p,
/// e, ..]` is operand element `[.., p·step + e·dilation, ..]`; windows that would reach over the end are left out. A
/// view; convolutions and poolings are contractions and reductions over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Window {
    /// The axis that the window slides along.
    pub axis: usize,
    /// Elements in a window, at least 1.
    pub size: usize,
    /// Distance between windows, at least 1.
    pub step: usize,
    /// Distance between elements of a window, at least 1.
    pub dilation: usize,
}

impl Operator for Window {
    const NAMES: &'static [&'static str] = &["window"];

    fn infer(&self, _inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }

    fn eval(&self, _inputs: &[&Tensor], _outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }
}
