//! Tests of the importer as a whole, on models built in memory.

#![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

mod control;
mod external;
mod files;
mod functions;
mod names;
