//! How long a program takes: a controller reads what is to be called, and calls one function after the other; or calls are stages that
//! run at the same time.

use rayon::prelude::*;

use crate::fpga::FpgaMachine;
use crate::fpga::design::{Design, Home, Style};
use crate::fpga::resources::Resources;
use crate::fpga::schedule::{AXI_PORT, Schedule, Usage};
use crate::fpga::streaming::{Streamed, shared};
use crate::target::TargetError;

use super::parts::Call;

/// Words of a call beside one for each parameter: the function's number.
const HEADER: u64 = 1;

/// What the controller takes beside functions: its states, and the words of a call that it reads (assumed).
const CONTROLLER: Resources = Resources { luts: 500, ffs: 800, dsps: 0, bram18s: 0, urams: 0 };

/// When what is done.
#[derive(Debug)]
pub(in crate::fpga) struct Times {
    /// Of each function how it is scheduled.
    pub functions: Vec<Schedule>,
    /// Of each call the cycles in which the controller reads its words: it asks for them when the call before has ended, one word after
    /// the other.
    pub control: u64,
    /// How stages go together, if calls are stages.
    pub streamed: Option<Streamed>,
}

impl Times {
    /// Schedules all functions.
    ///
    /// # Errors
    /// A function does what cannot be synthesised.
    pub fn new(design: &Design, calls: &[Call], facts: &FpgaMachine, clock_hz: u64) -> Result<Times, TargetError> {
        let latency = (facts.memory.latency_ns * clock_hz as f64 / 1e9).ceil() as u64;
        if design.style == Style::Streaming {
            let facts = shared(facts, design);
            let schedule = |function| Schedule::new(function, design, &facts, clock_hz);
            let functions = design.functions.par_iter().map(schedule).collect::<Result<Vec<_>, _>>()?;
            let streamed = Some(Streamed::new(design, calls, &functions, latency)?);
            return Ok(Times { functions, control: 0, streamed });
        }
        let schedule = |function| Schedule::new(function, design, facts, clock_hz);
        let functions = design.functions.par_iter().map(schedule).collect::<Result<Vec<_>, _>>()?;
        // All calls have as many words as the longest.
        let words = calls.iter().map(|call| HEADER + call.buffers.len() as u64).max().unwrap_or(0);
        Ok(Times { functions, control: latency + words, streamed: None })
    }

    /// Cycles of a call with the controller's; of a stage those for which an inference waits for it.
    pub fn of_call(&self, call: &Call) -> u64 {
        if let Some(streamed) = &self.streamed {
            return streamed.waited.get(call.function.index()).copied().unwrap_or(0);
        }
        self.control + self.functions[call.function.index()].cycles()
    }

    /// Cycles of an inference.
    pub fn cycles(&self, calls: &[Call]) -> u64 {
        if let Some(streamed) = &self.streamed {
            return streamed.cycles;
        }
        calls.iter().fold(0, |sum: u64, call| sum.saturating_add(self.of_call(call)))
    }

    /// What a design takes: functions share operators, since they never run at the same time; memories and ports are there once. Stages
    /// share nothing.
    pub fn resources(&self, design: &Design, calls: &[Call]) -> Resources {
        if self.streamed.is_some() {
            return Streamed::resources(design, calls, &self.functions);
        }
        let functions = self.functions.iter().fold(Usage::default(), |all, function| all.or(function.usage().clone()));
        let memories: Resources = design.memories.iter().map(|memory| memory.resources(true)).sum();
        let is_used = |channel: u32| {
            design.functions.iter().flat_map(|function| &function.homes).any(|home| match *home {
                Home::External { first, ways } => (first..first + ways).contains(&channel),
                Home::OnChip(_) | Home::Fifo(_) => false,
            })
        };
        let ports = (0..design.channels).filter(|&channel| is_used(channel)).count() as u64;
        // One more is the controller's own.
        functions.resources() + memories + AXI_PORT * (ports + 1) + CONTROLLER
    }
}
