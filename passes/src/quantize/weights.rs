//! Weights of four bits, for machines that wait for memory: products stay products of floats, whose weights follow from signed
//! 4-bit integers.
//!
//! Weights are cut into blocks along what a product sums over, and each block of each column has one scale: the element of
//! largest magnitude divided by -8, so that this element becomes -8. A scale is below zero where it is above. So ONNX Runtime
//! quantises for `MatMulNBits` where there are no zero points (`range2scale` in onnxruntime/core/mlas/lib/q4_dq.cpp), and
//! llama.cpp for its Q4_0, whose blocks have 32 elements too (`quantize_row_q4_0_ref` in ggml/src/ggml-quants.c). All sixteen
//! integers are used, so that scales are smaller than if the largest magnitude became 7. An element rounds to within half a scale; one
//! of the other sign beyond 7.5 scales becomes 7, and is off by at most a scale.
//!
//! Scales have the type of the weights. They and the integers follow from the weights by nodes of the graph, so that they are
//! found when weights are packed and not before, and a model whose weights are not there can be quantised too. How weights
//! follow from the integers is what importing `MatMulNBits` gives, so that targets that read few bits as they are know it.

use std::collections::{BTreeMap, HashMap};

use tcc_ir::ops::{Binary, BinaryFn, Dequantize, Quantize, Reduce, ReduceFn, Reshape, Select, Unary, UnaryFn};
use tcc_ir::{DType, Def, Graph, GraphError, Node, NodeId, Op, Shape, ShapeError, Tensor, ValueId};

use super::products::{deciding, depth};
use crate::assemble::derived_constants;
use crate::cleanup::clean_up;

/// Elements of a block: with scales of 16 bits a weight takes 4.5 bits.
const BLOCK: usize = 32;

/// Fewest elements of a block, which is the least that `MatMulNBits` has too: with scales of 32 bits a weight takes six bits.
const LEAST_BLOCK: usize = 16;

/// Fewest elements of weights that are quantised: fewer bytes of what takes a few lines of a memory are no less time.
const LEAST_WEIGHTS: usize = 1024;

/// A graph with weights of four bits.
#[derive(Clone, Debug)]
pub struct FewBits {
    /// The graph.
    pub graph: Graph,
    /// How many products multiply such weights.
    pub products: usize,
    /// How many look-ups read them, in tables that a product multiplies with too.
    pub lookups: usize,
    /// How many contractions with weights multiply the floats that they multiplied before.
    pub left: usize,
}

/// Weights, and the axis of theirs that products sum over.
type Key = (ValueId, usize);

/// A node that reads weights of four bits.
struct Reading {
    /// Which of its operands that is.
    place: usize,
    weights: Key,
    /// Elements of their blocks.
    block: usize,
    /// What the operand is made of the weights by, in order.
    steps: Vec<Op>,
}

