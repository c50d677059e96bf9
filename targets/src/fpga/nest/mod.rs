//! A function as hardware: loops of operations.
//!
//! [`Nest::new`] reads a kernel as statements that all lanes do in step, and makes of it a tree of loops, branches and straight
//! blocks of operations, each of which gives at most one value. `unroll` loops are written out, variables have become values,
//! branches without loops have become selections and predicates, what is computed twice is computed once, and what stays the same in
//! a loop is computed before it. [`Schedule`](super::schedule::Schedule) then says when each operation starts.
//!
//! Values of an operation: it has `copies` of them, one for the lanes `l` with `l / (lanes / copies)` equal to the copy's number: 1
//! copy is the same for all lanes, as many copies as lanes one for each. Where an operand has fewer copies than the operation, each
//! of its copies goes to several of the operation's. An operand never has more copies than the operation, except that of a
//! [`Kind::Fold`].

mod balance;
mod banks;
mod changes;
mod finish;
mod indices;
mod make;
mod pops;
mod slices;
mod values;
mod walk;

pub(in crate::fpga) use pops::depends_on_grid;

use std::collections::BTreeMap;

use tcc_ir::DType;
use tcc_ir::ops::{BinaryFn, UnaryFn};

use super::access::Pattern;
use super::design::{BEAT_BYTES, FifoId, MemoryId};
use super::widths::Range;
use crate::kernel::{IndexFn, Memory};
use crate::number::FoldFn;

macro_rules! ids {
    ($($(#[$doc:meta])* $Id:ident),* $(,)?) => {
        $($(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// An operation, among [`Nest::ops`]; also the value that it gives.
    OpId,
    /// A straight block, among [`Nest::blocks`].
    BlockId,
    /// A loop, among [`Nest::loops`].
    LoopId,
    /// What is accessed, among [`Nest::arrays`].
    ArrayId,
}

/// A function as loops of operations.
#[derive(Clone, Debug, PartialEq)]
pub struct Nest {
    /// Lanes.
    pub lanes: u32,
    /// What operations access: the kernel's buffers in their order, then its shared arrays in theirs.
    pub arrays: Vec<Array>,
    /// Operations, in the order in which they are there: operands before users, except the next value of a [`Carried`].
    pub ops: Vec<Op>,
    /// Straight blocks.
    pub blocks: Vec<Block>,
    /// Loops, those in a loop behind it.
    pub loops: Vec<Loop>,
    /// What is done, in order.
    pub body: Vec<Item>,
    /// What expressions of the kernel are, of integers, wherever they occur; nothing of those that occur nowhere.
    pub exprs: Vec<Option<Range>>,
    /// What variables of the kernel hold, in the same way; of an array all of its elements.
    pub vars: Vec<Option<Range>>,
    /// Products of integers and sums that DSP slices do together.
    pub slices: BTreeMap<OpId, InSlice>,
    /// Accesses to external memory that go through it evenly, and so can be asked for ahead, in bursts.
    pub streams: Vec<Stream>,
    /// What loops take from FIFOs of the loader.
    pub pops: Vec<Pop>,
    /// What operand 0 of accesses is a sum of: values, each times a number. What is known besides is in the access's pattern. Of a
    /// [`Stream`] it is that in any iteration.
    pub reached: BTreeMap<OpId, Vec<(OpId, i64)>>,
}

/// The part that an operation has in a DSP slice, which multiplies two numbers, of which the first may be a sum, and adds another to
/// their product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InSlice {
    /// It is the product, which nothing else needs.
    Product {
        /// Bits of the sum.
        sum: u32,
    },
    /// It is the factor that is a sum, which nothing but the product needs.
    Factor,
    /// It is the sum.
    Sum {
        /// The product.
        product: OpId,
    },
}

/// An access to external memory in a pipelined loop. Its operand 0 is where it goes in the first iteration, a value that is there
/// before the loop; in others it goes there plus what each counter of the loop adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The access.
    pub op: OpId,
    /// The loop.
    pub within: LoopId,
    /// What each counter of the loop adds when it grows by 1, in the unit of the access's operand 0 (words or elements).
    pub strides: Vec<i64>,
}

/// What each iteration of a pipelined loop takes from the loader: all of a parameter goes by in order. The iteration begins when it is
/// there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pop {
    /// The loop.
    pub within: LoopId,
    /// The parameter.
    pub array: ArrayId,
    /// The FIFO of each channel.
    pub stream: u32,
    /// Bits that an iteration takes: whole beats, which come from as many channels or several from each, or a part of one, which stays
    /// for the iterations that take the others.
    pub bits: u64,
    /// Channels of the loader.
    pub channels: u64,
}

impl Pop {
    /// Beats that each FIFO gives in an iteration, at most.
    pub fn rows(self) -> u64 {
        self.bits.div_ceil(BEAT_BYTES * 8 * self.channels.max(1)).max(1)
    }

    /// The iteration in which the first FIFO gives the beat of a number, both from 0 on.
    pub fn iteration_of(self, beat: u64) -> u64 {
        let before = u128::from(beat) * u128::from(self.channels.max(1)) * u128::from(BEAT_BYTES * 8);
        (before / u128::from(self.bits.max(1))) as u64
    }

    /// Beats that the first FIFO has given when so many iterations have begun.
    pub fn taken(self, iterations: u64) -> u64 {
        self.bits.saturating_mul(iterations).div_ceil(BEAT_BYTES * 8).div_ceil(self.channels.max(1))
    }
}

/// What is accessed: a parameter or a local memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array {
    /// Its name in the kernel.
    pub name: String,
    /// What it is in the kernel.
    pub memory: Memory,
    /// Where it lies.
    pub place: ArrayPlace,
    /// How elements are stored.
    pub dtype: DType,
    /// How many there are.
    pub elements: u64,
    /// Elements of a word: banks of a memory on the part, elements of a beat of external memory.
    pub banks: u32,
}

impl Array {
    /// Words that it has.
    pub fn words(&self) -> u64 {
        self.elements.div_ceil(u64::from(self.banks.max(1)))
    }
}

/// Where an array lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ArrayPlace {
    /// In a memory of the design. Arrays in the same memory share its ports.
    OnChip(MemoryId),
    /// In external memory; beat `b` lies in channel `first + b % ways`.
    External {
        /// The first channel.
        first: u32,
        /// Channels that beats take turns in.
        ways: u32,
    },
    /// In external memory; it comes in order through the loader's FIFOs of this number.
    Loaded {
        /// The FIFO of each channel.
        stream: u32,
        /// Channels of the loader.
        channels: u32,
    },
    /// In a FIFO, of which one word is read or written in a cycle, each once.
    Fifo(FifoId),
    /// In a memory of the function itself.
    Local,
}

