// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

mod attention;
mod lots;
mod memory;

use tcc_ir::ops::*;
use tcc_ir::{Bytes, DType, Graph, Plan, Real, Shape as Dims, Tensor, TensorType, ValueId, evaluate};
use tcc_passes::{FusionLimits, clean_up, fuse};

use super::{Lowered, lower};
use crate::lpu::LpuMachine;
use crate::lpu::emit::emit;
use crate::lpu::layout::Layout;
use crate::lpu::legal::legal;
use crate::lpu::simulator::Simulator;
use crate::machine::Machine;

fn machine(name: &str) -> (Machine, LpuMachine) {
    let machine = Machine::built_in().unwrap().into_iter().find(|machine| machine.name == name).unwrap();
    let facts = machine.lpu.clone().unwrap();
    (machine, facts)
}

/// Compiles a graph, runs it, and gives its outputs and cycles.
fn run(name: &str, graph: &Graph, inputs: &[Tensor]) -> (Vec<Tensor>, u64) {
    let (machine, facts) = machine(name);
    let (outputs, cycles, _) = run_on(&machine, &facts, graph, inputs);
    (outputs, cycles)
}

/// The same on a machine of one's own, with what the graph was lowered to.
fn run_on(machine: &Machine, facts: &LpuMachine, graph: &Graph, inputs: &[Tensor]) -> (Vec<Tensor>, u64, Lowered) {
    let graph = legal(&clean_up(graph)).unwrap();
    run_plan(machine, facts, &fuse(graph, FusionLimits { row_bytes: Bytes(1 << 20), nodes: 48 }), inputs)
}

/// The same for a plan.
fn run_plan(machine: &Machine, facts: &LpuMachine, plan: &Plan, inputs: &[Tensor]) -> (Vec<Tensor>, u64, Lowered) {
    let mut lowered = lower(machine, facts, plan).unwrap();
    let emitted = emit(std::mem::take(&mut lowered.placed), facts).unwrap();
    let mut memory = vec![0; facts.memory_bytes() as usize];
    for constant in &lowered.constants {
        let mut bytes = Vec::new();
        constant.write(&mut bytes).unwrap();
        let mut rest = &bytes[..];
        for stretch in constant.stretches() {
            let (own, behind) = rest.split_at(stretch.vectors as usize * facts.vector());
            let at = Layout::offset(stretch.place, facts);
            memory[at..at + own.len()].copy_from_slice(own);
            rest = behind;
        }
        assert!(rest.is_empty());
    }
    for (tensor, layout) in inputs.iter().zip(&lowered.inputs) {
        layout.scatter(tensor.bytes().unwrap(), &mut memory, facts);
    }
    let mut simulator = Simulator::new(facts, &emitted.queues, memory).unwrap();
    let execution = simulator.run(|_, _| {}).unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(*simulator.counts(), lowered.counts);
    let outputs = plan.graph.outputs().iter().zip(&lowered.outputs).map(|(output, layout)| {
        let bytes = layout.gather(simulator.memory(), facts);
        Tensor::new(plan.graph.ty(output.value).clone(), tcc_ir::Data::from_bytes(bytes)).unwrap()
    });
    let outputs = outputs.collect();
    (outputs, execution.cycles, lowered)
}

/// Numbers that look random.
fn floats(dims: &[usize], seed: u64) -> Tensor {
    let shape = Dims::new(dims.iter().copied()).unwrap();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let numbers: Vec<f32> = (0..shape.count())
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % 2001) as f32 / 1000.0 - 1.0
        })
        .collect();
    Tensor::from_vec(shape, numbers).unwrap()
}

/// Bytes that look random.
fn bytes(dims: &[usize], factor: usize, dtype: DType) -> Tensor {
    let shape = Dims::new(dims.iter().copied()).unwrap();
    let bytes: Vec<u8> = (0..shape.count()).map(|index| (index * factor + 3) as u8).collect();
    Tensor::new(TensorType::new(dtype, shape), tcc_ir::Data::from_bytes(bytes)).unwrap()
}

fn ty(dtype: DType, dims: &[usize]) -> TensorType {
    TensorType::new(dtype, Dims::new(dims.iter().copied()).unwrap())
}

