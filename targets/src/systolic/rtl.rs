//! The machine in SystemVerilog, run by Verilator: the same binary programs as the simulator's, in hardware.
//!
//! The sources stand in `targets/systolic/rtl/`. Whoever has Verilator and a C++ compiler can build the machine that a machine
//! file describes, and compare what it does with what the simulator says: the bits and the cycles are the same.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};

use super::SystolicMachine;
use super::isa::Unit;

/// The sources of the machine, in the order in which they are compiled.
const DESIGN: [(&str, &str); 11] = [
    ("machine_pkg.sv", include_str!("../../systolic/rtl/machine_pkg.sv")),
    ("delay.sv", include_str!("../../systolic/rtl/delay.sv")),
    ("cell.sv", include_str!("../../systolic/rtl/cell.sv")),
    ("array.sv", include_str!("../../systolic/rtl/array.sv")),
    ("memory.sv", include_str!("../../systolic/rtl/memory.sv")),
    ("queue.sv", include_str!("../../systolic/rtl/queue.sv")),
    ("issue.sv", include_str!("../../systolic/rtl/issue.sv")),
    ("sequencer.sv", include_str!("../../systolic/rtl/sequencer.sv")),
    ("dma.sv", include_str!("../../systolic/rtl/dma.sv")),
    ("feed.sv", include_str!("../../systolic/rtl/feed.sv")),
    ("vector.sv", include_str!("../../systolic/rtl/vector.sv")),
];

/// The module that holds the whole machine.
const TOP: (&str, &str) = ("systolic.sv", include_str!("../../systolic/rtl/systolic.sv"));

/// What the sources of the machine include.
const INCLUDED: [(&str, &str); 1] = [("float.svh", include_str!("../../systolic/rtl/float.svh"))];

/// The test bench, in C++.
const BENCH: [(&str, &str); 2] = [
    ("main.cpp", include_str!("../../systolic/rtl/bench/main.cpp")),
    ("lanes.cpp", include_str!("../../systolic/rtl/bench/lanes.cpp")),
];

/// What the test bench includes.
const BENCH_INCLUDED: [(&str, &str); 1] = [("lanes.h", include_str!("../../systolic/rtl/bench/lanes.h"))];

/// Why the machine could not be built or run.
#[derive(Debug, thiserror::Error)]
pub enum RtlError {
    /// A tool is not there.
    #[error("{tool} could not be started ({error}); install it, with Debian's package `{tool}` for example")]
    Tool {
        /// The tool.
        tool: &'static str,
        /// What the system says.
        error: io::Error,
    },
    /// A tool has failed.
    #[error("{tool} failed:\n{output}")]
    Failed {
        /// The tool.
        tool: &'static str,
        /// The end of what it has written.
        output: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
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
    folder: PathBuf,
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
        // Verilator and make run in other folders than this program.
        let folder = &std::path::absolute(folder).map_err(|error| RtlError::File { path: folder.to_owned(), error })?;
        let rtl = Rtl {
            folder: folder.clone(),
            scratchpad_bytes: machine.scratchpad.bytes as usize,
            accumulator_bytes: machine.accumulators.rows as usize * machine.array.columns as usize * 4,
        };
        let parameters = parameters(machine);
        let mut unchanged = write_if_changed(&folder.join("parameters"), &parameters.join("\n"))?;
        unchanged &= write_sources(folder, change)?;
        if unchanged && rtl.binary().exists() {
            return Ok(rtl);
        }
        let bench = BENCH.iter().map(|(name, _)| folder.join(name));
        let mut verilator = Command::new("verilator");
        verilator.args(["--cc", "--exe", "--build", "-j", "2", "-O3", "-Wno-fatal", "-Wno-lint", "-Wno-style"]);
        verilator.args(["-CFLAGS", "-O2 -std=c++17 -ffp-contract=off", "--top-module", "systolic", "--Mdir", "built"]);
        verilator.args(parameters.iter().map(|parameter| format!("-G{parameter}")));
        verilator.args(DESIGN.iter().chain([&TOP]).map(|(name, _)| name)).args(bench).current_dir(folder);
        run("verilator", &mut verilator)?;
        Ok(rtl)
    }

