//! What threads do: statements.

use serde::{Deserialize, Serialize};
use tcc_ir::DType;

use super::{Accessed, BufferId, ExprId, Memory, Region, SharedId, VarId};
use crate::number::FoldFn;

/// A statement. What stands between one that opens a scope and its [`Stmt::End`] is in that scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stmt {
    /// A variable, with what it holds first; of an array all elements hold it.
    Let(VarId, ExprId),
    /// What a variable holds from now on.
    Set(VarId, ExprId),
    /// What an array holds at an index from now on.
    SetElement(VarId, ExprId, ExprId),
    /// Opens a scope: for an index from one value on, below another, by a step. All threads of a block go through it equally often,
    /// unless it holds no barrier.
    For {
        /// The index.
        var: VarId,
        /// Its first value.
        from: ExprId,
        /// Where it ends.
        to: ExprId,
        /// What it grows by, at least 1.
        step: u32,
        /// Whether the code is written out for each index, which must then be known when the kernel is compiled.
        unroll: bool,
    },
    /// Opens a scope: for threads where this is not 0.
    If(ExprId),
    /// Closes the scope of an `If` and opens one for the other threads.
    Else,
    /// Closes a scope.
    End,
    /// Writes an element of a buffer: where, and what.
    Store(BufferId, ExprId, ExprId),
    /// Writes an element of shared memory: where, and what.
    StoreShared(SharedId, ExprId, ExprId),
    /// Reads so many elements of a buffer that follow each other, into those of an array from an index on that is known when the
    /// kernel is compiled. They are read at once: together they are 4, 8 or 16 bytes, and lie at a multiple of that. Those that stay
    /// as they are loaded may be 1 or 2 bytes too.
    LoadVector {
        /// The array.
        array: VarId,
        /// Where the first of them goes.
        to: ExprId,
        /// The buffer.
        buffer: BufferId,
        /// Where the first of them lies.
        from: ExprId,
        /// How many there are.
        count: u32,
    },
    /// Makes floats of so many integers of at most eight bits that an array holds as they were loaded, from one on whose bits begin
    /// a word: each less the zero point, times the scale, rounded to a type. They go to the first elements of another array.
    Dequantize {
        /// The array that the floats go to.
        array: VarId,
        /// The packed array.
        packed: VarId,
        /// Which of its elements is the first.
        first: u32,
        /// How many there are: those of whole words.
        count: u32,
        /// The zero point, a number of the integers' type, if there is one.
        zero: Option<ExprId>,
        /// The scale, a number of the type, if there is one.
        scale: Option<ExprId>,
        /// The type that results are rounded to: binary32, or a type of 16 bits that has all differences.
        dtype: DType,
    },
    /// Writes so many elements of an array, from an index on that is known when the kernel is compiled, to a buffer at once.
    StoreVector {
        /// The buffer.
        buffer: BufferId,
        /// Where the first of them goes.
        to: ExprId,
        /// The array.
        array: VarId,
        /// Which is the first of them.
        from: ExprId,
        /// How many there are.
        count: u32,
    },
    /// Begins to copy so many elements, which are read at once, from a buffer to a shared array of the same type. They are there
    /// when the thread has waited for the group that the copy is in.
    Copy {
        /// The shared array.
        shared: SharedId,
        /// Where the first of them goes.
        to: ExprId,
        /// The buffer.
        buffer: BufferId,
        /// Where the first of them lies.
        from: ExprId,
        /// How many there are.
        count: u32,
        /// Where this is 0 nothing is read, and zeros are copied.
        when: ExprId,
    },
    /// Makes a group of the copies that the thread has begun since the last.
    Commit,
    /// Waits until the thread has at most so many groups whose copies are not all there.
    Await(u32),
    /// Multiplies tiles in shared memory, warp by warp, and adds the products to sums that are spread over the lanes of the warp
    /// as [`Spread`](super::Spread) says.
    Multiply {
        /// The array of sums.
        sums: VarId,
        /// Rows of A, columns of B, and what is summed over.
        tile: [u32; 3],
        /// A: row by row.
        a: Factor,
        /// B: column by column, or row by row.
        b: Factor,
        /// Whether B lies row by row.
        b_by_rows: bool,
    },
    /// Begins to bring a part of a buffer to the common cache, all blocks together: neighbouring lines are asked for by neighbouring
    /// blocks, whose first threads take turns. Nobody waits for it, and nothing follows from it: it is for a launch that comes
    /// later.
    Prefetch {
        /// The buffer.
        buffer: BufferId,
        /// What of it.
        region: Region,
        /// So many threads of each block.
        threads: u32,
    },
    /// Waits until all threads of the block are here; what they have written to shared memory is then seen.
    Barrier,
    /// Combines what a variable holds over neighbouring threads, all of which hold the result.
    Reduce {
        /// The variable.
        var: VarId,
        /// How.
        function: FoldFn,
        /// The type of what it holds.
        dtype: DType,
        /// Number of threads that combine: a power of two, and a part of a warp or several warps.
        width: u32,
        /// An element for each thread of the block, where this is done by shared memory.
        scratch: SharedId,
    },
    /// Declares a variable that is 1 in the block that is the last of those beside it along an axis of the grid to come here, and 0
    /// in the others. Before that, all that the block has stored is made visible to the last, which may read what any of them has
    /// stored before it came here. It stands in no scope, and waits for no other block.
    Arrive {
        /// The variable, an index. It is the same for all threads of the block, and is not set.
        var: VarId,
        /// A counter (`u32`) for each place of the grid along its other axes, which is 0 before the launch and after it. Nothing else
        /// in the kernel touches it.
        counters: BufferId,
        /// The axis. What arrives are as many blocks as the grid has along it.
        axis: u8,
        /// An element (`i32`) by which all threads of the block learn what the one that counts has found.
        scratch: SharedId,
    },
}

