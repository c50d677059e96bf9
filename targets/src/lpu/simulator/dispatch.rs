//! When queues dispatch what.

use super::fault::FaultCause;
use crate::lpu::isa::Operation;

/// Where a queue stands.
#[derive(Clone, Debug)]
struct State {
    /// The instruction that is dispatched next.
    at: usize,
    /// When; `None` where the queue stands at a sync, or has ended.
    next: Option<u64>,
    /// Since when it stands at a sync.
    waits: Option<u64>,
    /// The instruction that is repeated, how many times more, and how far apart.
    repeats: Option<Repetition>,
}

#[derive(Clone, Debug)]
struct Repetition {
    operation: Operation,
    left: u32,
    interval: u64,
    step: i32,
}

/// The queues of a program, and where they stand.
#[derive(Debug)]
pub(super) struct Dispatcher<'a> {
    queues: &'a [Vec<Operation>],
    states: Vec<State>,
    notify_latency: u64,
}

impl<'a> Dispatcher<'a> {
    /// Queues that begin in cycle 0.
    pub fn new(queues: &'a [Vec<Operation>], notify_latency: u32) -> Self {
        let state = State { at: 0, next: Some(0), waits: None, repeats: None };
        Dispatcher { queues, states: vec![state; queues.len()], notify_latency: u64::from(notify_latency) }
    }

    /// The next cycle in which some queue dispatches something. `None` if all have ended, or stand at a sync for ever.
    pub fn next(&self) -> Option<u64> {
        self.states.iter().filter_map(|state| state.next).min()
    }

    /// What a queue dispatches in a cycle. Cycles must ascend, and leave out none in which a queue dispatches something.
    pub fn dispatch(&mut self, queue: usize, cycle: u64) -> Result<Option<Operation>, FaultCause> {
        let state = &mut self.states[queue];
        if state.next != Some(cycle) {
            return Ok(None);
        }
        if let Some(repetition) = &mut state.repeats {
            advance(&mut repetition.operation, repetition.step)?;
            let operation = repetition.operation;
            repetition.left -= 1;
            if repetition.left == 0 {
                state.repeats = None;
                state.next = Some(cycle + 1);
            } else {
                state.next = Some(cycle + repetition.interval);
            }
            return Ok(Some(operation));
        }
        let queue = &self.queues[queue];
        let operation = *queue.get(state.at).ok_or(FaultCause::RunsDry)?;
        state.at += 1;
        state.next = match operation {
            Operation::Nop(cycles) => Some(cycle + u64::from(cycles.max(1))),
            Operation::Sync => {
                state.waits = Some(cycle);
                None
            }
            Operation::End => None,
            Operation::Repeat { .. } => return Err(FaultCause::NothingToRepeat),
            _ => match queue.get(state.at) {
                Some(&Operation::Repeat { count, interval, step }) if count > 0 => {
                    state.at += 1;
                    let interval = u64::from(interval.max(1));
                    state.repeats = Some(Repetition { operation, left: count, interval, step });
                    Some(cycle + interval)
                }
                _ => Some(cycle + 1),
            },
        };
        if operation == Operation::Notify {
            self.notify(cycle);
        }
        Ok(Some(operation))
    }

    /// Lets go on what has stood at a sync since before this cycle.
    fn notify(&mut self, cycle: u64) {
        for state in &mut self.states {
            if state.waits.is_some_and(|since| since < cycle) {
                state.waits = None;
                state.next = Some(cycle + self.notify_latency);
            }
        }
    }
}

/// Adds to the moving field of an instruction.
fn advance(operation: &mut Operation, step: i32) -> Result<(), FaultCause> {
    let moved = |field: &mut u16, what: &'static str| {
        let value = i64::from(*field) + i64::from(step);
        *field = u16::try_from(value).map_err(|_| FaultCause::NoSuch(what, value.unsigned_abs() as usize))?;
        Ok(())
    };
    match operation {
        Operation::Mem { read, write } => {
            read.as_mut().map_or(Ok(()), |(address, _)| moved(address, "address"))?;
            write.as_mut().map_or(Ok(()), |(address, _)| moved(address, "address"))
        }
        Operation::Load { column, .. } => moved(column, "column"),
        Operation::Accumulate { row, .. } => moved(row, "accumulator row"),
        _ => Ok(()),
    }
}
