//! What threads access by an index.

use super::{BufferId, ExprId, SharedId};

/// Memory that a kernel accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Memory {
    /// Global memory.
    Buffer(BufferId),
    /// An array in shared memory.
    Shared(SharedId),
}

/// Memory, and the index of the element in it.
pub type Accessed = (Memory, ExprId);
