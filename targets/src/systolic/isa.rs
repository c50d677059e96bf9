//! The instruction set of the systolic machine.
//!
//! A program is one stream of instructions, written as calls of routines ([`Code`](super::code::Code)). A sequencer hands
//! each instruction, in order, to the queue of its [`Unit`]; every unit executes its own queue in order, and the units run
//! side by side. What orders them against each other is in the instructions: each may name, for every unit, how many of
//! that unit's most recently dispatched instructions it need *not* wait for ([`Waits`]). Distances instead of absolute
//! numbers, and addresses in DRAM that count from base registers, keep a routine valid wherever it is called.
//!
//! All addresses are in bytes, all sizes in elements, all strides in bytes.

use std::borrow::Cow;
use std::fmt;

use smallvec::SmallVec;
use tcc_ir::DType;
use tcc_ir::ops::{BinaryFn, ScatterReduction, UnaryFn};

pub use crate::number::FoldFn;

/// The units that execute instructions, each with a queue of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// DMA from DRAM to the scratchpad.
    Load,
    /// DMA from the scratchpad to DRAM.
    Store,
    /// Shifts the next weights into the array's shadow registers.
    Preload,
    /// The array: multiplies with the weights that were preloaded, or keeps sums of outer products.
    Array,
    /// The vector unit, with the scalar unit for 64-bit types beside it.
    Vector,
}

impl Unit {
    /// All units, in the order of their numbers.
    pub const ALL: [Unit; 5] = [Unit::Load, Unit::Store, Unit::Preload, Unit::Array, Unit::Vector];

    /// Number of units.
    pub const COUNT: usize = Unit::ALL.len();

    /// The unit's number, for arrays indexed by unit.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name in assembly and traces.
    pub const fn name(self) -> &'static str {
        match self {
            Unit::Load => "load",
            Unit::Store => "store",
            Unit::Preload => "preload",
            Unit::Array => "array",
            Unit::Vector => "vector",
        }
    }
}

/// What an instruction waits for before it starts: for each unit, all instructions dispatched to it before this one have
/// completed, save the last `lag` of them; `None` does not wait for that unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Waits(pub [Option<u16>; Unit::COUNT]);

/// An instruction and what it waits for.
#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    /// What must have completed before.
    pub waits: Waits,
    /// What is done.
    pub op: Operation,
}

/// An on-chip memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Memory {
    /// The scratchpad, addressed in bytes.
    Scratchpad,
    /// The accumulators: rows of as many 32-bit words as the array has columns, addressed in bytes, row after row.
    Accumulators,
}

impl Memory {
    /// All memories, in the order of their numbers.
    pub const ALL: [Memory; 2] = [Memory::Scratchpad, Memory::Accumulators];
}

/// Most dimensions of a loop nest.
pub const MAX_DIMS: usize = 8;

/// One dimension of a DMA transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DmaDim {
    /// Number of steps.
    pub size: u32,
    /// Distance between steps in DRAM.
    pub dram_stride: i64,
    /// Distance between steps in the scratchpad.
    pub scratchpad_stride: i32,
}

/// A base register of the sequencer, which a call sets. Register 0 is always zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Register(pub u8);

impl Register {
    /// The register that is always zero: what counts from it is an absolute address.
    pub const ZERO: Register = Register(0);

    /// What the register holds in a call with these bases, which are those of the registers from 1 on. Registers that a
    /// call does not set are zero.
    pub fn value(self, bases: &[u64]) -> u64 {
        usize::from(self.0).checked_sub(1).and_then(|index| bases.get(index)).copied().unwrap_or(0)
    }
}

/// An address in DRAM: so many bytes from where a base register points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DramAddress {
    /// The base register.
    pub register: Register,
    /// Distance from there; it wraps around.
    pub offset: u64,
}

impl DramAddress {
    /// An absolute address.
    pub const fn absolute(address: u64) -> Self {
        DramAddress { register: Register::ZERO, offset: address }
    }

    /// The address so many bytes further.
    pub fn plus(self, bytes: i64) -> Self {
        DramAddress { offset: self.offset.wrapping_add_signed(bytes), ..self }
    }