/// Gives the products of a cleaned-up graph weights of four bits.
///
/// These are second factors of products that follow from constants, are floats of 16 or 32 bits, and have at least 1,024 elements.
/// Blocks have 32 of these, or 16 if that is what divides the depth; where neither does, weights stay. What chooses among its
/// results by their size keeps its weights, as a router that sends tokens to experts does, and so does what has few bits
/// already. A table that such a product multiplies with gives look-ups the same numbers, unless they are looked up along what
/// is summed over; tables that are only looked up stay.
///
/// # Errors
/// A defect of this pass.
pub fn with_weights_of_four_bits(graph: &Graph) -> Result<FewBits, GraphError> {
    let (readings, left) = readings(graph);
    let mut made: HashMap<Key, ValueId> = HashMap::new();
    let (mut products, mut lookups) = (0, 0);
    let mut new = Graph::new(graph.name().clone());
    let mut map: Vec<ValueId> = Vec::with_capacity(graph.value_count());
    for (_, value) in graph.values() {
        match &value.def {
            Def::Input(_) => map.push(new.add_input(value.name.clone(), value.ty.clone())),
            Def::Constant(tensor) => map.push(new.add_constant(value.name.clone(), tensor.clone())),
            Def::Node { output, .. } if *output > 0 => {}
            Def::Node { node: id, .. } => {
                let node = graph.node(*id);
                new.set_origin(node.origin.clone());
                let mut inputs: Vec<ValueId> = node.inputs.iter().map(|input| map[input.index()]).collect();
                if let Some(Reading { place, weights, block, steps }) = readings.get(id) {
                    let mut value = match made.get(weights) {
                        Some(&value) => value,
                        None => of_four_bits(&mut new, map[weights.0.index()], weights.1, *block)?,
                    };
                    made.insert(*weights, value);
                    for step in steps {
                        value = new.add(step.clone(), &[value])?;
                    }
                    inputs[*place] = value;
                    *if matches!(node.op, Op::Gather(_)) { &mut lookups } else { &mut products } += 1;
                }
                let results = new.add_multi(node.op.clone(), &inputs)?.to_vec();
                for (&old, &result) in node.outputs.iter().zip(&results) {
                    new.rename(result, graph.value(old).name.clone());
                }
                map.extend(results);
            }
        }
    }
    for output in graph.outputs() {
        new.add_output(output.name.clone(), map[output.value.index()]);
    }
    Ok(FewBits { graph: clean_up(&new), products, lookups, left })
}

/// Which nodes read weights of four bits, and how many contractions with weights are left as they are.
fn readings(graph: &Graph) -> (BTreeMap<NodeId, Reading>, usize) {
    let (derived, deciding, few) = (derived_constants(graph), deciding(graph), from_few_bits(graph));
    let mut readings = BTreeMap::new();
    let mut left = 0;
    for (id, node) in graph.nodes() {
        let constant = |place: usize| derived[node.inputs[place].index()];
        if !matches!(node.op, Op::MatMul(_) | Op::Conv(_)) || constant(0) == constant(1) || depth(graph, node) < 2 {
            continue;
        }
        let reading = factor(graph, node)
            .filter(|reading| constant(1) && !deciding[id.index()] && !few[reading.weights.0.index()]);
        match reading {
            Some(reading) => drop(readings.insert(id, reading)),
            None => left += usize::from(graph.ty(node.inputs[1]).dtype.is_float()),
        }
    }
    let blocks: HashMap<Key, usize> = readings.values().map(|reading| (reading.weights, reading.block)).collect();
    for (id, node) in graph.nodes() {
        let Op::Gather(gather) = &node.op else { continue };
        if derived[node.output().index()] || !derived[node.inputs[0].index()] {
            continue;
        }
        let others = (0..graph.shape(node.inputs[0]).rank()).filter(|&axis| axis != gather.axis);
        let mut found = others.filter_map(|axis| {
            let (weights, steps) = source(graph, node.inputs[0], axis);
            Some(Reading { place: 0, weights, block: *blocks.get(&weights)?, steps })
        });
        if let Some(reading) = found.next() {
            readings.insert(id, reading);
        }
    }
    (readings, left)
}

/// How a product reads its second factor, if that is worth to be quantised.
fn factor(graph: &Graph, node: &Node) -> Option<Reading> {
    let Op::MatMul(op) = &node.op else { return None };
    let (value, place) = (node.inputs[1], 1);
    let axis = graph.shape(value).rank().checked_sub(if op.transpose_b { 1 } else { 2 })?;
    let (weights, steps) = source(graph, value, axis);
    let ty = graph.ty(weights.0);
    let fits = matches!(ty.dtype, DType::F32 | DType::F16 | DType::BF16) && ty.shape.count() >= LEAST_WEIGHTS;
    let block = [BLOCK, LEAST_BLOCK].into_iter().find(|&block| ty.shape[weights.1].is_multiple_of(block))?;
    fits.then_some(Reading { place, weights, block, steps })
}

