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

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use tcc_ir::ops::{Broadcast, Cast, Gather, MatMul, TopK, Transpose};
    use tcc_ir::{Data, TensorType, evaluate};

    use super::*;

    fn shape(dims: &[usize]) -> Shape {
        Shape::new(dims.iter().copied()).unwrap()
    }

    /// Numbers between -1 and 1, the smaller the more of them, that are always the same.
    fn numbers(dtype: DType, dims: &[usize], seed: u64) -> Tensor {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let even = (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
            even * even.abs()
        };
        let values: Vec<f32> = (0..dims.iter().product()).map(|_| next()).collect();
        Tensor::narrow(TensorType::new(dtype, shape(dims)), tcc_ir::Values::F32(values.into()))
    }

    /// A graph with one input x and one result, the product of x and what `weights` makes.
    fn product(x: &[usize], op: MatMul, dtype: DType, weights: impl Fn(&mut Graph) -> ValueId) -> Graph {
        let mut graph = Graph::new("product");
        let x = graph.add_input("x", TensorType::new(dtype, shape(x)));
        let weights = weights(&mut graph);
        let y = graph.add(op, &[x, weights]).unwrap();
        graph.add_output("y", y);
        graph
    }

    const TURNED: MatMul = MatMul { transpose_a: false, transpose_b: true, a_zero: false, b_zero: false };

    /// The second factor of the last product of a graph.
    fn weights_of(graph: &Graph) -> Vec<f64> {
        let mut open = Graph::clone(graph);
        let product = graph.nodes().rfind(|(_, node)| matches!(node.op, Op::MatMul(_))).unwrap().1;
        open.add_output("weights", product.inputs[1]);
        let zeros = |&input: &ValueId| {
            let ty = graph.ty(input).clone();
            Tensor::new(ty.clone(), Data::from_bytes(vec![0; ty.bytes()])).unwrap()
        };
        let inputs: Vec<Tensor> = graph.inputs().iter().map(zeros).collect();
        evaluate(&open, &inputs).unwrap().pop().unwrap().to_f64s().unwrap()
    }

    /// Integers of four bits, with the types of their scales.
    fn scale_types(graph: &Graph) -> Vec<TensorType> {
        let dequantized = graph.nodes().filter(|(_, node)| matches!(node.op, Op::Dequantize(_)));
        dequantized.map(|(_, node)| graph.ty(node.inputs[1]).clone()).collect()
    }

    #[test]
    fn weights_are_within_half_a_scale_but_for_those_beyond_seven() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let (k, n) = (96, 24);
            let tensor = numbers(dtype, &[k, n], 3);
            let own = tensor.to_f64s().unwrap();
            let graph = product(&[2, k], MatMul::default(), dtype, |graph| graph.constant(tensor.clone()));
            let few = with_weights_of_four_bits(&graph).unwrap();
            assert_eq!((few.products, few.lookups, few.left), (1, 0, 0));
            assert_eq!(scale_types(&few.graph), [TensorType::new(dtype, shape(&[3, 1, n]))]);
            let made = weights_of(&few.graph);
            // Scales and products with them are rounded to the type.
            let slack = match dtype {
                DType::F32 => 1e-6,
                DType::F16 => 1e-3,
                _ => 1e-2,
            };
            let mut beyond = 0;
            for (block, column) in (0..3).flat_map(|block| (0..n).map(move |column| (block, column))) {
                let at = |row: usize| (block * 32 + row) * n + column;
                let (least, most) =
                    (0..32).map(|row| own[at(row)]).fold((0.0f64, 0.0f64), |(a, b), x| (a.min(x), b.max(x)));
                // Of two as large the one below zero.
                let most = if most > -least { most } else { least };
                let scale = most / -8.0;
                for row in 0..32 {
                    let (x, y) = (own[at(row)], made[at(row)]);
                    let bound = if x / scale > 7.5 { 1.0 } else { 0.5 };
                    assert!((x - y).abs() <= (bound + 8.0 * slack) * scale.abs(), "{dtype} {x} {y} {scale}");
                    assert!(x != most || y == most, "{dtype} {most} {y}");
                    beyond += usize::from(x / scale > 7.5);
                }
            }
            assert!(beyond > 0, "{dtype}");
        }
    }

    #[test]
    fn blocks_of_zeros_stay_zero() {
        let graph =
            product(&[2, 32], MatMul::default(), DType::F16, |graph| graph.constant(numbers(DType::F16, &[32, 32], 1)));
        let mut values = numbers(DType::F32, &[32, 32], 1).to_f64s().unwrap();
        values.iter_mut().skip(1).step_by(32).for_each(|value| *value = 0.0);
        let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
        let tensor = Tensor::narrow(TensorType::new(DType::F16, shape(&[32, 32])), tcc_ir::Values::F32(values.into()));
        let zeros = product(&[2, 32], MatMul::default(), DType::F16, |graph| graph.constant(tensor.clone()));
        let of = |graph: &Graph| weights_of(&with_weights_of_four_bits(graph).unwrap().graph);
        let (all, some) = (of(&graph), of(&zeros));
        for (at, (all, some)) in all.into_iter().zip(some).enumerate() {
            assert_eq!(some, if at % 32 == 1 { 0.0 } else { all });
        }
    }

    /// Scales of the only weights, if there are such of four bits.
    fn quantized(graph: &Graph) -> Option<Shape> {
        let few = with_weights_of_four_bits(&clean_up(graph)).unwrap();
        let mut types = scale_types(&few.graph);
        assert_eq!((types.len(), few.products, few.left), (few.products, few.products, 1 - few.products));
        types.pop().map(|ty| ty.shape)
    }

    #[test]
    fn blocks_lie_along_what_is_summed_over() {
        let of = |dims: &[usize], op: MatMul| {
            let k = dims[dims.len() - if op.transpose_b { 1 } else { 2 }];
            quantized(&product(&[2, k], op, DType::F32, |graph| graph.constant(numbers(DType::F32, dims, 1))))
        };
        let normal = MatMul::default();
        assert_eq!(of(&[64, 48], normal), Some(shape(&[2, 1, 48])));
        assert_eq!(of(&[48, 64], TURNED), Some(shape(&[48, 2, 1])));
        assert_eq!(of(&[3, 64, 48], normal), Some(shape(&[3, 2, 1, 48])));
        // Where 32 do not divide the depth, 16 may; 8 are too few.
        assert_eq!(of(&[80, 48], normal), Some(shape(&[5, 1, 48])));
        assert_eq!(of(&[72, 48], normal), None);
        // Too few elements.
        assert_eq!(of(&[32, 32], normal), Some(shape(&[1, 1, 32])));
        assert_eq!(of(&[32, 31], normal), None);
    }

    #[test]
    fn weights_are_found_behind_views_and_wider_types() {
        let seen = |dtype: DType, steps: &dyn Fn(&mut Graph, ValueId) -> ValueId| {
            quantized(&product(&[2, 64], MatMul::default(), DType::F32, |graph| {
                let constant = graph.constant(numbers(dtype, &[48, 64], 1));
                steps(graph, constant)
            }))
        };
        let turn = |graph: &mut Graph, value| graph.add(Transpose { perm: vec![1, 0] }, &[value]).unwrap();
        assert_eq!(seen(DType::F32, &turn), Some(shape(&[48, 2, 1])));
        let wider = |graph: &mut Graph, value| {
            let wide = graph.add(Cast { to: DType::F32 }, &[value]).unwrap();
            turn(graph, wide)
        };
        assert_eq!(seen(DType::F16, &wider), Some(shape(&[48, 2, 1])));
        let apart = |graph: &mut Graph, value| {
            let apart = graph.add(Reshape { shape: shape(&[4, 12, 64]) }, &[value]).unwrap();
            graph.add(Transpose { perm: vec![0, 2, 1] }, &[apart]).unwrap()
        };
        assert_eq!(seen(DType::F32, &apart), Some(shape(&[48, 2, 1])));
        // What repeats weights is no view of them alone.
        let repeated = |graph: &mut Graph, value| {
            let turned = turn(graph, value);
            graph.add(Broadcast { shape: shape(&[2, 64, 48]) }, &[turned]).unwrap()
        };
        assert_eq!(seen(DType::F32, &repeated), Some(shape(&[2, 2, 1, 48])));
    }

    /// A table that is looked up along an axis, and multiplied with.
    fn tied(axis: usize, op: MatMul, multiplied: bool) -> FewBits {
        let mut graph = Graph::new("tied");
        let ids = graph.add_input("ids", TensorType::new(DType::I64, shape(&[5])));
        let x = graph.add_input("x", TensorType::new(DType::F16, shape(&[5, 64])));
        let table = graph.add_constant("table", numbers(DType::F16, &[64, 64], 1));
        let rows = graph.add(Gather { axis }, &[table, ids]).unwrap();
        graph.add_output("rows", rows);
        if multiplied {
            let y = graph.add(op, &[x, table]).unwrap();
            graph.add_output("y", y);
        }
        with_weights_of_four_bits(&graph).unwrap()
    }

    #[test]
    fn tables_give_look_ups_the_numbers_that_products_multiply() {
        let few = tied(0, TURNED, true);
        assert_eq!((few.products, few.lookups), (1, 1));
        // One set of integers for both.
        assert_eq!(scale_types(&few.graph), [TensorType::new(DType::F16, shape(&[64, 2, 1]))]);
        let reader = |is: fn(&Op) -> bool| few.graph.nodes().find(|(_, node)| is(&node.op)).unwrap().1;
        let (gather, product) = (reader(|op| matches!(op, Op::Gather(_))), reader(|op| matches!(op, Op::MatMul(_))));
        assert_eq!(gather.inputs[0], product.inputs[1]);
        // Along what is summed over, and without a product, tables are looked up as they are.
        for few in [tied(0, MatMul::default(), true), tied(1, TURNED, true), tied(0, TURNED, false)] {
            assert_eq!(few.lookups, 0);
            let gather = few.graph.nodes().find(|(_, node)| matches!(node.op, Op::Gather(_))).unwrap().1;
            assert!(few.graph.as_constant(gather.inputs[0]).is_some());
        }
    }

    #[test]
    fn what_chooses_and_what_has_few_bits_stays() {
        let router = |chooses: bool| {
            let mut graph = product(&[2, 64], MatMul::default(), DType::F32, |graph| {
                graph.constant(numbers(DType::F32, &[64, 16], 1))
            });
            let y = graph.outputs()[0].value;
            if chooses {
                let chosen = graph.add_multi(TopK { axis: 1, k: 2, largest: true }, &[y]).unwrap().to_vec();
                let chosen = graph.add(Cast { to: DType::F32 }, &[chosen[1]]).unwrap();
                graph.add_output("chosen", chosen);
            }
            quantized(&graph)
        };
        assert_eq!((router(false), router(true)), (Some(shape(&[2, 1, 16])), None));
        let graph =
            product(&[2, 64], MatMul::default(), DType::F32, |graph| graph.constant(numbers(DType::F32, &[64, 16], 1)));
        let once = with_weights_of_four_bits(&graph).unwrap();
        let twice = with_weights_of_four_bits(&once.graph).unwrap();
        assert_eq!((once.products, once.left), (1, 0));
        assert_eq!((twice.products, twice.left), (0, 1));
        assert_eq!(once.graph.node_count(), twice.graph.node_count());
    }
}