/// Runs a graph on both machines and compares it with its evaluation.
fn check(graph: &Graph, inputs: &[Tensor], tolerance: f64) {
    let expected = evaluate(graph, inputs).unwrap();
    for name in ["lpu-mini", "groq-tsp"] {
        let (outputs, cycles) = run(name, graph, inputs);
        for (output, expected) in outputs.iter().zip(&expected) {
            assert_eq!(output.ty(), expected.ty());
            let (a, b) = (output.to_f64s().unwrap(), expected.to_f64s().unwrap());
            for (index, (a, b)) in a.iter().zip(&b).enumerate() {
                assert!(
                    (a - b).abs() <= tolerance * b.abs().max(1.0) || a == b || (a.is_nan() && b.is_nan()),
                    "{name}: element {index} of {} is {a}, not {b}, after {cycles} cycles",
                    output.ty()
                );
            }
        }
    }
}

#[test]
fn chains() {
    for dims in [&[3, 5][..], &[2, 3, 16], &[40, 333], &[7, 1], &[6]] {
        let mut graph = Graph::new("chain");
        let x = graph.add_input("x", ty(DType::F32, dims));
        let y = graph.add_input("y", ty(DType::F32, &dims[dims.len() - 1..]));
        let half = graph.constant(Tensor::scalar(0.5f32));
        let a = graph.add(Binary(BinaryFn::Mul), &[x, half]).unwrap();
        let b = graph.add(Binary(BinaryFn::Add), &[a, y]).unwrap();
        let c = graph.add(Unary(UnaryFn::Tanh), &[b]).unwrap();
        let d = graph.add(Binary(BinaryFn::Mul), &[c, x]).unwrap();
        let e = graph.add(Unary(UnaryFn::Exp), &[d]).unwrap();
        let f = graph.add(Binary(BinaryFn::Sub), &[e, a]).unwrap();
        let g = graph.add(Binary(BinaryFn::Gt), &[f, half]).unwrap();
        let h = graph.add(Select {}, &[g, d, f]).unwrap();
        graph.add_output("b", b);
        graph.add_output("h", h);
        check(&graph, &[floats(dims, 1), floats(&dims[dims.len() - 1..], 2)], 1e-6);
    }
}

#[test]
fn reductions() {
    for dims in [&[3, 5][..], &[2, 3, 16], &[40, 333], &[2, 7, 1], &[70, 8], &[6]] {
        for axes in [vec![0], vec![dims.len() - 1], (0..dims.len()).collect()] {
            let mut graph = Graph::new("reduction");
            let x = graph.add_input("x", ty(DType::F32, dims));
            let a = graph.add(Unary(UnaryFn::Abs), &[x]).unwrap();
            for function in [ReduceFn::Max, ReduceFn::Sum, ReduceFn::Min] {
                let b = graph.add(Reduce { function, axes: axes.clone() }, &[a]).unwrap();
                let c = graph.add(Binary(BinaryFn::Sub), &[x, b]).unwrap();
                graph.add_output(format!("b{function:?}"), b);
                graph.add_output(format!("c{function:?}"), c);
            }
            check(&graph, &[floats(dims, 3)], 1e-5);
        }
    }
}

#[test]
fn movements() {
    let mut graph = Graph::new("movement");
    let x = graph.add_input("x", ty(DType::F32, &[3, 4, 10]));
    let swapped = graph.add(Transpose { perm: vec![1, 0, 2] }, &[x]).unwrap();
    let turned = graph.add(Transpose { perm: vec![0, 2, 1] }, &[x]).unwrap();
    let flat = graph.add(Reshape { shape: Dims::new([6, 20]).unwrap() }, &[x]).unwrap();
    let slice = graph
        .add(tcc_ir::ops::Slice { starts: vec![0, 1, 3], steps: vec![1, 2, 1], sizes: vec![3, 2, 5] }, &[x])
        .unwrap();
    let one = graph
        .add(tcc_ir::ops::Slice { starts: vec![0, 0, 3], steps: vec![1, 1, 1], sizes: vec![3, 4, 1] }, &[x])
        .unwrap();
    let row = graph.add(Reshape { shape: Dims::new([3, 4]).unwrap() }, &[one]).unwrap();
    let part = slice_of(&mut graph, x);
    let concat = graph.add(Concat { axis: 2 }, &[x, part, one]).unwrap();
    let stacked = graph.add(Concat { axis: 1 }, &[x, x]).unwrap();
    let zero = graph.constant(Tensor::scalar(7.0f32));
    let padded = graph.add(Pad { low: vec![0, 1, 2], high: vec![1, 0, 3], interior: vec![0; 3] }, &[x, zero]).unwrap();
    let padded_rows =
        graph.add(Pad { low: vec![2, 0, 0], high: vec![0, 1, 0], interior: vec![0; 3] }, &[x, zero]).unwrap();
    for (index, value) in
        [swapped, turned, flat, slice, one, row, concat, stacked, padded, padded_rows].into_iter().enumerate()
    {
        let value = graph.add(Unary(UnaryFn::Neg), &[value]).unwrap();
        graph.add_output(format!("y{index}"), value);
    }
    check(&graph, &[floats(&[3, 4, 10], 4)], 0.0);
}

