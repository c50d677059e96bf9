//! Systolic arrays: a weight-stationary array fed by decoupled load, store and vector units.

mod emit;
pub mod isa;
mod layout;
mod legal;
mod lower;
mod machine;
mod nest;
pub mod timing;

pub use machine::SystolicMachine;
