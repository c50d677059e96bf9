//! What a program consists of.

use tcc_ir::DType;

use crate::kernel::Kernel;
use crate::kernel::simulator::Place;
use crate::optimizer::Block;
use crate::target::Port;
use crate::weights::Weights;

/// All of a program but the machine that it is for.
#[derive(Debug)]
pub(in crate::simt) struct Parts {
    /// Name of the model.
    pub model: String,
    /// What lies in global memory.
    pub buffers: Vec<Buffer>,
    /// The inputs, and the buffers that hold them.
    pub inputs: Vec<(Port, u32)>,
    /// The outputs, and the buffers that hold them afterwards.
    pub outputs: Vec<(Port, u32)>,
    /// Kernels.
    pub kernels: Vec<Kernel>,
    /// What is launched, in order.
    pub launches: Vec<Launch>,
    /// The kernels of the plan.
    pub groups: Vec<Group>,
    /// Bytes of the weights.
    pub weights_bytes: u64,
    /// Bytes of the memory for everything else.
    pub values_bytes: u64,
    /// What writes the weights; `None` in a program that was decoded.
    pub weights: Option<Weights>,
    /// What the optimiser did.
    pub blocks: Vec<Block>,
    /// Nodes left to the host.
    pub host_ops: Vec<String>,
}

impl Parts {
    /// The buffers whose elements launches count by, which are 0 before the first.
    pub fn counters(&self) -> impl Iterator<Item = u32> + '_ {
        self.launches.iter().filter_map(|launch| {
            let arrival = self.kernels.get(launch.kernel as usize)?.arrival()?;
            launch.buffers.get(arrival.counters.index()).copied()
        })
    }
}

/// Elements in global memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::simt) struct Buffer {
    /// What it is called in the model.
    pub name: String,
    /// How elements are stored.
    pub dtype: DType,
    /// How many there are.
    pub elements: u64,
    /// Where it lies.
    pub place: Place,
}

/// A launch of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::simt) struct Launch {
    /// The kernel's number.
    pub kernel: u32,
    /// The buffer that each parameter is.
    pub buffers: Vec<u32>,
    /// The kernel of the plan that it belongs to.
    pub group: u32,
}

/// What is told of a kernel of the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::simt) struct Group {
    /// The name.
    pub name: String,
    /// The nodes of the user's model that it computes, in order.
    pub origins: Vec<String>,
    /// Multiply-accumulates.
    pub macs: u64,
    /// How its work is shared out, in words.
    pub tiling: String,
}
