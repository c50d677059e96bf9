//! What is written: how it reads, and what it computes.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

mod elements;
mod harness;
mod memories;
mod shapes;
mod text;