    /// The absolute address in a call with these bases.
    pub fn resolve(self, bases: &[u64]) -> u64 {
        self.register.value(bases).wrapping_add(self.offset)
    }
}

impl fmt::Display for DramAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.register {
            Register::ZERO => write!(f, "{:#x}", self.offset),
            Register(number) => write!(f, "r{number}+{:#x}", self.offset),
        }
    }
}

/// A strided copy between DRAM and the scratchpad, outermost dimension first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Transfer {
    /// Address in DRAM of the first element.
    pub dram: DramAddress,
    /// Address in the scratchpad of the first element.
    pub scratchpad: u32,
    /// Bytes of one element; four-bit elements move in pairs, as one byte.
    pub element_bytes: u8,
    /// The loop nest; no dimensions for a single element.
    pub dims: SmallVec<[DmaDim; 4]>,
}

/// Rows of a table in DRAM, named by indices in the scratchpad. For each of `outer` tables and each index in turn, one
/// row moves; in the scratchpad rows follow each other densely.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RowTransfer {
    /// Address in DRAM of the first table.
    pub dram: DramAddress,
    /// Address in the scratchpad of the first row.
    pub scratchpad: u32,
    /// Bytes of a row.
    pub row_bytes: u32,
    /// Distance in DRAM between rows of a table.
    pub row_stride: u64,
    /// Number of rows in a table; an index outside `-rows..rows` stops the machine with a fault.
    pub rows: u64,
    /// Number of tables.
    pub outer: u32,
    /// Distance in DRAM between tables.
    pub outer_stride: u64,
    /// Address in the scratchpad of the indices, densely stored.
    pub indices: u32,
    /// Type of the indices: i32 or i64. Negative ones count from the end.
    pub index_dtype: DType,
    /// Number of indices.
    pub count: u32,
}

/// The part of the array that weights take: its rows are used as so many groups, each a product of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WeightRows {
    /// Groups.
    pub groups: u16,
    /// Rows of each group that are used.
    pub k: u16,
}

impl Default for WeightRows {
    /// No rows of an array that is not divided.
    fn default() -> Self {
        WeightRows { groups: 1, k: 0 }
    }
}

/// Weights for the array: element `(k, n)` of group `g` lies at `address + g·group_stride + k·k_stride + n·n_stride` in the
/// scratchpad.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Preload {
    /// Address in the scratchpad of element (0, 0) of group 0.
    pub address: u32,
    /// Element type; floats are rounded to bf16 on the way in, integers enter as 9-bit numbers less the zero point.
    pub dtype: DType,
    /// Groups that the rows of the array are used as, a power of two: each of them has as many of the array's blocks, and
    /// its sums leave below the last of these.
    pub groups: u16,
    /// Distance between groups.
    pub group_stride: i32,
    /// Rows of each group that are used.
    pub k: u16,
    /// Columns of the array that are used.
    pub n: u16,
    /// Distance between rows.
    pub k_stride: i32,
    /// Distance between columns.
    pub n_stride: i32,
    /// Address in the scratchpad of the zero point, of the same type as the weights. `None` for floats and zero.
    pub zero_point: Option<u32>,
}

impl Preload {
    /// The part of the array that the weights take.
    pub fn rows(&self) -> WeightRows {
        WeightRows { groups: self.groups, k: self.k }
    }
}

/// One pass through the array: for each group `g` of the weights in use and each of `m` rows,
/// `accumulators[accumulator_row + g·group_rows + row, 0..n] (+)= A[g, row, 0..k] · W[g]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Multiply {
    /// Address in the scratchpad of A's first element, in group 0.
    pub address: u32,
    /// Element type of A; converted like weights.
    pub dtype: DType,
    /// Distance between the rows that enter at the same time, one for each group of the weights in use; 0 for the same row.
    pub group_stride: i32,
    /// Rows that pass through the array.
    pub m: u32,
    /// Distance between rows of A.
    pub m_stride: i32,
    /// Distance between neighbours in a row of A.
    pub k_stride: i32,
    /// Address in the scratchpad of A's zero point, of A's type.
    pub zero_point: Option<u32>,
    /// First accumulator row of group 0.
    pub accumulator_row: u32,
    /// Accumulator rows from one group to the next: at least `m`, so that no two write the same, where there are several.
    pub group_rows: u32,
    /// Add to the accumulators instead of overwriting them.
    pub accumulate: bool,
    /// Switch to the weights preloaded last before starting; else go on with the weights of the pass before.
    pub switch_weights: bool,
}

