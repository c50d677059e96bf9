//! What a launch finds in the common cache.

use crate::kernel::{LINE, Region};
use crate::simt::SimtMachine;

/// What of a buffer is in the common cache when a launch begins: the launch before it has written it, or asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Warm {
    /// Nothing.
    Cold,
    /// All of it.
    All,
    /// A part that was asked for.
    Asked(Asked),
}

/// A part of a buffer that comes line by line. All blocks read as much of it, as they are taken to do the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Asked {
    /// The part.
    pub region: Region,
    /// Cycles from the start until the last line is there; 0 if it is before.
    pub there: u64,
    /// Cycles that all lines take.
    pub takes: u64,
}

impl Asked {
    /// A part that is there from the start, on a machine with so many cycles a second: see [`Start::late_by`] for one that is late.
    pub fn new(region: Region, machine: &SimtMachine, clock_hz: u64) -> Asked {
        Asked { region, there: 0, takes: machine.dram_cycles(region.bytes(), clock_hz) }
    }

    /// The cycle in which a byte of the buffer is there, if it was asked for.
    pub(super) fn of(&self, byte: u64) -> Option<u64> {
        let region = &self.region;
        if !region.holds(byte) {
            return None;
        }
        let within = byte - region.first;
        let row = within.checked_div(region.pitch).unwrap_or(0);
        let line = row * region.lines() + (within - row * region.pitch) / LINE;
        let all = (region.rows * region.lines()).max(1);
        let behind = self.takes * (all - 1).saturating_sub(line) / all;
        Some(self.there.saturating_sub(behind))
    }
}

/// How a launch begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Start {
    /// What is in the common cache, by the kernel's buffers; nothing of those that are not named.
    pub warm: Vec<Warm>,
    /// Cycles until all that was asked for is there, for which memory is busy.
    pub late: u64,
}

impl Start {
    /// The same when all that was asked for, in the order of the buffers, is there after so many cycles.
    #[must_use]
    pub fn late_by(mut self, cycles: u64) -> Start {
        self.late = cycles;
        let mut there = cycles;
        for warm in self.warm.iter_mut().rev() {
            if let Warm::Asked(asked) = warm {
                asked.there = there;
                there = there.saturating_sub(asked.takes);
            }
        }
        self
    }
}
