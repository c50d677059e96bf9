//! When every instruction of a program starts and completes.
//!
//! The rules are those of `targets/systolic/rtl/TIMING.md`; nothing in them depends on data. The simulator, the
//! report and the trace all take their cycles from a [`Scheduler`].

mod attribution;
mod bursts;
mod occupancy;

pub use attribution::{Attribution, KernelCycles, Summary, summarize};
pub use occupancy::{drain, latency, map_rate, occupancy};

use std::collections::{BTreeMap, VecDeque};

use super::SystolicMachine;
use super::code::{Code, RoutineId};
use super::isa::{Instruction, Multiply, Operation, Unit};

/// When an instruction ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The unit that executed it.
    pub unit: Unit,
    /// The cycle in which it started.
    pub start: u64,
    /// Cycles for which the unit could start nothing else.
    pub occupancy: u64,
    /// The first cycle in which its results are there for others.
    pub completion: u64,
}

impl Span {
    /// The first cycle in which the unit is free again.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.occupancy)
    }
}

/// When all instructions of a program ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    spans: Vec<Span>,
    cycles: u64,
}

impl Timing {
    /// One span for each instruction, in the order of execution.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Cycles from the first dispatch to the last completion.
    pub fn cycles(&self) -> u64 {
        self.cycles
    }
}

/// Runs the program through the timing rules, in one pass, and keeps when every instruction ran.
pub fn schedule(code: &Code, machine: &SystolicMachine) -> Timing {
    let mut scheduler = Scheduler::new(machine);
    let mut spans = Vec::with_capacity(code.len());
    scheduler.run(code, |_, span| spans.push(span));
    Timing { spans, cycles: scheduler.cycles() }
}

/// The most that an instruction can leave out of what it waits for.
const MOST_LAG: usize = u16::MAX as usize;

/// What a unit has done so far, as far back as it matters.
#[derive(Default)]
struct History {
    /// Instructions so far.
    count: usize,
    /// Starts of the last instructions, as many as the queue holds.
    starts: VecDeque<u64>,
    /// Completions of the last instructions, as many as can be waited for one by one.
    completions: VecDeque<u64>,
    free: u64,
}

impl History {
    /// When all instructions save the last `lag` have completed; `None` if there were no others.
    fn completion_before(&self, lag: u16) -> Option<u64> {
        self.completions.len().checked_sub(usize::from(lag) + 1).map(|last| self.completions[last])
    }
}

/// The state of the timing rules between two instructions. It does not grow with the program.
pub struct Scheduler<'m> {
    machine: &'m SystolicMachine,
    units: [History; Unit::COUNT],
    next_dispatch: u64,
    cycles: u64,
    /// Completions of the preloads whose weights have not been switched in. The pass that switches weights for the n-th
    /// time uses the n-th preload.
    preloads: VecDeque<u64>,
    /// Switches that came before their preloads, which only a program does that faults.
    early_switches: usize,
    /// Starts of the passes that switched weights, from number `first_switch` on.
    switches: VecDeque<u64>,
    first_switch: usize,
    /// When the sums that stayed in the array are out of it.
    drained: u64,
}

impl<'m> Scheduler<'m> {
    /// A machine that has done nothing yet.
    pub fn new(machine: &'m SystolicMachine) -> Self {
        Scheduler {
            machine,
            units: Default::default(),
            next_dispatch: 0,
            cycles: 0,
            preloads: VecDeque::new(),
            early_switches: 0,
            switches: VecDeque::new(),
            first_switch: 0,
            drained: 0,
        }
    }

    /// Cycles from the first dispatch to the last completion so far.
    pub fn cycles(&self) -> u64 {
        self.cycles
    }

    /// A cycle before which nothing that comes starts.
    pub fn horizon(&self) -> u64 {
        self.next_dispatch
    }

    /// Executes a program, and calls `ran` after each instruction.
    pub fn run(&mut self, code: &Code, mut ran: impl FnMut(&Self, Span)) {
        self.run_while(code, |scheduler, span| {
            ran(scheduler, span);
            true
        });
    }

