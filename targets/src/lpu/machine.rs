//! The facts of one LPU, as its file states them, and its geometry.

use serde::{Deserialize, Serialize};

use super::isa::{Hemisphere, MAX_LANES, MAX_STREAMS, Queue};
use crate::machine::MachineError;

/// The LPU's part of a machine file. Latencies are in cycles of the one clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LpuMachine {
    /// Superlanes.
    pub superlanes: u32,
    /// Lanes of a superlane.
    pub lanes: u32,
    /// Streams that flow east, and streams that flow west.
    pub streams: u32,
    /// Cycles from a notify until queues at a sync go on.
    pub notify_latency: u32,
    /// The memory.
    pub mem: Mem,
    /// The vector unit.
    pub vxm: Vxm,
    /// The matrix units.
    pub mxm: Mxm,
    /// The switch units.
    pub sxm: Sxm,
    /// What things cost in energy, if that is known or estimated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy: Option<EnergyCosts>,
}

/// The memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mem {
    /// Slices of a hemisphere.
    pub slices: u32,
    /// Banks of a slice.
    pub banks: u32,
    /// Vectors of a bank.
    pub words: u32,
    /// Cycles from a read to its vector on the stream, and from a write to reads of it.
    pub latency: u32,
}

/// The vector unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vxm {
    /// ALUs of each lane.
    pub alus: u32,
    /// Cycles from operands to the result.
    pub latency: u32,
}

/// The matrix unit of a hemisphere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mxm {
    /// Planes of as many columns as there are lanes, an even number.
    pub planes: u32,
    /// Columns that are loaded in a cycle.
    pub load_streams: u32,
    /// Rows of accumulators of a plane.
    pub accumulators: u32,
    /// Cycles from a row to its sums.
    pub latency: u32,
}

/// The switch unit of a hemisphere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sxm {
    /// Units that shift.
    pub shifters: u32,
    /// Units that distribute.
    pub distributors: u32,
    /// Units that transpose.
    pub transposers: u32,
    /// Cycles from operands to results.
    pub latency: u32,
}

/// What the machine's parts take in energy: picojoules, if nothing else is said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnergyCosts {
    /// A multiply-accumulate of bytes.
    pub byte_mac: f64,
    /// A multiply-accumulate of halves.
    pub half_mac: f64,
    /// A vector read from memory.
    pub read: f64,
    /// A vector written to memory.
    pub write: f64,
    /// A vector moved by one position.
    pub hop: f64,
    /// An operation of an ALU in one lane.
    pub alu: f64,
    /// A vector made by a switch unit.
    pub switched: f64,
    /// A column of weights loaded.
    pub weights: f64,
    /// What the chip takes whatever it does, in watts.
    pub static_watts: f64,
}

impl LpuMachine {
    /// Bytes of a vector.
    pub fn vector(&self) -> usize {
        (self.superlanes * self.lanes) as usize
    }

    /// Positions of the chip, from west to east.
    pub fn positions(&self) -> usize {
        2 * self.mem.slices as usize + 5
    }

    /// Where the unit of a queue stands.
    pub fn position(&self, queue: Queue) -> usize {
        let slices = self.mem.slices as usize;
        let sides = |hemisphere, west| match hemisphere {
            Hemisphere::West => west,
            Hemisphere::East => self.positions() - 1 - west,
        };
        match queue {
            Queue::Mem(slice) => usize::from(slice) + if usize::from(slice) < slices { 2 } else { 3 },
            Queue::Alu(_) => slices + 2,
            Queue::Load(side, _) | Queue::Multiply(side, _) | Queue::Accumulate(side, _) => sides(side, 0),
            Queue::Shift(side, _) | Queue::Distribute(side, _) | Queue::Transpose(side, _) => sides(side, 1),
        }
    }

    /// All queues, in the order of their numbers.
    pub fn queues(&self) -> Vec<Queue> {
        let (mem, sxm) = (&self.mem, &self.sxm);
        let mut queues: Vec<Queue> = (0..2 * mem.slices).map(|slice| Queue::Mem(slice as u8)).collect();
        queues.extend((0..self.vxm.alus).map(|alu| Queue::Alu(alu as u8)));
        for side in Hemisphere::ALL {
            for plane in 0..self.mxm.planes as u8 {
                queues.extend([Queue::Load(side, plane), Queue::Multiply(side, plane), Queue::Accumulate(side, plane)]);
            }
        }
        for side in Hemisphere::ALL {
            queues.extend((0..sxm.shifters).map(|unit| Queue::Shift(side, unit as u8)));
            queues.extend((0..sxm.distributors).map(|unit| Queue::Distribute(side, unit as u8)));
            queues.extend((0..sxm.transposers).map(|unit| Queue::Transpose(side, unit as u8)));
        }
        queues
    }

