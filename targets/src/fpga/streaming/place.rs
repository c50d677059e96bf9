//! What lies between the stages of a plan: each call is a stage with memories of its own for constants, inputs come from stages that read
//! them, outputs go to stages that write them, and every value has a channel to each stage that takes it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use rayon::prelude::*;
use tcc_ir::{DType, Plan, ValueId};
use tcc_passes::derived_constants;

use super::copies::with_copies;
use super::order::{Order, is_once, order};
use super::ports::copy;
use super::streamed::ends;
use crate::fpga::FpgaMachine;
use crate::fpga::design::{
    BEAT_BYTES, Design, FifoId, Function, FunctionId, Home, MemoryId, OnChip, Storage, Style, WordFifo,
};
use crate::fpga::lower::Lowered;
use crate::fpga::memories::storage;
use crate::fpga::nest::{ArrayId, Nest};
use crate::fpga::place::{Placed, capacity};
use crate::fpga::program::{Buffer, Call, ports};
use crate::fpga::resources::Resources;
use crate::fpga::schedule::AXI_ONE_WAY;
use crate::fpga::writer::unstreamed;
use crate::kernel::names::name_of;
use crate::kernel::simulator::{Place, buffer_bytes};
use crate::kernel::{BufferId, Kernel};
use crate::lower::quantized::Arranged;
use crate::lower::{Argument, stored_type};
use crate::weights::Constant;

/// Words of a FIFO that an access may take or give: each is a cycle.
const MOST_WORDS: usize = 2;

/// So much smaller than all is the share of block RAM that is left to FIFOs and to memories of stages.
const LEFT: u64 = 8;

/// Most elements of a FIFO's word.
const WIDEST: u32 = 64;

/// A call that becomes a stage.
struct Step {
    kernel: Kernel,
    /// What each parameter is.
    ends: Vec<End>,
    group: u32,
    named: String,
    about: Vec<String>,
    /// Lanes of what it does element by element.
    lanes: u32,
}

/// What a parameter of a stage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// A channel, by its number.
    Channel(usize),
    /// A constant, by its number.
    Constant(usize),
    /// An input or output of the model, by its number among both.
    Port(usize),
}

/// A value on its way from one stage to another.
struct Channel {
    name: String,
    dtype: DType,
    elements: u64,
    /// The stage that gives it, and by which parameter; nothing of a value without elements.
    from: Option<(usize, usize)>,
    /// The stage that takes it, and by which; nothing of a value that nobody wants.
    to: Option<(usize, usize)>,
}

/// A constant as it lies among the weights.
struct Weight {
    name: String,
    dtype: DType,
    elements: u64,
    /// Elements that lanes read at once.
    banks: u32,
    constant: Constant,
    /// Its first byte.
    at: u64,
}

/// An input or output of the model.
struct Port {
    value: ValueId,
    name: String,
    dtype: DType,
    elements: u64,
}

/// Everything in its place, or why a plan cannot be stages.
///
/// `lanes` are those of element-wise work of each call.
///
/// # Errors
/// Why not.
pub(super) fn place(
    plan: &Plan,
    lowered: &Lowered,
    facts: &FpgaMachine,
    lanes: &[u32],
    orders: &Orders,
) -> Result<Placed, String> {
    let mut wiring = Wiring::new(plan, lowered, lanes)?;
    if wiring.weights_bytes > capacity(facts, 1.0) {
        return Err("its weights have no room on the part".to_owned());
    }
    let widths = wiring.widths(orders);
    Ok(wiring.finish(&widths, facts))
}

/// A parameter of a kernel in a FIFO of words of so many elements.
type Streamed = (Kernel, usize, u32);

/// How kernels touch their parameters, as far as they were looked at.
#[derive(Default)]
pub(super) struct Orders {
    orders: Mutex<HashMap<Kernel, Arc<Vec<Option<Order>>>>>,
    /// Whether kernels can be written with a parameter in a FIFO.
    written: Mutex<HashMap<Streamed, bool>>,
}

impl Orders {
    /// How a kernel touches each of its parameters.
    fn of(&self, kernel: &Kernel) -> Arc<Vec<Option<Order>>> {
        let key = kernel.nameless();
        let known = self.orders.lock().ok().and_then(|known| known.get(&key).cloned());
        known.unwrap_or_else(|| {
            let found = Arc::new(orders(kernel));
            if let Ok(mut known) = self.orders.lock() {
                known.insert(key, Arc::clone(&found));
            }
            found
        })
    }

