//! GPUs: multiprocessors that run many threads in step, warp by warp.
//!
//! A plan becomes launches (`lower`) of kernels (`kernel`), which are written as OpenCL C (`writer`) and executed for what they
//! compute (`simulator`) and how long
//! they take (`timing`).

mod compile;
mod cost;
mod legal;
mod lower;
mod machine;
mod program;
pub mod timing;
mod writer;

pub use machine::{ComputeCapability, SimtMachine};
pub use program::SimtProgram;

use cost::SimtCosts;

use tcc_ir::{Graph, Plan};
use tcc_passes::Outline;

use crate::explanation::Explanation;
use crate::lower::plan::{Planned, plan};
use crate::machine::{Machine, MachineError};
use crate::optimizer::extraction;
use crate::target::{Optimization, Program, Target, TargetError};

/// The target for one GPU.
pub struct Simt {
    machine: Machine,
    facts: SimtMachine,
}

impl Simt {
    /// The target for a machine of this kind.
    ///
    /// # Errors
    /// The machine is of another kind.
    pub fn new(machine: Machine) -> Result<Self, MachineError> {
        match machine.simt.clone() {
            Some(facts) => Ok(Simt { machine, facts }),
            None => Err(MachineError::MissingTable { file: machine.name, kind: "simt" }),
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
        let costs = SimtCosts::new(&self.facts, self.machine.clock_hz);
        plan(graph, (extraction(optimization), explained), &costs, &legal::judge_fused(&self.facts))
    }
}

impl Target for Simt {
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
        let program = compile::compile(&self.machine, &self.facts, planned)?;
        Ok((Box::new(program), explanation))
    }

    fn outline(&self, graph: &Graph, optimization: Optimization) -> Result<Outline, TargetError> {
        Ok(self.planned(graph, optimization, false)?.outline)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Box<dyn Program>, TargetError> {
        Ok(Box::new(SimtProgram::decode(&self.machine, &self.facts, bytes)?))
    }
}
