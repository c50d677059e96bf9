//! Where data lies: which memory each value and each constant has, and where there.
//!
//! Values stay on the part as far as there is room, in memories of their type whose words have as many elements as lanes work on.
//! There are several of a type, so that what a call reads and writes lies in different ones. Constants lie on the part if they fit,
//! in words of as many elements as lanes read at once, and beside it otherwise; so do the model's inputs and outputs.

mod homes;
mod loader;
mod wanted;

use std::collections::{BTreeMap, HashMap, HashSet};

use tcc_ir::{Graph, Plan};

use self::homes::Homes;
pub(super) use self::homes::capacity;
use self::loader::{InOrder, Loads};
use self::wanted::{Role, Wanted, neighbours, uses, wanted};
use super::FpgaMachine;
use super::design::{BEAT_BYTES, Design, Function, FunctionId, Home, MemoryId, OnChip, Storage};
use super::lower::{Lower, Lowered, Widths};
use super::memories::storage;
use super::nest::depends_on_grid;
use super::program::{Buffer, Call, Load};
use super::resources::Resources;
use crate::arena::Arena;
use crate::kernel::names::name_of;
use crate::kernel::simulator::{Place, buffer_bytes};
use crate::kernel::{Expr, Kernel};
use crate::lower::Argument;
use crate::lower::quantized::Arranged;
use crate::target::TargetError;
use crate::weights::Constant;

/// Memories of a type that values are spread over.
const MEMORIES: usize = 3;

/// So much smaller than all is what memories of the design may take of block RAM before UltraRAM is used: local arrays and ports need
/// the rest.
const FEW_BLOCKS: u64 = 5;

/// Shares of a part's memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shares {
    /// What values may take.
    pub values: f64,
    /// What constants may take with them.
    pub all: f64,
}

/// Everything in its place.
pub(super) struct Placed {
    pub design: Design,
    pub buffers: Vec<Buffer>,
    pub numbers: HashMap<Argument, u32>,
    pub calls: Vec<Call>,
    /// What is among the weights, in order.
    pub constants: Vec<Constant>,
    /// What the loader reads.
    pub loads: Vec<Load>,
    pub weights_bytes: u64,
    pub values_bytes: u64,
    /// Bytes that the values and constants beside the part take of the channel that has most of them.
    pub channel_bytes: u64,
}

/// Gives everything that calls read or write its place. Values and constants have some of the part's memory; local arrays, FIFOs and ports
/// have the rest.
///
/// # Errors
/// A defect.
pub(super) fn place(
    plan: &Plan,
    lowered: &Lowered,
    (facts, clock_hz): (&FpgaMachine, u64),
    (widths, shares): (Widths, Shares),
) -> Result<Placed, TargetError> {
    let wanted = wanted(plan, lowered, widths);
    let mut homes = Homes::new(&wanted);
    homes.choose(capacity(facts, shares.values), capacity(facts, shares.all));
    let Homes { on_chip, .. } = homes;
    let loads = loaded(&wanted, &on_chip, lowered, (facts, clock_hz));
    let channels = channels(&wanted, &on_chip, loads.as_ref(), facts);
    let mut placing = Placing {
        wanted: &wanted,
        facts,
        design: Design { channels, ..Design::default() },
        channels,
        loads,
        channels_of: HashMap::new(),
        arenas: Vec::new(),
        groups: BTreeMap::new(),
        neighbours: neighbours(&wanted, lowered),
        uses: uses(&wanted, lowered),
        roles: HashMap::new(),
        rows: vec![0; channels as usize],
        traffic: vec![(0, 0); channels as usize],
        of_role: HashMap::new(),
        spilled: Arena::new(1),
        buffers: Vec::new(),
        linear: Arena::new(BEAT_BYTES),
        weights_bytes: 0,
        constants: Vec::new(),
    };
    for (place, wanted) in wanted.iter().enumerate() {
        // How much is read of a constant, of which there are tables too, is not known here.
        for role in placing.uses[place].iter().filter(|_| !wanted.is_constant && !on_chip[place]) {
            *placing.of_role.entry(*role).or_default() += wanted.bytes().div_ceil(BEAT_BYTES);
        }
    }
    placing.all(&on_chip, lowered, &plan.graph);
    placing.finish(lowered)
}

