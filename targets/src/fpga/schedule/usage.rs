//! What operators, registers and control a schedule needs.
//!
//! Operators that are large are shared: those of one iteration in the cycles of an interval, those of blocks that never run together,
//! and those of functions that do not. An operator that is shared has a multiplexer before it. Small ones are built for each operation,
//! since a multiplexer would be as large.

use std::collections::{BTreeMap, BTreeSet};

use super::Schedule;
use crate::fpga::access::{Pattern, greatest_common_divisor};
use crate::fpga::design::Adders;
use crate::fpga::memories::bank;
use crate::fpga::nest::{ArrayPlace, Block, BlockId, Item, Kind, Loop, OpId};
use crate::fpga::operators::Class;
use crate::fpga::resources::Resources;

/// What an operator has at least in look-up tables to be shared, if it has no DSP (assumed).
const SHARED_FROM: u64 = 100;

/// What an AXI port of 512 bits takes, with its buffers for bursts of reads and writes (assumed: of the order of the `m_axi` adapters
/// of Vitis HLS).
pub const AXI_PORT: Resources = Resources { luts: 1_900, ffs: 3_100, dsps: 0, bram18s: 30, urams: 0 };

/// The same of a port that only reads, or only writes (assumed: six tenths of the logic, and half of the buffers).
pub const AXI_ONE_WAY: Resources = Resources { luts: 1_140, ffs: 1_860, dsps: 0, bram18s: 15, urams: 0 };

/// A value that is kept for longer goes through a shift register in look-up tables of 32 bits (UG574, SRLC32E).
const SHIFT: u64 = 32;

/// What a function is built from, as far as the memories of the design and ports are not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Operators that are shared, and how many of each are needed at a time.
    pub operators: BTreeMap<Class, u64>,
    /// How many operations of each class there are, which have multiplexers where they are more than operators.
    pub operations: BTreeMap<Class, u64>,
    /// Everything else: small operators, registers, counters and states.
    pub control: Resources,
    /// Memories of the function.
    pub memories: Resources,
}

/// Look-up tables that choose one of so many sources for so many bits: a table chooses one of four, and the multiplexers beside tables
/// choose between tables (UG574).
fn chosen(sources: u64, bits: u64) -> u64 {
    if sources > 1 { (sources * bits).div_ceil(4) } else { 0 }
}

/// Whether operators of a class are shared.
pub fn is_shared(class: Class) -> bool {
    let own = class.resources();
    own.dsps > 0 || own.luts >= SHARED_FROM
}

/// Bits of what an operator is given.
fn input_bits(class: Class) -> u64 {
    match class {
        Class::Multiply([a, b], _) => u64::from(a + b),
        Class::MultiplyAdd([a, b], sum) => u64::from(a + b + sum),
        Class::Double(_) => 128,
        Class::Single(_) => 64,
        Class::Wires => 0,
        Class::Add(bits)
        | Class::Compare(bits)
        | Class::Extreme(bits)
        | Class::Logic(bits)
        | Class::Select(bits)
        | Class::Shift(bits)
        | Class::Scale(bits, _)
        | Class::Divide(bits) => 2 * u64::from(bits),
    }
}

impl Usage {
    /// What two need that never run together.
    pub fn or(mut self, other: Usage) -> Usage {
        for (class, count) in other.operators {
            let own = self.operators.entry(class).or_default();
            *own = count.max(*own);
        }
        for (class, count) in other.operations {
            *self.operations.entry(class).or_default() += count;
        }
        self.control += other.control;
        self.memories += other.memories;
        self
    }

    /// Look-up tables that choose what operators of a class are given, among all operations.
    pub fn chosen(&self, class: Class) -> u64 {
        let count = self.operators.get(&class).copied().unwrap_or(0);
        let operations = self.operations.get(&class).copied().unwrap_or(count);
        if operations > count { chosen(operations, input_bits(class)) } else { 0 }
    }

    /// What it takes of the part, with adders of binary32 that are built from something.
    pub fn resources(&self, adders: Adders) -> Resources {
        let operators: Resources =
            self.operators.iter().map(|(class, &count)| class.resources_with(adders) * count).sum();
        let multiplexers = self.operators.keys().map(|&class| self.chosen(class)).sum();
        let multiplexers = Resources { luts: multiplexers, ..Resources::default() };
        operators + multiplexers + self.control + self.memories
    }
}

