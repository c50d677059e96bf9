//! What can be wrong with a file of tensors.

use tcc_ir::{AbsentData, ShapeError, TensorError};

/// Why a file of tensors cannot be read or written.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TensorFileError {
    /// The file cannot be opened, read or written.
    #[error("`{file}`: {reason}")]
    Io {
        /// The file.
        file: String,
        /// What the system says.
        reason: String,
    },
    /// The file's name does not say what it is.
    #[error("`{0}` is not a file of tensors; pass a .npz, .npy or .pb file, or a folder of input_*.pb files")]
    Kind(String),
    /// A folder without tensors.
    #[error("the folder `{folder}` holds no files called {kind}_0.pb, {kind}_1.pb and so on")]
    NoTensors {
        /// The folder.
        folder: String,
        /// What the files should be called.
        kind: String,
    },
    /// An array in a file is at fault.
    #[error("`{place}`: {problem}")]
    Array {
        /// The file, and the entry in it if it has several.
        place: String,
        /// What is wrong.
        problem: ArrayProblem,
    },
    /// Two arrays of one file have the same name.
    #[error("`{file}` holds two arrays called `{name}`")]
    Duplicate {
        /// The file.
        file: String,
        /// The name.
        name: String,
    },
}

/// What can be wrong with one array.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ArrayProblem {
    /// It does not start as an array does.
    #[error("this is not an array in NumPy's format; write it with numpy.save or numpy.savez")]
    NotNpy,
    /// Its header cannot be read.
    #[error("the header of the array says `{0}`, which is not understood")]
    Header(String),
    /// Its element type has no counterpart.
    #[error("elements of NumPy type `{0}` are not supported; convert the array to a plain number type")]
    DType(String),
    /// Its shape cannot be.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// Its values are not as many as its header says.
    #[error("the array should have {expected} bytes of values, but has {actual}; the file is damaged")]
    Size {
        /// Bytes that the header asks for.
        expected: u64,
        /// Bytes that are there.
        actual: u64,
    },
    /// It claims to unpack to more than its compressed bytes can hold.
    #[error("the entry claims to hold {claimed} bytes in {packed} compressed ones; the file is damaged or hostile")]
    Bomb {
        /// Bytes claimed.
        claimed: u64,
        /// Compressed bytes.
        packed: u64,
    },
    /// It cannot be read to the end.
    #[error("{0}")]
    Read(String),
    /// Values and type disagree.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// Values that are to be written are not there.
    #[error(transparent)]
    Absent(#[from] AbsentData),
    /// A `TensorProto` is at fault.
    #[error(transparent)]
    Proto(#[from] crate::onnx::tensor::WeightError),
    /// A file of another message than `TensorProto`.
    #[error("this is not a tensor in ONNX's format: {0}")]
    Wire(String),
}
