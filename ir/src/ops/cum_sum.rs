//! Running sums along an axis.

use serde::{Deserialize, Serialize};

use crate::op::{OpError, Operator, OutputTypes};
use crate::{Tensor, TensorType};

/// Sum of all elements up to each position along `axis`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CumSum {
    /// The axis summed along.
    pub axis: usize,
    /// Leave out the element at the position itself.
    pub exclusive: bool,
    /// Sum from the end.
    pub reverse: bool,
}

impl Operator for CumSum {
    const NAMES: &'static [&'static str] = &["cum_sum"];

    fn infer(&self, _inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }

    fn eval(&self, _inputs: &[&Tensor], _outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }
}
