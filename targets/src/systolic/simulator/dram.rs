//! The simulated DRAM: weights, which are only read, and memory behind them.

use std::ops::Range;

/// Contents of DRAM.
#[derive(Clone, Debug)]
pub struct Dram<'a> {
    weights: &'a [u8],
    base: u64,
    memory: Vec<u8>,
}

impl<'a> Dram<'a> {
    /// DRAM with `weights` from address 0, which the program cannot write, and `bytes` of zeroed memory from `base`.
    /// `None` if they overlap or reach beyond `capacity`.
    pub fn new(weights: &'a [u8], base: u64, bytes: u64, capacity: u64) -> Option<Self> {
        let end = base.checked_add(bytes)?;
        if base < weights.len() as u64 || end > capacity {
            return None;
        }
        Some(Dram { weights, base, memory: vec![0; usize::try_from(bytes).ok()?] })
    }

    /// Address of the first byte of memory.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// The memory behind the weights.
    pub fn memory(&self) -> &[u8] {
        &self.memory
    }

    /// The memory behind the weights, for setting inputs.
    pub fn memory_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }

    /// The bytes at addresses `range` of weights or memory. `None` if they do not all lie in one of them.
    pub fn read(&self, range: Range<u64>) -> Option<&[u8]> {
        let start = usize::try_from(range.start).ok()?;
        let end = usize::try_from(range.end).ok()?;
        self.weights.get(start..end).or_else(|| self.memory.get(self.offsets(&range)?))
    }

    /// The bytes at addresses `range` of memory. `None` if they do not all lie there.
    pub fn write(&mut self, range: Range<u64>) -> Option<&mut [u8]> {
        let offsets = self.offsets(&range)?;
        self.memory.get_mut(offsets)
    }

    fn offsets(&self, range: &Range<u64>) -> Option<Range<usize>> {
        let start = usize::try_from(range.start.checked_sub(self.base)?).ok()?;
        let end = usize::try_from(range.end.checked_sub(self.base)?).ok()?;
        Some(start..end)
    }
}
