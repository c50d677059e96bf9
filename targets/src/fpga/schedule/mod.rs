//! When each operation of a function starts, how many cycles a call takes, and what operators that needs.
//!
//! How a call goes on, from which its cycles follow:
//! * It takes [`CALL`] cycles to begin and to end, and where it writes external memory, the latency of that until all is written.
//! * What stands one after the other is done one after the other. A block takes as many cycles as its depth.
//! * A loop that is pipelined takes 1 cycle to enter, the depth of an iteration, the interval for each further one, and 1 cycle to
//!   leave. Where it streams from external memory the latency of that comes before the first iteration; where the memory gives less than
//!   iterations want, the loop takes as long as the memory for its beats.
//! * Any other loop takes 1 cycle to enter, and 1 for each iteration to count and compare, besides what is in it.
//! * A branch takes 1 cycle to decide, and what is done then: at most the longer side, which is what is counted.

mod block;
mod dependence;
mod external;
mod lines;
mod ports;
mod sharing;
mod timeline;
mod usage;

use std::collections::BTreeMap;

pub use block::Bound;
pub use dependence::{Dependence, dependences};
pub use external::{Asked, Beats, Rate, asked, is_external};
pub use ports::{Bank, Need, need};
pub use timeline::Step;
pub use usage::{AXI_ONE_WAY, AXI_PORT, Usage, is_shared};

use super::access::Pattern;
use super::design::{Design, Function, Storage};
use super::machine::FpgaMachine;
use super::memories::{spares, storage};
use super::nest::{ArrayId, ArrayPlace, Item, Kind, LoopId, Nest, OpId};
use super::operators::{Class, Timing};
use crate::TargetError;
use block::{Blocks, Cost, array_of};

/// Cycles in which a call begins and ends.
pub const CALL: u64 = 2;

/// A function in time.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// What is scheduled.
    pub nest: Nest,
    /// The cycle in which each operation of [`Nest::ops`] starts, counted from the start of its block (of an iteration, in a
    /// pipelined loop). What is in no block has 0.
    pub starts: Vec<u32>,
    /// Cycles from the start of each operation to when its value is there. With 0 it is logic: the value is an input of other logic in
    /// the same cycle (chained), and in a register for what starts later. With n it comes out of a register (or memory) n
    /// cycles later. What is in no block has 0.
    pub latencies: Vec<u32>,
    /// Cycles for which each access keeps its ports: more than 1 where its copies want more words of a bank than that has ports.
    /// Its latency counts from the last of them. What is no access has 1.
    pub spans: Vec<u32>,
    /// Each block of [`Nest::blocks`].
    pub blocks: Vec<BlockTime>,
    /// Each loop of [`Nest::loops`].
    pub loops: Vec<LoopTime>,
    /// Memories of the function itself.
    pub memories: Vec<Local>,
    /// Beats of each external channel in a call.
    pub traffic: BTreeMap<u32, Beats>,
    cycles: u64,
    usage: Usage,
    bound: Binding,
    rate: Rate,
    /// Of each block, the operators that are needed at a time.
    operators: Vec<BTreeMap<Class, u64>>,
}

/// A block in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockTime {
    /// Cycles from its start until all its values and writes are there.
    pub depth: u32,
    /// Cycles that it takes, with what external memory lets it wait. Of the body of a pipelined loop, its depth.
    pub cycles: u64,
}

/// A loop in time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoopTime {
    /// Cycles from one iteration to the next, of a loop that is pipelined; else those of an iteration.
    pub interval: u64,
    /// Cycles of one iteration.
    pub depth: u64,
    /// Cycles of the loop each time that it is entered.
    pub cycles: u64,
    /// Cycles of those that are waited for external memory.
    pub waits: u64,
    /// Why the interval is not shorter.
    pub bound: Bound,
}

/// A memory of the function itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// What it is.
    pub array: ArrayId,
    /// Words of each bank; there are [`Array::banks`](super::nest::Array::banks).
    pub words: u64,
    /// What it is built from.
    pub storage: Storage,
    /// Whether two words of a bank are read in one cycle.
    pub reads_twice: bool,
}

/// What most of a call's time goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Binding {
    /// Iterations that begin in each cycle, filling pipelines, and what is done between loops.
    #[default]
    Work,
    /// Values that the next iteration waits for.
    Recurrence,
    /// Ports of memories on the part.
    Ports,
    /// External memory.
    External,
}

