//! The cycle in which each operation of a block starts: as soon as its operands are there and a port is free.
//!
//! Logic is chained: an operation starts in the cycle of its operands if what is left of the clock period is enough. What
//! a loop carries, and what accesses of later iterations wait for, comes from the iteration before: a schedule for an interval is
//! looked for by going through the block until nothing moves any more, and the interval grows while it does not come to rest.

use std::collections::HashMap;

use super::dependence::{Dependence, dependences};
use super::ports::{Bank, Need, Ports, least_interval, need};
use crate::fpga::nest::{ArrayId, Kind, Loop, Nest, OpId};
use crate::fpga::operators::Timing;

/// Nanoseconds that an address, or what is written, needs before the end of a cycle (assumed).
const SETUP: f64 = 0.3;

/// Times that a block is gone through for one interval.
const ROUNDS: u32 = 12;

/// Times that something moves by the same before it is taken to go round in a circle.
const CIRCLES: u32 = 3;

/// Longest interval that is tried, in cycles.
const MOST: u32 = 1 << 20;

/// Why the interval of a pipelined loop is not shorter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bound {
    /// It is 1.
    #[default]
    None,
    /// A value of an iteration is needed in the next.
    Recurrence(OpId),
    /// Something that an iteration writes is read later, or the other way round.
    Memory(OpId),
    /// A memory's ports.
    Ports(Bank),
}

/// How an operation takes part in a schedule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// Latency, and the delay of logic.
    pub timing: Timing,
    /// Nanoseconds that a result takes in the cycle in which it is there.
    pub behind: f64,
}

/// A block in time.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    /// Cycles from one iteration to the next.
    pub interval: u32,
    pub bound: Bound,
    /// Cycles until all is done.
    pub depth: u32,
    /// The start of each operation, in the order of the block.
    pub starts: Vec<u32>,
}

/// What a block consists of.
struct Parts<'b> {
    ops: &'b [OpId],
    /// What a loop carries, and what it becomes.
    carried: Vec<(OpId, OpId)>,
    /// What waits for what, by what waits.
    waits: Vec<Dependence>,
    needs: HashMap<OpId, Need>,
}

impl Parts<'_> {
    fn waits_of(&self, id: OpId) -> &[Dependence] {
        let first = self.waits.partition_point(|wait| wait.after < id);
        let count = self.waits[first..].partition_point(|wait| wait.after == id);
        &self.waits[first..first + count]
    }
}

impl Need {
    fn bound(&self) -> Bound {
        self.words.first().map_or(Bound::None, |&(bank, _)| Bound::Ports(bank))
    }
}

/// A block that is put into cycles.
pub(super) struct Blocks<'n> {
    pub nest: &'n Nest,
    pub costs: &'n [Cost],
    pub usable: f64,
    /// When each value is there: the cycle, and nanoseconds in it. Values from outside the block are there from the start.
    ready: Vec<(u32, f64)>,
    /// The start of each operation as it was last time, and as it is this time.
    before: Vec<u32>,
    starts: Vec<u32>,
}

