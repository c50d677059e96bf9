//! Why the machine stops.

use tcc_ir::DType;

use super::access::Space;
use crate::number::DivisionByZero;
use crate::target::TargetError;

/// An instruction that the machine cannot execute.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("instruction {index} (`{instruction}`) {cause}")]
pub struct Fault {
    /// Its number in the program.
    pub index: usize,
    /// Its disassembly.
    pub instruction: String,
    /// What is wrong.
    pub cause: FaultCause,
}

/// What is wrong with an instruction.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FaultCause {
    /// The instruction contradicts itself.
    #[error("is malformed: {0}")]
    Malformed(&'static str),
    /// An access leaves its memory.
    #[error("accesses {space} bytes {from} to {to}, which lie outside its {capacity} bytes")]
    OutOfRange {
        /// The memory.
        space: Space,
        /// First byte of the access.
        from: i128,
        /// The byte after its last.
        to: i128,
        /// Size of the memory.
        capacity: u64,
    },
    /// A DRAM access reaches bytes that are neither weights nor memory, or writes weights.
    #[error("{}", dram_message(.write, .from, .to))]
    Dram {
        /// Whether it writes.
        write: bool,
        /// First byte of the access.
        from: i128,
        /// The byte after its last.
        to: i128,
    },
    /// An index names no row of its table.
    #[error("meets index {index}, which is outside a table of {rows} rows")]
    Index {
        /// The index.
        index: i64,
        /// Rows of the table.
        rows: u64,
    },
    /// An element type that the unit does not take there.
    #[error("cannot take {dtype} as {role}")]
    Type {
        /// The type.
        dtype: DType,
        /// Where it stands.
        role: &'static str,
    },
    /// A function that is not defined on the operands' number class.
    #[error("applies a function that is not defined on {0}")]
    Undefined(DType),
    /// A pass through the array without weights in it.
    #[error("multiplies without weights: no preload stands before it")]
    NoWeights,
    /// A pass that wants to switch to weights which no preload has brought.
    #[error("switches weights, but no preload has brought any since the last switch")]
    NothingPreloaded,
    /// A preload over weights that were never used.
    #[error("preloads before the weights of the preload before it were switched in")]
    PreloadOverwritten,
    /// Integer division by zero.
    #[error("divides an integer by zero")]
    DivisionByZero,
    /// The destination overlaps an operand that is walked differently.
    #[error("writes over its own operand {0}, which is walked differently")]
    Overlap(usize),
    /// Earlier instructions may hold all ports of a bank.
    #[error(
        "finds no port free to {} bank {bank} of the scratchpad when it starts in cycle {start}; a wait is missing",
        if *.write { "write" } else { "read" }
    )]
    Ports {
        /// The bank.
        bank: usize,
        /// Whether it writes there.
        write: bool,
        /// When it starts.
        start: u64,
    },
    /// An earlier instruction may still be at work on the same bytes.
    #[error(
        "races with instruction {other} (`{instruction}`) for {space}: it starts in cycle {start}, the other completes \
         in cycle {completion}; a wait is missing"
    )]
    Race {
        /// The earlier instruction.
        other: usize,
        /// Its disassembly.
        instruction: String,
        /// The memory.
        space: Space,
        /// When this one starts.
        start: u64,
        /// When the earlier one completes.
        completion: u64,
    },
}

fn dram_message(write: &bool, from: &i128, to: &i128) -> String {
    match write {
        true => format!("writes DRAM bytes {from} to {to}, but memory does not lie there"),
        false => format!("reads DRAM bytes {from} to {to}, but neither weights nor memory lie there"),
    }
}

impl From<DivisionByZero> for FaultCause {
    fn from(_: DivisionByZero) -> FaultCause {
        FaultCause::DivisionByZero
    }
}

impl From<Fault> for TargetError {
    fn from(fault: Fault) -> TargetError {
        TargetError::Fault(fault.to_string())
    }
}
