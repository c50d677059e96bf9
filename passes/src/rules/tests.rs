//! Every rule on random shapes and values: whatever the rules say is equal must evaluate to equal values.
//!
//! Each case is a graph with a form that some rules rewrite. After saturation all terms of all classes are evaluated over
//! the values of their operands' classes and compared with the value of their own class, so that not only the last form
//! but every step is checked.

#![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

use std::collections::{BTreeMap, BTreeSet};

use egg::Id;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tcc_ir::ops::{
    ArgFn, ArgReduce, Binary, BinaryFn, Broadcast, Cast, Concat, Dequantize, Gather, GatherNd, Gelu, LayerNorm, MatMul,
    Quantize, Reduce, ReduceFn, Reshape, RmsNorm, Rope, Select, Slice, Softmax, Transpose, Unary, UnaryFn,
};
use tcc_ir::{DType, Graph, Op, Real, Shape, Tensor, TensorType, ValueId, evaluate};

use crate::egraph::{EGraph, Knowledge, Leaf, Limits, Stopped, Term, Terms, saturate};

/// Random extents, and what fills the tensors.
#[derive(Clone, Debug)]
struct Dice {
    b: usize,
    s: usize,
    h: usize,
    d: usize,
    n: usize,
    seed: u64,
}

fn dice() -> impl Strategy<Value = Dice> {
    (1usize..3, 2usize..5, 1usize..3, 1usize..4, 2usize..6, any::<u64>()).prop_map(|(b, s, h, d, n, seed)| Dice {
        b,
        s,
        h,
        d: 2 * d,
        n,
        seed,
    })
}

/// A graph being written for a test.
struct Case {
    graph: Graph,
    seed: u64,
}

impl Case {
    fn numbers(&mut self, count: usize) -> Vec<f32> {
        let mut next = || {
            self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((self.seed >> 40) as f32 / (1u64 << 23) as f32) - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    fn input(&mut self, dims: &[usize]) -> ValueId {
        self.graph.add_input("x", TensorType::new(DType::F32, shape(dims)))
    }

    fn weights(&mut self, dims: &[usize]) -> ValueId {
        let values = self.numbers(dims.iter().product());
        self.graph.constant(Tensor::from_vec(shape(dims), values).unwrap())
    }

    fn number(&mut self, value: f32) -> ValueId {
        self.graph.constant(Tensor::scalar(value))
    }

    fn add(&mut self, op: impl Into<Op>, operands: &[ValueId]) -> ValueId {
        self.graph.add(op, operands).unwrap()
    }

    fn binary(&mut self, function: BinaryFn, a: ValueId, b: ValueId) -> ValueId {
        self.add(Binary(function), &[a, b])
    }

    fn unary(&mut self, function: UnaryFn, x: ValueId) -> ValueId {
        self.add(Unary(function), &[x])
    }

    fn scaled(&mut self, x: ValueId, factor: f32) -> ValueId {
        let factor = self.number(factor);
        self.binary(BinaryFn::Mul, x, factor)
    }

    fn reshape(&mut self, x: ValueId, dims: &[usize]) -> ValueId {
        self.add(Reshape { shape: shape(dims) }, &[x])
    }

    fn transpose(&mut self, x: ValueId, perm: &[usize]) -> ValueId {
        self.add(Transpose { perm: perm.to_vec() }, &[x])
    }

    fn product(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.add(MatMul::default(), &[a, b])
    }

    fn mean(&mut self, x: ValueId) -> ValueId {
        let last = self.graph.shape(x).rank() - 1;
        self.add(Reduce { function: ReduceFn::Mean, axes: vec![last] }, &[x])
    }

    fn cut(&mut self, x: ValueId, axis: usize, start: usize, size: usize) -> ValueId {
        let mut sizes = self.graph.shape(x).to_vec();
        let mut starts = vec![0; sizes.len()];
        (starts[axis], sizes[axis]) = (start, size);
        self.add(Slice { starts, steps: vec![1; sizes.len()], sizes }, &[x])
    }

    fn give(&mut self, y: ValueId) {
        self.graph.add_output("y", y);
    }
}

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims.iter().copied()).unwrap()
}

