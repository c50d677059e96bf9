//! What is built into the part: functions, which are kernels whose buffers have homes, and the memories that they work on.
//!
//! A kernel's grid is loops around its body, the first axis innermost; its threads are lanes, hardware side by side. The innermost
//! loops that are not written out are pipelined. Elements of a memory lie in words of as many elements as it has banks, one in each
//! bank, so that lanes which want neighbours of one word have them in one cycle.

use std::fmt;

use serde::{Deserialize, Serialize};
use tcc_ir::DType;

use crate::kernel::Kernel;

macro_rules! ids {
    ($($(#[$doc:meta])* $Id:ident),* $(,)?) => {
        $($(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $Id(pub u32);

        impl $Id {
            /// The place in the list that it counts.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        })*
    };
}

ids! {
    /// A memory on the part, among those of a design.
    MemoryId,
    /// A function, among those of a design.
    FunctionId,
    /// A FIFO, among those of a design.
    FifoId,
}

/// Bytes of a word of an external channel: the widest that an AXI port of Vitis HLS has is 512 bits (UG1399).
pub const BEAT_BYTES: u64 = 64;

/// A design for one model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Design {
    /// How its functions work together.
    pub style: Style,
    /// Memories on the part.
    pub memories: Vec<OnChip>,
    /// FIFOs between functions that run at the same time.
    pub fifos: Vec<WordFifo>,
    /// Channels of external memory that it has ports to, from the first on.
    pub channels: u32,
    /// Functions.
    pub functions: Vec<Function>,
    /// What reads ahead from external memory, if anything does.
    pub loader: Option<Loader>,
    /// What adders of binary32 are built from.
    pub adders: Adders,
}

/// What adders of binary32 are built from, all of a design alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Adders {
    /// Look-up tables.
    #[default]
    Fabric,
    /// DSP slices, and fewer look-up tables.
    Slices,
}

impl Adders {
    /// All that there are.
    pub const ALL: [Adders; 2] = [Adders::Fabric, Adders::Slices];

    /// What Vitis HLS calls it (UG1399, `syn.op`).
    pub fn implementation(self) -> &'static str {
        match self {
            Adders::Fabric => "fabric",
            Adders::Slices => "fulldsp",
        }
    }
}

impl fmt::Display for Adders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Adders::Fabric => "look-up tables",
            Adders::Slices => "DSP slices",
        })
    }
}

/// Processes that run beside the functions, one for each of the first channels of external memory. Each reads what functions will want of
/// its channel, in the order in which they will, into FIFOs, as far ahead as there is room.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Loader {
    /// The channels, from the first on: beat `b` of a parameter comes through channel `b % channels`.
    pub channels: u32,
    /// The FIFOs of each channel.
    pub streams: Vec<Fifo>,
}

/// A FIFO of beats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fifo {
    /// Beats that it holds.
    pub depth: u64,
    /// What it is built from.
    pub storage: Storage,
}

/// How functions of a design work together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Style {
    /// A controller calls one after the other, so that they share operators and memories.
    #[default]
    Shared,
    /// Each call is a stage with hardware of its own. Stages run at the same time, and values go from one to the next through FIFOs and
    /// memories of which there are two.
    Streaming,
}

impl fmt::Display for Style {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Style::Shared => "shared",
            Style::Streaming => "streaming",
        })
    }
}

/// Words that one stage gives to another, which takes each once, in the same order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WordFifo {
    /// An identifier.
    pub name: String,
    /// How elements are stored.
    pub dtype: DType,
    /// Elements of a word.
    pub banks: u32,
    /// Words that go through it in an inference.
    pub words: u64,
    /// Words that it holds at most.
    pub depth: u64,
}

/// A memory on the part, which lives from one call to the next.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OnChip {
    /// An identifier.
    pub name: String,
    /// How elements are stored.
    pub dtype: DType,
    /// Elements of a word, one in each bank.
    pub banks: u32,
    /// Words.
    pub words: u64,
    /// What it is built from.
    pub storage: Storage,
}

/// What a memory is built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// Look-up tables.
    Lutram,
    /// Block RAM.
    Bram,
    /// UltraRAM.
    Uram,
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Storage::Lutram => "look-up tables",
            Storage::Bram => "block RAM",
            Storage::Uram => "UltraRAM",
        })
    }
}

/// Where a parameter of a function lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Home {
    /// In a memory on the part, from a word on that a call names.
    OnChip(MemoryId),
    /// In external memory, from a beat on that a call names: beat `b` of the parameter lies in channel `first + b % ways`.
    External {
        /// The first channel.
        first: u32,
        /// Channels that its beats take turns in.
        ways: u32,
    },
    /// In external memory, from where the loader brings it, each beat once, from the first to the last.
    Loaded {
        /// The FIFO of each of the loader's channels that it comes through.
        stream: u32,
    },
    /// In a FIFO, a word after the other.
    Fifo(FifoId),
}

/// A kernel whose parameters have homes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Function {
    /// What it does, with the largest grid and the largest buffers and arrays of all calls.
    pub kernel: Kernel,
    /// Where each of its buffers lies.
    pub homes: Vec<Home>,
    /// The least grid of all calls. Where it is not that of the kernel, each call says its own.
    pub least: [u32; 3],
}

impl Function {
    /// A function that all calls call with the same grid.
    pub fn new(kernel: Kernel, homes: Vec<Home>) -> Function {
        Function { least: kernel.grid, kernel, homes }
    }

    /// Has it go for a call of a kernel that is the same but for its sizes.
    pub fn stretch(&mut self, kernel: &Kernel) {
        for axis in 0..3 {
            self.least[axis] = self.least[axis].min(kernel.grid[axis]);
            self.kernel.grid[axis] = self.kernel.grid[axis].max(kernel.grid[axis]);
        }
        for (own, other) in self.kernel.buffers.iter_mut().zip(&kernel.buffers) {
            own.elements = own.elements.max(other.elements);
        }
        for (own, other) in self.kernel.shared.iter_mut().zip(&kernel.shared) {
            own.elements = own.elements.max(other.elements);
        }
    }

    /// Whether calls say how large their grid is.
    pub fn is_elastic(&self) -> bool {
        self.least != self.kernel.grid
    }
}