    /// Whether a kernel can be written with a parameter in a FIFO of words of so many elements.
    fn is_written(&self, kernel: &Kernel, parameter: usize, width: u32) -> bool {
        let key = (kernel.nameless(), parameter, width);
        if let Some(known) = self.written.lock().ok().and_then(|known| known.get(&key).copied()) {
            return known;
        }
        let (mut function, mut design) = by_elements(kernel);
        let buffer = &kernel.buffers[parameter];
        let words = buffer.elements / u64::from(width);
        design.fifos.push(WordFifo { name: "fifo".to_owned(), dtype: buffer.dtype, banks: width, words, depth: words });
        function.homes[parameter] = Home::Fifo(FifoId(0));
        let found = unstreamed(&design, &function).is_ok_and(|unstreamed| unstreamed.is_empty());
        if let Ok(mut known) = self.written.lock() {
            known.insert(key, found);
        }
        found
    }
}

/// Stages and what goes from one to the next, without places yet.
struct Wiring {
    steps: Vec<Step>,
    channels: Vec<Channel>,
    weights: Vec<Weight>,
    ports: Vec<Port>,
    weights_bytes: u64,
}

impl Wiring {
    fn new(plan: &Plan, lowered: &Lowered, lanes: &[u32]) -> Result<Wiring, String> {
        let graph = &plan.graph;
        let derived = derived_constants(graph);
        let mut own = Wiring {
            steps: Vec::new(),
            channels: Vec::new(),
            weights: Vec::new(),
            ports: Vec::new(),
            weights_bytes: 0,
        };
        if lowered.calls.is_empty() {
            return Err("nothing is computed".to_owned());
        }
        // Who takes each value: a stage and which of its parameters, or an output.
        let mut takers: BTreeMap<ValueId, Vec<(usize, usize)>> = BTreeMap::new();
        let mut givers: BTreeMap<ValueId, (usize, usize)> = BTreeMap::new();
        let inputs: Vec<ValueId> = graph.inputs().to_vec();
        let mut outputs: Vec<ValueId> = graph.outputs().iter().map(|output| output.value).collect();
        outputs.sort_unstable();
        outputs.dedup();
        if let Some(both) = outputs.iter().find(|output| inputs.contains(output)) {
            return Err(format!("input `{}` is an output", graph.value(*both).name));
        }
        let is_read =
            |input: ValueId| lowered.calls.iter().any(|call| call.arguments.contains(&Argument::Value(input)));
        let there = |input: &ValueId| graph.shape(*input).count() > 0 && is_read(*input);
        let readers: Vec<ValueId> = inputs.iter().copied().filter(there).collect();
        let first = readers.len();
        for (number, &input) in readers.iter().enumerate() {
            givers.insert(input, (number, 1));
        }
        for (number, call) in lowered.calls.iter().enumerate() {
            for (parameter, (argument, buffer)) in call.arguments.iter().zip(&call.kernel.buffers).enumerate() {
                let Argument::Value(value) = *argument else { continue };
                if derived[value.index()] {
                    continue;
                }
                let at = (first + number, parameter);
                if !buffer.is_written {
                    takers.entry(value).or_default().push(at);
                } else if givers.insert(value, at).is_some() {
                    return Err(format!("several kernels write `{}`", graph.value(value).name));
                }
            }
        }
        let writers = first + lowered.calls.len();
        let written: Vec<ValueId> = outputs.iter().copied().filter(|&output| graph.shape(output).count() > 0).collect();
        for (number, &output) in written.iter().enumerate() {
            if derived[output.index()] {
                return Err(format!("output `{}` is a constant", graph.value(output).name));
            }
            takers.entry(output).or_default().push((writers + number, 0));
        }
        let stored = |value: ValueId| stored_type(graph, &derived, value);
        let elements = |value: ValueId| graph.shape(value).count().max(1) as u64;
        let name = |value: ValueId| graph.value(value).name.to_string();
        // Ports: all inputs, and outputs that are none.
        let all_ports = inputs.iter().copied().chain(outputs.iter().copied());
        let mut port_of: HashMap<(ValueId, bool), usize> = HashMap::new();
        for (place, value) in all_ports.enumerate() {
            let is_output = place >= inputs.len();
            port_of.insert((value, is_output), own.ports.len());
            own.ports.push(Port { value, name: name(value), dtype: stored(value), elements: elements(value) });
        }
        // Channels: one to each that takes a value.
        let mut channels_from: HashMap<(usize, usize), Vec<usize>> = HashMap::new();
        let mut channel_to: HashMap<(usize, usize), usize> = HashMap::new();
        for (&value, takers) in &takers {
            let from = givers.get(&value).copied();
            if from.is_none() && graph.shape(value).count() > 0 {
                return Err(format!("nothing gives `{}`", name(value)));
            }
            for &to in takers {
                let channel = own.channels.len();
                own.channels.push(Channel {
                    name: name(value),
                    dtype: stored(value),
                    elements: elements(value),
                    from,
                    to: Some(to),
                });
                channel_to.insert(to, channel);
                if let Some(from) = from {
                    channels_from.entry(from).or_default().push(channel);
                }
            }
        }
        for (&value, &from) in &givers {
            if !takers.contains_key(&value) && from.0 >= first {
                return Err(format!("nothing takes `{}`", name(value)));
            }
        }
        // Stages. Where a value goes to several, the kernel writes it several times.
        let group_of = |stage: Option<(usize, usize)>| {
            let call = stage.and_then(|(stage, _)| lowered.calls.get(stage.wrapping_sub(first)));
            call.map_or(0, |call| call.group)
        };
        let lanes_of = |stage: usize| stage.checked_sub(first).and_then(|call| lanes.get(call)).copied().unwrap_or(1);
        let mut weights: HashMap<(Argument, u32), usize> = HashMap::new();
        for &input in &readers {
            let most = takers.get(&input).into_iter().flatten().map(|&(stage, _)| lanes_of(stage)).max().unwrap_or(1);
            let kernel = copy(&name(input), stored(input), elements(input), most);
            let group = group_of(takers.get(&input).and_then(|takers| takers.first().copied()));
            let ends = vec![End::Port(port_of[&(input, false)]), End::Channel(usize::MAX)];
            own.steps.push(Step {
                ends,
                group,
                named: format!("read_{}", name(input)),
                about: kernel.about.clone(),
                kernel,
                lanes: most,
            });
        }
        for (number, call) in lowered.calls.iter().enumerate() {
            let mut ends = Vec::with_capacity(call.arguments.len());
            for (parameter, (argument, buffer)) in call.arguments.iter().zip(&call.kernel.buffers).enumerate() {
                let is_constant = match *argument {
                    Argument::Value(value) => derived[value.index()],
                    Argument::Arranged(_) => true,
                    Argument::Handed(..) | Argument::Part { .. } | Argument::Counters(_) => {
                        return Err("blocks hand something to each other".to_owned());
                    }
                };
                if is_constant {
                    if buffer.is_written {
                        return Err("a constant is written".to_owned());
                    }
                    let weight = *weights
                        .entry((*argument, lanes_of(first + number)))
                        .or_insert_with(|| own.weight(plan, lowered, *argument, lanes_of(first + number)));
                    ends.push(End::Constant(weight));
                } else {
                    let at = (first + number, parameter);
                    ends.push(End::Channel(channel_to.get(&at).copied().unwrap_or(usize::MAX)));
                }
            }
            let (kernel, named, about) = (call.kernel.clone(), call.named.clone(), call.about.clone());
            own.steps.push(Step { kernel, ends, group: call.group, named, about, lanes: lanes_of(first + number) });
        }
        for &output in &written {
            let most = givers.get(&output).map_or(1, |&(stage, _)| lanes_of(stage));
            let kernel = copy(&name(output), stored(output), elements(output), most);
            let group = group_of(givers.get(&output).copied());
            let channel = channel_to[&(own.steps.len(), 0)];
            let ends = vec![End::Channel(channel), End::Port(port_of[&(output, true)])];
            own.steps.push(Step {
                ends,
                group,
                named: format!("write_{}", name(output)),
                about: kernel.about.clone(),
                kernel,
                lanes: most,
            });
        }
        own.branch(channels_from);
        Ok(own)
    }