/// A way to write a graph for random extents.
type Write = fn(&mut Case, &Dice);

/// Graphs that every rule finds something in.
const CASES: &[Write] = &[
    |c, d| {
        // Constants, neutral elements and conditions.
        let x = c.input(&[d.b, d.s, d.n]);
        let (four, one, zero) = (c.number(4.0), c.number(1.0), c.number(0.0));
        let quotient = c.binary(BinaryFn::Div, x, four);
        let scaled = c.scaled(quotient, 0.3);
        let same = c.binary(BinaryFn::Mul, one, scaled);
        let same = c.binary(BinaryFn::Add, same, zero);
        let same = c.binary(BinaryFn::Sub, same, zero);
        let truth = c.graph.constant(Tensor::from_bools(shape(&[d.s, 1]), vec![true; d.s]).unwrap());
        let chosen = c.add(Select {}, &[truth, same, x]);
        let positive = c.binary(BinaryFn::Gt, x, zero);
        let both = c.binary(BinaryFn::And, truth, positive);
        let chosen = c.add(Select {}, &[both, chosen, zero]);
        c.give(chosen);
    },
    |c, d| {
        // Powers, roots and reciprocals.
        let x = c.input(&[d.s, d.n]);
        for exponent in [1.0, 2.0, 3.0] {
            let exponent = c.number(exponent);
            let power = c.binary(BinaryFn::Pow, x, exponent);
            c.give(power);
        }
        let (one, small) = (c.number(1.0), c.number(0.1));
        let square = c.binary(BinaryFn::Mul, x, x);
        let square = c.binary(BinaryFn::Add, square, small);
        for exponent in [0.5, -0.5] {
            let exponent = c.number(exponent);
            let power = c.binary(BinaryFn::Pow, square, exponent);
            c.give(power);
        }
        let root = c.unary(UnaryFn::Sqrt, square);
        let inverse = c.binary(BinaryFn::Div, one, root);
        let quotient = c.binary(BinaryFn::Div, x, root);
        c.give(inverse);
        c.give(quotient);
    },
    |c, d| {
        // Scales and chains of contractions.
        let x = c.input(&[d.b, d.s, d.n]);
        let (w, v) = (c.weights(&[d.n, d.d]), c.weights(&[d.d, 3]));
        let left = c.scaled(x, 0.7);
        let product = c.product(left, w);
        let scale = c.weights(&[d.d]);
        let product = c.binary(BinaryFn::Mul, product, scale);
        let chain = c.product(product, v);
        let narrow = c.weights(&[d.n, 1]);
        let first = c.product(x, narrow);
        let wide = c.weights(&[1, d.d]);
        let second = c.product(first, wide);
        let (a, b) = (c.weights(&[d.n, 12]), c.weights(&[12, 2]));
        let first = c.product(x, a);
        let third = c.product(first, b);
        let turned = c.input(&[d.b, d.s, d.n]);
        let turned = c.transpose(turned, &[0, 2, 1]);
        let turned = c.scaled(turned, 0.5);
        let outer = c.product(x, turned);
        for y in [chain, second, third, outer] {
            c.give(y);
        }
    },
    |c, d| {
        // Transposes, reshapes and broadcasts around other work.
        let x = c.input(&[d.b, d.s, d.h, d.d]);
        let y = c.input(&[d.b, d.s, d.h, d.d]);
        let q = c.transpose(x, &[0, 2, 1, 3]);
        let k = c.transpose(y, &[0, 2, 3, 1]);
        let scores = c.product(q, k);
        let back = c.transpose(q, &[0, 2, 1, 3]);
        let other = c.transpose(q, &[0, 3, 1, 2]);
        let flat = c.reshape(x, &[d.b * d.s, d.h * d.d]);
        let flat = c.reshape(flat, &[d.b, d.s, d.h * d.d]);
        let flat = c.reshape(flat, &[d.b * d.s, d.h * d.d]);
        let bias = c.weights(&[3]);
        let wide = c.input(&[d.b, d.s, 3]);
        let rows = c.reshape(wide, &[d.b * d.s, 3]);
        let rows = c.binary(BinaryFn::Add, rows, bias);
        let rows = c.unary(UnaryFn::Tanh, rows);
        let column = c.input(&[d.b, 1, d.n]);
        let broad = c.add(Broadcast { shape: shape(&[d.b, d.s, d.n]) }, &[column]);
        let broad = c.scaled(broad, 2.0);
        let full = c.input(&[d.b, d.s, d.n]);
        let broad2 = c.add(Broadcast { shape: shape(&[d.b, d.s, d.n]) }, &[column]);
        let sum = c.binary(BinaryFn::Add, broad2, full);
        let thin = c.input(&[1, d.s, 1, d.n]);
        let moved = c.transpose(thin, &[2, 1, 0, 3]);
        let plain = c.reshape(full, &[d.b, d.s, d.n]);
        for y in [scores, back, other, flat, rows, broad, sum, moved, plain] {
            c.give(y);
        }
    },
    |c, d| {
        // A product over flattened rows.
        let x = c.input(&[d.b, d.s, d.n]);
        let flat = c.reshape(x, &[d.b * d.s, d.n]);
        let w = c.weights(&[d.n, 3]);
        let rows = c.product(flat, w);
        let bias = c.weights(&[3]);
        let sum = c.binary(BinaryFn::Add, rows, bias);
        let y = c.reshape(sum, &[d.b, d.s, 3]);
        c.give(y);
    },
    |c, d| {
        // A product over the flattened heads of an attention.
        let x = c.input(&[d.b, d.n, d.s, d.d]);
        let heads = c.transpose(x, &[0, 2, 1, 3]);
        let flat = c.reshape(heads, &[d.b * d.s, d.n * d.d]);
        let w = c.weights(&[d.n * d.d, 3]);
        let rows = c.product(flat, w);
        let y = c.reshape(rows, &[d.b, d.s, 3]);
        c.give(y);
    },
    |c, d| {
        // Slices of what was joined, sliced, computed and reshaped.
        let (x, y) = (c.input(&[d.b, d.n]), c.input(&[d.b, d.d]));
        let joined = c.add(Concat { axis: 1 }, &[x, y]);
        let part = c.cut(joined, 1, d.n, d.d / 2);
        let again = c.cut(part, 0, 0, 1);
        let doubled = c.add(Concat { axis: 1 }, &[y, y]);
        let angle = c.unary(UnaryFn::Cos, doubled);
        let angle = c.scaled(angle, 0.5);
        let angle = c.reshape(angle, &[d.b, 1, 2 * d.d]);
        let half = c.cut(angle, 2, d.d, d.d);
        c.give(again);
        c.give(half);
    },
    |c, d| {
        // Indices that name everything.
        let x = c.input(&[d.b, d.s, d.n]);
        let flat = c.reshape(x, &[d.b * d.s, d.n]);
        let all: Vec<i64> = (0..(d.b * d.s) as i64).collect();
        let indices = Tensor::vector_i64(all).reshaped(shape(&[d.b, 1, d.s])).unwrap();
        let indices = c.graph.constant(indices);
        let rows = c.add(Gather { axis: 0 }, &[flat, indices]);
        let pairs: Vec<i64> = (0..d.b as i64).flat_map(|b| (0..d.s as i64).flat_map(move |s| [b, s])).collect();
        let pairs = Tensor::vector_i64(pairs).reshaped(shape(&[d.b, 1, d.s, 2])).unwrap();
        let pairs = c.graph.constant(pairs);
        let points = c.add(GatherNd { batch_dims: 0 }, &[x, pairs]);
        c.give(rows);
        c.give(points);
    },
    |c, d| {
        // Indices that are evenly spaced: one, every second from the end, forwards and backwards.
        let x = c.input(&[d.b, d.s, d.n]);
        let one = c.graph.constant(Tensor::scalar(d.s as i64 - 1));
        let one = c.add(Gather { axis: 1 }, &[x, one]);
        let every_second: Vec<i64> = (0..d.n as i64).filter(|at| at % 2 == 0).map(|at| at - d.n as i64).collect();
        let backwards = c.graph.constant(Tensor::vector_i64(every_second.iter().rev().copied().collect()));
        let every_second = c.graph.constant(Tensor::vector_i64(every_second));
        let some = c.add(Gather { axis: 2 }, &[x, every_second]);
        let backwards = c.add(Gather { axis: 2 }, &[x, backwards]);
        // And ones that are not: the same twice, and a step that changes.
        let uneven = c.graph.constant(Tensor::vector_i64(vec![0, 0]));
        let uneven = c.add(Gather { axis: 1 }, &[x, uneven]);
        for result in [one, some, backwards, uneven] {
            c.give(result);
        }
    },
    |c, d| {
        // Rows of a table, named by indices that were narrowed.
        let (x, table) = (c.input(&[d.b, d.n]), c.input(&[d.n, d.s]));
        let wide = c.add(ArgReduce { function: ArgFn::Max, axis: 1, select_last: false }, &[x]);
        let narrow = c.add(Cast { to: DType::I32 }, &[wide]);
        let rows = c.add(Gather { axis: 0 }, &[table, narrow]);
        c.give(rows);
    },
    |c, d| {
        // Softmax, written out.
        let x = c.input(&[d.b, d.s, d.n]);
        let y = Softmax { axis: 2 }.decomposed(c, &[x]);
        c.give(y);
    },
    |c, d| {
        // Normalisations, written out in two ways.
        let x = c.input(&[d.b, d.s, d.n]);
        let (w, bias) = (c.weights(&[d.n]), c.weights(&[d.n]));
        let y = RmsNorm { axis: 2, epsilon: Real(1e-3) }.decomposed(c, &[x, w]);
        c.give(y);
        let y = LayerNorm { axis: 2, epsilon: Real(1e-3), bias: true }.decomposed(c, &[x, w, bias]);
        c.give(y);
        let (two, one, epsilon) = (c.number(2.0), c.number(1.0), c.number(1e-3));
        let square = c.binary(BinaryFn::Pow, x, two);
        let mean = c.mean(square);
        let sum = c.binary(BinaryFn::Add, mean, epsilon);
        let root = c.unary(UnaryFn::Sqrt, sum);
        let inverse = c.binary(BinaryFn::Div, one, root);
        let unit = c.binary(BinaryFn::Mul, x, inverse);
        let y = c.binary(BinaryFn::Mul, w, unit);
        c.give(y);
    },
    |c, d| {
        // A normalisation of halves in binary32.
        let x = c.graph.add_input("x", TensorType::new(DType::F16, shape(&[d.s, 8])));
        let w = c.weights(&[8]);
        let w = c.add(Cast { to: DType::F16 }, &[w]);
        let (wide, scale) = (c.add(Cast { to: DType::F32 }, &[x]), c.add(Cast { to: DType::F32 }, &[w]));
        let y = c.add(RmsNorm { axis: 1, epsilon: Real(1e-3) }, &[wide, scale]);
        let y = c.add(Cast { to: DType::F16 }, &[y]);
        c.give(y);
    },
    |c, d| {
        // GELU in both forms, and SiLU.
        let x = c.input(&[d.s, d.n]);
        for tanh in [false, true] {
            let y = Gelu { tanh }.decomposed(c, &[x]);
            c.give(y);
        }
        let (one, root) = (c.number(1.0), c.number(std::f32::consts::SQRT_2));
        let small = c.binary(BinaryFn::Div, x, root);
        let bent = c.unary(UnaryFn::Erf, small);
        let sum = c.binary(BinaryFn::Add, bent, one);
        let product = c.binary(BinaryFn::Mul, x, sum);
        let y = c.scaled(product, 0.5);
        c.give(y);
        let less = c.unary(UnaryFn::Neg, x);
        let exp = c.unary(UnaryFn::Exp, less);
        let sum = c.binary(BinaryFn::Add, one, exp);
        let y = c.binary(BinaryFn::Div, x, sum);
        c.give(y);
        let gate = c.unary(UnaryFn::Recip, sum);
        c.give(gate);
    },
    |c, d| {
        // Rotary embeddings in both ways of writing.
        let x = c.input(&[d.b, d.h, d.s, 2 * d.d]);
        let angles = c.input(&[d.b, d.s, d.d]);
        let doubled = c.add(Concat { axis: 2 }, &[angles, angles]);
        let [cos, sin] = [UnaryFn::Cos, UnaryFn::Sin].map(|function| {
            let angle = c.unary(function, doubled);
            c.reshape(angle, &[d.b, 1, d.s, 2 * d.d])
        });
        let (first, second) = (c.cut(x, 3, 0, d.d), c.cut(x, 3, d.d, d.d));
        let less = c.unary(UnaryFn::Neg, second);
        let turned = c.add(Concat { axis: 3 }, &[less, first]);
        let straight = c.binary(BinaryFn::Mul, x, cos);
        let across = c.binary(BinaryFn::Mul, turned, sin);
        let y = c.binary(BinaryFn::Add, straight, across);
        c.give(y);
        let (cos, sin) = (c.input(&[d.s, d.d]), c.input(&[d.s, d.d]));
        let y = Rope { interleaved: false }.decomposed(c, &[x, cos, sin]);
        c.give(y);
    },
    |c, d| {
        // Attention with repeated heads, soft cap and a mask by selection.
        let q = c.input(&[d.b, 2 * d.h, d.s, d.d]);
        let (k, v) = (c.input(&[d.b, d.h, d.n, d.d]), c.input(&[d.b, d.h, d.n, d.d]));
        let [keys, values] = [k, v].map(|x| {
            let apart = c.reshape(x, &[d.b, d.h, 1, d.n, d.d]);
            let twice = c.add(Broadcast { shape: shape(&[d.b, d.h, 2, d.n, d.d]) }, &[apart]);
            c.reshape(twice, &[d.b, 2 * d.h, d.n, d.d])
        });
        let turned = c.transpose(keys, &[0, 1, 3, 2]);
        let scores = c.product(q, turned);
        let scores = c.scaled(scores, 0.5);
        let small = c.scaled(scores, 0.25);
        let bent = c.unary(UnaryFn::Tanh, small);
        let capped = c.scaled(bent, 4.0);
        let (zero, huge) = (c.number(0.0), c.number(f32::MIN));
        let marks = c.input(&[d.b, 1, d.s, d.n]);
        let mask = c.binary(BinaryFn::Gt, marks, zero);
        let masked = c.add(Select {}, &[mask, capped, huge]);
        let weights = c.add(Softmax { axis: 3 }, &[masked]);
        let y = c.product(weights, values);
        c.give(y);
    },
    |c, d| {
        // Attention with an addend and a guard, and one with a mask of truth values.
        let q = c.input(&[d.b, d.h, d.s, d.d]);
        let (k, v) = (c.input(&[d.b, d.h, d.n, d.d]), c.input(&[d.b, d.h, d.n, d.d]));
        let addend = c.input(&[d.b, 1, 1, d.n]);
        let scores = c.add(MatMul { transpose_b: true, ..MatMul::default() }, &[q, k]);
        let scores = c.binary(BinaryFn::Add, addend, scores);
        let weights = c.add(Softmax { axis: 3 }, &[scores]);
        let nothing = c.unary(UnaryFn::IsNan, weights);
        let zero = c.number(0.0);
        let weights = c.add(Select {}, &[nothing, zero, weights]);
        let y = c.product(weights, v);
        c.give(y);
        let truth = c.binary(BinaryFn::Gt, addend, zero);
        let plain = tcc_ir::ops::Attention::scaled(0.5);
        let attention = tcc_ir::ops::Attention { mask: true, zero_masked_rows: true, ..plain };
        let y = c.add(attention, &[q, k, v, truth]);
        c.give(y);
    },
    |c, d| {
        // Siblings, of which some have a bias.
        let x = c.input(&[d.b, d.s, d.n]);
        for (columns, biased) in [(2, true), (3, false), (4, true)] {
            let w = c.weights(&[d.n, columns]);
            let mut y = c.product(x, w);
            if biased {
                let bias = c.weights(&[columns]);
                y = c.binary(BinaryFn::Add, bias, y);
            }
            c.give(y);
        }
        let (w, v) = (c.weights(&[2, d.n]), c.weights(&[5, d.n]));
        for weights in [w, v] {
            let y = c.add(MatMul { transpose_b: true, ..MatMul::default() }, &[x, weights]);
            c.give(y);
        }
    },
    |c, d| {
        // Siblings whose weights follow from integers, in blocks of what is summed over: scales of blocks, and one for all.
        let x = c.input(&[d.b, d.s, 2 * d.n]);
        let (tenth, one) = (c.number(0.1), c.number(1.0));
        for (columns, transpose_b, own) in
            [(2, false, true), (3, false, true), (4, true, true), (5, true, true), (3, true, false)]
        {
            let (blocks, scales) = match transpose_b {
                false => (vec![2, d.n, columns], vec![2, 1, columns]),
                true => (vec![columns, 2, d.n], vec![columns, 2, 1]),
            };
            let w = c.weights(&blocks);
            let integers = c.add(Quantize { to: DType::I4, zero: false }, &[w, tenth]);
            let scale = if own { c.weights(&scales) } else { one };
            let w = c.add(Dequantize { zero: false }, &[integers, scale]);
            let dims = if transpose_b { [columns, 2 * d.n] } else { [2 * d.n, columns] };
            let w = c.reshape(w, &dims);
            let y = c.add(MatMul { transpose_b, ..MatMul::default() }, &[x, w]);
            c.give(y);
        }
    },
];

