// Tests fail by panicking.
#![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

mod faults;
mod values;

use super::*;
use crate::systolic::assembly::assemble;
use crate::systolic::timing::tests::small_machine;
use crate::systolic::{SystolicMachine, machine};

const MEMORY: u64 = 4096;

/// Contents of the scratchpad, the accumulators and DRAM.
type Contents = (Vec<u8>, Vec<u8>, Vec<u8>);

/// Runs a program on the small machine with `weights` at address 0 and 4096 bytes of memory at 4096. Gives the
/// scratchpad, the accumulators and the memory.
fn run(weights: &[u8], text: &str) -> Result<Contents, Fault> {
    run_with(&small_machine(), weights, text)
}

/// [`run`] on another machine.
fn run_with(machine: &SystolicMachine, weights: &[u8], text: &str) -> Result<Contents, Fault> {
    let program = assemble(text).unwrap();
    let dram = Dram::new(weights, MEMORY, 4096, machine.dram.bytes).unwrap();
    let mut simulator = Simulator::new(machine, &program, dram);
    simulator.run()?;
    Ok((simulator.scratchpad().to_vec(), simulator.accumulators().to_vec(), simulator.dram().memory().to_vec()))
}

/// The small machine with two arrays that can be divided in halves each.
fn divided_machine() -> SystolicMachine {
    let small = small_machine();
    SystolicMachine { array: machine::Array { count: 2, row_groups: 2, ..small.array }, ..small }
}

/// Runs a program behind a load of all weights to the start of the scratchpad, each instruction waiting for all before.
/// Gives the scratchpad and the accumulators.
fn run_on(data: &[u8], text: &str) -> Result<(Vec<u8>, Vec<u8>), Fault> {
    run_on_with(&small_machine(), data, text)
}

/// [`run_on`] another machine.
fn run_on_with(machine: &SystolicMachine, data: &[u8], text: &str) -> Result<(Vec<u8>, Vec<u8>), Fault> {
    const WAIT: &str = " wait(load<=0, store<=0, preload<=0, array<=0, vector<=0)\n";
    let mut program = format!("load dram=0 spm=0 element=1 dims=[{}:1:1]\n", data.len());
    for line in text.lines() {
        program.push_str(line);
        program.push_str(WAIT);
    }
    run_with(machine, data, &program).map(|(scratchpad, accumulators, _)| (scratchpad, accumulators))
}

fn bytes<T: bytemuck::NoUninit>(values: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

/// Elements from byte `from` on.
fn elements<T: bytemuck::Pod>(memory: &[u8], from: usize, count: usize) -> Vec<T> {
    bytemuck::pod_collect_to_vec(&memory[from..from + count * size_of::<T>()])
}