/// Channels that a design has ports to: as many as what lies beside the part needs at once, and such that all of it finds room in
/// three quarters of them.
fn channels(wanted: &[Wanted], on_chip: &[bool], loads: Option<&Loads>, facts: &FpgaMachine) -> u32 {
    let outside = || wanted.iter().zip(on_chip).filter(|&(_, &on_chip)| !on_chip).map(|(wanted, _)| wanted);
    let is_loaded = |place: usize| loads.is_some_and(|loads| loads.streams[place].is_some());
    let all = wanted.iter().enumerate().filter(|&(place, _)| !on_chip[place] && !is_loaded(place));
    let ways = all.map(|(_, wanted)| wanted.ways(facts)).max().unwrap_or(1);
    let ways = ways.max(loads.map_or(1, |loads| loads.loader.channels));
    let bytes: u64 = outside().map(Wanted::bytes).sum();
    let of_channel = facts.memory.of_channel().max(1);
    let needed = (bytes + bytes / 3).div_ceil(of_channel).next_power_of_two();
    ways.max(needed.min(u64::from(facts.memory.channels)) as u32).min(facts.memory.channels)
}

/// What the loader brings of what lies beside the part.
fn loaded(
    wanted: &[Wanted],
    on_chip: &[bool],
    lowered: &Lowered,
    (facts, clock_hz): (&FpgaMachine, u64),
) -> Option<Loads> {
    let in_order = wanted.iter().zip(on_chip).map(|(wanted, &on_chip)| {
        let bits = u64::from(wanted.banks) * wanted.dtype.bits() as u64;
        (wanted.is_in_order && !on_chip).then_some(InOrder { bits })
    });
    let in_order: Vec<Option<InOrder>> = in_order.collect();
    let places: HashMap<Argument, usize> =
        wanted.iter().enumerate().map(|(place, wanted)| (wanted.argument, place)).collect();
    let calls: Vec<Vec<usize>> = lowered
        .calls
        .iter()
        .map(|call| {
            let own = call.arguments.iter().filter_map(|argument| places.get(argument).copied());
            own.filter(|&place| in_order[place].is_some()).collect()
        })
        .collect();
    Loads::new(&in_order, &calls, facts, clock_hz)
}

struct Placing<'w> {
    wanted: &'w [Wanted],
    facts: &'w FpgaMachine,
    design: Design,
    /// What is taken of each memory on the part.
    arenas: Vec<Arena>,
    /// Memories of a kind: for constants or values, a type, so many banks.
    groups: BTreeMap<(bool, &'static str, u32), Vec<MemoryId>>,
    neighbours: Vec<HashSet<usize>>,
    /// What each thing is to the calls that touch it: a parameter of a kernel.
    uses: Vec<Vec<Role>>,
    /// The memory that what was a parameter of a kernel before lies in: calls that do the same are one function if they do it in the
    /// same memories.
    roles: HashMap<Role, MemoryId>,
    /// Channels beside the part that the design has ports to.
    channels: u32,
    /// What the loader brings.
    loads: Option<Loads>,
    /// The channels of what was a parameter of a kernel before: the first, and how many.
    channels_of: HashMap<Role, (u32, u32)>,
    /// Beats of constants and ports in each channel.
    rows: Vec<u64>,
    /// Beats that calls move of each channel, as far as that is known: of what has a place, and of what will be the same parameter of a
    /// kernel. And how many parameters have it.
    traffic: Vec<(u64, u32)>,
    /// Beats of all that is a parameter of a kernel.
    of_role: HashMap<Role, u64>,
    /// Beats of values beside the part, which all lie in the first channel behind everything else.
    spilled: Arena,
    buffers: Vec<Buffer>,
    /// Bytes of the simulator's memory for what lies beside the part.
    linear: Arena,
    weights_bytes: u64,
    constants: Vec<Constant>,
}

