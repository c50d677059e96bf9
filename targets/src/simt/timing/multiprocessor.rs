//! One multiprocessor: which of its warps issue what when.
//!
//! Each scheduler issues at most one instruction of a warp in a cycle, in the order of the warp, when what it waits for is
//! there and its pipeline is free: of those that can the one that could first, so that warps stay together. Time goes from one issue to the
//! next. Where all warps are in long loops and go through them at a steady pace, iterations are left out (see `steady`).

use super::code::{Access, Instruction, Kind, Space};
use super::lanes::Lanes;
use super::memory::Memory;
use super::resource::{Counters, Resource, TICKS, Unit};
use super::setting::Setting;
use super::sharing::place;
use super::steady::Steady;
use super::warp::{Next, Walk, Warp, warps};

/// A warp on a multiprocessor.
#[derive(Clone, Debug)]
pub(super) struct Resident {
    pub warp: Warp,
    block: usize,
    scheduler: usize,
    /// What it can issue next.
    next: Instruction,
    /// When it can; never while it waits at a barrier.
    pub at: u64,
    /// The older, the smaller.
    age: u64,
}

/// That a warp waits for others.
pub(super) const NEVER: u64 = u64::MAX;

#[derive(Clone, Debug, Default)]
struct Scheduler {
    /// The places of its warps.
    warps: Vec<usize>,
    /// The cycle in which it can issue again.
    free: u64,
    /// The cycle in which each pipeline can take an instruction again.
    pipes: [u64; Unit::ALL.len()],
    /// What it issues next: when, and the warp's place. `None` if it has to be looked for.
    choice: Option<Option<(u64, usize)>>,
}

#[derive(Clone, Debug, Default)]
struct Block {
    /// Warps that are not over.
    left: u32,
    /// Those of them that wait at a barrier.
    waiting: u32,
}

/// A multiprocessor that runs.
#[derive(Clone, Debug)]
pub(super) struct Multiprocessor<'p> {
    setting: &'p Setting<'p>,
    pub warps: Vec<Option<Resident>>,
    schedulers: Vec<Scheduler>,
    blocks: Vec<Block>,
    pub memory: Memory<'p>,
    pub counters: Counters,
    /// The cycle of the last issue.
    pub now: u64,
    ages: u64,
    steady: Steady,
}

