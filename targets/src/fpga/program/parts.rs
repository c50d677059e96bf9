//! What a program consists of.

use tcc_ir::DType;

use crate::fpga::design::{BEAT_BYTES, Design, FunctionId, Home};
use crate::kernel::Kernel;
use crate::kernel::simulator::{Place, buffer_bytes};
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
    /// What the loader reads, in order.
    pub loads: Vec<Load>,
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

impl Parts {
    /// Rows of a buffer that is loaded: beats in the first of the loader's channels.
    pub fn rows(&self, buffer: u32) -> u64 {
        let channels = self.design.loader.as_ref().map_or(1, |loader| u64::from(loader.channels));
        self.buffers[buffer as usize].rows(channels)
    }

    /// The kernel of a function as a call has it: with its grid, and arrays as large as that wants.
    pub fn kernel_of(&self, call: &Call) -> Kernel {
        let mut kernel = self.design.functions[call.function.index()].kernel.clone();
        kernel.grid = call.grid;
        for (own, &buffer) in kernel.buffers.iter_mut().zip(&call.buffers) {
            own.elements = self.buffers[buffer as usize].elements;
        }
        kernel
    }
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
    /// Where there: its first word in a memory on the part, or its first beat in each of its channels. What is loaded lies where
    /// [`Load`]s say.
    pub at: u64,
    /// Where the simulator has it. What follows from constants is among the weights, wherever it lies: what of it lies on the part
    /// is brought there once, before the first inference.
    pub place: Place,
}

impl Buffer {
    /// Beats of it in the first of so many channels that take turns.
    pub fn rows(&self, channels: u64) -> u64 {
        buffer_bytes(self.dtype, self.elements).div_ceil(BEAT_BYTES).div_ceil(channels.max(1)).max(1)
    }
}

/// A call of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::fpga) struct Call {
    /// The function.
    pub function: FunctionId,
    /// The buffer that each parameter is.
    pub buffers: Vec<u32>,
    /// The grid: that of the function, unless that leaves it to calls.
    pub grid: [u32; 3],
    /// The kernel of the plan that it belongs to.
    pub group: u32,
}

impl Call {
    /// Words that the controller reads of it beside the function's number: where parameters begin that lie somewhere, and the grid
    /// where calls say it.
    pub fn words(&self, design: &Design) -> u64 {
        let Some(function) = design.functions.get(self.function.index()) else { return 0 };
        let homes = function.homes.iter().filter(|home| !matches!(home, Home::Loaded { .. }));
        homes.count() as u64 + if function.is_elastic() { 3 } else { 0 }
    }
}

/// What the loader reads of a buffer at a time: rows, each of which is a beat of every channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fpga) struct Load {
    /// The buffer.
    pub buffer: u32,
    /// The first row, of the buffer's.
    pub first: u64,
    /// How many.
    pub rows: u64,
    /// Where the first lies in each channel.
    pub at: u64,
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