    /// The number of a queue among [`LpuMachine::queues`].
    pub fn queue_index(&self, queue: Queue) -> usize {
        let LpuMachine { mem, vxm, mxm, sxm, .. } = self;
        let alus = 2 * mem.slices as usize;
        let planes = alus + vxm.alus as usize;
        let (per_side, switches) =
            (3 * mxm.planes as usize, (sxm.shifters + sxm.distributors + sxm.transposers) as usize);
        let plane = |side: Hemisphere, number: u8| planes + side.index() * per_side + 3 * usize::from(number);
        let switch = |side: Hemisphere, unit: u8| planes + 2 * per_side + side.index() * switches + usize::from(unit);
        match queue {
            Queue::Mem(slice) => usize::from(slice),
            Queue::Alu(alu) => alus + usize::from(alu),
            Queue::Load(side, number) => plane(side, number),
            Queue::Multiply(side, number) => plane(side, number) + 1,
            Queue::Accumulate(side, number) => plane(side, number) + 2,
            Queue::Shift(side, unit) => switch(side, unit),
            Queue::Distribute(side, unit) => switch(side, unit) + sxm.shifters as usize,
            Queue::Transpose(side, unit) => switch(side, unit) + (sxm.shifters + sxm.distributors) as usize,
        }
    }

    /// The hemisphere of a slice of memory.
    pub fn side_of(&self, slice: u8) -> Hemisphere {
        if u32::from(slice) < self.mem.slices { Hemisphere::West } else { Hemisphere::East }
    }

    /// Bytes of all memory.
    pub fn memory_bytes(&self) -> u64 {
        2 * u64::from(self.mem.slices) * u64::from(self.mem.banks) * u64::from(self.mem.words) * self.vector() as u64
    }

    /// Multiply-accumulates of bytes in a cycle.
    pub fn byte_macs_per_cycle(&self) -> u64 {
        2 * u64::from(self.mxm.planes) * (self.vector() as u64).pow(2)
    }

    /// Multiply-accumulates of halves in a cycle: two planes work on half of the lanes.
    pub fn half_macs_per_cycle(&self) -> u64 {
        self.byte_macs_per_cycle() / 4
    }

    /// Checks that the figures make a machine.
    pub fn check(&self, file: &str) -> Result<(), MachineError> {
        let lanes = u64::from(self.lanes);
        let figures = [
            ("superlanes", self.superlanes, 1, 64),
            ("lanes", self.lanes, 1, MAX_LANES as u64),
            ("streams", self.streams, lanes.max(8), MAX_STREAMS as u64),
            ("notify_latency", self.notify_latency, 1, 1 << 16),
            ("mem.slices", self.mem.slices, 1, 64),
            ("mem.banks", self.mem.banks, 1, 16),
            ("mem.words", self.mem.words, 1, 1 << 16),
            ("mem.latency", self.mem.latency, 1, 64),
            ("vxm.alus", self.vxm.alus, 1, 32),
            ("vxm.latency", self.vxm.latency, 1, 64),
            ("mxm.planes", self.mxm.planes, 2, 8),
            ("mxm.load_streams", self.mxm.load_streams, 1, u64::from(self.streams)),
            ("mxm.accumulators", self.mxm.accumulators, 1, 1 << 16),
            ("mxm.latency", self.mxm.latency, u64::from(self.superlanes), 1 << 10),
            ("sxm.shifters", self.sxm.shifters, 1, 16),
            ("sxm.distributors", self.sxm.distributors, 1, 16),
            ("sxm.transposers", self.sxm.transposers, 1, 16),
            ("sxm.latency", self.sxm.latency, u64::from(self.superlanes), 1 << 10),
        ];
        for (field, value, low, high) in figures {
            if !(low..=high).contains(&u64::from(value)) {
                return Err(wrong(file, field, value, format!("from {low} to {high}")));
            }
        }
        if !self.vector().is_multiple_of(2) {
            return Err(wrong(file, "lanes", self.lanes, "even, or the superlanes are: halves take half of all lanes"));
        }
        if !self.mxm.planes.is_multiple_of(2) {
            return Err(wrong(file, "mxm.planes", self.mxm.planes, "even: halves take two planes"));
        }
        if u64::from(self.mem.banks) * u64::from(self.mem.words) > 1 << 16 {
            return Err(wrong(file, "mem.words", self.mem.words, "so small that a slice has at most 65536 vectors"));
        }
        self.energy.as_ref().map_or(Ok(()), |energy| energy.check(file))
    }
}

