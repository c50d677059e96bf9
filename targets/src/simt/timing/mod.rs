//! How many cycles kernels take.
//!
//! A kernel is expanded into the instructions of a warp (`compiler`, `recipe`, `code`), which are ordered as a compiler would
//! (`schedule`), and which warps walk (`warp`, `lanes`) and multiprocessors issue (`multiprocessor`, `memory`). What happens is simulated event by event and in integers, for the kernel
//! as it is: its loops, the addresses of each lane, its barriers. Time depends on no data: what is loaded is not known, a
//! condition on it is taken to hold for some lanes and not for others, and an address from it leads to memory that no cache
//! has. What repeats is left out (`steady`, `launch`), so that a kernel of any size is timed in a fraction of a second.

mod analysis;
mod cache;
mod code;
mod compiler;
mod lanes;
mod launch;
mod memory;
mod multiprocessor;
mod occupancy;
mod pattern;
mod recipe;
mod registers;
mod resource;
mod schedule;
mod setting;
mod sharing;
mod signature;
mod steady;
#[cfg(test)]
mod tests;
mod warm;
mod warp;

pub use occupancy::{Limit, Occupancy};
pub use resource::{Resource, Unit};
pub use warm::{Asked, Start, Warm};

use resource::TICKS;
use setting::Setting;

use super::SimtMachine;
use crate::kernel::Kernel;

/// How long a kernel takes, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelTime {
    /// Cycles from the first instruction until all blocks are over and all that was stored is in memory.
    pub cycles: u64,
    /// Cycles from then on until all is in the common cache that it has asked for on behalf of a later launch.
    pub behind: u64,
    /// Number of blocks.
    pub blocks: u64,
    /// Rounds in which they run, each as many as run at a time.
    pub waves: u64,
    /// How many run at a time.
    pub occupancy: Occupancy,
    /// Cycles for which each resource was busy, in the order of [`Resource::ALL`]: on the mean of the multiprocessors that have
    /// blocks, and of their schedulers.
    pub busy: [u64; Resource::ALL.len()],
    /// Instructions of warps, in the order of [`Unit::ALL`].
    pub issued: [u64; Unit::ALL.len()],
    /// Bytes read from and written to memory.
    pub dram_bytes: u64,
    /// Bytes read from and written to the common cache.
    pub l2_bytes: u64,
    /// Bytes read from memory, by the kernel's buffers.
    pub read_bytes: Vec<u64>,
}

impl KernelTime {
    /// The resource that was busy longest, unless all were idle for more than half of the time.
    pub fn bound(&self) -> Option<Resource> {
        let longest = Resource::ALL.into_iter().max_by_key(|resource| self.busy[resource.index()]);
        longest.filter(|resource| 2 * self.busy[resource.index()] >= self.cycles)
    }

    /// What bounds it, in a word.
    pub fn bound_by(&self) -> &'static str {
        self.bound().map_or("latency", Resource::name)
    }
}

/// Times a kernel, which must have passed [`check`](crate::kernel::check::check), on a machine with so many cycles a second.
pub fn time(kernel: &Kernel, machine: &SimtMachine, clock_hz: u64, start: &Start) -> KernelTime {
    measure(&Setting::new(kernel, machine, clock_hz, start))
}

/// How good a kernel is, to compare it with others that do the same; the less, the better: whether it would spill registers, which
/// costs what is not modelled, and about how many cycles it takes.
pub fn estimate(kernel: &Kernel, machine: &SimtMachine, clock_hz: u64) -> (bool, u64) {
    let setting = Setting::rough(kernel, machine, clock_hz, &Start::default());
    (setting.occupancy.would_spill, launch::run(&setting).cycles)
}

/// About how many cycles it is from the start of a kernel to the end of another that follows it, and finds in the common cache what is
/// said, if there are so many between them.
pub fn estimate_between(
    first: &Kernel,
    (second, start): (&Kernel, Start),
    machine: &SimtMachine,
    clock_hz: u64,
    gap: u64,
) -> u64 {
    let before = launch::run(&Setting::new(first, machine, clock_hz, &Start::default()));
    let start = start.late_by(before.behind.saturating_sub(gap));
    let after = launch::run(&Setting::new(second, machine, clock_hz, &start));
    before.cycles + gap + after.cycles
}

fn measure(setting: &Setting<'_>) -> KernelTime {
    let Setting { machine, occupancy, .. } = setting;
    let outcome = launch::run(setting);
    let counters = outcome.counters;
    let mut busy = counters.busy.map(|ticks| ticks / TICKS / occupancy.active);
    let per_scheduler = [Resource::Issue].into_iter().chain(Unit::ALL.into_iter().filter_map(Unit::resource));
    per_scheduler.for_each(|resource| busy[resource.index()] /= u64::from(machine.schedulers));
    let blocks = setting.kernel.blocks();
    KernelTime {
        cycles: outcome.cycles,
        behind: outcome.behind,
        blocks,
        waves: blocks.div_ceil(u64::from(machine.multiprocessors) * u64::from(occupancy.blocks)),
        occupancy: occupancy.clone(),
        busy,
        issued: counters.issued,
        dram_bytes: counters.dram_sectors * u64::from(machine.sector),
        l2_bytes: counters.l2_sectors * u64::from(machine.sector),
        read_bytes: counters.fetched.iter().map(|sectors| sectors * u64::from(machine.sector)).collect(),
    }
}
