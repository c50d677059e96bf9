//! Ports of memories on the part: who uses which bank in which cycle.
//!
//! A bank has two ports: in a cycle it gives or takes two words, of which it takes at most one. Accesses of one cycle to the same word
//! of a bank share a port if they read. An access whose copies want more words of a bank than it has ports goes on in the cycles that
//! follow: two of its words in each if it reads, one if it writes, in the order of the words. A FIFO has one port, which gives or takes a
//! word in a cycle.

use std::collections::{BTreeMap, HashMap};

use crate::fpga::access::{Pattern, Place};
use crate::fpga::nest::{Array, ArrayId, ArrayPlace, Kind, Nest, OpId};

/// Words that a bank gives in a cycle.
pub const READS: u32 = 2;

/// What has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bank {
    /// Of a memory of the design.
    OnChip(u32, u32),
    /// Of a memory of the function.
    Local(u32, u32),
    /// All of a FIFO.
    Fifo(u32),
}

/// What an access asks of ports.
#[derive(Clone, Debug)]
pub struct Need {
    /// Whether it writes, or has a port for itself as if it did: that of a FIFO.
    pub writes: bool,
    /// In each bank, the words that it wants, told apart by numbers that mean the same for all accesses.
    pub words: Vec<(Bank, Vec<u64>)>,
    /// Cycles that it takes.
    pub span: u32,
}

/// What accesses of an operation need; nothing for those of external memory.
pub fn need(nest: &Nest, id: OpId, numbers: &mut HashMap<(ArrayId, OpId, i64), u64>) -> Option<Need> {
    let op = &nest.ops[id.index()];
    let (array, pattern, writes) = match &op.kind {
        Kind::Load(array, pattern) => (*array, pattern, false),
        Kind::Store(array, pattern) => (*array, pattern, true),
        _ => return None,
    };
    let own = &nest.arrays[array.index()];
    let bank = |number: u32| bank_of(own, array, number);
    bank(0)?;
    let mut number = |at: OpId, word: i64| {
        let next = numbers.len() as u64;
        *numbers.entry((array, at, word)).or_insert(next)
    };
    let mut words: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    match pattern {
        Pattern::Fixed(places) => {
            for Place { word, bank } in places {
                words.entry(*bank).or_default().push(number(op.operands[0], *word));
            }
        }
        Pattern::Shifted(distances) => {
            let mut shared: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
            for distance in distances {
                shared.entry(distance.rem_euclid(i64::from(own.banks))).or_default().push(*distance);
            }
            let most = shared.into_values().map(|mut own| {
                own.sort_unstable();
                own.dedup();
                own.len()
            });
            let most = most.max().unwrap_or(1);
            // It is not known which bank; elements are words of their own.
            let all: Vec<u64> = (0..most as i64).map(|word| number(id, word)).collect();
            words.extend((0..own.banks).map(|bank| (bank, all.clone())));
        }
        Pattern::Scattered => {
            let all: Vec<u64> = (0..i64::from(op.copies)).map(|copy| number(id, copy)).collect();
            words.extend((0..own.banks).map(|bank| (bank, all.clone())));
        }
    }
    let words = words.into_iter().filter_map(|(number, mut words)| {
        words.sort_unstable();
        words.dedup();
        Some((bank(number)?, words))
    });
    let words: Vec<(Bank, Vec<u64>)> = words.collect();
    if let ArrayPlace::Fifo(fifo) = own.place {
        // One word in a cycle, whichever banks it goes to.
        let mut all: Vec<u64> = words.into_iter().flat_map(|(_, words)| words).collect();
        all.sort_unstable();
        all.dedup();
        let span = all.len().max(1) as u32;
        return Some(Need { writes: true, words: vec![(Bank::Fifo(fifo.0), all)], span });
    }
    let most = words.iter().map(|(_, words)| words.len() as u32).max().unwrap_or(1);
    let span = if writes { most } else { most.div_ceil(READS) };
    Some(Need { writes, words, span: span.max(1) })
}

fn bank_of(array: &Array, id: ArrayId, number: u32) -> Option<Bank> {
    match array.place {
        ArrayPlace::OnChip(memory) => Some(Bank::OnChip(memory.0, number)),
        ArrayPlace::Local => Some(Bank::Local(id.0, number)),
        ArrayPlace::Fifo(fifo) => Some(Bank::Fifo(fifo.0)),
        ArrayPlace::External { .. } | ArrayPlace::Loaded { .. } => None,
    }
}

/// The least interval that leaves each bank enough cycles for some accesses, and the bank that needs it.
pub fn least_interval<'n>(needs: impl Iterator<Item = &'n Need>) -> (u32, Option<Bank>) {
    let mut words: BTreeMap<Bank, [Vec<u64>; 2]> = BTreeMap::new();
    for need in needs {
        for (bank, own) in &need.words {
            words.entry(*bank).or_default()[usize::from(need.writes)].extend(own);
        }
    }
    let mut least = (1, None);
    for (bank, [mut reads, writes]) in words {
        reads.sort_unstable();
        reads.dedup();
        let (reads, writes) = (reads.len() as u32, writes.len() as u32);
        let cycles = writes.max((reads + writes).div_ceil(READS));
        if cycles > least.0 {
            least = (cycles, Some(bank));
        }
    }
    least
}

/// Who uses the ports in each cycle, of those of an interval if there is one.
#[derive(Debug, Default)]
pub struct Ports {
    interval: Option<u32>,
    used: HashMap<(Bank, u32), Used>,
}

#[derive(Clone, Debug, Default)]
struct Used {
    reads: Vec<u64>,
    writes: u32,
}

impl Ports {
    /// All ports are free.
    pub fn new(interval: Option<u32>) -> Ports {
        Ports { interval, used: HashMap::new() }
    }

    fn slot(&self, cycle: u32) -> u32 {
        self.interval.map_or(cycle, |interval| cycle % interval)
    }

    /// Takes ports for an access in the first cycle from one on in which they are free; `None` if there is none in the interval.
    pub fn take(&mut self, need: &Need, from: u32) -> Option<u32> {
        let most = self.interval.unwrap_or(u32::MAX - from);
        if self.interval.is_some_and(|interval| need.span > interval) {
            return None;
        }
        let found = (from..from + most).find(|&cycle| self.is_free(need, cycle))?;
        for (bank, words) in &need.words {
            for (place, &word) in words.iter().enumerate() {
                let cycle = found + if need.writes { place as u32 } else { place as u32 / READS };
                let slot = self.slot(cycle);
                let used = self.used.entry((*bank, slot)).or_default();
                if need.writes {
                    used.writes += 1;
                } else if !used.reads.contains(&word) {
                    used.reads.push(word);
                }
            }
        }
        Some(found)
    }

    fn is_free(&self, need: &Need, cycle: u32) -> bool {
        need.words.iter().all(|(bank, words)| {
            let each = if need.writes { 1 } else { READS as usize };
            words.chunks(each).enumerate().all(|(more, words)| {
                let Some(used) = self.used.get(&(*bank, self.slot(cycle + more as u32))) else { return true };
                if need.writes {
                    return used.writes == 0 && used.reads.len() < READS as usize;
                }
                let new = words.iter().filter(|word| !used.reads.contains(word)).count();
                used.reads.len() + new + used.writes as usize <= READS as usize
            })
        })
    }
}
