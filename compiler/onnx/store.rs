//! The tensors of a model, moved out of its protobuf.
//!
//! Lowering borrows nodes, so it could only copy the tensors that are attributes of nodes or constants of bodies and
//! functions; and a body that is unrolled is lowered many times. So all tensors are moved out first, and each `TensorProto`
//! is left with the number under which its tensor is found. The number is kept in `segment`, a field that no exporter
//! writes and that [`tensor::read`](super::tensor::read) refuses.

use onnx_protobuf::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto};
use protobuf::MessageField;
use tcc_ir::Tensor;

use super::error::{ImportError, shown};
use super::external::ExternalFiles;
use super::tensor::{self, WeightError, WeightProblem, Weights};

/// Deepest nesting of bodies in bodies, and of functions in functions.
pub const MAX_NESTING: usize = 32;

/// All tensors of a model. Those that cannot be read are an error only where they are used.
#[derive(Debug, Default)]
pub struct TensorStore {
    tensors: Vec<Result<Tensor, WeightError>>,
}

impl TensorStore {
    /// Moves all tensors out of a model.
    pub fn take(model: &mut ModelProto, files: &mut ExternalFiles, weights: Weights) -> Result<Self, ImportError> {
        let mut taker = Taker { store: TensorStore::default(), files, weights };
        if let Some(graph) = model.graph.as_mut() {
            taker.graph(graph, 0)?;
        }
        for function in &mut model.functions {
            taker.function(function)?;
        }
        Ok(taker.store)
    }

    /// The tensor that was moved out of `proto` (or out of what `proto` is a copy of).
    pub fn get(&self, proto: &TensorProto) -> Result<Tensor, WeightError> {
        let tensor = proto
            .segment
            .as_ref()
            .and_then(|segment| usize::try_from(segment.begin).ok())
            .and_then(|index| self.tensors.get(index));
        match tensor {
            Some(tensor) => tensor.clone(),
            None => Err(WeightError { name: shown(&proto.name), problem: WeightProblem::Segment }),
        }
    }
}

struct Taker<'a> {
    store: TensorStore,
    files: &'a mut ExternalFiles,
    weights: Weights,
}

impl Taker<'_> {
    fn graph(&mut self, graph: &mut GraphProto, depth: usize) -> Result<(), ImportError> {
        if depth > MAX_NESTING {
            return Err(ImportError::Nesting(shown(&graph.name)));
        }
        for proto in &mut graph.initializer {
            self.tensor(proto);
        }
        self.nodes(&mut graph.node, depth)
    }

    fn function(&mut self, function: &mut FunctionProto) -> Result<(), ImportError> {
        self.attributes(&mut function.attribute_proto, 0)?;
        self.nodes(&mut function.node, 0)
    }

    fn nodes(&mut self, nodes: &mut [NodeProto], depth: usize) -> Result<(), ImportError> {
        nodes.iter_mut().try_for_each(|node| self.attributes(&mut node.attribute, depth))
    }

    fn attributes(&mut self, attributes: &mut [AttributeProto], depth: usize) -> Result<(), ImportError> {
        for attribute in attributes {
            attribute.t.as_mut().into_iter().chain(&mut attribute.tensors).for_each(|proto| self.tensor(proto));
            for graph in attribute.g.as_mut().into_iter().chain(&mut attribute.graphs) {
                self.graph(graph, depth + 1)?;
            }
        }
        Ok(())
    }

    fn tensor(&mut self, proto: &mut TensorProto) {
        let tensor = tensor::read(proto, self.files, self.weights);
        let mut segment = onnx_protobuf::tensor_proto::Segment::new();
        segment.begin = self.store.tensors.len() as i64;
        proto.segment = MessageField::some(segment);
        self.store.tensors.push(tensor);
    }
}
