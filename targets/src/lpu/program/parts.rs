//! What a program consists of.

use crate::lpu::isa::Queues;
use crate::lpu::layout::{Layout, Place};
use crate::lpu::marks::Mark;
use crate::lpu::simulator::Counts;
use crate::optimizer::Block;
use crate::target::Port;
use crate::weights::Weights;

/// All of a program but the machine that it is for.
#[derive(Debug)]
pub(in crate::lpu) struct Parts {
    /// Name of the model.
    pub model: String,
    /// The inputs, and where they lie before the first cycle.
    pub inputs: Vec<(Port, Layout)>,
    /// The outputs, and where they lie after the last.
    pub outputs: Vec<(Port, Layout)>,
    /// The instructions.
    pub queues: Queues,
    /// For each queue, whose its instructions are; of programs without kernels, nothing for any.
    pub marks: Vec<Vec<Mark>>,
    /// The kernels, in order.
    pub kernels: Vec<KernelPart>,
    /// Where the vectors of `weights.bin` go, in their order.
    pub stretches: Vec<Stretch>,
    /// What writes them; `None` in a program that was decoded.
    pub weights: Option<Weights>,
    /// How much of everything one run does.
    pub counts: Counts,
    /// What the optimiser did.
    pub blocks: Vec<Block>,
    /// Cycles that the model's products take at the least.
    pub work_cycles: u64,
    /// Columns of weights that must come to the planes at the least.
    pub weight_vectors_multiplied: u64,
    /// Most vectors of memory in use at a time.
    pub used_vectors: u64,
    /// Whether large tables of wider floats are kept as halves.
    pub rounded_tables: bool,
    /// Whether, since memory was short, what products and norms hand to each other is kept as halves.
    pub frugal: bool,
    /// Nodes left to the host.
    pub host_ops: Vec<String>,
}

/// What is told of a kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::lpu) struct KernelPart {
    /// The name.
    pub name: String,
    /// The nodes of the user's model that it computes, in order.
    pub origins: Vec<String>,
    /// Multiply-accumulates.
    pub macs: u64,
    /// How its loops are cut, in words.
    pub tiling: String,
}

/// Vectors of `weights.bin` that lie behind each other in a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lpu) struct Stretch {
    /// Where the first lies.
    pub place: Place,
    /// How many there are.
    pub vectors: u32,
}
