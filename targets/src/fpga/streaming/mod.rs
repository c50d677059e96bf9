//! Designs whose calls are stages that run at the same time: what lies between them, and how long inferences take.

mod copies;
mod evaluate;
mod mix;
mod network;
mod order;
mod place;
mod ports;
mod search;
mod stage;
mod streamed;
#[cfg(test)]
mod tests;
mod verify;

pub(in crate::fpga) use search::search;
pub(in crate::fpga) use streamed::{SHIFT, Streamed, ends, shared};
pub(in crate::fpga) use verify::verify;