/// What is done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Operations without branches.
    Block(BlockId),
    /// A loop.
    Loop(LoopId),
    /// One of two, by a value that is the same for all lanes. There are loops in them; branches without are predicated.
    Branch {
        /// The first is done where this is not 0.
        condition: OpId,
        /// What is done then.
        then: Vec<Item>,
        /// What is done otherwise.
        otherwise: Vec<Item>,
    },
}

/// Operations without branches, in an order in which operands come before users and accesses to one array stand as in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// The operations.
    pub ops: Vec<OpId>,
}

/// A loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loop {
    /// The names of its counters, outermost first.
    pub name: String,
    /// What it counts, the outermost first: several where perfectly nested loops are one. It is done once for each combination, the
    /// last counter changing fastest.
    pub counters: Vec<Counter>,
    /// Values that change from one iteration to the next.
    pub carried: Vec<Carried>,
    /// What an iteration does. That of a pipelined loop is one block.
    pub body: Vec<Item>,
    /// Whether iterations begin before the ones before them have ended.
    pub pipelined: bool,
}

impl Loop {
    /// Iterations: the product of those of its counters.
    pub fn trips(&self) -> u64 {
        self.counters.iter().map(|counter| counter.trips).product()
    }
}

/// A counter of a loop: from 0 up by 1. Where the kernel's counts otherwise, operations make that of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// The operation ([`Kind::Counter`]) that gives it, in no block: it is there when an iteration starts.
    pub op: OpId,
    /// How many values it has, at least 2.
    pub trips: u64,
    /// The axis of the grid that it counts, if it does.
    pub axis: Option<u8>,
    /// How many values it has in the call in which it has fewest: fewer only along an axis.
    pub least: u64,
}

/// A value that changes from one iteration to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// The operation ([`Kind::Carried`]) that gives it, in no block.
    pub op: OpId,
    /// What it is in the first iteration.
    pub initial: OpId,
    /// What it is in the next.
    pub next: OpId,
}

/// What an operation gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Form {
    /// An integer of so many bits, which is all that is needed for the values that it takes.
    Integer {
        /// Bits, 1 to 64. With a sign, that is one of them.
        bits: u8,
        /// Whether it is in two's complement.
        signed: bool,
    },
    /// binary32.
    Single,
    /// binary64.
    Double,
}

impl Form {
    /// Bits of one copy.
    pub fn bits(self) -> u32 {
        match self {
            Form::Integer { bits, .. } => u32::from(bits),
            Form::Single => 32,
            Form::Double => 64,
        }
    }
}

/// An operation: what gives one value, or writes memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Op {
    /// What it does.
    pub kind: Kind,
    /// What its value is; of a store, what is written.
    pub form: Form,
    /// How many values it gives, or accesses it makes. It divides the number of lanes.
    pub copies: u32,
    /// What it is computed from.
    pub operands: Vec<OpId>,
    /// Of an access: it is made only where this is not 0.
    pub predicate: Option<OpId>,
    /// The innermost loop that it is in.
    pub within: Option<LoopId>,
}

/// What an operation does. Numbers of operands in brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// (0) A number for each copy: of an integer its value, of a float the bits of its form. In no block.
    Constant(Vec<u64>),
    /// (0) A counter of a loop. In no block.
    Counter(LoopId),
    /// (0) What a loop carries: what it is in an iteration, while that lasts. In no block.
    Carried(LoopId),
    /// (1: what is carried) What a loop that has ended has left: what would be carried to the next iteration. In no block.
    Left(LoopId),
    /// (2) Arithmetic of indices, which never leaves 32 bits.
    Index(IndexFn),
    /// (1) A function of elements of a type, as [`Expr::Unary`](crate::kernel::Expr::Unary).
    Unary(UnaryFn, DType),
    /// (2) A function of elements of a type, as [`Expr::Binary`](crate::kernel::Expr::Binary).
    Binary(BinaryFn, DType),
    /// (3) a b + c of floats, rounded once.
    MulAdd(DType),
    /// (3) The second where the first is not 0, else the third.
    Select,
    /// (1) A cast, as [`Expr::Convert`](crate::kernel::Expr::Convert).
    Convert(DType, DType),
    /// (1) What so many neighbouring lanes combine to, by a tree: first lanes that are half of them apart, then a quarter, to
    /// neighbours at last. The value has one copy for so many lanes.
    Fold {
        /// How two are combined.
        function: FoldFn,
        /// The type of what is combined.
        dtype: DType,
        /// Lanes that combine, a power of two. The operand has a copy for each lane.
        width: u32,
    },
    /// (1: where) Reads an array.
    Load(ArrayId, Pattern),
    /// (2: where, what) Writes an array.
    Store(ArrayId, Pattern),
}
