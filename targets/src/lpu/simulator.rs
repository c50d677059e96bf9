//! Executes programs cycle by cycle: the values that the machine would compute, in the cycles that it would take.
//!
//! The rules are those of `targets/lpu/rtl/TIMING.md`, in the time of the first superlane: what goes north does so at one
//! superlane a cycle everywhere, so that vectors can be looked at as wholes. In each cycle units first read what the streams
//! bring; then what instructions of earlier cycles have made ready is driven.

mod alu;
mod counts;
mod fault;
mod lanes;
mod memory;
mod plane;
mod streams;
mod switch;

pub use counts::Counts;
pub use fault::{Fault, FaultCause};

use self::alu::AluState;
use self::memory::Memory;
use self::plane::Planes;
use self::streams::{Pending, Streams};
use super::LpuMachine;
use super::check::{ProgramError, check};
use super::isa::{Direction, Hemisphere, Operation, Queue, Queues, Reads, Row, Stream};
use super::timeline::{dispatches_with, resumes};

/// What an execution took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Execution {
    /// Cycles from the first dispatch until no superlane does anything any more.
    pub cycles: u64,
}

/// A machine with a program.
pub struct Simulator<'a> {
    machine: &'a LpuMachine,
    program: &'a Queues,
    queues: Vec<Queue>,
    memory: Memory,
    streams: Streams,
    pending: Pending,
    alus: Vec<AluState>,
    planes: Planes,
    counts: Counts,
    /// The cycle before which all that was begun is over.
    end: u64,
}

impl<'a> Simulator<'a> {
    /// A machine, which must have passed [`LpuMachine::check`], with a program and what its memory holds: slice by slice,
    /// vector by vector. Memory that is left out is zero.
    ///
    /// # Errors
    /// The program is none for this machine.
    pub fn new(machine: &'a LpuMachine, program: &'a Queues, memory: Vec<u8>) -> Result<Self, ProgramError> {
        check(program, machine)?;
        Ok(Simulator {
            machine,
            program,
            queues: machine.queues(),
            memory: Memory::new(machine, memory),
            streams: Streams::new(machine),
            pending: Pending::new(machine),
            alus: (0..machine.vxm.alus).map(|_| AluState::new(machine)).collect(),
            planes: Planes::new(machine),
            counts: Counts::default(),
            end: 0,
        })
    }

    /// The memory's bytes: slice by slice, vector by vector.
    pub fn memory(&self) -> &[u8] {
        self.memory.bytes()
    }

    /// The accumulators of all planes, in the order of their queues: row by row, words of 32 bits.
    pub fn accumulators(&self) -> Vec<u32> {
        self.planes.accumulators()
    }

    /// How much of everything the program has done so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Executes the whole program, and calls `dispatched` with the number of a queue and the cycle for each instruction but the
    /// queues' own, in the order of cycles and queues.
    ///
    /// # Errors
    /// The program does what the machine cannot do.
    pub fn run(&mut self, mut dispatched: impl FnMut(usize, u64)) -> Result<Execution, Fault> {
        let resumes = resumes(self.program, self.machine);
        let queues = self.program.0.iter().zip(&resumes);
        let mut queues: Vec<_> = queues.map(|(queue, resumes)| dispatches_with(queue, resumes).peekable()).collect();
        loop {
            let next = queues.iter_mut().filter_map(|queue| queue.peek().map(|&(cycle, _)| cycle)).min();
            let Some(cycle) = [next, self.pending.next()].into_iter().flatten().min() else { break };
            let mut operations = Vec::new();
            for (index, queue) in queues.iter_mut().enumerate() {
                let Some((_, operation)) = queue.next_if(|&(next, _)| next == cycle) else { continue };
                match operation {
                    Operation::Sync if queue.peek().is_none() => {
                        return Err(Fault { queue: Some(self.queues[index]), cycle, cause: FaultCause::NoNotify });
                    }
                    Operation::Sync => {}
                    Operation::Notify | Operation::End => {
                        dispatched(index, cycle);
                        self.end = self.end.max(cycle + 1);
                    }
                    operation => {
                        dispatched(index, cycle);
                        operations.push((self.queues[index], operation));
                    }
                }
            }
            self.cycle(cycle, operations)?;
        }
        self.memory.settle(u64::MAX);
        self.counts.hops += self.streams.retire();
        Ok(Execution { cycles: self.end + u64::from(self.machine.superlanes) - 1 })
    }

