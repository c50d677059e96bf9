//! The machines that tcc compiles for.
//!
//! A [`Target`] turns a graph into a [`Program`]: a fixed schedule with its code, cycles and report, which it can also
//! simulate. A machine is a TOML file in `machines/`; a kind of machine is a folder here and a line in [`machine::Kind`].

#![forbid(unsafe_code)]

mod arena;
mod digits;
pub mod explanation;
pub mod fpga;
pub mod kernel;
mod lower;
pub mod lpu;
pub mod machine;
mod number;
mod numbering;
mod optimizer;
mod pack;
mod products;
pub mod report;
mod scanner;
pub mod simt;
mod stored;
pub mod systolic;
pub mod target;
pub mod trace;
pub mod verilator;
mod weights;

pub use explanation::{Explanation, PlanTaken};
pub use machine::{Kind, Machine, MachineError};
pub use report::Report;
pub use target::{Optimization, Port, Program, Simulation, Target, TargetError, TraceSpan};

/// The target that compiles for a machine.
pub fn target(machine: Machine) -> Result<Box<dyn Target>, TargetError> {
    match machine.kind {
        Kind::Systolic => Ok(Box::new(systolic::Systolic::new(machine)?)),
        Kind::Lpu => Ok(Box::new(lpu::Lpu::new(machine)?)),
        Kind::Simt => Ok(Box::new(simt::Simt::new(machine)?)),
        Kind::Fpga => Ok(Box::new(fpga::Fpga::new(machine)?)),
    }
}
