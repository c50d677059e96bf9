//! Banks of the scratchpad: which of them instructions use, and who uses them at the same time.
//!
//! A bank has few ports, and no hardware settles who gets one: the emitter keeps instructions apart with waits, and the
//! simulator stops a program in which it did not. An instruction holds its ports from its start to its completion.

use std::ops::Range;

use super::isa::Unit;
use super::machine::Scratchpad;

/// Banks, by their numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BankSet(u128);

impl BankSet {
    /// Most banks that a scratchpad has.
    pub const MOST: u32 = u128::BITS;

    /// Adds the banks that hold some of these bytes.
    fn insert(&mut self, bytes: Range<u64>, scratchpad: &Scratchpad) {
        let bank_bytes = u64::from(scratchpad.bank_bytes());
        let first = bytes.start / bank_bytes;
        // A kernel that does not fit may reach beyond them, until it is written again.
        let end = bytes.end.div_ceil(bank_bytes).min(u64::from(scratchpad.banks));
        for bank in first..end {
            self.0 |= 1 << bank;
        }
    }

    fn iter(self) -> impl Iterator<Item = usize> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let bank = (rest != 0).then(|| rest.trailing_zeros() as usize)?;
            rest &= rest - 1;
            Some(bank)
        })
    }
}

/// What an instruction needs ports for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BankUse {
    reads: BankSet,
    writes: BankSet,
}

impl BankUse {
    /// Adds bytes that are read or written.
    pub fn insert(&mut self, write: bool, bytes: Range<u64>, scratchpad: &Scratchpad) {
        let banks = if write { &mut self.writes } else { &mut self.reads };
        banks.insert(bytes, scratchpad);
    }

    /// For reads and for writes: what of, and at how many ports.
    fn by_direction(self, scratchpad: &Scratchpad) -> [(BankSet, usize); 2] {
        [(self.reads, scratchpad.read_ports as usize), (self.writes, scratchpad.write_ports as usize)]
    }
}

/// By bank, direction and unit: something about the last instruction that used it.
type Table<T> = Vec<[[T; Unit::COUNT]; 2]>;

fn table<T: Copy + Default>(scratchpad: &Scratchpad) -> Table<T> {
    vec![Default::default(); scratchpad.banks as usize]
}

/// An instruction, as the emitter counts: its number among those of its unit, from 1, and its place in the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Holder {
    number: u32,
    place: u64,
}

/// Who held ports last, for the emitter to derive waits from.
#[derive(Debug)]
pub(super) struct PortTracker {
    scratchpad: Scratchpad,
    holders: Table<Holder>,
    /// For each unit, what it has waited for: of each other unit, the last instruction that completed before it went on.
    awaited: [[u32; Unit::COUNT]; Unit::COUNT],
    place: u64,
}

impl PortTracker {
    /// A scratchpad that nobody has used.
    pub fn new(scratchpad: &Scratchpad) -> Self {
        PortTracker {
            scratchpad: scratchpad.clone(),
            holders: table(scratchpad),
            awaited: Default::default(),
            place: 0,
        }
    }

    /// Takes ports for instruction `number` of a unit, which waits for instructions number `latest` of each unit. Adds to
    /// these what else must have completed for the ports to be free: of those who may hold them, the first in the program.
    pub fn claim(&mut self, unit: Unit, number: u32, used: BankUse, latest: &mut [u32; Unit::COUNT]) {
        let own = unit.index();
        for (direction, (banks, ports)) in used.by_direction(&self.scratchpad).into_iter().enumerate() {
            for bank in banks.iter() {
                let holders = &self.holders[bank][direction];
                loop {
                    let rivals = (0..Unit::COUNT)
                        .filter(|&other| other != own)
                        .filter(|&other| holders[other].number > latest[other].max(self.awaited[own][other]));
                    if rivals.clone().count() < ports {
                        break;
                    }
                    let Some(first) = rivals.min_by_key(|&other| holders[other].place) else { break };
                    latest[first] = holders[first].number;
                }
            }
        }
        for (awaited, latest) in self.awaited[own].iter_mut().zip(latest) {
            *awaited = (*awaited).max(*latest);
        }
        self.hold(unit, number, used);
    }