impl<'p> Multiprocessor<'p> {
    /// One without blocks.
    pub fn new(setting: &'p Setting<'p>) -> Multiprocessor<'p> {
        let Setting { machine, occupancy, .. } = setting;
        Multiprocessor {
            setting,
            warps: vec![None; occupancy.warps as usize],
            schedulers: vec![Scheduler::default(); machine.schedulers as usize],
            blocks: vec![Block::default(); occupancy.blocks as usize],
            memory: Memory::new(&setting.rates, &setting.sharing, &setting.start, occupancy.l1_sectors(machine)),
            counters: Counters::new(setting.kernel.buffers.len()),
            now: 0,
            ages: 0,
            steady: Steady::new(setting.window),
        }
    }

    fn walk(&self) -> Walk<'p> {
        Walk { compiled: &self.setting.compiled, lanes: self.setting.machine.warp as usize }
    }

    /// Starts a block in a free place.
    pub fn start(&mut self, number: u64, at: u64) {
        let Some(slot) = self.blocks.iter().position(|block| block.left == 0) else { return };
        let kernel = self.setting.kernel;
        let block = place(kernel, number).map(|index| Lanes::same(i64::from(index)));
        let each = self.warps.len() / self.blocks.len();
        self.blocks[slot] = Block { left: each as u32, waiting: 0 };
        self.steady.change();
        self.now = self.now.max(at);
        for (index, (first, active)) in warps(kernel.threads, self.setting.machine.warp).enumerate() {
            let warp_place = slot * each + index;
            let warp = Warp::new(self.walk(), Lanes::line(i64::from(first), 1), block.clone(), active, at);
            let scheduler = warp_place % self.schedulers.len();
            let nothing = Instruction {
                unit: Unit::Control,
                sources: [super::code::NOTHING; 3],
                target: super::code::NOTHING,
                access: None,
            };
            self.ages += 1;
            self.warps[warp_place] = Some(Resident { warp, block: slot, scheduler, next: nothing, at, age: self.ages });
            self.schedulers[scheduler].warps.push(warp_place);
            self.proceed(warp_place, at);
        }
    }

    /// Runs until a block is over, and says in which cycle; `None` if nothing runs.
    pub fn run(&mut self) -> Option<u64> {
        loop {
            let mut first: Option<(u64, usize, usize)> = None;
            for index in 0..self.schedulers.len() {
                if let Some((at, warp)) = self.choice(index)
                    && first.is_none_or(|(before, ..)| at < before)
                {
                    first = Some((at, index, warp));
                }
            }
            let (at, scheduler, warp) = first?;
            if self.issue(at, scheduler, warp) {
                // Iterations may have been left out since.
                return Some(self.now + 1);
            }
        }
    }

    /// What a scheduler issues next.
    fn choice(&mut self, index: usize) -> Option<(u64, usize)> {
        let scheduler = &mut self.schedulers[index];
        if let Some(choice) = scheduler.choice {
            return choice;
        }
        let mut best: Option<(u64, u64, u64, usize)> = None;
        for &place in &scheduler.warps {
            let Some(resident) = &self.warps[place] else { continue };
            if resident.at == NEVER {
                continue;
            }
            let pipe = scheduler.pipes[resident.next.unit.index()];
            let at = resident.at.max(pipe).max(scheduler.free);
            let key = (at, resident.at, resident.age, place);
            if best.is_none_or(|best| key < best) {
                best = Some(key);
            }
        }
        let choice = best.map(|(at, _, _, place)| (at, place));
        scheduler.choice = Some(choice);
        choice
    }

    /// Issues what a warp comes to, and says whether its block is over.
    fn issue(&mut self, at: u64, index: usize, place: usize) -> bool {
        self.now = at;
        let Some(resident) = &self.warps[place] else { return false };
        let instruction = resident.next;
        let (cycles, latency) = self.setting.times[instruction.unit.index()];
        self.counters.issued[instruction.unit.index()] += 1;
        self.counters.busy[Resource::Issue.index()] += TICKS;
        if let Some(resource) = instruction.unit.resource() {
            self.counters.busy[resource.index()] += cycles * TICKS;
        }
        let (ready, taken) = match instruction.access {
            Some(number) => self.access(at, place, number as usize),
            None => (at + latency, at),
        };
        let scheduler = &mut self.schedulers[index];
        scheduler.free = at + 1;
        scheduler.pipes[instruction.unit.index()] = taken.max(at + cycles);
        scheduler.choice = None;
        if let Some(resident) = &mut self.warps[place] {
            resident.warp.issued(&instruction, ready);
        }
        self.proceed(place, at + 1)
    }

    /// Lets a warp walk on, and says whether its block is over.
    fn proceed(&mut self, place: usize, now: u64) -> bool {
        let walk = self.walk();
        let Some(resident) = &mut self.warps[place] else { return false };
        let next = resident.warp.walk(walk);
        let (block, scheduler) = (resident.block, resident.scheduler);
        self.schedulers[scheduler].choice = None;
        let turned = resident.warp.take_turn();
        match next {
            Next::Instruction(instruction) => {
                resident.next = instruction;
                resident.at = resident.warp.ready(&instruction).max(now);
            }
            Next::Barrier => {
                resident.at = NEVER;
                self.blocks[block].waiting += 1;
            }
            Next::End => {
                self.warps[place] = None;
                self.schedulers[scheduler].warps.retain(|&other| other != place);
                self.blocks[block].left -= 1;
                self.steady.change();
            }
        }
        let before = self.now;
        if turned {
            self.turn(place);
        }
        let Block { left, waiting } = self.blocks[block];
        if left > 0 && waiting == left {
            let left_out = self.now - before;
            self.release(block, now + left_out + u64::from(self.setting.machine.barrier_latency));
        }
        left == 0
    }

    /// Lets all warps of a block go on after a barrier.
    fn release(&mut self, block: usize, at: u64) {
        self.blocks[block].waiting = 0;
        let each = self.warps.len() / self.blocks.len();
        for place in block * each..(block + 1) * each {
            if let Some(resident) = &mut self.warps[place] {
                resident.warp.pass();
                self.proceed(place, at);
            }
        }
    }

    /// Does what an access to memory does, and says when its result is there, and when another can follow.
    fn access(&mut self, now: u64, place: usize, number: usize) -> (u64, u64) {
        let Setting { compiled, machine, .. } = self.setting;
        let access = &compiled.accesses[number];
        let Access { space, kind, bits, width, copied, .. } = *access;
        let Some(resident) = &self.warps[place] else { return (now, now) };
        let active = resident.warp.active;
        let mut patterns = self.setting.patterns.borrow_mut();
        let number = number as u32;
        match space {
            Space::Shared(offset) => {
                let times = match resident.warp.first_line(access) {
                    Some(first) => {
                        let index = || resident.warp.address(access);
                        let banks = machine.shared.banks;
                        patterns.conflicts_of_lines((number, offset), first, index, (bits, width), (active, banks))
                    }
                    None => {
                        let index = resident.warp.address(access);
                        patterns.conflicts((number, offset), &index, (bits, width), active, machine.shared.banks)
                    }
                };
                (self.memory.shared(now, times, &mut self.counters), now)
            }
            Space::Global(buffer) => {
                let index = resident.warp.address(access);
                let reading = resident.warp.reading(access, active, machine.warp as usize);
                let sector = u64::from(machine.sector);
                let sectors = patterns.sectors((number, buffer), &index, (bits, width), reading, sector);
                let number = number as usize;
                if let Some((offset, to, _)) = copied {
                    // What arrives is written to shared memory, which is busy with it then; here it is when it is asked for.
                    let to = resident.warp.value(to);
                    let own = (number as u32, offset);
                    let times = patterns.conflicts(own, &to, (bits, width), active, machine.shared.banks);
                    let written = self.memory.shared(now, times, &mut self.counters);
                    let there = self.memory.load(now, number, &sectors, index.is_unknown, &mut self.counters);
                    return (written.max(there), now);
                }
                match kind {
                    Kind::Store => (now, self.memory.store(now, &sectors, index.is_unknown, &mut self.counters)),
                    Kind::Load => (self.memory.load(now, number, &sectors, index.is_unknown, &mut self.counters), now),
                    Kind::Fence => (self.memory.fence(now), now),
                    Kind::Prefetch => {
                        self.memory.prefetch(now, number, &sectors, &mut self.counters);
                        (now, now)
                    }
                }
            }
        }
    }

    /// A warp has come to the start of an iteration, or out of a loop.
    fn turn(&mut self, place: usize) {
        if !self.setting.leaves_out {
            return;
        }
        let mut steady = std::mem::replace(&mut self.steady, Steady::new(self.setting.window));
        if let Some(leap) = steady.turn(place, self) {
            self.counters.add(&leap.counters, leap.times);
            self.memory.age(&leap.counters, leap.times);
            for (place, iterations) in leap.iterations {
                if let Some(resident) = &mut self.warps[place] {
                    resident.warp.skip(leap.depth, iterations * leap.times);
                }
            }
            self.delay(leap.cycles * leap.times);
        }
        self.steady = steady;
    }

    /// Moves everything that is to come into the future.
    pub fn delay(&mut self, cycles: u64) {
        self.now += cycles;
        for resident in self.warps.iter_mut().flatten() {
            resident.warp.delay(cycles);
            if resident.at != NEVER {
                resident.at += cycles;
            }
        }
        for scheduler in &mut self.schedulers {
            scheduler.free += cycles;
            scheduler.pipes.iter_mut().for_each(|free| *free += cycles);
            scheduler.choice = None;
        }
        self.memory.delay(cycles);
        self.steady.change();
    }
}
