//! The machine in SystemVerilog, run by Verilator: the same binary programs as the simulator's, in hardware.
//!
//! The sources stand in `targets/lpu/rtl/`. Whoever has Verilator and a C++ compiler can build the machine that a machine
//! file describes, and compare what it does with what the simulator says: the bits and the cycles are the same.

use std::path::Path;

use super::LpuMachine;
use super::machine::{Mem, Mxm, Sxm, Vxm};
use crate::verilator::{Built, DELAY, Design, FLOAT, LANES, LANES_PACKAGE, Left, Part, VerilatorError};

/// The sources of the machine, and of its test bench.
const DESIGN: Design = Design {
    top: "lpu",
    compiled: &[
        LANES_PACKAGE,
        ("lpu_pkg.sv", include_str!("../../lpu/rtl/lpu_pkg.sv")),
        DELAY,
        ("queue.sv", include_str!("../../lpu/rtl/queue.sv")),
        ("station.sv", include_str!("../../lpu/rtl/station.sv")),
        ("slice.sv", include_str!("../../lpu/rtl/slice.sv")),
        ("mem.sv", include_str!("../../lpu/rtl/mem.sv")),
        ("alu.sv", include_str!("../../lpu/rtl/alu.sv")),
        ("vxm.sv", include_str!("../../lpu/rtl/vxm.sv")),
        ("plane.sv", include_str!("../../lpu/rtl/plane.sv")),
        ("mxm.sv", include_str!("../../lpu/rtl/mxm.sv")),
        ("shifter.sv", include_str!("../../lpu/rtl/shifter.sv")),
        ("distributor.sv", include_str!("../../lpu/rtl/distributor.sv")),
        ("transposer.sv", include_str!("../../lpu/rtl/transposer.sv")),
        ("sxm.sv", include_str!("../../lpu/rtl/sxm.sv")),
        ("lpu.sv", include_str!("../../lpu/rtl/lpu.sv")),
        ("main.cpp", include_str!("../../lpu/rtl/bench/main.cpp")),
        LANES[0],
    ],
    included: &[
        FLOAT,
        ("half.svh", include_str!("../../lpu/rtl/half.svh")),
        ("streams.svh", include_str!("../../lpu/rtl/streams.svh")),
        LANES[1],
    ],
    // The test bench says itself what happens when the machine stops. Programs for it are short, so the compiler need not try
    // hard.
    arguments: &["-CFLAGS", "-DVL_USER_STOP", "-MAKEFLAGS", "OPT_FAST=-O1", "-MAKEFLAGS", "OPT_SLOW=-O0"],
};

/// Why the machine could not be built or run.
#[derive(Debug, thiserror::Error)]
pub enum RtlError {
    /// A tool is not there or fails, or a file cannot be read or written.
    #[error(transparent)]
    Verilator(#[from] VerilatorError),
    /// The program is at fault.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The machine has written something else than results.
    #[error("the machine in SystemVerilog wrote no results for job {0}; please report this")]
    Results(usize),
}

/// A fault of a program, at which the machine stops. The text begins with the fault's name in `TIMING.md`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the machine in SystemVerilog stops at a fault of the program: {0}")]
pub struct Fault(pub String);

/// A machine, built.
#[derive(Clone, Debug)]
pub struct Rtl {
    built: Built,
    accumulator_words: usize,
}

/// A program to run.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The program in its binary form.
    pub program: &'a [u8],
    /// All memory before: slice by slice, vector by vector, lane by lane.
    pub memory: &'a [u8],
    /// The most cycles that the program may take; a run that would take more is given up.
    pub limit: u64,
}

/// What a run has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Cycles that the program takes; `None` if they are more than the limit.
    pub cycles: Option<u64>,
    /// The number of the queue and the cycle of every dispatch but those of nop, repeat and sync, by cycle, then by queue.
    pub dispatches: Vec<(usize, u64)>,
    /// All memory afterwards.
    pub memory: Vec<u8>,
    /// The accumulators of all planes, in the order of their queues: row by row, lane by lane.
    pub accumulators: Vec<u32>,
}

impl Rtl {
    /// Builds a machine in a folder of its own, or finds it there. Takes about a minute for a machine of 8 lanes.
    ///
    /// # Errors
    /// Verilator or the C++ compiler is not there or fails, or the folder cannot be written.
    pub fn build(machine: &LpuMachine, folder: &Path) -> Result<Rtl, RtlError> {
        Rtl::build_changed(machine, folder, |_, text| text.to_owned())
    }

