//! The cycle in which each operation of a block starts: as soon as its operands are there and a port is free.
//!
//! Logic is chained: an operation starts in the cycle of its operands if what is left of the clock period is enough. What
//! a loop carries, and what accesses of later iterations wait for, comes from the iteration before: a schedule for an interval is
//! looked for by going through the block until nothing moves any more, and the interval grows while it does not come to rest.

use std::collections::{BTreeMap, HashMap};

use super::dependence::{Dependence, dependences};
use super::ports::{Bank, Need, Ports, least_interval, need};
use super::sharing::{Busy, Shared};
use crate::fpga::nest::{ArrayId, InSlice, Kind, Loop, Nest, OpId};
use crate::fpga::operators::{Class, Timing, usable_ns};

/// Nanoseconds that an address, or what is written, needs before the end of a cycle (assumed).
const SETUP: f64 = 0.3;

/// Times that a block is gone through for one interval.
const ROUNDS: u32 = 12;

/// Times that something moves by the same before it is taken to go round in a circle.
const CIRCLES: u32 = 3;

/// How many times as many operators as are needed at least are tried, at the most, until there is a schedule with them.
const MOST_OPERATORS: u64 = 4;

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
    /// Operators that are shared, and how many of each are needed at a time.
    pub operators: BTreeMap<Class, u64>,
}

/// Why there is no schedule.
#[derive(Clone, Copy, Debug)]
struct Failure {
    /// By how much the interval may be too short.
    more: u32,
    why: Bound,
    /// The class of operators that there are too few of.
    lacking: Option<Class>,
}

/// What a block consists of.
struct Parts<'b> {
    ops: &'b [OpId],
    /// The same in the order in which they are put into cycles.
    order: Vec<OpId>,
    /// What a loop carries, and what it becomes.
    carried: Vec<(OpId, OpId)>,
    /// What waits for what, by what waits.
    waits: Vec<Dependence>,
    needs: HashMap<OpId, Need>,
    /// Beats that an iteration takes from a FIFO, of which one comes in a cycle.
    popped: u32,
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
    pub clock_hz: u64,
    /// When each value is there: the cycle, and nanoseconds in it. Values from outside the block are there from the start.
    ready: Vec<(u32, f64)>,
    /// The start of each operation as it was last time, and as it is this time.
    before: Vec<u32>,
    starts: Vec<u32>,
}

