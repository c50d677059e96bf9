//! Choice between two tensors, element by element.

use serde::{Deserialize, Serialize};

use super::elementwise::zip3;
use crate::op::{OpError, Operator, OutputTypes, one, operands};
use crate::{DType, Tensor, TensorType, Values};

/// Operand 1 where operand 0 is true, else operand 2. All three broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Select {}

impl Operator for Select {
    const NAMES: &'static [&'static str] = &["select"];

    fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        let [condition, yes, no] = operands(inputs)?;
        if condition.dtype != DType::Bool {
            return Err(OpError::dtype(0, "bool", condition.dtype));
        }
        if yes.dtype != no.dtype {
            return Err(OpError::dtype(2, format!("{} as operand 1", yes.dtype), no.dtype));
        }
        one(yes.dtype, condition.shape.broadcast(&yes.shape)?.broadcast(&no.shape)?)
    }

    fn keeps_excess_precision(&self) -> bool {
        true
    }

    fn eval(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        let [condition, yes, no] = operands(inputs)?;
        let out = &outputs[0];
        let c = (condition.bytes()?, condition.shape());
        macro_rules! choose {
            ($Class:ident, $a:expr, $b:expr) => {
                Values::$Class(
                    zip3(c, (&$a[..], yes.shape()), (&$b[..], no.shape()), &out.shape, |c, a, b| {
                        if c != 0 { a } else { b }
                    })
                    .into(),
                )
            };
        }
        let values = match (yes.widen()?, no.widen()?) {
            (Values::F32(a), Values::F32(b)) => choose!(F32, a, b),
            (Values::F64(a), Values::F64(b)) => choose!(F64, a, b),
            (Values::Signed(a), Values::Signed(b)) => choose!(Signed, a, b),
            (Values::Unsigned(a), Values::Unsigned(b)) => choose!(Unsigned, a, b),
            _ => return Err(OpError::dtype(2, format!("{} as operand 1", yes.dtype()), no.dtype())),
        };
        Ok(vec![Tensor::narrow(out.clone(), values)])
    }
}
