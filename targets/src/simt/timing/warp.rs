//! One warp that walks what its kernel was expanded to: where it is, which lanes take part, what it knows of indices, and when
//! what it has issued is there.

use std::collections::VecDeque;

use super::code::{Access, Address, Code, Compiled, Instruction, NOTHING, Slot, Source};
use super::lanes::{Lanes, full};

/// What does not change while a warp walks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk<'c> {
    pub compiled: &'c Compiled,
    /// Threads of a warp.
    pub lanes: usize,
}

/// A loop that a warp is in.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    /// Tells it from any other that the warp was or will be in.
    pub serial: u64,
    /// Iterations that are over.
    pub done: u64,
    /// Iterations that there are, by the lane that has most.
    pub total: u64,
    /// Whether iterations do not hand indices on.
    pub is_regular: bool,
    counter: Slot,
    index: Lanes,
    to: Lanes,
    step: i64,
    after: usize,
    /// The lanes that take part outside.
    outside: u64,
}

/// What a warp comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It can issue this.
    Instruction(Instruction),
    /// It waits for the other warps of its block.
    Barrier,
    /// It is over.
    End,
}

/// A warp.
#[derive(Clone, Debug)]
pub(super) struct Warp {
    place: usize,
    /// The lanes that take part.
    pub active: u64,
    thread: Lanes,
    block: [Lanes; 3],
    values: Vec<Lanes>,
    ready: Vec<u64>,
    /// For each scope of an `If` the lanes outside, and those of its other side.
    masks: Vec<(u64, u64)>,
    pub frames: Vec<Frame>,
    serials: u64,
    /// Whether it has come to the start or the end of an iteration since this was last asked.
    has_turned: bool,
    /// What holds copies that were begun, and when each group of them is there that nobody has waited for.
    copies: Slot,
    groups: VecDeque<u64>,
}

impl Warp {
    /// A warp at its start: the numbers of its threads and its block, and the lanes that there are.
    pub fn new(walk: Walk<'_>, thread: Lanes, block: [Lanes; 3], active: u64, now: u64) -> Warp {
        Warp {
            place: 0,
            active,
            thread,
            block,
            values: vec![Lanes::same(0); walk.compiled.slots],
            ready: vec![now; walk.compiled.slots],
            masks: Vec::new(),
            frames: Vec::new(),
            serials: 0,
            has_turned: false,
            copies: walk.compiled.copies,
            groups: VecDeque::new(),
        }
    }

    pub fn value(&self, source: Source) -> Lanes {
        match source {
            Source::Known(value) => Lanes::same(value),
            Source::Thread => self.thread.clone(),
            Source::Block(axis) => self.block[usize::from(axis)].clone(),
            Source::Slot(slot) => self.values[slot as usize].clone(),
            Source::Data => Lanes::unknown(),
        }
    }

    /// The index of the element that each lane accesses.
    pub fn address(&self, access: &Access) -> Lanes {
        match access.address {
            Address::Index(source) => self.value(source),
            Address::Thread => self.thread.clone(),
            Address::Same => Lanes::same(0),
            Address::Lines { from, offset, lines, pitch, next } => {
                let first = self.value(from).plus(i64::from(offset));
                let [lines, pitch, next] = [lines, pitch, next].map(i64::from);
                // All lanes have the same first element.
                let first = first.at(0);
                Lanes::each(move |lane| first + lane as i64 % lines * pitch + lane as i64 / lines * next)
            }
        }
    }

    /// The first element of lines, if lanes address such.
    pub fn first_line(&self, access: &Access) -> Option<i64> {
        match access.address {
            Address::Lines { from, offset, .. } => Some(self.value(from).at(0) + i64::from(offset)),
            Address::Index(_) | Address::Thread | Address::Same => None,
        }
    }

    /// The lanes that read something of those that take part: what is copied may be zeros instead.
    pub fn reading(&self, access: &Access, active: u64, lanes: usize) -> u64 {
        match access.copied {
            Some((_, _, when)) => active & self.value(when).holds(lanes),
            None => active,
        }
    }

    /// When all that an instruction waits for is there.
    pub fn ready(&self, instruction: &Instruction) -> u64 {
        let sources = instruction.sources.iter().filter(|&&slot| slot != NOTHING);
        sources.map(|&slot| self.ready[slot as usize]).max().unwrap_or(0)
    }

    /// Says when what an instruction gives is there, and goes on.
    pub fn issued(&mut self, instruction: &Instruction, ready: u64) {
        if instruction.target != NOTHING {
            let held = &mut self.ready[instruction.target as usize];
            // Copies are waited for together.
            *held = if instruction.target == self.copies { ready.max(*held) } else { ready };
        }
        self.place += 1;
    }

    /// Goes on after a barrier.
    pub fn pass(&mut self) {
        self.place += 1;
    }

    /// Whether it has come to the start or the end of an iteration since this was last asked.
    pub fn take_turn(&mut self) -> bool {
        std::mem::take(&mut self.has_turned)
    }

