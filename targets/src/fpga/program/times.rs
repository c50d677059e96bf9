//! How long a program takes: a controller reads what is to be called, and calls one function after the other.

use crate::fpga::FpgaMachine;
use crate::fpga::schedule::Schedule;
use crate::target::TargetError;

use super::parts::{Call, Parts};

/// Cycles of the controller for a call beside those of its words: a state in which the function is started, and one in which it is
/// seen that it is done (Vitis HLS: a call of a function that is no pipeline takes a state before and one after).
const HANDSHAKE: u64 = 2;

/// Bytes of a word of the program.
const WORD_BYTES: u64 = 4;

/// Words of a call beside one for each parameter: the function's number.
const HEADER: u64 = 1;

/// When what is done.
#[derive(Debug)]
pub(in crate::fpga) struct Times {
    /// Of each function how it is scheduled.
    pub functions: Vec<Schedule>,
    /// Cycles until the first call: the program is read into a memory on the part in one burst.
    pub start: u64,
    /// Of each call the controller's cycles.
    pub control: Vec<u64>,
}

impl Times {
    /// Schedules all functions.
    ///
    /// # Errors
    /// A function does what cannot be synthesised.
    pub fn new(parts: &Parts, facts: &FpgaMachine, clock_hz: u64) -> Result<Times, TargetError> {
        let schedule = |function| Schedule::new(function, &parts.design, facts, clock_hz);
        let functions = parts.design.functions.iter().map(schedule).collect::<Result<Vec<_>, _>>()?;
        let words = |call: &Call| HEADER + call.buffers.len() as u64;
        let all: u64 = parts.calls.iter().map(words).sum();
        let memory = &facts.memory;
        let latency = (memory.latency_ns * clock_hz as f64 / 1e9).ceil() as u64;
        // A port as wide as a word of the program, since nothing waits for more.
        let start = if all == 0 { 0 } else { latency + all };
        let _ = WORD_BYTES;
        let control = parts.calls.iter().map(|call| words(call) + HANDSHAKE).collect();
        Ok(Times { functions, start, control })
    }

    /// Cycles of a call with the controller's, and with the start if it is the first.
    pub fn of_call(&self, number: usize, call: &Call) -> u64 {
        let start = if number == 0 { self.start } else { 0 };
        start + self.control[number] + self.functions[call.function.index()].cycles()
    }

    /// Cycles of all calls.
    pub fn cycles(&self, calls: &[Call]) -> u64 {
        calls.iter().enumerate().map(|(number, call)| self.of_call(number, call)).sum()
    }
}
