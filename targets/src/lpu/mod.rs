//! LPUs: statically scheduled dataflow chips after Groq's Tensor Streaming Processor. Functional units stand in a row, and
//! vectors move past them on streams, one position in each cycle; what every unit does in which cycle is in the program.
//!
//! A program has a queue of instructions (`isa`) for each unit of the machine (`machine`). It is encoded (`encoding`), can be
//! read (`assembly`) and checked before it runs (`check`); when it dispatches what follows from it alone (`timeline`). The
//! simulator executes the queues cycle by cycle, and refuses what the machine could not do.
//!
//! A compiled program (`program`) has with its queues where its data lies and whose its instructions are (`marks`). Where its
//! cycles go (`summary`, `attribution`), what units do when (`trace`, `picture`) follows from these; what it takes in energy
//! (`energy`) from counts of what is done.

#[cfg(test)]
mod arbitrary;
pub mod assembly;
mod attribution;
pub mod check;
mod compile;
mod constants;
mod cost;
mod emit;
pub mod encoding;
mod energy;
pub mod isa;
pub mod layout;
mod legal;
mod lower;
mod machine;
mod marks;
mod memory;
mod picture;
mod program;
pub mod rtl;
mod schedule;
mod shelf;
pub mod simulator;
mod summary;
pub mod timeline;
mod trace;
mod units;

pub use machine::{EnergyCosts, LpuMachine};
pub use program::LpuProgram;

use tcc_ir::{Graph, Plan};
use tcc_passes::Outline;

use crate::explanation::{Explanation, PlanTaken};
use crate::machine::{Machine, MachineError};
use crate::target::{Optimization, Program, Target, TargetError};

/// The target for one LPU.
pub struct Lpu {
    machine: Machine,
    facts: LpuMachine,
}

impl Lpu {
    /// The target for a machine of this kind.
    ///
    /// # Errors
    /// The machine is of another kind.
    pub fn new(machine: Machine) -> Result<Self, MachineError> {
        match machine.lpu.clone() {
            Some(facts) => Ok(Lpu { machine, facts }),
            None => Err(MachineError::MissingTable { file: machine.name, kind: "lpu" }),
        }
    }

    /// The plan that a cleaned-up graph is lowered by.
    ///
    /// # Errors
    /// The machine has no way to compute an operator.
    pub fn plan(&self, graph: &Graph, optimization: Optimization) -> Result<Plan, TargetError> {
        Ok(compile::plan(&self.machine, &self.facts, graph, optimization, false)?.plan)
    }

    /// Reads a program for this machine that was written by [`Program::encode`].
    ///
    /// # Errors
    /// The bytes are no program, or one that this machine cannot hold.
    pub fn program(&self, bytes: &[u8]) -> Result<LpuProgram, TargetError> {
        LpuProgram::decode(&self.machine, &self.facts, bytes)
    }
}

impl Target for Lpu {
    fn machine(&self) -> &Machine {
        &self.machine
    }

    fn multiplies_floats(&self) -> bool {
        true
    }

    fn compile(&self, graph: &Graph, optimization: Optimization) -> Result<Box<dyn Program>, TargetError> {
        let planned = compile::plan(&self.machine, &self.facts, graph, optimization, false)?;
        Ok(Box::new(compile::compile(&self.machine, &self.facts, graph, planned)?))
    }

    fn compile_explained(
        &self,
        graph: &Graph,
        optimization: Optimization,
    ) -> Result<(Box<dyn Program>, Explanation), TargetError> {
        let mut planned = compile::plan(&self.machine, &self.facts, graph, optimization, true)?;
        let taken = if optimization == Optimization::None { PlanTaken::NotSearched } else { PlanTaken::Optimized };
        let (outline, explanations) = (planned.outline.clone(), std::mem::take(&mut planned.explanations));
        let program = compile::compile(&self.machine, &self.facts, graph, planned)?;
        Ok((Box::new(program), Explanation::new(taken, outline, &explanations)))
    }

    fn outline(&self, graph: &Graph, optimization: Optimization) -> Result<Outline, TargetError> {
        Ok(compile::plan(&self.machine, &self.facts, graph, optimization, false)?.outline)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Box<dyn Program>, TargetError> {
        Ok(Box::new(self.program(bytes)?))
    }
}
