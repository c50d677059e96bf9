//! Attention as one: with heads that lie beside each other in the lanes of rows, and with heads that have rows of their own.

use tcc_ir::ops::*;
use tcc_ir::{DType, Graph, Op, Real, Shape as Dims, Tensor, ValueId, evaluate};

use super::{floats, machine, run_plan, ty};
use crate::lpu::compile::plan;
use crate::target::Optimization;

const PLAIN: Attention = Attention::scaled(0.25);

/// Heads, key heads, queries, keys, features.
type Extents = [usize; 5];

/// Heads of an input `[batch, rows, heads * depth]`.
fn heads_of(graph: &mut Graph, name: &str, [batch, rows, heads, depth]: [usize; 4]) -> ValueId {
    let x = graph.add_input(name, ty(DType::F32, &[batch, rows, heads * depth]));
    let apart = graph.add(Reshape { shape: Dims::new([batch, rows, heads, depth]).unwrap() }, &[x]).unwrap();
    graph.add(Transpose { perm: vec![0, 2, 1, 3] }, &[apart]).unwrap()
}

/// Runs an attention on both machines, and compares it with its evaluation.
fn check(op: Attention, [heads, groups, queries, keys, depth]: Extents, mask: Option<Tensor>) {
    let mut graph = Graph::new("attention");
    let mut operands = vec![
        heads_of(&mut graph, "q", [1, queries, heads, depth]),
        heads_of(&mut graph, "k", [1, keys, groups, depth]),
        heads_of(&mut graph, "v", [1, keys, groups, depth]),
    ];
    let mut inputs: Vec<Tensor> = [(queries, heads, 1), (keys, groups, 2), (keys, groups, 3)]
        .map(|(rows, heads, seed)| floats(&[1, rows, heads * depth], seed))
        .to_vec();
    let op = Attention { mask: mask.is_some(), ..op };
    if let Some(mask) = mask {
        operands.push(graph.add_input("mask", mask.ty().clone()));
        inputs.push(mask);
    }
    let y = graph.add(op, &operands).unwrap();
    let beside = graph.add(Transpose { perm: vec![0, 2, 1, 3] }, &[y]).unwrap();
    let shape = Dims::new([1, queries, heads * depth]).unwrap();
    let merged = graph.add(Reshape { shape }, &[beside]).unwrap();
    let twice = graph.add(Binary(BinaryFn::Add), &[merged, merged]).unwrap();
    graph.add_output("heads", y);
    graph.add_output("rows", twice);
    let expected = evaluate(&graph, &inputs).unwrap();
    for name in ["lpu-mini", "groq-tsp"] {
        let (machine, facts) = machine(name);
        let plan = plan(&machine, &facts, &graph, Optimization::Exact, false).unwrap().plan;
        let whole = plan.graph.nodes().any(|(_, node)| matches!(node.op, Op::Attention(_)));
        assert_eq!(whole, name == "groq-tsp" && 2 * depth <= facts.vector(), "{name}");
        let (outputs, ..) = run_plan(&machine, &facts, &plan, &inputs);
        for (output, expected) in outputs.iter().zip(&expected) {
            let (a, b) = (output.to_f64s().unwrap(), expected.to_f64s().unwrap());
            for (index, (a, b)) in a.iter().zip(&b).enumerate() {
                let near = (a - b).abs() <= 4e-3 || (a.is_nan() && b.is_nan());
                assert!(near, "{name}: element {index} of {} is {a}, not {b}", output.ty());
            }
        }
    }
}

#[test]
fn heads_beside_each_other() {
    check(PLAIN, [5, 5, 40, 36, 64], None);
    check(PLAIN, [3, 3, 33, 70, 8], None);
    // Heads that lie across blocks of lanes.
    check(PLAIN, [5, 5, 35, 33, 96], None);
}

#[test]
fn heads_that_share_keys() {
    check(PLAIN, [4, 2, 34, 40, 16], None);
}

#[test]
fn caps_and_what_is_visible() {
    check(Attention { softcap: Real(0.5), ..PLAIN }, [2, 2, 34, 40, 16], None);
    check(Attention { causal: Some(0), ..PLAIN }, [3, 3, 40, 40, 64], None);
    check(Attention { causal: Some(2), window: Some(9), ..PLAIN }, [2, 2, 34, 40, 32], None);
}

#[test]
fn masks() {
    let truths = |dims: &[usize], truths: Vec<bool>| {
        let bytes: Vec<u8> = truths.into_iter().map(u8::from).collect();
        Tensor::new(ty(DType::Bool, dims), tcc_ir::Data::from_bytes(bytes)).unwrap()
    };
    let some = floats(&[34, 40], 10).to_f64s().unwrap().iter().map(|&number| number > -0.5).collect();
    check(PLAIN, [3, 3, 34, 40, 64], Some(floats(&[1, 1, 1, 40], 7)));
    check(PLAIN, [3, 3, 34, 40, 64], Some(floats(&[1, 1, 34, 40], 8)));
    check(PLAIN, [3, 3, 34, 40, 64], Some(floats(&[1, 3, 34, 40], 9)));
    check(PLAIN, [2, 2, 34, 40, 16], Some(truths(&[34, 40], some)));
    // Rows with nothing to attend to.
    let mut none = vec![true; 34 * 40];
    none[5 * 40..6 * 40].fill(false);
    check(Attention { zero_masked_rows: true, ..PLAIN }, [2, 2, 34, 40, 16], Some(truths(&[34, 40], none)));
}
