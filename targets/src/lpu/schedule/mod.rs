//! The schedule: which instruction is dispatched in which cycle.
//!
//! Work comes as flows in the order of the program. Each is placed at the first cycle in which its operands are in memory, what
//! it overwrites was read, and all that it takes (ports of slices and banks, units, streams with the vectors of every cycle) is
//! free; so what comes later in the program fills gaps that what came before has left.

mod flow;
mod timetable;

use flow::{Access, Train, UnitUse};
pub(in crate::lpu) use flow::{Clash, Flow, FlowBuilder, Planes, Pool, TrainId};
use timetable::Row;

use super::LpuMachine;
use super::emit::Placed;
use super::isa::{Operand, Operation, Queue, Reads, Row as PlaneRow, Stream};
use super::layout::Place;
use super::simulator::Counts;

/// When memory was, or will be, accessed.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    /// From when on reads see what was written last.
    ready: u32,
    /// The cycle behind the last access.
    free: u32,
}

/// A schedule that grows.
pub(in crate::lpu) struct Schedule<'m> {
    machine: &'m LpuMachine,
    streams: Vec<Row>,
    slices: Vec<Slice>,
    /// In the order of the machine's queues.
    units: Vec<Row>,
    cells: Vec<Cell>,
    depth: usize,
    placed: Vec<Placed>,
    counts: Counts,
}

#[derive(Clone, Debug, Default)]
struct Slice {
    reads: Row,
    writes: Row,
    banks: Vec<Row>,
}

/// Where a flow has been put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lpu) struct Start(pub i64);

