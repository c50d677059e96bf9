//! What a launch finds in the common cache.

use crate::simt::kernel::Region;

/// What of a buffer is in the common cache when a launch begins: the launch before it has written it, or asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Warm {
    /// Nothing.
    Cold,
    /// All of it.
    All,
    /// A part, of which all blocks read as much, as they are taken to do the same.
    Region(Region),
}

/// How a launch begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Start {
    /// What is in the common cache, by the kernel's buffers; nothing of those that are not named.
    pub warm: Vec<Warm>,
    /// Cycles until parts that were asked for are there, for which memory is busy.
    pub late: u64,
}
