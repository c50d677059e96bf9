//! Flows: work whose instructions have fixed distances in time, before it is known when it begins and on which streams and
//! units it runs.
//!
//! A flow is built from where vectors start and are needed: the times at which memory must read, and at which what moves on
//! streams comes by, follow from positions. What moves on the same stream (or on as many as an element has bytes) one after
//! another is a *train*.

use smallvec::SmallVec;

use super::timetable::Pattern;
use crate::lpu::LpuMachine;
use crate::lpu::isa::{Direction, Hemisphere, Operation, Queue, Reads, Stream};
use crate::lpu::layout::Place;

/// A train of a flow: what stands for the number of its first stream until that is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::lpu) struct TrainId(pub u8);

/// Vectors that follow each other on some streams of one direction.
#[derive(Clone, Debug)]
pub(super) struct Train {
    pub direction: Direction,
    /// Consecutive streams.
    pub width: usize,
    /// The halves of the chip that it touches: west and east of the vector unit.
    pub halves: [bool; 2],
    /// Cycles in which its vectors are, or would be, at position 0.
    diagonals: Vec<i64>,
    /// The pattern of the diagonals.
    pub pattern: Pattern,
    /// The position where it begins.
    from: usize,
    /// Positions that its vectors move by, altogether, once for each stream.
    pub hops: u64,
    /// What it is a part of, if it only stands for some streams of another.
    pub part_of: Option<(TrainId, u8)>,
}

/// Units of which any one will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lpu) enum Pool {
    /// ALUs. In operations, their numbers are those within the flow.
    Alu(u8),
    /// Shifters of a side.
    Shift(Hemisphere),
    /// Distributors of a side.
    Distribute(Hemisphere),
    /// Transposers of a side.
    Transpose(Hemisphere),
    /// This one alone.
    Only(Queue),
}

impl Pool {
    /// Units that it has.
    fn size(self, machine: &LpuMachine) -> usize {
        let count = match self {
            Pool::Alu(_) => machine.vxm.alus,
            Pool::Shift(_) => machine.sxm.shifters,
            Pool::Distribute(_) => machine.sxm.distributors,
            Pool::Transpose(_) => machine.sxm.transposers,
            // Its instructions may be told in several parts.
            Pool::Only(_) => u32::MAX,
        };
        count as usize
    }
}

/// A unit's part in a flow.
#[derive(Clone, Debug)]
pub(super) struct UnitUse {
    pub pool: Pool,
    pub pattern: Pattern,
    /// Instructions by cycle; streams have the numbers of trains, ALUs those within the flow.
    pub operations: Vec<(i64, Operation)>,
}

/// What memory does with a train.
#[derive(Clone, Copy, Debug)]
pub(super) enum Access {
    Read {
        train: TrainId,
        plane: u8,
    },
    Write {
        train: TrainId,
        plane: u8,
        take: bool,
    },
    /// The addresses lie among so many from the access's own on; none if nobody ever writes there.
    Gather {
        addresses: TrainId,
        take: bool,
        to: TrainId,
        among: u16,
    },
}

/// A slice's part in a flow.
#[derive(Clone, Debug)]
pub(super) struct SliceUse {
    pub slice: u8,
    pub accesses: Vec<(i64, u16, Access)>,
    pub reads: Pattern,
    pub writes: Pattern,
    /// By bank.
    pub banks: Vec<Pattern>,
}

/// A flow, ready to be placed.
#[derive(Clone, Debug)]
pub(in crate::lpu) struct Flow {
    pub(super) trains: Vec<Train>,
    pub(super) units: Vec<UnitUse>,
    pub(super) slices: Vec<SliceUse>,
    /// The earliest cycle of all instructions.
    pub(super) first: i64,
}

/// What cannot be: a flow that wants one thing twice in a cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::lpu) enum Clash {
    /// A slice.
    #[error("slice {0} would be needed twice in a cycle")]
    Slice(u8),
    /// A unit.
    #[error("a unit would be needed twice in a cycle")]
    Unit,
    /// A stream.
    #[error("a stream would be needed twice in a cycle")]
    Stream,
    /// Too many trains.
    #[error("a flow has too many trains")]
    Trains,
}

