//! One ONNX node as a lowering function sees it: inputs, attributes, and a builder that folds constants.

use onnx_protobuf::attribute_proto::AttributeType;
use onnx_protobuf::{AttributeProto, GraphProto, NodeProto, TensorProto};
use tcc_ir::ops::{
    Binary, BinaryFn, Broadcast, Cast, Concat, Gather, MatMul, Op, Reduce, ReduceFn, Reshape, Select, Slice, Transpose,
    Unary, UnaryFn,
};
use tcc_ir::{DType, Def, Graph, OpError, Shape, Tensor, TensorType, ValueId, Work, normalize_axis};

use super::error::LowerError;

/// Constants are folded only while operands and results together are at most this many bytes: shape arithmetic, masks
/// and position tables fold, weights are never read or copied.
const FOLD_LIMIT_BYTES: usize = 16 << 20;

/// Movement of constants is folded up to this size only: a transposed or joined weight costs nothing on machines with
/// strided access, and would be a copy here.
const FOLD_MOVEMENT_LIMIT_BYTES: usize = 64 << 10;

/// Operators on constants that take more operations than this are left to the machine.
const FOLD_LIMIT_WORK: u64 = 1 << 28;

/// A node that is being lowered.
pub struct NodeContext<'a> {
    graph: &'a mut Graph,
    node: &'a NodeProto,
    inputs: Vec<Option<ValueId>>,
    opset: i64,
    bodies: &'a mut dyn Bodies,
}

/// Imports the bodies of control-flow nodes on behalf of their lowerings. The importer implements it.
pub trait Bodies {
    /// Lowers `body` into `graph` with its formal inputs bound to `inputs`; names of the enclosing graphs are visible in
    /// it. Returns the values of its outputs.
    fn inline(&mut self, graph: &mut Graph, body: &GraphProto, inputs: &[ValueId]) -> Result<Vec<ValueId>, LowerError>;

    /// Converts a tensor attribute.
    fn tensor(&mut self, proto: &TensorProto) -> Result<Tensor, LowerError>;

    /// Accounts for `work` on constants, with `bytes` of results. Fails when an import has done too much of it.
    fn spend(&mut self, work: Work, bytes: usize) -> Result<(), LowerError> {
        let _ = (work, bytes);
        Ok(())
    }
}

impl<'a> NodeContext<'a> {
    /// Wraps a node whose inputs have been looked up (`None` for those left out).
    pub fn new(
        graph: &'a mut Graph,
        node: &'a NodeProto,
        inputs: Vec<Option<ValueId>>,
        opset: i64,
        bodies: &'a mut dyn Bodies,
    ) -> Self {
        NodeContext { graph, node, inputs, opset, bodies }
    }

    /// The operator's name.
    pub fn op_type(&self) -> &str {
        &self.node.op_type
    }

    /// The version of the node's operator set that the model imports.
    pub fn opset(&self) -> i64 {
        self.opset
    }

    /// Number of outputs the node names, including trailing ones.
    pub fn output_count(&self) -> usize {
        self.node.output.len()
    }

    /// Whether the node asks for output `index`.
    pub fn wants(&self, index: usize) -> bool {
        self.node.output.get(index).is_some_and(|name| !name.is_empty())
    }

    // ---- Inputs ----

    /// Number of inputs the node names, including those left empty.
    pub fn input_count(&self) -> usize {
        self.inputs.len()
    }

    /// A required input.
    pub fn input(&self, index: usize) -> Result<ValueId, LowerError> {
        self.optional(index).ok_or(LowerError::MissingInput(index))
    }

    /// An input that may be left out.
    pub fn optional(&self, index: usize) -> Option<ValueId> {
        self.inputs.get(index).copied().flatten()
    }

    /// All inputs, none of which may be left out.
    pub fn all_inputs(&self) -> Result<Vec<ValueId>, LowerError> {
        (0..self.inputs.len()).map(|index| self.input(index)).collect()
    }

    /// The values of an input that must be constant, as integers.
    pub fn const_i64s(&self, index: usize) -> Result<Vec<i64>, LowerError> {
        let tensor = self.const_tensor(index)?;
        tensor
            .to_i64s()?
            .ok_or_else(|| LowerError::invalid(format!("input {index} must hold integers, but is {}", tensor.dtype())))
    }

    /// [`NodeContext::const_i64s`] of an input that may be left out.
    pub fn optional_const_i64s(&self, index: usize) -> Result<Option<Vec<i64>>, LowerError> {
        self.optional(index).map(|_| self.const_i64s(index)).transpose()
    }