impl Placing<'_> {
    /// Places everything, call by call, and takes back what is not wanted any more.
    fn all(&mut self, on_chip: &[bool], lowered: &Lowered, graph: &Graph) {
        let count = lowered.calls.len() + 1;
        let mut begins: Vec<Vec<usize>> = vec![Vec::new(); count];
        let mut ends: Vec<Vec<usize>> = vec![Vec::new(); count];
        for (place, wanted) in self.wanted.iter().enumerate() {
            begins[wanted.calls.0].push(place);
            ends[wanted.calls.1].push(place);
        }
        let mut homes: Vec<Option<(Home, u64, Place)>> = vec![None; self.wanted.len()];
        for call in 0..count {
            for &place in &begins[call] {
                homes[place] = Some(self.one(place, on_chip[place], &homes, lowered, graph));
            }
            for &place in &ends[call] {
                self.take_back(place, homes[place]);
            }
        }
        for (wanted, home) in self.wanted.iter().zip(homes) {
            let (home, at, place) = home.unwrap_or((Home::External { first: 0, ways: 1 }, 0, Place::Values(0)));
            let (name, dtype, elements) = (wanted.name.clone(), wanted.dtype, wanted.elements);
            self.buffers.push(Buffer { name, dtype, elements, home, at, place });
        }
    }

    /// Gives one thing its place.
    fn one(
        &mut self,
        place: usize,
        on_chip: bool,
        homes: &[Option<(Home, u64, Place)>],
        lowered: &Lowered,
        graph: &Graph,
    ) -> (Home, u64, Place) {
        let wanted = &self.wanted[place];
        let weights = self.weights_bytes;
        if wanted.is_constant {
            self.weights_bytes += wanted.bytes().next_multiple_of(BEAT_BYTES);
            self.constants.push(match wanted.argument {
                Argument::Arranged(number) => {
                    let Arranged { value, view } = &lowered.arranged[number as usize];
                    (*value, Some(view.clone()))
                }
                Argument::Value(value) => (value, None),
                Argument::Handed(..) | Argument::Part { .. } | Argument::Counters(_) => {
                    (graph.outputs()[0].value, None)
                }
            });
        }
        if on_chip {
            let known = self.uses[place].iter().find_map(|role| self.roles.get(role).copied());
            let fits = |memory: &MemoryId| {
                let memory = &self.design.memories[memory.index()];
                memory.dtype == wanted.dtype && memory.banks == wanted.banks
            };
            let memory = known.filter(|_| !wanted.is_constant).filter(fits);
            let memory = memory.unwrap_or_else(|| self.memory(place, homes));
            for role in &self.uses[place] {
                self.roles.entry(*role).or_insert(memory);
            }
            let at = self.arenas[memory.index()].take(wanted.words());
            // Where values lie in the simulator's memory is known when memories have their sizes.
            let place = if wanted.is_constant { Place::Weights(weights) } else { Place::Values(0) };
            return (Home::OnChip(memory), at, place);
        }
        if let Some(stream) = self.loads.as_ref().and_then(|loads| loads.streams[place]) {
            return (Home::Loaded { stream }, 0, Place::Weights(weights));
        }
        let beats = wanted.bytes().div_ceil(BEAT_BYTES).max(1);
        if !wanted.is_constant && !wanted.is_outside {
            let at = self.spilled.take(beats);
            return (Home::External { first: 0, ways: 1 }, at, Place::Values(self.linear.take(wanted.bytes())));
        }
        let ways = wanted.ways(self.facts);
        let known = self.uses[place].iter().find_map(|role| self.channels_of.get(role).copied());
        let known = known.filter(|&(_, known)| known == ways).map(|(first, _)| first);
        let first = known.unwrap_or_else(|| self.quietest(place, ways, homes));
        for role in &self.uses[place] {
            self.channels_of.entry(*role).or_insert((first, ways));
        }
        let own = first as usize..(first + ways) as usize;
        let at = self.rows[own.clone()].iter().copied().max().unwrap_or(0);
        self.rows[own].fill(at + beats.div_ceil(u64::from(ways)));
        let place = match wanted.is_constant {
            true => Place::Weights(weights),
            false => Place::Values(self.linear.take(wanted.bytes())),
        };
        (Home::External { first, ways }, at, place)
    }

    /// The channels that least is moved of, for one thing that is spread over so many, from the first: in step with others of as many, so
    /// that two are either the same or apart. Of several those in which least lies that is touched with it.
    fn quietest(&mut self, place: usize, ways: u32, homes: &[Option<(Home, u64, Place)>]) -> u32 {
        let groups = (0..self.channels).step_by(ways as usize).filter(|first| first + ways <= self.channels);
        let own = |first: u32| first as usize..(first + ways) as usize;
        let met = |first: u32| {
            let is_here = |&&other: &&usize| match homes[other] {
                Some((Home::External { first: at, ways: wide }, ..)) => at < first + ways && first < at + wide,
                _ => false,
            };
            self.neighbours[place].iter().filter(is_here).count()
        };
        let busiest = |first: &u32| {
            let beats = self.traffic[own(*first)].iter().map(|&(beats, _)| beats).max();
            let parameters = self.traffic[own(*first)].iter().map(|&(_, parameters)| parameters).max();
            (beats, met(*first), parameters)
        };
        let first = groups.min_by_key(busiest).unwrap_or(0);
        let all = self.uses[place].iter().filter_map(|role| self.of_role.get(role).copied());
        let more = all.max().unwrap_or(0).div_ceil(u64::from(ways));
        for (beats, parameters) in &mut self.traffic[own(first)] {
            (*beats, *parameters) = (*beats + more, *parameters + 1);
        }
        first
    }

    /// The memory on the part for one thing: of its type the one in which fewest lie that are touched with it, and of those the
    /// emptiest.
    fn memory(&mut self, place: usize, homes: &[Option<(Home, u64, Place)>]) -> MemoryId {
        let wanted = &self.wanted[place];
        let kind = (wanted.is_constant, wanted.dtype.name(), wanted.banks);
        let most = if wanted.is_constant { 1 } else { MEMORIES };
        let known = self.groups.get(&kind).cloned().unwrap_or_default();
        let met = |memory: MemoryId| {
            let others = self.neighbours[place].iter();
            others.filter(|&&other| matches!(homes[other], Some((Home::OnChip(own), ..)) if own == memory)).count()
        };
        let best = known.iter().copied().min_by_key(|&memory| (met(memory), self.arenas[memory.index()].size, memory));
        match best {
            Some(memory) if known.len() >= most || met(memory) == 0 => memory,
            _ => {
                let memory = MemoryId(self.design.memories.len() as u32);
                let what = if wanted.is_constant { "weights" } else { "values" };
                let (dtype, banks) = (wanted.dtype, wanted.banks);
                let name = match wanted.is_constant {
                    true => format!("{what}_{}_{banks}", dtype.name()),
                    false => {
                        // Those of a type are counted, whatever their banks.
                        let kinds = self
                            .groups
                            .iter()
                            .filter(|((is_constant, name, _), _)| !is_constant && *name == dtype.name());
                        let before: usize = kinds.map(|(_, own)| own.len()).sum();
                        format!("{what}_{}_{before}", dtype.name())
                    }
                };
                self.design.memories.push(OnChip { name, dtype, banks, words: 0, storage: Storage::Bram });
                self.arenas.push(Arena::new(1));
                self.groups.entry(kind).or_default().push(memory);
                memory
            }
        }
    }

    fn take_back(&mut self, place: usize, home: Option<(Home, u64, Place)>) {
        let wanted = &self.wanted[place];
        if wanted.is_constant || wanted.is_outside {
            return;
        }
        match home {
            Some((Home::OnChip(memory), at, _)) => self.arenas[memory.index()].give_back(at, wanted.words()),
            Some((Home::External { .. }, at, place)) => {
                self.spilled.give_back(at, wanted.bytes().div_ceil(BEAT_BYTES).max(1));
                if let Place::Values(at) = place {
                    self.linear.give_back(at, wanted.bytes());
                }
            }
            // Nothing that a controller calls has FIFOs of stages.
            Some((Home::Loaded { .. } | Home::Fifo(_), ..)) | None => {}
        }
    }

    /// Builds the largest memories from UltraRAM, as far as there is some, where block RAM would run short.
    fn use_uram(&mut self) {
        let budget = self.facts.budget();
        let fifos = self.loads.as_ref().map(Loads::resources).unwrap_or_default();
        let all = |memories: &[OnChip]| memories.iter().map(|memory| memory.resources(true)).sum::<Resources>();
        let mut by_size: Vec<usize> = (0..self.design.memories.len())
            .filter(|&memory| self.design.memories[memory].storage == Storage::Bram)
            .collect();
        by_size
            .sort_by_key(|&memory| (std::cmp::Reverse(self.design.memories[memory].resources(true).bram18s), memory));
        for memory in by_size {
            if all(&self.design.memories).bram18s * FEW_BLOCKS <= budget.bram18s {
                return;
            }
            self.design.memories[memory].storage = Storage::Uram;
            if all(&self.design.memories).urams + fifos.urams > budget.urams {
                self.design.memories[memory].storage = Storage::Bram;
            }
        }
    }

    /// Sizes of memories, and functions: kernels that do the same in the same memories are one.
    fn finish(mut self, lowered: &Lowered) -> Result<Placed, TargetError> {
        for (memory, arena) in self.design.memories.iter_mut().zip(&self.arenas) {
            memory.words = arena.size.max(1);
            memory.storage = storage(memory.words, memory.dtype.bits() as u64, self.facts, false);
        }
        self.use_uram();
        let urams = self.design.memories.iter().map(|memory| memory.resources(true).urams).sum();
        if let Some(loads) = &mut self.loads {
            loads.use_uram(urams, self.facts.budget().urams);
        }
        let mut bases = Vec::with_capacity(self.design.memories.len());
        let mut end = self.linear.size;
        for memory in &self.design.memories {
            bases.push(end);
            let bytes = buffer_bytes(memory.dtype, memory.words * u64::from(memory.banks));
            end += bytes.next_multiple_of(BEAT_BYTES);
        }
        for (buffer, wanted) in self.buffers.iter_mut().zip(self.wanted) {
            if let (Home::OnChip(memory), false) = (buffer.home, wanted.is_constant) {
                let banks = u64::from(self.design.memories[memory.index()].banks);
                let first = buffer_bytes(buffer.dtype, buffer.at * banks);
                let first = if buffer.at == 0 { 0 } else { first };
                buffer.place = Place::Values(bases[memory.index()] + first);
            }
        }
        let mut numbers: HashMap<Argument, u32> =
            self.wanted.iter().enumerate().map(|(place, wanted)| (wanted.argument, place as u32)).collect();
        self.parts(lowered, &mut numbers);
        let calls = self.functions(lowered, &numbers);
        let loads = self.load(&calls);
        // Values beside the part lie behind all that stays there.
        let behind = self.rows.first().copied().unwrap_or(0);
        let (wholes, parts) = self.buffers.split_at_mut(self.wanted.len());
        for (buffer, wanted) in wholes.iter_mut().zip(self.wanted) {
            if let (Home::External { .. }, false, false) = (buffer.home, wanted.is_constant, wanted.is_outside) {
                buffer.at += behind;
            }
        }
        // Only values have parts.
        for part in parts.iter_mut().filter(|part| matches!(part.home, Home::External { .. })) {
            part.at += behind;
        }
        let beats = self.rows.iter().copied().max().unwrap_or(0).max(behind + self.spilled.size);
        Ok(Placed {
            design: self.design,
            buffers: self.buffers,
            numbers,
            calls,
            constants: self.constants,
            loads,
            weights_bytes: self.weights_bytes,
            values_bytes: end,
            channel_bytes: beats * BEAT_BYTES,
        })
    }

    /// Parts of what is handed over, each as a buffer of its own.
    fn parts(&mut self, lowered: &Lowered, numbers: &mut HashMap<Argument, u32>) {
        for &argument in lowered.calls.iter().flat_map(|call| &call.arguments) {
            let Argument::Part { elements, part, .. } = argument else { continue };
            if numbers.contains_key(&argument) {
                continue;
            }
            let whole = &self.buffers[numbers[&argument.whole()] as usize];
            let before = elements * u64::from(part);
            let bytes = buffer_bytes(whole.dtype, before);
            // Parts begin with words and beats: see `Tiled`.
            let at = match whole.home {
                Home::OnChip(memory) => before / u64::from(self.design.memories[memory.index()].banks),
                Home::External { .. } | Home::Loaded { .. } | Home::Fifo(_) => bytes / BEAT_BYTES,
            };
            let place = match whole.place {
                Place::Values(at) => Place::Values(at + bytes),
                Place::Weights(at) => Place::Weights(at + bytes),
            };
            let own = Buffer { elements, at: whole.at + at, place, ..whole.clone() };
            numbers.insert(argument, self.buffers.len() as u32);
            self.buffers.push(own);
        }
    }

    /// Functions, and what is called: kernels that do the same in the same memories are one, and those that leave it to calls how large
    /// their grid is also where that differs.
    fn functions(&mut self, lowered: &Lowered, numbers: &HashMap<Argument, u32>) -> Vec<Call> {
        let mut known: HashMap<(Kernel, Vec<Home>), FunctionId> = HashMap::new();
        let mut calls = Vec::with_capacity(lowered.calls.len());
        for Lower { kernel, arguments, group, named, about, .. } in &lowered.calls {
            let buffers: Vec<u32> = arguments.iter().map(|argument| numbers[argument]).collect();
            let homes: Vec<Home> = buffers.iter().map(|&buffer| self.buffers[buffer as usize].home).collect();
            let nameless = kernel.nameless();
            let is_elastic = is_elastic(kernel, &homes);
            let key = if is_elastic { shapeless(nameless) } else { nameless };
            let functions = &mut self.design.functions;
            let function = *known.entry((key, homes.clone())).or_insert_with(|| {
                let number = FunctionId(functions.len() as u32);
                let name = format!("f{}_{}", number.0, name_of(named));
                let kernel = Kernel { name, about: about.clone(), ..kernel.clone() };
                functions.push(Function::new(kernel, homes));
                number
            });
            if is_elastic {
                functions[function.index()].stretch(kernel);
            }
            calls.push(Call { function, buffers, grid: kernel.grid, group: *group });
        }
        calls
    }

    /// Has the loader's channels hold what it reads behind all that is in them, and says what that is.
    fn load(&mut self, calls: &[Call]) -> Vec<Load> {
        let Some(Loads { loader, .. }) = &self.loads else { return Vec::new() };
        let own = ..loader.channels as usize;
        let first = self.rows[own].iter().copied().max().unwrap_or(0);
        let stream_of = |buffer: u32| match self.buffers[buffer as usize].home {
            Home::Loaded { stream } => Some(stream),
            Home::OnChip(_) | Home::External { .. } | Home::Fifo(_) => None,
        };
        let beats = |buffer: u32| {
            let Buffer { dtype, elements, .. } = self.buffers[buffer as usize];
            buffer_bytes(dtype, elements).div_ceil(BEAT_BYTES)
        };
        let (loads, end) = loader::loads(loader, calls, stream_of, beats, first);
        self.rows[own].fill(end);
        self.design.loader = Some(loader.clone());
        loads
    }
}

/// Fewer blocks along the first axis than these are told apart: accesses to the same place lie so many iterations apart.
const TOLD_APART: u32 = 8;

/// Whether a kernel that counts its blocks does the same whatever its grid: it does so only to read from the loader, where the count
/// is the order.
fn is_elastic(kernel: &Kernel, homes: &[Home]) -> bool {
    let is_loaded = homes.iter().any(|home| matches!(home, Home::Loaded { .. }));
    is_loaded && kernel.exprs.contains(&Expr::BlockNumber) && !depends_on_grid(kernel, homes)
}

/// A kernel without its sizes.
fn shapeless(kernel: Kernel) -> Kernel {
    let mut kernel = kernel;
    kernel.grid = [kernel.grid[0].min(TOLD_APART), 1, 1];
    kernel.buffers.iter_mut().for_each(|buffer| buffer.elements = 1);
    kernel.shared.iter_mut().for_each(|shared| shared.elements = 1);
    kernel
}