    /// Executes a program as long as `ran`, which is called after each instruction, says so.
    pub fn run_while(&mut self, code: &Code, mut ran: impl FnMut(&Self, Span) -> bool) {
        let burst = u64::from(self.machine.dram.burst_bytes);
        // What an instruction occupies depends on its bases only by where they lie in a burst.
        let mut occupancies: BTreeMap<(RoutineId, Vec<u64>), Vec<u64>> = BTreeMap::new();
        for call in code.calls() {
            let residues = call.bases.iter().map(|base| base % burst).collect();
            let routine = code.routine(call.routine);
            let occupancies = occupancies.entry((call.routine, residues)).or_insert_with(|| {
                routine.iter().map(|each| occupancy(&each.op.resolve(&call.bases), self.machine)).collect()
            });
            for (instruction, &occupancy) in routine.iter().zip(&*occupancies) {
                let span = self.execute(instruction, occupancy);
                if !ran(self, span) {
                    return;
                }
            }
        }
    }

    /// Executes one instruction that occupies its unit for so many cycles.
    fn execute(&mut self, instruction: &Instruction, occupancy: u64) -> Span {
        let unit = instruction.op.unit();
        let depth = self.machine.sequencer.queue_depth as usize;
        let own = &self.units[unit.index()];
        let place = if own.count < depth { 0 } else { own.starts.front().copied().unwrap_or(0) };
        if !self.machine.array_only {
            self.next_dispatch = self.next_dispatch.max(place).saturating_add(1);
        }
        let mut start = self.next_dispatch.max(own.free);
        for (lag, other) in instruction.waits.0.iter().zip(&self.units) {
            if let Some(completion) = lag.and_then(|lag| other.completion_before(lag)) {
                start = start.max(completion);
            }
        }
        if !self.machine.array.overlap && matches!(unit, Unit::Preload | Unit::Array) {
            let both = [Unit::Preload, Unit::Array].map(|unit| self.units[unit.index()].completion_before(0));
            start = both.into_iter().flatten().fold(start, u64::max);
        }
        match &instruction.op {
            Operation::Preload(_) => start = start.max(self.switch_before(own.count)),
            Operation::Multiply(pass) => {
                // Sums leave the array one after the other.
                start = start.max(self.drained);
                if pass.switch_weights {
                    start = start.max(self.next_weights());
                }
            }
            _ => {}
        }
        let span = Span {
            unit,
            start,
            occupancy,
            completion: start.saturating_add(occupancy).saturating_add(latency(&instruction.op, self.machine)),
        };
        match &instruction.op {
            Operation::Preload(_) if self.early_switches > 0 => self.early_switches -= 1,
            Operation::Preload(_) => self.preloads.push_back(span.completion),
            Operation::Multiply(Multiply { switch_weights: true, .. }) => self.switches.push_back(start),
            Operation::Outer(_) => self.drained = span.end().saturating_add(drain(self.machine)),
            _ => {}
        }
        let own = &mut self.units[unit.index()];
        own.count += 1;
        own.starts.push_back(start);
        if own.starts.len() > depth {
            own.starts.pop_front();
        }
        own.completions.push_back(span.completion);
        if own.completions.len() > MOST_LAG + 1 {
            own.completions.pop_front();
        }
        own.free = span.end();
        self.cycles = self.cycles.max(span.completion);
        span
    }

    /// When the weights of the preload before number `preload` left the shadow registers; 0 if there was none, or if
    /// nothing has switched them in.
    fn switch_before(&mut self, preload: usize) -> u64 {
        let Some(wanted) = preload.checked_sub(1) else { return 0 };
        while self.first_switch < wanted && self.switches.pop_front().is_some() {
            self.first_switch += 1;
        }
        if self.first_switch == wanted { self.switches.front().copied().unwrap_or(0) } else { 0 }
    }

    /// When the weights that are switched in next are there; 0 if no preload has brought any.
    fn next_weights(&mut self) -> u64 {
        self.preloads.pop_front().unwrap_or_else(|| {
            self.early_switches += 1;
            0
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
