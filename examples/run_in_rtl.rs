//! Runs a build on its machine in SystemVerilog, and says whether that does what the simulator does.
//!
//! ```sh
//! cargo run --release -- build tests/models/bert.legacy/model.onnx --target lpu-mini \\
//!     --shapes-from tests/models/bert.legacy/inputs_0.npz -o target/bert-mini
//! cargo run --release --example run_in_rtl -- target/bert-mini tests/models/bert.legacy/inputs_0.npz
//! ```
//!
//! Needs Verilator and a C++ compiler. `lpu-mini` and `tests/machines/systolic-8.toml` take about a minute to compile there;
//! arrays of more than 16 by 16 and LPUs of more than a few lanes take long.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use tcc::Artifact;
use tcc::inputs::Inputs;
use tcc_ir::Tensor;
use tcc_targets::lpu::{self, Lpu};
use tcc_targets::machine::MachineError;
use tcc_targets::systolic::{self, Systolic};
use tcc_targets::{Kind, Machine, Simulation};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    const USAGE: &str = "usage: run_in_rtl BUILD INPUTS.npz";
    let mut arguments = std::env::args().skip(1).map(PathBuf::from);
    let (build, inputs) = (arguments.next().ok_or(USAGE)?, arguments.next().ok_or(USAGE)?);
    let artifact = Artifact::open(&build)?;
    let inputs = Inputs::read(&inputs)?.arrange(artifact.inputs())?;
    let loaded = artifact.program()?;
    let simulated = loaded.simulate(&inputs)?;
    let in_rtl = run(artifact.machine(), &loaded.program().encode(), loaded.weights(), &inputs)?;
    let mut same = simulated.cycles == in_rtl.cycles;
    println!("cycles: {} in SystemVerilog, {} in the simulator", in_rtl.cycles, simulated.cycles);
    for ((port, expected), actual) in artifact.outputs().iter().zip(&simulated.outputs).zip(&in_rtl.outputs) {
        let equal = expected.bytes()? == actual.bytes()?;
        println!("{}: {}", port.name, if equal { "the same bits" } else { "other bits" });
        same &= equal;
    }
    Ok(if same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs a program on its machine in SystemVerilog, which is compiled if it is not yet.
fn run(machine: &Machine, program: &[u8], weights: &[u8], inputs: &[Tensor]) -> Result<Simulation, Box<dyn Error>> {
    let folder = Path::new("target/rtl").join(&machine.name);
    let missing = |kind| MachineError::MissingTable { file: machine.name.clone(), kind };
    eprintln!("compiling {} with Verilator", machine.name);
    let (began, simulation);
    match machine.kind {
        Kind::Systolic => {
            let facts = machine.systolic.as_ref().ok_or_else(|| missing("systolic"))?;
            let rtl = systolic::rtl::Rtl::build(facts, &folder)?;
            began = Instant::now();
            simulation = Systolic::new(machine.clone())?.program(program)?.simulate_in_rtl(&rtl, weights, inputs)?;
        }
        Kind::Lpu => {
            let facts = machine.lpu.as_ref().ok_or_else(|| missing("lpu"))?;
            let rtl = lpu::rtl::Rtl::build(facts, &folder)?;
            began = Instant::now();
            simulation = Lpu::new(machine.clone())?.program(program)?.simulate_in_rtl(&rtl, weights, inputs)?;
        }
        Kind::Simt | Kind::Fpga => {
            return Err(format!("there is no {} in SystemVerilog: its programs are made for it", machine.name).into());
        }
    }
    eprintln!("{:.1} s for {} cycles", began.elapsed().as_secs_f64(), simulation.cycles);
    Ok(simulation)
}
