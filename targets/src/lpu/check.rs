//! Whether a machine can execute a program at all: what can be said without running it, after `targets/lpu/rtl/TIMING.md`.
//!
//! Everything that instructions name must be there, in all repetitions; instructions must be of their queue's unit, and
//! queues must end. What depends on when instructions of several queues meet is the simulator's to find.

use rayon::prelude::*;
use tcc_ir::{DType, NumberClass};

use super::LpuMachine;
use super::assembly::disassemble_one;
use super::isa::{Alu, AluFn, MAX_LANES, Number, Operand, Operation, Queue, Queues, Reads, Row, Stream};
use crate::number::{binary_is_defined, unary_is_defined};
use crate::target::TargetError;

/// Why a machine cannot execute a program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// Not the machine's queues.
    #[error("the program has {found} queues, but must have one for each of the machine's {expected}")]
    Queues {
        /// Queues of the machine.
        expected: usize,
        /// Queues of the program.
        found: usize,
    },
    /// A queue that would run dry.
    #[error("{queue}: the last instruction must be `end`, also where there is no other")]
    NoEnd {
        /// The queue.
        queue: Queue,
    },
    /// An instruction that its queue cannot execute.
    #[error("{queue}, instruction {index}, `{text}`: {problem}")]
    Instruction {
        /// The queue.
        queue: Queue,
        /// The instruction's number in the queue, from 0 on.
        index: usize,
        /// The instruction in assembly.
        text: String,
        /// What is wrong.
        problem: ProgramProblem,
    },
}

impl From<ProgramError> for TargetError {
    fn from(error: ProgramError) -> TargetError {
        TargetError::Fault(error.to_string())
    }
}

/// What is wrong with an instruction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgramProblem {
    /// Another unit's.
    #[error("the queue's unit has no such instruction; it belongs to another queue")]
    OtherQueue,
    /// An `end` with instructions behind it.
    #[error("`end` must be the last instruction")]
    Behind,
    /// A repeat without an instruction before it.
    #[error("a repeat must follow an instruction of the unit or a notify")]
    NothingToRepeat,
    /// A number of cycles or repetitions that is 0.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// Something that the machine does not have.
    #[error("there is no {what} {number}: they go from 0 to {last}")]
    Beyond {
        /// What it is.
        what: &'static str,
        /// Its number; after repetitions it may be negative.
        number: i64,
        /// The last that there is.
        last: i64,
    },
    /// Lanes that are no stretch of those of a vector.
    #[error("lanes {first} until {end} are no stretch of the vector's {lanes}")]
    Lanes {
        /// The first lane.
        first: u16,
        /// The lane behind the last.
        end: u16,
        /// Lanes of a vector.
        lanes: usize,
    },
    /// A map for lanes that a superlane does not have.
    #[error("lane {lane} of the map must be 0 (`-`): a superlane has {lanes} lanes")]
    MapLane {
        /// The lane.
        lane: usize,
        /// Lanes of a superlane.
        lanes: u32,
    },
    /// A memory instruction that accesses nothing.
    #[error("it neither reads nor writes; use a nop")]
    NoAccess,
    /// A read and a write in one bank.
    #[error(
        "bank conflict: after {repetition} repetitions, addresses {read:#x} and {write:#x} are both in bank {bank}"
    )]
    BankConflict {
        /// The repetition, 0 for the instruction itself.
        repetition: u32,
        /// The address that is read.
        read: i64,
        /// The address that is written.
        write: i64,
        /// Their bank.
        bank: i64,
    },
    /// Elements that streams do not carry.
    #[error("elements of type {0} do not go on streams; unpack them to bytes")]
    Narrow(DType),
    /// Two numbers in one instruction.
    #[error("its operands that are numbers must all be the same one, as an instruction carries one")]
    Numbers,
    /// A function on operands that it is not defined on.
    #[error("the function is not defined on elements of type {0}; convert them first")]
    Undefined(DType),
    /// A running result that was never begun, or is of another class.
    #[error("it goes on with a running result of another class of numbers, or with none; begin it with `first`")]
    Running,
    /// Halves that are multiplied on a plane of odd number.
    #[error("halves are multiplied on planes of even number, as the next plane has their high bytes")]
    OddPlane,
}

/// Checks that the machine, which must have passed [`LpuMachine::check`], has all that the program names.
///
/// # Errors
/// The first instruction in the order of queues that cannot be executed, or a queue that is not there or does not end.
pub fn check(program: &Queues, machine: &LpuMachine) -> Result<(), ProgramError> {
    let queues = machine.queues();
    if queues.len() != program.0.len() {
        return Err(ProgramError::Queues { expected: queues.len(), found: program.0.len() });
    }
    // All queues are looked at, so that it is always the first error that is told.
    let queues = queues.into_par_iter().zip(&program.0);
    let checked: Vec<_> = queues.map(|(queue, operations)| check_queue(queue, operations, machine)).collect();
    checked.into_iter().collect()
}

