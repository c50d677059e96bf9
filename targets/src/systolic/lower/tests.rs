//! Kernels against the reference: on machines with little memory, and with more in them than `fuse` puts there.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

mod dataflows;
mod derived;
mod grouped;
mod placed;
mod residence;
mod routines;
mod rows;
mod slices;

use tcc_ir::{Shape, Tensor, evaluate, text};

use crate::machine::{Kind, Machine};
use crate::systolic::Systolic;
use crate::target::{Optimization, Target, TargetError};

/// Results of a graph on the default machine with a scratchpad of `bytes`, and those of the reference.
fn run(graph: &str, bytes: u32, inputs: &[Tensor]) -> Result<[Vec<f64>; 2], TargetError> {
    let graph = text::parse(graph).unwrap();
    let mut machine = Machine::default_of(Kind::Systolic).unwrap().unwrap();
    machine.systolic.as_mut().unwrap().scratchpad.bytes = bytes;
    let program = Systolic::new(machine).unwrap().compile(&graph, Optimization::None)?;
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

/// How far the results are off, relative to the greatest of the reference.
fn error([actual, expected]: &[Vec<f64>; 2]) -> f64 {
    let largest = expected.iter().fold(0f64, |most, x| most.max(x.abs()));
    actual.iter().zip(expected).fold(0f64, |worst, (a, b)| worst.max((a - b).abs())) / largest
}

#[test]
fn tiles_larger_than_the_scratchpad_are_cut_again() {
    let graph = r#"graph "product" {
        const %0: f32[256,1024] = seeded 1
        input %1 "x": f32[1024,256]
        %2: f32[256,256] = mat_mul(%0, %1)
        %3: f32[256,256] = neg(%2)
        output "y" = %3
    }"#;
    let x = Tensor::from_vec(Shape::new([1024, 256]).unwrap(), (0..1024 * 256).map(|i| (i % 17) as f32).collect());
    // Four tiles of weights alone are twice as large as this.
    let results = run(graph, 64 << 10, &[x.unwrap()]).unwrap();
    assert!(error(&results) < 0.02, "{}", error(&results));
}

#[test]
fn kernels_with_more_buffers_than_fit_are_taken_apart() {
    let steps = (1..40).map(|i| format!("%{}: f32[4,400] = {}(%{i})\n", i + 1, ["abs", "tanh", "neg"][i % 3]));
    let graph = format!(
        "graph \"chain\" {{ input %0 \"x\": f32[4,400] %1: f32[4,400] = exp(%0)\n{} %41: f32[4,1] = \
         reduce[function=\"sum\",axes=[1]](%40) %42: f32[4,400] = sub(%40, %41) output \"y\" = %42 }}",
        steps.collect::<String>()
    );
    let x = Tensor::from_vec(Shape::new([4, 400]).unwrap(), (0..1600).map(|i| (i % 13) as f32 / 8.0).collect());
    let results = run(&graph, 64 << 10, &[x.unwrap()]).unwrap();
    assert!(error(&results) < 1e-5, "{}", error(&results));
}