impl<'n> Blocks<'n> {
    pub fn new(nest: &'n Nest, costs: &'n [Cost], clock_hz: u64) -> Blocks<'n> {
        let count = nest.ops.len();
        let (ready, before, starts) = (vec![(0, 0.0); count], vec![0; count], vec![0; count]);
        Blocks { nest, costs, usable: usable_ns(clock_hz), clock_hz, ready, before, starts }
    }

    /// Puts a block into cycles, of a pipelined loop if one is given. Outside of loops as many operators are used as there are anyway.
    pub fn place(&mut self, ops: &[OpId], within: Option<&Loop>, there: &BTreeMap<Class, u64>) -> Option<Placed> {
        let costs = self.costs;
        let settles = |id: OpId| costs[id.index()].timing.latency.max(1);
        let mut waits = dependences(self.nest, ops, within, settles);
        waits.sort_by_key(|wait| wait.after);
        let mut numbers = HashMap::new();
        let needs: HashMap<OpId, Need> =
            ops.iter().filter_map(|&id| Some((id, need(self.nest, id, &mut numbers)?))).collect();
        let carried = within.map(|own| own.carried.iter().map(|own| (own.op, own.next)).collect()).unwrap_or_default();
        let is_popped = |id: &OpId| match self.nest.ops[id.index()].kind {
            Kind::Load(array, _) => self.nest.pops.iter().find(|pop| pop.array == array).map(|pop| pop.rows() as u32),
            _ => None,
        };
        let popped = ops.iter().filter_map(is_popped).max().unwrap_or(1);
        let mut parts = Parts { ops, order: ops.to_vec(), carried, waits, needs, popped };
        let placed = match within {
            Some(_) => self.search(&parts),
            None => self.attempt(&parts, None, None).ok(),
        };
        let placed = placed.map(|placed| self.shared(&mut parts, placed, within.is_some(), there));
        // For other blocks it is there from the start.
        let own = ops.iter().copied().chain(parts.carried.iter().map(|&(op, _)| op));
        own.for_each(|id| self.ready[id.index()] = (0, 0.0));
        placed
    }

    /// The same schedule with operations in other cycles, so that they share operators: no more than are needed if all are busy in each
    /// cycle, or some more where that does not go.
    fn shared(&mut self, parts: &mut Parts, found: Placed, is_loop: bool, there: &BTreeMap<Class, u64>) -> Placed {
        let interval = is_loop.then_some(found.interval);
        let starts: HashMap<OpId, u32> = parts.ops.iter().copied().zip(found.starts.iter().copied()).collect();
        let shared = Shared::new(self.nest, parts.ops, self.clock_hz);
        // What could start first is given operators first.
        parts.order.sort_by_key(|id| starts[id]);
        let none = BTreeMap::new();
        let least = shared.least(interval, if is_loop { &none } else { there });
        let needed = shared.needed(&starts, interval);
        let mut limits = least.clone();
        while needed.iter().any(|(class, count)| *count > limits[class]) {
            match self.attempt(parts, interval, Some((&shared, &limits))) {
                Ok(placed) => {
                    let starts = parts.ops.iter().copied().zip(placed.starts.iter().copied()).collect();
                    let operators = shared.needed(&starts, interval);
                    return Placed { bound: found.bound, operators, ..placed };
                }
                Err(Failure { lacking, .. }) => {
                    // Of what there is too little of there are more, or of everything if something else came too late.
                    let is_wider = |class: Class| lacking.is_none_or(|lacking| lacking == class);
                    let wider = limits.iter_mut().filter(|(class, _)| is_wider(**class));
                    wider.for_each(|(_, count)| *count *= 2);
                    if limits.iter().any(|(class, &count)| count > MOST_OPERATORS * least[class]) {
                        break;
                    }
                }
            }
        }
        Placed { operators: needed, ..found }
    }

    /// The least interval for which there is a schedule.
    fn search(&mut self, parts: &Parts) -> Option<Placed> {
        let (least, bank) = least_interval(parts.needs.values());
        let longest = parts.needs.values().map(|need| need.span).max().unwrap_or(1);
        let mut interval = least.max(longest).max(parts.popped);
        let mut bound = bank.map_or(Bound::None, Bound::Ports);
        let mut failed = interval - 1;
        let mut found = loop {
            if interval > MOST {
                return None;
            }
            match self.attempt(parts, Some(interval), None) {
                Ok(placed) => break placed,
                Err(Failure { more, why, .. }) => {
                    (failed, bound) = (interval, why);
                    interval += more.max(1);
                }
            }
        };
        // What was seen may have been too much.
        while found.interval - failed > 1 {
            let middle = failed + (found.interval - failed) / 2;
            match self.attempt(parts, Some(middle), None) {
                Ok(placed) => found = placed,
                Err(Failure { why, .. }) => (failed, bound) = (middle, why),
            }
        }
        found.bound = if found.interval == 1 { Bound::None } else { bound };
        Some(found)
    }

    /// Looks for a schedule with an interval, and with no more than some operators.
    fn attempt(
        &mut self,
        parts: &Parts,
        interval: Option<u32>,
        limits: Option<(&Shared, &BTreeMap<Class, u64>)>,
    ) -> Result<Placed, Failure> {
        for &(op, _) in &parts.carried {
            self.ready[op.index()] = (0, 0.0);
        }
        parts.ops.iter().for_each(|id| self.before[id.index()] = 0);
        let (mut moved, mut again) = ((0, Bound::None), 0);
        for _ in 0..ROUNDS {
            let mut ports = Ports::new(interval);
            let mut busy = limits.map(|(shared, limits)| Busy::new(shared, limits, interval));
            for &id in &parts.order {
                let need = parts.needs.get(&id);
                let mut start = self.start(id, interval, parts.waits_of(id));
                if let Some(need) = need {
                    let failure = || Failure { more: 1, why: need.bound(), lacking: None };
                    start = ports.take(need, start).ok_or_else(failure)?;
                } else if let Some(busy) = &mut busy {
                    let failure = |lacking| Failure { more: 1, why: Bound::None, lacking: Some(lacking) };
                    start = busy.take(id, start).map_err(failure)?;
                }
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
            return Err(Failure { more: moved.0, why: moved.1, lacking: None });
        }
        if interval == Some(1) {
            self.delay_products(parts.ops);
        }
        let starts: Vec<u32> = parts.ops.iter().map(|id| self.starts[id.index()]).collect();
        let ends = parts.ops.iter().zip(&starts).map(|(&id, &start)| self.end(id, start));
        let depth = ends.max().unwrap_or(0).max(1);
        let (interval, operators) = (interval.unwrap_or(depth), BTreeMap::new());
        Ok(Placed { interval, bound: Bound::None, depth, starts, operators })
    }

    /// Has products wait for what their slices add to them, so that their factors wait, which several products may share, and not they.
    /// Operators must not be shared.
    fn delay_products(&mut self, ops: &[OpId]) {
        let mut delay = |before: OpId, after: OpId| {
            let start = self.starts[after.index()].saturating_sub(self.costs[before.index()].timing.latency);
            self.starts[before.index()] = start.max(self.starts[before.index()]);
        };
        for &id in ops.iter().rev() {
            let Some(&InSlice::Sum { product }) = self.nest.slices.get(&id) else { continue };
            delay(product, id);
            let factors = self.nest.ops[product.index()].operands.iter();
            let sums = factors.filter(|factor| self.nest.slices.get(factor) == Some(&InSlice::Factor));
            sums.for_each(|&factor| delay(factor, product));
        }
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
        Bank::Fifo(fifo) => {
            let is_own = |place: &ArrayPlace| matches!(*place, ArrayPlace::Fifo(id) if id.0 == fifo);
            nest.arrays.iter().position(|array| is_own(&array.place)).map(|index| ArrayId(index as u32))
        }
    }
}
