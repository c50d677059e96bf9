//! Why the simulator stops.

use tcc_ir::DType;

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
            Some(queue) => write!(f, "in cycle {}, {queue:?} {}", self.cycle, self.cause),
            None => write!(f, "in cycle {}, the program {}", self.cycle, self.cause),
        }
    }
}

impl std::error::Error for Fault {}

/// What a program has done wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultCause {
    /// Not the machine's queues.
    #[error("has {found} queues, but the machine has {expected}")]
    Queues {
        /// Queues of the machine.
        expected: usize,
        /// Queues of the program.
        found: usize,
    },
    /// A queue without an instruction that has not ended.
    #[error("runs dry: it has no instruction left, and has not ended")]
    RunsDry,
    /// A repeat that has nothing to repeat.
    #[error("repeats what is no instruction of its unit")]
    NothingToRepeat,
    /// An instruction that is not of its queue.
    #[error("has an instruction that is another unit's")]
    OtherQueue,
    /// Something beyond what there is.
    #[error("names {0} {1}, which there is not")]
    NoSuch(&'static str, usize),
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
    /// A read and a write in one bank.
    #[error("has a bank conflict: it reads and writes one bank at a time")]
    BankConflict,
    /// A read before what it should read is written.
    #[error("reads too early: what is written to address {0} is not there yet")]
    TooEarly(usize),
    /// A plane that another works with.
    #[error("finds its plane busy: the plane before it multiplies halves in this cycle")]
    PlaneBusy,
    /// A type that streams do not carry.
    #[error("has elements of type {0}, which streams do not carry")]
    Type(DType),
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
