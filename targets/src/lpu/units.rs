//! The kinds of units, for accounts of what a program keeps busy.

use super::LpuMachine;
use super::isa::{Hemisphere, Queue};

/// A kind of unit. They are in the order in which a cycle counts for one of those that dispatch in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnitKind {
    /// What brings rows to planes.
    Multiply,
    /// What brings weights to planes.
    Load,
    /// ALUs.
    Vector,
    /// Shifters, distributors and transposers.
    Switch,
    /// What takes sums from planes.
    Accumulate,
    /// Slices of memory.
    Memory,
}

impl UnitKind {
    /// How many there are.
    pub const COUNT: usize = UnitKind::ALL.len();

    /// All, in their order.
    pub const ALL: [UnitKind; 6] = [
        UnitKind::Multiply,
        UnitKind::Load,
        UnitKind::Vector,
        UnitKind::Switch,
        UnitKind::Accumulate,
        UnitKind::Memory,
    ];

    /// The kind of a queue's unit.
    pub fn of(queue: Queue) -> UnitKind {
        match queue {
            Queue::Mem(_) => UnitKind::Memory,
            Queue::Alu(_) => UnitKind::Vector,
            Queue::Load(..) => UnitKind::Load,
            Queue::Multiply(..) => UnitKind::Multiply,
            Queue::Accumulate(..) => UnitKind::Accumulate,
            Queue::Shift(..) | Queue::Distribute(..) | Queue::Transpose(..) => UnitKind::Switch,
        }
    }

    /// The number, for arrays.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            UnitKind::Multiply => "MXM multiply",
            UnitKind::Load => "MXM load",
            UnitKind::Vector => "VXM",
            UnitKind::Switch => "SXM",
            UnitKind::Accumulate => "MXM accumulate",
            UnitKind::Memory => "MEM",
        }
    }

    /// What a cycle is spent on that counts for the kind.
    pub const fn part(self) -> &'static str {
        match self {
            UnitKind::Multiply => "products",
            UnitKind::Load => "weights into planes",
            UnitKind::Vector => "vector unit",
            UnitKind::Switch => "switch unit",
            UnitKind::Accumulate => "sums out of planes",
            UnitKind::Memory => "memory only",
        }
    }
}

/// The hemisphere of a queue's unit; `None` for ALUs, which are between them.
pub(super) fn hemisphere(queue: Queue, machine: &LpuMachine) -> Option<Hemisphere> {
    match queue {
        Queue::Mem(slice) => Some(machine.side_of(slice)),
        Queue::Alu(_) => None,
        Queue::Load(side, _)
        | Queue::Multiply(side, _)
        | Queue::Accumulate(side, _)
        | Queue::Shift(side, _)
        | Queue::Distribute(side, _)
        | Queue::Transpose(side, _) => Some(side),
    }
}
