//! What threads do: statements.

use serde::{Deserialize, Serialize};
use tcc_ir::DType;

use super::{BufferId, ExprId, SharedId, VarId};
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
}

impl Stmt {
    /// The expressions that it computes.
    pub fn operands(&self) -> impl Iterator<Item = ExprId> {
        let operands: [Option<ExprId>; 2] = match *self {
            Stmt::Let(_, a) | Stmt::Set(_, a) | Stmt::If(a) => [Some(a), None],
            Stmt::SetElement(_, a, b) | Stmt::Store(_, a, b) | Stmt::StoreShared(_, a, b) => [Some(a), Some(b)],
            Stmt::For { from, to, .. } => [Some(from), Some(to)],
            Stmt::Else | Stmt::End | Stmt::Barrier | Stmt::Reduce { .. } => [None, None],
        };
        operands.into_iter().flatten()
    }
}
