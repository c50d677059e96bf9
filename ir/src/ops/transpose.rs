//! Permutation of axes.

use serde::{Deserialize, Serialize};

use crate::op::{OpError, Operator, OutputTypes, Work, one, operands};
use crate::{Shape, Tensor, TensorType};

/// Permutes axes: axis `i` of the result is axis `perm[i]` of the operand.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Transpose {
    /// For each axis of the result, the operand's axis that it is.
    pub perm: Vec<usize>,
}

impl Operator for Transpose {
    const NAMES: &'static [&'static str] = &["transpose"];

    fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        let [x] = operands(inputs)?;
        let mut sorted = self.perm.clone();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..x.shape.rank()) {
            return Err(OpError::shape(0, format!("the axes that {:?} permutes", self.perm), x));
        }
        one(x.dtype, Shape::new(self.perm.iter().map(|&axis| x.shape[axis]))?)
    }

    fn eval(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        let [x] = operands(inputs)?;
        let strides = x.shape().strides();
        let strides: Vec<isize> = self.perm.iter().map(|&axis| strides[axis] as isize).collect();
        Ok(vec![super::movement::read_strided(x, 0, &strides, &outputs[0])?])
    }

    fn work(&self, _inputs: &[&TensorType], _outputs: &[TensorType]) -> Work {
        Work::NONE
    }
}
