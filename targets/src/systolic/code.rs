//! A program as it is stored: routines, and the calls of them.
//!
//! Layers of a model that are equal but for their weights run the same instructions on other addresses. These are stored
//! once, as a routine whose addresses in DRAM count from base registers, and called once for each layer with the bases of
//! that layer. What the machine executes is one stream: the instructions of all calls, one after the other. A call costs no
//! cycles; the units do not notice it.

use super::isa::{Instruction, Operation};

/// A routine of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoutineId(pub u32);

impl RoutineId {
    /// Its number, for lists of routines.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A run through a routine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The routine.
    pub routine: RoutineId,
    /// What the base registers hold, from register 1 on; those beyond are zero.
    pub bases: Vec<u64>,
}

/// Most base registers that a call sets.
pub const MAX_BASES: usize = u8::MAX as usize;

/// Most instructions that a program executes: far more than the largest models take, few enough to count in seconds.
const MAX_STEPS: u64 = 1 << 31;

/// Calls that make no program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// A call of nothing.
    #[error("call {call} names routine {routine}, but there are {routines}")]
    NoRoutine {
        /// The call.
        call: usize,
        /// What it names.
        routine: u32,
        /// Routines that there are.
        routines: usize,
    },
    /// More bases than there are registers.
    #[error("call {call} sets {bases} base registers, but there are {MAX_BASES}")]
    Bases {
        /// The call.
        call: usize,
        /// Bases of the call.
        bases: usize,
    },
    /// Too much to execute.
    #[error("the calls execute more than {MAX_STEPS} instructions, which is the most that a program may")]
    TooLong,
}

/// A program: routines and the calls that execute them, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Code {
    routines: Vec<Vec<Instruction>>,
    calls: Vec<Call>,
    /// For each call, how many instructions are executed before it.
    starts: Vec<usize>,
    steps: usize,
}

/// An instruction being executed.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The instruction.
    pub instruction: &'a Instruction,
    /// The bases of the call.
    pub bases: &'a [u64],
}

impl<'a> Step<'a> {
    /// The instruction with its address in DRAM as it is in this call.
    pub fn resolved(&self) -> Instruction {
        let Step { instruction, bases } = self;
        Instruction { waits: instruction.waits, op: instruction.op.resolve(bases).into_owned() }
    }

    /// What is done, with its address in DRAM as it is in this call.
    pub fn op(&self) -> std::borrow::Cow<'a, Operation> {
        self.instruction.op.resolve(self.bases)
    }
}

impl Code {
    /// A program from its parts.
    ///
    /// # Errors
    /// See [`CodeError`].
    pub fn new(routines: Vec<Vec<Instruction>>, calls: Vec<Call>) -> Result<Code, CodeError> {
        let mut starts = Vec::with_capacity(calls.len());
        let mut steps = 0u64;
        for (index, call) in calls.iter().enumerate() {
            let Some(routine) = routines.get(call.routine.index()) else {
                return Err(CodeError::NoRoutine { call: index, routine: call.routine.0, routines: routines.len() });
            };
            if call.bases.len() > MAX_BASES {
                return Err(CodeError::Bases { call: index, bases: call.bases.len() });
            }
            starts.push(steps as usize);
            steps += routine.len() as u64;
            if steps > MAX_STEPS {
                return Err(CodeError::TooLong);
            }
        }
        Ok(Code { routines, calls, starts, steps: steps as usize })
    }

    /// The routines, in the order of their numbers.
    pub fn routines(&self) -> &[Vec<Instruction>] {
        &self.routines
    }

    /// The calls, in order.
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// The instructions of a routine.
    pub fn routine(&self, id: RoutineId) -> &[Instruction] {
        self.routines.get(id.index()).map_or(&[], Vec::as_slice)
    }

    /// Number of instructions executed.
    pub fn len(&self) -> usize {
        self.steps
    }

    /// Whether nothing is executed.
    pub fn is_empty(&self) -> bool {
        self.steps == 0
    }

    /// The instruction executed after `index` others.
    pub fn step(&self, index: usize) -> Option<Step<'_>> {
        let call = self.starts.partition_point(|&start| start <= index).checked_sub(1)?;
        let Call { routine, bases } = &self.calls[call];
        let instruction = self.routine(*routine).get(index - self.starts[call])?;
        Some(Step { instruction, bases })
    }

    /// All instructions as they are executed.
    pub fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        self.calls.iter().flat_map(|call| {
            self.routine(call.routine).iter().map(|instruction| Step { instruction, bases: &call.bases })
        })
    }
}

impl From<Vec<Instruction>> for Code {
    /// One routine, called once without bases.
    fn from(instructions: Vec<Instruction>) -> Code {
        let steps = instructions.len();
        let call = Call { routine: RoutineId(0), bases: Vec::new() };
        Code { routines: vec![instructions], calls: vec![call], starts: vec![0], steps }
    }
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;
    use crate::systolic::assembly::{assemble, disassemble};

    const TEXT: &str = "\
routine 0
load dram=0x40 spm=0x0 element=4 dims=[16:4:4]
routine 1
load dram=r1+0x40 spm=0x0 element=4 dims=[16:4:4]
store dram=r2+0x0 spm=0x0 element=4 dims=[16:4:4] wait(load<=0)
call 0
call 1 0x1000 0x2000
call 1 0x3000
";

    #[test]
    fn calls_execute_one_after_the_other() {
        let code = assemble(TEXT).unwrap();
        assert_eq!(disassemble(&code), TEXT);
        let addresses = |code: &Code| -> Vec<u64> {
            code.steps().map(|step| step.instruction.op.dram().unwrap().resolve(step.bases)).collect()
        };
        assert_eq!(addresses(&code), [0x40, 0x1040, 0x2000, 0x3040, 0]);
        let single: Vec<u64> =
            (0..code.len()).map(|index| code.step(index).unwrap().resolved().op.dram().unwrap().offset).collect();
        assert_eq!(single, addresses(&code));
        assert!(code.step(code.len()).is_none());
    }

    #[test]
    fn calls_of_nothing_are_refused() {
        let call = |routine, bases| Call { routine: RoutineId(routine), bases };
        let none = Code::new(vec![Vec::new()], vec![call(1, Vec::new())]);
        assert_eq!(none, Err(CodeError::NoRoutine { call: 0, routine: 1, routines: 1 }));
        let many = Code::new(vec![Vec::new()], vec![call(0, vec![0; 256])]);
        assert_eq!(many, Err(CodeError::Bases { call: 0, bases: 256 }));
        let instruction = assemble(TEXT).unwrap().routines()[0][0].clone();
        let long = Code::new(vec![vec![instruction; 1 << 12]], vec![call(0, Vec::new()); 1 << 20]);
        assert_eq!(long, Err(CodeError::TooLong));
    }
}
