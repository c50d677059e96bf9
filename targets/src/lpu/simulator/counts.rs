//! How much of everything a program does: what estimates of its energy count.

/// Counts of what was done, in vectors if nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Vectors read from memory.
    pub reads: u64,
    /// Vectors written to memory.
    pub writes: u64,
    /// Positions that vectors have moved by on streams.
    pub hops: u64,
    /// Columns of weights loaded.
    pub weights: u64,
    /// Multiply-accumulates of bytes, those with zeros too.
    pub byte_macs: u64,
    /// Multiply-accumulates of halves, those with zeros too.
    pub half_macs: u64,
    /// Instructions of ALUs.
    pub computed: u64,
    /// Vectors that switch units have made.
    pub switched: u64,
}