/// One pass of outer products, in which the sums stay in the array: `accumulators[accumulator_row + row, 0..n] (+)=
/// A[row, 0..k] · B[0..k, 0..n]` for `m` rows. In each of `k` steps a column of A and a row of B enter; afterwards the sums
/// move out of the array while the next pass is at work. Weights in the array are not touched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outer {
    /// Rows of the array that are used.
    pub m: u16,
    /// Columns of the array that are used.
    pub n: u16,
    /// Steps.
    pub k: u32,
    /// A in the scratchpad, walked over rows and steps; converted like weights.
    pub a: Walk,
    /// B in the scratchpad, walked over steps and columns; converted like weights.
    pub b: Walk,
    /// Address in the scratchpad of A's zero point, of A's type. `None` for floats and zero.
    pub a_zero_point: Option<u32>,
    /// Address in the scratchpad of B's zero point, of B's type. `None` for floats and zero.
    pub b_zero_point: Option<u32>,
    /// First accumulator row.
    pub accumulator_row: u32,
    /// Add to the accumulators instead of overwriting them.
    pub accumulate: bool,
}

impl Outer {
    /// The nest that A is walked over.
    pub fn a_dims(&self) -> [u32; 2] {
        [u32::from(self.m), self.k]
    }

    /// The nest that B is walked over.
    pub fn b_dims(&self) -> [u32; 2] {
        [self.k, u32::from(self.n)]
    }
}

/// An operand of a vector instruction: a strided walk through an on-chip memory, or one number.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// Elements of a memory; one stride for each dimension of the nest.
    Walk(Walk),
    /// The same floating-point number everywhere.
    Float(f64),
    /// The same integer or truth value everywhere.
    Integer(i64),
}

/// A strided walk through an on-chip memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Walk {
    /// The memory.
    pub memory: Memory,
    /// Address of the first element.
    pub address: u32,
    /// Element type.
    pub dtype: DType,
    /// Distance between steps of each dimension of the nest. 0 repeats an element.
    pub strides: SmallVec<[i32; 4]>,
}

/// What a [`Map`] does to each element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MapFn {
    /// Copies, converting to the destination's type as [`tcc_ir::ops::Cast`] does.
    Copy,
    /// A function of one operand.
    Unary(UnaryFn),
    /// A function of two operands.
    Binary(BinaryFn),
    /// Operand 1 where operand 0 is true, else operand 2.
    Select,
}

impl MapFn {
    /// Number of operands.
    pub fn operands(self) -> usize {
        match self {
            MapFn::Copy | MapFn::Unary(_) => 1,
            MapFn::Binary(_) => 2,
            MapFn::Select => 3,
        }
    }
}

/// An element-wise vector instruction. It computes in the number class of its first value operand (operand 1 of a
/// select), then converts to the destination's type.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// The function.
    pub function: MapFn,
    /// The loop nest, outermost dimension first; none for a single element.
    pub dims: SmallVec<[u32; 4]>,
    /// Where results go; no two steps of the nest to the same place.
    pub destination: Walk,
    /// The operands.
    pub sources: SmallVec<[Source; 2]>,
}

/// A reduction: the destination has stride 0 along the reduced dimensions, which are the innermost `reduced` ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Fold {
    /// How elements are combined.
    pub function: FoldFn,
    /// The loop nest, outermost dimension first.
    pub dims: SmallVec<[u32; 4]>,
    /// Number of innermost dimensions that are folded away.
    pub reduced: u8,
    /// Start from what the destination holds instead of from the neutral element.
    pub accumulate: bool,
    /// Where results go.
    pub destination: Walk,
    /// The operands: one, or two for [`FoldFn::Dot`].
    pub sources: SmallVec<[Source; 2]>,
}