impl<'n> Blocks<'n> {
    pub fn new(nest: &'n Nest, costs: &'n [Cost], usable: f64) -> Blocks<'n> {
        let count = nest.ops.len();
        Blocks { nest, costs, usable, ready: vec![(0, 0.0); count], before: vec![0; count], starts: vec![0; count] }
    }

    /// Puts a block into cycles, of a pipelined loop if one is given.
    pub fn place(&mut self, ops: &[OpId], within: Option<&Loop>) -> Option<Placed> {
        let costs = self.costs;
        let settles = |id: OpId| costs[id.index()].timing.latency.max(1);
        let mut waits = dependences(self.nest, ops, within, settles);
        waits.sort_by_key(|wait| wait.after);
        let mut numbers = HashMap::new();
        let needs: HashMap<OpId, Need> =
            ops.iter().filter_map(|&id| Some((id, need(self.nest, id, &mut numbers)?))).collect();
        let carried = within.map(|own| own.carried.iter().map(|own| (own.op, own.next)).collect()).unwrap_or_default();
        let parts = Parts { ops, carried, waits, needs };
        let placed = match within {
            Some(_) => self.search(&parts),
            None => self.attempt(&parts, None).ok().map(|placed| Placed { interval: placed.depth, ..placed }),
        };
        // For other blocks it is there from the start.
        let own = ops.iter().copied().chain(parts.carried.iter().map(|&(op, _)| op));
        own.for_each(|id| self.ready[id.index()] = (0, 0.0));
        placed
    }

    /// The least interval for which there is a schedule.
    fn search(&mut self, parts: &Parts) -> Option<Placed> {
        let (least, bank) = least_interval(parts.needs.values());
        let longest = parts.needs.values().map(|need| need.span).max().unwrap_or(1);
        let mut interval = least.max(longest);
        let mut bound = bank.map_or(Bound::None, Bound::Ports);
        let mut failed = interval - 1;
        let mut found = loop {
            if interval > MOST {
                return None;
            }
            match self.attempt(parts, Some(interval)) {
                Ok(placed) => break placed,
                Err((more, why)) => {
                    (failed, bound) = (interval, why);
                    interval += more.max(1);
                }
            }
        };
        // What was seen may have been too much.
        while found.interval - failed > 1 {
            let middle = failed + (found.interval - failed) / 2;
            match self.attempt(parts, Some(middle)) {
                Ok(placed) => found = placed,
                Err((_, why)) => (failed, bound) = (middle, why),
            }
        }
        found.bound = if found.interval == 1 { Bound::None } else { bound };
        Some(found)
    }

    /// Looks for a schedule with an interval. If there is none, by how much it may be too short, and why.
    fn attempt(&mut self, parts: &Parts, interval: Option<u32>) -> Result<Placed, (u32, Bound)> {
        for &(op, _) in &parts.carried {
            self.ready[op.index()] = (0, 0.0);
        }
        parts.ops.iter().for_each(|id| self.before[id.index()] = 0);
        let (mut moved, mut again) = ((0, Bound::None), 0);
        for _ in 0..ROUNDS {
            let mut ports = Ports::new(interval);
            for &id in parts.ops {
                let need = parts.needs.get(&id);
                let start = self.start(id, interval, parts.waits_of(id));
                let start = match need {
                    None => start,
                    Some(need) => ports.take(need, start).ok_or_else(|| (1, need.bound()))?,
                };
                self.starts[id.index()] = start;
                self.finish(id, start, need);
            }
            let Some(interval) = interval else { break };
            let last = moved.0;
            moved = self.moved(parts, interval);
            if moved.0 == 0 {
                break;
            }
            // What moves by the same again and again goes round in a circle.
            again = if moved.0 == last { again + 1 } else { 0 };
            if again >= CIRCLES {
                break;
            }
            parts.ops.iter().for_each(|id| self.before[id.index()] = self.starts[id.index()]);
        }
        if moved.0 > 0 {
            return Err(moved);
        }
        let starts: Vec<u32> = parts.ops.iter().map(|id| self.starts[id.index()]).collect();
        let ends = parts.ops.iter().zip(&starts).map(|(&id, &start)| self.end(id, start));
        let depth = ends.max().unwrap_or(0).max(1);
        Ok(Placed { interval: interval.unwrap_or(depth), bound: Bound::None, depth, starts })
    }

    /// Moves what the next iteration has to wait for, and says how much longer intervals would have to be by what has moved.
    fn moved(&mut self, parts: &Parts, interval: u32) -> (u32, Bound) {
        let mut most = (0, Bound::None);
        for &(op, next) in &parts.carried {
            let (cycle, within) = self.ready[next.index()];
            // What does not come from the block is there before.
            let at = (cycle + u32::from(within > 0.0)).saturating_sub(interval);
            let own = &mut self.ready[op.index()];
            if at > own.0 {
                let by = at - own.0;
                *own = (at, 0.0);
                if by > most.0 {
                    most = (by, Bound::Recurrence(op));
                }
            }
        }
        for wait in parts.waits.iter().filter(|wait| wait.distance > 0) {
            let there = self.starts[wait.before.index()] + wait.cycles;
            let needed = there.saturating_sub(interval.saturating_mul(wait.distance));
            let by = needed.saturating_sub(self.starts[wait.after.index()]).div_ceil(wait.distance);
            if by > most.0 {
                most = (by, Bound::Memory(wait.after));
            }
        }
        most
    }

    /// The first cycle in which an operation could start, as far as operands and other accesses go.
    fn start(&mut self, id: OpId, interval: Option<u32>, waits: &[Dependence]) -> u32 {
        let op = &self.nest.ops[id.index()];
        let mut at = (0u32, 0.0f64);
        for operand in op.operands.iter().copied().chain(op.predicate) {
            let (cycle, within) = self.ready[operand.index()];
            if cycle > at.0 || cycle == at.0 && within > at.1 {
                at = (cycle, within);
            }
        }
        for wait in waits {
            let starts = if wait.distance == 0 { &self.starts } else { &self.before };
            let earlier = interval.unwrap_or(0).saturating_mul(wait.distance);
            let needed = (starts[wait.before.index()] + wait.cycles).saturating_sub(earlier);
            if needed > at.0 {
                at = (needed, 0.0);
            }
        }
        let Cost { timing, .. } = self.costs[id.index()];
        let is_access = matches!(op.kind, Kind::Load(..) | Kind::Store(..));
        let delay = if is_access { SETUP } else { timing.delay };
        if at.1 > 0.0 && at.1 + delay > self.usable {
            at = (at.0 + 1, 0.0);
        }
        self.ready[id.index()] = at;
        at.0
    }

    /// Remembers when a value is there, of an operation that starts in a cycle not before [`Blocks::start`] has said.
    fn finish(&mut self, id: OpId, start: u32, need: Option<&Need>) {
        let Cost { timing, behind } = self.costs[id.index()];
        let (cycle, within) = self.ready[id.index()];
        let more = need.map_or(0, |need| need.span - 1);
        self.ready[id.index()] = match timing.latency {
            0 => (start, if start == cycle { within + timing.delay } else { timing.delay }),
            latency => (start + latency + more, behind),
        };
    }

    /// The cycle in which all is over that an operation does.
    fn end(&self, id: OpId, start: u32) -> u32 {
        let (cycle, within) = self.ready[id.index()];
        (cycle + u32::from(within > 0.0)).max(start + 1)
    }
}

/// The array that a bank belongs to, for people.
pub(super) fn array_of(nest: &Nest, bank: Bank) -> Option<ArrayId> {
    use crate::fpga::nest::ArrayPlace;
    match bank {
        Bank::Local(array, _) => Some(ArrayId(array)),
        Bank::OnChip(memory, _) => {
            let is_own = |place: &ArrayPlace| matches!(*place, ArrayPlace::OnChip(id) if id.0 == memory);
            nest.arrays.iter().position(|array| is_own(&array.place)).map(|index| ArrayId(index as u32))
        }
    }
}
