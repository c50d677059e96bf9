//! Functions of a design in SystemVerilog: what is scheduled, as hardware that does the same in the same cycles.
//!
//! High-level synthesis gets functions as C++ and schedules them itself. This is the schedule that cycles are counted with, written
//! out: Verilator says whether a function computes what its kernel says and takes the cycles that are counted, and a synthesis tool
//! what it takes of a part. The operators stand in `targets/fpga/rtl/`; [`emit`](emit::emit) connects them.

mod access;
mod emit;
mod memories;
mod operators;
mod run;
mod scope;
mod tables;
#[cfg(test)]
mod tests;
mod text;

pub use emit::{Call, Emitted, Whole, emit};
pub use run::{Outcome, Rtl, library};

use crate::verilator::VerilatorError;

/// Why a design could not be written, built or run.
#[derive(Debug, thiserror::Error)]
pub enum RtlError {
    /// A tool is not there or fails, or a file cannot be read or written.
    #[error(transparent)]
    Verilator(#[from] VerilatorError),
    /// There is no hardware for something that a function does.
    #[error("there is no hardware in SystemVerilog for {0}")]
    Unsupported(String),
    /// A schedule has something where it cannot be.
    #[error("the schedule cannot be built: {0}; please report this")]
    Schedule(String),
    /// The design has written something else than results.
    #[error("the design in SystemVerilog wrote no results for job {0}; please report this")]
    Results(usize),
}