impl Schedule {
    /// Schedules a function of a design at a clock.
    ///
    /// # Errors
    /// It has what only GPUs do, loops of which it is not known how often they are done, or no schedule.
    pub fn new(
        function: &Function,
        design: &Design,
        facts: &FpgaMachine,
        clock_hz: u64,
    ) -> Result<Schedule, TargetError> {
        let nest = Nest::new(function, design)?;
        let rate = Rate::new(&facts.memory, clock_hz);
        let local_storage = |words, bits| storage(words, bits, facts, spares(design, facts));
        let costs: Vec<Cost> = costs(&nest, design, (&local_storage, rate), clock_hz);
        let mut schedule = Schedule {
            starts: vec![0; nest.ops.len()],
            latencies: costs.iter().map(|cost| cost.timing.latency).collect(),
            spans: vec![1; nest.ops.len()],
            blocks: vec![BlockTime::default(); nest.blocks.len()],
            loops: vec![LoopTime::default(); nest.loops.len()],
            memories: Vec::new(),
            traffic: BTreeMap::new(),
            cycles: 0,
            usage: Usage::default(),
            bound: Binding::Work,
            rate,
            operators: vec![BTreeMap::new(); nest.blocks.len()],
            nest,
        };
        schedule.place(&costs, clock_hz, &function.kernel.name)?;
        schedule.keep_memories(&local_storage);
        let mut walk = Times { times: 1, shares: BTreeMap::new() };
        let body = std::mem::take(&mut schedule.nest.body);
        schedule.cycles = CALL + schedule.items(&body, rate, &mut walk);
        schedule.nest.body = body;
        let written = schedule.written();
        if written > 0 {
            schedule.cycles += written;
            *walk.shares.entry(Binding::External).or_default() += written;
        }
        let most = walk.shares.iter().max_by_key(|&(binding, &cycles)| (cycles, std::cmp::Reverse(*binding)));
        schedule.bound = most.map(|(&binding, _)| binding).unwrap_or_default();
        schedule.usage = schedule.count(clock_hz);
        Ok(schedule)
    }

    /// Cycles of a call.
    pub fn cycles(&self) -> u64 {
        self.cycles
    }

    /// Cycles at the end of a call until all is written that external memory was given.
    fn written(&self) -> u64 {
        if self.traffic.values().any(|beats| beats.written > 0) { u64::from(self.rate.latency) } else { 0 }
    }

    /// Cycles in which the busiest external channel moves something.
    pub fn external_cycles(&self) -> u64 {
        self.traffic.values().map(|beats| self.rate.streamed(beats.sum())).max().unwrap_or(0)
    }

    /// Beats that a call moves of a channel by ports of its own.
    pub fn beats_of(&self, channel: u32) -> u64 {
        self.traffic.get(&channel).map_or(0, |beats| beats.sum())
    }

    /// What it is built from.
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// The interval of each loop that is pipelined, in the order of the program.
    pub fn intervals(&self) -> Vec<u64> {
        let loops = self.nest.loops.iter().zip(&self.loops);
        loops.filter(|(own, _)| own.pipelined).map(|(_, time)| time.interval).collect()
    }

    /// What most of its time goes to.
    pub fn bound_by(&self) -> Binding {
        self.bound
    }

    /// Why the interval of a loop is not shorter, in words.
    pub fn reason(&self, id: LoopId) -> String {
        let of = |op: OpId| match &self.nest.ops[op.index()].kind {
            Kind::Load(array, _) | Kind::Store(array, _) => self.nest.arrays[array.index()].name.clone(),
            _ => String::new(),
        };
        match self.loops[id.index()].bound {
            Bound::None => "each cycle".to_owned(),
            Bound::Recurrence(_) => "a value goes from one iteration to the next".to_owned(),
            Bound::Memory(op) => format!("iterations hand on elements of `{}`", of(op)),
            Bound::Ports(bank) => {
                let array = array_of(&self.nest, bank).map(|array| self.nest.arrays[array.index()].name.as_str());
                format!("the ports of `{}`", array.unwrap_or_default())
            }
        }
    }

    fn place(&mut self, costs: &[Cost], clock_hz: u64, name: &str) -> Result<(), TargetError> {
        let mut numbers = std::collections::HashMap::new();
        for index in 0..self.nest.ops.len() {
            if let Some(need) = need(&self.nest, OpId(index as u32), &mut numbers) {
                self.spans[index] = need.span;
            }
        }
        let mut pipelined = vec![None; self.nest.blocks.len()];
        for (index, own) in self.nest.loops.iter().enumerate() {
            if let ([Item::Block(block)], true) = (&own.body[..], own.pipelined) {
                pipelined[block.index()] = Some(LoopId(index as u32));
            }
        }
        let mut blocks = Blocks::new(&self.nest, costs, clock_hz);
        // Loops first: what is outside makes do with their operators.
        let mut order: Vec<usize> = (0..self.nest.blocks.len()).collect();
        order.sort_by_key(|&index| pipelined[index].is_none());
        let mut there: BTreeMap<Class, u64> = BTreeMap::new();
        for index in order {
            let block = &self.nest.blocks[index];
            let own = pipelined[index].map(|id: LoopId| &self.nest.loops[id.index()]);
            let placed = blocks.place(&block.ops, own, &there);
            let placed = placed.ok_or_else(|| TargetError::Fault(format!("kernel `{name}` has no schedule")))?;
            for (id, &start) in block.ops.iter().zip(&placed.starts) {
                self.starts[id.index()] = start;
            }
            self.blocks[index] = BlockTime { depth: placed.depth, cycles: u64::from(placed.depth) };
            if let Some(id) = pipelined[index] {
                let time = &mut self.loops[id.index()];
                time.interval = u64::from(placed.interval);
                time.depth = u64::from(placed.depth);
                time.bound = placed.bound;
                for (&class, &count) in &placed.operators {
                    let most = there.entry(class).or_default();
                    *most = count.max(*most);
                }
            }
            self.operators[index] = placed.operators;
        }
        Ok(())
    }

