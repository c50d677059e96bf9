//! When instructions are dispatched: what follows from the queues alone, as `targets/lpu/rtl/TIMING.md` defines it.
//!
//! All is lazy: a repeat of billions is walked through only by those who ask for each of its dispatches. Cycles beyond what
//! 64 bits hold count as the last that they hold. Programs are taken to be as [`check`](super::check::check) wants them: a
//! repeat that has nothing to repeat is passed over.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::LpuMachine;
use super::isa::{Operation, Queues};

/// An instruction and its repetitions: dispatched in cycle `first` and `count` times more, `interval` cycles after each
/// other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span<'a> {
    /// The instruction's number in its queue.
    pub index: usize,
    /// The instruction. Its moving field is that of the first dispatch.
    pub operation: &'a Operation,
    /// The cycle of the first dispatch; of a nop, the first in which nothing is dispatched.
    pub first: u64,
    /// How many times more.
    pub count: u32,
    /// Cycles from one dispatch to the next.
    pub interval: u32,
    /// What the moving field grows by.
    pub step: i32,
}

impl Span<'_> {
    /// The cycle of the dispatch after so many repetitions.
    pub fn cycle(&self, repetition: u32) -> u64 {
        self.first.saturating_add(u64::from(repetition) * u64::from(self.interval))
    }

    /// The cycle of the last dispatch.
    pub fn last(&self) -> u64 {
        self.cycle(self.count)
    }

    /// The cycle before which all that the dispatches begin is over; `None` if they are nothing, as a nop's.
    pub fn end(&self, machine: &LpuMachine) -> Option<u64> {
        latency(self.operation, machine).map(|latency| self.last().saturating_add(latency))
    }
}

/// A queue's instructions with their repetitions, but for repeats themselves: up to an `end`, or up to a sync that nothing
/// is known to end.
#[derive(Clone, Debug)]
pub struct Spans<'a> {
    queue: &'a [Operation],
    next: usize,
    /// The cycle in which the next instruction is dispatched; `None` where that is not known.
    cycle: Option<u64>,
    resumes: std::slice::Iter<'a, u64>,
}

/// The instructions of a queue with their repetitions. `resumes` are the cycles in which the queue goes on after each of its
/// syncs, as [`resumes`] finds them; without, the last instruction is the first sync.
pub fn spans<'a>(queue: &'a [Operation], resumes: &'a [u64]) -> Spans<'a> {
    Spans { queue, next: 0, cycle: Some(0), resumes: resumes.iter() }
}

impl<'a> Spans<'a> {
    /// Says in which cycle the queue goes on that has come to a sync.
    fn resume(&mut self, cycle: u64) {
        self.cycle = Some(cycle);
    }
}

impl<'a> Iterator for Spans<'a> {
    type Item = Span<'a>;

    fn next(&mut self) -> Option<Span<'a>> {
        let first = self.cycle?;
        while let Some(Operation::Repeat { .. }) = self.queue.get(self.next) {
            self.next += 1;
        }
        let (index, operation) = (self.next, self.queue.get(self.next)?);
        self.next += 1;
        let mut span = Span { index, operation, first, count: 0, interval: 1, step: 0 };
        self.cycle = match operation {
            Operation::Nop(cycles) => Some(first.saturating_add(u64::from(*cycles))),
            Operation::Sync => self.resumes.next().copied(),
            Operation::End => None,
            _ => {
                if let Some(&Operation::Repeat { count, interval, step }) = self.queue.get(self.next) {
                    span = Span { count, interval, step, ..span };
                    self.next += 1;
                }
                Some(span.last().saturating_add(1))
            }
        };
        Some(span)
    }
}

/// The dispatches of a queue up to its end or its first sync, one by one: the cycle, and the instruction as it is dispatched
/// then, with its moving field advanced. Nops and repeats are not dispatched.
pub fn dispatches(queue: &[Operation]) -> impl Iterator<Item = (u64, Operation)> {
    each(spans(queue, &[]))
}

/// As [`dispatches`], going on after syncs in the cycles that [`resumes`] has found.
pub fn dispatches_with<'a>(queue: &'a [Operation], resumes: &'a [u64]) -> impl Iterator<Item = (u64, Operation)> + 'a {
    each(spans(queue, resumes))
}

fn each<'a>(spans: Spans<'a>) -> impl Iterator<Item = (u64, Operation)> + 'a {
    spans.filter(|span| !matches!(span.operation, Operation::Nop(_))).flat_map(|span| {
        (0..=span.count).map(move |repetition| {
            let by = i64::from(repetition) * i64::from(span.step);
            (span.cycle(repetition), span.operation.moved(by))
        })
    })
}