    /// What happens in a cycle, in which these instructions are dispatched.
    fn cycle(&mut self, cycle: u64, mut operations: Vec<(Queue, Operation)>) -> Result<(), Fault> {
        self.memory.settle(cycle);
        // Weights come into use for the rows of the same cycle.
        operations.sort_by_key(|(_, operation)| *operation != Operation::Install);
        for (queue, operation) in operations {
            let latency = self.execute(queue, &operation, cycle);
            let latency = latency.map_err(|cause| Fault { queue: Some(queue), cycle, cause })?;
            self.end = self.end.max(cycle + latency);
        }
        for (stream, position, vector) in self.pending.due(cycle) {
            let driven = self.streams.drive(stream, position, cycle, &vector);
            self.counts.hops += driven.map_err(|cause| Fault { queue: None, cycle, cause })?;
        }
        Ok(())
    }

    /// Executes an instruction; gives its latency.
    fn execute(&mut self, queue: Queue, operation: &Operation, cycle: u64) -> Result<u64, FaultCause> {
        match (queue, operation) {
            (Queue::Mem(slice), Operation::Mem { read, write }) => {
                self.access(slice, read.as_ref(), write.as_ref(), cycle)
            }
            (Queue::Mem(slice), Operation::Gather { addresses, to }) => self.gather(slice, *addresses, *to, cycle),
            (Queue::Alu(number), Operation::Alu(alu)) => self.alu(number, alu, cycle),
            (Queue::Load(side, plane), Operation::Load { from, column }) => {
                let vectors = self.machine.mxm.load_streams as usize;
                self.counts.weights += vectors as u64;
                for number in 0..vectors {
                    let vector = self.read(queue, *from, number, cycle)?;
                    self.planes.load(side, plane, usize::from(*column) + number, &vector);
                }
                Ok(1)
            }
            (Queue::Load(side, plane), Operation::Install) => {
                self.planes.install(side, plane);
                Ok(1)
            }
            (Queue::Multiply(side, plane), Operation::Multiply { from, row }) => {
                let low = self.read(queue, *from, 0, cycle)?;
                let high = match row {
                    Row::Bytes { .. } => None,
                    Row::Halves(_) => Some(self.read(queue, *from, 1, cycle)?),
                };
                let macs = self.planes.multiply((side, plane), *row, low, high, cycle)?;
                match row {
                    Row::Bytes { .. } => self.counts.byte_macs += macs,
                    Row::Halves(_) => self.counts.half_macs += macs,
                }
                Ok(u64::from(self.machine.mxm.latency))
            }
            (Queue::Accumulate(side, plane), Operation::Accumulate { row, add, to }) => {
                let words = self.planes.accumulate((side, plane), usize::from(*row), *add, cycle)?;
                if let Some(to) = to {
                    let words = words.to_vec();
                    for byte in 0..4 {
                        let vector = words.iter().map(|word| word.to_le_bytes()[byte]).collect();
                        self.drive_later(queue, *to, byte, cycle + 1, vector);
                    }
                }
                Ok(1)
            }
            (Queue::Shift(..), Operation::Shift { from, by, rotate, lanes, under, to }) => {
                let from = self.read(queue, *from, 0, cycle)?;
                let under = under.map(|under| self.read(queue, under, 0, cycle)).transpose()?;
                let result = switch::shift(&from, *by, *rotate, *lanes, under);
                Ok(self.switched(queue, *to, 0, cycle, result))
            }
            (Queue::Distribute(..), Operation::Distribute { from, map, to }) => {
                let from = self.read(queue, *from, 0, cycle)?;
                let result = switch::distribute(&from, map, self.machine.lanes as usize);
                Ok(self.switched(queue, *to, 0, cycle, result))
            }
            (Queue::Transpose(..), Operation::Transpose { from, to }) => {
                let lanes = self.machine.lanes as usize;
                let vectors: Result<Vec<_>, _> =
                    (0..lanes).map(|number| self.read(queue, *from, number, cycle)).collect();
                let results = switch::transpose(&vectors?, lanes);
                for (number, result) in results.into_iter().enumerate() {
                    self.switched(queue, *to, number, cycle, result);
                }
                Ok(u64::from(self.machine.sxm.latency))
            }
            _ => Err(FaultCause::OtherQueue),
        }
    }

