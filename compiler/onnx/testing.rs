//! Builds small models in memory for unit tests.

#![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

use std::collections::BTreeMap;

use onnx_protobuf::attribute_proto::AttributeType;
use onnx_protobuf::tensor_shape_proto::Dimension;
use onnx_protobuf::{
    AttributeProto, FunctionProto, GraphProto, Message as _, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    ValueInfoProto,
};
use protobuf::MessageField;
use tcc_ir::{Graph, Tensor, evaluate};

use super::error::ImportError;
use super::external::ExternalFiles;
use super::import::{ImportOptions, import_bytes, import_model};

pub const FLOAT: i32 = 1;
pub const INT64: i32 = 7;
pub const BOOL: i32 = 9;

/// A model with one graph, opset 18.
pub fn model(graph: GraphProto) -> ModelProto {
    let mut model = ModelProto::new();
    model.ir_version = 8;
    model.opset_import.push(opset("", 18));
    model.graph = MessageField::some(graph);
    model
}

pub fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: domain.to_owned(), version, ..Default::default() }
}

pub fn graph(inputs: &[ValueInfoProto], nodes: &[NodeProto], outputs: &[&str]) -> GraphProto {
    GraphProto {
        name: "test".to_owned(),
        input: inputs.to_vec(),
        node: nodes.to_vec(),
        output: outputs.iter().map(|name| ValueInfoProto { name: (*name).to_owned(), ..Default::default() }).collect(),
        ..Default::default()
    }
}

pub fn with_initializers(mut graph: GraphProto, tensors: &[TensorProto]) -> GraphProto {
    graph.initializer = tensors.to_vec();
    graph
}

/// A tensor-valued input; dimensions are numbers, names, or `?` for none.
pub fn input(name: &str, data_type: i32, dims: &[&str]) -> ValueInfoProto {
    let mut info = input_without_shape(name, data_type);
    let shape = info.type_.mut_or_insert_default().mut_tensor_type().shape.mut_or_insert_default();
    for dim in dims {
        let mut dimension = Dimension::new();
        match dim.parse() {
            Ok(extent) => dimension.set_dim_value(extent),
            Err(_) if *dim == "?" => {}
            Err(_) => dimension.set_dim_param((*dim).to_owned()),
        }
        shape.dim.push(dimension);
    }
    info
}

pub fn input_without_shape(name: &str, data_type: i32) -> ValueInfoProto {
    let mut info = ValueInfoProto { name: name.to_owned(), ..Default::default() };
    info.type_.mut_or_insert_default().mut_tensor_type().elem_type = data_type;
    info
}

/// A node named after its operator and first output.
pub fn node(op_type: &str, inputs: &[&str], outputs: &[&str], attributes: &[AttributeProto]) -> NodeProto {
    let strings = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    NodeProto {
        name: format!("{op_type}_{}", outputs.first().unwrap_or(&"")),
        op_type: op_type.to_owned(),
        input: strings(inputs),
        output: strings(outputs),
        attribute: attributes.to_vec(),
        ..Default::default()
    }
}

pub fn in_domain(mut node: NodeProto, domain: &str) -> NodeProto {
    node.domain = domain.to_owned();
    node
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: name.to_owned(), type_: kind.into(), ..Default::default() }
}

pub fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: value, ..attribute(name, AttributeType::INT) }
}

pub fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { ints: values.to_vec(), ..attribute(name, AttributeType::INTS) }
}

pub fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { f: value, ..attribute(name, AttributeType::FLOAT) }
}

pub fn tensor(name: &str, value: TensorProto) -> AttributeProto {
    AttributeProto { t: MessageField::some(value), ..attribute(name, AttributeType::TENSOR) }
}

pub fn body(name: &str, value: GraphProto) -> AttributeProto {
    AttributeProto { g: MessageField::some(value), ..attribute(name, AttributeType::GRAPH) }
}

/// An attribute of a function's node that takes its value from the call.
pub fn reference(name: &str, of: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { ref_attr_name: of.to_owned(), ..attribute(name, kind) }
}

pub fn floats_tensor(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        data_type: FLOAT,
        dims: dims.to_vec(),
        float_data: values.to_vec(),
        ..Default::default()
    }
}

pub fn ints_tensor(name: &str, dims: &[i64], values: &[i64]) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        data_type: INT64,
        dims: dims.to_vec(),
        int64_data: values.to_vec(),
        ..Default::default()
    }
}

pub fn bool_tensor(name: &str, value: bool) -> TensorProto {
    TensorProto { name: name.to_owned(), data_type: BOOL, int32_data: vec![i32::from(value)], ..Default::default() }
}

pub fn function(name: &str, inputs: &[&str], outputs: &[&str], nodes: &[NodeProto]) -> FunctionProto {
    let strings = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    FunctionProto {
        domain: "local".to_owned(),
        name: name.to_owned(),
        input: strings(inputs),
        output: strings(outputs),
        node: nodes.to_vec(),
        opset_import: vec![opset("", 18)],
        ..Default::default()
    }
}

/// Imports a model the long way, through its bytes.
pub fn import(model: &ModelProto) -> Result<Graph, ImportError> {
    import_with(model, &ImportOptions::default())
}

pub fn import_with(model: &ModelProto, options: &ImportOptions) -> Result<Graph, ImportError> {
    import_bytes(&model.write_to_bytes().unwrap(), options)
}

/// Imports a model whose external data is next to `path`.
pub fn import_at(path: &std::path::Path, model: ModelProto) -> Result<Graph, ImportError> {
    import_model(model, ExternalFiles::next_to(path), &ImportOptions::default())
}

/// The values of a model's outputs.
pub fn run(model: &ModelProto, inputs: &[Tensor]) -> Vec<Tensor> {
    evaluate(&import(model).unwrap(), inputs).unwrap()
}

/// A vector of floats.
pub fn vector(values: &[f32]) -> Tensor {
    Tensor::from_vec(tcc_ir::Shape::vector(values.len()), values.to_vec()).unwrap()
}

pub fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_f64s().unwrap()
}

pub fn dims(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs.iter().map(|(name, extent)| ((*name).to_owned(), *extent)).collect()
}
