//! Kernels on machines with little memory, against the reference.

// Tests fail by panicking.
#![allow(clippy::unwrap_used)]

use tcc_ir::{Tensor, evaluate, text};

use crate::machine::Machine;
use crate::systolic::Systolic;
use crate::target::{Target, TargetError};

/// Results of a graph on the default machine with a scratchpad of `bytes`, and those of the reference.
fn run(graph: &str, bytes: u32, inputs: &[Tensor]) -> Result<[Vec<f64>; 2], TargetError> {
    let graph = text::parse(graph).unwrap();
    let mut machine = Machine::built_in().unwrap().into_iter().find(|machine| machine.default).unwrap();
    machine.systolic.as_mut().unwrap().scratchpad.bytes = bytes;
    let program = Systolic::new(machine).unwrap().compile(&graph)?;
    let mut weights = Vec::new();
    program.write_weights(&mut weights).unwrap();
    let actual = program.simulate(&weights, inputs)?.outputs;
    let expected = evaluate(&graph, inputs).unwrap();
    Ok([actual[0].to_f64s().unwrap().to_vec(), expected[0].to_f64s().unwrap().to_vec()])
}

#[test]
fn long_rows_are_cut_between_elements() {
    let graph = r#"graph "gather" {
        input %0 "indices": i64[2]
        const %1: f32[3,2000] = seeded 1
        %2: f32[2,2000] = gather[axis=0](%1, %0)
        output "y" = %2
    }"#;
    let [actual, expected] = run(graph, 100_000, &[Tensor::vector_i64(vec![2, 0])]).unwrap();
    assert_eq!(actual, expected);
}

#[test]
fn a_tile_larger_than_the_scratchpad_is_refused() {
    let graph = r#"graph "product" {
        const %0: f32[256,4096] = seeded 1
        input %1 "x": f32[4096,256]
        %2: f32[256,256] = mat_mul(%0, %1)
        output "y" = %2
    }"#;
    let x = tcc_ir::Tensor::narrow(
        tcc_ir::TensorType::new(tcc_ir::DType::F32, tcc_ir::Shape::new([4096, 256]).unwrap()),
        tcc_ir::Values::F32(vec![0.0; 4096 * 256].into()),
    );
    assert!(matches!(run(graph, 64 << 10, &[x]), Err(TargetError::DoesNotFit { .. })));
}
