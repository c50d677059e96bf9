//! What attention takes besides its weights, at widths that a large part has room for: values against the reference evaluation, and
//! cycles that are known by hand.
#![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

use tcc_ir::ops::{
    Binary, BinaryFn, Broadcast, Cast, LayerNorm, MatMul, Reduce, ReduceFn, Reshape, Rope, Softmax, Unary, UnaryFn,
};
use tcc_ir::{DType, Graph, Op, Real, Shape, Tensor, TensorType, ValueId, evaluate};

use super::{Widths, lower};
use crate::fpga::compile::program;
use crate::fpga::nest::{ArrayId, Kind};
use crate::fpga::operators::{Class, Float};
use crate::fpga::place::{Shares, place};
use crate::fpga::program::{Other, Times};
use crate::fpga::schedule::Schedule;
use crate::fpga::{Fpga, FpgaMachine};
use crate::machine::Machine;
use crate::target::{Optimization, Program as _};

/// Widths that a large part has room for.
const WIDE: Widths = Widths { lanes: 64, integer_macs: 64, float_macs: 512, has_engine: false };

fn large() -> (Machine, FpgaMachine) {
    let machine = Machine::parse("u280", Machine::built_in_text("u280").unwrap()).unwrap();
    let facts = machine.fpga.clone().unwrap();
    (machine, facts)
}

/// Numbers between -1 and 1 that look like chance.
fn numbers(ty: &TensorType, seed: u32) -> Tensor {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
    };
    let values: Vec<f32> = (0..ty.shape.count()).map(|_| next()).collect();
    Tensor::from_vec(ty.shape.clone(), values).unwrap()
}

/// Compiles a graph, compares what it computes with the reference, and returns the schedules of its functions.
fn checked(graph: &Graph, widths: Widths) -> Vec<Schedule> {
    optimized(graph, widths, Optimization::None)
}

/// The same of an optimised graph.
fn optimized(graph: &Graph, widths: Widths, optimization: Optimization) -> Vec<Schedule> {
    let (machine, facts) = large();
    let plan = Fpga::new(machine.clone()).unwrap().plan(graph, optimization).unwrap();
    let build = || {
        let lowered = lower(&plan, widths).unwrap();
        let shares = Shares { values: 0.75, all: 0.75 };
        let placed = place(&plan, &lowered, (&facts, machine.clock_hz), (widths, shares)).unwrap();
        let what = (&placed.calls[..], &placed.buffers[..], &placed.loads[..]);
        let times = Times::new(&placed.design, what, &facts, machine.clock_hz).unwrap();
        (lowered, placed, times)
    };
    let (lowered, placed, times) = build();
    let program = program(&machine, &facts, (&plan, Vec::new(), Other::default()), (&lowered, placed, times)).unwrap();
    let mut weights = Vec::new();
    program.write_weights(&mut weights).unwrap();
    let inputs: Vec<Tensor> =
        graph.inputs().iter().enumerate().map(|(seed, &input)| numbers(graph.ty(input), seed as u32)).collect();
    let expected = evaluate(graph, &inputs).unwrap();
    let found = program.simulate(&weights, &inputs).unwrap().outputs;
    for (found, expected) in found.iter().zip(&expected) {
        let (found, expected) = (found.to_f64s().unwrap(), expected.to_f64s().unwrap());
        let most = expected.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
        let error = found.iter().zip(&expected).fold(0.0, |most: f64, (a, b)| most.max((a - b).abs()));
        assert!(error <= most * 0.01, "an error of {error} where the greatest value is {most}");
    }
    build().2.functions
}

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims.iter().copied()).unwrap()
}

fn input(graph: &mut Graph, name: &str, dims: &[usize]) -> ValueId {
    graph.add_input(name, TensorType::new(DType::F32, shape(dims)))
}

/// A value that is computed by a call of its own, so that it lies on the part.
fn on_chip(graph: &mut Graph, name: &str, dims: &[usize]) -> ValueId {
    let value = input(graph, name, dims);
    graph.add(Unary(UnaryFn::Neg), &[value]).unwrap()
}

/// Heads of keys or values, each for so many of queries.
fn repeated(graph: &mut Graph, value: ValueId, times: usize) -> ValueId {
    let dims = graph.shape(value).to_vec();
    let [batch, heads, rows, columns] = dims[..] else { return value };
    let apart = shape(&[batch, heads, 1, rows, columns]);
    let value = graph.add(Reshape { shape: apart }, &[value]).unwrap();
    let value = graph.add(Broadcast { shape: shape(&[batch, heads, times, rows, columns]) }, &[value]).unwrap();
    graph.add(Reshape { shape: shape(&[batch, heads * times, rows, columns]) }, &[value]).unwrap()
}

/// A product with weights of floats.
fn weighted([m, n, k]: [usize; 3]) -> Graph {
    let mut graph = Graph::new("weighted");
    let a = on_chip(&mut graph, "a", &[1, m, k]);
    let b = graph.constant(numbers(&TensorType::new(DType::F32, shape(&[k, n])), 7));
    let y = graph.add(MatMul::default(), &[a, b]).unwrap();
    graph.add_output("y", y);
    graph
}

