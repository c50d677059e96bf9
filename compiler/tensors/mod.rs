//! Files of tensors: inputs and outputs of models, as NumPy and the ONNX project store them.

mod error;
mod npy;
mod npz;
mod proto;

use std::path::Path;

use tcc_ir::Tensor;

pub use error::TensorFileError;
pub use npy::{read_npy, write_npy};
pub use npz::{NpzFile, read_npz, write_npz};
pub use proto::{read_folder, read_proto};

/// A tensor with the name it has in its file.
#[derive(Clone, Debug)]
pub struct NamedTensor {
    /// The name; empty where the file has none, as in `.npy`.
    pub name: String,
    /// The tensor.
    pub tensor: Tensor,
}

/// Reads tensors from a `.npz` or `.npy` file, a single `.pb` tensor, or a folder of `input_*.pb` files.
///
/// # Errors
/// If the file is missing, damaged or of another kind.
pub fn read(path: &Path) -> Result<Vec<NamedTensor>, TensorFileError> {
    if path.is_dir() {
        return read_folder(path, "input");
    }
    let unnamed = |tensor| vec![NamedTensor { name: String::new(), tensor }];
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("npz") => read_npz(path),
        Some("npy") => read_npy(path).map(unnamed),
        Some("pb") => read_proto(path).map(|tensor| vec![tensor]),
        _ => Err(TensorFileError::Kind(path.display().to_string())),
    }
}
