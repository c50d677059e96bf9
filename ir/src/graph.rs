//! The tensor graph: operators in topological order, joined by typed values.
//!
//! A graph only grows, and a node can only use values that exist already, so it is acyclic by construction and the order
//! of its nodes is a topological order. Passes build a new graph instead of editing one. The dependencies are a
//! [`petgraph`] graph, open to its algorithms through [`Graph::dag`].

use std::fmt;
use std::sync::Arc;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::op::{OpError, OutputTypes, Work};
use crate::ops::Op;
use crate::{Tensor, TensorType};

/// A node of one graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(u32);

/// A value of one graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ValueId(u32);

impl NodeId {
    /// The node at a position of a graph's topological order.
    pub fn from_index(index: usize) -> Self {
        NodeId(index as u32)
    }

    /// Position in the graph's topological order.
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// The same node in [`Graph::dag`].
    pub fn dag_index(self) -> NodeIndex {
        NodeIndex::new(self.index())
    }
}

impl From<NodeIndex> for NodeId {
    fn from(index: NodeIndex) -> Self {
        NodeId(index.index() as u32)
    }
}

impl ValueId {
    /// The value at a position of a graph's order of definition.
    pub fn from_index(index: usize) -> Self {
        ValueId(index as u32)
    }

    /// Position in the graph's order of definition.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for ValueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

/// Where a value comes from.
#[derive(Clone, Debug)]
pub enum Def {
    /// An input of the graph, with its position among the inputs.
    Input(usize),
    /// A constant, whose bytes are shared with whoever gave them.
    Constant(Tensor),
    /// Output number `output` of a node.
    Node {
        /// The node that computes it.
        node: NodeId,
        /// Which of the node's outputs it is.
        output: usize,
    },
}

/// A tensor-valued edge of the graph, not yet computed.
#[derive(Clone, Debug)]
pub struct Value {
    /// Element type and shape.
    pub ty: TensorType,
    /// Where it comes from.
    pub def: Def,
    /// The name it has in the user's model. Values that passes made carry the name of what they were made for.
    pub name: Arc<str>,
}

/// One use of an operator.
#[derive(Clone, Debug)]
pub struct Node {
    /// The operator with its attributes.
    pub op: Op,
    /// Operands.
    pub inputs: SmallVec<[ValueId; 3]>,
    /// Results; never empty.
    pub outputs: SmallVec<[ValueId; 1]>,
    /// The node of the user's model that this one comes from; several where they were rewritten together, one on a line.
    pub origin: Arc<str>,
}

impl Node {
    /// The first result, which for most operators is the only one.
    #[inline]
    pub fn output(&self) -> ValueId {
        self.outputs[0]
    }
}

/// A named result of the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The name that the user knows it by.
    pub name: Arc<str>,
    /// The value.
    pub value: ValueId,
}

/// A tensor program.
#[derive(Clone, Debug)]
pub struct Graph {
    name: Arc<str>,
    dag: DiGraph<Node, ValueId>,
    values: Vec<Value>,
    inputs: Vec<ValueId>,
    outputs: Vec<Output>,
    origin: Arc<str>,
}

