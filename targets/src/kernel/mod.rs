//! Kernels as targets write them: what every thread of a grid does, in a structured language that OpenCL C, CUDA C++ and C++ for
//! high-level synthesis can say.
//!
//! A kernel is flat: expressions refer to expressions before them, and statements that hold others end with
//! [`Stmt::End`]. So nothing about it is recursive, whoever has written it. [`Builder`] makes kernels, [`check`](check::check)
//! says whether one that was read can be run.

mod builder;
pub mod check;
mod expr;
pub(crate) mod host;
mod memory;
pub mod names;
mod region;
pub mod simulator;
mod spread;
mod stmt;
pub(crate) mod terms;
pub(crate) mod writer;

pub use builder::Builder;
pub use expr::{Expr, ExprId, IndexFn, Scalar};
pub use memory::{Accessed, Memory};
pub use region::{LINE, Region};
pub use spread::{SUMS, Spread};
pub use stmt::{Factor, Stmt};

use serde::{Deserialize, Serialize};
use tcc_ir::DType;

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
    /// A buffer among a kernel's parameters.
    BufferId,
    /// An array in shared memory.
    SharedId,
    /// A variable of each thread: one register, or an array of them.
    VarId,
}

/// What one kind of launch does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Kernel {
    /// An identifier, by which the code calls it.
    pub name: String,
    /// What it computes and how it is tiled, in lines for people.
    pub about: Vec<String>,
    /// Number of blocks along each axis.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Whether blocks follow each other, those along the first axis fastest, and find in shared memory what those before them have left
    /// there: as loops of hardware do, and not what processors do.
    pub in_turn: bool,
    /// Buffers in global memory.
    pub buffers: Vec<Buffer>,
    /// Arrays that the threads of a block share.
    pub shared: Vec<Shared>,
    /// Variables of each thread.
    pub vars: Vec<Var>,
    /// Expressions, operands before users.
    pub exprs: Vec<Expr>,
    /// Statements.
    pub body: Vec<Stmt>,
}

impl Kernel {
    /// Number of blocks.
    pub fn blocks(&self) -> u64 {
        self.grid.iter().map(|&blocks| u64::from(blocks)).product()
    }

    /// The same without names and words, which only tell people what it is.
    pub fn nameless(&self) -> Kernel {
        let mut kernel = Kernel { name: String::new(), about: Vec::new(), ..self.clone() };
        let buffers = kernel.buffers.iter_mut().map(|buffer| &mut buffer.name);
        let shared = kernel.shared.iter_mut().map(|shared| &mut shared.name);
        let vars = kernel.vars.iter_mut().map(|var| &mut var.name);
        buffers.chain(shared).chain(vars).for_each(String::clear);
        kernel
    }

    /// Whether a shared array is used where lanes of a warp of so many threads read each other's registers: reductions need it
    /// only across warps.
    pub fn needs_shared(&self, array: SharedId, warp: u32) -> bool {
        let reads = |expr: &Expr| matches!(*expr, Expr::LoadShared(own, _) if own == array);
        let uses = |stmt: &Stmt| match *stmt {
            Stmt::StoreShared(own, ..) | Stmt::Copy { shared: own, .. } => own == array,
            Stmt::Multiply { a, b, .. } => a.shared == array || b.shared == array,
            Stmt::Reduce { scratch, width, .. } => scratch == array && width > warp,
            Stmt::Arrive { scratch, .. } => scratch == array,
            _ => false,
        };
        self.exprs.iter().any(reads) || self.body.iter().any(uses)
    }

    /// Bytes of shared memory that a block takes where lanes of warps of so many threads read each other's registers.
    pub fn shared_bytes_with_shuffles(&self, warp: u32) -> u64 {
        let is_there =
            |array: usize| !self.threads.is_multiple_of(warp) || self.needs_shared(SharedId(array as u32), warp);
        let arrays = self.shared.iter().enumerate().filter(|&(array, _)| is_there(array));
        arrays.map(|(_, shared)| shared.bytes()).sum()
    }

    /// Where the kernel stands when its blocks arrive, if it has a [`Stmt::Arrive`]: the place of the statement, the buffer of its
    /// counters and its axis.
    pub fn arrival(&self) -> Option<Arrival> {
        self.body.iter().enumerate().find_map(|(place, stmt)| match *stmt {
            Stmt::Arrive { var, counters, axis, .. } => Some(Arrival { place, var, counters, axis: usize::from(axis) }),
            _ => None,
        })
    }

    /// Number of counters that blocks arrive by along an axis.
    pub fn counters(&self, axis: usize) -> u64 {
        self.blocks() / u64::from(self.grid[axis].max(1))
    }

    /// The number of the counter that a block arrives by along an axis: its place along the others, the first of them fastest.
    pub fn counter_of(&self, block: [u32; 3], axis: usize) -> u64 {
        let others = (0..3).rev().filter(|&other| other != axis);
        others.fold(0, |number, other| number * u64::from(self.grid[other]) + u64::from(block[other]))
    }

    /// Whether each buffer is both written and read: what blocks hand to the one that arrives last.
    pub fn handed_over(&self) -> Vec<bool> {
        let mut handed = vec![false; self.buffers.len()];
        let vectors = self.body.iter().filter_map(|stmt| match *stmt {
            Stmt::LoadVector { buffer, .. } => Some(buffer),
            _ => None,
        });
        let elements = self.exprs.iter().filter_map(|expr| match *expr {
            Expr::Load(buffer, _) => Some(buffer),
            _ => None,
        });
        for buffer in vectors.chain(elements) {
            if let (Some(handed), Some(Buffer { is_written: true, .. })) =
                (handed.get_mut(buffer.index()), self.buffers.get(buffer.index()))
            {
                *handed = true;
            }
        }
        handed
    }

    /// Bytes that a block takes of shared memory, with all arrays.
    pub fn shared_bytes(&self) -> u64 {
        self.shared.iter().map(Shared::bytes).sum()
    }
}

/// Where blocks of a kernel arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The place of the statement.
    pub place: usize,
    /// The variable that says which block is the last.
    pub var: VarId,
    /// The buffer of the counters.
    pub counters: BufferId,
    /// The axis of the grid along which blocks arrive.
    pub axis: usize,
}

/// A parameter: elements in global memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Buffer {
    /// An identifier.
    pub name: String,
    /// How elements are stored; those of four bits two to a byte.
    pub dtype: DType,
    /// How many there are.
    pub elements: u64,
    /// Whether the kernel writes it. It then reads it only in scopes of an `If` on the variable of a [`Stmt::Arrive`], where it no
    /// longer writes it, and only what blocks have written that arrived by the same counter.
    pub is_written: bool,
}

/// An array in shared memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shared {
    /// An identifier.
    pub name: String,
    /// How elements are stored.
    pub dtype: DType,
    /// How many there are.
    pub elements: u32,
}

impl Shared {
    /// Bytes that it takes, up to where the next array may begin.
    pub fn bytes(&self) -> u64 {
        (self.dtype.bytes(self.elements as usize) as u64).next_multiple_of(16)
    }
}

/// A variable.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Var {
    /// An identifier.
    pub name: String,
    /// What it holds.
    pub scalar: Scalar,
    /// How many elements, if it is an array; their indices are known when the kernel is compiled.
    pub array: Option<u32>,
    /// The type that an array's elements are held as, if they stay as they were loaded and are widened where they are used. Only
    /// vectors are loaded into such an array, each of which fills it.
    pub packed: Option<DType>,
}
