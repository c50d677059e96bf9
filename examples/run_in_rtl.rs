//! Runs a systolic build on the machine in SystemVerilog, and says whether it does what the simulator does.
//!
//! ```sh
//! cargo run --release -- build tests/models/bert.legacy/model.onnx --target tests/machines/systolic-8.toml \\
//!     --shapes-from tests/models/bert.legacy/inputs_0.npz -o target/bert-8
//! cargo run --release --example run_in_rtl -- target/bert-8 tests/models/bert.legacy/inputs_0.npz
//! ```
//!
//! Needs Verilator and a C++ compiler. Arrays of more than about 16 by 16 take long to compile there.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tcc::Artifact;
use tcc::inputs::Inputs;
use tcc_targets::systolic::Systolic;
use tcc_targets::systolic::rtl::Rtl;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    const USAGE: &str = "usage: run_in_rtl BUILD INPUTS.npz";
    let mut arguments = std::env::args().skip(1).map(PathBuf::from);
    let (build, inputs) = (arguments.next().ok_or(USAGE)?, arguments.next().ok_or(USAGE)?);
    let artifact = Artifact::open(&build)?;
    let machine = artifact.machine().clone();
    let facts = machine.systolic.clone().ok_or("the build is for another kind of machine")?;
    let inputs = Inputs::read(&inputs)?.arrange(artifact.inputs())?;
    let loaded = artifact.program()?;
    let program = Systolic::new(machine.clone())?.program(&loaded.program().encode())?;
    eprintln!("compiling {} with Verilator", machine.name);
    let rtl = Rtl::build(&facts, &Path::new("target/rtl").join(&machine.name))?;
    let simulated = loaded.simulate(&inputs)?;
    let in_rtl = program.simulate_in_rtl(&rtl, loaded.weights(), &inputs)?;
    let mut same = simulated.cycles == in_rtl.cycles;
    println!("cycles: {} in SystemVerilog, {} in the simulator", in_rtl.cycles, simulated.cycles);
    for ((port, expected), actual) in artifact.outputs().iter().zip(&simulated.outputs).zip(&in_rtl.outputs) {
        let equal = expected.bytes()? == actual.bytes()?;
        println!("{}: {}", port.name, if equal { "the same bits" } else { "other bits" });
        same &= equal;
    }
    Ok(if same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
