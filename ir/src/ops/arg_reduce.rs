//! Position of an extreme along an axis.

use serde::{Deserialize, Serialize};

use crate::op::{OpError, Operator, OutputTypes};
use crate::{Tensor, TensorType};

/// Index (i64) of the greatest or least element along `axis`, which stays with extent 1. The first of equals, or the
/// last if `select_last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ArgReduce {
    /// Which extreme.
    pub function: ArgFn,
    /// The axis searched.
    pub axis: usize,
    /// Take the last of equal elements.
    pub select_last: bool,
}

/// Which extreme [`ArgReduce`] looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArgFn {
    /// The greatest element.
    Max,
    /// The least element.
    Min,
}

impl Operator for ArgReduce {
    const NAMES: &'static [&'static str] = &["arg_reduce"];

    fn infer(&self, _inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }

    fn eval(&self, _inputs: &[&Tensor], _outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        Err(OpError::Value("not there yet".to_owned()))
    }
}
