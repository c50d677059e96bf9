//! What a program consists of.

use std::fmt;
use std::io::{self, Write};

use crate::lpu::isa::Queues;
use crate::lpu::layout::{Layout, Place};
use crate::lpu::marks::Mark;
use crate::lpu::simulator::Counts;
use crate::optimizer::Block;
use crate::target::Port;

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

/// What writes the vectors of all stretches, in their order.
pub(in crate::lpu) struct Weights(Box<WriteWeights>);

type WriteWeights = dyn Fn(&mut dyn Write) -> io::Result<()> + Send + Sync;

impl Weights {
    /// Weights that are written by a function.
    pub fn new(write: impl Fn(&mut dyn Write) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Weights(Box::new(write))
    }

    /// Writes them, which must be so many bytes.
    pub fn write(&self, bytes: u64, out: &mut dyn Write) -> io::Result<()> {
        let mut counted = Counted { out, bytes: 0 };
        (self.0)(&mut counted)?;
        if counted.bytes == bytes {
            return Ok(());
        }
        let written = counted.bytes;
        Err(io::Error::other(format!("the weights have {written} bytes and not {bytes}; please report this")))
    }
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Weights")
    }
}

/// Counts what is written.
struct Counted<'a> {
    out: &'a mut dyn Write,
    bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
