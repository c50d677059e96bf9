//! The list: which step comes next.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::super::code::Code;
use super::super::resource::Unit;
use super::Figures;
use super::graph::Graph;
use super::names::Step;
use super::pressure::{Pressure, Uses};

/// Steps that registers may be missing for that are looked at in a cycle before the order of the kernel is followed.
const ATTEMPTS: usize = 12;

/// Ways to the end that differ by less than so many cycles are taken to be as long: what belongs together then stays together, and is
/// there when registers for more are missing. About what a few dependent instructions take.
const EVEN: u64 = 16;

struct List<'s> {
    steps: &'s [Step],
    graph: &'s Graph,
    figures: &'s Figures,
    pressure: Pressure,
    order: Vec<usize>,
    is_done: Vec<bool>,
    /// The first step that is left.
    first: usize,
    /// Steps that each waits for.
    waits: Vec<u32>,
    /// The cycle in which what each waits for is there.
    there: Vec<u64>,
    /// Those of no cycles that wait for nothing.
    bookkeeping: BTreeSet<usize>,
    /// Instructions that wait for cycles to go by.
    coming: BinaryHeap<Reverse<(u64, usize)>>,
    /// Those that wait for their pipelines alone, by the way to the end.
    ready: [BinaryHeap<(u64, Reverse<usize>)>; Unit::ALL.len()],
    /// The cycle in which each pipeline is free.
    free: [u64; Unit::ALL.len()],
    now: u64,
}

/// The order of steps with so many registers at the most; `None` if that of the kernel takes more.
pub(super) fn order(steps: &[Step], graph: &Graph, figures: &Figures, uses: Uses, most: i64) -> Option<Vec<usize>> {
    let mut list = List {
        steps,
        graph,
        figures,
        pressure: Pressure::new(uses, most)?,
        order: Vec::with_capacity(steps.len()),
        is_done: vec![false; steps.len()],
        first: 0,
        waits: graph.waits.clone(),
        there: vec![0; steps.len()],
        bookkeeping: BTreeSet::new(),
        coming: BinaryHeap::new(),
        ready: std::array::from_fn(|_| BinaryHeap::new()),
        free: [0; Unit::ALL.len()],
        now: 0,
    };
    (0..steps.len()).filter(|&step| graph.waits[step] == 0).for_each(|step| list.offer(step));
    while list.first < steps.len() {
        list.keep_books();
        if list.first < steps.len() {
            list.cycle();
        }
    }
    Some(list.order)
}

impl List<'_> {
    /// A step waits for no other.
    fn offer(&mut self, step: usize) {
        if self.steps[step].is_issue() {
            self.coming.push(Reverse((self.there[step], step)));
        } else {
            self.bookkeeping.insert(step);
        }
    }

    fn unit(&self, step: usize) -> Unit {
        match self.steps[step].code {
            Code::Issue(instruction) => instruction.unit,
            _ => Unit::Control,
        }
    }

    fn take(&mut self, step: usize, at: u64) {
        self.order.push(step);
        self.is_done[step] = true;
        self.pressure.take(step, self.first);
        while self.is_done.get(self.first) == Some(&true) {
            self.first += 1;
        }
        let graph = self.graph;
        for &(after, cycles) in graph.after(step) {
            let after = after as usize;
            self.there[after] = self.there[after].max(at + u64::from(cycles));
            self.waits[after] -= 1;
            if self.waits[after] == 0 {
                self.offer(after);
            }
        }
    }

    /// Does what takes no cycle, as far as registers allow.
    fn keep_books(&mut self) {
        let mut missed = 0;
        let mut next = 0;
        while let Some(&step) = self.bookkeeping.range(next..).next() {
            if self.pressure.allows(step, self.first) {
                self.bookkeeping.remove(&step);
                self.take(step, self.there[step]);
                // What follows from it may stand before what was missed.
                next = if missed == 0 { 0 } else { next };
            } else {
                missed += 1;
                next = step + 1;
                if missed > ATTEMPTS {
                    return;
                }
            }
        }
    }

    /// Issues an instruction, or goes on to a cycle in which something changes.
    fn cycle(&mut self) {
        while let Some(&Reverse((at, step))) = self.coming.peek()
            && at <= self.now
        {
            self.coming.pop();
            let unit = self.unit(step);
            self.ready[unit.index()].push((self.graph.heights[step] / EVEN, Reverse(step)));
        }
        if let Some(step) = self.choice() {
            let unit = self.unit(step).index();
            self.free[unit] = self.now + self.figures.times[unit].0;
            let at = self.now;
            self.now += 1;
            return self.take(step, at);
        }
        let coming = self.coming.peek().map(|&Reverse((at, _))| at);
        let pipes = self.ready.iter().zip(&self.free).filter(|(ready, _)| !ready.is_empty()).map(|(_, &free)| free);
        let next = pipes.filter(|&free| free > self.now).chain(coming).min();
        self.now = next.unwrap_or(self.now + 1);
    }

    /// What is issued now.
    fn choice(&mut self) -> Option<usize> {
        let mut missed = Vec::new();
        let mut found = None;
        while missed.len() < ATTEMPTS {
            let open = Unit::ALL.map(Unit::index).into_iter().filter(|&unit| self.free[unit] <= self.now);
            let best = open.filter_map(|unit| Some((*self.ready[unit].peek()?, unit))).max();
            let Some((entry, unit)) = best else { break };
            self.ready[unit].pop();
            let Reverse(step) = entry.1;
            if self.is_done[step] {
                continue;
            }
            if self.pressure.allows(step, self.first) {
                found = Some(step);
                break;
            }
            missed.push((entry, unit));
        }
        missed.into_iter().for_each(|(entry, unit)| self.ready[unit].push(entry));
        if found.is_some() {
            return found;
        }
        // The order of the kernel is always a way to go on.
        let first = self.first;
        let is_next = self.steps[first].is_issue()
            && self.waits[first] == 0
            && self.there[first] <= self.now
            && self.free[self.unit(first).index()] <= self.now;
        is_next.then_some(first)
    }
}
