//! The memory slices.
//!
//! What is written is there at once: a read that comes before the write is visible is a fault, so that none can tell.

use std::collections::VecDeque;

use super::fault::FaultCause;
use crate::lpu::LpuMachine;

/// A write to a slice.
#[derive(Clone, Copy, Debug)]
struct Write {
    /// The cycle of its dispatch.
    cycle: u64,
    address: u16,
}

/// All slices.
#[derive(Debug)]
pub(super) struct Memory {
    vector: usize,
    lanes: usize,
    /// Vectors of a slice.
    depth: usize,
    latency: u64,
    bytes: Vec<u8>,
    /// For each slice its last writes; some may be visible already.
    writes: Vec<VecDeque<Write>>,
}

impl Memory {
    /// A memory that holds `bytes`, and zeros behind them.
    pub fn new(machine: &LpuMachine, mut bytes: Vec<u8>) -> Self {
        bytes.resize(machine.memory_bytes() as usize, 0);
        Memory {
            vector: machine.vector(),
            lanes: machine.lanes as usize,
            depth: (machine.mem.words * machine.mem.banks) as usize,
            latency: u64::from(machine.mem.latency),
            bytes,
            writes: vec![VecDeque::new(); 2 * machine.mem.slices as usize],
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The vector at an address of a slice.
    pub fn read(&self, slice: usize, address: u16, cycle: u64) -> Result<&[u8], FaultCause> {
        if self.hidden(slice, cycle).any(|write| write.address == address) {
            return Err(FaultCause::TooEarly(usize::from(address)));
        }
        Ok(self.at(slice, usize::from(address)))
    }

    /// Checks that a gather finds all that was written to a slice.
    pub fn check_gather(&self, slice: usize, cycle: u64) -> Result<(), FaultCause> {
        match self.hidden(slice, cycle).next() {
            Some(write) => Err(FaultCause::TooEarly(usize::from(write.address))),
            None => Ok(()),
        }
    }

    /// In each superlane its part of the vector at an address of its own.
    pub fn gather(&self, slice: usize, low: &[u8], high: &[u8], gathered: &mut [u8]) {
        for (superlane, gathered) in (0..).step_by(self.lanes).zip(gathered.chunks_exact_mut(self.lanes)) {
            let address = usize::from(u16::from_le_bytes([low[superlane], high[superlane]])).min(self.depth - 1);
            gathered.copy_from_slice(&self.at(slice, address)[superlane..superlane + self.lanes]);
        }
    }

    /// Writes a vector to an address of a slice.
    pub fn write(&mut self, slice: usize, address: u16, vector: &[u8], cycle: u64) {
        let at = (slice * self.depth + usize::from(address)) * self.vector;
        self.bytes[at..at + self.vector].copy_from_slice(vector);
        let writes = &mut self.writes[slice];
        while writes.front().is_some_and(|write| write.cycle + self.latency <= cycle) {
            writes.pop_front();
        }
        writes.push_back(Write { cycle, address });
    }

    fn at(&self, slice: usize, address: usize) -> &[u8] {
        let at = (slice * self.depth + address) * self.vector;
        &self.bytes[at..at + self.vector]
    }

    /// Writes to a slice that were dispatched in earlier cycles and are not visible yet.
    fn hidden(&self, slice: usize, cycle: u64) -> impl Iterator<Item = &Write> {
        self.writes[slice].iter().filter(move |write| write.cycle < cycle && cycle < write.cycle + self.latency)
    }
}