/// Integers of eight bits times constants.
fn of_integers([m, n, k]: [usize; 3], transpose_b: bool) -> Graph {
    let mut graph = Graph::new("of_integers");
    let a = input(&mut graph, "a", &[1, m, k]);
    let most = graph.constant(Tensor::from_vec(shape(&[1]), vec![127.0f32]).unwrap());
    let a = graph.add(Binary(BinaryFn::Mul), &[a, most]).unwrap();
    let a = graph.add(Unary(UnaryFn::Round), &[a]).unwrap();
    let a = graph.add(Cast { to: DType::I8 }, &[a]).unwrap();
    let weights: Vec<i8> = (0..n * k).map(|place| (place * place % 251) as u8 as i8).collect();
    let b = if transpose_b { [n, k] } else { [k, n] };
    let b = graph.constant(Tensor::from_vec(shape(&b), weights).unwrap());
    let y = graph.add(MatMul { transpose_b, ..MatMul::default() }, &[a, b]).unwrap();
    let y = graph.add(Cast { to: DType::F32 }, &[y]).unwrap();
    graph.add_output("y", y);
    graph
}

#[test]
fn tiles_of_integers_are_right() {
    for (lanes, integer_macs) in [(16, 1024), (4, 512), (32, 256)] {
        for extents in [[16, 64, 32], [21, 32, 96], [3, 128, 64], [1, 256, 128], [50, 32, 16]] {
            for transpose_b in [false, true] {
                let widths = Widths { lanes, integer_macs, float_macs: 1, has_engine: true };
                let schedules = checked(&of_integers(extents, transpose_b), widths);
                // Rows are brought into order, multiplied, and go on to what follows, all in an iteration a cycle.
                assert_eq!(schedules.iter().flat_map(Schedule::intervals).max(), Some(1), "{extents:?} {widths:?}");
            }
        }
    }
}

/// A product of so many heads of queries, of which some share one of keys or values.
fn product(heads: usize, times: usize, [m, n, k]: [usize; 3], transpose_b: bool) -> Graph {
    let mut graph = Graph::new("product");
    let a = on_chip(&mut graph, "a", &[1, heads, m, k]);
    let own = if transpose_b { [1, heads / times, n, k] } else { [1, heads / times, k, n] };
    let b = on_chip(&mut graph, "b", &own);
    let b = repeated(&mut graph, b, times);
    let y = graph.add(MatMul { transpose_b, ..MatMul::default() }, &[a, b]).unwrap();
    graph.add_output("y", y);
    graph
}

#[test]
fn products_of_any_extents_are_right() {
    let narrow = Widths { lanes: 4, integer_macs: 4, float_macs: 8, has_engine: false };
    for widths in [WIDE, narrow, Widths { lanes: 16, integer_macs: 1, float_macs: 1, has_engine: false }] {
        let all = [[1, 64, 32], [3, 10, 24], [5, 7, 9], [17, 6, 128], [2, 1, 1], [1, 48, 64], [4, 128, 24]];
        all.into_iter().for_each(|extents| {
            checked(&weighted(extents), widths);
        });
        for transpose_b in [true, false] {
            for extents in all {
                checked(&product(4, 2, extents, transpose_b), widths);
                checked(&product(3, 3, extents, transpose_b), widths);
                checked(&product(2, 1, extents, transpose_b), widths);
            }
        }
    }
}

#[test]
fn words_are_read_once_for_all_heads_that_share_them() {
    // Two words of 64 elements are 2 columns, for each of 4 heads 128 products a cycle. Of 1,024 columns of two matrices, those are 1,024
    // iterations of one loop; 4 rows of each come two at a time, and results are then written with 16 words each.
    let schedules = checked(&product(8, 4, [1, 1024, 64], true), WIDE);
    let own = schedules.last().unwrap();
    assert_eq!(own.intervals(), [2, 1, 1]);
    assert_eq!([0, 1, 2].map(|id| own.nest.loops[id].trips()), [2, 1024, 32]);
    // The same with values: two steps of 64 columns in an iteration, whose sums go round.
    let schedules = checked(&product(8, 4, [1, 64, 1024], false), WIDE);
    let own = schedules.last().unwrap();
    // Rows are brought two at a time; what follows is done row by row.
    assert_eq!(own.intervals(), [2, 1, 1]);
    assert_eq!([0, 1, 2, 3].map(|id| own.nest.loops[id].trips()), [2, 16, 512, 4]);
    // Beside the iterations, some for each matrix, and the latency of the memory that the result is written to.
    assert!(own.cycles() < 2 * (512 + 110) + 130, "{} cycles", own.cycles());
}