fn slice_of(graph: &mut Graph, x: ValueId) -> ValueId {
    graph.add(tcc_ir::ops::Slice { starts: vec![0, 0, 2], steps: vec![1, 1, 1], sizes: vec![3, 4, 7] }, &[x]).unwrap()
}

#[test]
fn products() {
    for (m, k, n) in [(5, 7, 9), (1, 16, 1), (20, 8, 20), (9, 1, 6), (130, 40, 17)] {
        let mut graph = Graph::new("product");
        let x = graph.add_input("x", ty(DType::F32, &[2, m, k]));
        let y = graph.add_input("y", ty(DType::F32, &[2, k, n]));
        let w = graph.constant(floats(&[k, n], 5));
        let v = graph.constant(floats(&[n, k], 6));
        let a = graph.add(MatMul::default(), &[x, w]).unwrap();
        let b = graph.add(MatMul { transpose_b: true, ..MatMul::default() }, &[x, v]).unwrap();
        let c = graph.add(MatMul::default(), &[x, y]).unwrap();
        for (index, value) in [a, b, c].into_iter().enumerate() {
            graph.add_output(format!("y{index}"), value);
        }
        check(&graph, &[floats(&[2, m, k], 7), floats(&[2, k, n], 8)], 3e-3);
    }
}

#[test]
fn integer_products_are_exact() {
    let mut graph = Graph::new("product");
    let x = graph.add_input("x", ty(DType::U8, &[2, 21, 30]));
    let y = graph.add_input("y", ty(DType::I8, &[2, 13, 30]));
    let w = graph.constant(bytes(&[30, 11], 91, DType::I8));
    let a = graph.add(MatMul::default(), &[x, w]).unwrap();
    let b = graph.add(MatMul { transpose_b: true, ..MatMul::default() }, &[x, y]).unwrap();
    graph.add_output("a", a);
    graph.add_output("b", b);
    check(&graph, &[bytes(&[2, 21, 30], 37, DType::U8), bytes(&[2, 13, 30], 59, DType::I8)], 0.0);
}

#[test]
fn lookups() {
    let mut graph = Graph::new("lookup");
    let i = graph.add_input("i", ty(DType::I64, &[2, 3]));
    let x = graph.add_input("x", ty(DType::F32, &[6, 2, 12]));
    let table = graph.constant(floats(&[6, 19], 9));
    let flags = graph.constant(floats(&[6], 10));
    let square = graph.add(Unary(UnaryFn::Neg), &[x]).unwrap();
    for (index, data) in [table, flags, square].into_iter().enumerate() {
        let y = graph.add(Gather { axis: 0 }, &[data, i]).unwrap();
        graph.add_output(format!("y{index}"), y);
    }
    // What is an index is looked up in too.
    let next = graph.constant(Tensor::vector_i64(vec![3, 0, 5, 1, 2, 4]));
    let there = graph.add(Gather { axis: 0 }, &[next, i]).unwrap();
    let back = graph.add(Gather { axis: 0 }, &[next, there]).unwrap();
    graph.add_output("back", back);
    let flat = graph.add(Reshape { shape: Dims::new([6]).unwrap() }, &[there]).unwrap();
    let chained = graph.add(Gather { axis: 0 }, &[flat, i]).unwrap();
    let chained = graph.add(Gather { axis: 0 }, &[table, chained]).unwrap();
    graph.add_output("chained", chained);
    let fixed = graph.constant(Tensor::vector_i64(vec![5, 0, 0, 2]));
    let y = graph.add(Gather { axis: 0 }, &[square, fixed]).unwrap();
    graph.add_output("fixed", y);
    let indices = Tensor::from_vec(Dims::new([2, 3]).unwrap(), vec![0i64, 5, 3, 2, 2, 4]).unwrap();
    check(&graph, &[indices, floats(&[6, 2, 12], 11)], 0.0);
}

