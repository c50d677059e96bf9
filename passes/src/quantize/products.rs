//! Which products of a graph are quantised, and what their operands are.

use std::sync::Arc;

use tcc_ir::ops::{Binary, BinaryFn, Reduce, ReduceFn, Unary, UnaryFn};
use tcc_ir::{DType, Graph, GraphError, Node, NodeId, Op, ValueId};

use super::Scope;
use crate::assemble::derived_constants;
use crate::cleanup::clean_up;
use crate::integer_products::{fits_i32, integer_products};
use crate::legalize::{Verdict, legalize};

/// A product or convolution that becomes one of 8-bit integers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Product {
    pub node: NodeId,
    pub operands: [Operand; 2],
}

/// An operand of such a product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Operand {
    pub value: ValueId,
    /// The axes that share one scale where scales are not those of whole tensors: those that the product sums over, and
    /// more where integers must have it so.
    pub axes: Vec<usize>,
    pub kind: OperandKind,
    /// Whether its values have no sign, so that its integers need none.
    pub unsigned: bool,
}

impl Operand {
    /// The type of its integers.
    pub fn integers(&self) -> DType {
        if self.unsigned { DType::U8 } else { DType::I8 }
    }

    /// The integer that its largest value becomes.
    pub fn largest(&self) -> f32 {
        if self.unsigned { 255.0 } else { 127.0 }
    }
}

/// Where an operand comes from, which says how its scale is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OperandKind {
    /// It follows from constants alone: a scale for each channel, found when weights are packed.
    Constant,
    /// It is the weights of a softmax that sums to one along K: a scale for each row, known beforehand.
    Softmax,
    /// It is computed from inputs.
    Activation,
}

/// The products of a scope, in the order of the graph.
pub(super) fn products(graph: &Graph, scope: Scope) -> Vec<Product> {
    let derived = derived_constants(graph);
    let deciding = deciding(graph);
    let mut products = Vec::new();
    for (id, node) in graph.nodes() {
        let Some(axes) = quantizable(graph, node) else { continue };
        let constant = [0, 1].map(|operand: usize| derived[node.inputs[operand].index()]);
        let chosen = match (constant, scope) {
            ([true, true], _) | ([false, false], Scope::Weights) => false,
            ([true, false] | [false, true], _) | ([false, false], Scope::All) => !deciding[id.index()],
        };
        if !chosen {
            continue;
        }
        // One of the operands may be unsigned, if sums of a bit more still fit.
        let longer = fits_i32(depth(graph, node), 255, 128);
        let unsigned = |place: usize| longer && !constant[place] && is_unsigned(graph, node.inputs[place], STEPS);
        let mut place = 0;
        let operands = axes.map(|axes| {
            let value = node.inputs[place];
            let unsigned = unsigned(place) && !(place == 1 && unsigned(0));
            let kind = match constant[place] {
                true => OperandKind::Constant,
                false if place == 0 && unsigned && sums_to_one(graph, node, value) => OperandKind::Softmax,
                false => OperandKind::Activation,
            };
            place += 1;
            Operand { value, axes, kind, unsigned }
        });
        products.push(Product { node: id, operands });
    }
    products
}

/// How many products with weights a graph has in integers, and which in floats.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WeightProducts {
    /// Products of 8-bit or 4-bit integers.
    pub integer: usize,
    /// Products of floats, by the nodes of the user's model that they come from.
    pub float: Vec<Arc<str>>,
}

impl WeightProducts {
    /// Counts the products with one operand that follows from constants. Outer products, which sum nothing, do not count:
    /// they are element-wise work.
    pub fn of(graph: &Graph) -> Self {
        let derived = derived_constants(graph);
        let mut found = WeightProducts::default();
        for (_, node) in graph.nodes() {
            let constant = |operand: usize| derived[node.inputs[operand].index()];
            if !matches!(node.op, Op::MatMul(_) | Op::Conv(_)) || constant(0) == constant(1) || depth(graph, node) < 2 {
                continue;
            }
            let dtype = graph.ty(node.inputs[0]).dtype;
            if dtype.is_float() {
                found.float.push(node.origin.clone());
            } else if dtype.bits() <= 8 {
                found.integer += 1;
            }
        }
        found
    }
}

/// The products of floats that a graph has after [`integer_products`], those of attentions among them, by the nodes of the
/// user's model that they come from. What follows from constants is none, and outer products are element-wise work.
///
/// # Errors
/// An attention cannot be taken apart.
pub fn float_products(graph: &Graph) -> Result<Vec<Arc<str>>, GraphError> {
    let graph = without_attention(&*integer_products(graph)?)?;
    let derived = derived_constants(&graph);
    let is_left = |node: &Node| {
        let computed = !derived[node.output().index()] && graph.ty(node.inputs[0]).dtype.is_float();
        computed && depth(&graph, node) > 1
    };
    Ok(graph.nodes().filter(|(_, node)| is_left(node)).map(|(_, node)| node.origin.clone()).collect())
}

/// The graph with each attention as its products.
pub(super) fn without_attention(graph: &Graph) -> Result<Graph, GraphError> {
    let judge = |_: &Graph, op: &Op, _: &[ValueId]| match op {
        Op::Attention(_) => Verdict::Decompose,
        _ => Verdict::Keep,
    };
    Ok(clean_up(&legalize(graph, &judge)?))
}

