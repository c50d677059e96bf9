//! Reads a model file into `ModelProto`.
//!
//! The file's wire format is checked first over a memory map that is let go again, then it is parsed through a small
//! buffer: at no time is a second copy of the weights in memory.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use onnx_protobuf::{Message as _, ModelProto};

use super::error::ImportError;
use super::mapped;
use super::wire::{self, Message};

/// Reads the model in a file.
pub fn load(path: &Path) -> Result<ModelProto, ImportError> {
    let file = path.display().to_string();
    let io = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => ImportError::Missing(file.clone()),
        _ => ImportError::Read { file: file.clone(), reason: error.to_string() },
    };
    if std::fs::metadata(path).map_err(io)?.is_dir() {
        return Err(ImportError::Folder(file));
    }
    {
        let map = mapped::map(path).map_err(io)?;
        check(&map, &file)?;
    }
    let mut reader = BufReader::with_capacity(64 << 10, File::open(path).map_err(io)?);
    finish(ModelProto::parse_from_reader(&mut reader), file)
}

/// Reads a model that is in memory. `name` is what messages call it.
pub fn parse(bytes: &[u8], name: &str) -> Result<ModelProto, ImportError> {
    check(bytes, name)?;
    finish(ModelProto::parse_from_bytes(bytes), name.to_owned())
}

fn check(bytes: &[u8], file: &str) -> Result<(), ImportError> {
    if bytes.is_empty() {
        return Err(ImportError::Empty(file.to_owned()));
    }
    // The usual mistake: the pointer that Git LFS leaves where it has not fetched a file.
    if bytes.starts_with(b"version https://git-lfs") {
        return Err(ImportError::LfsPointer(file.to_owned()));
    }
    wire::check(bytes, Message::Model).map_err(|error| ImportError::Wire { file: file.to_owned(), error })
}

fn finish(model: protobuf::Result<ModelProto>, file: String) -> Result<ModelProto, ImportError> {
    let model = model.map_err(|error| ImportError::Parse { file: file.clone(), reason: error.to_string() })?;
    if model.graph.is_none() { Err(ImportError::NoGraph(file)) } else { Ok(model) }
}
