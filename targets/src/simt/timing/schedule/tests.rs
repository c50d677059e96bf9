//! Code that is ordered anew does what it did.

#![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use super::super::code::{Access, Address, Code, Compiled, Instruction, Kind, NOTHING, Slot, Source, Space};
use super::super::registers::{Lives, OVERHEAD};
use super::super::resource::Unit;
use super::{Figures, schedule};
use crate::kernel::IndexFn;

/// A buffer that is only read, and one that is written.
const READ: Space = Space::Global(0);
const WRITTEN: Space = Space::Global(1);

/// Slots of random code, and the one of copies.
const SLOTS: Slot = 7;

fn figures() -> Figures {
    Figures { times: [(1, 4); Unit::ALL.len()], shared: 20, global: 100, written: vec![false, true] }
}

/// Code that is written by hand.
struct Written {
    compiled: Compiled,
    lives: Lives,
}

impl Written {
    fn new(slots: usize) -> Written {
        let compiled =
            Compiled { code: Vec::new(), accesses: Vec::new(), slots: slots + 1, registers: 0, copies: slots as Slot };
        Written { compiled, lives: Lives::default() }
    }

    fn emit(&mut self, code: Code) {
        self.compiled.code.push(code);
    }

    fn touch(&mut self, slots: &[Slot]) {
        let at = self.compiled.code.len();
        slots.iter().for_each(|&slot| self.lives.touch(slot, at));
    }

    /// A slot holds something new from here on.
    fn begin(&mut self, slot: Slot) {
        self.lives.begin(slot, 1, self.compiled.code.len());
    }

    fn issue(&mut self, unit: Unit, sources: [Slot; 3], target: Slot, access: Option<u32>) {
        self.touch(&sources);
        self.touch(&[target]);
        self.emit(Code::Issue(Instruction { unit, sources, target, access }));
    }

    fn sum(&mut self, sources: [Slot; 3], target: Slot) {
        self.issue(Unit::F32, sources, target, None);
    }

    fn alias(&mut self, from: Slot, to: Slot) {
        self.touch(&[from, to]);
        self.emit(Code::Alias { from, to });
    }

    fn access(&mut self, space: Space, at: Source, from: Slot, target: Slot) {
        let kind = if target == NOTHING { Kind::Store } else { Kind::Load };
        let access = Access { space, kind, address: Address::Index(at), bits: 32, width: 32, copied: None };
        self.compiled.accesses.push(access);
        let number = self.compiled.accesses.len() as u32 - 1;
        self.issue(Unit::Memory, [from, NOTHING, NOTHING], target, Some(number));
    }

    fn barrier(&mut self) {
        self.issue(Unit::Control, [NOTHING; 3], NOTHING, None);
        self.emit(Code::Barrier);
    }

    fn schedule(&mut self, most: u32) {
        schedule(&mut self.compiled, &mut self.lives, &figures(), most);
    }

    /// Registers that are taken.
    fn most(&self) -> u32 {
        self.lives.most() - OVERHEAD
    }

    /// The places of accesses by their numbers.
    fn place(&self, access: u32) -> usize {
        let is_it = |code: &Code| matches!(code, Code::Issue(instruction) if instruction.access == Some(access));
        self.compiled.code.iter().position(is_it).unwrap()
    }

    fn targets(&self) -> Vec<Slot> {
        let targets = self.compiled.code.iter().filter_map(|code| match code {
            Code::Issue(Instruction { unit: Unit::F32, target, .. }) => Some(*target),
            _ => None,
        });
        targets.collect()
    }

    /// What is in each memory at the end, as a number: each instruction computes one of what it reads.
    fn run(&self) -> [u64; 2] {
        let Compiled { code, accesses, slots, .. } = &self.compiled;
        let (mut held, mut indices) = (vec![0u64; *slots], vec![0u64; *slots]);
        let mut memory = [0u64; 2];
        let index = |indices: &[u64], source: Source| match source {
            Source::Slot(slot) => indices[slot as usize],
            other => of(&format!("{other:?}")),
        };
        for &code in code {
            match code {
                Code::Issue(Instruction { unit, sources, target, access }) => {
                    let read = sources.map(|slot| if slot == NOTHING { 1 } else { held[slot as usize] });
                    let mut result = of(&(unit, read));
                    if let Some(access) = access.map(|number| &accesses[number as usize]) {
                        let Address::Index(at) = access.address else { unreachable!() };
                        result = of(&(result, index(&indices, at)));
                        let place = match access.space {
                            READ => None,
                            Space::Global(_) => Some(0),
                            Space::Shared(_) => Some(1),
                        };
                        if let Some((_, to, when)) = access.copied {
                            result = of(&(result, index(&indices, to), index(&indices, when)));
                            memory[1] = of(&(memory[1], result));
                        }
                        if let Some(place) = place {
                            result = of(&(result, memory[place]));
                            if access.kind == Kind::Store {
                                memory[place] = result;
                            }
                        }
                    }
                    if target != NOTHING {
                        let before = if target == self.compiled.copies { held[target as usize] } else { 0 };
                        held[target as usize] = of(&(result, before));
                    }
                }
                Code::Alias { from, to } => held[to as usize] = held[from as usize],
                Code::Index { a, b, to, .. } => {
                    indices[to as usize] = of(&(index(&indices, a), index(&indices, b)));
                }
                Code::Choose { condition, a, b, to } => {
                    indices[to as usize] = of(&[condition, a, b].map(|source| index(&indices, source)));
                }
                Code::Copy { from, to, is_new } => {
                    let before = if is_new { 0 } else { indices[to as usize] };
                    indices[to as usize] = of(&(index(&indices, from), before));
                }
                Code::Barrier => memory = memory.map(|memory| of(&memory)),
                other => panic!("{other:?}"),
            }
        }
        memory
    }
}

