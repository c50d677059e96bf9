//! How the rows and keys of an attention are shared out.

use tcc_ir::ops::AttentionDims;

use super::super::operand::Operand;
use super::super::partial::Partial;
use crate::simt::SimtMachine;

/// Rows of a block at the most.
const ROWS: usize = 8;

/// Keys that a team reads at a time at the most.
const AHEAD: usize = 8;

/// Keys of a team below which keys are not split further: what blocks hand over costs about as much as so many.
const LEAST_KEYS: usize = 2;

/// Threads of a block where blocks are many, and where they are few.
const THREADS: usize = 128;
const MOST_THREADS: usize = 512;

/// Bytes of shared memory that a block takes at the most where a machine has more.
const SHARED_BYTES: u64 = 96 << 10;

/// Registers of a thread that are for anything but queries, keys, values and sums.
const OTHER_REGISTERS: usize = 48;

/// How an attention is shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shares {
    /// Threads of a block.
    pub threads: usize,
    /// Lanes of a team.
    pub lanes: usize,
    /// Rows of a block.
    pub rows: usize,
    /// Blocks that share the rows of a group, and those that share its keys.
    pub tiles: usize,
    pub splits: usize,
    /// Keys of a block.
    pub keys: usize,
    /// Keys that a team reads at a time.
    pub ahead: usize,
}

/// What lanes hold of keys and of values.
pub(super) type Operands = [Operand; 2];

impl Shares {
    /// For blocks of any number of threads that a machine runs, in which so many keys lie in shared memory; none if not even one
    /// row fits.
    pub fn all(machine: &SimtMachine, dims: &AttentionDims, operands: &Operands, staged: usize) -> Vec<Shares> {
        let (warp, multiprocessors) = (machine.warp as usize, machine.multiprocessors as usize);
        let lanes = operands.iter().map(Operand::wanted_lanes).max().unwrap_or(1).min(warp);
        let held = operands.map(|operand| operand.over(lanes).held()).iter().sum::<usize>();
        let width = operands[1].over(lanes).padded();
        let depth = operands[0].over(lanes).padded();
        let bytes = machine.shared.block_bytes.min(SHARED_BYTES.max(machine.shared.block_bytes / 4));
        let all = dims.heads / dims.groups * dims.queries;
        let mut found: Vec<Shares> = Vec::new();
        let mut threads = MOST_THREADS.min(machine.block_threads as usize).next_power_of_two();
        while threads > machine.block_threads as usize {
            threads /= 2;
        }
        while threads >= THREADS.min(machine.block_threads as usize) && threads >= warp {
            let teams = threads / lanes;
            let registers = (machine.registers as usize / threads).min(machine.thread_registers as usize);
            let registers = registers.saturating_sub(OTHER_REGISTERS);
            let fits = |rows: usize| {
                let elements = Partial::elements(teams, rows, width) + Partial::together(teams, rows) + rows * depth;
                let between = Partial::together(multiprocessors, rows) + threads + 64;
                4 * (elements + between + staged * (width + depth)) as u64 <= bytes
            };
            let takes = |rows: usize, ahead: usize| rows * (held + 3 + ahead) + ahead * held;
            let most = (1..=ROWS.min(all)).rev().find(|&rows| fits(rows) && (rows == 1 || takes(rows, 1) <= registers));
            if let Some(most) = most {
                let tiles = all.div_ceil(most);
                let rows = all.div_ceil(tiles);
                let blocks = dims.batch * dims.groups * tiles;
                let splits = (multiprocessors / blocks.max(1)).min(dims.keys.div_ceil(teams * LEAST_KEYS)).max(1);
                let keys = dims.keys.div_ceil(splits).next_multiple_of(teams);
                let splits = dims.keys.div_ceil(keys);
                let each = keys.min(dims.keys).div_ceil(teams);
                let ahead = (1..=AHEAD).rev().find(|&ahead| takes(rows, ahead) <= registers).unwrap_or(1);
                let ahead = each.div_ceil(each.div_ceil(ahead));
                found.push(Shares { threads, lanes, rows, tiles, splits, keys, ahead });
            }
            threads /= 2;
        }
        found
    }

    /// Teams of a block.
    pub fn teams(&self) -> usize {
        self.threads / self.lanes
    }
}