/// Builds a flow.
#[derive(Clone, Debug)]
pub(in crate::lpu) struct FlowBuilder<'m> {
    machine: &'m LpuMachine,
    trains: Vec<Train>,
    units: Vec<(Pool, Vec<(i64, Operation)>)>,
    accesses: Vec<(u8, i64, u16, Access)>,
}

/// The planes of an element in memory.
pub(in crate::lpu) type Planes = SmallVec<[Place; 4]>;

impl<'m> FlowBuilder<'m> {
    pub fn new(machine: &'m LpuMachine) -> Self {
        FlowBuilder { machine, trains: Vec::new(), units: Vec::new(), accesses: Vec::new() }
    }

    fn slice_position(&self, slice: u8) -> usize {
        self.machine.position(Queue::Mem(slice))
    }

    fn middle(&self) -> usize {
        self.machine.position(Queue::Alu(0))
    }

    /// Which way from one position to another.
    pub fn direction(from: usize, to: usize) -> Direction {
        if from < to { Direction::East } else { Direction::West }
    }

    /// A train that begins at a position. Its vectors come with [`FlowBuilder::drive`], or from memory.
    pub fn train(&mut self, direction: Direction, width: usize, from: usize) -> TrainId {
        let id = TrainId(self.trains.len().min(255) as u8);
        self.trains.push(Train {
            direction,
            width,
            halves: [false; 2],
            diagonals: Vec::new(),
            pattern: Pattern::default(),
            from,
            hops: 0,
            part_of: None,
        });
        id
    }

    /// What stands for the streams of a train from one of them on.
    pub fn plane(&mut self, train: TrainId, plane: u8) -> TrainId {
        let (direction, from) = (self.direction_of(train), self.origin(train));
        let id = self.train(direction, 0, from);
        self.trains[usize::from(id.0)].part_of = Some((train, plane));
        id
    }

    /// A vector (of each stream) of a train that is at `from` in `cycle` and goes on until `to`.
    pub fn drive(&mut self, train: TrainId, from: usize, cycle: i64, to: usize) {
        let middle = self.middle();
        let train = &mut self.trains[usize::from(train.0)];
        let (low, high) = (from.min(to), from.max(to));
        train.halves[0] |= low < middle;
        train.halves[1] |= high > middle;
        train.diagonals.push(match train.direction {
            Direction::East => cycle - from as i64,
            Direction::West => cycle + from as i64,
        });
        train.hops += ((high - low) * train.width) as u64;
    }

    /// As [`FlowBuilder::drive`], with streams that end at different positions, of which the first may be the farthest or not.
    pub fn drive_each(&mut self, train: TrainId, from: usize, cycle: i64, ends: &[usize]) {
        let far = ends.iter().copied().max_by_key(|end| end.abs_diff(from)).unwrap_or(from);
        self.drive(train, from, cycle, far);
        let own: u64 = ends.iter().map(|end| end.abs_diff(from) as u64).sum();
        let Train { hops, width, .. } = &mut self.trains[usize::from(train.0)];
        *hops = *hops + own - (*width * far.abs_diff(from)) as u64;
    }

    /// Vectors of a train, one on each of its streams, that begin at different positions so that they are at `to` in a cycle.
    pub fn drive_from_each(&mut self, train: TrainId, from: &[usize], cycle: i64, to: usize) {
        let far = from.iter().copied().max_by_key(|position| position.abs_diff(to)).unwrap_or(to);
        self.drive(train, far, cycle - far.abs_diff(to) as i64, to);
        let own: u64 = from.iter().map(|position| position.abs_diff(to) as u64).sum();
        let Train { hops, width, .. } = &mut self.trains[usize::from(train.0)];
        *hops = *hops + own - (*width * far.abs_diff(to)) as u64;
    }

