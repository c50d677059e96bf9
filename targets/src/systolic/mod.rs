//! Systolic arrays: a weight-stationary array fed by decoupled load, store and vector units.

pub mod isa;
mod machine;

pub use machine::SystolicMachine;