#[test]
fn matrices_of_many_heads_go_by_in_one_loop() {
    // Eight matrices of 512 iterations; rows of all come in 32 elements side by side, two at a time, and 16 sums of each are added up.
    let schedules = checked(&product(32, 4, [1, 64, 1024], false), WIDE);
    let own = schedules.last().unwrap();
    assert_eq!([0, 1, 2, 3].map(|id| own.nest.loops[id].trips()), [256, 4096, 16 * 8, 8]);
    assert_eq!(own.intervals()[..2], [2, 1]);
    // An addition to one of eight totals is over after nine cycles: iterations begin every other cycle.
    assert!(own.cycles() < 4096 + 2 * 256 + 2 * 128 + 400, "{} cycles", own.cycles());
}

#[test]
fn few_columns_are_right() {
    // Fewer lanes than steps in an iteration.
    for [m, n, k] in [[3, 3, 4], [2, 1, 16], [4, 3, 8]] {
        checked(&product(8, 1, [m, n, k], false), WIDE);
    }
}

#[test]
fn no_more_is_multiplied_than_there_are_multipliers() {
    for macs in [8, 64, 512] {
        for (graph, name) in [
            (product(8, 4, [1, 256, 64], true), "scores"),
            (product(8, 4, [1, 64, 256], false), "values"),
            (weighted([1, 2048, 64]), "weights"),
        ] {
            let schedules = checked(&graph, Widths { float_macs: macs, ..WIDE });
            let own = schedules.last().unwrap();
            let count = |class: Class| own.usage().operators.get(&class).copied().unwrap_or(0);
            assert_eq!(count(Class::Single(Float::Multiply)), u64::from(macs), "{name}");
            assert!(count(Class::Single(Float::Add)) <= u64::from(macs), "{name}");
        }
    }
}

/// Rows of a value on the part, and what an operator makes of them.
fn of_rows(dims: &[usize], op: impl Into<Op>) -> Graph {
    let mut graph = Graph::new("rows");
    let x = on_chip(&mut graph, "x", dims);
    let half = graph.constant(Tensor::from_vec(shape(&[1]), vec![0.5f32]).unwrap());
    let x = graph.add(Binary(BinaryFn::Mul), &[x, half]).unwrap();
    let y = graph.add(op, &[x]).unwrap();
    graph.add_output("y", y);
    graph
}

#[test]
fn rows_go_through_passes_together() {
    // 32 rows of 16 words: three passes of 512 iterations, and two over rows alone.
    let schedules = checked(&of_rows(&[1, 32, 1, 1024], Softmax { axis: 3 }), WIDE);
    let own = schedules.last().unwrap();
    assert_eq!(own.intervals(), [1, 1, 1, 1, 1]);
    assert_eq!(own.nest.loops.iter().map(|own| own.trips()).sum::<u64>(), 3 * 512 + 2 * 32);
    // Beside the iterations there are their depths, and what is waited for the memory that the result is written to.
    let waits: u64 = own.loops.iter().map(|own| own.waits).sum();
    let cycles = own.cycles() - waits;
    assert!(cycles < 3 * 512 + 2 * 32 + 330, "{cycles} cycles");
}

#[test]
fn passes_over_rows_are_right() {
    let narrow = Widths { lanes: 4, integer_macs: 1, float_macs: 1, has_engine: false };
    for widths in [WIDE, narrow] {
        for (dims, axis) in [
            (&[100, 96][..], 1),
            (&[10, 96, 3], 1),
            (&[9, 1024], 1),
            (&[17, 1, 50], 2),
            (&[3, 13, 197], 2),
            (&[31, 131], 1),
        ] {
            checked(&of_rows(dims, Softmax { axis }), widths);
            for function in [ReduceFn::Mean, ReduceFn::Max] {
                checked(&of_rows(dims, Reduce { function, axes: vec![axis] }), widths);
            }
        }
    }
}

#[test]
fn nothing_is_kept_that_nobody_reads() {
    // Of a normalisation the squares are wanted once, to be added up.
    let mut graph = Graph::new("norm");
    let x = on_chip(&mut graph, "x", &[64, 1024]);
    let scale = input(&mut graph, "scale", &[1024]);
    let y = graph.add(LayerNorm { axis: 1, epsilon: Real(1e-5), bias: false }, &[x, scale]).unwrap();
    graph.add_output("y", y);
    let own = checked(&graph, WIDE);
    let own = own.last().unwrap();
    let is_read = |array: ArrayId| own.nest.ops.iter().any(|op| matches!(op.kind, Kind::Load(own, _) if own == array));
    assert!(own.memories.iter().all(|memory| is_read(memory.array)));
}

#[test]
fn halves_of_rows_are_rotated_without_conflicts() {
    let mut graph = Graph::new("rotated");
    let x = on_chip(&mut graph, "x", &[1, 8, 1, 64]);
    let [cos, sin] = ["cos", "sin"].map(|name| on_chip(&mut graph, name, &[1, 8, 1, 32]));
    let y = graph.add(Rope { interleaved: false }, &[x, cos, sin]).unwrap();
    graph.add_output("y", y);
    for lanes in [16, 32, 64] {
        let schedules = optimized(&graph, Widths { lanes, ..WIDE }, Optimization::Greedy);
        assert_eq!(schedules.last().unwrap().intervals(), [1], "{lanes} lanes");
    }
}