impl<'m> Schedule<'m> {
    pub fn new(machine: &'m LpuMachine) -> Self {
        let depth = (machine.mem.banks * machine.mem.words) as usize;
        let slices = 2 * machine.mem.slices as usize;
        let slice = Slice { banks: vec![Row::default(); machine.mem.banks as usize], ..Slice::default() };
        Schedule {
            machine,
            streams: vec![Row::default(); 4 * machine.streams as usize],
            slices: vec![slice; slices],
            units: vec![Row::default(); machine.queues().len()],
            cells: vec![Cell::default(); slices * depth],
            depth,
            placed: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// All instructions, in no order, and how much of everything they do.
    pub fn finish(self) -> (Vec<Placed>, Counts) {
        (self.placed, self.counts)
    }

    fn cell(&self, slice: u8, address: u16) -> usize {
        usize::from(slice) * self.depth + usize::from(address)
    }

    /// From when on a vector can be read.
    pub fn ready(&self, place: Place) -> u64 {
        u64::from(self.cells[self.cell(place.slice, place.address)].ready)
    }

    /// From when on so many vectors may be written.
    pub fn free_from(&self, place: Place, count: usize) -> u32 {
        let first = self.cell(place.slice, place.address);
        self.cells[first..first + count].iter().map(|cell| cell.free.max(cell.ready)).max().unwrap_or(0)
    }

    /// Says that a vector is read until a cycle.
    pub fn hold(&mut self, place: Place, until: u64) {
        let cell = self.cell(place.slice, place.address);
        self.cells[cell].free = self.cells[cell].free.max(until as u32);
    }

    /// Puts a flow at the first cycle from `earliest` on in which it can start.
    pub fn place(&mut self, flow: &Flow, earliest: i64, kernel: u32) -> Start {
        let mut start = earliest.max(-flow.first);
        for slice in &flow.slices {
            for &(cycle, address, access) in &slice.accesses {
                let at = self.cell(slice.slice, address);
                let from = match access {
                    Access::Read { .. } => self.cells[at].ready,
                    Access::Write { .. } => self.cells[at].free,
                    Access::Gather { among, .. } => {
                        self.cells[at..at + usize::from(among)].iter().map(|cell| cell.ready).max().unwrap_or(0)
                    }
                };
                start = start.max(i64::from(from) - cycle);
            }
        }
        loop {
            start = self.fixed_fit(flow, start);
            // Where streams are few, those of one flow may fit only from one end.
            let chosen = self.choose(flow, start, true).or_else(|| self.choose(flow, start, false));
            if let Some((streams, units)) = chosen {
                self.commit(flow, start, &streams, &units, kernel);
                return Start(start);
            }
            start += 1;
        }
    }

    /// The first cycle from which on all that a flow cannot choose is free.
    fn fixed_fit(&self, flow: &Flow, mut start: i64) -> i64 {
        loop {
            let before = start;
            for slice in &flow.slices {
                let rows = &self.slices[usize::from(slice.slice)];
                start = rows.reads.next_fit(&slice.reads, start);
                start = rows.writes.next_fit(&slice.writes, start);
                for (row, pattern) in rows.banks.iter().zip(&slice.banks) {
                    start = row.next_fit(pattern, start);
                }
            }
            for unit in &flow.units {
                if let Pool::Only(queue) = unit.pool {
                    start = self.units[self.machine.queue_index(queue)].next_fit(&unit.pattern, start);
                }
            }
            if start == before {
                return start;
            }
        }
    }

    /// Streams and units that are free for a flow which starts in a cycle.
    fn choose(&self, flow: &Flow, start: i64, from_both_ends: bool) -> Option<(Vec<u8>, Vec<Queue>)> {
        let mut streams: Vec<u8> = Vec::with_capacity(flow.trains.len());
        for (index, train) in flow.trains.iter().enumerate() {
            if let Some((whole, plane)) = train.part_of {
                streams.push(streams[usize::from(whole.0)] + plane);
                continue;
            }
            let step = train.width.next_power_of_two();
            let is_free = |&first: &usize| {
                self.is_free(train, first, start)
                    && !flow.trains[..index].iter().zip(&streams).any(|(other, &taken)| {
                        let taken = usize::from(taken);
                        let meet = first < taken + other.width && taken < first + train.width;
                        let same = other.direction == train.direction
                            && (0..2).any(|half| other.halves[half] && train.halves[half]);
                        meet && same
                    })
            };
            // Wide trains from one end, narrow ones from the other, so that these leave room for those.
            let all = self.machine.streams as usize;
            let mut places = (0..all.saturating_sub(train.width) + 1).step_by(step);
            let found = if 4 * train.width > all || !from_both_ends {
                places.find(is_free)
            } else {
                places.rev().find(is_free)
            };
            streams.push(found? as u8);
        }
        let mut units: Vec<Queue> = Vec::with_capacity(flow.units.len());
        for (index, unit) in flow.units.iter().enumerate() {
            let free = |queue: Queue| {
                let taken = flow.units[..index].iter().zip(&units).any(|(_, &other)| other == queue);
                (!taken && self.units[self.machine.queue_index(queue)].fits(&unit.pattern, start)).then_some(queue)
            };
            let found = match unit.pool {
                Pool::Only(queue) => Some(queue),
                Pool::Alu(_) => (0..self.machine.vxm.alus as u8).find_map(|alu| free(Queue::Alu(alu))),
                Pool::Shift(side) => {
                    (0..self.machine.sxm.shifters as u8).find_map(|unit| free(Queue::Shift(side, unit)))
                }
                Pool::Distribute(side) => {
                    (0..self.machine.sxm.distributors as u8).find_map(|unit| free(Queue::Distribute(side, unit)))
                }
                Pool::Transpose(side) => {
                    (0..self.machine.sxm.transposers as u8).find_map(|unit| free(Queue::Transpose(side, unit)))
                }
            };
            units.push(found?);
        }
        Some((streams, units))
    }

    /// The rows of a stream in the halves that a train touches.
    fn stream_rows(&self, train: &Train, number: usize) -> impl Iterator<Item = usize> + use<> {
        let first = 2 * (train.direction.index() * self.machine.streams as usize + number);
        let halves = train.halves;
        (0..2).filter(move |&half| halves[half]).map(move |half| first + half)
    }

    fn is_free(&self, train: &Train, first: usize, start: i64) -> bool {
        (first..first + train.width)
            .all(|number| self.stream_rows(train, number).all(|row| self.streams[row].fits(&train.pattern, start)))
    }

    fn commit(&mut self, flow: &Flow, start: i64, streams: &[u8], units: &[Queue], kernel: u32) {
        for (train, &first) in flow.trains.iter().zip(streams) {
            self.counts.hops += train.hops;
            for number in usize::from(first)..usize::from(first) + train.width {
                for row in self.stream_rows(train, number) {
                    self.streams[row].take(&train.pattern, start);
                }
            }
        }
        // ALUs of the flow by their numbers in it.
        let mut alus = [0u8; 256];
        for (unit, queue) in flow.units.iter().zip(units) {
            if let (Pool::Alu(own), Queue::Alu(chosen)) = (unit.pool, queue) {
                alus[usize::from(own)] = *chosen;
            }
        }
        for (UnitUse { pattern, operations, .. }, &queue) in flow.units.iter().zip(units) {
            let row = self.machine.queue_index(queue);
            self.units[row].take(pattern, start);
            for &(cycle, mut operation) in operations {
                resolve(&mut operation, streams, &alus);
                self.count(&operation);
                self.placed.push(Placed { queue, cycle: (cycle + start) as u64, operation, kernel });
            }
        }
        let latency = self.machine.mem.latency;
        for slice in &flow.slices {
            let rows = &mut self.slices[usize::from(slice.slice)];
            rows.reads.take(&slice.reads, start);
            rows.writes.take(&slice.writes, start);
            rows.banks.iter_mut().zip(&slice.banks).for_each(|(row, pattern)| row.take(pattern, start));
            for &(cycle, address, access) in &slice.accesses {
                let cycle = (cycle + start) as u64;
                let stream = |train: TrainId, plane: u8| Stream {
                    direction: flow.trains[usize::from(train.0)].direction,
                    number: streams[usize::from(train.0)] + plane,
                };
                let cell = usize::from(slice.slice) * self.depth + usize::from(address);
                let operation = match access {
                    Access::Read { train, plane } => {
                        self.counts.reads += 1;
                        self.cells[cell].free = self.cells[cell].free.max(cycle as u32 + 1);
                        Operation::Mem { read: Some((address, stream(train, plane))), write: None }
                    }
                    Access::Write { train, plane, take } => {
                        self.counts.writes += 1;
                        let after = cycle as u32 + latency;
                        self.cells[cell] = Cell { ready: after, free: after };
                        let from = Reads { stream: stream(train, plane), take };
                        Operation::Mem { read: None, write: Some((address, from)) }
                    }
                    Access::Gather { addresses, take, to, among } => {
                        self.counts.reads += 1;
                        for cell in &mut self.cells[cell..cell + usize::from(among)] {
                            cell.free = cell.free.max(cycle as u32 + 1);
                        }
                        let addresses = Reads { stream: stream(addresses, 0), take };
                        Operation::Gather { addresses, to: stream(to, 0) }
                    }
                };
                self.placed.push(Placed { queue: Queue::Mem(slice.slice), cycle, operation, kernel });
            }
        }
    }

    fn count(&mut self, operation: &Operation) {
        let vector = self.machine.vector() as u64;
        match operation {
            Operation::Alu(_) => self.counts.computed += 1,
            Operation::Load { .. } => self.counts.weights += u64::from(self.machine.mxm.load_streams),
            Operation::Multiply { row: PlaneRow::Bytes { .. }, .. } => self.counts.byte_macs += vector * vector,
            Operation::Multiply { row: PlaneRow::Halves(_), .. } => self.counts.half_macs += vector * vector / 2,
            Operation::Shift { .. } | Operation::Distribute { .. } => self.counts.switched += 1,
            Operation::Transpose { .. } => self.counts.switched += u64::from(self.machine.lanes),
            Operation::Nop(_)
            | Operation::Repeat { .. }
            | Operation::Sync
            | Operation::Notify
            | Operation::End
            | Operation::Mem { .. }
            | Operation::Gather { .. }
            | Operation::Install
            | Operation::Accumulate { .. } => {}
        }
    }
}

/// Puts the streams and ALUs that were chosen into an operation that names trains and ALUs of its flow.
fn resolve(operation: &mut Operation, streams: &[u8], alus: &[u8; 256]) {
    let stream = |stream: &mut Stream| stream.number = streams[usize::from(stream.number)];
    match operation {
        Operation::Alu(alu) => {
            for operand in alu.function.operands_mut() {
                match operand {
                    Operand::Stream(reads, _) => stream(&mut reads.stream),
                    Operand::Alu(number) => *number = alus[usize::from(*number)],
                    Operand::Number(_) => {}
                }
            }
            if let Some((to, _)) = &mut alu.result {
                stream(to);
            }
        }
        Operation::Load { from, .. } | Operation::Multiply { from, .. } => stream(&mut from.stream),
        Operation::Accumulate { to, .. } => to.iter_mut().for_each(stream),
        Operation::Shift { from, under, to, .. } => {
            stream(&mut from.stream);
            under.iter_mut().for_each(|under| stream(&mut under.stream));
            stream(to);
        }
        Operation::Distribute { from, to, .. } | Operation::Transpose { from, to } => {
            stream(&mut from.stream);
            stream(to);
        }
        Operation::Nop(_)
        | Operation::Repeat { .. }
        | Operation::Sync
        | Operation::Notify
        | Operation::End
        | Operation::Mem { .. }
        | Operation::Gather { .. }
        | Operation::Install => {}
    }
}
