//! Whole models on the machine in SystemVerilog: the outputs of the simulator to the last bit, in as many cycles.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

use std::path::{Path, PathBuf};

use tcc::inputs::{Inputs, ports};
use tcc::onnx::import::ImportOptions;
use tcc::{Compiler, ImportedModel};
use tcc_targets::machine::Machine;
use tcc_targets::systolic::Systolic;
use tcc_targets::systolic::rtl::{Rtl, RtlError};
use tcc_targets::target::Program;
use tcc_targets::verilator::VerilatorError;

/// A machine from `tests/machines/`, and the same in SystemVerilog; `None` if a user has not installed what it takes.
fn machine(name: &str) -> Option<(Machine, Rtl)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/machines").join(format!("{name}.toml"));
    let machine = Machine::parse(name, &std::fs::read_to_string(path).unwrap()).unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rtl").join(name);
    match Rtl::build(machine.systolic.as_ref().unwrap(), &folder) {
        Ok(rtl) => Some((machine, rtl)),
        Err(RtlError::Verilator(VerilatorError::Tool { tool, error })) if std::env::var_os("CI").is_none() => {
            eprintln!("SKIPPED: {tool} is not installed ({error}); models are not run in SystemVerilog");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// The models that are shipped with their first inputs.
fn models() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    let entries = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.join("inputs_0.npz").exists()).collect();
    folders.sort();
    folders
}

fn run_alike(name: &str) {
    let Some((machine, rtl)) = machine(name) else { return };
    let compiler = Compiler::for_machine(machine.clone()).unwrap();
    let systolic = Systolic::new(machine).unwrap();
    let models = models();
    assert!(models.len() >= 30, "the shipped models are not there");
    for folder in models {
        let what = format!("{} on {name}", folder.file_name().unwrap().display());
        let inputs = Inputs::read(&folder.join("inputs_0.npz")).unwrap();
        let options = ImportOptions { shapes: inputs.shapes([]), switches: inputs.switches([]), ..Default::default() };
        let model = ImportedModel::import(&folder.join("model.onnx"), &options).unwrap();
        let tensors = inputs.arrange(&ports(model.graph())).unwrap();
        let build = compiler.with_model(model).compile().unwrap_or_else(|error| panic!("{what}: {error}"));
        let mut weights = Vec::new();
        build.program().write_weights(&mut weights).unwrap();
        let program = systolic.program(&build.program().encode()).unwrap();
        let simulated = program.simulate(&weights, &tensors).unwrap_or_else(|error| panic!("{what}: {error}"));
        let in_rtl =
            program.simulate_in_rtl(&rtl, &weights, &tensors).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(in_rtl.cycles, simulated.cycles, "{what}: cycles");
        for ((port, expected), actual) in program.outputs().iter().zip(&simulated.outputs).zip(&in_rtl.outputs) {
            let same = expected.bytes().unwrap() == actual.bytes().unwrap();
            assert!(same, "{what}: output `{}` has other bits", port.name);
        }
    }
}

#[test]
fn models_run_alike_on_4_by_4() {
    run_alike("systolic-4");
}

#[test]
fn models_run_alike_on_8_by_8() {
    run_alike("systolic-8");
}

#[test]
fn models_run_alike_on_16_by_16() {
    run_alike("systolic-16");
}
