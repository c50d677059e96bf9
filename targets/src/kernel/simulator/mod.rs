//! Executes kernels for what they compute: block by block, all threads of a block at once.

mod block;
mod column;
mod fault;
#[cfg(test)]
mod tests;

use std::ops::Range;

use rayon::prelude::*;

pub use fault::Fault;

use block::{Block, Paused, Writes};
pub(crate) use block::{buffer_bytes, ends};

use super::{Arrival, Kernel};
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

/// Runs all blocks of a kernel, which must have passed [`check`](super::check::check), on a machine with warps of so many
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
    let arrival = kernel.arrival();
    if let Some(arrival) = arrival {
        check_counters(kernel, arrival, &memory.values[ranges[arrival.counters.index()].clone()])?;
    }
    let mut all =
        All { kernel, warp: warp as usize, ends: ends(&kernel.body), memory, places, ranges, owners: Vec::new() };
    if kernel.in_turn {
        return all.in_turn();
    }
    let Some(arrival) = arrival else {
        return all.batches(|block| Ok((block.run()?, None))).map(|_| ());
    };
    let handed = kernel.handed_over();
    let owners = kernel.buffers.iter().zip(handed);
    all.owners =
        owners.map(|(buffer, handed)| if handed { vec![0; buffer.elements as usize] } else { Vec::new() }).collect();
    let paused = all.batches(|block| block.arrive(arrival))?;
    all.last(paused, arrival)
}

/// Fails if a counter is not 0.
fn check_counters(kernel: &Kernel, arrival: Arrival, bytes: &[u8]) -> Result<(), Fault> {
    let counters = bytes.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes));
    let own = counters.take(kernel.counters(arrival.axis) as usize);
    match own.enumerate().find(|&(_, value)| value != 0) {
        None => Ok(()),
        Some((counter, value)) => {
            let array = kernel.buffers[arrival.counters.index()].name.clone();
            Err(Fault::Counter { array, counter: counter as u64, value })
        }
    }
}

/// All blocks of a launch.
struct All<'a, 'w> {
    kernel: &'a Kernel,
    warp: usize,
    ends: Vec<usize>,
    memory: &'a mut Memory<'w>,
    places: &'a [Place],
    /// The bytes of each buffer.
    ranges: Vec<Range<usize>>,
    /// Who has written what is handed over: see [`Handed`](block::Handed).
    owners: Vec<Vec<u32>>,
}

impl All<'_, '_> {
    /// The bytes of each buffer now.
    fn views(&self) -> Vec<&[u8]> {
        let view = |(place, range): (&Place, &Range<usize>)| match place {
            Place::Weights(_) => &self.memory.weights[range.clone()],
            Place::Values(_) => &self.memory.values[range.clone()],
        };
        self.places.iter().zip(&self.ranges).map(view).collect()
    }

    /// Runs all blocks, some at a time, and returns those that are paused, in their order.
    fn batches(
        &mut self,
        run: impl Fn(Block<'_>) -> Result<(Writes, Option<Paused>), Fault> + Sync,
    ) -> Result<Vec<Paused>, Fault> {
        let [x, y, _] = self.kernel.grid;
        let all = self.kernel.blocks() as u32;
        let (mut first, mut paused) = (0, Vec::new());
        while first < all {
            let last = all.min(first.saturating_add(AT_ONCE));
            let place = |number: u32| [number % x, number / x % y, number / x / y];
            let done: Vec<_> = {
                let views = self.views();
                let block = |number: u32| Block::new(self.kernel, &self.ends, self.warp, &views, place(number));
                (first..last).into_par_iter().map(|number| run(block(number))).collect::<Result<_, _>>()?
            };
            for (number, (writes, own)) in (first..last).zip(done) {
                self.write(writes, place(number));
                paused.extend(own);
            }
            first = last;
        }
        Ok(paused)
    }

    /// Runs blocks one after the other, each with what the one before has left in shared memory.
    fn in_turn(&mut self) -> Result<(), Fault> {
        let [x, y, _] = self.kernel.grid;
        let mut kept = None;
        for number in 0..self.kernel.blocks() as u32 {
            let place = [number % x, number / x % y, number / x / y];
            let (writes, left) = {
                let views = self.views();
                Block::new(self.kernel, &self.ends, self.warp, &views, place).run_in_turn(kept.take())?
            };
            kept = Some(left);
            self.write(writes, place);
        }
        Ok(())
    }

    /// Lets the blocks go on that arrived last.
    fn last(&mut self, paused: Vec<Paused>, arrival: Arrival) -> Result<(), Fault> {
        let done: Vec<_> = {
            let views = self.views();
            let go_on = |paused| {
                Block::new(self.kernel, &self.ends, self.warp, &views, [0; 3]).go_on(paused, arrival, &self.owners)
            };
            paused.into_par_iter().map(go_on).collect::<Result<_, _>>()?
        };
        done.into_iter().for_each(|writes| self.write(writes, [0; 3]));
        Ok(())
    }

    /// Puts what a block has written into memory.
    fn write(&mut self, writes: Writes, block: [u32; 3]) {
        let owner = self.kernel.arrival().map_or(0, |arrival| self.kernel.counter_of(block, arrival.axis) as u32 + 1);
        let mut bytes = writes.bytes.as_slice();
        for (buffer, index) in writes.places {
            let size = encoded_bytes(self.kernel.buffers[buffer.index()].dtype);
            let (element, rest) = bytes.split_at(size);
            let at = self.ranges[buffer.index()].start + index as usize * size;
            self.memory.values[at..at + size].copy_from_slice(element);
            if let Some(owned) = self.owners.get_mut(buffer.index()).and_then(|owners| owners.get_mut(index as usize)) {
                *owned = owner;
            }
            bytes = rest;
        }
    }
}