    /// Finds what local memories are built from.
    fn keep_memories(&mut self, local_storage: &impl Fn(u64, u64) -> Storage) {
        let mut twice = vec![false; self.nest.arrays.len()];
        let mut is_used = vec![false; self.nest.arrays.len()];
        for op in &self.nest.ops {
            if let Kind::Load(array, _) | Kind::Store(array, _) = op.kind {
                is_used[array.index()] = true;
            }
        }
        for index in 0..self.nest.blocks.len() {
            self.find_reads(index, &mut twice);
        }
        let locals = self.nest.arrays.iter().enumerate().filter(|(_, array)| array.place == ArrayPlace::Local);
        // What lanes would combine by on other machines is not built.
        let locals = locals.filter(|&(index, _)| is_used[index]);
        self.memories = locals
            .map(|(index, array)| {
                let words = array.words();
                let (storage, reads_twice) = (local_storage(words, array.dtype.bits() as u64), twice[index]);
                Local { array: ArrayId(index as u32), words, storage, reads_twice }
            })
            .collect();
    }

    /// Finds arrays of which a block reads two words of a bank in one cycle.
    fn find_reads(&self, block: usize, twice: &mut [bool]) {
        let pipelined = self
            .nest
            .loops
            .iter()
            .zip(&self.loops)
            .find(|(own, _)| own.pipelined && matches!(own.body[..], [Item::Block(id)] if id.index() == block));
        let interval = pipelined.map(|(_, time)| time.interval.max(1) as u32);
        let mut numbers = std::collections::HashMap::new();
        let mut reads: BTreeMap<(u32, Bank), Vec<u64>> = BTreeMap::new();
        for &id in &self.nest.blocks[block].ops {
            let Some(need) = need(&self.nest, id, &mut numbers).filter(|need| !need.writes) else { continue };
            for (bank, words) in need.words {
                for (place, word) in words.into_iter().enumerate() {
                    let cycle = self.starts[id.index()] + place as u32 / ports::READS;
                    let slot = interval.map_or(cycle, |interval| cycle % interval);
                    let own = reads.entry((slot, bank)).or_default();
                    if !own.contains(&word) {
                        own.push(word);
                    }
                }
            }
        }
        for ((_, bank), words) in reads {
            if let (true, Some(array)) = (words.len() > 1, array_of(&self.nest, bank)) {
                twice[array.index()] = true;
            }
        }
    }

    /// Cycles of what is done one after the other.
    fn items(&mut self, items: &[Item], rate: Rate, walk: &mut Times) -> u64 {
        let mut cycles = 0;
        for item in items {
            cycles += match item {
                Item::Block(id) => {
                    let asked = asked(&self.nest, &self.nest.blocks[id.index()].ops, None);
                    self.carry(&asked, walk);
                    // The first is asked for where it stands, and the others come behind it.
                    let waits = asked.cycles(rate).saturating_sub(1);
                    let time = &mut self.blocks[id.index()];
                    time.cycles = u64::from(time.depth) + waits;
                    walk.add(Binding::External, waits);
                    walk.add(Binding::Work, u64::from(time.depth));
                    time.cycles
                }
                Item::Loop(id) => self.repeated(*id, rate, walk),
                Item::Branch { then, otherwise, .. } => {
                    let (then, otherwise) = (self.items(then, rate, walk), self.items(otherwise, rate, walk));
                    1 + then.max(otherwise)
                }
            };
        }
        cycles
    }

