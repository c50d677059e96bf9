//! Machines in SystemVerilog, built and run by Verilator: what the targets share of it.
//!
//! A [`Design`] names the sources of a machine and of its test bench. [`Design::build`] gives a binary for one set of
//! parameters, which [`Built::run`] runs with jobs. What the parameters and the jobs are is the target's business.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};

/// A source: the name of its file, and its text.
pub type Source<'s> = (&'s str, &'s str);

/// The lane arithmetic as SystemVerilog knows it.
pub const LANES_PACKAGE: Source = ("lanes_pkg.sv", include_str!("../rtl/lanes_pkg.sv"));

/// The lane arithmetic, in C++, and what declares it.
pub const LANES: [Source; 2] =
    [("lanes.cpp", include_str!("../rtl/lanes.cpp")), ("lanes.h", include_str!("../rtl/lanes.h"))];

/// A module that holds a word back.
pub const DELAY: Source = ("delay.sv", include_str!("../rtl/delay.sv"));

/// Arithmetic of floats that can be synthesised.
pub const FLOAT: Source = ("float.svh", include_str!("../rtl/float.svh"));

/// Why a machine could not be built or run.
#[derive(Debug, thiserror::Error)]
pub enum VerilatorError {
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
}

/// The sources of a machine.
#[derive(Clone, Copy, Debug)]
pub struct Design<'s> {
    /// The module that holds the whole machine; the binary is called after it.
    pub top: &'s str,
    /// The machine and its test bench, in the order in which they are compiled.
    pub compiled: &'s [Source<'s>],
    /// What they include.
    pub included: &'s [Source<'s>],
    /// Further arguments for Verilator.
    pub arguments: &'s [&'s str],
}

impl Design<'_> {
    /// Builds the machine with parameters of its top module in a folder of its own, or finds it there. `change` gives the
    /// text of each source by its name and text.
    ///
    /// # Errors
    /// Verilator or the C++ compiler is not there or fails, or the folder cannot be written.
    pub fn build(
        &self,
        parameters: &[(&str, u32)],
        folder: &Path,
        change: impl Fn(&str, &str) -> String,
    ) -> Result<Built, VerilatorError> {
        // Verilator and make run in other folders than this program.
        let folder = std::path::absolute(folder).map_err(|error| file_error(folder, error))?;
        let parameters: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut unchanged = write_if_changed(&folder.join("parameters"), &parameters.join("\n"))?;
        unchanged &= self.write_sources(&folder, change)?;
        let built = Built { top: self.top.to_owned(), folder };
        if unchanged && built.binary().exists() {
            return Ok(built);
        }
        let mut verilator = Command::new("verilator");
        verilator.args(["--cc", "--exe", "--build", "-j", "2", "-O3", "-Wno-fatal", "-Wno-lint", "-Wno-style"]);
        verilator.args(["-CFLAGS", "-O2 -std=c++17 -ffp-contract=off", "--top-module", self.top, "--Mdir", "built"]);
        verilator.args(self.arguments);
        verilator.args(parameters.iter().map(|parameter| format!("-G{parameter}")));
        verilator.args(self.compiled.iter().map(|(name, _)| built.folder.join(name))).current_dir(&built.folder);
        execute("verilator", &mut verilator)?;
        Ok(built)
    }

    /// Writes all sources to a folder, as `change` gives them. Says whether they were there already.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write_sources(&self, folder: &Path, change: impl Fn(&str, &str) -> String) -> Result<bool, VerilatorError> {
        let mut unchanged = true;
        for (name, text) in self.compiled.iter().chain(self.included) {
            unchanged &= write_if_changed(&folder.join(name), &change(name, text))?;
        }
        Ok(unchanged)
    }
}

/// A machine, built.
#[derive(Clone, Debug)]
pub struct Built {
    top: String,
    folder: PathBuf,
}

/// A part of a job, as the test bench reads it.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// Bytes, in a file.
    Bytes(&'a [u8]),
    /// A number.
    Number(u64),
}

/// What a job has left.
#[derive(Clone, Debug)]
pub struct Left {
    /// The results; `None` if there are none.
    pub results: Option<Vec<u8>>,
    /// What the test bench says of a job that has failed, if it says so.
    pub failure: Option<String>,
}

impl Built {
    /// Runs jobs, each on a machine that was just switched on. The test bench gets a file with a line for each: its parts, and
    /// last the name of the file for its results. It may write what went wrong to a file of that name with `.failure` behind.
    ///
    /// # Errors
    /// The test bench fails, or files cannot be written.
    pub fn run(&self, jobs: &[Vec<Part<'_>>]) -> Result<Vec<Left>, VerilatorError> {
        // A machine may be run by several threads at once.
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let name = format!("run-{}-{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
        let runs = self.folder.join(&name);
        fs::create_dir_all(&runs).map_err(|error| file_error(&runs, error))?;
        let left = self.run_in(&runs, &name, jobs);
        // What is left there is of no use, and of no harm.
        let _ = fs::remove_dir_all(&runs);
        left
    }

    /// Runs jobs in a folder, which is called `name` in the machine's own.
    fn run_in(&self, runs: &Path, name: &str, jobs: &[Vec<Part<'_>>]) -> Result<Vec<Left>, VerilatorError> {
        let mut lines = String::new();
        for (number, job) in jobs.iter().enumerate() {
            for (index, part) in job.iter().enumerate() {
                match part {
                    Part::Bytes(bytes) => {
                        write(&runs.join(format!("{number}.{index}")), bytes)?;
                        lines.push_str(&format!("{name}/{number}.{index} "));
                    }
                    Part::Number(value) => lines.push_str(&format!("{value} ")),
                }
            }
            lines.push_str(&format!("{name}/{number}.results\n"));
        }
        write(&runs.join("jobs"), lines.as_bytes())?;
        let mut machine = Command::new(self.binary());
        machine.arg(format!("{name}/jobs")).current_dir(&self.folder);
        execute("the machine", &mut machine)?;
        let left = |number: usize| {
            Ok(Left {
                results: read_if_there(&runs.join(format!("{number}.results")))?,
                failure: read_if_there(&runs.join(format!("{number}.results.failure")))?
                    .map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
            })
        };
        (0..jobs.len()).map(left).collect()
    }

    fn binary(&self) -> PathBuf {
        self.folder.join("built").join(format!("V{}", self.top))
    }
}

/// Runs a command; an error if it does not end well.
fn execute(tool: &'static str, command: &mut Command) -> Result<(), VerilatorError> {
    let Output { status, stdout, stderr } = command.output().map_err(|error| VerilatorError::Tool { tool, error })?;
    if status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    Err(VerilatorError::Failed { tool, output: lines[lines.len().saturating_sub(40)..].join("\n") })
}

fn file_error(path: &Path, error: io::Error) -> VerilatorError {
    VerilatorError::File { path: path.to_owned(), error }
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, VerilatorError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file_error(path, error)),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), VerilatorError> {
    fs::write(path, bytes).map_err(|error| file_error(path, error))
}

/// Writes a file, unless it holds that already. Says whether it did.
fn write_if_changed(path: &Path, text: &str) -> Result<bool, VerilatorError> {
    if fs::read_to_string(path).is_ok_and(|held| held == text) {
        return Ok(true);
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| file_error(folder, error))?;
    }
    write(path, text.as_bytes())?;
    Ok(false)
}
