//! The machine in SystemVerilog, run by Verilator: the same binary programs as the simulator's, in hardware.
//!
//! The sources stand in `targets/systolic/rtl/`. Whoever has Verilator and a C++ compiler can build the machine that a machine
//! file describes, and compare what it does with what the simulator says: the bits and the cycles are the same.

use std::path::Path;

use super::SystolicMachine;
use super::isa::Unit;
use crate::verilator::{Built, DELAY, Design, FLOAT, LANES, LANES_PACKAGE, Left, Part, VerilatorError};

/// The sources of the machine, and of its test bench.
const DESIGN: Design = Design {
    top: "systolic",
    compiled: &[
        LANES_PACKAGE,
        ("machine_pkg.sv", include_str!("../../systolic/rtl/machine_pkg.sv")),
        DELAY,
        ("cell.sv", include_str!("../../systolic/rtl/cell.sv")),
        ("array.sv", include_str!("../../systolic/rtl/array.sv")),
        ("memory.sv", include_str!("../../systolic/rtl/memory.sv")),
        ("queue.sv", include_str!("../../systolic/rtl/queue.sv")),
        ("issue.sv", include_str!("../../systolic/rtl/issue.sv")),
        ("sequencer.sv", include_str!("../../systolic/rtl/sequencer.sv")),
        ("dma.sv", include_str!("../../systolic/rtl/dma.sv")),
        ("feed.sv", include_str!("../../systolic/rtl/feed.sv")),
        ("vector.sv", include_str!("../../systolic/rtl/vector.sv")),
        ("systolic.sv", include_str!("../../systolic/rtl/systolic.sv")),
        ("main.cpp", include_str!("../../systolic/rtl/bench/main.cpp")),
        LANES[0],
    ],
    included: &[FLOAT, LANES[1]],
    arguments: &[],
};

/// Why the machine could not be built or run.
#[derive(Debug, thiserror::Error)]
pub enum RtlError {
    /// A tool is not there or fails, or a file cannot be read or written.
    #[error(transparent)]
    Verilator(#[from] VerilatorError),
    /// A machine that nobody can build.
    #[error("a machine of which only the array takes time cannot be built; leave `array_only` out of its file")]
    ArrayOnly,
    /// The machine has written something else than results.
    #[error("the machine in SystemVerilog wrote no results for job {0}; please report this")]
    Results(usize),
}

/// A machine, built.
#[derive(Clone, Debug)]
pub struct Rtl {
    built: Built,
    scratchpad_bytes: usize,
    accumulator_bytes: usize,
}

/// A program to run.
#[derive(Clone, Debug)]
pub struct Job<'a> {
    /// The program in its binary form.
    pub program: &'a [u8],
    /// Bytes of DRAM from address 0 on, which the program does not write.
    pub weights: &'a [u8],
    /// Where the rest of DRAM begins.
    pub base: u64,
    /// The rest of DRAM.
    pub memory: &'a [u8],
    /// The cycle in which the run is given up.
    pub limit: u64,
}

/// What a run has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Cycles to the last completion; `None` if the limit was reached.
    pub cycles: Option<u64>,
    /// The unit and the cycle of every start, in the order in which the instructions started.
    pub starts: Vec<(Unit, u64)>,
    /// DRAM behind the weights.
    pub memory: Vec<u8>,
    /// The scratchpad.
    pub scratchpad: Vec<u8>,
    /// The accumulators.
    pub accumulators: Vec<u8>,
}

impl Rtl {
    /// Builds a machine in a folder of its own, or finds it there. Takes about a minute for an array of 16 by 16.
    ///
    /// # Errors
    /// Verilator or the C++ compiler is not there or fails, the folder cannot be written, or of the machine only the array takes
    /// time.
    pub fn build(machine: &SystolicMachine, folder: &Path) -> Result<Rtl, RtlError> {
        Rtl::build_changed(machine, folder, |_, text| text.to_owned())
    }