/// Cycles from a dispatch until what the instruction does is over; `None` for nops, syncs and repeats.
pub fn latency(operation: &Operation, machine: &LpuMachine) -> Option<u64> {
    let latency = match operation {
        Operation::Nop(_) | Operation::Sync | Operation::Repeat { .. } => return None,
        Operation::Notify
        | Operation::End
        | Operation::Load { .. }
        | Operation::Install
        | Operation::Accumulate { .. } => 1,
        Operation::Mem { .. } | Operation::Gather { .. } => machine.mem.latency,
        Operation::Alu(_) => machine.vxm.latency,
        Operation::Multiply { .. } => machine.mxm.latency,
        Operation::Shift { .. } | Operation::Distribute { .. } | Operation::Transpose { .. } => machine.sxm.latency,
    };
    Some(u64::from(latency))
}

/// Cycles that a program takes if it has no fault: the last superlane is over after the first by one for each between them.
pub fn cycles(program: &Queues, machine: &LpuMachine) -> u64 {
    cycles_with(program, &resumes(program, machine), machine)
}

/// [`cycles`], with what [`resumes`] has found.
pub(super) fn cycles_with(program: &Queues, resumes: &[Vec<u64>], machine: &LpuMachine) -> u64 {
    let queues = program.0.iter().zip(resumes);
    let ends = queues.flat_map(|(queue, resumes)| spans(queue, resumes)).filter_map(|span| span.end(machine));
    northward(ends.max().unwrap_or(0), machine)
}

/// The cycle before which all superlanes are over with something, of that before which the first is.
pub(super) fn northward(end: u64, machine: &LpuMachine) -> u64 {
    end.saturating_add(u64::from(machine.superlanes.saturating_sub(1)))
}

/// Notifies that are still to come: the next, the cycles from one to another and how many there are after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Notifies {
    next: u64,
    interval: u32,
    more: u32,
}

impl Notifies {
    /// Those after a cycle, if there are any.
    fn after(self, cycle: u64) -> Option<Notifies> {
        if self.next > cycle {
            return Some(self);
        }
        let passed = (cycle - self.next).checked_div(u64::from(self.interval)).map(|passed| passed + 1)?;
        let more = u32::try_from(u64::from(self.more).checked_sub(passed)?).ok()?;
        Some(Notifies { next: self.next.saturating_add(passed * u64::from(self.interval)), more, ..self })
    }
}

/// For each queue, the cycle in which it goes on after each of its syncs. A queue whose list is shorter than its number of
/// syncs waits in the next of them for ever.
pub fn resumes(program: &Queues, machine: &LpuMachine) -> Vec<Vec<u64>> {
    let mut queues: Vec<Spans<'_>> = program.0.iter().map(|queue| spans(queue, &[])).collect();
    let mut resumes = vec![Vec::new(); queues.len()];
    // Queues that stand at a sync, by the cycle since when.
    let mut waiting = BTreeSet::new();
    let mut notifies = BinaryHeap::new();
    let mut moving: Vec<usize> = (0..queues.len()).collect();
    loop {
        for queue in moving.drain(..) {
            for span in &mut queues[queue] {
                match span.operation {
                    Operation::Sync => {
                        waiting.insert((span.first, queue));
                    }
                    Operation::Notify => {
                        notifies.push(Reverse(Notifies {
                            next: span.first,
                            interval: span.interval,
                            more: span.count,
                        }));
                    }
                    _ => {}
                }
            }
        }
        let (Some(&(since, _)), Some(Reverse(first))) = (waiting.first(), notifies.pop()) else { return resumes };
        // A sync that is dispatched in the cycle of a notify waits for the next one.
        let Some(first) = first.after(since) else { continue };
        if notifies.peek().is_some_and(|Reverse(other)| *other < first) {
            notifies.push(Reverse(first));
            continue;
        }
        // No queue that still waits can notify before this: it goes on later.
        let later = waiting.split_off(&(first.next, 0));
        let cycle = first.next.saturating_add(u64::from(machine.notify_latency));
        for (_, queue) in std::mem::replace(&mut waiting, later) {
            resumes[queue].push(cycle);
            queues[queue].resume(cycle);
            moving.push(queue);
        }
        notifies.extend(first.after(first.next).map(Reverse));
    }
}

#[cfg(test)]
mod tests;
