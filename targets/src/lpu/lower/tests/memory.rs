//! What shares vectors so that it takes less memory: rests of columns of weights, and tables in parts.

use tcc_ir::ops::*;
use tcc_ir::{DType, Graph, Shape as Dims, Tensor, evaluate};

use super::{floats, machine, run_on, ty};
use crate::lpu::LpuMachine;
use crate::lpu::constants::{Form, Source};
use crate::lpu::lower::{Lowered, Thrift, lower_as};

/// Small whole numbers, of which halves hold all and singles all sums of products.
fn whole(dims: &[usize], seed: u64) -> Tensor {
    let numbers = floats(dims, seed).to_f64s().unwrap();
    let numbers: Vec<f32> = numbers.into_iter().map(|number| (number * 16.0).round() as f32).collect();
    Tensor::from_vec(Dims::new(dims.iter().copied()).unwrap(), numbers).unwrap()
}

/// Runs a graph on a machine whose slices have so many vectors, and wants what it should be, exactly.
fn check(name: &str, words: u32, graph: &Graph, inputs: &[Tensor]) -> Lowered {
    let (machine, mut facts) = machine(name);
    facts.mem.words = words;
    let (outputs, cycles, lowered) = run_on(&machine, &facts, graph, inputs);
    for (output, expected) in outputs.iter().zip(&evaluate(graph, inputs).unwrap()) {
        let (a, b) = (output.to_f64s().unwrap(), expected.to_f64s().unwrap());
        assert_eq!(output.ty(), expected.ty());
        let wrong = a.iter().zip(&b).position(|(a, b)| a != b);
        assert_eq!(wrong, None, "{name}: {} after {cycles} cycles", output.ty());
    }
    lowered
}

fn shelves(lowered: &Lowered) -> usize {
    lowered.constants.iter().filter(|constant| matches!(constant.form, Form::Shelf(..))).count()
}

#[test]
fn rests_of_columns_share_vectors() {
    // Odd and even numbers of blocks of columns; rests below and above half of the lanes, with whole vectors and without.
    for (k, n) in [(3, 8), (3, 17), (4, 24), (7, 16), (10, 24), (12, 33), (20, 8), (22, 40), (21, 16), (16, 9)] {
        let mut graph = Graph::new("product");
        let x = graph.add_input("x", ty(DType::F32, &[5, k]));
        let z = graph.add_input("z", ty(DType::F32, &[2, 9, 13]));
        let w = graph.constant(whole(&[k, n], 1));
        let v = graph.constant(whole(&[n, k], 2));
        let u = graph.constant(whole(&[2, 13, n], 3));
        let a = graph.add(MatMul::default(), &[x, w]).unwrap();
        let b = graph.add(MatMul { transpose_b: true, ..MatMul::default() }, &[x, v]).unwrap();
        let c = graph.add(MatMul::default(), &[z, u]).unwrap();
        // The same rows with weights that are computed.
        let d = graph.add(MatMul { transpose_b: true, ..MatMul::default() }, &[x, x]).unwrap();
        // Rows that are stored as they are multiplied.
        let e = graph.add(Unary(UnaryFn::Neg), &[x]).unwrap();
        let e = graph.add(MatMul::default(), &[e, w]).unwrap();
        for (index, value) in [a, b, c, d, e].into_iter().enumerate() {
            graph.add_output(format!("y{index}"), value);
        }
        let lowered = check("lpu-mini", 1024, &graph, &[whole(&[5, k], 4), whole(&[2, 9, 13], 5)]);
        assert_eq!(shelves(&lowered), 1);
    }
}

#[test]
fn rests_share_vectors_on_both_sides_of_the_chip() {
    for (m, k, n) in [(130, 400, 700), (3, 480, 970), (40, 100, 640)] {
        let mut graph = Graph::new("product");
        let x = graph.add_input("x", ty(DType::F32, &[m, k]));
        let w = graph.constant(whole(&[k, n], 6));
        let a = graph.add(MatMul::default(), &[x, w]).unwrap();
        graph.add_output("y", a);
        let lowered = check("groq-tsp", 4096, &graph, &[whole(&[m, k], 7)]);
        let vectors = |form: &Form| match form {
            Form::Shelf(shelf, _) => shelf.stretches.len() * shelf.depth() * 16,
            Form::Tiles(tiles) => tiles.slices.len() * tiles.k_blocks() * tiles.n.div_ceil(16) * 2,
            Form::Rows(_) => 0,
        };
        let stored: usize = lowered.constants.iter().map(|constant| vectors(&constant.form)).sum();
        let padded = n.next_multiple_of(16) * 2 * k.div_ceil(320);
        let least = n * k.div_ceil(160);
        assert!((least..padded).contains(&stored), "{stored} of {padded}");
    }
}