    /// [`Rtl::build`] with changed sources: `change` gives the text of each by its name and text.
    ///
    /// # Errors
    /// As [`Rtl::build`].
    pub fn build_changed(
        machine: &SystolicMachine,
        folder: &Path,
        change: impl Fn(&str, &str) -> String,
    ) -> Result<Rtl, RtlError> {
        if machine.array_only {
            return Err(RtlError::ArrayOnly);
        }
        Ok(Rtl {
            built: DESIGN.build(&parameters(machine), folder, change)?,
            scratchpad_bytes: machine.scratchpad.bytes as usize,
            accumulator_bytes: machine.accumulators.rows as usize * machine.array.columns as usize * 4,
        })
    }

    /// Runs programs, each on a machine that was just switched on.
    ///
    /// # Errors
    /// The machine fails, as it does where a program leaves DRAM, or files cannot be written.
    pub fn run(&self, jobs: &[Job<'_>]) -> Result<Vec<Outcome>, RtlError> {
        let left = self.built.run(&jobs.iter().map(Job::parts).collect::<Vec<_>>())?;
        let outcome = |(number, (job, left)): (usize, (&Job<'_>, Left))| {
            let outcome = left.results.and_then(|bytes| self.outcome(&bytes, job.memory.len()));
            outcome.ok_or(RtlError::Results(number))
        };
        jobs.iter().zip(left).enumerate().map(outcome).collect()
    }

    /// Reads what the test bench has written.
    fn outcome(&self, bytes: &[u8], memory_bytes: usize) -> Option<Outcome> {
        let number = |bytes: &[u8]| Some(u64::from_le_bytes(*bytes.first_chunk()?));
        let (cycles, mut rest) = (number(bytes)?, bytes.get(8..)?);
        let mut starts = Vec::new();
        while *rest.first()? != u8::MAX {
            starts.push((*Unit::ALL.get(usize::from(rest[0]))?, number(&rest[1..])?));
            rest = rest.get(9..)?;
        }
        let (memory, rest) = rest.get(1..)?.split_at_checked(memory_bytes)?;
        let (scratchpad, accumulators) = rest.split_at_checked(self.scratchpad_bytes)?;
        (accumulators.len() == self.accumulator_bytes).then(|| Outcome {
            cycles: Some(cycles).filter(|&cycles| cycles != u64::MAX),
            starts,
            memory: memory.to_vec(),
            scratchpad: scratchpad.to_vec(),
            accumulators: accumulators.to_vec(),
        })
    }
}

impl<'a> Job<'a> {
    /// The job as the test bench reads it.
    fn parts(&self) -> Vec<Part<'a>> {
        let Job { program, weights, base, memory, limit } = *self;
        let (program, weights, memory) = (Part::Bytes(program), Part::Bytes(weights), Part::Bytes(memory));
        vec![program, weights, Part::Number(base), memory, Part::Number(limit)]
    }
}

/// The parameters of the top module.
fn parameters(machine: &SystolicMachine) -> [(&'static str, u32); 19] {
    let SystolicMachine { array_only: _, array, scratchpad, accumulators, vector, dram, sequencer } = machine;
    [
        ("ROWS", array.total_rows()),
        ("BLOCK_ROWS", array.block_rows()),
        ("COLUMNS", array.columns),
        ("SCRATCHPAD_BYTES", scratchpad.bytes),
        ("BANKS", scratchpad.banks),
        ("READ_PORTS", scratchpad.read_ports),
        ("WRITE_PORTS", scratchpad.write_ports),
        ("ACCUMULATOR_ROWS", accumulators.rows),
        ("LANES", vector.lanes),
        ("SPECIAL_LANES", vector.special_lanes),
        ("SUBLANES", vector.sublanes),
        ("STRIDED_LANES", vector.strided_lanes),
        ("VECTOR_LATENCY", vector.latency),
        ("READ_BYTES_PER_CYCLE", dram.read_bytes_per_cycle),
        ("WRITE_BYTES_PER_CYCLE", dram.write_bytes_per_cycle),
        ("BURST_BYTES", dram.burst_bytes),
        ("DRAM_LATENCY", dram.latency),
        ("QUEUE_DEPTH", sequencer.queue_depth),
        ("OVERLAP", u32::from(array.overlap)),
    ]
}

#[cfg(test)]
mod tests;
