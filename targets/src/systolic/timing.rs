//! When every instruction of a program starts and completes.
//!
//! The rules are those of `TIMING.md`, which stands beside this file; nothing in them depends on data. The simulator, the
//! report and the trace all take their cycles from [`schedule`].

mod attribution;
mod bursts;
mod occupancy;

pub use attribution::{Attribution, KernelCycles};
pub use occupancy::{latency, map_rate, occupancy};

use super::SystolicMachine;
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
    /// One span for each instruction, in program order.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Cycles from the first dispatch to the last completion.
    pub fn cycles(&self) -> u64 {
        self.cycles
    }
}

/// What a unit has done so far.
#[derive(Default)]
struct History {
    starts: Vec<u64>,
    completions: Vec<u64>,
    free: u64,
}

/// Runs the program through the timing rules, in one pass.
pub fn schedule(program: &[Instruction], machine: &SystolicMachine) -> Timing {
    let depth = machine.sequencer.queue_depth as usize;
    let mut units: [History; Unit::COUNT] = Default::default();
    let mut spans = Vec::with_capacity(program.len());
    let mut cycles = 0;
    let mut next_dispatch = 0u64;
    // Starts of the passes that switched weights; the one with the number of a preload uses that preload.
    let mut switches: Vec<u64> = Vec::new();
    for instruction in program {
        let unit = instruction.op.unit();
        let own = &units[unit.index()];
        let queued_before = own.starts.len();
        let place = queued_before.checked_sub(depth).map_or(0, |leaving| own.starts[leaving]);
        let dispatch = next_dispatch.max(place);
        next_dispatch = dispatch.saturating_add(1);
        let mut start = next_dispatch.max(own.free);
        for (lag, other) in instruction.waits.0.iter().zip(&units) {
            if let Some(lag) = lag
                && let Some(last) = other.completions.len().checked_sub(usize::from(*lag) + 1)
            {
                start = start.max(other.completions[last]);
            }
        }
        match &instruction.op {
            Operation::Preload(_) => {
                if let Some(&switch) = queued_before.checked_sub(1).and_then(|previous| switches.get(previous)) {
                    start = start.max(switch);
                }
            }
            Operation::Multiply(Multiply { switch_weights: true, .. }) => {
                if let Some(&preload) = units[Unit::Preload.index()].completions.get(switches.len()) {
                    start = start.max(preload);
                }
                switches.push(start);
            }
            _ => {}
        }
        let occupancy = occupancy(&instruction.op, machine);
        let span = Span {
            unit,
            start,
            occupancy,
            completion: start.saturating_add(occupancy).saturating_add(latency(unit, machine)),
        };
        let own = &mut units[unit.index()];
        own.starts.push(start);
        own.completions.push(span.completion);
        own.free = span.end();
        cycles = cycles.max(span.completion);
        spans.push(span);
    }
    Timing { spans, cycles }
}

#[cfg(test)]
pub(crate) mod tests;