fn of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Numbers below a bound, one after the other.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as u32 % bound
    }
}

/// Random steps in two stretches; then all that slots hold is stored.
fn random(seed: u64) -> Written {
    let mut random = Random(seed);
    let mut written = Written::new(SLOTS as usize);
    for stretch in 0..2 {
        for _ in 0..5 + random.below(60) {
            let [a, b, to] = [0; 3].map(|_| random.below(SLOTS));
            let source = if random.below(3) == 0 { Source::Known(1) } else { Source::Slot(b) };
            let is_new = random.below(2) == 0;
            match random.below(12) {
                0..=3 => {
                    if is_new && ![a, b].contains(&to) {
                        written.begin(to);
                    }
                    written.sum([a, b, NOTHING], to);
                }
                4 | 5 => {
                    if is_new && a != to {
                        written.begin(to);
                    }
                    let space = [READ, READ, WRITTEN, Space::Shared(0)][random.below(4) as usize];
                    written.access(space, source, a, to);
                }
                6 => written.access([WRITTEN, Space::Shared(0)][random.below(2) as usize], source, a, NOTHING),
                7 => {
                    if a != to {
                        written.begin(to);
                        written.alias(a, to);
                    }
                }
                8 => written.emit(Code::Index { function: IndexFn::Add, a: source, b: Source::Slot(a), to }),
                9 => written.emit(Code::Choose { condition: Source::Slot(a), a: source, b: Source::Thread, to }),
                10 => written.emit(Code::Copy { from: source, to, is_new }),
                _ => {
                    let copied = Some((0, source, Source::Slot(a)));
                    written.access(READ, Source::Slot(b), a, written.compiled.copies);
                    written.compiled.accesses.last_mut().unwrap().copied = copied;
                }
            }
        }
        if stretch == 0 {
            written.barrier();
        }
    }
    written.barrier();
    (0..=SLOTS).for_each(|slot| written.access(WRITTEN, Source::Slot(slot.min(SLOTS - 1)), slot, NOTHING));
    written
}

#[test]
fn what_is_ordered_anew_does_the_same() {
    let mut moved = 0;
    for seed in 0..2000 {
        for most in [0, 1, 3, 100] {
            let mut written = random(seed);
            let (wanted, before, code) = (written.run(), written.most(), written.compiled.code.len());
            let most = before.max(most);
            written.schedule(most);
            assert_eq!(written.compiled.code.len(), code);
            assert_eq!(written.run(), wanted, "{seed}");
            assert!(written.most() <= most, "{seed}: {} registers of {most}, and {before} before", written.most());
            moved += u32::from(written.place(0) != random(seed).place(0));
        }
    }
    assert!(moved > 1000, "{moved}");
}

#[test]
fn chains_go_side_by_side() {
    let mut written = Written::new(2);
    for chain in [0, 1] {
        written.begin(chain);
        written.sum([NOTHING; 3], chain);
        (0..3).for_each(|_| written.sum([chain, NOTHING, NOTHING], chain));
    }
    written.barrier();
    (0..2).for_each(|slot| written.access(WRITTEN, Source::Thread, slot, NOTHING));
    written.schedule(2);
    assert_eq!(written.targets(), [0, 1, 0, 1, 0, 1, 0, 1]);
}

/// What one chain is held in holds the other afterwards: each goes to a slot of its own if registers allow.
#[test]
fn chains_in_one_slot_go_side_by_side() {
    for (most, alternates) in [(2, true), (1, false)] {
        let mut written = Written::new(1);
        for _ in 0..2 {
            written.begin(0);
            written.sum([NOTHING; 3], 0);
            (0..3).for_each(|_| written.sum([0, NOTHING, NOTHING], 0));
            written.access(WRITTEN, Source::Thread, 0, NOTHING);
        }
        written.schedule(most);
        let targets = written.targets();
        assert_eq!(targets.windows(2).all(|pair| pair[0] != pair[1]), alternates, "{targets:?}");
        assert_eq!(written.most(), most);
    }
}

#[test]
fn stores_stay_where_they_are_among_loads_of_what_is_written() {
    for (space, is_moved) in [(READ, true), (WRITTEN, false), (Space::Shared(0), true)] {
        let mut written = Written::new(2);
        written.begin(0);
        written.sum([NOTHING; 3], 0);
        written.access(WRITTEN, Source::Thread, 0, NOTHING);
        written.begin(1);
        written.access(space, Source::Thread, NOTHING, 1);
        written.access(WRITTEN, Source::Thread, 1, NOTHING);
        written.schedule(10);
        assert_eq!(written.place(1) < written.place(0), is_moved, "{space:?}");
        assert!(written.place(0) < written.place(2), "{space:?}");
    }
}

#[test]
fn loads_stand_first_as_far_as_registers_allow() {
    let first = |most: u32| {
        let mut written = Written::new(2);
        written.begin(0);
        written.sum([NOTHING; 3], 0);
        for _ in 0..8 {
            written.begin(1);
            written.access(READ, Source::Thread, NOTHING, 1);
            written.sum([0, 1, NOTHING], 0);
        }
        written.barrier();
        written.access(WRITTEN, Source::Thread, 0, NOTHING);
        written.schedule(most);
        assert!(written.most() <= most);
        let is_sum = |code: &Code| matches!(code, Code::Issue(Instruction { unit: Unit::F32, sources: [source, ..], .. }) if *source != NOTHING);
        let sum = written.compiled.code.iter().position(is_sum).unwrap();
        (0..8).filter(|&load| written.place(load) < sum).count()
    };
    assert_eq!([2, 4, 9].map(first), [1, 3, 8]);
}
