//! Where arrays that threads share lie.

use super::dialect::Dialect;
use crate::kernel::{Kernel, Shared, SharedId};

/// Most bytes of arrays that are declared in a kernel of CUDA; what is more is given to it when it is launched (CUDA C++
/// Programming Guide, compute capabilities).
const DECLARED: u64 = 48 << 10;

/// The arrays of a kernel.
pub(super) struct Placement<'k> {
    arrays: Vec<&'k Shared>,
    /// Bytes of all of them, each up to where the next may begin.
    pub bytes: u64,
    dialect: Dialect,
}

impl<'k> Placement<'k> {
    /// Looks at a kernel for warps of so many threads.
    pub fn new(kernel: &'k Kernel, dialect: Dialect, warp: u32) -> Self {
        let is_there = |id: usize| match dialect {
            Dialect::OpenCl => true,
            Dialect::Cuda => !dialect.shuffles(kernel.threads) || kernel.needs_shared(SharedId(id as u32), warp),
        };
        let arrays = kernel.shared.iter().enumerate().filter(|&(id, _)| is_there(id));
        let arrays: Vec<&Shared> = arrays.map(|(_, shared)| shared).collect();
        let bytes = arrays.iter().map(|shared| shared.bytes()).sum();
        Placement { arrays, bytes, dialect }
    }

    /// Bytes that are given to the kernel when it is launched: 0 if arrays are declared in it.
    pub fn launched(&self) -> u64 {
        if self.dialect == Dialect::Cuda && self.bytes > DECLARED { self.bytes } else { 0 }
    }

    /// The declarations, at the start of the kernel.
    pub fn lines(&self) -> Vec<String> {
        let mut at = 0;
        let line = |shared: &&Shared| {
            let (ty, name, elements) = (self.dialect.shared(shared.dtype), &shared.name, shared.elements);
            let from = at;
            at += shared.bytes();
            match self.dialect {
                Dialect::OpenCl => format!("__local {ty} {name}[{elements}];"),
                Dialect::Cuda if self.launched() == 0 => format!("__shared__ __align__(16) {ty} {name}[{elements}];"),
                Dialect::Cuda => format!("{ty} *const {name} = ({ty} *)(shared_memory() + {from}); // {elements}"),
            }
        };
        self.arrays.iter().map(line).collect()
    }
}
