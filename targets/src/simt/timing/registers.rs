//! How many registers a thread takes.
//!
//! What is computed lives from there to its last use, and through a whole loop if it comes from before it. The most that live
//! at a time, and a few more, are what a compiler is assumed to need: it may do better by computing things again. Registers are
//! counted where instructions are at the end, when some have been put forward (`schedule`).

use super::code::{NOTHING, Slot};

/// Registers that every thread takes beyond what it computes: assumed, about what the smallest kernels have.
pub(super) const OVERHEAD: u32 = 10;

/// How many registers instructions may take that are put forward, as a multiple of what the order of the kernel takes: assumed.
/// `ptxas` was seen to take 240 for 206 where much is loaded behind a product; on the mean of many kernels it takes about as many
/// as the order of the kernel, also where it may have more.
pub(super) const FORWARD: (u32, u32) = (9, 8);

/// Something that is held in registers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Live {
    pub slot: Slot,
    pub registers: u32,
    /// The first step and the last that it is needed in.
    pub first: usize,
    pub last: usize,
}

/// What lives from which step to which.
#[derive(Clone, Debug, Default)]
pub(super) struct Lives {
    /// By where they begin.
    pub all: Vec<Live>,
    /// What each slot holds now.
    current: Vec<Option<usize>>,
}

impl Lives {
    /// A slot holds something new, in so many registers.
    pub fn begin(&mut self, slot: Slot, registers: u32, at: usize) {
        let index = slot as usize;
        if self.current.len() <= index {
            self.current.resize(index + 1, None);
        }
        self.current[index] = Some(self.all.len());
        self.all.push(Live { slot, registers, first: at, last: at });
    }

    /// What a slot holds is used.
    pub fn touch(&mut self, slot: Slot, at: usize) {
        if slot == NOTHING {
            return;
        }
        if let Some(Some(live)) = self.current.get(slot as usize) {
            self.all[*live].last = at;
        }
    }

    /// What stands between two places is repeated: what comes from before it and is used in it stays until its end; unless
    /// something new takes its place there, which then stays for the next time.
    pub fn repeat(&mut self, first: usize, end: usize) {
        for index in 0..self.all.len() {
            let live = self.all[index];
            if live.first < first && live.last >= first {
                let current = self.current[live.slot as usize].filter(|&current| self.all[current].first >= first);
                let stays = &mut self.all[current.unwrap_or(index)].last;
                *stays = end.max(*stays);
            }
        }
    }

    /// Something is used from one place to another of a straight stretch, and no longer where it was.
    pub fn reorder(&mut self, live: usize, (first, last): (usize, usize), (start, end): (usize, usize)) {
        let live = &mut self.all[live];
        if (start..end).contains(&live.first) {
            live.first = first;
        }
        if (start..end).contains(&live.last) {
            live.last = last;
        }
    }

    /// The most registers at a time.
    pub fn most(&self) -> u32 {
        let mut changes: Vec<(usize, i64)> = Vec::with_capacity(2 * self.all.len());
        for live in &self.all {
            changes.push((live.first, i64::from(live.registers)));
            changes.push((live.last + 1, -i64::from(live.registers)));
        }
        // What ends makes room for what begins in the same place.
        changes.sort_unstable();
        let (mut now, mut most) = (0, 0);
        for (_, change) in changes {
            now += change;
            most = most.max(now);
        }
        most as u32 + OVERHEAD
    }
}
