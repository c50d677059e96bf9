//! Tensors in ONNX's own format: the `input_0.pb`, `output_0.pb`, … of its test cases.

use std::path::Path;

use onnx_protobuf::{Message as _, TensorProto};

use super::NamedTensor;
use super::error::{ArrayProblem, TensorFileError};
use crate::onnx::external::ExternalFiles;
use crate::onnx::tensor::{self, Weights};
use crate::onnx::wire::{self, Message};

/// Reads the tensor in a `.pb` file.
///
/// # Errors
/// If the file is missing or damaged, or holds something else than a tensor.
pub fn read_proto(path: &Path) -> Result<NamedTensor, TensorFileError> {
    let file = path.display().to_string();
    let bytes =
        std::fs::read(path).map_err(|error| TensorFileError::Io { file: file.clone(), reason: error.to_string() })?;
    parse(&bytes).map_err(|problem| TensorFileError::Array { place: file, problem })
}

fn parse(bytes: &[u8]) -> Result<NamedTensor, ArrayProblem> {
    wire::check(bytes, Message::Tensor).map_err(|error| ArrayProblem::Wire(error.to_string()))?;
    let mut proto = TensorProto::parse_from_bytes(bytes).map_err(|error| ArrayProblem::Wire(error.to_string()))?;
    let tensor = tensor::read(&mut proto, &mut ExternalFiles::none(), Weights::Load)?;
    Ok(NamedTensor { name: proto.name, tensor })
}

/// Reads `KIND_0.pb`, `KIND_1.pb`, … in a folder, in the order of their numbers.
///
/// # Errors
/// If there is none, or one is damaged.
pub fn read_folder(folder: &Path, kind: &str) -> Result<Vec<NamedTensor>, TensorFileError> {
    let file = folder.display().to_string();
    let io = |error: std::io::Error| TensorFileError::Io { file: file.clone(), reason: error.to_string() };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_prefix(kind)?.strip_prefix('_')?.strip_suffix(".pb")?.parse::<u32>().ok());
        files.extend(number.map(|number| (number, path)));
    }
    if files.is_empty() {
        return Err(TensorFileError::NoTensors { folder: file, kind: kind.to_owned() });
    }
    files.sort();
    files.iter().map(|(_, path)| read_proto(path)).collect()
}
