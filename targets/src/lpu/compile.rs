//! From graphs to programs. Nothing compiles for the LPU yet.

use tcc_ir::Graph;

use super::LpuMachine;
use crate::machine::Machine;
use crate::target::{Optimization, TargetError};

/// Whatever a graph could become.
///
/// # Errors
/// Always.
pub(super) fn compile<T>(machine: &Machine, _: &LpuMachine, graph: &Graph, _: Optimization) -> Result<T, TargetError> {
    Err(TargetError::Unsupported {
        origin: graph.nodes().next().map(|(_, node)| node.origin.to_string()).unwrap_or_default(),
        machine: machine.name.clone(),
        reason: "nothing compiles for LPUs yet; choose a machine of another kind, see `tcc machines`".to_owned(),
    })
}
