//! What can be wrong with one node of a model.

use tcc_ir::{AbsentData, GraphError, OpError, ShapeError, TensorError};

/// Why a node cannot be lowered. The importer adds which node it is.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LowerError {
    /// A required input is missing.
    #[error("input {0} is required but missing")]
    MissingInput(usize),
    /// An attribute is missing or has the wrong kind.
    #[error("attribute `{name}` must be {expected}")]
    Attribute {
        /// Name of the attribute.
        name: String,
        /// What it must be, in words.
        expected: String,
    },
    /// An input that decides a shape is only known at run time.
    #[error(
        "input {index} (`{name}`) decides a shape but depends on data; tcc schedules statically, so it must fold to a \
         constant: export the model with a fixed value there, or bind the dimensions it depends on with --dim"
    )]
    NotConstant {
        /// Index of the input.
        index: usize,
        /// The input's name.
        name: String,
    },
    /// The number of results depends on data.
    #[error(
        "the shape of the output depends on the input's values ({0}); tcc schedules statically and cannot compile it"
    )]
    DataDependent(String),
    /// A variant of the operator that is not implemented.
    #[error("{0}")]
    Unsupported(String),
    /// The node contradicts ONNX's rules for its operator.
    #[error("{0}")]
    Invalid(String),
    /// The core operator that it becomes does not take these operands.
    #[error("{}: {}", .0.op, .0.error)]
    Graph(#[from] GraphError),
    /// Folding it failed.
    #[error(transparent)]
    Op(#[from] OpError),
    /// A shape cannot be.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A tensor cannot be.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// A weight's values are needed but were not loaded.
    #[error(transparent)]
    Absent(#[from] AbsentData),
}

impl LowerError {
    /// The node breaks a rule of ONNX.
    pub fn invalid(message: impl Into<String>) -> Self {
        LowerError::Invalid(message.into())
    }

    /// The node uses a variant that tcc does not have.
    pub fn unsupported(message: impl Into<String>) -> Self {
        LowerError::Unsupported(message.into())
    }
}
