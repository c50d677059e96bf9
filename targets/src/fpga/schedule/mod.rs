//! When each operation of a function starts, how many cycles a call takes, and what operators that needs.

use super::nest::Nest;

/// A function in time.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// What is scheduled.
    pub nest: Nest,
    /// The cycle in which each operation of [`Nest::ops`] starts, counted from the start of its block (of an iteration, in a
    /// pipelined loop). What is in no block has 0.
    pub starts: Vec<u32>,
    /// Cycles from the start of each operation to when its value can be registered: with 0 it is an input of other operations in the
    /// cycle in which it starts itself (chained), with n it is there, in a register, n cycles later.
    pub latencies: Vec<u32>,
    /// Each block of [`Nest::blocks`].
    pub blocks: Vec<BlockTime>,
    /// Each loop of [`Nest::loops`].
    pub loops: Vec<LoopTime>,
}

/// A block in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockTime {
    /// Cycles from its start until all its values and writes are there.
    pub depth: u32,
}

/// A loop in time.
#[derive(Clone, Debug, PartialEq)]
pub struct LoopTime {
    /// Cycles from one iteration to the next, of a loop that is pipelined; else those of an iteration.
    pub interval: u64,
    /// Cycles of one iteration.
    pub depth: u64,
    /// Cycles of the loop each time that it is entered.
    pub cycles: u64,
}
