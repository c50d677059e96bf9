//! The LPU: units in a row, from west to east, that pass vectors to each other on streams, each with a queue of instructions
//! whose times the program alone decides.

pub mod isa;
mod machine;
pub mod rtl;

pub use machine::LpuMachine;
