//! What instructions keep busy, and what is counted of it.

use super::super::SimtMachine;
use super::super::machine::Pipe;

/// Parts of a cycle in which servers of memory keep time.
pub(super) const TICKS: u64 = 1024;

/// Something that can be busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// The schedulers' issue slots.
    Issue,
    /// Pipelines for binary32.
    F32,
    /// Pipelines for binary64.
    F64,
    /// Pipelines for integers, comparisons and selections.
    I32,
    /// Pipelines for roots, exponentials and conversions of class.
    Special,
    /// Pipelines that take loads, stores and shuffles.
    Memory,
    /// Matrix units.
    Tensor,
    /// Banks of shared memory.
    Shared,
    /// The cache of a multiprocessor.
    L1,
    /// The part of the common cache's bandwidth that a multiprocessor has.
    L2,
    /// The part of the memory's bandwidth that a multiprocessor has.
    Dram,
}

impl Resource {
    /// All of them.
    pub const ALL: [Resource; 11] = [
        Resource::Issue,
        Resource::F32,
        Resource::F64,
        Resource::I32,
        Resource::Special,
        Resource::Memory,
        Resource::Tensor,
        Resource::Shared,
        Resource::L1,
        Resource::L2,
        Resource::Dram,
    ];

    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Resource::Issue => "issue",
            Resource::F32 => "f32",
            Resource::F64 => "f64",
            Resource::I32 => "i32",
            Resource::Special => "special",
            Resource::Memory => "memory",
            Resource::Tensor => "tensor",
            Resource::Shared => "shared",
            Resource::L1 => "l1",
            Resource::L2 => "l2",
            Resource::Dram => "dram",
        }
    }

    /// The place in [`Resource::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What an instruction is issued to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// binary32.
    F32,
    /// binary64.
    F64,
    /// Integers, comparisons, selections, moves.
    I32,
    /// Roots, exponentials, conversions of class.
    Special,
    /// Loads, stores, shuffles.
    Memory,
    /// Products of tiles.
    Tensor,
    /// Branches and barriers, which take an issue slot alone.
    Control,
}

impl Unit {
    /// All of them.
    pub const ALL: [Unit; 7] =
        [Unit::F32, Unit::F64, Unit::I32, Unit::Special, Unit::Memory, Unit::Tensor, Unit::Control];

    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self.resource() {
            Some(resource) => resource.name(),
            None => "control",
        }
    }

    /// The place in [`Unit::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// What it keeps busy beyond the issue slot.
    pub const fn resource(self) -> Option<Resource> {
        match self {
            Unit::F32 => Some(Resource::F32),
            Unit::F64 => Some(Resource::F64),
            Unit::I32 => Some(Resource::I32),
            Unit::Special => Some(Resource::Special),
            Unit::Memory => Some(Resource::Memory),
            Unit::Tensor => Some(Resource::Tensor),
            Unit::Control => None,
        }
    }

    /// Cycles for which a warp's instruction occupies the pipeline of a scheduler, and cycles until its result can be used.
    pub(super) fn times(self, machine: &SimtMachine) -> (u64, u64) {
        let of = |pipe: &Pipe| {
            let lanes = pipe.lanes / f64::from(machine.schedulers);
            ((f64::from(machine.warp) / lanes).ceil() as u64, u64::from(pipe.latency))
        };
        let pipes = &machine.pipes;
        match self {
            Unit::F32 => of(&pipes.f32),
            Unit::F64 => of(&pipes.f64),
            Unit::I32 => of(&pipes.i32),
            Unit::Special => of(&pipes.special),
            Unit::Memory => of(&pipes.memory),
            // How long depends on the tile.
            Unit::Tensor => (1, machine.tensor.as_ref().map_or(1, |tensor| u64::from(tensor.latency))),
            Unit::Control => (1, 1),
        }
    }
}

/// What was done, of a multiprocessor or of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// Ticks for which each resource was busy; of pipelines and issue slots the sum over schedulers.
    pub busy: [u64; Resource::ALL.len()],
    /// Instructions of warps by unit.
    pub issued: [u64; Unit::ALL.len()],
    /// Sectors asked from, or written to, the common cache.
    pub l2_sectors: u64,
    /// Sectors read from, or written to, memory.
    pub dram_sectors: u64,
    /// Sectors that were read from memory by buffer.
    pub fetched: Vec<u64>,
    /// Sectors that came into each cache of the memory's.
    pub inserted: [u64; 3],
}

impl Counters {
    /// Nothing, for so many buffers.
    pub fn new(buffers: usize) -> Counters {
        Counters { fetched: vec![0; buffers], ..Counters::default() }
    }

    fn each(&mut self, other: &Counters, f: impl Fn(u64, u64) -> u64) {
        let pairs = self.busy.iter_mut().zip(&other.busy).chain(self.issued.iter_mut().zip(&other.issued));
        let pairs = pairs.chain(self.inserted.iter_mut().zip(&other.inserted));
        let pairs = pairs.chain(self.fetched.iter_mut().zip(&other.fetched));
        pairs.for_each(|(a, &b)| *a = f(*a, b));
        self.l2_sectors = f(self.l2_sectors, other.l2_sectors);
        self.dram_sectors = f(self.dram_sectors, other.dram_sectors);
    }

    /// Adds what others count, so many times.
    pub fn add(&mut self, other: &Counters, times: u64) {
        self.each(other, |a, b| a.saturating_add(b.saturating_mul(times)));
    }

    /// What was counted since a time when this much was.
    pub fn since(&self, before: &Counters) -> Counters {
        let mut counters = self.clone();
        counters.each(before, |a, b| a.saturating_sub(b));
        counters
    }

    /// All instructions.
    pub fn instructions(&self) -> u64 {
        self.issued.iter().sum()
    }
}