    /// Walks to what it has to issue or to wait for next.
    pub fn walk(&mut self, walk: Walk<'_>) -> Next {
        let lanes = walk.lanes;
        while let Some(&code) = walk.compiled.code.get(self.place) {
            self.place += 1;
            match code {
                Code::Issue(instruction) => {
                    self.place -= 1;
                    return Next::Instruction(instruction);
                }
                Code::Barrier => {
                    self.place -= 1;
                    return Next::Barrier;
                }
                Code::Alias { from, to } => {
                    self.ready[to as usize] = if from == NOTHING { 0 } else { self.ready[from as usize] };
                }
                Code::Index { function, a, b, to } => {
                    self.values[to as usize] = Lanes::index(function, &self.value(a), &self.value(b), lanes);
                }
                Code::Choose { condition, a, b, to } => {
                    let (condition, a, b) = (self.value(condition), self.value(a), self.value(b));
                    let mut chosen = if condition.is_unknown { a } else { b.set(&a, condition.holds(lanes), lanes) };
                    chosen.is_unknown |= condition.is_unknown;
                    self.values[to as usize] = chosen;
                }
                Code::Copy { from, to, is_new } => {
                    let value = self.value(from);
                    let held = &mut self.values[to as usize];
                    *held = if is_new { value } else { held.set(&value, self.active, lanes) };
                }
                Code::Loop { counter, from, to, step, after, is_regular } => {
                    let (index, to) = (self.value(from), self.value(to));
                    let total = self.iterations(&index, &to, u64::from(step), lanes);
                    self.serials += 1;
                    let frame = Frame {
                        serial: self.serials,
                        done: 0,
                        total,
                        is_regular,
                        counter,
                        index,
                        to,
                        step: i64::from(step),
                        after,
                        outside: self.active,
                    };
                    self.frames.push(frame);
                    self.enter(lanes);
                }
                Code::EndLoop { first } => {
                    self.has_turned = true;
                    self.place = first;
                    if let Some(frame) = self.frames.last_mut() {
                        frame.done += 1;
                        frame.index = frame.index.plus(frame.step);
                    }
                    self.enter(lanes);
                }
                Code::If { condition, middle } => {
                    let condition = self.value(condition);
                    let (outside, holds) = (self.active, condition.holds(lanes));
                    // What is not known is taken to hold, and not to hold, for all.
                    let (first, other) = match condition.is_unknown {
                        true => (outside, outside),
                        false => (outside & holds, outside & !holds),
                    };
                    self.masks.push((outside, other));
                    self.active = first;
                    if first == 0 {
                        self.place = middle;
                    }
                }
                Code::Else { end } => {
                    self.active = self.masks.last().map_or(0, |&(_, other)| other);
                    if self.active == 0 {
                        self.place = end;
                    }
                }
                Code::Commit => {
                    self.groups.push_back(std::mem::take(&mut self.ready[self.copies as usize]));
                }
                Code::Await { groups, slot } => {
                    let mut there = 0;
                    while self.groups.len() > groups as usize {
                        there = there.max(self.groups.pop_front().unwrap_or(0));
                    }
                    self.ready[slot as usize] = there;
                }
                Code::EndIf => self.active = self.masks.pop().map_or(self.active, |(outside, _)| outside),
            }
        }
        Next::End
    }

    /// How often a loop is gone through: as often as by the lane that does so most; once if that depends on data.
    fn iterations(&self, from: &Lanes, to: &Lanes, step: u64, lanes: usize) -> u64 {
        if from.is_unknown || to.is_unknown {
            return 1;
        }
        let of = |lane: usize| u64::try_from(to.at(lane) - from.at(lane)).unwrap_or(0).div_ceil(step);
        if let (Some((_, 0)), Some((_, 0))) = (from.as_line(), to.as_line()) {
            return of(0);
        }
        (0..lanes).filter(|&lane| self.active >> lane & 1 == 1).map(of).max().unwrap_or(0)
    }

    /// Goes into the next iteration of the innermost loop, or out of it.
    fn enter(&mut self, lanes: usize) {
        let Some(frame) = self.frames.last() else { return };
        if frame.done >= frame.total {
            (self.active, self.place) = (frame.outside, frame.after);
            self.frames.pop();
            self.has_turned = true;
            return;
        }
        let is_known = !frame.index.is_unknown && !frame.to.is_unknown;
        self.active = if is_known { frame.outside & frame.index.below(&frame.to, lanes) } else { frame.outside };
        self.values[frame.counter as usize] = frame.index.clone();
    }

    /// Leaves iterations of a loop out.
    pub fn skip(&mut self, depth: usize, iterations: u64) {
        if let Some(frame) = self.frames.get_mut(depth) {
            frame.done += iterations;
            frame.index = frame.index.plus(frame.step * iterations as i64);
        }
    }

    /// Moves all that it waits for into the future.
    pub fn delay(&mut self, cycles: u64) {
        self.ready.iter_mut().chain(&mut self.groups).for_each(|ready| *ready += cycles);
    }
}

/// The warps of a block of so many threads: the first thread of each, and the lanes that there are.
pub(super) fn warps(threads: u32, warp: u32) -> impl Iterator<Item = (u32, u64)> {
    (0..threads).step_by(warp as usize).map(move |first| (first, full((threads - first).min(warp) as usize)))
}