impl Schedule {
    pub(super) fn count(&self, clock_hz: u64) -> Usage {
        let mut usage = Usage::default();
        self.count_items(&self.nest.body, clock_hz, &mut usage);
        self.count_registers(&mut usage);
        for local in &self.memories {
            let array = &self.nest.arrays[local.array.index()];
            let own = bank(local.words, array.dtype.bits() as u64, local.storage, local.reads_twice);
            usage.memories += own * u64::from(array.banks);
        }
        usage
    }

    fn count_items(&self, items: &[Item], clock_hz: u64, usage: &mut Usage) {
        for item in items {
            match item {
                Item::Block(id) => {
                    *usage = std::mem::take(usage).or(self.count_block(*id, None, clock_hz));
                    // A state for each cycle, one of which is on.
                    let depth = u64::from(self.blocks[id.index()].depth);
                    usage.control += Resources { luts: depth.div_ceil(2), ffs: depth, ..Resources::default() };
                }
                Item::Loop(id) => {
                    let (own, time) = (&self.nest.loops[id.index()], &self.loops[id.index()]);
                    usage.control += self.counters(own);
                    match own.body[..] {
                        [Item::Block(block)] if own.pipelined => {
                            let interval = Some(time.interval.max(1));
                            *usage = std::mem::take(usage).or(self.count_block(block, interval, clock_hz));
                            // Whether an iteration is in each of its cycles.
                            usage.control += Resources { luts: 4, ffs: time.depth + 4, ..Resources::default() };
                        }
                        _ => self.count_items(&own.body, clock_hz, usage),
                    }
                }
                Item::Branch { then, otherwise, .. } => {
                    usage.control += Resources { luts: 2, ffs: 1, ..Resources::default() };
                    self.count_items(then, clock_hz, usage);
                    self.count_items(otherwise, clock_hz, usage);
                }
            }
        }
    }

    /// Counters that count and are compared, and what a loop carries, which begins with one thing and goes on with another. What is known
    /// that it begins with, a register is set to by itself (UG574).
    fn counters(&self, own: &Loop) -> Resources {
        let bits = |id: OpId| {
            let op = &self.nest.ops[id.index()];
            u64::from(op.form.bits()) * u64::from(op.copies)
        };
        let counters: u64 = own.counters.iter().map(|counter| bits(counter.op)).sum();
        let carried: u64 = own.carried.iter().map(|carried| bits(carried.op)).sum();
        let is_known = |id: OpId| matches!(self.nest.ops[id.index()].kind, Kind::Constant(_));
        let chosen = own.carried.iter().filter(|carried| !is_known(carried.initial));
        let chosen: u64 = chosen.map(|carried| bits(carried.op)).sum();
        Resources { luts: counters + counters.div_ceil(2) + chosen, ffs: counters + carried, ..Resources::default() }
    }

    fn count_block(&self, id: BlockId, interval: Option<u64>, clock_hz: u64) -> Usage {
        let block = &self.nest.blocks[id.index()];
        let mut usage = Usage { operators: self.operators[id.index()].clone(), ..Usage::default() };
        for &id in &block.ops {
            let parts = self.nest.operator(id, clock_hz).parts;
            for part in parts.into_iter().filter(|part| part.class != Class::Wires) {
                let count = u64::from(part.count);
                if is_shared(part.class) {
                    *usage.operations.entry(part.class).or_default() += count;
                } else {
                    usage.control += part.class.resources() * count;
                }
            }
        }
        usage.control += self.count_delays(block, interval);
        for &id in &block.ops {
            usage.control.luts += self.ways(id);
        }
        usage
    }

