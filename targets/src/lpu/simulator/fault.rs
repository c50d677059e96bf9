//! Why the simulator stops.

use crate::lpu::isa::Queue;
use crate::target::TargetError;

/// What a program has done wrong, where and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The queue of the instruction; `None` for what happens on streams.
    pub queue: Option<Queue>,
    /// The cycle.
    pub cycle: u64,
    /// What is wrong.
    pub cause: FaultCause,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.queue {
            Some(queue) => write!(f, "in cycle {}, {queue} {}", self.cycle, self.cause),
            None => write!(f, "in cycle {}, the program {}", self.cycle, self.cause),
        }
    }
}

impl std::error::Error for Fault {}

/// What a program has done wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultCause {
    /// A sync that nothing ends.
    #[error("waits at a sync for ever: no notify comes after it")]
    NoNotify,
    /// An instruction that is not of its queue.
    #[error("has an instruction that is another unit's")]
    OtherQueue,
    /// A read of an empty stream.
    #[error("finds nothing there: {0}")]
    NothingThere(String),
    /// A drive onto a stream that is not free.
    #[error(
        "has a collision: position {position} drives stream {stream} to the {direction}, on which there is a vector"
    )]
    Collision {
        /// Where.
        position: usize,
        /// The stream's number.
        stream: u8,
        /// Where it flows.
        direction: &'static str,
    },
    /// A read before what it should read is written.
    #[error("reads too early: what is written to address {0} is not there yet")]
    TooEarly(usize),
    /// A plane that another works with.
    #[error("finds its plane busy: the plane before it multiplies halves in this cycle")]
    PlaneBusy,
    /// A function that is not defined on the operands' class.
    #[error("applies a function that is not defined on its operands")]
    Undefined,
    /// A running result of another class.
    #[error("goes on with a running result of another class of numbers, or with none")]
    OtherClass,
}

impl From<Fault> for TargetError {
    fn from(fault: Fault) -> TargetError {
        TargetError::Fault(fault.to_string())
    }
}
