//! What an operator is: the contract that every file in `ops/` fulfils.

use std::fmt;
use std::hash::Hash;

use serde::Serialize;
use serde::de::DeserializeOwned;
use smallvec::SmallVec;

use crate::data::AbsentData;
use crate::shape::ShapeError;
use crate::tensor::TensorError;
use crate::{DType, Graph, GraphError, Tensor, TensorType, ValueId};

/// The types of an operator's outputs; nearly always one.
pub type OutputTypes = SmallVec<[TensorType; 1]>;

/// One operator: its shape rule, reference evaluation, operation count and text form.
///
/// The fields of an implementing type are the operator's attributes; their text form comes from `serde`. Operands are
/// positional and never optional: an operator whose operand may be missing has a flag that says whether it is there.
pub trait Operator: Clone + Eq + Ord + Hash + fmt::Debug + Serialize + DeserializeOwned + Send + Sync {
    /// Names under which this operator is written in textual IR.
    const NAMES: &'static [&'static str];

    /// The name of this instance: one of [`Operator::NAMES`].
    fn name(&self) -> &'static str {
        Self::NAMES[0]
    }

    /// The attributes as a JSON object, for the textual form.
    fn attributes(&self) -> Result<serde_json::Value, serde_json::Error> {
        serde_json::to_value(self)
    }

    /// Reads an operator called `name` from its attributes.
    fn from_text(name: &str, attributes: serde_json::Value) -> Result<Self, serde_json::Error> {
        let _ = name;
        serde_json::from_value(attributes)
    }

    /// The types of the outputs for operands of the given types, or what is wrong with them.
    fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError>;

    /// Computes the outputs. `inputs` have passed [`Operator::infer`], and `outputs` is what it returned.
    fn eval(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError>;

    /// Whether evaluation may keep more than 16-bit precision through this operator: it computes in binary32 from operands
    /// that are themselves not yet rounded. Arithmetic does; what stores or moves elements rounds them to their type first.
    /// See [`crate::evaluate`].
    fn keeps_excess_precision(&self) -> bool {
        false
    }

    /// How much arithmetic this is, independent of any machine.
    fn work(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Work {
        let _ = inputs;
        Work::elementwise(outputs.iter().map(|ty| ty.shape.count() as u64).sum())
    }

    /// Writes this operator in terms of simpler ones at the end of `graph`, and returns its outputs' new values.
    /// `None` if it is one of the simple ones.
    fn decompose(&self, graph: &mut Graph, inputs: &[ValueId]) -> Option<Result<Vec<ValueId>, GraphError>> {
        let _ = (graph, inputs);
        None
    }
}

/// Arithmetic that an operator does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Work {
    /// Multiply-accumulates of contractions.
    pub macs: u64,
    /// Other scalar operations, one for each result element and step.
    pub scalar_ops: u64,
}

impl Work {
    /// Nothing to compute: movement and views.
    pub const NONE: Work = Work { macs: 0, scalar_ops: 0 };

    /// `ops` scalar operations.
    pub const fn elementwise(ops: u64) -> Self {
        Work { macs: 0, scalar_ops: ops }
    }

    /// `macs` multiply-accumulates.
    pub const fn contraction(macs: u64) -> Self {
        Work { macs, scalar_ops: 0 }
    }
}

impl std::ops::Add for Work {
    type Output = Work;

    fn add(self, other: Work) -> Work {
        // Sixteen nodes of the greatest shapes would overflow.
        Work {
            macs: self.macs.saturating_add(other.macs),
            scalar_ops: self.scalar_ops.saturating_add(other.scalar_ops),
        }
    }
}

/// What is wrong with an operator's operands. The graph adds which node it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// Wrong number of operands.
    #[error("takes {expected} operands, but {actual} were given")]
    Arity {
        /// How many it takes, in words.
        expected: String,
        /// How many it got.
        actual: usize,
    },
    /// An operand has an element type that the operator is not defined on.
    #[error("operand {operand} is {actual}, but must be {expected}")]
    DType {
        /// Index of the operand.
        operand: usize,
        /// What would be right, in words.
        expected: String,
        /// What it is.
        actual: DType,
    },
    /// An operand has a shape that does not fit.
    #[error("operand {operand} has shape {actual}, but must have {expected}")]
    Shape {
        /// Index of the operand.
        operand: usize,
        /// What would be right, in words.
        expected: String,
        /// Its type.
        actual: TensorType,
    },
    /// An attribute has a value that cannot be.
    #[error("{0}")]
    Attribute(String),
    /// An operand has a value that cannot be, seen when it was evaluated.
    #[error("{0}")]
    Value(String),
    /// The shape of the result cannot be.
    #[error(transparent)]
    ResultShape(#[from] ShapeError),
    /// A tensor could not be made.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// The values are needed but were not loaded.
    #[error(transparent)]
    Absent(#[from] AbsentData),
}

impl OpError {
    /// The error for `operand` of a type other than `expected`.
    pub fn dtype(operand: usize, expected: impl Into<String>, actual: DType) -> Self {
        OpError::DType { operand, expected: expected.into(), actual }
    }

    /// The error for `operand` of a shape other than `expected`.
    pub fn shape(operand: usize, expected: impl Into<String>, actual: &TensorType) -> Self {
        OpError::Shape { operand, expected: expected.into(), actual: actual.clone() }
    }
}

/// The operands as an array, if there are exactly `N`.
pub fn operands<'a, T, const N: usize>(inputs: &'a [&'a T]) -> Result<[&'a T; N], OpError> {
    <[&T; N]>::try_from(inputs).map_err(|_| OpError::Arity { expected: N.to_string(), actual: inputs.len() })
}

/// Fails unless operands `0` and `operand` have the same element type.
pub fn same_dtype(inputs: &[&TensorType], operand: usize) -> Result<(), OpError> {
    let (expected, actual) = (inputs[0].dtype, inputs[operand].dtype);
    if expected == actual { Ok(()) } else { Err(OpError::dtype(operand, format!("{expected} as operand 0"), actual)) }
}

/// A single output type.
pub fn one(dtype: DType, shape: crate::Shape) -> Result<OutputTypes, OpError> {
    Ok(smallvec::smallvec![TensorType::new(dtype, shape)])
}