    /// Takes note of an instruction that has its waits already.
    pub fn hold(&mut self, unit: Unit, number: u32, used: BankUse) {
        self.place += 1;
        for (direction, (banks, _)) in used.by_direction(&self.scratchpad).into_iter().enumerate() {
            for bank in banks.iter() {
                self.holders[bank][direction][unit.index()] = Holder { number, place: self.place };
            }
        }
    }
}

/// Who holds ports until when, for the simulator to see that they suffice.
#[derive(Debug)]
pub(super) struct PortBook {
    scratchpad: Scratchpad,
    /// The last completion.
    completions: Table<u64>,
}

/// A bank without a free port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Contention {
    pub bank: usize,
    pub write: bool,
}

impl PortBook {
    /// A scratchpad that nobody has used.
    pub fn new(scratchpad: &Scratchpad) -> Self {
        PortBook { scratchpad: scratchpad.clone(), completions: table(scratchpad) }
    }

    /// Takes ports for an instruction of a unit.
    ///
    /// # Errors
    /// Units whose instructions stand earlier in the program may hold all of a bank's ports when this one starts.
    pub fn take(&mut self, unit: Unit, start: u64, completion: u64, used: BankUse) -> Result<(), Contention> {
        for (direction, (banks, ports)) in used.by_direction(&self.scratchpad).into_iter().enumerate() {
            for bank in banks.iter() {
                let completions = &mut self.completions[bank][direction];
                let held =
                    (0..Unit::COUNT).filter(|&other| other != unit.index() && completions[other] > start).count();
                if held >= ports {
                    return Err(Contention { bank, write: direction == 1 });
                }
                completions[unit.index()] = completion;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratchpad() -> Scratchpad {
        Scratchpad { banks: 4, read_ports: 2, write_ports: 1, ..Scratchpad::undivided(1024) }
    }

    fn use_of(write: bool, bytes: Range<u64>) -> BankUse {
        let mut used = BankUse::default();
        used.insert(write, bytes, &scratchpad());
        used
    }

    #[test]
    fn bytes_lie_in_banks() {
        assert_eq!(use_of(false, 255..257).reads.iter().collect::<Vec<_>>(), [0, 1]);
        assert_eq!(use_of(true, 256..512).writes.iter().collect::<Vec<_>>(), [1]);
        assert_eq!(use_of(true, 0..1024).writes.iter().count(), 4);
    }

    #[test]
    fn instructions_wait_where_ports_are_few() {
        let mut tracker = PortTracker::new(&scratchpad());
        let mut claim = |unit, number, used| {
            let mut latest = [0; Unit::COUNT];
            tracker.claim(unit, number, used, &mut latest);
            latest
        };
        let read = use_of(false, 0..16);
        assert_eq!(claim(Unit::Array, 1, read), [0; 5]);
        assert_eq!(claim(Unit::Preload, 1, read), [0; 5]);
        // Two ports are taken: the array was first.
        assert_eq!(claim(Unit::Vector, 1, read), [0, 0, 0, 1, 0]);
        // It has waited for that already.
        assert_eq!(claim(Unit::Vector, 2, read), [0; 5]);
        assert_eq!(claim(Unit::Array, 2, use_of(false, 256..300)), [0; 5]);
        // A bank is read and written at different ports.
        let write = use_of(true, 0..16);
        assert_eq!(claim(Unit::Load, 1, write), [0; 5]);
        assert_eq!(claim(Unit::Vector, 3, write), [1, 0, 0, 0, 0]);
    }

    #[test]
    fn contention_is_noticed() {
        let mut book = PortBook::new(&scratchpad());
        let write = use_of(true, 512..600);
        assert_eq!(book.take(Unit::Load, 10, 30, write), Ok(()));
        assert_eq!(book.take(Unit::Load, 12, 40, write), Ok(()), "a unit does not disturb itself");
        assert_eq!(book.take(Unit::Vector, 39, 50, write), Err(Contention { bank: 2, write: true }));
        assert_eq!(book.take(Unit::Vector, 40, 50, write), Ok(()));
        assert_eq!(book.take(Unit::Store, 45, 50, use_of(false, 512..600)), Ok(()));
    }
}
