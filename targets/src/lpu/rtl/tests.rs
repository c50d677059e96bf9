//! Small programs on the machine in SystemVerilog, encoded by hand: what each unit does, and in which cycle.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

mod arithmetic;
mod faults;
mod lanes;
mod least;
mod program;
mod random;
mod time;

use std::path::PathBuf;
use std::sync::OnceLock;

use program::Program;

use super::{Job, Outcome, Rtl, RtlError};
use crate::lpu::machine::LpuMachine;
use crate::lpu::machine::tests::small_machine as machine;
use crate::verilator::VerilatorError;

/// The bytes of a vector, and the vectors of a slice.
const VECTOR: usize = 8;
const VECTORS: usize = 128;

/// A folder of that name for a machine, beside the tests.
fn folder(name: &str) -> PathBuf {
    std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("rtl").join(name)
}

/// A machine in SystemVerilog; `None` if a user has not installed what it takes.
fn built(name: &str, machine: &LpuMachine, change: impl Fn(&str, &str) -> String) -> Option<Rtl> {
    match Rtl::build_changed(machine, &folder(name), change) {
        Ok(rtl) => Some(rtl),
        Err(RtlError::Verilator(VerilatorError::Tool { tool, error })) if std::env::var_os("CI").is_none() => {
            eprintln!("SKIPPED: {tool} is not installed ({error}); the machine in SystemVerilog is not tested");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn unchanged(_: &str, text: &str) -> String {
    text.to_owned()
}

/// The machine of these tests, built once for all.
pub(crate) fn rtl() -> Option<&'static Rtl> {
    static BUILT: OnceLock<Option<Rtl>> = OnceLock::new();
    BUILT.get_or_init(|| built("lpu-2x4", &machine(), unchanged)).as_ref()
}

/// Memory that differs everywhere.
fn memory() -> Vec<u8> {
    let mut state = 1u32;
    let byte = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..8 * VECTORS * VECTOR).map(byte).collect()
}

/// The vector at an address of a slice.
fn vector(memory: &[u8], slice: usize, address: usize) -> [u8; VECTOR] {
    let at = (slice * VECTORS + address) * VECTOR;
    memory[at..at + VECTOR].try_into().unwrap()
}

fn put(memory: &mut [u8], slice: usize, address: usize, vector: [u8; VECTOR]) {
    let at = (slice * VECTORS + address) * VECTOR;
    memory[at..at + VECTOR].copy_from_slice(&vector);
}

/// Puts elements to an address of consecutive slices, a byte plane in each.
fn put_elements<const BYTES: usize>(memory: &mut [u8], slice: usize, address: usize, elements: [[u8; BYTES]; VECTOR]) {
    for plane in 0..BYTES {
        put(memory, slice + plane, address, elements.map(|element| element[plane]));
    }
}

/// The elements at an address of consecutive slices.
fn elements<const BYTES: usize>(memory: &[u8], slice: usize, address: usize) -> [[u8; BYTES]; VECTOR] {
    let planes: [_; BYTES] = std::array::from_fn(|plane| vector(memory, slice + plane, address));
    std::array::from_fn(|lane| planes.map(|plane| plane[lane]))
}

/// Runs a program without fault; its dispatches and cycles must be those that it was written for.
fn run(rtl: &Rtl, program: &Program, memory: &[u8]) -> Outcome {
    let encoded = program.encode();
    let outcome = rtl.run_one(Job { program: &encoded, memory, limit: 1000 }).unwrap();
    assert_eq!(outcome.dispatches, program.dispatches());
    assert_eq!(outcome.cycles, Some(program.cycles()));
    outcome
}
