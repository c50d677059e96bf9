//! What whole-compiler tests share: running the command line, and making models.

// Each test file uses its own part of this.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "Each test uses a part of this, and tests fail by panicking."
)]

pub mod cuda;
pub mod emitted;
pub mod hls;
pub mod models;
pub mod opencl;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use onnx_protobuf::tensor_shape_proto::Dimension;
use onnx_protobuf::tensor_shape_proto::dimension::Value as DimValue;
use onnx_protobuf::type_proto::{Tensor as TensorTypeProto, Value as TypeValue};
use onnx_protobuf::{
    GraphProto, Message as _, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto,
};
use protobuf::{EnumOrUnknown, MessageField};

/// A dimension of a model's input.
#[derive(Clone, Copy)]
pub enum Dim {
    /// A number.
    N(i64),
    /// A free dimension.
    Free(&'static str),
}

/// A 32-bit float input or output.
pub fn port(name: &str, dims: &[Dim]) -> ValueInfoProto {
    port_of(name, dims, 1)
}

/// An input or output whose element type has this number in ONNX.
pub fn port_of(name: &str, dims: &[Dim], elem_type: i32) -> ValueInfoProto {
    let dim = |dim: &Dim| {
        let value = match dim {
            Dim::N(extent) => DimValue::DimValue(*extent),
            Dim::Free(name) => DimValue::DimParam((*name).to_owned()),
        };
        Dimension { value: Some(value), ..Dimension::new() }
    };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect(), ..TensorShapeProto::new() };
    let tensor = TensorTypeProto { elem_type, shape: MessageField::some(shape), ..TensorTypeProto::new() };
    let ty = TypeProto { value: Some(TypeValue::TensorType(tensor)), ..TypeProto::new() };
    ValueInfoProto { name: name.to_owned(), type_: MessageField::some(ty), ..ValueInfoProto::new() }
}

/// A node named after its output.
pub fn node(op_type: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        name: format!("node_{output}"),
        op_type: op_type.to_owned(),
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::new()
    }
}

/// A tensor of 32-bit floats.
pub fn tensor(name: &str, dims: &[i64], values: Vec<f32>) -> TensorProto {
    TensorProto { name: name.to_owned(), data_type: 1, dims: dims.to_vec(), float_data: values, ..TensorProto::new() }
}

/// A tensor of 32-bit floats whose values are in another file.
pub fn external(name: &str, dims: &[i64], location: &str) -> TensorProto {
    let entry = StringStringEntryProto {
        key: "location".to_owned(),
        value: location.to_owned(),
        ..StringStringEntryProto::new()
    };
    TensorProto {
        name: name.to_owned(),
        data_type: 1,
        dims: dims.to_vec(),
        data_location: EnumOrUnknown::new(onnx_protobuf::tensor_proto::DataLocation::EXTERNAL),
        external_data: vec![entry],
        ..TensorProto::new()
    }
}

/// A model.
pub fn model(
    inputs: Vec<ValueInfoProto>,
    outputs: Vec<ValueInfoProto>,
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
) -> ModelProto {
    let graph = GraphProto {
        name: "small".to_owned(),
        input: inputs,
        output: outputs,
        node: nodes,
        initializer: initializers,
        ..GraphProto::new()
    };
    ModelProto {
        ir_version: 8,
        producer_name: "tests".to_owned(),
        opset_import: vec![OperatorSetIdProto { version: 17, ..OperatorSetIdProto::new() }],
        graph: MessageField::some(graph),
        ..ModelProto::new()
    }
}

/// `y = (x + w) * x` with `x` and `w` of shape [2, 4]: the least model that has a weight.
pub fn small_model() -> ModelProto {
    let dims = [Dim::N(2), Dim::N(4)];
    model(
        vec![port("x", &dims)],
        vec![port("y", &dims)],
        vec![node("Add", &["x", "w"], "sum"), node("Mul", &["sum", "x"], "y")],
        vec![tensor("w", &[2, 4], (0..8u8).map(f32::from).collect())],
    )
}

/// Writes a model to a folder.
pub fn write_model(folder: &Path, name: &str, model: &ModelProto) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, model.write_to_bytes().unwrap()).unwrap();
    path
}

/// An array for an `.npz` file: name, NumPy's type, shape, bytes.
pub struct Array<'a>(pub &'a str, pub &'a str, pub &'a [usize], pub Vec<u8>);

/// An array of 32-bit floats.
pub fn floats<'a>(name: &'a str, shape: &'a [usize], values: &[f32]) -> Array<'a> {
    Array(name, "<f4", shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

/// Writes an `.npz` file as NumPy does.
pub fn write_npz(path: &Path, arrays: &[Array<'_>]) {
    use std::io::Write as _;
    let mut archive = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    for Array(name, descr, shape, bytes) in arrays {
        let extents: String = shape.iter().map(|extent| format!("{extent},")).collect();
        let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({extents}), }}");
        while !(10 + header.len() + 1).is_multiple_of(64) {
            header.push(' ');
        }
        header.push('\n');
        archive.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(b"\x93NUMPY\x01\x00").unwrap();
        archive.write_all(&u16::try_from(header.len()).unwrap().to_le_bytes()).unwrap();
        archive.write_all(header.as_bytes()).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap();
}

/// How a run of the command line ended.
#[derive(Debug)]
pub struct Run {
    /// The exit code; -1 if a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Run {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Runs `tcc` in a folder.
pub fn tcc(folder: &Path, arguments: &[&str]) -> Run {
    // The width of help depends on COLUMNS.
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcc"));
    command.env_remove("COLUMNS").current_dir(folder).args(arguments).output().unwrap().into()
}

/// The names in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
