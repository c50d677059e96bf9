//! FPGAs: parts whose circuits are made for one model, through high-level synthesis.
//!
//! A plan becomes calls of functions (`lower`), kernels whose lanes are hardware side by side, whose loops are pipelined and whose
//! buffers lie in memories on the part or beside it (`design`).

pub mod access;
pub mod design;
mod machine;
pub mod memories;
pub mod nest;
pub mod operators;
mod program;
pub mod resources;
pub mod rtl;
pub mod schedule;
pub mod widths;

pub use machine::{ExternalMemory, FpgaMachine, Usable};