#[test]
fn rows_are_looked_up_in_parts_of_tables() {
    let part_counts = |lowered: &Lowered| {
        let is_head = |source: &Source| matches!(source, Source::Heads(..));
        let is_tail = |source: &Source| matches!(source, Source::Tails(..));
        let count = |is: &dyn Fn(&Source) -> bool| lowered.constants.iter().filter(|own| is(&own.source)).count();
        (count(&is_head), count(&is_tail))
    };
    // Entries of one vector and 3 lanes, which two share; of 3 lanes alone; of one vector and 7 lanes, which nobody shares.
    for (entries, columns, parts) in [(301, 11, (3, 2)), (40, 11, (1, 1)), (300, 3, (0, 2)), (90, 15, (2, 0))] {
        let mut graph = Graph::new("lookup");
        let i = graph.add_input("i", ty(DType::I64, &[2, 9]));
        let table = graph.constant(whole(&[entries, columns], 8));
        let found = graph.add(Gather { axis: 0 }, &[table, i]).unwrap();
        let negated = graph.add(Unary(UnaryFn::Neg), &[found]).unwrap();
        graph.add_output("negated", negated);
        let last = entries as i64 - 1;
        let chosen = [0, 1, 2, 3, last, last - 1, 99, 100, 101, 102, 103, 100, 151, 152, 149, 150, 200, 201];
        let chosen: Vec<i64> = chosen.into_iter().map(|index| index.min(last)).collect();
        let indices = Tensor::from_vec(Dims::new([2, 9]).unwrap(), chosen).unwrap();
        let lowered = check("lpu-mini", 64, &graph, std::slice::from_ref(&indices));
        assert_eq!(part_counts(&lowered), parts, "{entries} {columns}");
        // What is a result has its own type.
        graph.add_output("found", found);
        check("lpu-mini", 64, &graph, &[indices]);
    }
}

#[test]
fn other_tables_are_looked_up_in_parts_too() {
    let mut graph = Graph::new("lookup");
    let i = graph.add_input("i", ty(DType::I64, &[40]));
    let numbers: Vec<i64> = (0..90 * 2 * 5).map(|number| number * 0x0123_4567_89ab - 77).collect();
    let numbers = graph.constant(Tensor::from_vec(Dims::new([90, 2, 5]).unwrap(), numbers).unwrap());
    let flags = graph.constant(floats(&[301], 9));
    for (name, data) in [("numbers", numbers), ("flags", flags)] {
        let found = graph.add(Gather { axis: 0 }, &[data, i]).unwrap();
        graph.add_output(name, found);
    }
    let indices = Tensor::vector_i64((0..40).map(|index| index * 7 % 90).collect());
    let lowered = check("lpu-mini", 128, &graph, &[indices]);
    assert!(lowered.constants.iter().any(|constant| matches!(constant.source, Source::Heads(..))));
}

#[test]
fn a_model_that_fills_memory_is_lowered_with_halves() {
    let mut graph = Graph::new("full");
    let x = graph.add_input("x", ty(DType::F32, &[96, 3]));
    let mut y = x;
    for (seed, k) in [(0, 3), (1, 20), (2, 20), (3, 20)] {
        let w = graph.constant(whole(&[k, 20], 10 + seed));
        let zero = graph.constant(Tensor::scalar(0f32));
        let product = graph.add(MatMul::default(), &[y, w]).unwrap();
        let less = graph.add(Binary(BinaryFn::Min), &[product, zero]).unwrap();
        let sign = graph.add(Unary(UnaryFn::Sign), &[less]).unwrap();
        // What products hand on besides is small enough to be exact.
        y = if k == 3 { sign } else { graph.add(Binary(BinaryFn::Add), &[sign, y]).unwrap() };
    }
    graph.add_output("y", y);
    let (machine, facts) = machine("lpu-mini");
    let fits = |facts: &LpuMachine, thrift| {
        let graph = crate::lpu::legal::legal(&tcc_passes::clean_up(&graph)).unwrap();
        let limits = tcc_passes::FusionLimits { row_bytes: tcc_ir::Bytes(1 << 20), nodes: 48 };
        lower_as(&machine, facts, &tcc_passes::fuse(graph, limits), thrift).is_ok()
    };
    let least = |thrift| {
        let mut facts = facts.clone();
        (8..4096).find(|&words| {
            facts.mem.words = words;
            fits(&facts, thrift)
        })
    };
    let (with, without) = (least(Thrift::Ample).unwrap(), least(Thrift::Meagre).unwrap());
    assert!(without < with, "{without} {with}");
    check("lpu-mini", without, &graph, &[whole(&[96, 3], 20)]);
}
