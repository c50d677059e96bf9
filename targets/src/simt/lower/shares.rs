//! How many threads share a row.

use crate::lower::rows::{HELD, Shares};
use crate::simt::SimtMachine;

/// Threads of a block, unless a row takes more.
const THREADS: u32 = 128;

/// Most threads of a row.
const MOST: u32 = 512;

/// How so many rows of so many elements are shared out.
pub(super) fn of(rows: usize, columns: usize, machine: &SimtMachine) -> Shares {
    let mut lanes = columns.max(1).next_power_of_two().min(machine.warp as usize) as u32;
    // Few rows would not fill the machine, and long ones not fit into registers.
    let fills = |lanes: u32| rows * lanes as usize >= machine.multiprocessors as usize * THREADS as usize * 4;
    let is_long = |lanes: u32| columns.div_ceil(lanes as usize) > HELD;
    while lanes < MOST.min(machine.block_threads) && is_long(lanes) && (!fills(lanes) || columns > 64 * lanes as usize)
    {
        lanes *= 2;
    }
    Shares { lanes, threads: lanes.max(THREADS), in_step: None }
}