    /// Has memory read elements so that they are at `to` in the given cycles, on a train of as many streams as an element has
    /// planes. All slices must be on one side of `to`, and `to` is where they are taken.
    pub fn load(&mut self, to: usize, steps: impl IntoIterator<Item = (i64, Planes)>) -> TrainId {
        let latency = i64::from(self.machine.mem.latency);
        let mut train = None;
        for (cycle, planes) in steps {
            let positions: SmallVec<[usize; 4]> = planes.iter().map(|place| self.slice_position(place.slice)).collect();
            let id = *train.get_or_insert_with(|| {
                let direction = Self::direction(positions.first().copied().unwrap_or(to), to);
                self.train(direction, planes.len(), to)
            });
            self.drive_from_each(id, &positions, cycle, to);
            for (plane, (place, position)) in planes.iter().zip(&positions).enumerate() {
                let dispatch = cycle - position.abs_diff(to) as i64 - latency;
                let access = Access::Read { train: id, plane: plane as u8 };
                self.accesses.push((place.slice, dispatch, place.address, access));
            }
        }
        train.unwrap_or_else(|| self.train(Direction::East, 1, to))
    }

    /// Has memory write what a unit at `from` drives in the given cycles onto a new train, which is returned.
    pub fn store(&mut self, from: usize, steps: impl IntoIterator<Item = (i64, Planes)>) -> TrainId {
        let mut train = None;
        for (cycle, planes) in steps {
            let id = *train.get_or_insert_with(|| {
                let to = planes.first().map_or(from, |place| self.slice_position(place.slice));
                self.train(Self::direction(from, to), planes.len(), from)
            });
            self.store_step(id, from, cycle, &planes);
        }
        train.unwrap_or_else(|| self.train(Direction::East, 1, from))
    }

    /// Has memory write the planes of an element that is driven at `from` in a cycle, on a train that is there already.
    pub fn store_step(&mut self, train: TrainId, from: usize, cycle: i64, planes: &[Place]) {
        let ends: SmallVec<[usize; 4]> = planes.iter().map(|place| self.slice_position(place.slice)).collect();
        self.drive_each(train, from, cycle, &ends);
        for (plane, (place, end)) in planes.iter().zip(&ends).enumerate() {
            let access = Access::Write { train, plane: plane as u8, take: true };
            self.accesses.push((place.slice, cycle + end.abs_diff(from) as i64, place.address, access));
        }
    }

    /// Has a slice gather: `addresses` come by in `cycle`; the result is driven onto `to`. The addresses are among so many from
    /// that of the place on; none if what is there is never written.
    pub fn gather(&mut self, place: Place, among: u16, cycle: i64, addresses: TrainId, take: bool, to: TrainId) {
        self.accesses.push((place.slice, cycle, place.address, Access::Gather { addresses, take, to, among }));
    }

    /// Slices that gather at once: the same addresses come to all of them, on a train that ends in `cycle` at the one that is
    /// nearest to `to`, and what they drive, one stream each, is at `to` in the cycle that is returned.
    pub fn gather_all(
        &mut self,
        places: &[Place],
        among: u16,
        to: usize,
        cycle: i64,
        (addresses, data): (TrainId, &[TrainId]),
    ) -> i64 {
        let distance = |place: &Place| self.slice_position(place.slice).abs_diff(to);
        let distances: Vec<usize> = places.iter().map(distance).collect();
        let near = distances.iter().copied().min().unwrap_or(0);
        for ((place, &train), &distance) in places.iter().zip(data).zip(&distances) {
            self.gather(*place, among, cycle - (distance - near) as i64, addresses, distance == near, train);
        }
        cycle + i64::from(self.machine.mem.latency) + near as i64
    }

    /// A unit's instructions, by cycle.
    pub fn unit(&mut self, pool: Pool, operations: Vec<(i64, Operation)>) {
        if !operations.is_empty() {
            self.units.push((pool, operations));
        }
    }

