//! What calls touch, before it has a place.

use std::collections::{HashMap, HashSet};

use tcc_ir::{DType, Plan};
use tcc_passes::derived_constants;

use crate::fpga::FpgaMachine;
use crate::fpga::design::BEAT_BYTES;
use crate::fpga::lower::{Lowered, Widths, is_port};
use crate::kernel::Kernel;
use crate::kernel::simulator::buffer_bytes;
use crate::lower::quantized::Arranged;
use crate::lower::{Argument, stored_type};

/// Bytes of an input or output from which on it is spread over channels.
const LARGE: u64 = 1 << 16;

/// What is larger than such a share of a channel is spread over more.
const PIECES: u64 = 4;

/// Words that a memory on the part gives in a cycle.
const PORTS: u64 = 2;

/// What is known of something before it has a place.
pub(super) struct Wanted {
    pub argument: Argument,
    pub name: String,
    pub dtype: DType,
    pub elements: u64,
    /// Elements that lanes read at once.
    pub banks: u32,
    pub is_constant: bool,
    /// Whether it is a constant that calls read once, from its first element to its last.
    pub is_in_order: bool,
    /// Whether it lies beside the part whatever happens.
    pub is_outside: bool,
    /// The first and the last call that touch it.
    pub calls: (usize, usize),
}

impl Wanted {
    /// Bytes of it as they are stored.
    pub fn bytes(&self) -> u64 {
        buffer_bytes(self.dtype, self.elements)
    }

    /// Words of a memory that it takes.
    pub fn words(&self) -> u64 {
        self.elements.div_ceil(u64::from(self.banks)).max(1)
    }

    /// Channels that it takes turns in beside the part: what lanes read at once of a constant comes from as many as it has beats. A large
    /// input or output has twice as many as there are beats in two words, since a channel gives less than a beat in a cycle. What is very large
    /// has as many as hold it.
    pub fn ways(&self, facts: &FpgaMachine) -> u32 {
        let most = 1 << facts.memory.channels.ilog2();
        let beats = buffer_bytes(self.dtype, u64::from(self.banks)).div_ceil(BEAT_BYTES);
        let wanted = match self.is_constant {
            true => beats,
            false if self.is_outside && self.bytes() >= LARGE => 2 * PORTS * beats,
            false => 1,
        };
        let spread = (PIECES * self.bytes()).div_ceil(facts.memory.of_channel().max(1));
        wanted.max(spread).next_power_of_two().min(most) as u32
    }
}

/// Everything that calls touch, in the order in which they do: inputs first, outputs last.
pub(super) fn wanted(plan: &Plan, lowered: &Lowered, widths: Widths) -> Vec<Wanted> {
    let graph = &plan.graph;
    let derived = derived_constants(graph);
    let last_call = lowered.calls.len();
    let mut places: HashMap<Argument, usize> = HashMap::new();
    let mut all: Vec<Wanted> = Vec::new();
    let mut touch = |argument: Argument, call: usize| {
        let argument = argument.whole();
        if let Some(&place) = places.get(&argument) {
            let (first, last) = all[place].calls;
            all[place].calls = (first.min(call), last.max(call));
            return;
        }
        let new = match argument {
            Argument::Value(value) => Wanted {
                argument,
                name: graph.value(value).name.to_string(),
                dtype: stored_type(graph, &derived, value),
                elements: graph.shape(value).count().max(1) as u64,
                banks: widths.lanes,
                is_constant: derived[value.index()],
                is_in_order: false,
                is_outside: is_port(graph, value),
                calls: (call, call),
            },
            Argument::Arranged(number) => {
                let Arranged { value, view } = &lowered.arranged[number as usize];
                Wanted {
                    argument,
                    name: graph.value(*value).name.to_string(),
                    dtype: graph.ty(*value).dtype,
                    elements: view.shape().count() as u64,
                    banks: lowered.arranged_lanes.get(number as usize).copied().unwrap_or(widths.lanes),
                    is_constant: true,
                    is_in_order: lowered.in_order.get(number as usize).copied().unwrap_or(false),
                    is_outside: false,
                    calls: (call, call),
                }
            }
            Argument::Handed(number, dtype, elements) | Argument::Part { number, dtype, elements, .. } => Wanted {
                argument,
                name: "handed over".to_owned(),
                dtype,
                elements,
                banks: lowered.handed.get(number as usize).copied().unwrap_or(widths.lanes),
                is_constant: false,
                is_in_order: false,
                is_outside: false,
                calls: (call, call),
            },
            Argument::Counters(elements) => Wanted {
                argument,
                name: "counters".to_owned(),
                dtype: DType::U32,
                elements,
                banks: 1,
                is_constant: false,
                is_in_order: false,
                is_outside: false,
                calls: (call, call),
            },
        };
        places.insert(argument, all.len());
        all.push(new);
    };
    graph.inputs().iter().for_each(|&input| touch(Argument::Value(input), 0));
    for (call, lower) in lowered.calls.iter().enumerate() {
        lower.arguments.iter().for_each(|&argument| touch(argument, call));
    }
    graph.outputs().iter().for_each(|output| touch(Argument::Value(output.value), last_call));
    all
}

/// For each thing the others that some call touches as well.
pub(super) fn neighbours(wanted: &[Wanted], lowered: &Lowered) -> Vec<HashSet<usize>> {
    let places: HashMap<Argument, usize> =
        wanted.iter().enumerate().map(|(place, wanted)| (wanted.argument, place)).collect();
    let mut all = vec![HashSet::new(); wanted.len()];
    for lower in &lowered.calls {
        let own: Vec<usize> = lower.arguments.iter().map(|argument| places[&argument.whole()]).collect();
        for &a in &own {
            all[a].extend(own.iter().copied().filter(|&b| b != a));
        }
    }
    all
}

/// A parameter of a kernel: its number among kernels that differ, and its place among the parameters.
pub(super) type Role = (usize, usize);

/// What each thing is to the calls that touch it, in order.
pub(super) fn uses(wanted: &[Wanted], lowered: &Lowered) -> Vec<Vec<Role>> {
    let places: HashMap<Argument, usize> =
        wanted.iter().enumerate().map(|(place, wanted)| (wanted.argument, place)).collect();
    let mut kernels: HashMap<Kernel, usize> = HashMap::new();
    let mut all = vec![Vec::new(); wanted.len()];
    for lower in &lowered.calls {
        let count = kernels.len();
        let kernel = *kernels.entry(lower.kernel.nameless()).or_insert(count);
        for (place, argument) in lower.arguments.iter().enumerate() {
            all[places[&argument.whole()]].push((kernel, place));
        }
    }
    all
}