    /// [`Rtl::build`] with changed sources: `change` gives the text of each by its name and text.
    ///
    /// # Errors
    /// As [`Rtl::build`].
    pub fn build_changed(
        machine: &LpuMachine,
        folder: &Path,
        change: impl Fn(&str, &str) -> String,
    ) -> Result<Rtl, RtlError> {
        Ok(Rtl {
            built: DESIGN.build(&parameters(machine), folder, change)?,
            accumulator_words: 2 * (machine.mxm.planes * machine.mxm.accumulators) as usize * machine.vector(),
        })
    }

    /// Runs programs, each on a machine that was just switched on. A fault of one does not touch the others.
    ///
    /// # Errors
    /// The machine cannot be run or writes no results, or files cannot be written.
    pub fn run(&self, jobs: &[Job<'_>]) -> Result<Vec<Result<Outcome, Fault>>, RtlError> {
        let left = self.built.run(&jobs.iter().map(Job::parts).collect::<Vec<_>>())?;
        let outcome = |(number, (job, left)): (usize, (&Job<'_>, Left))| {
            if let Some(text) = left.failure.as_deref().and_then(fault_in) {
                return Ok(Err(Fault(text.to_owned())));
            }
            let outcome = left.results.and_then(|bytes| self.outcome(&bytes, job.memory.len()));
            outcome.map(Ok).ok_or(RtlError::Results(number))
        };
        jobs.iter().zip(left).enumerate().map(outcome).collect()
    }

    /// Runs one program.
    ///
    /// # Errors
    /// As [`Rtl::run`], or the program is at fault.
    pub fn run_one(&self, job: Job<'_>) -> Result<Outcome, RtlError> {
        Ok(self.run(&[job])?.pop().ok_or(RtlError::Results(0))??)
    }

    /// Reads what the test bench has written.
    fn outcome(&self, bytes: &[u8], memory_bytes: usize) -> Option<Outcome> {
        let (cycles, mut rest) = bytes.split_first_chunk()?;
        let mut dispatches = Vec::new();
        loop {
            let (queue, behind) = rest.split_first_chunk()?;
            rest = behind;
            if *queue == [u8::MAX; 2] {
                break;
            }
            let (cycle, behind) = rest.split_first_chunk()?;
            rest = behind;
            dispatches.push((usize::from(u16::from_le_bytes(*queue)), u64::from_le_bytes(*cycle)));
        }
        let (memory, rest) = rest.split_at_checked(memory_bytes)?;
        let (words, rest) = rest.as_chunks();
        (rest.is_empty() && words.len() == self.accumulator_words).then(|| Outcome {
            cycles: Some(u64::from_le_bytes(*cycles)).filter(|&cycles| cycles != u64::MAX),
            dispatches,
            memory: memory.to_vec(),
            accumulators: words.iter().map(|word| u32::from_le_bytes(*word)).collect(),
        })
    }
}

impl<'a> Job<'a> {
    /// The job as the test bench reads it.
    fn parts(&self) -> Vec<Part<'a>> {
        vec![Part::Bytes(self.program), Part::Bytes(self.memory), Part::Number(self.limit)]
    }
}

/// The text of a fault in what the machine says when it stops.
fn fault_in(failure: &str) -> Option<&str> {
    let (_, place_and_text) = failure.lines().find_map(|line| line.split_once("Assertion failed in "))?;
    place_and_text.split_once(": ").map(|(_, text)| text)
}

/// The parameters of the top module.
fn parameters(machine: &LpuMachine) -> [(&'static str, u32); 18] {
    let LpuMachine { superlanes, lanes, streams, notify_latency, mem, vxm, mxm, sxm, energy: _ } = machine;
    let (Mem { slices, banks, words, latency: mem_latency }, Vxm { alus, latency: vxm_latency }) = (mem, vxm);
    let Mxm { planes, load_streams, accumulators, latency: mxm_latency } = mxm;
    let Sxm { shifters, distributors, transposers, latency: sxm_latency } = sxm;
    [
        ("SUPERLANES", superlanes),
        ("LANES", lanes),
        ("STREAMS", streams),
        ("NOTIFY_LATENCY", notify_latency),
        ("SLICES", slices),
        ("BANKS", banks),
        ("WORDS", words),
        ("MEM_LATENCY", mem_latency),
        ("ALUS", alus),
        ("VXM_LATENCY", vxm_latency),
        ("PLANES", planes),
        ("LOAD_STREAMS", load_streams),
        ("ACCUMULATORS", accumulators),
        ("MXM_LATENCY", mxm_latency),
        ("SHIFTERS", shifters),
        ("DISTRIBUTORS", distributors),
        ("TRANSPOSERS", transposers),
        ("SXM_LATENCY", sxm_latency),
    ]
    .map(|(name, value)| (name, *value))
}

#[cfg(test)]
pub(super) mod tests;
