//! What a call does one after the other, as far as it matters to the loader: cycles that pass, and loops that take beats from FIFOs.

use super::Schedule;
use crate::fpga::nest::{Item, Loop, LoopId, Pop};

/// A step of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many cycles pass.
    Cycles(u64),
    /// A pipelined loop whose iterations each begin when what they take is there.
    Loop {
        /// Iterations.
        trips: u64,
        /// Cycles from one to the next, at least.
        interval: u64,
        /// Cycles from the last one's begin to the end of the loop.
        rest: u64,
        /// What each iteration takes.
        pops: Vec<Pop>,
    },
}

impl Step {
    /// Cycles that it takes if everything is there at once.
    pub fn cycles(&self) -> u64 {
        match *self {
            Step::Cycles(cycles) => cycles,
            Step::Loop { trips, interval, rest, .. } => interval.saturating_mul(trips.saturating_sub(1)) + rest,
        }
    }
}

/// Steps that are put behind each other.
#[derive(Default)]
struct Steps(Vec<Step>);

impl Steps {
    fn pass(&mut self, more: u64) {
        match self.0.last_mut() {
            Some(Step::Cycles(cycles)) => *cycles = cycles.saturating_add(more),
            _ => self.0.push(Step::Cycles(more)),
        }
    }
}

impl Schedule {
    /// The steps of a call with a grid.
    pub fn steps(&self, grid: [u32; 3]) -> Vec<Step> {
        if self.nest.pops.is_empty() {
            return vec![Step::Cycles(self.cycles)];
        }
        let mut steps = Steps::default();
        steps.pass(super::CALL);
        self.step(&self.nest.body, grid, &mut steps);
        steps.pass(self.written());
        steps.0
    }

    fn step(&self, items: &[Item], grid: [u32; 3], steps: &mut Steps) {
        for item in items {
            match item {
                Item::Block(id) => steps.pass(self.blocks[id.index()].cycles),
                Item::Loop(id) => self.step_loop(*id, grid, steps),
                Item::Branch { then, otherwise, .. } => {
                    // Nothing is taken in a branch.
                    let cycles = |items: &[Item]| {
                        let mut own = Steps::default();
                        self.step(items, grid, &mut own);
                        own.0.iter().map(Step::cycles).sum::<u64>()
                    };
                    steps.pass(1 + cycles(then).max(cycles(otherwise)));
                }
            }
        }
    }

    fn step_loop(&self, id: LoopId, grid: [u32; 3], steps: &mut Steps) {
        let (own, time) = (&self.nest.loops[id.index()], &self.loops[id.index()]);
        let trips = trips(own, grid);
        if let ([Item::Block(_)], true) = (&own.body[..], own.pipelined) {
            let pops: Vec<Pop> = self.nest.pops.iter().copied().filter(|pop| pop.within == id).collect();
            // A cycle to enter, and one to leave.
            steps.pass(1);
            if pops.is_empty() {
                return steps.pass(1 + time.depth + time.interval.saturating_mul(trips - 1) + time.waits);
            }
            return steps.0.push(Step::Loop { trips, interval: time.interval, rest: time.depth + 1, pops });
        }
        steps.pass(1);
        let is_popped = self.nest.pops.iter().any(|pop| self.holds(&own.body, pop.within));
        let mut inner = Steps::default();
        self.step(&own.body, grid, &mut inner);
        inner.pass(1);
        if !is_popped {
            return steps.pass(inner.0.iter().map(Step::cycles).sum::<u64>().saturating_mul(trips));
        }
        for _ in 0..trips {
            for step in &inner.0 {
                match step {
                    Step::Cycles(cycles) => steps.pass(*cycles),
                    Step::Loop { .. } => steps.0.push(step.clone()),
                }
            }
        }
    }

    /// Whether a loop is in some items.
    fn holds(&self, items: &[Item], wanted: LoopId) -> bool {
        items.iter().any(|item| match item {
            Item::Block(_) => false,
            Item::Loop(id) => *id == wanted || self.holds(&self.nest.loops[id.index()].body, wanted),
            Item::Branch { then, otherwise, .. } => self.holds(then, wanted) || self.holds(otherwise, wanted),
        })
    }
}

/// Iterations of a loop in a call with a grid.
fn trips(own: &Loop, grid: [u32; 3]) -> u64 {
    let of = |counter: &crate::fpga::nest::Counter| match counter.axis {
        Some(axis) => u64::from(grid[usize::from(axis)]),
        None => counter.trips,
    };
    own.counters.iter().map(of).product()
}