/// A matrix in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Factor {
    /// The array that it lies in.
    pub shared: SharedId,
    /// Its first element, the same for all lanes of a warp.
    pub at: ExprId,
    /// Elements from one row, or column, to the next.
    pub pitch: u32,
}

impl Stmt {
    /// The expressions that it computes.
    pub fn operands(&self) -> impl Iterator<Item = ExprId> {
        let operands: [Option<ExprId>; 3] = match *self {
            Stmt::Let(_, a) | Stmt::Set(_, a) | Stmt::If(a) => [Some(a), None, None],
            Stmt::SetElement(_, a, b)
            | Stmt::Store(_, a, b)
            | Stmt::StoreShared(_, a, b)
            | Stmt::For { from: a, to: b, .. }
            | Stmt::LoadVector { to: a, from: b, .. }
            | Stmt::StoreVector { to: a, from: b, .. }
            | Stmt::Multiply { a: Factor { at: a, .. }, b: Factor { at: b, .. }, .. } => [Some(a), Some(b), None],
            Stmt::Copy { to, from, when, .. } => [Some(to), Some(from), Some(when)],
            Stmt::Dequantize { zero, scale, .. } => [zero, scale, None],
            Stmt::Else | Stmt::End | Stmt::Barrier | Stmt::Reduce { .. } | Stmt::Commit | Stmt::Await(_) => [None; 3],
            Stmt::Arrive { .. } | Stmt::Prefetch { .. } => [None; 3],
        };
        operands.into_iter().flatten()
    }

    /// What it accesses by itself, and where.
    pub fn addresses(&self) -> impl Iterator<Item = Accessed> {
        let addresses: [Option<Accessed>; 2] = match *self {
            Stmt::Store(buffer, index, _)
            | Stmt::LoadVector { buffer, from: index, .. }
            | Stmt::StoreVector { buffer, to: index, .. } => [Some((Memory::Buffer(buffer), index)), None],
            Stmt::StoreShared(shared, index, _) => [Some((Memory::Shared(shared), index)), None],
            Stmt::Copy { shared, to, buffer, from, .. } => {
                [Some((Memory::Shared(shared), to)), Some((Memory::Buffer(buffer), from))]
            }
            Stmt::Multiply { a, b, .. } => [a, b].map(|factor| Some((Memory::Shared(factor.shared), factor.at))),
            Stmt::Let(..)
            | Stmt::Set(..)
            | Stmt::SetElement(..)
            | Stmt::For { .. }
            | Stmt::If(_)
            | Stmt::Else
            | Stmt::End
            | Stmt::Commit
            | Stmt::Await(_)
            | Stmt::Barrier
            | Stmt::Reduce { .. }
            | Stmt::Arrive { .. }
            | Stmt::Dequantize { .. }
            | Stmt::Prefetch { .. } => [None; 2],
        };
        addresses.into_iter().flatten()
    }
}