#[test]
fn softmax_and_norms() {
    for dims in [&[2, 9, 24][..], &[33, 400]] {
        let columns = dims[dims.len() - 1];
        let mut graph = Graph::new("norm");
        let x = graph.add_input("x", ty(DType::F32, dims));
        let axis = dims.len() - 1;
        let a = graph.add(Softmax { axis }, &[x]).unwrap();
        let (scale, bias) = (graph.constant(floats(&[columns], 12)), graph.constant(floats(&[columns], 14)));
        let mean = graph.add(Reduce { function: ReduceFn::Mean, axes: vec![axis] }, &[x]).unwrap();
        let centred = graph.add(Binary(BinaryFn::Sub), &[x, mean]).unwrap();
        let squared = graph.add(Binary(BinaryFn::Mul), &[centred, centred]).unwrap();
        let variance = graph.add(Reduce { function: ReduceFn::Mean, axes: vec![axis] }, &[squared]).unwrap();
        let deviation = graph.add(Unary(UnaryFn::Sqrt), &[variance]).unwrap();
        let normal = graph.add(Binary(BinaryFn::Div), &[centred, deviation]).unwrap();
        let scaled = graph.add(Binary(BinaryFn::Mul), &[normal, scale]).unwrap();
        let norm = graph.add(Binary(BinaryFn::Add), &[scaled, bias]).unwrap();
        graph.add_output("a", a);
        graph.add_output("norm", norm);
        check(&graph, &[floats(dims, 13)], 1e-5);
    }
}

/// A normalisation of as many rows as two lots of a product have, between element-wise values: what follows the first rows need
/// not wait for the last.
#[test]
fn norms_are_fast() {
    let dims = [128, 768];
    let mut graph = Graph::new("norm");
    let x = graph.add_input("x", ty(DType::F32, &dims));
    let x = graph.add(Unary(UnaryFn::Neg), &[x]).unwrap();
    let shifted = graph.constant(Tensor::scalar(20.0f32));
    let x = graph.add(Binary(BinaryFn::Add), &[x, shifted]).unwrap();
    let (scale, bias) = (graph.constant(floats(&dims[1..], 31)), graph.constant(floats(&dims[1..], 32)));
    let norm = LayerNorm { axis: 1, epsilon: Real(1e-12), bias: true };
    let y = graph.add(norm, &[x, scale, bias]).unwrap();
    let y = graph.add(Unary(UnaryFn::Abs), &[y]).unwrap();
    graph.add_output("x", x);
    graph.add_output("y", y);
    let inputs = [floats(&dims, 33)];
    let expected = evaluate(&graph, &inputs).unwrap();
    let (outputs, cycles) = run("groq-tsp", &graph, &inputs);
    let (found, expected) = (outputs[1].to_f64s().unwrap(), expected[1].to_f64s().unwrap());
    let power: f64 = expected.iter().map(|y| y * y).sum();
    let noise: f64 = expected.iter().zip(&found).map(|(y, found)| (y - found).powi(2)).sum();
    let snr_db = 10.0 * (power / noise).log10();
    assert!(snr_db > 100.0, "{snr_db} dB");
    assert!(cycles < 2300, "{cycles} cycles");
}

#[test]
fn exchanges() {
    for (dims, tolerance) in [([2, 40, 24], 0.0), ([1, 130, 64], 0.0), ([3, 16, 350], 0.0)] {
        let mut graph = Graph::new("exchange");
        let x = graph.add_input("x", ty(DType::F32, &dims));
        let turned = graph.add(Transpose { perm: vec![0, 2, 1] }, &[x]).unwrap();
        let turned = graph.add(Unary(UnaryFn::Neg), &[turned]).unwrap();
        graph.add_output("turned", turned);
        // Heads of an attention: columns of the same rows.
        let split = graph.add(Reshape { shape: Dims::new([dims[0], dims[1], 2, dims[2] / 2]).unwrap() }, &[x]).unwrap();
        let heads = graph.add(Transpose { perm: vec![0, 2, 3, 1] }, &[split]).unwrap();
        let heads = graph.add(Unary(UnaryFn::Abs), &[heads]).unwrap();
        graph.add_output("heads", heads);
        check(&graph, &[floats(&dims, 21)], tolerance);
    }
}

