//! The tensor IR of tcc: what a model is between the file it came from and the machine it runs on.
//!
//! A [`Graph`] joins operators ([`ops`]) through typed values. Each operator carries its shape rule, its reference
//! evaluation, its operation count and its text form. [`evaluate`] runs a graph and is the oracle for every target.
//! Passes turn a graph into a [`Plan`]: the same graph, cut into kernels.

#![forbid(unsafe_code)]

mod data;
mod dtype;
mod eval;
mod graph;
mod op;
pub mod ops;
mod plan;
mod real;
mod shape;
mod tensor;
#[cfg(test)]
mod testing;
pub mod text;
mod units;
mod verify;
mod view;

pub use data::{AbsentData, Data, OutsideFile};
pub use dtype::{DType, NumberClass, UnknownDType};
pub use eval::{EvalError, evaluate, evaluate_constant, evaluate_with};
pub use graph::{Def, Graph, GraphError, Node, NodeId, Output, Value, ValueId};
pub use op::{OpError, Operator, OutputTypes, Work};
pub use ops::Op;
pub use plan::{Access, Anchor, Kernel, KernelId, Plan};
pub use real::Real;
pub use shape::{MAX_ELEMENTS, Shape, ShapeError, TensorType, normalize_axis};
pub use tensor::{Element, PARALLEL_GRAIN, Tensor, TensorError, Values};
pub use units::{Bytes, Cycles};
pub use verify::{VerifyError, verify};
pub use view::{Atom, Nest, View, is_view};
