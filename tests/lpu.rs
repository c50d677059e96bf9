//! Real exports through the LPU target: built, executed on its simulator, and compared with the reference evaluation and with
//! ONNX Runtime. Cycles of whole models are not held here: schedules become shorter.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::models::{bounds_of_halves, load, run_all, same_each_time, shipped};
use tcc::onnx::import::ImportOptions;
use tcc::onnx::tensor::Weights;
use tcc::{Compiler, ImportedModel};
use tcc_targets::lpu::{Lpu, assembly, encoding};

#[test]
fn every_model_runs_with_the_outputs_of_the_reference() {
    let compiler = Compiler::for_target("groq-tsp").unwrap();
    let target = Lpu::new(compiler.machine().clone()).unwrap();
    run_all(
        &compiler,
        |build, weights, inputs| {
            let program = target.program(&build.program().encode())?;
            let (simulation, counts) = program.simulate_counted(weights, inputs)?;
            assert_eq!(*program.counts(), counts, "{}: the program counts something else", build.report().model);
            Ok(simulation)
        },
        |name| bounds_of_halves(compiler.machine(), name),
    );
}

#[test]
fn programs_reassemble_to_the_same_bytes() {
    let compiler = Compiler::for_target("groq-tsp").unwrap();
    let machine = compiler.machine().lpu.clone().unwrap();
    for folder in shipped() {
        let (model, _) = load(&folder, 0).unwrap();
        let build = compiler.with_model(model).compile().unwrap();
        let code = build.program().code();
        let (_, text) = code.iter().find(|(path, _)| path == Path::new("program.s")).unwrap();
        let queues = assembly::assemble(text, &machine).unwrap();
        let bytes = encoding::encode(&queues);
        assert_eq!(encoding::decode(&bytes).unwrap(), queues, "{}", folder.display());
        assert_eq!(assembly::disassemble(&queues, &machine), *text, "{}", folder.display());
        // The very bytes of the program, which holds its code as one field.
        let program = build.program().encode();
        assert!(program.windows(bytes.len()).any(|part| part == bytes), "{}", folder.display());
    }
}

#[test]
fn builds_and_outputs_do_not_depend_on_the_run_or_the_number_of_threads() {
    let models = ["bert.legacy", "llama-kv.op23", "vit.legacy-qop", "mixtral-kv.dynamo", "genai-llama-int4"];
    same_each_time("groq-tsp", &models);
}

/// A model of 1.2 billion numbers, all of them weights of products or rows that are looked up.
#[test]
fn a_model_that_is_too_large_is_told_its_number_of_chips_at_once() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/topologies/llama-3.2-1b-kv.fp16.dynamo/model.onnx");
    let dims = [("batch", 1), ("sequence", 128), ("past_sequence_length", 0), ("total_sequence_length", 128)];
    let dims = dims.map(|(name, extent)| (name.to_owned(), extent)).into();
    let options = ImportOptions { dims, weights: Weights::Absent, ..ImportOptions::default() };
    let model = ImportedModel::import(&path, &options).unwrap();
    let compiler = Compiler::for_target("groq-tsp").unwrap();
    let chip = compiler.machine().lpu.as_ref().unwrap().memory_bytes();
    let graph = model.graph().clone();
    let weights: u64 = graph
        .values()
        .filter_map(|(id, _)| graph.as_constant(id))
        .map(|tensor| 2 * tensor.shape().count() as u64)
        .sum();
    let began = Instant::now();
    let error = compiler.with_model(model).compile().err().unwrap().to_string();
    // A thousandth of that is usual: nothing is scheduled before.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let (_, rest) = error.split_once("it takes ").unwrap_or_else(|| panic!("{error}"));
    let (chips, rest) = rest.split_once(' ').unwrap();
    assert!(rest.starts_with("chips, and programs for several are not made yet"), "{error}");
    // Weights are halves. A dimension of 2048 fills 6.4 vectors, which are 7, and the rows that words are looked up in are
    // there once more as the weights that words are chosen by; values are little beside them.
    let (chips, least): (u64, u64) = (chips.parse().unwrap(), weights.div_ceil(chip));
    assert!(least >= 10 && (least..least + least / 2).contains(&chips), "{chips} chips for {weights} bytes: {error}");
}
