//! The program of a part as words: what its controller calls, and what goes between the host's memory and memories on the part.

use std::collections::{BTreeMap, BTreeSet};

use super::access::per_beat;
use super::function::channels;
use crate::fpga::design::{FunctionId, Home, MemoryId};
use crate::fpga::program::{Buffer, Call, Parts};
use crate::kernel::simulator::Place;

/// What the controller does at one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    /// Calls a function.
    Call(FunctionId),
    /// Copies beats of the host's memory to a memory on the part.
    CopyTo(MemoryId),
    /// Copies words of a memory on the part to the host's memory.
    CopyFrom(MemoryId),
}

/// An entry of the program.
pub(super) struct Entry {
    pub operation: Operation,
    /// Where parameters begin; of a copy the beat, the word and the number of elements.
    pub arguments: Vec<u64>,
    /// What it is, for people.
    pub about: String,
}

/// A program as its controller reads it.
pub(super) struct Words {
    /// What is done once, before the first inference.
    pub load: Vec<Entry>,
    /// What is done for each inference.
    pub run: Vec<Entry>,
    /// Everything that is done, in the order of its numbers.
    pub operations: Vec<Operation>,
    /// Words of an entry.
    pub width: usize,
    /// For each buffer on the part that comes from the host or goes there, its first beat in the host's memory.
    pub beats: BTreeMap<u32, u64>,
    /// Beats of the host's memory.
    pub host_beats: u64,
    /// Beats that are used of each channel.
    pub rows: Vec<u64>,
    /// Channels that functions have ports to.
    pub channels: Vec<u32>,
}

/// Beats of so many elements.
pub(super) fn beats_of(buffer: &Buffer) -> u64 {
    buffer.elements.div_ceil(per_beat(buffer.dtype) as u64)
}

/// The words of a program.
pub(super) fn words(parts: &Parts) -> Words {
    let mut words = Words {
        load: Vec::new(),
        run: Vec::new(),
        operations: Vec::new(),
        width: 1,
        beats: BTreeMap::new(),
        host_beats: 0,
        rows: vec![0; parts.design.channels as usize],
        channels: Vec::new(),
    };
    for buffer in &parts.buffers {
        if let Home::External { first, ways } = buffer.home {
            let end = buffer.at + beats_of(buffer).div_ceil(u64::from(ways));
            for rows in words.rows.iter_mut().skip(first as usize).take(ways as usize) {
                *rows = (*rows).max(end);
            }
        }
    }
    if let Some(loader) = &parts.design.loader {
        let end = parts.loads.iter().map(|load| load.at + load.rows).max().unwrap_or(0);
        words.rows.iter_mut().take(loader.channels as usize).for_each(|rows| *rows = (*rows).max(end));
    }
    for (number, buffer) in (0..).zip(&parts.buffers) {
        if let (Home::OnChip(memory), Place::Weights(_)) = (buffer.home, buffer.place) {
            let entry = words.copy(number, buffer, Operation::CopyTo(memory));
            words.load.push(entry);
        }
    }
    for &(_, number) in &parts.inputs {
        let buffer = &parts.buffers[number as usize];
        if let (Home::OnChip(memory), Place::Values(_)) = (buffer.home, buffer.place) {
            let entry = words.copy(number, buffer, Operation::CopyTo(memory));
            words.run.push(entry);
        }
    }
    for call in &parts.calls {
        let function = &parts.design.functions[call.function.index()];
        let names = call.buffers.iter().map(|&buffer| parts.buffers[buffer as usize].name.as_str());
        words.run.push(Entry {
            operation: Operation::Call(call.function),
            arguments: arguments(parts, call),
            about: format!("{}: {}", function.kernel.name, names.collect::<Vec<_>>().join(", ")),
        });
    }
    for &(_, number) in &parts.outputs {
        let buffer = &parts.buffers[number as usize];
        if let Home::OnChip(memory) = buffer.home {
            let entry = words.copy(number, buffer, Operation::CopyFrom(memory));
            words.run.push(entry);
        }
    }
    let entries = || words.load.iter().chain(&words.run);
    words.width = entries().map(|entry| entry.arguments.len() + 1).max().unwrap_or(1);
    let mut operations: Vec<Operation> = entries().map(|entry| entry.operation).collect();
    operations.sort_unstable();
    operations.dedup();
    words.operations = operations;
    let called = words.operations.iter().filter_map(|operation| match *operation {
        Operation::Call(function) => Some(&parts.design.functions[function.index()]),
        Operation::CopyTo(_) | Operation::CopyFrom(_) => None,
    });
    let channels: BTreeSet<u32> = called.flat_map(|function| channels(function).into_keys()).collect();
    words.channels = channels.into_iter().collect();
    words
}

/// Where the parameters of a call begin that lie somewhere, and its grid, if the function leaves that to calls.
fn arguments(parts: &Parts, call: &Call) -> Vec<u64> {
    let buffers = call.buffers.iter().map(|&buffer| &parts.buffers[buffer as usize]);
    let placed = buffers.filter(|buffer| !matches!(buffer.home, Home::Loaded { .. }));
    let is_elastic = parts.design.functions[call.function.index()].is_elastic();
    let grid = call.grid.iter().filter(|_| is_elastic).map(|&blocks| u64::from(blocks));
    placed.map(|buffer| buffer.at).chain(grid).collect()
}

impl Words {
    fn copy(&mut self, number: u32, buffer: &Buffer, operation: Operation) -> Entry {
        let beat = *self.beats.entry(number).or_insert_with(|| {
            let beat = self.host_beats;
            self.host_beats += beats_of(buffer);
            beat
        });
        let way = if matches!(operation, Operation::CopyFrom(_)) { "to the host" } else { "from the host" };
        Entry { operation, arguments: vec![beat, buffer.at, buffer.elements], about: format!("{} {way}", buffer.name) }
    }

    /// The number by which an operation goes.
    pub fn number(&self, operation: Operation) -> usize {
        self.operations.iter().position(|&own| own == operation).unwrap_or(0)
    }

    /// Whether anything comes from the host's memory or goes there.
    pub fn has_host(&self) -> bool {
        self.host_beats > 0
    }
}
