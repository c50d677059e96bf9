//! Executes programs: the values that the machine would compute, in the cycles that it would take.
//!
//! Instructions are executed in program order. That is what the machine does too, as far as anyone can see, if the
//! program's waits order all accesses that conflict; a program whose waits do not is stopped with a fault. Cycles come
//! from [`timing`](mod@super::timing) and do not depend on values.

mod access;
mod array;
mod check;
mod dma;
mod dram;
mod fault;
mod fold;
mod number;
mod race;
mod sort;
mod vector;

pub use access::Space;
pub(super) use access::for_each as for_each_access;
pub use dram::Dram;
pub use fault::{Fault, FaultCause};
pub(crate) use number::{binary_is_defined, unary_is_defined};

use self::array::Plane;
use self::race::RaceDetector;
use self::vector::Memories;
use super::SystolicMachine;
use super::code::{Code, Step};
use super::isa::{Operation, WeightRows};
use super::timing::{self, Timing};
use crate::systolic::assembly;

/// What an execution took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Execution {
    /// Cycles from the first dispatch to the last completion.
    pub cycles: u64,
}

/// A machine with a program.
pub struct Simulator<'a> {
    machine: &'a SystolicMachine,
    code: &'a Code,
    timing: Timing,
    dram: Dram<'a>,
    memories: Memories,
    /// Weights that were preloaded and not yet switched in.
    shadow: Option<Plane>,
    /// Weights in the array.
    active: Option<Plane>,
    /// Results of a vector instruction on their way.
    results: Vec<u8>,
}

impl<'a> Simulator<'a> {
    /// A machine, which must have passed [`SystolicMachine::check`], with a program and its data. On-chip memories are
    /// zero.
    pub fn new(machine: &'a SystolicMachine, code: &'a Code, dram: Dram<'a>) -> Self {
        let accumulators = machine.accumulators.rows as usize * machine.array.columns as usize * 4;
        Simulator {
            machine,
            code,
            timing: timing::schedule(code, machine),
            dram,
            memories: Memories {
                scratchpad: vec![0; machine.scratchpad.bytes as usize],
                accumulators: vec![0; accumulators],
            },
            shadow: None,
            active: None,
            results: Vec::new(),
        }
    }

    /// When every instruction runs.
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// DRAM, for reading outputs.
    pub fn dram(&self) -> &Dram<'a> {
        &self.dram
    }

    /// DRAM, for setting inputs.
    pub fn dram_mut(&mut self) -> &mut Dram<'a> {
        &mut self.dram
    }

    /// The scratchpad's bytes.
    pub fn scratchpad(&self) -> &[u8] {
        &self.memories.scratchpad
    }

    /// The accumulators' bytes, row after row.
    pub fn accumulators(&self) -> &[u8] {
        &self.memories.accumulators
    }

    /// Executes the whole program.
    pub fn run(&mut self) -> Result<Execution, Fault> {
        let mut races = RaceDetector::new(self.code, self.machine, self.dram.base(), self.dram.memory().len() as u64);
        for (index, step) in self.code.steps().enumerate() {
            self.step(index, &step, &mut races).map_err(|cause| Fault {
                index,
                instruction: assembly::disassemble_one(&step.resolved()),
                cause,
            })?;
        }
        Ok(Execution { cycles: self.timing.cycles() })
    }

    fn step(&mut self, index: usize, step: &Step<'_>, races: &mut RaceDetector) -> Result<(), FaultCause> {
        let op = &*step.op();
        check::form(op, self.machine)?;
        self.switch_weights(op)?;
        let weights = self.active.as_ref().map_or_else(WeightRows::default, Plane::rows);
        check::pass_form(op, weights)?;
        let accesses = race::accesses(op, weights, self.machine);
        for access in &accesses {
            check::bounds(access, self.machine, &mut self.dram)?;
        }
        races.check(index, weights, &accesses, self.timing.spans())?;
        self.execute(op)
    }

    fn switch_weights(&mut self, op: &Operation) -> Result<(), FaultCause> {
        match op {
            Operation::Preload(_) if self.shadow.is_some() => Err(FaultCause::PreloadOverwritten),
            Operation::Multiply(multiply) if multiply.switch_weights => {
                self.active = Some(self.shadow.take().ok_or(FaultCause::NothingPreloaded)?);
                Ok(())
            }
            Operation::Multiply(_) if self.active.is_none() => Err(FaultCause::NoWeights),
            _ => Ok(()),
        }
    }

    fn execute(&mut self, op: &Operation) -> Result<(), FaultCause> {
        use dma::Direction;
        let (memories, results) = (&mut self.memories, &mut self.results);
        let (scratchpad, dram) = (&mut memories.scratchpad, &mut self.dram);
        match op {
            Operation::Load(transfer) => dma::transfer(transfer, Direction::Load, scratchpad, dram),
            Operation::Store(transfer) => dma::transfer(transfer, Direction::Store, scratchpad, dram),
            Operation::LoadRows(rows) => dma::load_rows(rows, scratchpad, dram)?,
            Operation::StoreRows(rows, reduction, dtype) => {
                dma::store_rows(rows, *reduction, *dtype, scratchpad, dram)?;
            }
            Operation::Preload(preload) => self.shadow = Some(Plane::load(preload, scratchpad)?),
            Operation::Multiply(multiply) => {
                let plane = self.active.as_ref().ok_or(FaultCause::NoWeights)?;
                let columns = self.machine.array.columns as usize;
                plane.multiply(multiply, scratchpad, &mut memories.accumulators, columns)?;
            }
            Operation::Outer(outer) => {
                array::outer(outer, scratchpad, &mut memories.accumulators, self.machine.array.columns as usize)?;
            }
            Operation::Map(map) => vector::map(map, memories, results)?,
            Operation::Fold(fold) => fold::fold(fold, self.machine.vector.lanes as usize, memories, results)?,
            Operation::Scan(scan) => fold::scan(scan, memories, results),
            Operation::Sort(sort) => sort::sort(sort, memories),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
