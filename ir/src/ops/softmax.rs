//! Softmax along one axis.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Binary, BinaryFn, Reduce, ReduceFn, Unary, UnaryFn};
use crate::op::{OpError, Operator, OutputTypes, Work, one, operands};
use crate::{Graph, GraphError, Tensor, TensorType, ValueId, Values};

/// e^x divided by the sum of e^x along `axis`, computed after subtracting the maximum.
///
/// A row that is all -inf gives NaN, as dividing 0 by 0 does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Softmax {
    /// The axis summed over.
    pub axis: usize,
}

impl Operator for Softmax {
    const NAMES: &'static [&'static str] = &["softmax"];

    fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        let [x] = operands(inputs)?;
        if !x.dtype.is_float() {
            return Err(OpError::dtype(0, "a float", x.dtype));
        }
        if self.axis >= x.shape.rank() {
            return Err(OpError::shape(0, format!("an axis {}", self.axis), x));
        }
        one(x.dtype, x.shape.clone())
    }

    fn eval(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        let [x] = operands(inputs)?;
        let len = x.shape()[self.axis];
        let inner: usize = x.shape()[self.axis + 1..].iter().product();
        macro_rules! rows {
            ($v:expr, $float:ident) => {{
                let mut out = $v.into_owned();
                if len * inner > 0 {
                    out.par_chunks_mut(len * inner).for_each(|block| {
                        for i in 0..inner {
                            let max = (0..len).fold($float::NEG_INFINITY, |max, j| max.max(block[j * inner + i]));
                            let mut sum = 0.0;
                            for j in 0..len {
                                let e = (block[j * inner + i] - max).exp();
                                block[j * inner + i] = e;
                                sum += e;
                            }
                            for j in 0..len {
                                block[j * inner + i] /= sum;
                            }
                        }
                    });
                }
                out
            }};
        }
        let values = match x.widen()? {
            Values::F64(v) => Values::F64(rows!(v, f64).into()),
            Values::F32(v) => Values::F32(rows!(v, f32).into()),
            _ => return Err(OpError::dtype(0, "a float", x.dtype())),
        };
        Ok(vec![Tensor::narrow(outputs[0].clone(), values)])
    }

    fn work(&self, _inputs: &[&TensorType], outputs: &[TensorType]) -> Work {
        // Maximum, subtraction, exponential, sum and division for each element.
        Work::elementwise(5 * outputs[0].shape.count() as u64)
    }

    fn decompose(&self, graph: &mut Graph, inputs: &[ValueId]) -> Option<Result<Vec<ValueId>, GraphError>> {
        Some((|| {
            let max = graph.add(Reduce { function: ReduceFn::Max, axes: vec![self.axis] }, inputs)?;
            let shifted = graph.add(Binary(BinaryFn::Sub), &[inputs[0], max])?;
            let exp = graph.add(Unary(UnaryFn::Exp), &[shifted])?;
            let sum = graph.add(Reduce { function: ReduceFn::Sum, axes: vec![self.axis] }, &[exp])?;
            Ok(vec![graph.add(Binary(BinaryFn::Div), &[exp, sum])?])
        })())
    }
}