/// A node that cannot be added or evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node `{origin}` ({op}): {error}")]
pub struct GraphError {
    /// The node of the user's model.
    pub origin: Arc<str>,
    /// The operator's name in the IR.
    pub op: &'static str,
    /// What is wrong.
    #[source]
    pub error: OpError,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Graph {
            name: name.into(),
            dag: DiGraph::new(),
            values: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            origin: Arc::from(""),
        }
    }

    /// Makes room for so many more nodes and values, of graphs whose size is known before they are built.
    pub fn reserve(&mut self, nodes: usize, values: usize) {
        self.dag.reserve_nodes(nodes);
        // Most operators have one or two operands that others compute.
        self.dag.reserve_edges(nodes + nodes / 2);
        self.values.reserve(values);
    }

    /// The model's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The dependencies as petgraph sees them: an edge from each producer to each user, weighted with the value.
    pub fn dag(&self) -> &DiGraph<Node, ValueId> {
        &self.dag
    }

    /// Says which node of the user's model the nodes added from now on come from.
    pub fn set_origin(&mut self, origin: impl Into<Arc<str>>) {
        self.origin = origin.into();
    }

    /// The node of the user's model that nodes are being added for.
    pub fn origin(&self) -> &Arc<str> {
        &self.origin
    }

    fn define(&mut self, ty: TensorType, def: Def, name: Arc<str>) -> ValueId {
        let id = ValueId(self.values.len() as u32);
        self.values.push(Value { ty, def, name });
        id
    }

    /// Adds an input.
    pub fn add_input(&mut self, name: impl Into<Arc<str>>, ty: TensorType) -> ValueId {
        let id = self.define(ty, Def::Input(self.inputs.len()), name.into());
        self.inputs.push(id);
        id
    }

    /// Adds a constant. Its bytes are shared, not copied.
    pub fn add_constant(&mut self, name: impl Into<Arc<str>>, tensor: Tensor) -> ValueId {
        self.define(tensor.ty().clone(), Def::Constant(tensor), name.into())
    }

    /// Adds a constant that has no name in the user's model; it takes the current origin's.
    pub fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.add_constant(self.origin.clone(), tensor)
    }

    /// Adds a node and returns all its outputs.
    pub fn add_multi(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Result<SmallVec<[ValueId; 1]>, GraphError> {
        let op = op.into();
        let types = self.infer(&op, inputs)?;
        Ok(self.push(op, inputs, types))
    }

    /// Adds a node that is known from another graph, over values of the same types as there, and returns all its outputs.
    /// Nothing is inferred: `types` are what its results have there.
    pub fn add_known(
        &mut self,
        op: Op,
        inputs: &[ValueId],
        types: impl IntoIterator<Item = TensorType>,
    ) -> SmallVec<[ValueId; 1]> {
        let first = self.values.len();
        let outputs = self.push(op, inputs, types);
        debug_assert_eq!(
            self.infer(&self.dag[NodeIndex::new(self.dag.node_count() - 1)].op, inputs)
                .ok()
                .map(|types| types.to_vec()),
            Some(self.values[first..].iter().map(|value| value.ty.clone()).collect())
        );
        outputs
    }

    fn infer(&self, op: &Op, inputs: &[ValueId]) -> Result<OutputTypes, GraphError> {
        let inputs: SmallVec<[&TensorType; 3]> = inputs.iter().map(|&id| self.ty(id)).collect();
        op.infer(&inputs).map_err(|error| GraphError { origin: self.origin.clone(), op: op.name(), error })
    }

    fn push(
        &mut self,
        op: Op,
        inputs: &[ValueId],
        types: impl IntoIterator<Item = TensorType>,
    ) -> SmallVec<[ValueId; 1]> {
        let id = NodeId(self.dag.node_count() as u32);
        let outputs: SmallVec<[ValueId; 1]> = types
            .into_iter()
            .enumerate()
            .map(|(output, ty)| self.define(ty, Def::Node { node: id, output }, self.origin.clone()))
            .collect();
        let index = self.dag.add_node(Node {
            op,
            inputs: SmallVec::from_slice(inputs),
            outputs: outputs.clone(),
            origin: self.origin.clone(),
        });
        debug_assert_eq!(NodeId::from(index), id);
        for &input in inputs {
            if let Def::Node { node, .. } = self.values[input.index()].def {
                self.dag.add_edge(node.dag_index(), index, input);
            }
        }
        outputs
    }

    /// Adds a node and returns its first output.
    pub fn add(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Result<ValueId, GraphError> {
        Ok(self.add_multi(op, inputs)?[0])
    }

    /// Names a value after the user's model.
    pub fn rename(&mut self, value: ValueId, name: impl Into<Arc<str>>) {
        self.values[value.index()].name = name.into();
    }

    /// Makes a value a result of the graph.
    pub fn add_output(&mut self, name: impl Into<Arc<str>>, value: ValueId) {
        self.outputs.push(Output { name: name.into(), value });
    }

    /// All inputs, in the order of the user's model.
    pub fn inputs(&self) -> &[ValueId] {
        &self.inputs
    }

    /// All results, in the order of the user's model.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// A value.
    #[inline]
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    /// The type of a value.
    #[inline]
    pub fn ty(&self, id: ValueId) -> &TensorType {
        &self.value(id).ty
    }

    /// The extents of a value.
    #[inline]
    pub fn shape(&self, id: ValueId) -> &crate::Shape {
        &self.value(id).ty.shape
    }

    /// The tensor behind a constant value.
    #[inline]
    pub fn as_constant(&self, id: ValueId) -> Option<&Tensor> {
        match &self.value(id).def {
            Def::Constant(tensor) => Some(tensor),
            Def::Input(_) | Def::Node { .. } => None,
        }
    }

    /// The node that computes a value, if one does.
    #[inline]
    pub fn producer(&self, id: ValueId) -> Option<NodeId> {
        match self.value(id).def {
            Def::Node { node, .. } => Some(node),
            Def::Input(_) | Def::Constant(_) => None,
        }
    }

    /// A node.
    #[inline]
    pub fn node(&self, id: NodeId) -> &Node {
        &self.dag[id.dag_index()]
    }

    /// All nodes, in topological order.
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = (NodeId, &Node)> + ExactSizeIterator {
        self.dag.raw_nodes().iter().enumerate().map(|(index, node)| (NodeId(index as u32), &node.weight))
    }

    /// All values, in order of definition.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = (ValueId, &Value)> + ExactSizeIterator {
        self.values.iter().enumerate().map(|(index, value)| (ValueId(index as u32), value))
    }

    /// Number of nodes.
    pub fn node_count(&self) -> usize {
        self.dag.node_count()
    }

    /// Number of values.
    pub fn value_count(&self) -> usize {
        self.values.len()
    }

    /// The nodes that use a node's results, once for each operand, in unspecified order.
    pub fn users(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        self.dag.neighbors_directed(id.dag_index(), Direction::Outgoing).map(NodeId::from)
    }

    /// How often each value is used by nodes and as a result, indexed by [`ValueId::index`].
    pub fn use_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.values.len()];
        for node in self.dag.node_weights() {
            for &input in &node.inputs {
                counts[input.index()] += 1;
            }
        }
        for output in &self.outputs {
            counts[output.value.index()] += 1;
        }
        counts
    }

    /// The types of a node's operands.
    pub fn input_types(&self, node: &Node) -> SmallVec<[&TensorType; 3]> {
        node.inputs.iter().map(|&id| self.ty(id)).collect()
    }

    /// The types of a node's results.
    pub fn output_types(&self, node: &Node) -> OutputTypes {
        node.outputs.iter().map(|&id| self.ty(id).clone()).collect()
    }

    /// Access that breaks the graph's rules, for tests of the verifier.
    #[cfg(test)]
    pub(crate) fn value_mut(&mut self, id: ValueId) -> &mut Value {
        &mut self.values[id.index()]
    }

    /// Access that breaks the graph's rules, for tests of the verifier.
    #[cfg(test)]
    pub(crate) fn node_mut(&mut self, index: usize) -> &mut Node {
        &mut self.dag[NodeIndex::new(index)]
    }

    /// Arithmetic of one node.
    pub fn node_work(&self, node: &Node) -> Work {
        node.op.work(&self.input_types(node), &self.output_types(node))
    }

    /// Arithmetic of the whole graph.
    pub fn work(&self) -> Work {
        self.dag.node_weights().fold(Work::NONE, |sum, node| sum + self.node_work(node))
    }

    /// Bytes of all constants together.
    pub fn constant_bytes(&self) -> u64 {
        self.values
            .iter()
            .filter(|value| matches!(value.def, Def::Constant(_)))
            .map(|value| value.ty.bytes() as u64)
            .sum()
    }
}