#[test]
fn products_of_exchanged_operands() {
    let mut graph = Graph::new("attention");
    let x = graph.add_input("x", ty(DType::F32, &[48, 64]));
    let split = graph.add(Reshape { shape: Dims::new([48, 2, 32]).unwrap() }, &[x]).unwrap();
    let heads = graph.add(Transpose { perm: vec![1, 0, 2] }, &[split]).unwrap();
    let keys = graph.add(Transpose { perm: vec![1, 2, 0] }, &[split]).unwrap();
    let scores = graph.add(MatMul::default(), &[heads, keys]).unwrap();
    let values = graph.add(MatMul::default(), &[scores, heads]).unwrap();
    graph.add_output("scores", scores);
    graph.add_output("values", values);
    check(&graph, &[floats(&[48, 64], 22)], 2e-2);
}

/// What an exchange leaves in memory is not in the lanes behind the rows of a later one that has fewer.
#[test]
fn exchanges_of_fewer_rows_leave_zeros_behind() {
    let mut graph = Graph::new("bytes");
    let many = graph.add_input("many", ty(DType::U8, &[48, 48]));
    let few = graph.add_input("few", ty(DType::U8, &[17, 48]));
    let rows = graph.add_input("rows", ty(DType::U8, &[40, 17]));
    let three = graph.constant(Tensor::scalar_of(DType::U8, 3.0));
    // Each workspace is used before.
    for index in 0..8 {
        let own = graph.constant(Tensor::scalar_of(DType::U8, f64::from(index)));
        let other = graph.add(Binary(BinaryFn::Max), &[many, own]).unwrap();
        let first = graph.add(MatMul::default(), &[many, other]).unwrap();
        graph.add_output(format!("first{index}"), first);
    }
    // Lanes behind these rows are 3.
    let more = graph.add(Binary(BinaryFn::Max), &[rows, three]).unwrap();
    let turned = graph.add(Binary(BinaryFn::Max), &[few, three]).unwrap();
    let second = graph.add(MatMul::default(), &[more, turned]).unwrap();
    graph.add_output("second", second);
    let inputs = [([48, 48], 31), ([17, 48], 37), ([40, 17], 41)];
    check(&graph, &inputs.map(|(dims, step)| bytes(&dims, step, DType::U8)), 0.0);
}

#[test]
fn attention() {
    let mut graph = Graph::new("attention");
    let x = graph.add_input("x", ty(DType::F32, &[40, 64]));
    let mask = graph.add_input("mask", ty(DType::F32, &[1, 40]));
    let weights = graph.constant(floats(&[64, 96], 23));
    let bias = graph.constant(floats(&[96], 24));
    let half = graph.constant(Tensor::scalar(0.5f32));
    let x = graph.add(MatMul::default(), &[x, weights]).unwrap();
    let x = graph.add(Binary(BinaryFn::Add), &[x, bias]).unwrap();
    let split = graph.add(Reshape { shape: Dims::new([40, 3, 32]).unwrap() }, &[x]).unwrap();
    let heads = graph.add(Transpose { perm: vec![1, 0, 2] }, &[split]).unwrap();
    let keys = graph.add(Transpose { perm: vec![1, 2, 0] }, &[split]).unwrap();
    let scores = graph.add(MatMul::default(), &[heads, keys]).unwrap();
    let scores = graph.add(Binary(BinaryFn::Mul), &[scores, half]).unwrap();
    let scores = graph.add(Binary(BinaryFn::Add), &[scores, mask]).unwrap();
    let chosen = graph.add(Softmax { axis: 2 }, &[scores]).unwrap();
    let values = graph.add(MatMul::default(), &[chosen, heads]).unwrap();
    let joined = graph.add(Transpose { perm: vec![1, 0, 2] }, &[values]).unwrap();
    let joined = graph.add(Reshape { shape: Dims::new([40, 96]).unwrap() }, &[joined]).unwrap();
    let back = graph.constant(floats(&[96, 64], 25));
    let y = graph.add(MatMul::default(), &[joined, back]).unwrap();
    graph.add_output("y", y);
    check(&graph, &[floats(&[40, 64], 26), floats(&[1, 40], 27)], 2e-2);
}