    /// Has kernels write to all channels that begin at a parameter.
    fn branch(&mut self, channels_from: HashMap<(usize, usize), Vec<usize>>) {
        let mut all: Vec<_> = channels_from.into_iter().collect();
        all.sort_unstable();
        for ((stage, parameter), channels) in all {
            let step = &mut self.steps[stage];
            let more = channels.len() - 1;
            let copies = step.kernel.buffers.len();
            step.kernel = with_copies(&step.kernel, BufferId(parameter as u32), more as u32);
            step.ends[parameter] = End::Channel(channels[0]);
            for (copy, &channel) in channels.iter().enumerate().skip(1) {
                step.ends.push(End::Channel(channel));
                self.channels[channel].from = Some((stage, copies + copy - 1));
            }
        }
    }

    /// Takes a constant among the weights.
    fn weight(&mut self, plan: &Plan, lowered: &Lowered, argument: Argument, lanes: u32) -> usize {
        let graph = &plan.graph;
        let (value, elements, banks, view) = match argument {
            Argument::Arranged(number) => {
                let Arranged { value, view } = &lowered.arranged[number as usize];
                let banks = lowered.arranged_lanes.get(number as usize).copied().unwrap_or(lanes);
                (*value, view.shape().count() as u64, banks, Some(view.clone()))
            }
            Argument::Value(value) => (value, graph.shape(value).count().max(1) as u64, lanes, None),
            // Refused before.
            Argument::Handed(..) | Argument::Part { .. } | Argument::Counters(_) => {
                (graph.outputs()[0].value, 1, 1, None)
            }
        };
        let (name, dtype, at) = (graph.value(value).name.to_string(), graph.ty(value).dtype, self.weights_bytes);
        self.weights_bytes += buffer_bytes(dtype, elements).next_multiple_of(BEAT_BYTES);
        self.weights.push(Weight { name, dtype, elements, banks, constant: (value, view), at });
        self.weights.len() - 1
    }