    fn repeated(&mut self, id: LoopId, rate: Rate, walk: &mut Times) -> u64 {
        let own = self.nest.loops[id.index()].clone();
        let trips = own.trips();
        let [Item::Block(block)] = own.body[..] else { return self.sequential(id, (&own.body, trips), rate, walk) };
        if !own.pipelined {
            return self.sequential(id, (&own.body, trips), rate, walk);
        }
        let asked = asked(&self.nest, &self.nest.blocks[block.index()].ops, Some((id, &own)));
        self.carry(&asked, walk);
        let time = &mut self.loops[id.index()];
        let begun = time.interval.saturating_mul(trips - 1);
        let first = if asked.reads_streams() { u64::from(rate.latency) } else { 0 };
        time.waits = first + asked.cycles(rate).saturating_sub(begun);
        time.cycles = 2 + time.depth + begun + time.waits;
        let bound = match time.bound {
            _ if time.interval == 1 => Binding::Work,
            Bound::None => Binding::Work,
            Bound::Recurrence(_) | Bound::Memory(_) => Binding::Recurrence,
            Bound::Ports(_) => Binding::Ports,
        };
        let (waits, work, cycles) = (time.waits, 2 + time.depth, time.cycles);
        walk.add(Binding::External, waits);
        walk.add(Binding::Work, work);
        walk.add(bound, begun);
        cycles
    }

    fn sequential(&mut self, id: LoopId, (body, trips): (&[Item], u64), rate: Rate, walk: &mut Times) -> u64 {
        let before = walk.times;
        walk.times = before.saturating_mul(trips);
        let inner = self.items(body, rate, walk) + 1;
        walk.add(Binding::Work, 1);
        walk.times = before;
        walk.add(Binding::Work, 1);
        let time = &mut self.loops[id.index()];
        (time.interval, time.depth) = (inner, inner);
        time.cycles = 1 + inner.saturating_mul(trips);
        time.cycles
    }

    /// Counts beats of the whole call.
    fn carry(&mut self, asked: &Asked, walk: &Times) {
        for (channel, beats) in asked.all() {
            let own = self.traffic.entry(channel).or_default();
            *own = own.plus(beats.times(walk.times));
        }
    }
}

/// How often something is done in a call, and what the cycles so far have gone to.
struct Times {
    times: u64,
    shares: BTreeMap<Binding, u64>,
}

impl Times {
    fn add(&mut self, binding: Binding, cycles: u64) {
        let own = self.shares.entry(binding).or_default();
        *own = own.saturating_add(cycles.saturating_mul(self.times));
    }
}

/// How long each operation takes.
fn costs(
    nest: &Nest,
    design: &Design,
    (local_storage, rate): (&impl Fn(u64, u64) -> Storage, Rate),
    clock_hz: u64,
) -> Vec<Cost> {
    let mut streamed = vec![false; nest.ops.len()];
    nest.streams.iter().for_each(|stream| streamed[stream.op.index()] = true);
    let cost = |index: usize| {
        let op = &nest.ops[index];
        let (array, pattern, writes) = match &op.kind {
            Kind::Load(array, pattern) => (array, pattern, false),
            Kind::Store(array, pattern) => (array, pattern, true),
            _ => return Cost { timing: nest.operator(OpId(index as u32), clock_hz).timing, behind: 0.0 },
        };
        let own = &nest.arrays[array.index()];
        // A switch between lanes and banks has a register on both sides.
        let switch = if matches!(pattern, Pattern::Fixed(_)) || own.banks == 1 { 0 } else { 1 };
        let (latency, behind) = match (own.place, writes) {
            (_, true) => (1 + switch, 0.0),
            (ArrayPlace::External { .. }, false) if streamed[index] => (1 + switch, 0.0),
            (ArrayPlace::External { .. }, false) => (rate.latency + switch, 0.0),
            // Beats are taken one after the other from each FIFO into registers.
            (ArrayPlace::Loaded { .. }, false) => {
                let rows = nest.pops.iter().find(|pop| pop.array == *array).map_or(1, |pop| pop.rows());
                (rows as u32, 0.0)
            }
            (ArrayPlace::OnChip(id), false) => {
                let storage = design.memories.get(id.index()).map_or(Storage::Bram, |memory| memory.storage);
                reading(storage, switch)
            }
            // What comes out of a FIFO is in a register.
            (ArrayPlace::Fifo(_), false) => (1 + switch, 0.0),
            (ArrayPlace::Local, false) => reading(local_storage(own.words(), own.dtype.bits() as u64), switch),
        };
        Cost { timing: Timing { latency, delay: 0.0 }, behind }
    };
    (0..nest.ops.len()).map(cost).collect()
}

/// Cycles from an address to what lies there, and nanoseconds until it comes out in the last of them. Block RAM has its address in a
/// register, UltraRAM also what it gives, and what look-up tables give is put into one. The nanoseconds are of the order of what
/// HLS reports for -2 parts of UltraScale+ (assumed).
fn reading(storage: Storage, switch: u32) -> (u32, f64) {
    let (latency, behind) = match storage {
        Storage::Lutram => (1, 0.0),
        Storage::Bram => (1, 1.2),
        Storage::Uram => (2, 0.5),
    };
    // The switch's register is behind, and another before.
    if switch > 0 { (latency + 2 * switch, 0.0) } else { (latency, behind) }
}

#[cfg(test)]
mod tests;