    fn access(
        &mut self,
        slice: u8,
        read: Option<&(u16, Stream)>,
        write: Option<&(u16, Reads)>,
        cycle: u64,
    ) -> Result<u64, FaultCause> {
        let latency = u64::from(self.machine.mem.latency);
        let slice_index = usize::from(slice);
        if let Some((address, to)) = read {
            let vector = self.memory.read(slice_index, *address, cycle)?.to_vec();
            self.counts.reads += 1;
            self.drive_later(Queue::Mem(slice), *to, 0, cycle + latency, vector);
        }
        if let Some((address, from)) = write {
            let vector = self.read(Queue::Mem(slice), *from, 0, cycle)?;
            self.counts.writes += 1;
            self.memory.write(slice_index, *address, vector, cycle);
        }
        Ok(latency)
    }

    fn gather(&mut self, slice: u8, addresses: Reads, to: Stream, cycle: u64) -> Result<u64, FaultCause> {
        let queue = Queue::Mem(slice);
        let low = self.read(queue, addresses, 0, cycle)?;
        let high = self.read(queue, addresses, 1, cycle)?;
        let vector = self.memory.gather(usize::from(slice), &low, &high, cycle)?;
        self.counts.reads += 1;
        let latency = u64::from(self.machine.mem.latency);
        self.drive_later(queue, to, 0, cycle + latency, vector);
        Ok(latency)
    }

    /// Drives what a switch unit has made; gives its latency.
    fn switched(&mut self, queue: Queue, to: Stream, number: usize, cycle: u64, vector: Vec<u8>) -> u64 {
        let latency = u64::from(self.machine.sxm.latency);
        self.counts.switched += 1;
        self.drive_later(queue, to, number, cycle + latency, vector);
        latency
    }

    /// Reads the stream so many after the first, at the position of a queue's unit.
    fn read(&mut self, queue: Queue, from: Reads, number: usize, cycle: u64) -> Result<Vec<u8>, FaultCause> {
        let stream = after(from.stream, number);
        self.streams.read(stream, from.take, self.machine.position(queue), cycle).map(<[u8]>::to_vec)
    }

    /// Drives the stream so many after the first, in a cycle to come.
    fn drive_later(&mut self, queue: Queue, to: Stream, number: usize, cycle: u64, vector: Vec<u8>) {
        self.pending.add(cycle, (after(to, number), self.machine.position(queue), vector));
    }
}

/// The stream so many after the first.
fn after(first: Stream, number: usize) -> Stream {
    Stream { number: first.number + number as u8, ..first }
}

/// The number of a direction, for arrays.
fn direction_index(direction: Direction) -> usize {
    match direction {
        Direction::East => 0,
        Direction::West => 1,
    }
}

/// The number of a hemisphere, for arrays.
fn side_index(side: Hemisphere) -> usize {
    match side {
        Hemisphere::West => 0,
        Hemisphere::East => 1,
    }
}

#[cfg(test)]
mod tests;
