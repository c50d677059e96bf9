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
mod pending;
mod plane;
mod streams;
mod sums;
mod switch;
mod walk;

pub use counts::Counts;
pub use fault::{Fault, FaultCause};

use self::alu::Alus;
use self::memory::Memory;
use self::pending::Pending;
use self::plane::Planes;
use self::streams::{Found, Streams};
use self::walk::{Dispatch, Walk};
use super::LpuMachine;
use super::check::{ProgramError, check};
use super::isa::{Hemisphere, MAX_LANES, Operation, Queue, Queues, Reads, Row, Stream};
use super::timeline::resumes;

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
    /// The queues with the positions of their units.
    queues: Vec<(Queue, usize)>,
    memory: Memory,
    streams: Streams,
    pending: Pending,
    alus: Alus,
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
            queues: machine.queues().into_iter().map(|queue| (queue, machine.position(queue))).collect(),
            memory: Memory::new(machine, memory),
            streams: Streams::new(machine),
            pending: Pending::new(machine),
            alus: Alus::new(machine),
            planes: Planes::new(machine),
            counts: Counts::default(),
            end: 0,
        })
    }

    /// The memory's bytes: slice by slice, vector by vector. After a fault there may be more in it than was visible when the
    /// machine stopped.
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
        let mut walk = Walk::new(self.program, &resumes);
        let mut dispatches = Vec::new();
        while let Some(cycle) = [walk.next(), self.pending.next()].into_iter().flatten().min() {
            dispatches.clear();
            for queue in 0..walk.queues() {
                let Some(dispatch) = walk.dispatch(queue, cycle) else { continue };
                match dispatch.kind() {
                    Operation::Sync if walk.is_over(queue) => {
                        let queue = self.queues.get(queue).map(|&(queue, _)| queue);
                        return Err(Fault { queue, cycle, cause: FaultCause::NoNotify });
                    }
                    Operation::Sync => {}
                    Operation::Notify | Operation::End => {
                        dispatched(queue, cycle);
                        self.end = self.end.max(cycle + 1);
                    }
                    _ => {
                        dispatched(queue, cycle);
                        dispatches.push(dispatch);
                    }
                }
            }
            self.cycle(cycle, &dispatches)?;
        }
        self.counts.hops += self.streams.retire();
        Ok(Execution { cycles: self.end + u64::from(self.machine.superlanes) - 1 })
    }

    /// What happens in a cycle, in which these instructions are dispatched.
    fn cycle(&mut self, cycle: u64, dispatches: &[Dispatch<'_>]) -> Result<(), Fault> {
        self.streams.begin(cycle);
        let is_install = |dispatch: &&Dispatch<'_>| *dispatch.kind() == Operation::Install;
        // Weights come into use for the rows of the same cycle.
        let (installs, others) =
            (dispatches.iter().filter(is_install), dispatches.iter().filter(|dispatch| !is_install(dispatch)));
        for dispatch in installs.chain(others) {
            let (queue, position) = self.queues[dispatch.queue];
            let latency = self.execute(queue, position, &dispatch.operation(), cycle);
            let latency = latency.map_err(|cause| Fault { queue: Some(queue), cycle, cause })?;
            self.end = self.end.max(cycle + latency);
        }
        let mut due = self.pending.due(cycle);
        for (stream, position, vector) in due.drain(..) {
            let driven = self.streams.drive(stream, position, vector);
            let (before, hops) = driven.map_err(|cause| Fault { queue: None, cycle, cause })?;
            self.counts.hops += hops;
            self.pending.give_back(before);
        }
        self.pending.over(cycle, due);
        Ok(())
    }

    /// Executes an instruction of a queue whose unit stands at a position; gives its latency.
    fn execute(&mut self, queue: Queue, position: usize, operation: &Operation, cycle: u64) -> Result<u64, FaultCause> {
        match (queue, operation) {
            (Queue::Mem(slice), Operation::Mem { read, write }) => {
                self.access((slice, position), read.as_ref(), write.as_ref(), cycle)
            }
            (Queue::Mem(slice), Operation::Gather { addresses, to }) => {
                self.gather((slice, position), *addresses, *to, cycle)
            }
            (Queue::Alu(number), Operation::Alu(alu)) => self.alu(number, alu, position, cycle),
            (Queue::Load(side, plane), Operation::Load { from, column }) => {
                let vectors = self.machine.mxm.load_streams as usize;
                self.counts.weights += vectors as u64;
                for number in 0..vectors {
                    let found = self.streams.read(after(from.stream, number), from.take, position)?;
                    self.planes.load(side, plane, usize::from(*column) + number, self.streams.vector(found));
                }
                Ok(1)
            }
            (Queue::Load(side, plane), Operation::Install) => {
                self.planes.install(side, plane);
                Ok(1)
            }
            (Queue::Multiply(side, plane), Operation::Multiply { from, row }) => {
                self.multiply((side, plane), position, *from, *row, cycle)
            }
            (Queue::Accumulate(side, plane), Operation::Accumulate { row, add, to }) => {
                let words = self.planes.accumulate((side, plane), usize::from(*row), *add, cycle)?;
                if let Some(to) = to {
                    for byte in 0..4 {
                        let vector = self.pending.add(cycle + 1, after(*to, byte), position);
                        vector.iter_mut().zip(words).for_each(|(lane, word)| *lane = (word >> (8 * byte)) as u8);
                    }
                }
                Ok(1)
            }
            (
                Queue::Shift(..) | Queue::Distribute(..) | Queue::Transpose(..),
                Operation::Shift { .. } | Operation::Distribute { .. } | Operation::Transpose { .. },
            ) => self.switch(operation, position, cycle),
            _ => Err(FaultCause::OtherQueue),
        }
    }

    fn access(
        &mut self,
        (slice, position): (u8, usize),
        read: Option<&(u16, Stream)>,
        write: Option<&(u16, Reads)>,
        cycle: u64,
    ) -> Result<u64, FaultCause> {
        let latency = u64::from(self.machine.mem.latency);
        let slice = usize::from(slice);
        if let Some((address, to)) = read {
            let vector = self.memory.read(slice, *address, cycle)?;
            self.counts.reads += 1;
            self.pending.add(cycle + latency, *to, position).copy_from_slice(vector);
        }
        if let Some((address, from)) = write {
            let found = self.streams.read(from.stream, from.take, position)?;
            self.counts.writes += 1;
            self.memory.write(slice, *address, self.streams.vector(found), cycle);
        }
        Ok(latency)
    }

    fn gather(
        &mut self,
        (slice, position): (u8, usize),
        addresses: Reads,
        to: Stream,
        cycle: u64,
    ) -> Result<u64, FaultCause> {
        let slice = usize::from(slice);
        let latency = u64::from(self.machine.mem.latency);
        let low = self.streams.read(addresses.stream, addresses.take, position)?;
        let high = self.streams.read(after(addresses.stream, 1), addresses.take, position)?;
        self.memory.check_gather(slice, cycle)?;
        self.counts.reads += 1;
        let vector = self.pending.add(cycle + latency, to, position);
        self.memory.gather(slice, self.streams.vector(low), self.streams.vector(high), vector);
        Ok(latency)
    }

    fn multiply(
        &mut self,
        plane: (Hemisphere, u8),
        position: usize,
        from: Reads,
        row: Row,
        cycle: u64,
    ) -> Result<u64, FaultCause> {
        let low = self.streams.read(from.stream, from.take, position)?;
        let high = match row {
            Row::Bytes { .. } => None,
            Row::Halves(_) => Some(self.streams.read(after(from.stream, 1), from.take, position)?),
        };
        let high = high.map_or(&[][..], |high| self.streams.vector(high));
        let macs = self.planes.multiply(plane, row, self.streams.vector(low), high, cycle)?;
        match row {
            Row::Bytes { .. } => self.counts.byte_macs += macs,
            Row::Halves(_) => self.counts.half_macs += macs,
        }
        Ok(u64::from(self.machine.mxm.latency))
    }

    /// Executes an instruction of a switch unit; gives its latency.
    fn switch(&mut self, operation: &Operation, position: usize, cycle: u64) -> Result<u64, FaultCause> {
        let (lanes, latency) = (self.machine.lanes as usize, u64::from(self.machine.sxm.latency));
        let Self { streams, pending, counts, .. } = self;
        match operation {
            Operation::Shift { from, by, rotate, lanes, under, to } => {
                let from = streams.read(from.stream, from.take, position)?;
                let under = under.map(|under| streams.read(under.stream, under.take, position)).transpose()?;
                let (from, under) = (streams.vector(from), under.map(|under| streams.vector(under)));
                switch::shift(from, *by, *rotate, *lanes, under, pending.add(cycle + latency, *to, position));
                counts.switched += 1;
            }
            Operation::Distribute { from, map, to } => {
                let from = streams.read(from.stream, from.take, position)?;
                let result = pending.add(cycle + latency, *to, position);
                switch::distribute(streams.vector(from), map, lanes, result);
                counts.switched += 1;
            }
            Operation::Transpose { from, to } => {
                let mut found = [Found::default(); MAX_LANES];
                for (number, found) in found.iter_mut().enumerate().take(lanes) {
                    *found = streams.read(after(from.stream, number), from.take, position)?;
                }
                let vectors = found.map(|found| streams.vector(found));
                for number in 0..lanes {
                    let result = pending.add(cycle + latency, after(*to, number), position);
                    switch::transpose(&vectors[..lanes], number, result);
                    counts.switched += 1;
                }
            }
            _ => return Err(FaultCause::OtherQueue),
        }
        Ok(latency)
    }
}

/// The stream so many after the first.
fn after(first: Stream, number: usize) -> Stream {
    Stream { number: first.number + number as u8, ..first }
}

#[cfg(test)]
mod tests;
