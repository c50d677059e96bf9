//! From graphs to programs. Nothing compiles for the LPU yet.

use tcc_ir::Graph;

use super::LpuMachine;
use crate::machine::Machine;
use crate::target::{Optimization, Program, TargetError};

/// Compiles a cleaned-up graph.
///
/// # Errors
/// Always.
pub(super) fn compile(
    machine: &Machine,
    _: &LpuMachine,
    graph: &Graph,
    _: Optimization,
) -> Result<Box<dyn Program>, TargetError> {
    Err(unsupported(machine, graph))
}

/// That the machine has no compiler.
pub(super) fn unsupported(machine: &Machine, graph: &Graph) -> TargetError {
    TargetError::Unsupported {
        origin: graph.nodes().next().map(|(_, node)| node.origin.to_string()).unwrap_or_default(),
        machine: machine.name.clone(),
        reason: "nothing compiles for LPUs yet; choose a machine of another kind, see `tcc machines`".to_owned(),
    }
}
