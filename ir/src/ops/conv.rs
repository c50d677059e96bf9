//! Convolution over one to three spatial axes.

use serde::{Deserialize, Serialize};

use crate::op::{OpError, Operator, OutputTypes};
use crate::{Tensor, TensorType};

/// Operands: x `[N, C, spatial..]`, w `[M, C/groups, kernel..]`, then x's zero point if `x_zero` (a scalar), then w's
/// if `w_zero` (a scalar or `[M]`). Element types as in [`MatMul`](super::MatMul): integers give i32. The padding
/// value is 0 (x's zero point, if there is one).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Conv {
    /// Distance between windows along each spatial axis.
    pub strides: Vec<usize>,
    /// Padding before each spatial axis.
    pub low: Vec<i64>,
    /// Padding after each spatial axis.
    pub high: Vec<i64>,
    /// Distance between kernel elements along each spatial axis.
    pub dilations: Vec<usize>,
    /// Channel groups, each convolved with its own filters.
    pub groups: usize,
    /// There is an operand with the zero point of x.
    pub x_zero: bool,
    /// There is an operand with the zero point of w.
    pub w_zero: bool,
}

impl Operator for Conv {
    const NAMES: &'static [&'static str] = &["conv"];

    fn infer(&self, _inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }

    fn eval(&self, _inputs: &[&Tensor], _outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }
}
