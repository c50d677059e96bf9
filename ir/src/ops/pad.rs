//! Padding with one value.

use serde::{Deserialize, Serialize};

use crate::op::{OpError, Operator, OutputTypes};
use crate::{Tensor, TensorType};

/// Surrounds operand 0 with operand 1, a scalar of the same type, and puts `interior` copies of it between
/// neighbours. Negative `low` or `high` crop (after interior padding).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pad {
    /// Elements added before each axis.
    pub low: Vec<i64>,
    /// Elements added after each axis.
    pub high: Vec<i64>,
    /// Elements added between neighbours along each axis.
    pub interior: Vec<usize>,
}

impl Operator for Pad {
    const NAMES: &'static [&'static str] = &["pad"];

    fn infer(&self, _inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }

    fn eval(&self, _inputs: &[&Tensor], _outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }
}