    /// The flow.
    ///
    /// # Errors
    /// It wants one thing twice in a cycle.
    pub fn finish(self) -> Result<Flow, Clash> {
        let FlowBuilder { machine, mut trains, units, mut accesses } = self;
        if trains.len() > 255 {
            return Err(Clash::Trains);
        }
        for train in &mut trains {
            train.pattern = Pattern::new(std::mem::take(&mut train.diagonals)).ok_or(Clash::Stream)?;
        }
        let mut first = i64::MAX;
        let units = units.into_iter().map(|(pool, operations)| {
            let cycles = operations.iter().map(|&(cycle, _)| cycle);
            first = cycles.clone().fold(first, i64::min);
            Ok(UnitUse { pool, pattern: Pattern::new(cycles).ok_or(Clash::Unit)?, operations })
        });
        let units = units.collect::<Result<Vec<_>, Clash>>()?;
        // What has more of a kind than there are would be looked for a place for ever.
        let lacks = |unit: &UnitUse| {
            let wanted = units.iter().filter(|other| match (unit.pool, other.pool) {
                (Pool::Alu(_), Pool::Alu(_)) => true,
                (own, other) => own == other,
            });
            wanted.count() > unit.pool.size(machine)
        };
        if units.iter().any(lacks) {
            return Err(Clash::Unit);
        }
        accesses.sort_by_key(|&(slice, cycle, ..)| (slice, cycle));
        let latency = i64::from(machine.mem.latency);
        let mut slices = Vec::new();
        for accesses in accesses.chunk_by(|a, b| a.0 == b.0) {
            let slice = accesses[0].0;
            let (mut reads, mut writes) = (Vec::new(), Vec::new());
            let mut banks = vec![Vec::new(); machine.mem.banks as usize];
            for &(_, cycle, address, access) in accesses {
                first = first.min(cycle);
                match access {
                    Access::Read { .. } => {
                        reads.push(cycle);
                        banks[usize::from(address) / machine.mem.words as usize].push(cycle);
                    }
                    Access::Write { .. } => {
                        writes.push(cycle);
                        banks[usize::from(address) / machine.mem.words as usize].push(cycle);
                    }
                    Access::Gather { .. } => {
                        reads.push(cycle);
                        banks.iter_mut().for_each(|bank| bank.push(cycle));
                        // No write may be on its way.
                        writes.extend((1 - latency..=0).map(|before| cycle + before));
                    }
                }
            }
            if accesses.iter().any(|access| matches!(access.3, Access::Gather { .. })) {
                writes.sort_unstable();
                writes.dedup();
            }
            let pattern = |cycles: Vec<i64>| Pattern::new(cycles).ok_or(Clash::Slice(slice));
            slices.push(SliceUse {
                slice,
                accesses: accesses.iter().map(|&(_, cycle, address, access)| (cycle, address, access)).collect(),
                reads: pattern(reads)?,
                writes: pattern(writes)?,
                banks: banks.into_iter().map(pattern).collect::<Result<_, _>>()?,
            });
        }
        Ok(Flow { trains, units, slices, first: if first == i64::MAX { 0 } else { first } })
    }
}

/// A read, with take, of a train.
pub(in crate::lpu) fn taking(train: TrainId, direction: Direction) -> Reads {
    Reads { stream: on(train, direction), take: true }
}

/// A train's first stream, as operations name it before it is chosen.
pub(in crate::lpu) fn on(train: TrainId, direction: Direction) -> Stream {
    Stream { direction, number: train.0 }
}

impl FlowBuilder<'_> {
    /// Which way a train goes.
    pub fn direction_of(&self, train: TrainId) -> Direction {
        self.trains[usize::from(train.0)].direction
    }

    /// A read, with take, of a train.
    pub fn take(&self, train: TrainId) -> Reads {
        taking(train, self.direction_of(train))
    }

    /// Where a train begins.
    pub fn origin(&self, train: TrainId) -> usize {
        self.trains[usize::from(train.0)].from
    }

    /// A train's first stream.
    pub fn stream(&self, train: TrainId) -> Stream {
        on(train, self.direction_of(train))
    }
}
