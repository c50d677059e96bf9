//! Scaled dot-product attention with grouped heads.

use serde::{Deserialize, Serialize};

use crate::op::{OpError, Operator, OutputTypes};
use crate::{Real, Tensor, TensorType};

/// `softmax(cap(scale · q kᵀ) + mask) v` for q `[B, H, S, D]`, k `[B, G, T, D]`, v `[B, G, T, E]`, where each of the
/// G key heads serves H/G neighbouring query heads. Operand 3, if `mask`, is a bool mask (true: attend) or an addend
/// in q's type, and broadcasts to `[B, H, S, T]`. A row with nothing to attend to gives NaN, or 0 if
/// `zero_masked_rows`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attention {
    /// Factor of the scores.
    pub scale: Real,
    /// If not 0, scores s become `softcap · tanh(s / softcap)`.
    pub softcap: Real,
    /// If there, query i attends to key j only where `j <= i + causal`.
    pub causal: Option<i64>,
    /// If there, query i attends to key j only where `j > i + causal - window` (needs `causal`).
    pub window: Option<i64>,
    /// There is an operand with the mask.
    pub mask: bool,
    /// Rows with nothing to attend to give 0.
    pub zero_masked_rows: bool,
}

impl Operator for Attention {
    const NAMES: &'static [&'static str] = &["attention"];

    fn infer(&self, _inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }

    fn eval(&self, _inputs: &[&Tensor], _outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }
}
