//! The core operators, one file each (or one file for a family that differs only in a scalar function).
//!
//! To add an operator: write its file, and add its line to the list below.

use serde::{Deserialize, Serialize};

use crate::op::{OpError, Operator, OutputTypes, Work};
use crate::{Graph, GraphError, Tensor, TensorType, ValueId};

macro_rules! operators {
    ($($module:ident :: $Operator:ident),* $(,)?) => {
        $(mod $module; pub use $module::*;)*

        /// Any core operator, with its attributes.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Op {
            $(#[doc = concat!("See [`", stringify!($Operator), "`].")] $Operator($Operator),)*
        }

        $(impl From<$Operator> for Op {
            fn from(op: $Operator) -> Op {
                Op::$Operator(op)
            }
        })*

        impl Op {
            /// The name in textual IR.
            pub fn name(&self) -> &'static str {
                match self { $(Op::$Operator(op) => op.name(),)* }
            }

            /// The names of all operators.
            pub fn names() -> impl Iterator<Item = &'static str> {
                [$($Operator::NAMES,)*].into_iter().flatten().copied()
            }

            /// The attributes as an object, for the textual form.
            pub fn attributes(&self) -> Result<serde_json::Value, serde_json::Error> {
                match self { $(Op::$Operator(op) => op.attributes(),)* }
            }

            /// Reads an operator from its name and attributes. `None` if no operator is called so.
            pub fn from_text(name: &str, attributes: serde_json::Value) -> Option<Result<Op, serde_json::Error>> {
                $(if $Operator::NAMES.contains(&name) {
                    return Some($Operator::from_text(name, attributes).map(Op::from));
                })*
                None
            }

            /// See [`Operator::infer`].
            pub fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
                match self { $(Op::$Operator(op) => op.infer(inputs),)* }
            }

            /// See [`Operator::eval`].
            pub fn eval(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
                match self { $(Op::$Operator(op) => op.eval(inputs, outputs),)* }
            }

            /// See [`Operator::keeps_excess_precision`].
            pub fn keeps_excess_precision(&self) -> bool {
                match self { $(Op::$Operator(op) => op.keeps_excess_precision(),)* }
            }

            /// See [`Operator::work`].
            pub fn work(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Work {
                match self { $(Op::$Operator(op) => op.work(inputs, outputs),)* }
            }

            /// See [`Operator::decompose`].
            pub fn decompose(
                &self,
                graph: &mut Graph,
                inputs: &[ValueId],
            ) -> Option<Result<Vec<ValueId>, GraphError>> {
                match self { $(Op::$Operator(op) => op.decompose(graph, inputs),)* }
            }
        }
    };
}

mod elementwise;
mod float;
mod indexing;
mod movement;
mod order;

operators! {
    arg_reduce::ArgReduce,
    attention::Attention,
    binary::Binary,
    broadcast::Broadcast,
    cast::Cast,
    concat::Concat,
    conv::Conv,
    cum_sum::CumSum,
    dequantize::Dequantize,
    gather::Gather,
    gather_elements::GatherElements,
    gather_nd::GatherNd,
    gelu::Gelu,
    layer_norm::LayerNorm,
    mat_mul::MatMul,
    pad::Pad,
    quantize::Quantize,
    reduce::Reduce,
    reshape::Reshape,
    rms_norm::RmsNorm,
    rope::Rope,
    scatter_elements::ScatterElements,
    scatter_nd::ScatterNd,
    select::Select,
    slice::Slice,
    softmax::Softmax,
    top_k::TopK,
    transpose::Transpose,
    unary::Unary,
    window::Window,
}
