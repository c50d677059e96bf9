//! Real exports through the systolic target: built, executed on its simulator, and compared with the reference evaluation.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

mod common;

use std::path::Path;

use common::models::{Bounds, INTEGER_MODELS, INTEGER_SNR_DB, load, run_all, same_each_time, shipped, weights};
use tcc::Compiler;
use tcc::accuracy::{Tolerance, compare};
use tcc_ir::evaluate;
use tcc_targets::Machine;
use tcc_targets::systolic::{assembly, encoding};

#[test]
fn every_model_runs_with_the_outputs_of_the_reference() {
    let compiler = Compiler::for_target("systolic").unwrap();
    let tolerance = Tolerance::of(compiler.machine());
    let bounds = |name: &str| {
        let snr_db = if INTEGER_MODELS.contains(&name) { INTEGER_SNR_DB } else { tolerance.snr_db };
        Bounds { reference: Tolerance { snr_db, ..tolerance }, onnx_runtime: None }
    };
    run_all(&compiler, |build, weights, inputs| build.program().simulate(weights, inputs), bounds);
}

#[test]
fn attentions_that_are_run_for_their_caches_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("tests/machines/slow-writes.toml")).unwrap();
    let compiler = Compiler::for_machine(Machine::parse("slow-writes", &text).unwrap()).unwrap();
    let (model, inputs) = load(&root.join("tests/models/t5-decoder-past.dynamo"), 0).unwrap();
    let expected = evaluate(model.graph(), &inputs).unwrap();
    let build = compiler.with_model(model).compile().unwrap();
    let simulation = build.program().simulate(&weights(&build), &inputs).unwrap();
    for (expected, actual) in expected.iter().zip(&simulation.outputs) {
        assert_eq!(compare("", expected, actual, &Tolerance::of(compiler.machine())).unwrap().failure, None);
    }
}

#[test]
fn programs_reassemble_to_the_same_bytes() {
    let compiler = Compiler::for_target("systolic").unwrap();
    for folder in shipped() {
        let Some((model, _)) = load(&folder, 0) else { continue };
        let build = compiler.with_model(model).compile().unwrap();
        let code = build.program().code();
        let (_, assembly_text) = code.iter().find(|(path, _)| path == Path::new("program.s")).unwrap();
        let instructions = assembly::assemble(assembly_text).unwrap();
        let bytes = encoding::encode(&instructions);
        assert_eq!(encoding::decode(&bytes).unwrap(), instructions, "{}", folder.display());
        assert_eq!(assembly::disassemble(&instructions), *assembly_text, "{}", folder.display());
        // The very bytes of the program, which holds its code as one field.
        let program = build.program().encode();
        assert!(program.windows(bytes.len()).any(|part| part == bytes), "{}", folder.display());
    }
}

#[test]
fn builds_and_outputs_do_not_depend_on_the_run_or_the_number_of_threads() {
    let models =
        ["bert.legacy", "llama-kv.op23", "vit.legacy-qop", "mixtral-kv.dynamo", "bert.legacy-qdq-u8i8-perchan"];
    same_each_time("systolic", &models);
}