/// For how many elements a contraction sums for each of its results.
pub(super) fn depth(graph: &Graph, node: &Node) -> usize {
    match &node.op {
        Op::MatMul(op) => op.dims(graph.ty(node.inputs[0]), graph.ty(node.inputs[1])).map_or(0, |dims| dims.k),
        Op::Conv(_) => graph.shape(node.inputs[1])[1..].iter().product(),
        _ => 0,
    }
}

/// The axes of both operands along which scales may not change, if a node is a product whose sums can be integers.
///
/// An outer product has no sums: it is element-wise work, and often makes angles out of positions, of which every bit counts.
fn quantizable(graph: &Graph, node: &Node) -> Option<[Vec<usize>; 2]> {
    let float = |value: ValueId| {
        let dtype = graph.ty(value).dtype;
        dtype.is_float() && matches!(dtype.bits(), 16 | 32)
    };
    let depth = depth(graph, node);
    if depth < 2 || !fits_i32(depth, 128, 128) || !node.inputs.iter().take(2).all(|&value| float(value)) {
        return None;
    }
    let rank = |operand: usize| graph.shape(node.inputs[operand]).rank();
    match &node.op {
        Op::MatMul(op) => Some([
            vec![rank(0) - if op.transpose_a { 2 } else { 1 }],
            vec![rank(1) - if op.transpose_b { 1 } else { 2 }],
        ]),
        // Windows overlap, so that a whole image has one scale; a filter has its own.
        Op::Conv(_) => Some([(1..rank(0)).collect(), (1..rank(1)).collect()]),
        _ => None,
    }
}

/// How many operators are looked through for a sign.
const STEPS: usize = 8;

/// Whether no element of a value can be below zero, by the operators that compute it.
fn is_unsigned(graph: &Graph, value: ValueId, steps: usize) -> bool {
    if let Some(tensor) = graph.as_constant(value) {
        // Large constants are weights, whose signs are not looked for.
        return tensor.shape().count() == 1
            && tensor.to_f64s().is_ok_and(|values| values.iter().all(|&value| value >= 0.0));
    }
    let (Some(id), true) = (graph.producer(value), steps > 0) else { return false };
    let node = graph.node(id);
    let of = |operand: usize| is_unsigned(graph, node.inputs[operand], steps - 1);
    match &node.op {
        Op::Unary(Unary(function)) => matches!(
            function,
            UnaryFn::Abs | UnaryFn::Exp | UnaryFn::Sigmoid | UnaryFn::Softplus | UnaryFn::Sqrt | UnaryFn::Rsqrt
        ),
        Op::Binary(Binary(BinaryFn::Max)) => of(0) || of(1),
        Op::Binary(Binary(BinaryFn::Mul)) => node.inputs[0] == node.inputs[1] || (of(0) && of(1)),
        Op::Binary(Binary(BinaryFn::Add | BinaryFn::Div | BinaryFn::Min)) => of(0) && of(1),
        Op::Softmax(_) => true,
        Op::Reduce(_) | Op::Reshape(_) | Op::Transpose(_) | Op::Broadcast(_) | Op::Slice(_) | Op::Gather(_) => of(0),
        Op::Concat(_) | Op::Pad(_) => (0..node.inputs.len()).all(of),
        Op::Select(_) => of(1) && of(2),
        _ => false,
    }
}

/// Whether a value, operand A of a product, is a softmax along K.
fn sums_to_one(graph: &Graph, node: &Node, value: ValueId) -> bool {
    let along_rows = matches!(&node.op, Op::MatMul(op) if !op.transpose_a);
    let softmax = graph.producer(value).map(|id| &graph.node(id).op);
    along_rows && matches!(softmax, Some(Op::Softmax(softmax)) if softmax.axis + 1 == graph.shape(value).rank())
}

/// The products whose results decide what is computed next: some element of theirs is chosen by its size, and the graph
/// goes on with which one it was. A small error there is a wrong choice, and no small error any more.
pub(super) fn deciding(graph: &Graph) -> Vec<bool> {
    let mut deciding = vec![false; graph.node_count()];
    let mut seen = vec![false; graph.node_count()];
    let mut open = Vec::new();
    for (id, node) in graph.nodes() {
        if matches!(node.op, Op::TopK(_) | Op::ArgReduce(_)) && graph.users(id).next().is_some() {
            open.push(node.inputs[0]);
        }
    }
    while let Some(value) = open.pop() {
        let Some(id) = graph.producer(value) else { continue };
        if std::mem::replace(&mut seen[id.index()], true) {
            continue;
        }
        let node = graph.node(id);
        match &node.op {
            Op::MatMul(_) | Op::Conv(_) | Op::Attention(_) => deciding[id.index()] = true,
            // What is normalised beforehand has the same order afterwards, and what it is made of is a stream of its own.
            Op::LayerNorm(_) | Op::RmsNorm(_) | Op::Reduce(Reduce { function: ReduceFn::Sum | ReduceFn::Mean, .. }) => {
            }
            _ => open.extend(&node.inputs),
        }
    }
    deciding
}