    /// Elements of a word of each channel that is a FIFO: both ends touch its words in the same order, each once.
    fn widths(&self, known: &Orders) -> Vec<Option<u32>> {
        let orders: Vec<_> = self.steps.par_iter().map(|step| known.of(&step.kernel)).collect();
        let width = |channel: &Channel| {
            let (from, to) = (channel.from?, channel.to?);
            let (gives, takes) = (orders[from.0][from.1].as_ref()?, orders[to.0][to.1].as_ref()?);
            let widest = WIDEST.min(1 << channel.elements.trailing_zeros().min(16));
            let candidates = std::iter::successors(Some(widest), |width| (*width > 1).then_some(width / 2));
            candidates
                .filter(|&width| gives.most_words(width) <= MOST_WORDS && takes.most_words(width) <= MOST_WORDS)
                .find(|&width| {
                    let Some(words) = gives.words(width) else { return false };
                    let is_same = takes.words(width).is_some_and(|other| other == words);
                    is_same && words.len() as u64 == channel.elements / u64::from(width) && is_once(&words)
                })
                .filter(|&width| {
                    // Both are written so that they touch each word once as well.
                    let is_written = |(stage, parameter): (usize, usize)| {
                        known.is_written(&self.steps[stage].kernel, parameter, width)
                    };
                    is_written(from) && is_written(to)
                })
        };
        self.channels.par_iter().map(width).collect()
    }

    /// Gives everything its place.
    fn finish(&mut self, widths: &[Option<u32>], facts: &FpgaMachine) -> Placed {
        let mut design = Design { style: Style::Streaming, ..Design::default() };
        design.channels = (self.ports.len() as u32).clamp(1, facts.memory.channels);
        let mut buffers = Vec::new();
        let mut numbers = HashMap::new();
        let mut rows = vec![0u64; design.channels as usize];
        let mut end = 0u64;
        let mut take = |bytes: u64| {
            let at = end;
            end += bytes.next_multiple_of(BEAT_BYTES);
            at
        };
        for (number, Port { value, name, dtype, elements }) in self.ports.iter().enumerate() {
            let channel = number as u32 % design.channels;
            let bytes = buffer_bytes(*dtype, *elements);
            let at = rows[channel as usize];
            rows[channel as usize] += bytes.div_ceil(BEAT_BYTES).max(1);
            numbers.insert(Argument::Value(*value), number as u32);
            let home = Home::External { first: channel, ways: 1 };
            let place = Place::Values(take(bytes));
            buffers.push(Buffer { name: name.clone(), dtype: *dtype, elements: *elements, home, at, place });
        }
        let first_channel = buffers.len();
        for (number, (channel, width)) in self.channels.iter().zip(widths).enumerate() {
            let Channel { name, dtype, elements, .. } = channel;
            let own = format!("c{number}_{}", name_of(name));
            let home = match *width {
                Some(banks) => {
                    let words = elements / u64::from(banks);
                    // As deep as it may ever have to be, until it is known.
                    design.fifos.push(WordFifo { name: own, dtype: *dtype, banks, words, depth: words });
                    Home::Fifo(FifoId(design.fifos.len() as u32 - 1))
                }
                None => {
                    // As many as lanes want of it at once at either end.
                    let lanes = |end: Option<(usize, usize)>| end.map_or(1, |(stage, _)| self.steps[stage].lanes);
                    let banks = lanes(channel.from).max(lanes(channel.to)).max(1);
                    design.memories.push(memory(own, *dtype, *elements, banks, facts));
                    Home::OnChip(MemoryId(design.memories.len() as u32 - 1))
                }
            };
            let place = Place::Values(take(buffer_bytes(*dtype, elements.next_multiple_of(u64::from(WIDEST)))));
            buffers.push(Buffer { name: name.clone(), dtype: *dtype, elements: *elements, home, at: 0, place });
        }
        let mut calls = Vec::with_capacity(self.steps.len());
        for (number, step) in self.steps.iter().enumerate() {
            let own: Vec<u32> = step
                .ends
                .iter()
                .map(|end| match *end {
                    End::Port(port) => port as u32,
                    End::Channel(channel) => (first_channel + channel) as u32,
                    End::Constant(weight) => {
                        let Weight { name, dtype, elements, banks, at, .. } = &self.weights[weight];
                        let own = format!("w{}_{}", design.memories.len(), name_of(name));
                        design.memories.push(memory(own, *dtype, *elements, *banks, facts));
                        let home = Home::OnChip(MemoryId(design.memories.len() as u32 - 1));
                        let (name, place) = (name.clone(), Place::Weights(*at));
                        buffers.push(Buffer { name, dtype: *dtype, elements: *elements, home, at: 0, place });
                        buffers.len() as u32 - 1
                    }
                })
                .collect();
            let homes = own.iter().map(|&buffer| buffers[buffer as usize].home).collect();
            let name = format!("s{number}_{}", name_of(&step.named));
            let kernel = Kernel { name, about: step.about.clone(), ..step.kernel.clone() };
            design.functions.push(Function::new(kernel, homes));
            let grid = step.kernel.grid;
            calls.push(Call { function: FunctionId(number as u32), buffers: own, grid, group: step.group });
        }
        use_uram(&mut design, &calls, facts);
        Placed {
            design,
            buffers,
            numbers,
            calls,
            loads: Vec::new(),
            constants: self.weights.iter().map(|weight| weight.constant.clone()).collect(),
            weights_bytes: self.weights_bytes,
            values_bytes: end,
            channel_bytes: rows.iter().copied().max().unwrap_or(0) * BEAT_BYTES,
        }
    }
}