/// What an operand is of which nothing but the order, the shape around an axis, or the width of floats is changed on the way to the
/// operand, that axis there, and what changes it.
fn source(graph: &Graph, mut value: ValueId, mut axis: usize) -> (Key, Vec<Op>) {
    let mut steps = Vec::new();
    while let Some(node) = graph.producer(value).map(|id| graph.node(id)) {
        let from = node.inputs[0];
        let before = match &node.op {
            Op::Transpose(op) => Some(op.perm[axis]),
            Op::Cast(_) if is_wider(graph.ty(from).dtype, graph.ty(value).dtype) => Some(axis),
            Op::Reshape(_) => same_axis(graph.shape(value), axis, graph.shape(from)),
            _ => None,
        };
        let Some(before) = before else { break };
        steps.push(node.op.clone());
        (value, axis) = (from, before);
    }
    steps.reverse();
    ((value, axis), steps)
}

/// Whether floats of one type are floats of 32 bits of the same value.
fn is_wider(from: DType, to: DType) -> bool {
    matches!(from, DType::F16 | DType::BF16) && to == DType::F32
}

/// The axis of another shape of the same elements that goes through the same of these.
fn same_axis(shape: &Shape, axis: usize, other: &Shape) -> Option<usize> {
    let behind = |shape: &[usize], axis: usize| shape[axis + 1..].iter().product::<usize>();
    let is_same = |&at: &usize| other[at] == shape[axis] && behind(other, at) == behind(shape, axis);
    (0..other.rank()).find(is_same)
}

/// Which values follow from numbers of at most eight bits, so that they have no more of them themselves.
fn from_few_bits(graph: &Graph) -> Vec<bool> {
    let is_few = |value: ValueId| {
        let dtype = graph.ty(value).dtype;
        dtype != DType::Bool && dtype.bits() <= 8
    };
    let mut few: Vec<bool> = graph.values().map(|(id, _)| is_few(id)).collect();
    for (_, node) in graph.nodes() {
        if node.inputs.iter().any(|input| few[input.index()]) {
            node.outputs.iter().for_each(|output| few[output.index()] = true);
        }
    }
    few
}

/// Weights by way of 4-bit integers, with a scale for each block along an axis.
fn of_four_bits(graph: &mut Graph, weights: ValueId, axis: usize, block: usize) -> Result<ValueId, GraphError> {
    let (shape, dtype) = (graph.shape(weights).clone(), graph.ty(weights).dtype);
    let mut apart = shape.to_vec();
    apart.splice(axis..=axis, [shape[axis] / block, block]);
    let op = Reshape { shape: Shape::new(apart).map_err(|error| defect(graph, error))? };
    let blocks = graph.add(op, &[weights])?;
    let axes = vec![axis + 1];
    let most = graph.add(Reduce { function: ReduceFn::Max, axes: axes.clone() }, &[blocks])?;
    let least = graph.add(Reduce { function: ReduceFn::Min, axes }, &[blocks])?;
    let below = graph.add(Unary(UnaryFn::Neg), &[least])?;
    let is_above = graph.add(Binary(BinaryFn::Gt), &[most, below])?;
    let largest = graph.add(Select {}, &[is_above, most, least])?;
    let share = graph.constant(Tensor::scalar_of(dtype, -0.125));
    // Blocks of zeros have a scale of zero. Their integers are what a division by zero gives, and their weights zero.
    let scale = graph.add(Binary(BinaryFn::Mul), &[largest, share])?;
    let integers = graph.add(Quantize { to: DType::I4, zero: false }, &[blocks, scale])?;
    let weights = graph.add(Dequantize { zero: false }, &[integers, scale])?;
    graph.add(Reshape { shape }, &[weights])
}

/// A shape that cannot be.
fn defect(graph: &Graph, error: ShapeError) -> GraphError {
    GraphError { origin: graph.origin().clone(), op: "reshape", error: error.into() }
}
