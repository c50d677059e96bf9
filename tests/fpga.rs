//! Real exports through the FPGA target: built, executed on its simulator, and compared with the reference evaluation and with
//! ONNX Runtime. What the emitted programs compute when they are compiled is held in `hls.rs`.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

mod common;

use common::models::{bounds_of_halves, run_all};
use tcc::Compiler;
use tcc_targets::Target as _;
use tcc_targets::fpga::Fpga;

#[test]
fn every_model_runs() {
    let compiler = Compiler::for_target("u280").unwrap();
    let target = Fpga::new(compiler.machine().clone()).unwrap();
    run_all(
        &compiler,
        |build, weights, inputs| {
            // As it is read from its file.
            target.decode(&build.program().encode())?.simulate(weights, inputs)
        },
        |name| bounds_of_halves(compiler.machine(), name),
    );
}