/// A kernel with all that it touches in memories of which each element is a word, so that every order of words follows.
fn by_elements(kernel: &Kernel) -> (Function, Design) {
    let memory = |(number, buffer): (usize, &crate::kernel::Buffer)| OnChip {
        name: format!("m{number}"),
        dtype: buffer.dtype,
        banks: 1,
        words: buffer.elements,
        storage: Storage::Bram,
    };
    let memories = kernel.buffers.iter().enumerate().map(memory).collect();
    let homes = (0..kernel.buffers.len() as u32).map(|number| Home::OnChip(MemoryId(number))).collect();
    let design = Design { style: Style::Streaming, memories, ..Design::default() };
    (Function::new(kernel.clone(), homes), design)
}

/// How a kernel touches each of its parameters.
fn orders(kernel: &Kernel) -> Vec<Option<Order>> {
    let (function, design) = by_elements(kernel);
    let Ok(nest) = Nest::new(&function, &design) else { return vec![None; kernel.buffers.len()] };
    (0..kernel.buffers.len() as u32).map(|number| order(&nest, ArrayId(number))).collect()
}

fn memory(name: String, dtype: DType, elements: u64, banks: u32, facts: &FpgaMachine) -> OnChip {
    let words = elements.div_ceil(u64::from(banks)).max(1);
    let storage = storage(words, dtype.bits() as u64, facts, false);
    OnChip { name, dtype, banks, words, storage }
}

/// Builds the largest memories from UltraRAM, as far as there is some, where there is too little block RAM.
fn use_uram(design: &mut Design, calls: &[Call], facts: &FpgaMachine) {
    let budget = facts.budget();
    let ends = ends(design, calls).memories;
    let own = |design: &Design, memory: usize| {
        let is_pair = matches!(ends[memory], (Some(_), Some(_)));
        design.memories[memory].resources(true) * if is_pair { 2 } else { 1 }
    };
    let all = |design: &Design| (0..design.memories.len()).map(|memory| own(design, memory)).sum::<Resources>();
    let mut by_size: Vec<usize> = (0..design.memories.len()).collect();
    by_size.retain(|&memory| design.memories[memory].storage == Storage::Bram);
    by_size.sort_by_key(|&memory| (std::cmp::Reverse(own(design, memory).bram18s), memory));
    // Ports have theirs, and a share is left to FIFOs and local memories.
    let own_ports = (ports(design) + AXI_ONE_WAY).bram18s;
    let most = (budget.bram18s - budget.bram18s / LEFT).saturating_sub(own_ports);
    for memory in by_size {
        if all(design).bram18s <= most {
            return;
        }
        design.memories[memory].storage = Storage::Uram;
        if all(design).urams > budget.urams {
            design.memories[memory].storage = Storage::Bram;
        }
    }
}
