//! What a program consists of.

use tcc_ir::DType;

use crate::fpga::design::{Design, FunctionId, Home};
use crate::kernel::simulator::Place;
use crate::optimizer::Block;
use crate::target::Port;
use crate::weights::Weights;

/// All of a program but the machine that it is for.
#[derive(Debug)]
pub(in crate::fpga) struct Parts {
    /// Name of the model.
    pub model: String,
    /// What is built into the part.
    pub design: Design,
    /// What lies in memories.
    pub buffers: Vec<Buffer>,
    /// The inputs, and the buffers that hold them.
    pub inputs: Vec<(Port, u32)>,
    /// The outputs, and the buffers that hold them afterwards.
    pub outputs: Vec<(Port, u32)>,
    /// What is called, in order.
    pub calls: Vec<Call>,
    /// The kernels of the plan.
    pub groups: Vec<Group>,
    /// Bytes of the weights.
    pub weights_bytes: u64,
    /// Bytes of the memory for everything else, on the part and beside it.
    pub values_bytes: u64,
    /// What writes the weights; `None` in a program that was decoded.
    pub weights: Option<Weights>,
    /// What the optimiser did.
    pub blocks: Vec<Block>,
    /// The style that was not taken.
    pub other: Other,
}

/// How far a design of the style came that was not taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::fpga) struct Other {
    /// Cycles of the fastest that fits, if one does.
    pub cycles: Option<u64>,
    /// Why there is none, in words.
    pub why: String,
}

/// Elements in a memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::fpga) struct Buffer {
    /// What it is called in the model.
    pub name: String,
    /// How elements are stored.
    pub dtype: DType,
    /// How many there are.
    pub elements: u64,
    /// Which memory it lies in.
    pub home: Home,
    /// Where there: its first word in a memory on the part, or its first beat in each of its channels.
    pub at: u64,
    /// Where the simulator has it. What follows from constants is among the weights, wherever it lies: what of it lies on the part
    /// is brought there once, before the first inference.
    pub place: Place,
}

/// A call of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::fpga) struct Call {
    /// The function.
    pub function: FunctionId,
    /// The buffer that each parameter is.
    pub buffers: Vec<u32>,
    /// The kernel of the plan that it belongs to.
    pub group: u32,
}

/// What is told of a kernel of the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::fpga) struct Group {
    /// The name.
    pub name: String,
    /// The nodes of the user's model that it computes, in order.
    pub origins: Vec<String>,
    /// Multiply-accumulates.
    pub macs: u64,
    /// Whether they are of floats.
    pub is_float: bool,
    /// How its work is shared out, in words.
    pub tiling: String,
}