    /// The tensor of an input that must be constant.
    pub fn const_tensor(&self, index: usize) -> Result<Tensor, LowerError> {
        let value = self.input(index)?;
        self.graph
            .as_constant(value)
            .cloned()
            .ok_or_else(|| LowerError::NotConstant { index, name: self.graph.value(value).name.to_string() })
    }

    /// The tensor behind a value, if it is constant and loaded.
    pub fn known(&self, value: ValueId) -> Option<&Tensor> {
        self.graph.as_constant(value).filter(|tensor| !tensor.data().is_absent())
    }

    // ---- Types ----

    /// Type of a value.
    pub fn ty(&self, value: ValueId) -> &TensorType {
        self.graph.ty(value)
    }

    /// Element type of a value.
    pub fn dtype(&self, value: ValueId) -> DType {
        self.ty(value).dtype
    }

    /// Extents of a value.
    pub fn shape(&self, value: ValueId) -> &Shape {
        &self.ty(value).shape
    }

    /// Number of dimensions of a value.
    pub fn rank(&self, value: ValueId) -> usize {
        self.shape(value).rank()
    }

    /// Turns an axis that may count from the end into an index into `rank` dimensions.
    pub fn axis(&self, axis: i64, rank: usize) -> Result<usize, LowerError> {
        normalize_axis(axis, rank)
            .ok_or_else(|| LowerError::invalid(format!("axis {axis} is out of range for a tensor of rank {rank}")))
    }

