//! What a target answers to the optimiser.

use tcc_ir::{Bytes, Cycles, Graph, Op, TensorType, ValueId};

use crate::assemble::Group;
use crate::legalize::Verdict;

/// One way to cut a kernel into tiles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// What the kernel takes so, by the target's own reckoning, with what it reads but without what it writes.
    pub cycles: Cycles,
    /// What it needs on chip.
    pub on_chip: Bytes,
}

/// What the optimiser must know of a target. All answers follow from the arguments alone.
pub trait CostModel {
    /// What is to become of an operator in the e-graph. What is kept may become part of kernels; of what is not, the
    /// definition is added beside it.
    fn judge(&self, graph: &Graph, op: &Op, inputs: &[ValueId]) -> Verdict;

    /// The ways to run a kernel, the Pareto-optimal ones in cycles and bytes; none if it cannot be run. Inputs of the
    /// graph stand for what the kernel reads from memory.
    fn tilings(&self, graph: &Graph, group: &Group) -> Vec<Tiling>;

    /// What it takes to write a value to memory.
    fn write_cost(&self, ty: &TensorType) -> Cycles;
}
