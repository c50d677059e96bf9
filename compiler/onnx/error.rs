//! What can be wrong with a model, and with one node of it.

use tcc_ir::{AbsentData, GraphError, OpError, ShapeError, TensorError};

use super::dims::DimsError;
use super::tensor::{WeightError, WeightProblem};
use super::unsupported::UnsupportedOps;
use super::wire::WireError;

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
    /// A tensor attribute or a constant of a body cannot be read.
    #[error(transparent)]
    Weight(#[from] WeightError),
    /// An operand has a name that nothing defines.
    #[error("its input `{0}` is not the output of any node, nor an input or initializer of the graph")]
    Undefined(String),
    /// A name is defined twice.
    #[error("its output `{0}` is defined already; every name may be defined only once")]
    Redefined(String),
    /// A body or a function is at fault.
    #[error(transparent)]
    Inner(#[from] Box<ImportError>),
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

/// A node that cannot be lowered.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("node `{node}` ({op_type}): {error}")]
pub struct NodeError {
    /// Name of the node, or of its first output if it has none.
    pub node: String,
    /// Its operator.
    pub op_type: String,
    /// What is wrong with it.
    pub error: LowerError,
}

/// Why a model cannot be imported.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ImportError {
    /// The model file is not there.
    #[error("`{0}` does not exist; check the path of the model")]
    Missing(String),
    /// The path names a folder.
    #[error("`{0}` is a folder; pass the .onnx file in it")]
    Folder(String),
    /// The model file cannot be read.
    #[error("`{file}` cannot be read: {reason}")]
    Read {
        /// The file.
        file: String,
        /// What the system says.
        reason: String,
    },
    /// The file has no bytes.
    #[error("`{0}` is empty; export or download the model again")]
    Empty(String),
    /// The file is a placeholder of Git LFS.
    #[error("`{0}` is a Git LFS pointer and not the model itself; fetch it with `git lfs pull`")]
    LfsPointer(String),
    /// The file is not protobuf.
    #[error("`{file}` is not an ONNX model, or it is damaged: {error}; export or download it again")]
    Wire {
        /// The file.
        file: String,
        /// What is wrong, and where.
        error: WireError,
    },
    /// The file is protobuf, but not ONNX.
    #[error("`{file}` is not an ONNX model, or it is damaged: {reason}; export or download it again")]
    Parse {
        /// The file.
        file: String,
        /// What the protobuf runtime says.
        reason: String,
    },
    /// The model has no graph.
    #[error("`{0}` holds no graph; it is not an ONNX model, or it is damaged")]
    NoGraph(String),
    /// The model is written for an operator set that tcc does not know.
    #[error(
        "the model uses version {version} of ONNX's operators, but tcc knows versions {min} to {max}; convert it with \
         onnx.version_converter or export it with another opset"
    )]
    Opset {
        /// Version that the model imports.
        version: i64,
        /// Oldest version known.
        min: i64,
        /// Newest version known.
        max: i64,
    },
    /// The model uses operators that tcc does not have.
    #[error(transparent)]
    Unsupported(#[from] UnsupportedOps),
    /// Dimensions are not bound, or not consistently.
    #[error(transparent)]
    Dims(#[from] DimsError),
    /// The element type or the kind of an input is not supported.
    #[error("input `{name}`: {problem}")]
    Input {
        /// Name of the input.
        name: String,
        /// What is wrong with it.
        problem: WeightProblem,
    },
    /// An initializer cannot be read.
    #[error(transparent)]
    Weight(#[from] WeightError),
    /// An initializer or an input has a name that is taken.
    #[error("`{0}` is defined twice in the graph's inputs and initializers; every name may be defined only once")]
    Duplicate(String),
    /// Nodes need each other's results.
    #[error("the graph has a cycle through {}; no order computes it", list(.0))]
    Cycle(Vec<String>),
    /// An output has a name that nothing defines.
    #[error("output `{0}` of the graph is not defined by any node, input or initializer")]
    Output(String),
    /// A node cannot be lowered.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A function calls itself.
    #[error("the model's function `{0}` calls itself, which ONNX does not allow")]
    Recursion(String),
    /// Bodies or functions are nested too deeply.
    #[error("`{0}` is nested more than {max} bodies or functions deep", max = super::store::MAX_NESTING)]
    Nesting(String),
    /// The model grows beyond what any real one needs.
    #[error("{0}")]
    Limit(String),
}

impl From<ImportError> for LowerError {
    fn from(error: ImportError) -> Self {
        LowerError::Inner(Box::new(error))
    }
}

/// A name from a model, fit for a message: without control characters, and not endless.
pub fn shown(name: &str) -> String {
    const LONGEST: usize = 160;
    let clean = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let mut text: String = name.chars().take(LONGEST).map(clean).collect();
    if name.chars().nth(LONGEST).is_some() {
        text.push('…');
    }
    text
}

/// The first few of some names, and how many more there are.
pub(crate) fn list(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let mut text = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text += &format!(" and {} more", names.len() - SHOWN);
    }
    text
}
