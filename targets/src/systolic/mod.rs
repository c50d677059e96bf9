//! Systolic arrays: a weight-stationary array fed by decoupled load, store and vector units.

#[cfg(test)]
mod arbitrary;
pub mod assembly;
mod emit;
pub mod encoding;
pub mod isa;
mod layout;
mod legal;
mod lower;
mod machine;
mod nest;
pub mod simulator;
pub mod timing;

pub use machine::SystolicMachine;