/// An operator written out.
trait Decomposed: tcc_ir::Operator {
    fn decomposed(&self, case: &mut Case, operands: &[ValueId]) -> ValueId {
        self.decompose(&mut case.graph, operands).unwrap().unwrap()[0]
    }
}

impl<O: tcc_ir::Operator> Decomposed for O {}

/// Writes a case, saturates it, and compares all terms of all classes. Returns the names of the rules that applied.
fn check(write: Write, dice: &Dice) -> BTreeSet<&'static str> {
    let mut case = Case { graph: Graph::new("case"), seed: dice.seed };
    write(&mut case, dice);
    let types: Vec<TensorType> = case.graph.inputs().iter().map(|&input| case.graph.ty(input).clone()).collect();
    let inputs: Vec<Tensor> = types
        .into_iter()
        .map(|ty| {
            let values = case.numbers(ty.shape.count());
            Tensor::narrow(ty, tcc_ir::Values::F32(values.into()))
        })
        .collect();
    let Case { graph, .. } = case;
    // All values of the graph, as results of it.
    let mut open = graph.clone();
    (0..graph.value_count()).for_each(|index| {
        let id = graph.values().nth(index).unwrap().0;
        open.add_output("", id);
    });
    let all = evaluate(&open, &inputs).unwrap().split_off(graph.outputs().len());
    let mut egraph = EGraph::new(Knowledge::default());
    let mut classes: Vec<Id> = Vec::new();
    let mut known: BTreeMap<u32, Tensor> = BTreeMap::new();
    for (id, value) in graph.values() {
        classes.push(match graph.producer(id) {
            None => {
                let tensor = graph.as_constant(id).cloned();
                let constant = tensor.is_some();
                let leaf = Leaf { ty: value.ty.clone(), value: tensor, constant, equal_halves: false, given: true };
                let leaf = egraph.analysis.add_leaf(leaf);
                known.insert(leaf.0, all[id.index()].clone());
                egraph.add(Term::Leaf(leaf))
            }
            Some(node) => {
                let node = graph.node(node);
                let operands: Vec<Id> = node.inputs.iter().map(|input| classes[input.index()]).collect();
                egraph.add(Term::apply(node.op.clone(), &operands))
            }
        });
    }
    let nothing = |_: Terms<'_>, _: &Op, _: &[Id]| None;
    let saturation = saturate(&mut egraph, &super::local(), &super::global(), &nothing, Limits::default()).unwrap();
    assert_eq!(saturation.stopped, Stopped::Saturated, "{saturation:?}");
    compare(&egraph, &known);
    saturation.applied.iter().map(|(name, _)| *name).collect()
}

