//! Which of what multiprocessors ask from the common cache they ask for together.
//!
//! Memory is read once for all blocks that run at a time, or did: what another multiprocessor reads too comes from the common
//! cache for all but one. How many that are is found by looking where the first and the last thread of every block of a wave
//! access something first: among blocks on the same multiprocessor equal places are one, since its cache has them, and of all
//! that remain the distinct ones are fetched, unless they are in the common cache from the start (`warm`). What that holds stays in it
//! only if it fits: buffers count from the smallest on until they fill it; of the others each wave fetches what it reads anew.

use std::collections::HashSet;

use super::code::{Code, Compiled, Source, Space};
use super::lanes::{Lanes, MAX_LANES};
use super::occupancy::Occupancy;
use super::warp::{Next, Walk, Warp};
use crate::kernel::Kernel;
use crate::kernel::simulator::buffer_bytes;
use crate::simt::SimtMachine;

/// Most blocks that are looked at, and most steps that are walked for that.
const MAX_BLOCKS: u64 = 1 << 13;
const MAX_STEPS: u64 = 1 << 18;

/// Which part of what an access asks from the common cache has to be fetched from memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// The buffer.
    pub buffer: u32,
    /// Of so many multiprocessors' requests...
    pub blocks: u64,
    /// ...so many are for something that no other wants.
    pub distinct: u64,
    /// Sectors after which a multiprocessor's part of the buffer is in the common cache, if it stays there and several waves
    /// read it.
    pub limit: Option<u64>,
}

/// The shares of all accesses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sharing {
    pub accesses: Vec<Share>,
}

impl Sharing {
    pub fn new(kernel: &Kernel, compiled: &Compiled, machine: &SimtMachine, occupancy: &Occupancy) -> Sharing {
        let stays = staying(kernel, machine);
        let touched = Touched::of(kernel, compiled, machine);
        let accesses = compiled.accesses.iter().zip(&touched.keys);
        let share = |(access, keys): (&super::code::Access, &Vec<(i64, i64)>)| {
            let Space::Global(buffer) = access.space else {
                return Share { buffer: 0, blocks: 1, distinct: 1, limit: None };
            };
            let (multiprocessors, wave) = (occupancy.active as usize, occupancy.wave() as usize);
            let distinct = |keys: &[(i64, i64)]| keys.iter().collect::<HashSet<_>>().len() as u64;
            let first = &keys[..wave.min(keys.len())];
            // Blocks go to multiprocessors in turn.
            let own: HashSet<_> = first.iter().enumerate().map(|(block, key)| (block % multiprocessors, key)).collect();
            let waves: u64 = keys.chunks(wave.max(1)).map(distinct).sum();
            let is_read_again = distinct(keys) < waves;
            let sectors = buffer_bytes(access_type(kernel, buffer), kernel.buffers[buffer as usize].elements)
                .div_ceil(u64::from(machine.sector));
            let limit = is_read_again && stays[buffer as usize];
            // What the kernel itself has written is there already.
            let is_own = kernel.buffers[buffer as usize].is_written && stays[buffer as usize];
            Share {
                buffer,
                blocks: (own.len() as u64).max(1),
                distinct: distinct(first).max(1),
                limit: if is_own { Some(0) } else { limit.then(|| sectors.div_ceil(occupancy.active)) },
            }
        };
        Sharing { accesses: accesses.map(share).collect() }
    }
}

fn access_type(kernel: &Kernel, buffer: u32) -> tcc_ir::DType {
    kernel.buffers[buffer as usize].dtype
}

/// Which buffers stay in the common cache: from the smallest on, until they fill it.
fn staying(kernel: &Kernel, machine: &SimtMachine) -> Vec<bool> {
    let bytes = |buffer: usize| buffer_bytes(access_type(kernel, buffer as u32), kernel.buffers[buffer].elements);
    let mut order: Vec<usize> = (0..kernel.buffers.len()).collect();
    order.sort_by_key(|&buffer| (bytes(buffer), buffer));
    let mut stays = vec![false; order.len()];
    let mut left = machine.l2.bytes;
    for buffer in order {
        match left.checked_sub(bytes(buffer)) {
            Some(rest) => (left, stays[buffer]) = (rest, true),
            None => break,
        }
    }
    stays
}

/// Where the first and the last thread of each block access something first, in sectors, by access.
struct Touched {
    keys: Vec<Vec<(i64, i64)>>,
}

impl Touched {
    fn of(kernel: &Kernel, compiled: &Compiled, machine: &SimtMachine) -> Touched {
        let chunks = (MAX_STEPS / (2 * compiled.code.len() as u64).max(1)).max(1);
        let blocks = kernel.blocks().min(MAX_BLOCKS).min(chunks * MAX_LANES as u64);
        let straight = straightened(compiled);
        let mut keys = vec![Vec::with_capacity(blocks as usize); compiled.accesses.len()];
        // Blocks stand in for the lanes of a warp.
        let walk = Walk { compiled: &straight, lanes: MAX_LANES };
        for first in (0..blocks).step_by(MAX_LANES) {
            let count = (blocks - first).min(MAX_LANES as u64) as usize;
            let axis = |axis: usize| Lanes::each(|lane| i64::from(place(kernel, first + lane as u64)[axis]));
            let block = [axis(0), axis(1), axis(2)];
            let ends = [0, i64::from(kernel.threads) - 1].map(|thread| {
                let mut warp = Warp::new(walk, Lanes::same(thread), block.clone(), u64::MAX, 0);
                let mut found: Vec<Option<Lanes>> = vec![None; compiled.accesses.len()];
                while let Next::Instruction(instruction) = warp.walk(walk) {
                    if let Some(number) = instruction.access {
                        let access = &compiled.accesses[number as usize];
                        found[number as usize].get_or_insert_with(|| warp.address(access));
                    }
                    warp.issued(&instruction, 0);
                }
                found
            });
            for (number, access) in compiled.accesses.iter().enumerate() {
                let [Some(a), Some(b)] = [&ends[0][number], &ends[1][number]] else { continue };
                let sector = |index: i64| index * access.bits as i64 / 8 / i64::from(machine.sector);
                keys[number].extend((0..count).map(|lane| (sector(a.at(lane)), sector(b.at(lane)))));
            }
        }
        Touched { keys }
    }
}

/// A block's place in the grid by its number.
pub(super) fn place(kernel: &Kernel, number: u64) -> [u32; 3] {
    let [x, y, _] = kernel.grid.map(u64::from);
    [(number % x) as u32, (number / x % y) as u32, (number / x / y) as u32]
}

/// The same code with every loop gone through once and both sides of every condition, without barriers.
fn straightened(compiled: &Compiled) -> Compiled {
    let step = |&code: &Code| match code {
        Code::Loop { counter, from, .. } => Code::Copy { from, to: counter, is_new: false },
        // A copy of a known index to where nobody looks keeps places what they are.
        Code::EndLoop { .. } | Code::Barrier | Code::EndIf | Code::Else { .. } | Code::If { .. } => {
            Code::Copy { from: Source::Known(0), to: compiled.slots as u32, is_new: true }
        }
        Code::Issue(_)
        | Code::Alias { .. }
        | Code::Index { .. }
        | Code::Choose { .. }
        | Code::Copy { .. }
        | Code::Commit
        | Code::Await { .. } => code,
    };
    let code = compiled.code.iter().map(step).collect();
    let Compiled { accesses, registers, copies, .. } = compiled;
    Compiled { code, slots: compiled.slots + 1, accesses: accesses.clone(), registers: *registers, copies: *copies }
}
