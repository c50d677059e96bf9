//! File tests: each `tests/tir/*.tir` is a graph in textual form, whose plan and schedule on the machine that its first
//! line names (`// machine: systolic-128`) are held by a snapshot. The program is also executed on inputs that are drawn
//! from the names of the file, and compared with the reference evaluation.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

use std::fs;

use tcc::accuracy::{Tolerance, compare};
use tcc_ir::{DType, Graph, Tensor, TensorType, evaluate, text, verify};
use tcc_passes::clean_up;
use tcc_targets::fpga::Fpga;
use tcc_targets::lpu::Lpu;
use tcc_targets::simt::Simt;
use tcc_targets::systolic::Systolic;
use tcc_targets::{Kind, Optimization};

/// Numbers that are the same everywhere: small integers for integers, halves and quarters around 0 for floats.
fn draw(seed: usize, ty: &TensorType) -> Tensor {
    let mut state = seed as u64 * 2 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) % 17
    };
    let count = ty.shape.count();
    let float = Tensor::from_vec(ty.shape.clone(), (0..count).map(|_| next() as f32 / 4.0 - 2.0).collect()).unwrap();
    let whole = Tensor::from_vec(ty.shape.clone(), (0..count).map(|_| (next() % 4) as i64).collect()).unwrap();
    let source = if ty.dtype.is_float() { float } else { whole };
    let cast = tcc_ir::ops::Cast { to: ty.dtype };
    let mut graph = Graph::new("cast");
    let input = graph.add_input("x", source.ty().clone());
    let output = graph.add(cast, &[input]).unwrap();
    graph.add_output("y", output);
    evaluate(&graph, &[source]).unwrap().remove(0)
}

#[test]
fn plans_and_schedules() {
    insta::glob!("tir/*.tir", |path| {
        let source = fs::read_to_string(path).unwrap();
        let machine = source.lines().next().and_then(|line| line.strip_prefix("// machine: ")).unwrap();
        let machine = tcc::target_name::resolve(machine).unwrap();
        let target = tcc_targets::target(machine.clone()).unwrap();
        let graph = text::parse(&source).unwrap();
        verify(&graph).unwrap();
        let graph = clean_up(&graph);
        verify(&graph).unwrap();
        let plan = match machine.kind {
            Kind::Systolic => Systolic::new(machine).unwrap().plan(&graph, Optimization::None).unwrap(),
            Kind::Lpu => Lpu::new(machine).unwrap().plan(&graph, Optimization::None).unwrap(),
            Kind::Simt => Simt::new(machine).unwrap().plan(&graph, Optimization::None).unwrap(),
            Kind::Fpga => Fpga::new(machine).unwrap().plan(&graph, Optimization::None).unwrap(),
        };
        verify(&plan.graph).unwrap();
        let program = target.compile(&graph, Optimization::None).unwrap();
        let inputs: Vec<Tensor> =
            graph.inputs().iter().enumerate().map(|(index, &id)| draw(index, graph.ty(id))).collect();
        let expected = evaluate(&graph, &inputs).unwrap();
        let mut weights = Vec::new();
        program.write_weights(&mut weights).unwrap();
        let simulation = program.simulate(&weights, &inputs).unwrap();
        let tolerance = Tolerance::of(target.machine());
        for ((output, expected), actual) in graph.outputs().iter().zip(&expected).zip(&simulation.outputs) {
            let check = compare(&output.name, expected, actual, &tolerance).unwrap();
            assert!(check.failure.is_none(), "{}: {:?}", output.name, check.failure);
            if expected.dtype() != DType::F32 {
                assert_eq!(expected.bytes(), actual.bytes(), "{}", output.name);
            }
        }
        insta::assert_snapshot!(format!("{plan}\n{}", program.schedule_text()));
    });
}
