//! LPUs: statically scheduled dataflow chips after Groq's Tensor Streaming Processor. Functional units stand in a row, and
//! vectors move past them on streams, one position in each cycle; what every unit does in which cycle is in the program.
//!
//! A program has a queue of instructions (`isa`) for each unit of the machine (`machine`). It is encoded (`encoding`), can be
//! read (`assembly`) and checked before it runs (`check`); when it dispatches what follows from it alone (`timeline`). The
//! simulator executes the queues cycle by cycle, and refuses what the machine could not do.

#[cfg(test)]
mod arbitrary;
pub mod assembly;
pub mod check;
pub mod compile;
mod constants;
pub mod emit;
pub mod encoding;
pub mod isa;
pub mod layout;
mod legal;
mod lower;
mod machine;
mod memory;
pub mod rtl;
mod schedule;
pub mod simulator;
pub mod timeline;

pub use machine::{EnergyCosts, LpuMachine};

use tcc_ir::Graph;
use tcc_passes::Outline;

use crate::explanation::Explanation;
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
}

impl Target for Lpu {
    fn machine(&self) -> &Machine {
        &self.machine
    }

    fn multiplies_floats(&self) -> bool {
        true
    }

    fn compile(&self, graph: &Graph, optimization: Optimization) -> Result<Box<dyn Program>, TargetError> {
        compile::compile(&self.machine, &self.facts, graph, optimization)
    }

    fn compile_explained(
        &self,
        graph: &Graph,
        _: Optimization,
    ) -> Result<(Box<dyn Program>, Explanation), TargetError> {
        Err(compile::unsupported(&self.machine, graph))
    }

    fn outline(&self, graph: &Graph, _: Optimization) -> Result<Outline, TargetError> {
        Err(compile::unsupported(&self.machine, graph))
    }

    fn decode(&self, _: &[u8]) -> Result<Box<dyn Program>, TargetError> {
        Err(TargetError::Damaged("it is for a kind of machine that nothing compiles for".to_owned()))
    }
}
