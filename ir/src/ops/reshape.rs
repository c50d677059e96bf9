//! The same elements, in the same order, under another shape.

use serde::{Deserialize, Serialize};

use crate::op::{OpError, Operator, OutputTypes, Work, one, operands};
use crate::{Shape, Tensor, TensorType};

/// Gives a tensor another shape of as many elements. Never moves data.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reshape {
    /// The new shape.
    pub shape: Shape,
}

impl Operator for Reshape {
    const NAMES: &'static [&'static str] = &["reshape"];

    fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        let [x] = operands(inputs)?;
        if x.shape.count() != self.shape.count() {
            return Err(OpError::shape(0, format!("{} elements to become {}", self.shape.count(), self.shape), x));
        }
        one(x.dtype, self.shape.clone())
    }

    fn eval(&self, inputs: &[&Tensor], _outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        let [x] = operands(inputs)?;
        Ok(vec![x.reshaped(self.shape.clone())?])
    }

    fn work(&self, _inputs: &[&TensorType], _outputs: &[TensorType]) -> Work {
        Work::NONE
    }
}
