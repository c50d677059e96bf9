//! The command line: arguments in, one command, text or JSON out, an exit code that scripts can rely on.
//!
//! Results go to standard output, everything else to standard error. Each command is a file; [`page`] lays out what they
//! print, [`failure`] says what went wrong and with which exit code.

mod arguments;
mod build;
mod compare;
mod eval;
mod explanation;
mod failure;
mod inspect;
mod machines;
mod outputs;
mod page;
mod plan;
mod progress;
mod report;
mod report_page;
mod run;
mod units;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser};

use arguments::{Cli, Command};
use failure::{Exit, Failure};

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli.command) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprint_line(&format!("error: {failure}"));
            failure.exit.into()
        }
    }
}

fn dispatch(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Build(arguments) => arguments.threads.install(|| build::run(&arguments)),
        Command::Run(arguments) => arguments.threads.install(|| run::run(&arguments)),
        Command::Eval(arguments) => arguments.threads.install(|| eval::run(&arguments)),
        Command::Compare(arguments) => arguments.threads.install(|| compare::run(&arguments)),
        Command::Inspect(arguments) => arguments.threads.install(|| inspect::run(&arguments)),
        Command::Report(arguments) => report::run(&arguments),
        Command::Machines(arguments) => machines::run(&arguments),
        Command::Completions(arguments) => {
            let mut script = Vec::new();
            clap_complete::generate(arguments.shell, &mut Cli::command(), "tcc", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
    }
}

/// Prints a result. That nobody reads it to the end is no fault: `tcc inspect model.onnx | head` is done.
fn print(text: &str) -> Result<Exit, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::fault(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(Exit::Done),
    }
}

/// Prints JSON as [`print`] does.
fn print_json(value: &impl serde::Serialize) -> Result<Exit, Failure> {
    let json = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::fault(format!("the result cannot be written as JSON: {error}")))?;
    print(&(json + "\n"))
}

/// Prints a line for people. If standard error is closed there is nobody to tell.
fn eprint_line(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