    /// Runs programs, each on a machine that was just switched on.
    ///
    /// # Errors
    /// The machine fails, as it does where a program leaves DRAM, or files cannot be written.
    pub fn run(&self, jobs: &[Job<'_>]) -> Result<Vec<Outcome>, RtlError> {
        // A machine may be run by several threads at once.
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let name = format!("run-{}-{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
        let runs = self.folder.join(&name);
        fs::create_dir_all(&runs).map_err(|error| RtlError::File { path: runs.clone(), error })?;
        let outcomes = self.run_in(&runs, &name, jobs);
        // What is left there is of no use, and of no harm.
        let _ = fs::remove_dir_all(&runs);
        outcomes
    }

    /// Runs programs in a folder, which is called `name` in the machine's own.
    fn run_in(&self, runs: &Path, name: &str, jobs: &[Job<'_>]) -> Result<Vec<Outcome>, RtlError> {
        let mut lines = String::new();
        for (number, job) in jobs.iter().enumerate() {
            for (kind, bytes) in [("program", job.program), ("weights", job.weights), ("memory", job.memory)] {
                write(&runs.join(format!("{number}.{kind}")), bytes)?;
            }
            lines.push_str(&format!(
                "{name}/{number}.program {name}/{number}.weights {} {name}/{number}.memory {} {name}/{number}.result\n",
                job.base, job.limit
            ));
        }
        write(&runs.join("jobs"), lines.as_bytes())?;
        let mut machine = Command::new(self.binary());
        machine.arg(format!("{name}/jobs")).current_dir(&self.folder);
        run("the machine", &mut machine)?;
        let outcome = |(number, job): (usize, &Job<'_>)| {
            let path = runs.join(format!("{number}.result"));
            let bytes = fs::read(&path).map_err(|error| RtlError::File { path, error })?;
            self.outcome(&bytes, job.memory.len()).ok_or(RtlError::Results(number))
        };
        jobs.iter().enumerate().map(outcome).collect()
    }

    fn binary(&self) -> PathBuf {
        self.folder.join("built").join("Vsystolic")
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

/// Writes all sources to a folder, as `change` gives them. Says whether they were there already.
fn write_sources(folder: &Path, change: impl Fn(&str, &str) -> String) -> Result<bool, RtlError> {
    let mut unchanged = true;
    for (name, text) in DESIGN.iter().chain([&TOP]).chain(&INCLUDED).chain(&BENCH).chain(&BENCH_INCLUDED) {
        unchanged &= write_if_changed(&folder.join(name), &change(name, text))?;
    }
    Ok(unchanged)
}

/// The parameters of the top module.
fn parameters(machine: &SystolicMachine) -> Vec<String> {
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
    .map(|(name, value)| format!("{name}={value}"))
    .to_vec()
}

/// Runs a command; an error if it does not end well.
fn run(tool: &'static str, command: &mut Command) -> Result<(), RtlError> {
    let Output { status, stdout, stderr } = command.output().map_err(|error| RtlError::Tool { tool, error })?;
    if status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    Err(RtlError::Failed { tool, output: lines[lines.len().saturating_sub(40)..].join("\n") })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), RtlError> {
    fs::write(path, bytes).map_err(|error| RtlError::File { path: path.to_owned(), error })
}

/// Writes a file, unless it holds that already. Says whether it did.
fn write_if_changed(path: &Path, text: &str) -> Result<bool, RtlError> {
    if fs::read_to_string(path).is_ok_and(|held| held == text) {
        return Ok(true);
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| RtlError::File { path: folder.to_owned(), error })?;
    }
    write(path, text.as_bytes())?;
    Ok(false)
}

#[cfg(test)]
mod tests;
