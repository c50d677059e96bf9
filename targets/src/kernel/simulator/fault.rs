//! What stops a launch.

/// Why a kernel cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// An index leads nowhere.
    #[error("thread {thread} of block {block:?} wants element {index} of `{array}`, which has {elements}")]
    Outside {
        /// The buffer or shared array.
        array: String,
        /// The index.
        index: i64,
        /// Elements that there are.
        elements: u64,
        /// The thread.
        thread: usize,
        /// The block.
        block: [u32; 3],
    },
    /// An index of an array of registers leads nowhere.
    #[error("array `{0}` has no such element")]
    Array(String),
    /// A vector does not lie where vectors may.
    #[error("{count} elements are wanted at once from element {index} of `{array}`, which is no multiple of that")]
    Unaligned {
        /// The buffer or shared array.
        array: String,
        /// The index of the first.
        index: i64,
        /// How many.
        count: u32,
    },
    /// Lanes of a warp want to multiply different tiles.
    #[error("lanes of a warp multiply different tiles")]
    Divergent,
    /// Tiles that the machine's warps do not multiply.
    #[error("warps of this machine multiply no such tiles")]
    NoMatrixUnit,
    /// An index is too large.
    #[error("an index leaves 32 bits")]
    Overflow,
    /// An integer is divided by zero.
    #[error("an integer is divided by zero")]
    DivisionByZero,
    /// What is read was not written by any block that arrived by the same counter.
    #[error(
        "thread {thread} of block {block:?} reads element {index} of `{array}`, which no block has written that arrived with it"
    )]
    NotHanded {
        /// The buffer.
        array: String,
        /// The index.
        index: i64,
        /// The thread.
        thread: usize,
        /// The block.
        block: [u32; 3],
    },
    /// A counter is not 0 before a launch.
    #[error("counter {counter} of `{array}` is {value} before the launch")]
    Counter {
        /// The buffer.
        array: String,
        /// Which of them.
        counter: u64,
        /// What it is.
        value: u32,
    },
    /// A buffer does not lie where it could.
    #[error("buffer `{0}` lies outside the memory that there is for it")]
    Buffer(String),
}
