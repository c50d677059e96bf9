//! The streams. A vector keeps its diagonal, position less cycle or position plus cycle, as long as it flows; so vectors are
//! not moved, but found by their diagonals.

use std::collections::VecDeque;

use super::direction_index;
use super::fault::FaultCause;
use crate::lpu::LpuMachine;
use crate::lpu::isa::{Direction, Stream};

/// A vector on its way.
#[derive(Clone, Copy, Debug)]
struct Slot {
    diagonal: i64,
    /// Hops that it had made, counted from the stream's end of the chip, when it was driven.
    from: usize,
    /// Those after which it was taken.
    taken: Option<usize>,
}

/// All streams.
#[derive(Debug)]
pub(super) struct Streams {
    vector: usize,
    positions: usize,
    streams: usize,
    slots: Vec<Option<Slot>>,
    bytes: Vec<u8>,
}

impl Streams {
    /// Streams with nothing on them.
    pub fn new(machine: &LpuMachine) -> Self {
        let (vector, positions, streams) = (machine.vector(), machine.positions(), machine.streams as usize);
        let slots = 2 * streams * positions;
        Streams { vector, positions, streams, slots: vec![None; slots], bytes: vec![0; slots * vector] }
    }

    /// The slot and the diagonal of a stream at a position in a cycle, and the hops from the stream's end of the chip.
    fn place(&self, stream: Stream, position: usize, cycle: u64) -> (usize, i64, usize) {
        let hops = match stream.direction {
            Direction::East => position,
            Direction::West => self.positions - 1 - position,
        };
        let diagonal = cycle as i64 - hops as i64;
        let line = direction_index(stream.direction) * self.streams + usize::from(stream.number);
        (line * self.positions + diagonal.rem_euclid(self.positions as i64) as usize, diagonal, hops)
    }

    /// What a stream brings to a position in a cycle.
    pub fn read(&mut self, stream: Stream, take: bool, position: usize, cycle: u64) -> Result<&[u8], FaultCause> {
        let (slot, diagonal, hops) = self.place(stream, position, cycle);
        match &mut self.slots[slot] {
            Some(held)
                if held.diagonal == diagonal && held.from < hops && held.taken.is_none_or(|taken| taken == hops) =>
            {
                if take {
                    held.taken = Some(hops);
                }
                Ok(&self.bytes[slot * self.vector..(slot + 1) * self.vector])
            }
            _ => Err(FaultCause::NothingThere(format!(
                "stream {} to the {} is empty at position {position}",
                stream.number,
                name(stream.direction)
            ))),
        }
    }

    /// Puts a vector onto a stream. Gives the hops that the one which was in its place has made.
    pub fn drive(&mut self, stream: Stream, position: usize, cycle: u64, vector: &[u8]) -> Result<u64, FaultCause> {
        let (slot, diagonal, hops) = self.place(stream, position, cycle);
        let mut made = 0;
        if let Some(held) = self.slots[slot] {
            if held.diagonal == diagonal && held.taken.is_none() {
                let direction = name(stream.direction);
                return Err(FaultCause::Collision { position, stream: stream.number, direction });
            }
            made = self.hops(held);
        }
        self.slots[slot] = Some(Slot { diagonal, from: hops, taken: None });
        self.bytes[slot * self.vector..(slot + 1) * self.vector].copy_from_slice(vector);
        Ok(made)
    }

    /// The hops of all vectors that are still held, which are given up.
    pub fn retire(&mut self) -> u64 {
        let held: u64 = self.slots.iter().flatten().map(|&slot| self.hops(slot)).sum();
        self.slots.fill(None);
        held
    }

    fn hops(&self, slot: Slot) -> u64 {
        (slot.taken.unwrap_or(self.positions - 1) - slot.from) as u64
    }
}

fn name(direction: Direction) -> &'static str {
    match direction {
        Direction::East => "east",
        Direction::West => "west",
    }
}

/// A vector that is driven when its cycle comes: the stream, the position, the bytes.
type Drive = (Stream, usize, Vec<u8>);

/// What is driven in cycles to come.
#[derive(Debug)]
pub(super) struct Pending {
    /// By cycle, from `first` on.
    cycles: VecDeque<Vec<Drive>>,
    first: u64,
}

impl Pending {
    pub fn new(machine: &LpuMachine) -> Self {
        let most = machine.mem.latency.max(machine.vxm.latency).max(machine.sxm.latency) as usize + 1;
        Pending { cycles: vec![Vec::new(); most].into(), first: 0 }
    }

    /// The next cycle in which something is driven.
    pub fn next(&self) -> Option<u64> {
        self.cycles.iter().position(|drives| !drives.is_empty()).map(|index| self.first + index as u64)
    }

    /// Adds a drive in a cycle that has not come.
    pub fn add(&mut self, cycle: u64, drive: Drive) {
        let index = (cycle - self.first) as usize;
        if index >= self.cycles.len() {
            self.cycles.resize(index + 1, Vec::new());
        }
        self.cycles[index].push(drive);
    }

    /// What is driven in a cycle. All cycles before it must have been asked for, or have had nothing.
    pub fn due(&mut self, cycle: u64) -> Vec<Drive> {
        let mut due = Vec::new();
        while self.first <= cycle {
            if let Some(mut drives) = self.cycles.pop_front() {
                due = std::mem::take(&mut drives);
                self.cycles.push_back(drives);
            }
            self.first += 1;
        }
        due
    }
}
