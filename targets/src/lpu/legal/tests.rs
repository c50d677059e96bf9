//! Graphs before and after they are written in the machine's terms, on the same operands.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

mod composites;
mod limits;
mod order;
mod pad;
mod products;
mod scatter;
mod selection;
mod sums;

use tcc_ir::ops::{MatMul, ReduceFn};
use tcc_ir::{DType, Graph, NumberClass, Op, Shape, Tensor, TensorType, ValueId, Values, evaluate, verify};

use super::legal;

/// How close results must be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Close {
    /// Zeros have the same sign, too.
    Exactly,
    /// To within this share of the greatest magnitude, for floats.
    Within(f64),
}

/// A graph under construction, with the inputs that it is run on.
struct Bench {
    graph: Graph,
    inputs: Vec<Tensor>,
    state: u64,
}

impl Bench {
    fn new(seed: u64) -> Self {
        Bench { graph: Graph::new("legal"), inputs: Vec::new(), state: seed }
    }

    /// A random number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        // SplitMix64.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.state;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % end
    }

    /// Random whole numbers from `low` on, below `high`.
    fn whole(&mut self, dtype: DType, dims: &[usize], low: i64, high: i64) -> Tensor {
        let count = dims.iter().product();
        let values: Vec<f64> = (0..count).map(|_| (low + self.below((high - low) as u64) as i64) as f64).collect();
        tensor(dtype, dims, &values)
    }

    /// Random numbers of a type: integers over the whole range of types of at most 16 bits, and floats in -2..2.
    fn any(&mut self, dtype: DType, dims: &[usize]) -> Tensor {
        match dtype.integer_range() {
            Some((low, high)) => self.whole(dtype, dims, low.max(-32768) as i64, high.min(65535) as i64 + 1),
            None if dtype == DType::Bool => self.whole(dtype, dims, 0, 2),
            None => {
                let count = dims.iter().product();
                let values: Vec<f64> =
                    (0..count).map(|_| self.below(1 << 30) as f64 / (1 << 28) as f64 - 2.0).collect();
                tensor(dtype, dims, &values)
            }
        }
    }

    /// Few different numbers, so that many are equal.
    fn alike(&mut self, dtype: DType, dims: &[usize]) -> Tensor {
        let low = if dtype.is_signed() || dtype.is_float() { -1 } else { 0 };
        self.whole(dtype, dims, low, 2)
    }

    fn input(&mut self, tensor: Tensor) -> ValueId {
        let id = self.graph.add_input(format!("x{}", self.inputs.len()), tensor.ty().clone());
        self.inputs.push(tensor);
        id
    }

    fn add(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> ValueId {
        self.graph.add(op, inputs).unwrap()
    }

    /// Makes an operator's results those of the graph.
    fn result(&mut self, op: impl Into<Op>, inputs: &[ValueId]) {
        for value in self.graph.add_multi(op, inputs).unwrap() {
            self.graph.add_output(format!("y{}", self.graph.outputs().len()), value);
        }
    }

    /// Fails unless the graph in the machine's terms has only operators that it runs, and the same results. Gives that graph.
    fn check(self, close: Close) -> Graph {
        let legal = legal(&self.graph).unwrap();
        verify(&legal).unwrap();
        assert_runs(&legal);
        let (expected, actual) =
            (evaluate(&self.graph, &self.inputs).unwrap(), evaluate(&legal, &self.inputs).unwrap());
        assert_eq!(expected.len(), actual.len());
        let ops: Vec<&Op> = self.graph.nodes().map(|(_, node)| &node.op).collect();
        for (expected, actual) in expected.iter().zip(&actual) {
            assert_eq!(expected.ty(), actual.ty(), "{ops:?}");
            let exact = close == Close::Exactly || !expected.dtype().is_float();
            let (expected, actual) = (numbers(expected), numbers(actual));
            let largest = expected.iter().filter(|x| x.is_finite()).fold(0f64, |most, x| most.max(x.abs()));
            for (index, (&a, &b)) in expected.iter().zip(&actual).enumerate() {
                let same = match close {
                    _ if a.is_nan() || b.is_nan() => a.is_nan() && b.is_nan(),
                    _ if exact => a.to_bits() == b.to_bits(),
                    Close::Within(share) => a == b || (a - b).abs() <= share * largest,
                    Close::Exactly => false,
                };
                assert!(same, "{ops:?} of {:?}: element {index} is {b} instead of {a}", self.inputs);
            }
        }
        legal
    }
}

/// A tensor of any type from numbers, which are rounded to it.
fn tensor(dtype: DType, dims: &[usize], values: &[f64]) -> Tensor {
    let ty = ty(dtype, dims);
    assert_eq!(ty.shape.count(), values.len(), "{ty}");
    let values = match dtype.class() {
        NumberClass::F32 => Values::F32(values.iter().map(|&x| x as f32).collect()),
        NumberClass::F64 => Values::F64(values.to_vec().into()),
        NumberClass::Signed => Values::Signed(values.iter().map(|&x| x as i64).collect()),
        NumberClass::Unsigned => Values::Unsigned(values.iter().map(|&x| x as u64).collect()),
    };
    Tensor::narrow(ty, values)
}

fn ty(dtype: DType, dims: &[usize]) -> TensorType {
    TensorType::new(dtype, Shape::new(dims.iter().copied()).unwrap())
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.to_f64s().unwrap()
}

/// The names of all operators.
fn names(graph: &Graph) -> Vec<&'static str> {
    graph.nodes().map(|(_, node)| node.op.name()).collect()
}

/// Fails unless all operators are ones that the machine runs. Says so apart from what judges.
fn assert_runs(graph: &Graph) {
    for (_, node) in graph.nodes() {
        let operand = |index: usize| graph.ty(node.inputs[index]);
        let runs = match &node.op {
            Op::Unary(_)
            | Op::Binary(_)
            | Op::Select(_)
            | Op::Cast(_)
            | Op::Reshape(_)
            | Op::Transpose(_)
            | Op::Broadcast(_)
            | Op::Slice(_)
            | Op::Window(_)
            | Op::Concat(_) => true,
            Op::Reduce(reduce) => reduce.function != ReduceFn::Mean,
            Op::Pad(pad) => {
                pad.interior.iter().all(|&between| between == 0) && pad.low.iter().chain(&pad.high).all(|&x| x >= 0)
            }
            Op::Gather(gather) => {
                let indices = node.inputs[1];
                let in_range = |index: i64| (0..operand(0).shape[0] as i64).contains(&index);
                let constant = graph.as_constant(indices).map(|indices| indices.to_i64s().unwrap().unwrap());
                gather.axis == 0
                    && match constant {
                        Some(constant) => constant.into_iter().all(in_range),
                        None => !graph.ty(indices).dtype.is_signed(),
                    }
            }
            Op::MatMul(MatMul { transpose_a: false, a_zero: false, b_zero: false, .. }) => {
                match (operand(0).dtype, operand(1).dtype) {
                    (DType::F16, DType::F16) | (DType::F32, DType::F32) => operand(0).shape.last() != Some(&1),
                    (a, b) => [a, b].iter().all(|dtype| matches!(dtype, DType::I8 | DType::U8)),
                }
            }
            _ => false,
        };
        assert!(runs, "the machine does not run {:?} of {:?}", node.op, graph.input_types(node));
    }
}