impl EnergyCosts {
    fn check(&self, file: &str) -> Result<(), MachineError> {
        let figures = [
            ("energy.byte_mac", self.byte_mac),
            ("energy.half_mac", self.half_mac),
            ("energy.read", self.read),
            ("energy.write", self.write),
            ("energy.hop", self.hop),
            ("energy.alu", self.alu),
            ("energy.switched", self.switched),
            ("energy.weights", self.weights),
            ("energy.static_watts", self.static_watts),
        ];
        // More would be a unit that was mistaken.
        match figures.into_iter().find(|(_, value)| !(0.0..=1e6).contains(value)) {
            Some((field, value)) => Err(wrong(file, field, value, "from 0 to 1000000")),
            None => Ok(()),
        }
    }
}

fn wrong(file: &str, field: &str, value: impl ToString, expected: impl Into<String>) -> MachineError {
    MachineError::Value {
        file: file.to_owned(),
        field: format!("lpu.{field}"),
        value: value.to_string(),
        expected: expected.into(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

    use super::*;

    /// A machine of two superlanes of four lanes, with four slices in each hemisphere.
    pub(crate) fn small_machine() -> LpuMachine {
        LpuMachine {
            superlanes: 2,
            lanes: 4,
            streams: 16,
            notify_latency: 3,
            mem: Mem { slices: 4, banks: 2, words: 64, latency: 2 },
            vxm: Vxm { alus: 4, latency: 2 },
            mxm: Mxm { planes: 2, load_streams: 4, accumulators: 16, latency: 5 },
            sxm: Sxm { shifters: 4, distributors: 2, transposers: 1, latency: 3 },
            energy: None,
        }
    }

    /// What is easily told apart in sums.
    pub(crate) fn energy_costs() -> EnergyCosts {
        EnergyCosts {
            byte_mac: 1.0,
            half_mac: 2.0,
            read: 10.0,
            write: 20.0,
            hop: 3.0,
            alu: 0.5,
            switched: 30.0,
            weights: 40.0,
            static_watts: 0.25,
        }
    }

    #[test]
    fn units_stand_in_a_row() {
        let machine = small_machine();
        machine.check("file").unwrap();
        let position = |queue| machine.position(queue);
        assert_eq!(machine.positions(), 13);
        assert_eq!(position(Queue::Load(Hemisphere::West, 1)), 0);
        assert_eq!(position(Queue::Shift(Hemisphere::West, 0)), 1);
        assert_eq!([0, 3, 4, 7].map(|slice| position(Queue::Mem(slice))), [2, 5, 7, 10]);
        assert_eq!(position(Queue::Alu(3)), 6);
        assert_eq!(position(Queue::Transpose(Hemisphere::East, 0)), 11);
        assert_eq!(position(Queue::Accumulate(Hemisphere::East, 0)), 12);
        assert_eq!(machine.queues().len(), 8 + 4 + 12 + 14);
        let numbers = machine.queues().into_iter().map(|queue| machine.queue_index(queue));
        assert!(numbers.eq(0..machine.queues().len()));
        assert_eq!(machine.memory_bytes(), 8 * 128 * 8);
        assert_eq!((machine.byte_macs_per_cycle(), machine.half_macs_per_cycle()), (256, 64));
    }

    #[test]
    fn figures_that_make_no_machine_are_refused() {
        let wrong = |change: fn(&mut LpuMachine)| {
            let mut machine = small_machine();
            change(&mut machine);
            match machine.check("file") {
                Err(MachineError::Value { field, .. }) => field,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(wrong(|machine| machine.mxm.planes = 3), "lpu.mxm.planes");
        assert_eq!(wrong(|machine| machine.lanes = 17), "lpu.lanes");
        assert_eq!(wrong(|machine| machine.streams = 7), "lpu.streams");
        assert_eq!(wrong(|machine| machine.sxm.latency = 1), "lpu.sxm.latency");
        assert_eq!(wrong(|machine| machine.mem.words = 40_000), "lpu.mem.words");
        let negative = |machine: &mut LpuMachine| machine.energy = Some(EnergyCosts { hop: -1.0, ..energy_costs() });
        assert_eq!(wrong(negative), "lpu.energy.hop");
        let unknown =
            |machine: &mut LpuMachine| machine.energy = Some(EnergyCosts { read: f64::NAN, ..energy_costs() });
        assert_eq!(wrong(unknown), "lpu.energy.read");
    }
}
