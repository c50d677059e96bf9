//! What attention kernels cannot hold.

use tcc_ir::ops::{Attention, Binary, BinaryFn, Reshape, Slice};
use tcc_ir::{DType, Graph, NodeId, Op};

use super::harness::{Bench, PLAIN, compile, machine, plan, shape};
use super::plain;
use crate::systolic::lower::attention::{attention_prologue_supported, attention_supported};
use crate::target::TargetError;

#[test]
fn a_row_that_no_scratchpad_holds() {
    let bench = plain(DType::F32, PLAIN, [1, 1, 1, 2, 3, 40_000, 2]);
    let error = compile(plan(&bench.graph), &machine(8, 64 << 10, 64)).err().unwrap();
    assert!(matches!(&error, TargetError::DoesNotFit { memory, .. } if memory == "scratchpad"), "{error}");
}

fn attention_of(graph: &Graph) -> NodeId {
    graph.nodes().find(|(_, node)| matches!(node.op, Op::Attention(_))).map(|(id, _)| id).unwrap()
}

#[test]
fn types_that_the_array_does_not_multiply() {
    for (dtype, supported) in [(DType::F64, false), (DType::F32, true), (DType::BF16, true)] {
        let bench = plain(dtype, PLAIN, [1, 2, 2, 3, 3, 4, 4]);
        let inputs = bench.graph.node(attention_of(&bench.graph)).inputs.to_vec();
        assert_eq!(attention_supported(&bench.graph, &inputs), supported, "{dtype}");
    }
}

/// Whether the node that makes the queries may join, and why not.
fn joins(make: impl Fn(&mut Bench) -> (tcc_ir::ValueId, tcc_ir::ValueId)) -> Result<(), String> {
    let mut bench = Bench::new(DType::F32);
    let (made, q) = make(&mut bench);
    let k = bench.random(&[1, 2, 5, 8]);
    let v = bench.random(&[1, 2, 5, 8]);
    let y = bench.add(Attention { ..PLAIN }, &[q, k, v]);
    bench.output(y);
    let node = bench.graph.producer(made).unwrap();
    attention_prologue_supported(&bench.graph, attention_of(&bench.graph), &[node])
}

#[test]
fn views_that_a_prologue_sees_through() {
    let doubled = |bench: &mut Bench, dims: &[usize]| {
        let x = bench.random(dims);
        bench.add(Binary(BinaryFn::Add), &[x, x])
    };
    // Transposed, and cut along features.
    assert_eq!(
        joins(|bench| {
            let made = doubled(bench, &[1, 3, 2, 16]);
            let sizes = vec![1, 3, 2, 8];
            let cut = bench.add(Slice { starts: vec![0, 0, 0, 8], steps: vec![1; 4], sizes }, &[made]);
            (made, bench.transpose(cut, &[0, 2, 1, 3]))
        }),
        Ok(())
    );
    // Features that belong to several heads.
    let merged = joins(|bench| {
        let made = doubled(bench, &[1, 3, 16]);
        let split = bench.add(Reshape { shape: shape(&[1, 3, 2, 8]) }, &[made]);
        (made, bench.transpose(split, &[0, 2, 1, 3]))
    });
    assert!(merged.is_err(), "{merged:?}");
    // Some of the positions.
    let cut = joins(|bench| {
        let made = doubled(bench, &[1, 2, 6, 8]);
        let sizes = vec![1, 2, 3, 8];
        (made, bench.add(Slice { starts: vec![0, 0, 2, 0], steps: vec![1; 4], sizes }, &[made]))
    });
    assert_eq!(cut, Err("a view of a value of the kernel cuts more than features".to_owned()));
}
