//! Executes kernels for what they compute: block by block, all threads of a block at once.

mod block;
mod column;
mod fault;

use std::ops::Range;

use rayon::prelude::*;

pub use fault::Fault;

use block::Block;
pub(super) use block::{buffer_bytes, ends};

use super::kernel::Kernel;
use crate::number::encoded_bytes;

/// Blocks whose results are held at a time.
const AT_ONCE: u32 = 256;

/// The memory of a machine: what a program is given and never writes, and the rest.
#[derive(Debug)]
pub struct Memory<'w> {
    /// Weights.
    pub weights: &'w [u8],
    /// Everything else.
    pub values: Vec<u8>,
}

/// Where a buffer lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// At this byte of the weights.
    Weights(u64),
    /// At this byte of the other memory.
    Values(u64),
}

/// Runs all blocks of a kernel, which must have passed [`check`](super::kernel::check::check), on a machine with warps of so many
/// threads. `places` says where each of its parameters lies.
///
/// # Errors
/// The kernel does what it must not.
pub fn launch(kernel: &Kernel, warp: u32, memory: &mut Memory<'_>, places: &[Place]) -> Result<(), Fault> {
    let mut ranges = Vec::with_capacity(kernel.buffers.len());
    for (buffer, place) in kernel.buffers.iter().zip(places) {
        let bytes = buffer_bytes(buffer.dtype, buffer.elements);
        let (first, of) = match *place {
            Place::Weights(first) => (first, memory.weights.len()),
            Place::Values(first) => (first, memory.values.len()),
        };
        let end = first.checked_add(bytes).filter(|&end| end <= of as u64);
        let is_lost = buffer.is_written && matches!(place, Place::Weights(_));
        let (Some(end), false) = (end, is_lost) else { return Err(Fault::Buffer(buffer.name.clone())) };
        ranges.push(first as usize..end as usize);
    }
    if ranges.len() != kernel.buffers.len() {
        return Err(Fault::Buffer(kernel.name.clone()));
    }
    let ends = ends(&kernel.body);
    let [x, y, _] = kernel.grid;
    let all = kernel.blocks() as u32;
    let mut first = 0;
    while first < all {
        let last = all.min(first.saturating_add(AT_ONCE));
        let done: Vec<_> = {
            let view = |(place, range): (&Place, &Range<usize>)| match place {
                Place::Weights(_) => &memory.weights[range.clone()],
                Place::Values(_) => &memory.values[range.clone()],
            };
            let views: Vec<&[u8]> = places.iter().zip(&ranges).map(view).collect();
            let run = |number: u32| {
                let place = [number % x, number / x % y, number / x / y];
                Block::new(kernel, &ends, warp as usize, &views, place).run()
            };
            (first..last).into_par_iter().map(run).collect::<Result<_, _>>()?
        };
        for writes in done {
            let mut bytes = writes.bytes.as_slice();
            for (buffer, index) in writes.places {
                let size = encoded_bytes(kernel.buffers[buffer.index()].dtype);
                let (element, rest) = bytes.split_at(size);
                let at = ranges[buffer.index()].start + index as usize * size;
                memory.values[at..at + size].copy_from_slice(element);
                bytes = rest;
            }
        }
        first = last;
    }
    Ok(())
}
