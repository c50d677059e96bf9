//! The streams. A vector keeps its diagonal, position less cycle or position plus cycle, as long as it flows; so vectors are
//! not moved, but found by their diagonals.

use super::fault::FaultCause;
use crate::lpu::LpuMachine;
use crate::lpu::isa::{Direction, Stream};

/// A vector on its way.
#[derive(Clone, Copy, Debug)]
struct Slot {
    diagonal: i64,
    /// Hops that it had made, counted from the stream's end of the chip, when it was driven.
    from: u32,
    /// Those after which it was taken.
    taken: Option<u32>,
}

/// The bytes of a vector, which stay where they are as long as it flows.
pub(super) type Vector = Box<[u8]>;

/// A vector that was found on a stream. It stays where it is until something is driven.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found(usize);

/// All streams, in the cycle that was last begun.
#[derive(Debug)]
pub(super) struct Streams {
    positions: usize,
    streams: usize,
    slots: Vec<Option<Slot>>,
    /// The vectors of the slots, as far as there were any.
    vectors: Vec<Vector>,
    cycle: u64,
    /// The cycle modulo the positions.
    phase: usize,
}

impl Streams {
    /// Streams with nothing on them, in cycle 0.
    pub fn new(machine: &LpuMachine) -> Self {
        let (positions, streams) = (machine.positions(), machine.streams as usize);
        let slots = 2 * streams * positions;
        let (slots, vectors) = (vec![None; slots], vec![Vector::default(); slots]);
        Streams { positions, streams, slots, vectors, cycle: 0, phase: 0 }
    }

    /// Begins a cycle.
    pub fn begin(&mut self, cycle: u64) {
        self.cycle = cycle;
        self.phase = (cycle % self.positions as u64) as usize;
    }

    /// The slot and the diagonal of a stream at a position, and the hops from the stream's end of the chip.
    fn place(&self, stream: Stream, position: usize) -> (usize, i64, usize) {
        let hops = match stream.direction {
            Direction::East => position,
            Direction::West => self.positions - 1 - position,
        };
        let line = stream.direction.index() * self.streams + usize::from(stream.number);
        // The diagonal modulo the positions.
        let within = if hops <= self.phase { self.phase - hops } else { self.phase + self.positions - hops };
        (line * self.positions + within, self.cycle as i64 - hops as i64, hops)
    }

    /// Finds what a stream brings to a position.
    pub fn read(&mut self, stream: Stream, take: bool, position: usize) -> Result<Found, FaultCause> {
        let (slot, diagonal, hops) = self.place(stream, position);
        let hops = hops as u32;
        match &mut self.slots[slot] {
            Some(held)
                if held.diagonal == diagonal && held.from < hops && held.taken.is_none_or(|taken| taken == hops) =>
            {
                if take {
                    held.taken = Some(hops);
                }
                Ok(Found(slot))
            }
            _ => Err(FaultCause::NothingThere(format!(
                "stream {} to the {} is empty at position {position}",
                stream.number,
                name(stream.direction)
            ))),
        }
    }

    /// The bytes of a vector that was found in this cycle.
    pub fn vector(&self, Found(slot): Found) -> &[u8] {
        &self.vectors[slot]
    }

    /// Puts a vector onto a stream. Gives the one which was in its place, with the hops that it has made; there may have been
    /// none, which has no bytes.
    pub fn drive(&mut self, stream: Stream, position: usize, vector: Vector) -> Result<(Vector, u64), FaultCause> {
        let (slot, diagonal, hops) = self.place(stream, position);
        let mut made = 0;
        if let Some(held) = self.slots[slot] {
            if held.diagonal == diagonal && held.taken.is_none() {
                let direction = name(stream.direction);
                return Err(FaultCause::Collision { position, stream: stream.number, direction });
            }
            made = self.hops(held);
        }
        self.slots[slot] = Some(Slot { diagonal, from: hops as u32, taken: None });
        Ok((std::mem::replace(&mut self.vectors[slot], vector), made))
    }

    /// The hops of all vectors that are still held, which are given up.
    pub fn retire(&mut self) -> u64 {
        let held: u64 = self.slots.iter().flatten().map(|&slot| self.hops(slot)).sum();
        self.slots.fill(None);
        held
    }

    fn hops(&self, slot: Slot) -> u64 {
        u64::from(slot.taken.unwrap_or(self.positions as u32 - 1) - slot.from)
    }
}

fn name(direction: Direction) -> &'static str {
    match direction {
        Direction::East => "east",
        Direction::West => "west",
    }
}
