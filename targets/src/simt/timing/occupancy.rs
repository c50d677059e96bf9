//! How many blocks run at a time.

use super::code::Compiled;
use crate::kernel::Kernel;
use crate::simt::SimtMachine;

/// How much more registers than a block leaves to its threads may be counted before a compiler is taken to spill: `ptxas` computes
/// again what it need not hold, and was seen to take as much less than is counted here.
const SPARE: (u32, u32) = (5, 4);

/// What keeps more blocks from a multiprocessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The number of blocks that it takes.
    Blocks,
    /// The number of its warps.
    Warps,
    /// Its registers.
    Registers,
    /// Its shared memory.
    Shared,
    /// There are no more.
    Grid,
}

impl Limit {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Limit::Blocks => "blocks",
            Limit::Warps => "warps",
            Limit::Registers => "registers",
            Limit::Shared => "shared memory",
            Limit::Grid => "the grid",
        }
    }
}

/// How many blocks of a kernel run at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// Blocks of a multiprocessor.
    pub blocks: u32,
    /// Warps of them.
    pub warps: u32,
    /// What keeps more from it.
    pub limit: Limit,
    /// Registers of a thread.
    pub registers: u32,
    /// Whether a thread would take more than it can have.
    pub is_short_of_registers: bool,
    /// Whether it would take so much more that a compiler is taken to keep values in memory.
    pub would_spill: bool,
    /// Multiprocessors that have blocks.
    pub active: u64,
    /// Bytes of shared memory of a block, with what is reserved for it.
    pub shared_bytes: u64,
}

impl Occupancy {
    pub(super) fn new(kernel: &Kernel, compiled: &Compiled, machine: &SimtMachine) -> Occupancy {
        let warps = kernel.threads.div_ceil(machine.warp);
        // A block always fits: a compiler that is told how many threads there are keeps values in memory instead, which is not
        // counted.
        let most = (machine.registers / warps / machine.register_unit * machine.register_unit / machine.warp).max(1);
        let registers = compiled.registers.min(machine.thread_registers).min(most);
        let is_short_of_registers = registers < compiled.registers;
        let would_spill =
            compiled.registers > machine.thread_registers || compiled.registers * SPARE.1 > registers * SPARE.0;
        let of_warp = (registers * machine.warp).next_multiple_of(machine.register_unit);
        // Programs of CUDA have no arrays for what lanes of a warp combine; those of OpenCL have them on every machine.
        let own = match machine.compute_capability {
            Some(_) => kernel.shared_bytes_with_shuffles(machine.warp),
            None => kernel.shared_bytes(),
        };
        let shared_bytes = own + machine.shared.reserved;
        let per_multiprocessor = kernel.blocks().div_ceil(u64::from(machine.multiprocessors));
        let limits = [
            (Limit::Blocks, u64::from(machine.blocks)),
            (Limit::Warps, u64::from(machine.warps / warps)),
            (Limit::Registers, u64::from(machine.registers / of_warp / warps)),
            (Limit::Shared, machine.shared.bytes.checked_div(shared_bytes).unwrap_or(u64::MAX)),
            (Limit::Grid, per_multiprocessor),
        ];
        // Of equal limits the last is named: a grid that is just large enough has no more blocks.
        let least = limits.into_iter().rev().min_by_key(|&(_, blocks)| blocks);
        let (limit, blocks) = least.unwrap_or((Limit::Grid, 1));
        let blocks = blocks.max(1) as u32;
        let active = kernel.blocks().min(u64::from(machine.multiprocessors));
        Occupancy {
            blocks,
            warps: blocks * warps,
            limit,
            registers,
            is_short_of_registers,
            would_spill,
            active,
            shared_bytes,
        }
    }

    /// Registers that a thread may have while as many blocks run at a time.
    pub(super) fn room(&self, machine: &SimtMachine) -> u32 {
        let of_warp = machine.registers / self.warps.max(1) / machine.register_unit * machine.register_unit;
        (of_warp / machine.warp).min(machine.thread_registers)
    }

    /// Blocks that run at a time.
    pub fn wave(&self) -> u64 {
        self.active * u64::from(self.blocks)
    }

    /// Sectors that the multiprocessor's cache holds beside shared memory.
    pub(super) fn l1_sectors(&self, machine: &SimtMachine) -> u64 {
        let taken = if machine.shared.in_l1 { u64::from(self.blocks) * self.shared_bytes } else { 0 };
        machine.l1.bytes.saturating_sub(taken) / u64::from(machine.sector)
    }
}
