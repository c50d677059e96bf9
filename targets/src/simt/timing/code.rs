//! What a warp goes through: machine instructions with what they wait for, and what is known of indices between them.
//!
//! This is what stands between kernels and schedulers: the compiler expands each statement into it, a warp walks it, and a
//! multiprocessor issues what it comes to. A statement that is new to kernels is new to the compiler, and, if it keeps
//! something else busy, to the units.

use super::resource::Unit;
use crate::kernel::IndexFn;

/// Something that an instruction can wait for: what an expression or an element of a variable is held in.
pub(super) type Slot = u32;

/// What is there from the start.
pub(super) const NOTHING: Slot = u32::MAX;

/// Where an index comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Known when the kernel is compiled.
    Known(i64),
    /// The thread's number.
    Thread,
    /// The block's number along an axis.
    Block(u8),
    /// What was computed.
    Slot(Slot),
    /// From data.
    Data,
}

/// An instruction of a warp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    /// What it is issued to.
    pub unit: Unit,
    /// What it waits for.
    pub sources: [Slot; 3],
    /// What waits for it.
    pub target: Slot,
    /// The number of the access to memory that it is.
    pub access: Option<u32>,
}

/// One step of a warp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// An instruction.
    Issue(Instruction),
    /// One thing is there as soon as another is: a copy that is none in registers.
    Alias { from: Slot, to: Slot },
    /// What an index is.
    Index { function: IndexFn, a: Source, b: Source, to: Slot },
    /// What a selected index is.
    Choose { condition: Source, a: Source, b: Source, to: Slot },
    /// What something holds from now on: in lanes that take part, or in all if it is new there.
    Copy { from: Source, to: Slot, is_new: bool },
    /// Opens a loop; the place is that of what comes after it. A loop is regular if iterations do not hand indices on.
    Loop { counter: Slot, from: Source, to: Source, step: u32, after: usize, is_regular: bool },
    /// Closes a loop: the place is that of its first step.
    EndLoop { first: usize },
    /// Opens a scope for some lanes; the place is that of its `Else` or `EndIf`.
    If { condition: Source, middle: usize },
    /// Opens one for the other lanes; the place is that of the `EndIf`.
    Else { end: usize },
    /// Closes it.
    EndIf,
    /// Waits for all warps of the block.
    Barrier,
    /// Makes a group of the copies that were begun.
    Commit,
    /// So many groups may be on their way; what waits for the others waits for the slot.
    Await { groups: u32, slot: Slot },
}

/// Which memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    /// A buffer of global memory.
    Global(u32),
    /// Shared memory, from a byte on.
    Shared(u64),
}

/// Which element each lane accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// An index.
    Index(Source),
    /// The number of the thread.
    Thread,
    /// The same element for all lanes.
    Same,
    /// Lines of a matrix that lanes address: from an index and a known number on, each lane that of its number in so many lines,
    /// which lie apart by a pitch; the next lanes begin at the first line again, so many elements further.
    Lines { from: Source, offset: u32, lines: u32, pitch: u32, next: u32 },
}

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Load,
    Store,
    /// Has something brought to the common cache, and waits for nothing.
    Prefetch,
    /// Waits until what was stored is seen by all.
    Fence,
}

/// An access to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access {
    pub space: Space,
    pub kind: Kind,
    pub address: Address,
    /// Bits of an element.
    pub bits: u64,
    /// Bits that each lane accesses from there on.
    pub width: u64,
    /// What is copied to shared memory, if it is: from which byte on, the index there, and the lanes that read something.
    pub copied: Option<(u64, Source, Source)>,
}

/// A kernel as its warps go through it.
#[derive(Clone, Debug)]
pub(super) struct Compiled {
    pub code: Vec<Code>,
    pub accesses: Vec<Access>,
    /// Number of slots.
    pub slots: usize,
    /// Registers that a thread holds where it holds most.
    pub registers: u32,
    /// What copies to shared memory that are on their way are held in, if there are any.
    pub copies: Slot,
}