fn check_queue(queue: Queue, operations: &[Operation], machine: &LpuMachine) -> Result<(), ProgramError> {
    let mut checker = Checker { machine, queue, running: None };
    for (index, operation) in operations.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|before| operations.get(before));
        let after = operations.get(index + 1);
        checker.instruction(before, operation, after).map_err(|problem| ProgramError::Instruction {
            queue,
            index,
            text: disassemble_one(operation, machine),
            problem,
        })?;
    }
    match operations.last() {
        Some(Operation::End) => Ok(()),
        _ => Err(ProgramError::NoEnd { queue }),
    }
}

type Checked = Result<(), ProgramProblem>;

/// How an instruction is repeated.
#[derive(Clone, Copy)]
struct Repetition {
    count: u32,
    step: i32,
}

struct Checker<'a> {
    machine: &'a LpuMachine,
    queue: Queue,
    /// Of an ALU whether it has a running result, and its class if that is known.
    running: Option<Option<NumberClass>>,
}

impl Checker<'_> {
    fn instruction(&mut self, before: Option<&Operation>, operation: &Operation, after: Option<&Operation>) -> Checked {
        let repetition = match after {
            Some(&Operation::Repeat { count, step, .. }) => Repetition { count, step },
            _ => Repetition { count: 0, step: 0 },
        };
        match (operation, self.queue) {
            (Operation::Nop(0), _) => Err(ProgramProblem::Zero("a nop's number of cycles")),
            (Operation::Nop(_) | Operation::Sync | Operation::Notify, _) => Ok(()),
            (Operation::Repeat { count: 0, .. }, _) => Err(ProgramProblem::Zero("the number of repetitions")),
            (Operation::Repeat { interval: 0, .. }, _) => {
                Err(ProgramProblem::Zero("the number of cycles between them"))
            }
            (Operation::Repeat { .. }, _) => match before {
                None | Some(Operation::Nop(_) | Operation::Repeat { .. } | Operation::Sync | Operation::End) => {
                    Err(ProgramProblem::NothingToRepeat)
                }
                Some(_) => Ok(()),
            },
            (Operation::End, _) => {
                if after.is_some() {
                    Err(ProgramProblem::Behind)
                } else {
                    Ok(())
                }
            }
            (&Operation::Mem { read, write }, Queue::Mem(_)) => self.mem(read, write, repetition),
            (&Operation::Gather { addresses, to }, Queue::Mem(_)) => {
                self.streams(addresses.stream, 2)?;
                self.streams(to, 1)
            }
            (Operation::Alu(alu), Queue::Alu(_)) => self.alu(alu),
            (&Operation::Load { from, column }, Queue::Load(..)) => {
                let columns = self.machine.mxm.load_streams;
                self.streams(from.stream, columns)?;
                self.moves("column", column, columns, self.machine.vector(), repetition)
            }
            (Operation::Install, Queue::Load(..)) => Ok(()),
            (&Operation::Multiply { from, row }, Queue::Multiply(_, plane)) => match row {
                Row::Bytes { .. } => self.streams(from.stream, 1),
                Row::Halves(_) if plane % 2 == 1 => Err(ProgramProblem::OddPlane),
                Row::Halves(half) => {
                    within("half", i64::from(half), 2)?;
                    self.streams(from.stream, 2)
                }
            },
            (&Operation::Accumulate { row, to, .. }, Queue::Accumulate(..)) => {
                self.moves("accumulator row", row, 1, self.machine.mxm.accumulators as usize, repetition)?;
                to.map_or(Ok(()), |to| self.streams(to, 4))
            }
            (&Operation::Shift { from, lanes, under, to, .. }, Queue::Shift(..)) => {
                self.streams(from.stream, 1)?;
                under.map_or(Ok(()), |under| self.streams(under.stream, 1))?;
                self.streams(to, 1)?;
                let ([first, end], lanes) = (lanes, self.machine.vector());
                if first <= end && usize::from(end) <= lanes {
                    Ok(())
                } else {
                    Err(ProgramProblem::Lanes { first, end, lanes })
                }
            }
            (&Operation::Distribute { from, map, to }, Queue::Distribute(..)) => {
                self.streams(from.stream, 1)?;
                self.streams(to, 1)?;
                self.map(&map)
            }
            (&Operation::Transpose { from, to }, Queue::Transpose(..)) => {
                self.streams(from.stream, self.machine.lanes)?;
                self.streams(to, self.machine.lanes)
            }
            (
                Operation::Mem { .. }
                | Operation::Gather { .. }
                | Operation::Alu(_)
                | Operation::Load { .. }
                | Operation::Install
                | Operation::Multiply { .. }
                | Operation::Accumulate { .. }
                | Operation::Shift { .. }
                | Operation::Distribute { .. }
                | Operation::Transpose { .. },
                _,
            ) => Err(ProgramProblem::OtherQueue),
        }
    }

    /// So many streams from the first on must be there.
    fn streams(&self, first: Stream, width: u32) -> Checked {
        within("stream", i64::from(first.number) + i64::from(width) - 1, self.machine.streams as usize)
    }

    /// A moving field, of a stretch of `width`, must stay below `end` in all repetitions.
    fn moves(&self, what: &'static str, first: u16, width: u32, end: usize, repetition: Repetition) -> Checked {
        // It goes one way, so that the ends suffice. Products of 32 bits with a sign and 32 without fit into 64.
        for at in [i64::from(first), after(first, repetition.count, repetition)] {
            within(what, at, end)?;
            within(what, at + i64::from(width) - 1, end)?;
        }
        Ok(())
    }

    fn mem(&self, read: Option<(u16, Stream)>, write: Option<(u16, Reads)>, repetition: Repetition) -> Checked {
        let words = i64::from(self.machine.mem.words);
        let addresses = (self.machine.mem.banks * self.machine.mem.words) as usize;
        if let Some((address, to)) = read {
            self.moves("address", address, 1, addresses, repetition)?;
            self.streams(to, 1)?;
        }
        if let Some((address, from)) = write {
            self.moves("address", address, 1, addresses, repetition)?;
            self.streams(from.stream, 1)?;
        }
        let (Some((read, _)), Some((write, _))) = (read, write) else {
            return if read.is_none() && write.is_none() { Err(ProgramProblem::NoAccess) } else { Ok(()) };
        };
        // Addresses that move are soon at the end of the slice: these are few.
        let repetitions = if repetition.step == 0 { 0 } else { repetition.count };
        for repetition_number in 0..=repetitions {
            let read = after(read, repetition_number, repetition);
            let write = after(write, repetition_number, repetition);
            if read / words == write / words {
                let bank = read / words;
                return Err(ProgramProblem::BankConflict { repetition: repetition_number, read, write, bank });
            }
        }
        Ok(())
    }

    fn map(&self, map: &[Option<u8>; MAX_LANES]) -> Checked {
        let lanes = self.machine.lanes;
        for (lane, entry) in map.iter().enumerate() {
            match entry {
                Some(_) if lane >= lanes as usize => return Err(ProgramProblem::MapLane { lane, lanes }),
                Some(from) => within("lane", i64::from(*from), lanes as usize)?,
                None => {}
            }
        }
        Ok(())
    }

    fn elements(&self, first: Stream, dtype: DType) -> Checked {
        if dtype.bits() < 8 {
            return Err(ProgramProblem::Narrow(dtype));
        }
        self.streams(first, dtype.bits() as u32 / 8)
    }

    fn alu(&mut self, alu: &Alu) -> Checked {
        let mut shared = None;
        for operand in alu.function.operands() {
            match *operand {
                Operand::Stream(from, dtype) => self.elements(from.stream, dtype)?,
                Operand::Alu(number) => within("ALU", i64::from(number), self.machine.vxm.alus as usize)?,
                Operand::Number(number) => {
                    let bits = bits(number);
                    if *shared.get_or_insert(bits) != bits {
                        return Err(ProgramProblem::Numbers);
                    }
                }
            }
        }
        if let Some((to, dtype)) = alu.result {
            self.elements(to, dtype)?;
        }
        let dtype = computed_type(alu.function.values());
        let defined = |defined: &dyn Fn(DType) -> bool| match dtype {
            Some(dtype) if !defined(dtype) => Err(ProgramProblem::Undefined(dtype)),
            _ => Ok(()),
        };
        match alu.function {
            AluFn::Copy(_) | AluFn::Select(_) => Ok(()),
            AluFn::Unary(function, _) => defined(&|dtype| unary_is_defined(function, dtype)),
            AluFn::Binary(function, _) => defined(&|dtype| binary_is_defined(function, dtype)),
            AluFn::Accumulate { first, .. } => {
                let class = dtype.map(DType::class);
                self.running = match (first, self.running) {
                    (true, _) => Some(class),
                    (false, None) => return Err(ProgramProblem::Running),
                    (false, Some(Some(before))) => {
                        if class.is_some_and(|class| class != before) {
                            return Err(ProgramProblem::Running);
                        }
                        Some(Some(before))
                    }
                    (false, Some(None)) => Some(class),
                };
                Ok(())
            }
        }
    }
}

fn within(what: &'static str, number: i64, end: usize) -> Checked {
    let last = end as i64 - 1;
    if (0..=last).contains(&number) { Ok(()) } else { Err(ProgramProblem::Beyond { what, number, last }) }
}

/// A moving field after some of its repetitions.
fn after(first: u16, repetitions: u32, repetition: Repetition) -> i64 {
    i64::from(first) + i64::from(repetitions) * i64::from(repetition.step)
}

/// The kind and the bits of a number: floats are compared by these.
fn bits(number: Number) -> (bool, u32) {
    match number {
        Number::Float(value) => (true, value.to_bits()),
        Number::Integer(value) => (false, value as u32),
    }
}

/// A type of the class in which an ALU computes with these operands; `None` if another ALU decides.
fn computed_type(values: &[Operand]) -> Option<DType> {
    match values.iter().find(|value| !matches!(value, Operand::Number(_))).or(values.first())? {
        Operand::Stream(_, dtype) => Some(*dtype),
        Operand::Alu(_) => None,
        Operand::Number(Number::Float(_)) => Some(DType::F32),
        Operand::Number(Number::Integer(_)) => Some(DType::I64),
    }
}

#[cfg(test)]
mod tests;