    /// Turns axes that may count from the end into ascending indices, each at most once.
    pub fn axes(&self, axes: &[i64], rank: usize) -> Result<Vec<usize>, LowerError> {
        let mut axes = axes.iter().map(|&axis| self.axis(axis, rank)).collect::<Result<Vec<_>, _>>()?;
        axes.sort_unstable();
        if axes.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(LowerError::invalid(format!("axes {axes:?} name an axis twice")));
        }
        Ok(axes)
    }

    // ---- Attributes ----

    fn attribute(
        &self,
        name: &str,
        kind: AttributeType,
        expected: &str,
    ) -> Result<Option<&'a AttributeProto>, LowerError> {
        let Some(attribute) = self.node.attribute.iter().find(|attribute| attribute.name == name) else {
            return Ok(None);
        };
        // Very old files leave the kind out; it is then taken from what is set.
        match attribute.type_.enum_value() {
            Ok(actual) if actual == kind || actual == AttributeType::UNDEFINED => Ok(Some(attribute)),
            _ => Err(LowerError::Attribute { name: name.to_owned(), expected: expected.to_owned() }),
        }
    }

    /// Whether the node has an attribute of this name, of whatever kind.
    pub fn has_attribute(&self, name: &str) -> bool {
        self.node.attribute.iter().any(|attribute| attribute.name == name)
    }

    /// An integer attribute.
    pub fn int(&self, name: &str) -> Result<Option<i64>, LowerError> {
        Ok(self.attribute(name, AttributeType::INT, "an integer")?.map(|attribute| attribute.i))
    }

    /// An integer attribute, or its default.
    pub fn int_or(&self, name: &str, default: i64) -> Result<i64, LowerError> {
        Ok(self.int(name)?.unwrap_or(default))
    }

    /// An integer attribute that means yes or no.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, LowerError> {
        Ok(self.int_or(name, i64::from(default))? != 0)
    }

    /// A float attribute.
    pub fn float(&self, name: &str) -> Result<Option<f32>, LowerError> {
        Ok(self.attribute(name, AttributeType::FLOAT, "a float")?.map(|attribute| attribute.f))
    }

    /// A float attribute, or its default.
    pub fn float_or(&self, name: &str, default: f32) -> Result<f32, LowerError> {
        Ok(self.float(name)?.unwrap_or(default))
    }

    /// A string attribute.
    pub fn string(&self, name: &str) -> Result<Option<&'a str>, LowerError> {
        let Some(attribute) = self.attribute(name, AttributeType::STRING, "a string")? else { return Ok(None) };
        std::str::from_utf8(&attribute.s)
            .map(Some)
            .map_err(|_| LowerError::Attribute { name: name.to_owned(), expected: "UTF-8 text".to_owned() })
    }

    /// A list of strings.
    pub fn strings(&self, name: &str) -> Result<Option<Vec<&'a str>>, LowerError> {
        let Some(attribute) = self.attribute(name, AttributeType::STRINGS, "a list of strings")? else {
            return Ok(None);
        };
        let text = |bytes: &'a Vec<u8>| std::str::from_utf8(bytes).ok();
        attribute
            .strings
            .iter()
            .map(text)
            .collect::<Option<Vec<_>>>()
            .map(Some)
            .ok_or_else(|| LowerError::Attribute { name: name.to_owned(), expected: "UTF-8 text".to_owned() })
    }

    /// A list of integers.
    pub fn ints(&self, name: &str) -> Result<Option<&'a [i64]>, LowerError> {
        Ok(self.attribute(name, AttributeType::INTS, "a list of integers")?.map(|attribute| &attribute.ints[..]))
    }

    /// A list of floats.
    pub fn floats(&self, name: &str) -> Result<Option<&'a [f32]>, LowerError> {
        Ok(self.attribute(name, AttributeType::FLOATS, "a list of floats")?.map(|attribute| &attribute.floats[..]))
    }

    /// A tensor attribute.
    pub fn tensor(&mut self, name: &str) -> Result<Option<Tensor>, LowerError> {
        let attribute = self.attribute(name, AttributeType::TENSOR, "a tensor")?;
        attribute.and_then(|attribute| attribute.t.as_ref()).map(|proto| self.bodies.tensor(proto)).transpose()
    }

    /// A graph attribute: the body of a control-flow operator.
    pub fn body(&self, name: &str) -> Result<&'a GraphProto, LowerError> {
        self.attribute(name, AttributeType::GRAPH, "a graph")?
            .and_then(|attribute| attribute.g.as_ref())
            .ok_or_else(|| LowerError::Attribute { name: name.to_owned(), expected: "a graph".to_owned() })
    }

    /// Lowers a body in place, with its formal inputs bound to `inputs`.
    pub fn inline(&mut self, body: &GraphProto, inputs: &[ValueId]) -> Result<Vec<ValueId>, LowerError> {
        self.bodies.inline(self.graph, body, inputs)
    }

    // ---- Building ----

    /// Adds a core operator, or computes it at once if all operands are small constants.
    pub fn add(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Result<ValueId, LowerError> {
        Ok(self.add_multi(op, inputs)?[0])
    }

    /// [`NodeContext::add`] for an operator with several outputs.
    pub fn add_multi(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Result<Vec<ValueId>, LowerError> {
        let op = op.into();
        if let Some(results) = self.fold(&op, inputs)? {
            return Ok(results.into_iter().map(|tensor| self.graph.constant(tensor)).collect());
        }
        Ok(self.graph.add_multi(op, inputs)?.into_vec())
    }

    fn fold(&mut self, op: &Op, inputs: &[ValueId]) -> Result<Option<Vec<Tensor>>, LowerError> {
        // Dequantised weights stay integers in the graph, so that machines with integer units can use them.
        if matches!(op, Op::Dequantize(_)) {
            return Ok(None);
        }
        let Some(operands) = inputs.iter().map(|&input| self.known(input).cloned()).collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        let operands: Vec<&Tensor> = operands.iter().collect();
        let types: Vec<&TensorType> = operands.iter().map(|tensor| tensor.ty()).collect();
        let fail = |error: OpError| {
            LowerError::Graph(tcc_ir::GraphError { origin: self.graph.origin().clone(), op: op.name(), error })
        };
        let outputs = op.infer(&types).map_err(fail)?;
        let result_bytes = outputs.iter().map(TensorType::bytes).sum::<usize>();
        let bytes = types.iter().map(|ty| ty.bytes()).sum::<usize>() + result_bytes;
        let work = op.work(&types, &outputs);
        let moves_only = work == Work::NONE && !matches!(op, Op::Reshape(_));
        let limit = if moves_only { FOLD_MOVEMENT_LIMIT_BYTES } else { FOLD_LIMIT_BYTES };
        if bytes > limit || work.macs.saturating_add(work.scalar_ops) > FOLD_LIMIT_WORK {
            return Ok(None);
        }
        self.bodies.spend(work, result_bytes)?;
        op.eval(&operands, &outputs).map(Some).map_err(fail)
    }

    /// Adds a constant.
    pub fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.graph.constant(tensor)
    }

    /// A scalar constant of the element type of `like`.
    pub fn scalar_like(&mut self, like: ValueId, value: f64) -> ValueId {
        let dtype = self.dtype(like);
        self.graph.constant(Tensor::scalar_of(dtype, value))
    }

    /// Applies a scalar function.
    pub fn unary(&mut self, function: UnaryFn, x: ValueId) -> Result<ValueId, LowerError> {
        self.add(Unary(function), &[x])
    }

    /// Applies a scalar function of two operands.
    pub fn binary(&mut self, function: BinaryFn, a: ValueId, b: ValueId) -> Result<ValueId, LowerError> {
        self.add(Binary(function), &[a, b])
    }

    /// Applies a scalar function of a value and a number.
    pub fn binary_scalar(&mut self, function: BinaryFn, a: ValueId, b: f64) -> Result<ValueId, LowerError> {
        let b = self.scalar_like(a, b);
        self.binary(function, a, b)
    }

    /// `yes` where `condition`, else `no`.
    pub fn select(&mut self, condition: ValueId, yes: ValueId, no: ValueId) -> Result<ValueId, LowerError> {
        self.add(Select {}, &[condition, yes, no])
    }

    /// Converts to another element type; nothing if it is that already.
    pub fn cast(&mut self, x: ValueId, to: DType) -> Result<ValueId, LowerError> {
        if self.dtype(x) == to { Ok(x) } else { self.add(Cast { to }, &[x]) }
    }

    /// Gives another shape; nothing if it is that already.
    pub fn reshape(&mut self, x: ValueId, dims: &[usize]) -> Result<ValueId, LowerError> {
        let shape = Shape::new(dims.iter().copied())?;
        if self.shape(x) == &shape { Ok(x) } else { self.add(Reshape { shape }, &[x]) }
    }

    /// Permutes axes; nothing if they stay in place.
    pub fn transpose(&mut self, x: ValueId, perm: &[usize]) -> Result<ValueId, LowerError> {
        if perm.iter().copied().eq(0..self.rank(x)) { Ok(x) } else { self.add(Transpose { perm: perm.to_vec() }, &[x]) }
    }

    /// Repeats along axes of extent 1; nothing if the shape is right already.
    pub fn broadcast(&mut self, x: ValueId, dims: &[usize]) -> Result<ValueId, LowerError> {
        let shape = Shape::new(dims.iter().copied())?;
        if self.shape(x) == &shape { Ok(x) } else { self.add(Broadcast { shape }, &[x]) }
    }

    /// Elements `start..start + size` of one axis; nothing if those are all.
    pub fn slice(&mut self, x: ValueId, axis: usize, start: usize, size: usize) -> Result<ValueId, LowerError> {
        let shape = self.shape(x).clone();
        if start == 0 && shape.get(axis) == Some(&size) {
            return Ok(x);
        }
        let mut starts = vec![0; shape.rank()];
        let mut sizes = shape.to_vec();
        if let (Some(first), Some(count)) = (starts.get_mut(axis), sizes.get_mut(axis)) {
            (*first, *count) = (start, size);
        }
        self.add(Slice { starts, steps: vec![1; shape.rank()], sizes }, &[x])
    }

    /// Joins along an axis; nothing for a single part.
    pub fn concat(&mut self, parts: &[ValueId], axis: usize) -> Result<ValueId, LowerError> {
        if let [single] = parts { Ok(*single) } else { self.add(Concat { axis }, parts) }
    }

    /// Selects slices by index.
    pub fn gather(&mut self, data: ValueId, indices: ValueId, axis: usize) -> Result<ValueId, LowerError> {
        self.add(Gather { axis }, &[data, indices])
    }

    /// Multiplies matrices.
    pub fn mat_mul(&mut self, a: ValueId, b: ValueId) -> Result<ValueId, LowerError> {
        self.add(MatMul::default(), &[a, b])
    }

    /// Reduces axes (ascending), and drops them unless `keep`.
    pub fn reduce(
        &mut self,
        function: ReduceFn,
        x: ValueId,
        axes: &[usize],
        keep: bool,
    ) -> Result<ValueId, LowerError> {
        let reduced = self.add(Reduce { function, axes: axes.to_vec() }, &[x])?;
        if keep {
            return Ok(reduced);
        }
        let shape = self.shape(x);
        let dims: Vec<usize> = (0..shape.rank()).filter(|axis| !axes.contains(axis)).map(|axis| shape[axis]).collect();
        self.reshape(reduced, &dims)
    }

    /// Whether a value is an input of the graph, for messages.
    pub fn is_graph_input(&self, value: ValueId) -> bool {
        matches!(self.graph.value(value).def, Def::Input(_))
    }

    /// The name a value has in the model, for messages.
    pub fn name_of(&self, value: ValueId) -> &str {
        &self.graph.value(value).name
    }
}