/// Running sums of rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Scan {
    /// The loop nest; sums run along the innermost dimension.
    pub dims: SmallVec<[u32; 4]>,
    /// Leave out the element at the position itself.
    pub exclusive: bool,
    /// Where results go.
    pub destination: Walk,
    /// The operand. A sum from the end walks backwards, with a negative stride.
    pub source: Walk,
}

/// The greatest or least elements of rows, in order, with their positions.
#[derive(Clone, Debug, PartialEq)]
pub struct Sort {
    /// The loop nest of the source; rows lie along the innermost dimension.
    pub dims: SmallVec<[u32; 4]>,
    /// Elements kept of each row.
    pub k: u32,
    /// Greatest first; else least first. NaN counts as greatest.
    pub largest: bool,
    /// Of equal elements the later one first; else the earlier one.
    pub later_first: bool,
    /// The operand.
    pub source: Walk,
    /// Where the elements go, if they are wanted; the innermost dimension has `k` steps.
    pub values: Option<Walk>,
    /// Where their positions go, if they are wanted: i32 or i64; the innermost dimension has `k` steps.
    pub positions: Option<Walk>,
}

impl Sort {
    /// The loop nest of the results: that of the source with `k` steps along the innermost dimension.
    pub fn kept_dims(&self) -> SmallVec<[u32; 4]> {
        let mut dims = self.dims.clone();
        if let Some(length) = dims.last_mut() {
            *length = self.k;
        }
        dims
    }
}

/// What an instruction does.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// DRAM to scratchpad.
    Load(Transfer),
    /// Scratchpad to DRAM.
    Store(Transfer),
    /// Rows of a DRAM table, named by indices, to the scratchpad.
    LoadRows(RowTransfer),
    /// Rows of the scratchpad to rows of a DRAM table that indices name, combining with what is there; `DType` is the
    /// type of the elements. Rows are taken in order.
    StoreRows(RowTransfer, ScatterReduction, DType),
    /// Next weights.
    Preload(Preload),
    /// A pass through the array.
    Multiply(Multiply),
    /// A pass in which sums stay in the array.
    Outer(Outer),
    /// Element-wise.
    Map(Map),
    /// Reduction.
    Fold(Fold),
    /// Running sum.
    Scan(Scan),
    /// Top-k.
    Sort(Sort),
}

impl Operation {
    /// The unit that executes this.
    pub fn unit(&self) -> Unit {
        match self {
            Operation::Load(_) | Operation::LoadRows(_) => Unit::Load,
            Operation::Store(_) | Operation::StoreRows(..) => Unit::Store,
            Operation::Preload(_) => Unit::Preload,
            Operation::Multiply(_) | Operation::Outer(_) => Unit::Array,
            Operation::Map(_) | Operation::Fold(_) | Operation::Scan(_) | Operation::Sort(_) => Unit::Vector,
        }
    }

    /// The address in DRAM, if it has one.
    pub fn dram(&self) -> Option<DramAddress> {
        match self {
            Operation::Load(transfer) | Operation::Store(transfer) => Some(transfer.dram),
            Operation::LoadRows(rows) | Operation::StoreRows(rows, ..) => Some(rows.dram),
            Operation::Preload(_)
            | Operation::Multiply(_)
            | Operation::Outer(_)
            | Operation::Map(_)
            | Operation::Fold(_)
            | Operation::Scan(_)
            | Operation::Sort(_) => None,
        }
    }

    /// The same with an absolute address, as it is executed in a call with these bases.
    pub fn resolve(&self, bases: &[u64]) -> Cow<'_, Operation> {
        let Some(address) = self.dram().filter(|address| address.register != Register::ZERO) else {
            return Cow::Borrowed(self);
        };
        let mut op = self.clone();
        if let Operation::Load(Transfer { dram, .. })
        | Operation::Store(Transfer { dram, .. })
        | Operation::LoadRows(RowTransfer { dram, .. })
        | Operation::StoreRows(RowTransfer { dram, .. }, ..) = &mut op
        {
            *dram = DramAddress::absolute(address.resolve(bases));
        }
        Cow::Owned(op)
    }
}
