//! What a target answers to the optimiser.

use tcc_ir::{Cycles, Graph, Op, TensorType, ValueId};

use crate::assemble::Group;
use crate::legalize::Verdict;

/// What the optimiser must know of a target. All answers follow from the arguments alone.
pub trait CostModel {
    /// What is to become of an operator in the e-graph. What is kept may become part of kernels; of what is not, the
    /// definition is added beside it.
    fn judge(&self, graph: &Graph, op: &Op, inputs: &[ValueId]) -> Verdict;

    /// What a kernel takes in its fastest tiling, by the target's own reckoning, with what it reads but without what it
    /// writes; `None` if it cannot be run. Inputs of the graph stand for what the kernel reads from memory.
    fn kernel_cost(&self, graph: &Graph, group: &Group) -> Option<Cycles>;

    /// Whether a part of the columns of a value is read as well as all of them: only then are contractions of one value worth
    /// merging.
    fn reads_parts_of_rows(&self) -> bool {
        true
    }

    /// What it takes to write a value to memory.
    fn write_cost(&self, ty: &TensorType) -> Cycles;
}
