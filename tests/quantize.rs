//! Quantisation, through the library and the command line: float models on machines that multiply integers, and models that
//! were exported in integers.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

mod common;

use std::path::{Path, PathBuf};

use common::{Array, Run, floats, tcc, write_npz};
use tcc::accuracy::{OutputCheck, Tolerance, compare};
use tcc::inputs::{Inputs, ports};
use tcc::onnx::import::ImportOptions;
use tcc::quantization::Sample;
use tcc::{Build, Compiler, ImportedModel};
use tcc_ir::{Tensor, evaluate};
use tcc_targets::Machine;

/// Models whose weights are integers, so that they run on machines of integers as they are.
const INTEGER_MODELS: [&str; 4] =
    ["bert.legacy-dynq-i8", "bert.legacy-qdq-u8i8-perchan", "bert.legacy-qop", "vit.legacy-qop"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn model_path(name: &str) -> PathBuf {
    root().join("tests/models").join(name).join("model.onnx")
}

fn inputs_path(name: &str, set: usize) -> PathBuf {
    root().join("tests/models").join(name).join(format!("inputs_{set}.npz"))
}

/// The names of all shipped models.
fn models() -> Vec<String> {
    let entries = std::fs::read_dir(root().join("tests/models")).unwrap().map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| entry.path().join("model.onnx").exists());
    let mut names: Vec<String> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The test machine that multiplies integers alone, and all built-in ones that do.
fn integer_machines() -> Vec<Compiler> {
    let text = std::fs::read_to_string(root().join("tests/machines/int8-16.toml")).unwrap();
    let own = Machine::parse("int8-16", &text).unwrap();
    let compilers = std::iter::once(own).chain(Machine::built_in().unwrap()).map(|machine| {
        let floats = Compiler::for_machine(machine).unwrap();
        (floats.multiplies_floats(), floats)
    });
    compilers.filter(|(floats, _)| !floats).map(|(_, compiler)| compiler).collect()
}

fn import(name: &str, set: usize) -> Option<(ImportedModel, Vec<Tensor>)> {
    let path = inputs_path(name, set);
    if !path.exists() {
        return None;
    }
    let inputs = Inputs::read(&path).unwrap();
    let options = ImportOptions { shapes: inputs.shapes([]), switches: inputs.switches([]), ..Default::default() };
    let model = ImportedModel::import(&model_path(name), &options).unwrap();
    let tensors = inputs.arrange(&ports(model.graph())).unwrap();
    Some((model, tensors))
}

/// Runs a build, and compares its outputs with those expected.
fn run(build: &Build, inputs: &[Tensor], expected: &[Tensor], tolerance: &Tolerance) -> Vec<OutputCheck> {
    let mut weights = Vec::new();
    build.program().write_weights(&mut weights).unwrap();
    let simulation = build.program().simulate(&weights, inputs).unwrap();
    assert_eq!(simulation.cycles, build.report().cycles);
    let names = build.program().outputs().iter().map(|port| &port.name);
    let pairs = names.zip(expected).zip(&simulation.outputs);
    pairs.map(|((name, expected), actual)| compare(name, expected, actual, tolerance).unwrap()).collect()
}

/// All float models, calibrated with their first inputs and checked with the others, and with scales found at run time.
fn quantized_models_reach_20_db(compiler: &Compiler) {
    let mut failures = Vec::new();
    let mut table = String::new();
    for name in models().iter().filter(|name| !INTEGER_MODELS.contains(&name.as_str())) {
        for calibrated in [true, false] {
            let mut snrs = Vec::new();
            for set in usize::from(calibrated && inputs_path(name, 1).exists()).. {
                let Some((model, inputs)) = import(name, set) else { break };
                let expected = evaluate(model.graph(), &inputs).unwrap();
                let samples: Vec<Sample> = match calibrated {
                    true => vec![Sample::read(&model_path(name), &model, &inputs_path(name, 0)).unwrap()],
                    false => Vec::new(),
                };
                let build = compiler.with_model(model).quantize(&samples).unwrap().compile().unwrap();
                for check in run(&build, &inputs, &expected, &Tolerance::QUANTIZED) {
                    snrs.push(check.snr_db);
                    failures.extend(check.failure.map(|why| format!("{name} {set} `{}`: {why}", check.name)));
                }
            }
            let least = snrs.iter().copied().fold(f64::INFINITY, f64::min);
            let kind = if calibrated { "calibrated" } else { "dynamic" };
            table += &format!("{name:<32} {kind:<10} {least:5.1} dB of {}\n", snrs.len());
        }
    }
    println!("{table}");
    assert!(failures.is_empty(), "{}\n{table}", failures.join("\n"));
}

#[test]
fn quantized_models_reach_20_db_where_only_integers_are_multiplied() {
    quantized_models_reach_20_db(&integer_machines()[0]);
}

#[test]
fn quantized_models_reach_20_db_where_floats_are_multiplied_too() {
    quantized_models_reach_20_db(&Compiler::for_target("systolic").unwrap());
}

#[test]
fn integer_models_run_natively_on_machines_of_integers() {
    for compiler in integer_machines() {
        let machine = compiler.machine().name.clone();
        for name in INTEGER_MODELS {
            for set in 0.. {
                let Some((model, inputs)) = import(name, set) else { break };
                let reference = evaluate(model.graph(), &inputs).unwrap();
                let ports: Vec<_> = model.graph().outputs().iter().map(|output| output.name.to_string()).collect();
                let build = compiler.with_model(model).compile().unwrap();
                for check in run(&build, &inputs, &reference, &Tolerance::of(compiler.machine())) {
                    assert_eq!(check.failure, None, "{machine} {name} {set} `{}`", check.name);
                    println!("{machine} {name} {set} `{}` {:.1} dB", check.name, check.snr_db);
                }
                let file = inputs_path(name, set).with_file_name(format!("expected_{set}.npz"));
                let expected = Inputs::read(&file).unwrap().by_name([]);
                let expected: Vec<Tensor> = ports.iter().map(|port| expected[port].clone()).collect();
                for check in run(&build, &inputs, &expected, &Tolerance::of(compiler.machine())) {
                    println!("  against ONNX Runtime: `{}` {:.1} dB", check.name, check.snr_db);
                    assert_eq!(check.failure, None, "{machine} {name} {set} `{}`", check.name);
                }
            }
        }
    }
}
