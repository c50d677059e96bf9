//! What lies on the part, and what beside it.

use std::collections::BTreeMap;

use super::wanted::Wanted;
use crate::fpga::FpgaMachine;

/// Bytes that fit into so large a share of a part's memory.
pub(in crate::fpga) fn capacity(facts: &FpgaMachine, share: f64) -> u64 {
    let budget = facts.budget();
    // Of the 18 Kb of a block 2 are for parity, which bytes do not use; of the 72 bits of an UltraRAM's word, 8.
    let bytes = budget.bram18s * 2048 + budget.urams * 4096 * 8;
    (bytes as f64 * share) as u64
}

/// What of all that calls touch lies on the part.
pub(super) struct Homes<'w> {
    wanted: &'w [Wanted],
    /// Whether each thing does.
    pub on_chip: Vec<bool>,
}

impl<'w> Homes<'w> {
    /// Everything that may.
    pub fn new(wanted: &'w [Wanted]) -> Self {
        let on_chip = wanted.iter().map(|wanted| !wanted.is_outside).collect();
        Homes { wanted, on_chip }
    }

    /// Bytes of memories for values on the part: of each kind what is there at most at a time, since none has room for another's.
    fn values(&self) -> u64 {
        let mut changes: BTreeMap<(&str, u32), BTreeMap<usize, i64>> = BTreeMap::new();
        for (wanted, _) in self.wanted.iter().zip(&self.on_chip).filter(|(wanted, on)| **on && !wanted.is_constant) {
            let own = changes.entry((wanted.dtype.name(), wanted.banks)).or_default();
            *own.entry(wanted.calls.0).or_default() += wanted.bytes() as i64;
            *own.entry(wanted.calls.1 + 1).or_default() -= wanted.bytes() as i64;
        }
        let most = |changes: BTreeMap<usize, i64>| {
            let sums = changes.into_values().scan(0, |now: &mut i64, change| {
                *now += change;
                Some(*now)
            });
            sums.max().unwrap_or(0) as u64
        };
        changes.into_values().map(most).sum()
    }

    /// Leaves outside what does not fit into so many bytes for values, and so many for constants with them: of each the largest.
    pub fn choose(&mut self, of_values: u64, of_all: u64) {
        let by_size = |is_constant: bool| {
            let mut all: Vec<usize> = (0..self.wanted.len())
                .filter(|&place| self.on_chip[place] && self.wanted[place].is_constant == is_constant)
                .collect();
            all.sort_by_key(|&place| (std::cmp::Reverse(self.wanted[place].bytes()), place));
            all
        };
        let (constants, values) = (by_size(true), by_size(false));
        // The fewest that have to go: the more do, the less is needed.
        let (mut fewest, mut enough) = (0, values.len());
        while fewest < enough {
            let middle = fewest.midpoint(enough);
            values.iter().enumerate().for_each(|(number, &place)| self.on_chip[place] = number >= middle);
            if self.values() <= of_values {
                enough = middle;
            } else {
                fewest = middle + 1;
            }
        }
        values.iter().enumerate().for_each(|(number, &place)| self.on_chip[place] = number >= fewest);
        let mut left = of_all.saturating_sub(self.values());
        // What goes by in order is loaded: all of it, so that all calls are of one function, unless everything fits.
        let all: u64 = constants.iter().map(|&place| self.wanted[place].bytes()).sum();
        let (loaded, others): (Vec<usize>, Vec<usize>) =
            constants.iter().partition(|&&place| all > left && self.wanted[place].is_in_order);
        loaded.into_iter().for_each(|place| self.on_chip[place] = false);
        for &place in others.iter().rev() {
            let bytes = self.wanted[place].bytes();
            self.on_chip[place] = bytes <= left;
            left -= bytes.min(left);
        }
    }
}
