//! Systolic arrays: an array of multiply-accumulate cells fed by decoupled load, store and vector units.
//!
//! A graph is brought into the machine's operators (`legal`), cut into kernels by `tcc-passes`, laid out in DRAM
//! (`layout`, with weights written by `packing`) and lowered kernel by kernel (`lower`) to instructions (`isa`) whose waits
//! the emitter derives (`emit`). What repeats is stored once (`code`). The program is encoded
//! (`encoding`), can be read (`assembly`), timed (`timing`) and executed (`simulator`).

#[cfg(test)]
mod arbitrary;
mod arrange;
pub mod assembly;
mod banks;
pub mod code;
mod compile;
mod cost;
mod emit;
pub mod encoding;
mod explain;
pub mod isa;
mod layout;
mod legal;
mod lower;
mod machine;
mod nest;
mod packing;
mod parts;
mod program;
mod residence;
pub mod rtl;
pub mod simulator;
pub mod timing;
mod touch;
mod trace;
mod tracker;

pub use lower::row_epilogue_fits;
pub use machine::SystolicMachine;
pub use program::SystolicProgram;

use tcc_ir::{Graph, Plan};
use tcc_passes::{KernelExplanation, Outline};

use crate::explanation::Explanation;
use crate::machine::{Machine, MachineError};
use crate::target::{Optimization, Program, Target, TargetError};

/// The target for one systolic machine.
pub struct Systolic {
    machine: Machine,
    facts: SystolicMachine,
}

impl Systolic {
    /// The target for a machine of this kind.
    pub fn new(machine: Machine) -> Result<Self, MachineError> {
        match machine.systolic.clone() {
            Some(facts) => Ok(Systolic { machine, facts }),
            None => Err(MachineError::MissingTable { file: machine.name, kind: "systolic" }),
        }
    }
}

impl Systolic {
    /// The kernels that a graph becomes on this machine.
    ///
    /// # Errors
    /// An operator has no definition in terms of what the machine computes, or a defect of the optimiser.
    pub fn plan(&self, graph: &Graph, optimization: Optimization) -> Result<Plan, TargetError> {
        compile::plan(graph, &self.facts, optimization)
    }

    /// Reads a program for this machine that was written by [`Program::encode`].
    ///
    /// # Errors
    /// The bytes are no program, or one that this machine cannot hold.
    pub fn program(&self, bytes: &[u8]) -> Result<SystolicProgram, TargetError> {
        SystolicProgram::decode(&self.machine, &self.facts, bytes)
    }

    /// [`Systolic::plan`] by an optimiser that explains itself, and for each distinct block why each of its kernels is as it
    /// is. Nothing is explained where nothing is searched.
    ///
    /// # Errors
    /// As [`Systolic::plan`].
    pub fn plan_explained(
        &self,
        graph: &Graph,
        optimization: Optimization,
    ) -> Result<(Plan, Vec<Vec<KernelExplanation>>), TargetError> {
        explain::plan(graph, &self.facts, optimization)
    }
}

impl Target for Systolic {
    fn machine(&self) -> &Machine {
        &self.machine
    }

    fn multiplies_floats(&self) -> bool {
        legal::multiplies_floats(&self.facts.array)
    }

    fn compile(&self, graph: &Graph, optimization: Optimization) -> Result<Box<dyn Program>, TargetError> {
        Ok(Box::new(compile::compile(&self.machine, &self.facts, graph, optimization)?.program))
    }

    fn compile_explained(
        &self,
        graph: &Graph,
        optimization: Optimization,
    ) -> Result<(Box<dyn Program>, Explanation), TargetError> {
        let compiled = compile::compile(&self.machine, &self.facts, graph, optimization)?;
        let explanation = explain::explain(graph, &self.facts, compiled.source)?;
        Ok((Box::new(compiled.program), explanation))
    }

    fn outline(&self, graph: &Graph, optimization: Optimization) -> Result<Outline, TargetError> {
        legal::check(&self.machine, &self.facts.array, graph)?;
        explain::outline(graph, &self.facts, optimization)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Box<dyn Program>, TargetError> {
        Ok(Box::new(self.program(bytes)?))
    }
}
