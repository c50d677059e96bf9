//! FPGAs: parts whose circuits are made for one model, through high-level synthesis.
//!
//! A plan becomes calls of functions (`lower`), kernels whose lanes are hardware side by side, whose loops are pipelined and whose
//! buffers lie in memories on the part or beside it (`place`, `design`). A controller calls one after the other, or each call is a
//! stage with hardware of its own and all run at the same time (`streaming`): whichever is faster (`search`).

pub mod access;
mod compile;
mod cost;
pub mod design;
mod legal;
mod lower;
mod machine;
pub mod memories;
pub mod nest;
pub mod operators;
mod padding;
mod place;
mod program;
pub mod resources;
pub mod rtl;
pub mod schedule;
mod search;
mod streaming;
pub mod widths;
mod writer;

pub use machine::{ExternalMemory, FpgaMachine, Usable};
pub use program::FpgaProgram;

use tcc_ir::{Graph, Plan};
use tcc_passes::Outline;

use cost::FpgaCosts;

use crate::explanation::Explanation;
use crate::lower::plan::{Planned, plan};
use crate::machine::{Machine, MachineError};
use crate::optimizer::extraction_of;
use crate::target::{Optimization, Program, Target, TargetError};

/// Most states that exact extraction reaches for one block: calls cost little, so that many ways to share work out are alike.
const STATES: usize = 50_000;

/// The target for one FPGA.
pub struct Fpga {
    machine: Machine,
    facts: FpgaMachine,
}

impl Fpga {
    /// The target for a machine of this kind.
    ///
    /// # Errors
    /// The machine is of another kind.
    pub fn new(machine: Machine) -> Result<Self, MachineError> {
        match machine.fpga.clone() {
            Some(facts) => Ok(Fpga { machine, facts }),
            None => Err(MachineError::MissingTable { file: machine.name, kind: "fpga" }),
        }
    }

    /// The plan that a cleaned-up graph is lowered by.
    ///
    /// # Errors
    /// The machine has no way to compute an operator.
    pub fn plan(&self, graph: &Graph, optimization: Optimization) -> Result<Plan, TargetError> {
        Ok(self.planned(graph, optimization, false)?.plan)
    }

    fn planned(&self, graph: &Graph, optimization: Optimization, explained: bool) -> Result<Planned, TargetError> {
        let costs = FpgaCosts::new(&self.facts, self.machine.clock_hz);
        let graph = padding::with_whole_tiles(graph)?;
        plan(&graph, (extraction_of(optimization, STATES), explained), &costs, &legal::judge_fused)
    }
}

impl Target for Fpga {
    fn machine(&self) -> &Machine {
        &self.machine
    }

    fn multiplies_floats(&self) -> bool {
        true
    }

    fn compile(&self, graph: &Graph, optimization: Optimization) -> Result<Box<dyn Program>, TargetError> {
        let planned = self.planned(graph, optimization, false)?;
        Ok(Box::new(compile::compile(&self.machine, &self.facts, planned)?))
    }

    fn compile_explained(
        &self,
        graph: &Graph,
        optimization: Optimization,
    ) -> Result<(Box<dyn Program>, Explanation), TargetError> {
        let mut planned = self.planned(graph, optimization, true)?;
        let explanation = planned.explanation(optimization);
        Ok((Box::new(compile::compile(&self.machine, &self.facts, planned)?), explanation))
    }

    fn outline(&self, graph: &Graph, optimization: Optimization) -> Result<Outline, TargetError> {
        Ok(self.planned(graph, optimization, false)?.outline)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Box<dyn Program>, TargetError> {
        Ok(Box::new(FpgaProgram::decode(&self.machine, &self.facts, bytes)?))
    }
}
