//! What a model is, before anything is asked of it: `tcc inspect`.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use onnx_protobuf::tensor_shape_proto::dimension::Value as DimValue;
use onnx_protobuf::type_proto::Value as TypeValue;
use onnx_protobuf::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use serde::Serialize;

use crate::onnx::error::shown;
use crate::onnx::tensor::{self, WeightProblem};
use crate::onnx::unsupported::{self, Branches};

/// Facts about a model, all read from its file alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// Name of the graph.
    pub name: String,
    /// The tool that wrote the file, with its version.
    pub producer: String,
    /// Version of the file format.
    pub ir_version: i64,
    /// Versions of operator sets that are imported; "ai.onnx" is ONNX's own.
    pub opsets: BTreeMap<String, i64>,
    /// Inputs without those that have a constant value.
    pub inputs: Vec<ModelPort>,
    /// Outputs.
    pub outputs: Vec<ModelPort>,
    /// Names of the dimensions that must be bound, as `--dim` takes them.
    pub free_dims: Vec<String>,
    /// How often each operator is used, bodies and functions included.
    pub operators: BTreeMap<String, usize>,
    /// Number of nodes, bodies and functions included.
    pub nodes: usize,
    /// Number of elements in all initializers.
    pub parameters: u64,
    /// Their bytes.
    pub parameter_bytes: u64,
    /// Operators that tcc does not have, with the nodes that use them.
    pub unsupported: BTreeMap<String, Vec<String>>,
}

/// An input or output as the file declares it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelPort {
    /// Its name.
    pub name: String,
    /// Its element type, or what it is if it is not a tensor.
    pub dtype: String,
    /// Its dimensions: numbers, names, or INPUT:AXIS for those without a name. `None` if not even their number is known.
    pub dims: Option<Vec<String>>,
}

impl Inspection {
    /// Looks at a model.
    pub fn of(model: &ModelProto) -> Self {
        let graph = model.graph.get_or_default();
        let constants: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
        let is_input = |input: &&ValueInfoProto| !constants.contains(input.name.as_str());
        let mut count = Count::default();
        count.graph(graph);
        model.functions.iter().for_each(|function| count.nodes(&function.node));
        let declared: Vec<&ValueInfoProto> = graph.input.iter().filter(is_input).collect();
        let mut free_dims = BTreeSet::new();
        for (port, input) in declared.iter().map(|input| (port(input), input)) {
            let numbers = |dim: &String| dim.bytes().all(|byte| byte.is_ascii_digit());
            free_dims
                .extend(port.dims.unwrap_or_else(|| vec![shown(&input.name)]).into_iter().filter(|dim| !numbers(dim)));
        }
        Inspection {
            name: shown(&graph.name),
            producer: shown(format!("{} {}", model.producer_name, model.producer_version).trim()),
            ir_version: model.ir_version,
            opsets: model.opset_import.iter().map(|set| (domain(&set.domain), set.version)).collect(),
            inputs: declared.into_iter().map(port).collect(),
            outputs: graph.output.iter().map(port).collect(),
            free_dims: free_dims.into_iter().collect(),
            nodes: count.operators.values().sum(),
            operators: count.operators,
            parameters: count.parameters,
            parameter_bytes: count.bytes,
            unsupported: unsupported::find(model, Branches::Enter).0,
        }
    }
}

fn domain(name: &str) -> String {
    if name.is_empty() { "ai.onnx".to_owned() } else { shown(name) }
}

fn port(value: &ValueInfoProto) -> ModelPort {
    let name = shown(&value.name);
    let kind = value.type_.as_ref().and_then(|ty| ty.value.as_ref());
    let ty = match kind {
        Some(TypeValue::TensorType(ty)) => ty,
        Some(TypeValue::SequenceType(_)) => return ModelPort { name, dtype: "sequence".to_owned(), dims: None },
        Some(TypeValue::MapType(_)) => return ModelPort { name, dtype: "map".to_owned(), dims: None },
        Some(TypeValue::OptionalType(_)) => return ModelPort { name, dtype: "optional".to_owned(), dims: None },
        Some(TypeValue::SparseTensorType(_)) => return ModelPort { name, dtype: "sparse".to_owned(), dims: None },
        Some(_) | None => return ModelPort { name, dtype: "undeclared".to_owned(), dims: None },
    };
    let dtype = match tensor::dtype(ty.elem_type) {
        Ok(dtype) => dtype.name().to_owned(),
        Err(WeightProblem::Unsupported(name)) => name,
        Err(other) => other.to_string(),
    };
    let dims = ty.shape.as_ref().map(|shape| {
        let dims = shape.dim.iter().enumerate().map(|(axis, dim)| match &dim.value {
            Some(DimValue::DimValue(extent)) if *extent >= 0 => extent.to_string(),
            Some(DimValue::DimParam(param)) if !param.is_empty() => shown(param),
            _ => format!("{name}:{axis}"),
        });
        dims.collect()
    });
    ModelPort { name, dtype, dims }
}

#[derive(Default)]
struct Count {
    operators: BTreeMap<String, usize>,
    parameters: u64,
    bytes: u64,
}

impl Count {
    // As deep as protobuf's own limit on nesting, which the file has passed.
    fn graph(&mut self, graph: &GraphProto) {
        graph.initializer.iter().for_each(|tensor| self.tensor(tensor));
        self.nodes(&graph.node);
    }

    fn nodes(&mut self, nodes: &[NodeProto]) {
        for node in nodes {
            let name = match node.domain.as_str() {
                "" | "ai.onnx" => shown(&node.op_type),
                domain => shown(&format!("{domain}.{}", node.op_type)),
            };
            *self.operators.entry(name).or_default() += 1;
            for attribute in &node.attribute {
                attribute.g.as_ref().into_iter().chain(&attribute.graphs).for_each(|body| self.graph(body));
            }
        }
    }

    // A file may declare any dimension at all; the sums stop at the largest number there is.
    fn tensor(&mut self, tensor: &TensorProto) {
        let extents = tensor.dims.iter().map(|&dim| u64::try_from(dim).unwrap_or(0));
        let elements = extents.fold(1u64, u64::saturating_mul);
        let bits = tensor::dtype(tensor.data_type).map_or(0, |dtype| dtype.bits() as u64);
        self.parameters = self.parameters.saturating_add(elements);
        self.bytes = self.bytes.saturating_add(elements.saturating_mul(bits).div_ceil(8));
    }
}
