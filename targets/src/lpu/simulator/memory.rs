//! The memory slices.

use std::collections::VecDeque;

use super::fault::FaultCause;
use crate::lpu::LpuMachine;

/// A write that is not visible yet.
#[derive(Debug)]
struct Write {
    /// The cycle from which on reads see it.
    visible: u64,
    slice: usize,
    address: usize,
    vector: Vec<u8>,
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
    writes: VecDeque<Write>,
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
            writes: VecDeque::new(),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Makes writes visible whose cycle has come.
    pub fn settle(&mut self, cycle: u64) {
        while self.writes.front().is_some_and(|write| write.visible <= cycle) {
            let Some(write) = self.writes.pop_front() else { return };
            let at = (write.slice * self.depth + write.address) * self.vector;
            self.bytes[at..at + self.vector].copy_from_slice(&write.vector);
        }
    }

    /// The vector at an address of a slice.
    pub fn read(&self, slice: usize, address: u16, cycle: u64) -> Result<&[u8], FaultCause> {
        let address = usize::from(address);
        if self.pending(slice, cycle).any(|write| write.address == address) {
            return Err(FaultCause::TooEarly(address));
        }
        Ok(self.at(slice, address))
    }

    /// In each superlane its part of the vector at an address of its own.
    pub fn gather(&self, slice: usize, low: &[u8], high: &[u8], cycle: u64) -> Result<Vec<u8>, FaultCause> {
        if let Some(write) = self.pending(slice, cycle).next() {
            return Err(FaultCause::TooEarly(write.address));
        }
        let mut gathered = Vec::with_capacity(self.vector);
        for superlane in (0..self.vector).step_by(self.lanes) {
            let address = usize::from(u16::from_le_bytes([low[superlane], high[superlane]])).min(self.depth - 1);
            gathered.extend_from_slice(&self.at(slice, address)[superlane..superlane + self.lanes]);
        }
        Ok(gathered)
    }

    /// Writes a vector to an address of a slice.
    pub fn write(&mut self, slice: usize, address: u16, vector: Vec<u8>, cycle: u64) {
        let visible = cycle + self.latency;
        self.writes.push_back(Write { visible, slice, address: usize::from(address), vector });
    }

    fn at(&self, slice: usize, address: usize) -> &[u8] {
        let at = (slice * self.depth + address) * self.vector;
        &self.bytes[at..at + self.vector]
    }

    /// Writes to a slice that were dispatched in earlier cycles and are not visible yet.
    fn pending(&self, slice: usize, cycle: u64) -> impl Iterator<Item = &Write> {
        let before = cycle + self.latency;
        self.writes.iter().filter(move |write| write.slice == slice && write.visible < before)
    }
}
