//! Whole models on the machines in SystemVerilog: the outputs of the simulator to the last bit, in as many cycles.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

mod common;

use std::path::{Path, PathBuf};

use common::models::{self, load, shipped, weights};
use tcc::Compiler;
use tcc_ir::Tensor;
use tcc_targets::machine::Machine;
use tcc_targets::target::{Program, TargetError};
use tcc_targets::verilator::VerilatorError;
use tcc_targets::{Simulation, lpu, systolic};

/// The folder in which a machine is built.
fn folder(machine: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("rtl").join(machine)
}

/// That a machine could not be built: nothing but a word about it if a user has not installed what it takes.
fn skip_without_tools(error: &VerilatorError) {
    match error {
        VerilatorError::Tool { tool, error } if std::env::var_os("CI").is_none() => {
            eprintln!("SKIPPED: {tool} is not installed ({error}); models are not run in SystemVerilog");
        }
        error => panic!("{error}"),
    }
}

/// Compiles models for a machine, and has each program run by the simulator and by the machine in SystemVerilog: `run` gets
/// the program, its weights and the inputs.
fn run_alike(
    machine: &Machine,
    folders: &[PathBuf],
    run: impl Fn(&[u8], &[u8], &[Tensor]) -> Result<[Simulation; 2], TargetError>,
) {
    let compiler = Compiler::for_machine(machine.clone()).unwrap();
    for folder in folders {
        let what = format!("{} on {}", models::name(folder), machine.name);
        let (model, inputs) = load(folder, 0).unwrap();
        let build = compiler.with_model(model).compile().unwrap_or_else(|error| panic!("{what}: {error}"));
        let both = run(&build.program().encode(), &weights(&build), &inputs);
        let [simulated, in_rtl] = both.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(in_rtl.cycles, simulated.cycles, "{what}: cycles");
        for ((port, expected), actual) in build.program().outputs().iter().zip(&simulated.outputs).zip(&in_rtl.outputs)
        {
            let same = expected.bytes().unwrap() == actual.bytes().unwrap();
            assert!(same, "{what}: output `{}` has other bits", port.name);
        }
    }
}

/// A systolic machine from `tests/machines/` with all models.
fn systolic_runs_alike(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/machines").join(format!("{name}.toml"));
    let machine = Machine::parse(name, &std::fs::read_to_string(path).unwrap()).unwrap();
    let rtl = match systolic::rtl::Rtl::build(machine.systolic.as_ref().unwrap(), &folder(name)) {
        Ok(rtl) => rtl,
        Err(systolic::rtl::RtlError::Verilator(error)) => return skip_without_tools(&error),
        Err(error) => panic!("{error}"),
    };
    let target = systolic::Systolic::new(machine.clone()).unwrap();
    run_alike(&machine, &shipped(), |program, weights, inputs| {
        let program = target.program(program)?;
        Ok([program.simulate(weights, inputs)?, program.simulate_in_rtl(&rtl, weights, inputs)?])
    });
}

#[test]
fn models_run_alike_on_4_by_4() {
    systolic_runs_alike("systolic-4");
}

#[test]
fn models_run_alike_on_8_by_8() {
    systolic_runs_alike("systolic-8");
}

#[test]
fn models_run_alike_on_16_by_16() {
    systolic_runs_alike("systolic-16");
}

#[test]
fn models_run_alike_on_an_lpu() {
    let machine = tcc::target_name::resolve("lpu-mini").unwrap();
    let rtl = match lpu::rtl::Rtl::build(machine.lpu.as_ref().unwrap(), &folder("lpu-mini")) {
        Ok(rtl) => rtl,
        Err(lpu::rtl::RtlError::Verilator(error)) => return skip_without_tools(&error),
        Err(error) => panic!("{error}"),
    };
    let target = lpu::Lpu::new(machine.clone()).unwrap();
    run_alike(&machine, &shipped(), |program, weights, inputs| {
        let program = target.program(program)?;
        Ok([program.simulate(weights, inputs)?, program.simulate_in_rtl(&rtl, weights, inputs)?])
    });
}