/// Gives every class the value of one of its terms, and compares all others with that.
fn compare(egraph: &EGraph, leaves: &BTreeMap<u32, Tensor>) {
    let mut values: BTreeMap<Id, Tensor> = BTreeMap::new();
    let value_of = |term: &Term, values: &BTreeMap<Id, Tensor>| -> Option<Tensor> {
        match term {
            Term::Leaf(leaf) => leaves.get(&leaf.0).or(egraph.analysis.leaf(*leaf).value.as_ref()).cloned(),
            Term::Output { .. } => None,
            Term::Apply { op, operands } => {
                let operands: Vec<&Tensor> =
                    operands.iter().map(|&id| values.get(&egraph.find(id))).collect::<Option<_>>()?;
                let types: Vec<&TensorType> = operands.iter().map(|tensor| tensor.ty()).collect();
                let outputs = op.infer(&types).unwrap();
                Some(op.eval(&operands, &outputs).unwrap().remove(0))
            }
        }
    };
    let mut ids: Vec<Id> = egraph.classes().map(|class| class.id).collect();
    ids.sort_unstable();
    loop {
        let before = values.len();
        for &id in &ids {
            if !values.contains_key(&id)
                && let Some(value) = egraph[id].nodes.iter().find_map(|term| value_of(term, &values))
            {
                values.insert(id, value);
            }
        }
        if values.len() == before {
            break;
        }
    }
    assert_eq!(values.len(), ids.len(), "every class has a value");
    for id in ids {
        for term in &egraph[id].nodes {
            let other = value_of(term, &values).unwrap();
            let own = &values[&id];
            assert_eq!(own.ty(), other.ty());
            let tolerance = if own.dtype() == DType::F16 { 4e-3 } else { 2e-5 };
            let (a, b) = (own.to_f64s().unwrap(), other.to_f64s().unwrap());
            for (a, b) in a.iter().zip(&b) {
                let equal = a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance * (1.0 + a.abs());
                assert!(equal, "{term} gives {b} where the class is {a}\n{term:?}\n{:?}", egraph[id].nodes);
            }
        }
    }
}

#[test]
fn all_forms_evaluate_alike_and_every_rule_finds_some() {
    let mut applied: BTreeSet<&'static str> = BTreeSet::new();
    for &write in CASES {
        let mut runner = TestRunner::deterministic();
        let strategy = dice();
        for _ in 0..24 {
            let dice = strategy.new_tree(&mut runner).unwrap().current();
            applied.extend(check(write, &dice));
        }
    }
    let names =
        super::local().into_iter().map(|rule| rule.name).chain(super::global().into_iter().map(|rule| rule.name));
    let idle: Vec<&str> = names.filter(|name| !applied.contains(name)).collect();
    assert!(idle.is_empty(), "no case shows these rules: {idle:?}");
}