    /// Look-up tables between an access and the ports that it uses: what chooses it among others at each bank, what is added to its
    /// address there, and the switch between lanes and banks where it is not known now who goes where.
    fn ways(&self, id: OpId) -> u64 {
        let op = &self.nest.ops[id.index()];
        let (array, pattern, writes) = match &op.kind {
            Kind::Load(array, pattern) => (*array, pattern, false),
            Kind::Store(array, pattern) => (*array, pattern, true),
            _ => return 0,
        };
        let own = &self.nest.arrays[array.index()];
        if matches!(own.place, ArrayPlace::External { .. } | ArrayPlace::Loaded { .. }) {
            return 0;
        }
        let bits = own.dtype.bits() as u64;
        let address = u64::from(64 - own.words().saturating_sub(1).leading_zeros());
        // A source more at a port is a quarter of a table for each bit.
        let port = |banks: u64| (banks * (address + if writes { bits } else { 0 })).div_ceil(4);
        let (banks, copies) = (u64::from(own.banks), u64::from(op.copies));
        match pattern {
            Pattern::Fixed(places) => {
                let distinct: BTreeSet<_> = places.iter().collect();
                let moved = distinct.iter().filter(|place| place.word != 0).count() as u64;
                port(distinct.len() as u64) + moved * address
            }
            // Lanes are turned against banks, two steps of a power of two in a table.
            Pattern::Shifted(distances) => {
                // By multiples of what all that is not known of the place is a multiple of.
                let terms = self.nest.reached.get(&id).map(Vec::as_slice).unwrap_or_default();
                let common = terms.iter().fold(0, |common, &(_, by)| greatest_common_divisor(common, by));
                let turns = if common == 0 { banks } else { banks / (common as u64).min(banks).max(1) };
                let steps = u64::from(turns.max(1).next_power_of_two().ilog2()).div_ceil(2);
                // Lanes that want the same element, or of which one writes it, are one here.
                let distinct: BTreeSet<_> = distances.iter().collect();
                port(banks) + banks * address + distinct.len() as u64 * bits * steps
            }
            Pattern::Scattered => port(banks) + chosen(copies, banks * address) + chosen(banks, copies * bits),
        }
    }

    /// Registers of values that are used later than they are there.
    fn count_delays(&self, block: &Block, interval: Option<u64>) -> Resources {
        let mut last: BTreeMap<OpId, u32> = BTreeMap::new();
        for &id in &block.ops {
            let op = &self.nest.ops[id.index()];
            let start = self.starts[id.index()];
            for operand in op.operands.iter().copied().chain(op.predicate) {
                let own = last.entry(operand).or_default();
                *own = start.max(*own);
            }
        }
        let mut registers = Resources::default();
        for &id in &block.ops {
            let Some(&last) = last.get(&id) else { continue };
            let op = &self.nest.ops[id.index()];
            let there = self.starts[id.index()] + self.latencies[id.index()];
            let cycles = u64::from(last.saturating_sub(there));
            let bits = u64::from(op.form.bits()) * u64::from(op.copies);
            // With an interval above 1 a register is written anew only then; without, it is written once.
            let stages = interval.map_or(cycles.min(1), |interval| cycles.div_ceil(interval));
            if stages <= 2 {
                registers.ffs += bits * stages;
            } else {
                registers.ffs += bits;
                registers.luts += bits * (stages - 1).div_ceil(SHIFT);
            }
        }
        registers
    }

    /// Registers of values that other blocks use.
    fn count_registers(&self, usage: &mut Usage) {
        let mut home: Vec<Option<u32>> = vec![None; self.nest.ops.len()];
        for (number, block) in self.nest.blocks.iter().enumerate() {
            block.ops.iter().for_each(|id| home[id.index()] = Some(number as u32));
        }
        let mut crosses = vec![false; self.nest.ops.len()];
        for (number, block) in self.nest.blocks.iter().enumerate() {
            for &id in &block.ops {
                let op = &self.nest.ops[id.index()];
                for operand in op.operands.iter().copied().chain(op.predicate) {
                    crosses[operand.index()] |= home[operand.index()].is_some_and(|home| home != number as u32);
                }
            }
        }
        for own in &self.nest.loops {
            own.carried.iter().for_each(|carried| crosses[carried.initial.index()] = true);
        }
        let bits = self.nest.ops.iter().zip(&crosses).filter(|&(op, &crosses)| {
            crosses && !matches!(op.kind, Kind::Constant(_) | Kind::Counter(_) | Kind::Carried(_) | Kind::Left(_))
        });
        let bits: u64 = bits.map(|(op, _)| u64::from(op.form.bits()) * u64::from(op.copies)).sum();
        usage.control += Resources { ffs: bits, ..Resources::default() };
    }
}
