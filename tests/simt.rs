//! Real exports through the GPU target: built, executed on its simulator, and compared with the reference evaluation and with
//! ONNX Runtime. What the emitted programs compute on real devices is held in `opencl.rs`.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::models::{bounds_of_halves, folder as folder_of, load, run_all, same_each_time, weights};
use tcc::onnx::import::ImportOptions;
use tcc::onnx::tensor::Weights;
use tcc::{Compiler, ImportedModel};
use tcc_targets::Target as _;
use tcc_targets::simt::Simt;

fn every_model_runs_on(machine: &str) {
    let compiler = Compiler::for_target(machine).unwrap();
    let target = Simt::new(compiler.machine().clone()).unwrap();
    run_all(
        &compiler,
        |build, weights, inputs| {
            // As it is read from its file.
            target.decode(&build.program().encode())?.simulate(weights, inputs)
        },
        |name| bounds_of_halves(compiler.machine(), name),
    );
}

#[test]
fn every_model_runs_with_matrix_units() {
    every_model_runs_on("h100");
}

#[test]
fn every_model_runs_without_matrix_units() {
    every_model_runs_on("simt-mini");
}

#[test]
fn builds_and_outputs_do_not_depend_on_the_run_or_the_number_of_threads() {
    same_each_time(
        "h100",
        &["bert.legacy", "llama-kv.op23", "llama-kv.op23-qdq-int4", "vit.legacy-qop", "genai-llama-int4"],
    );
}

/// A layer that decodes is five launches: the norm with the projections, attention with its cache, and the three products
/// behind it, of which two are one.
#[test]
fn a_layer_that_decodes_is_five_launches() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/topologies/llama-3.2-1b-kv.fp16.dynamo/model.onnx");
    let dims = [("batch", 1), ("sequence", 1), ("past_sequence_length", 1023), ("total_sequence_length", 1024)];
    let dims = dims.map(|(name, extent)| (name.to_owned(), extent)).into();
    let options = ImportOptions { dims, weights: Weights::Absent, ..ImportOptions::default() };
    let model = ImportedModel::import(&path, &options).unwrap();
    let began = Instant::now();
    let compiler = Compiler::for_target("h100").unwrap();
    let build = compiler.with_model(model).compile().unwrap();
    let report = build.report();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let code = build.program().code();
    let (_, main) = code.iter().find(|(path, _)| path.ends_with("main.cpp")).unwrap();
    let launches = main.matches(".launch(").count();
    // 16 layers, and a few launches for tokens, positions, the mask and the logits.
    assert!((16 * 5 + 1..=16 * 5 + 8).contains(&launches), "{launches} launches");
    // Each of the five asks for what the next one reads first.
    let (_, kernels) = code.iter().find(|(path, _)| path.ends_with("kernels.cu")).unwrap();
    let asking = kernels.split("__global__").filter(|kernel| kernel.contains("prefetch_line(")).count();
    assert!(asking >= 5, "{asking} kernels ask for what comes after them");
    // All weights are read once, each two bytes.
    assert!(report.dram_bytes > 2_400_000_000, "{} bytes", report.dram_bytes);
}

/// Weights of few bits are stored as they are, and read so where few rows are multiplied: in steps that decode.
#[test]
fn weights_of_few_bits_are_read_as_they_are() {
    for name in ["llama-kv.op23-qdq-int4", "llama-kv.dynamo-nbits4-sym"] {
        let bytes = |folder: &str| {
            let (model, _) = load(&folder_of(folder), 1).unwrap();
            let build = Compiler::for_target("h100").unwrap().with_model(model).compile().unwrap();
            (weights(&build).len(), build.report().dram_bytes)
        };
        let ((few, few_read), (all, all_read)) = (bytes(name), bytes("llama-kv.op23"));
        // The table of tokens, which is not quantised, is as large as a sixth of all weights.
        assert!(5 * few < 2 * all, "{name}: {few} bytes of weights, {all} without quantisation");
        assert!(2 * few_read < all_read, "{name}: {few_read} bytes read, {all_read} without quantisation");
    }
}
