//! What an access of a warp touches: sectors of global memory, and how often banks of shared memory are asked.

use std::collections::HashMap;
use std::rc::Rc;

use smallvec::SmallVec;

use super::lanes::{Lanes, Spacing, Values};

/// Sectors that one access touches, in order, each once.
pub(super) type Sectors = SmallVec<[u64; 32]>;

/// Bits of an address that are within one buffer. Buffers lie apart, each aligned to sectors.
const BUFFER_BITS: u32 = 40;

/// Bytes of a bank's word.
const WORD: i64 = 4;

/// The first byte of a sector of so many bytes, in its buffer.
pub(super) fn within_buffer(at: u64, sector: u64) -> u64 {
    (at << sector.trailing_zeros()) & ((1 << BUFFER_BITS) - 1)
}

/// The sectors of so many bytes that lanes of a mask touch in a buffer, each so many bits from its element of so many bits on.
pub(super) fn sectors(buffer: u32, index: &Lanes, (bits, width): (u64, u64), mask: u64, sector: u64) -> Sectors {
    let base = u64::from(buffer) << BUFFER_BITS >> sector.trailing_zeros();
    let of = |bit: i64| base + ((bit.max(0) as u64 / 8) >> sector.trailing_zeros());
    let (bits, width) = (bits as i64, width as i64);
    let mut sectors = Sectors::new();
    let mut rest = mask;
    if let Some((first, step)) = index.as_line() {
        let (low, high) = (mask.trailing_zeros() as i64, 63 - i64::from(mask.leading_zeros()));
        if mask == 0 {
            return sectors;
        }
        // Neighbours touch, so that all sectors between the first and the last lane's are touched.
        if (0..=width).contains(&(step * bits)) && mask.count_ones() as i64 == high - low + 1 {
            let last = (first + step * high) * bits + width - 1;
            sectors.extend(of((first + step * low) * bits)..=of(last));
            return sectors;
        }
    }
    while rest != 0 {
        let at = index.at(rest.trailing_zeros() as usize) * bits;
        rest &= rest - 1;
        for sector in of(at)..=of(at + width - 1) {
            if sectors.last() != Some(&sector) {
                sectors.push(sector);
            }
        }
    }
    if !sectors.is_sorted() {
        sectors.sort_unstable();
    }
    sectors.dedup();
    sectors
}

/// How often the bank that is asked most is asked, by lanes of a mask, each for so many bits from its element of so many bits on: a
/// word that several want is read once for all.
pub(super) fn conflicts(offset: u64, index: &Lanes, (bits, width): (u64, u64), mask: u64, banks: u32) -> u64 {
    let (element, bytes) = ((bits as i64 / 8).max(1), (width as i64 / 8).max(1));
    let banks = i64::from(banks);
    if mask == 0 {
        return 1;
    }
    if let Some((_, step)) = index.as_line() {
        if step == 0 {
            return ((bytes / WORD).max(1) as u64).div_ceil(banks as u64);
        }
        let span = step.abs() * element * i64::from(64 - mask.leading_zeros());
        // All within one row of banks, and aligned.
        if span <= WORD * banks && bytes <= WORD {
            return 1;
        }
    }
    let mut words: SmallVec<[i64; 64]> = SmallVec::new();
    let mut rest = mask;
    while rest != 0 {
        let at = offset as i64 + index.at(rest.trailing_zeros() as usize) * element;
        rest &= rest - 1;
        words.extend(at.div_euclid(WORD)..=(at + bytes - 1).div_euclid(WORD));
    }
    words.sort_unstable();
    words.dedup();
    let mut asked: SmallVec<[u64; 64]> = SmallVec::from_elem(0, banks as usize);
    words.iter().for_each(|word| asked[word.rem_euclid(banks) as usize] += 1);
    asked.into_iter().max().unwrap_or(1).max(1)
}

/// What is known of accesses that lie as others did: how they lie, where modulo what they repeat by, and the lanes.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    conflicts: HashMap<Key, u64>,
    /// Sectors, less the one that the place is in.
    sectors: HashMap<Key, Sectors>,
    /// What keys name by where it lies: it must not make room for something else.
    kept: Vec<Rc<Values>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    access: u32,
    spacing: (bool, i64),
    place: i64,
    mask: u64,
}

impl Patterns {
    fn key(access: u32, index: &Lanes, mask: u64) -> (Key, i64, Option<Rc<Values>>) {
        match index.spacing() {
            (Spacing::Even(step), first) => (Key { access, spacing: (true, step), place: 0, mask }, first, None),
            (Spacing::Any(values), more) => {
                let name = Rc::as_ptr(&values) as usize as i64;
                (Key { access, spacing: (false, name), place: 0, mask }, more, Some(values))
            }
        }
    }

    /// [`conflicts`] of an access by its number.
    pub fn conflicts(
        &mut self,
        (access, offset): (u32, u64),
        index: &Lanes,
        (bits, width): (u64, u64),
        mask: u64,
        banks: u32,
    ) -> u64 {
        let (key, first, values) = Patterns::key(access, index, mask);
        // Banks repeat, and moving all words by some moves all banks.
        let place = (first * (bits as i64 / 8).max(1) + offset as i64).rem_euclid(WORD * i64::from(banks));
        let key = Key { place, ..key };
        if let Some(&known) = self.conflicts.get(&key) {
            return known;
        }
        let times = conflicts(offset, index, (bits, width), mask, banks);
        self.kept.extend(values);
        self.conflicts.insert(key, times);
        times
    }

    /// The same for lines of a matrix from an element on, which are looked at only when they are new.
    pub fn conflicts_of_lines(
        &mut self,
        (access, offset): (u32, u64),
        first: i64,
        index: impl FnOnce() -> Lanes,
        (bits, width): (u64, u64),
        (mask, banks): (u64, u32),
    ) -> u64 {
        let place = (first * (bits as i64 / 8).max(1) + offset as i64).rem_euclid(WORD * i64::from(banks));
        let key = Key { access, spacing: (true, 0), place, mask };
        *self.conflicts.entry(key).or_insert_with(|| conflicts(offset, &index(), (bits, width), mask, banks))
    }

    /// [`sectors`] of an access by its number.
    pub fn sectors(
        &mut self,
        (access, buffer): (u32, u32),
        index: &Lanes,
        (bits, width): (u64, u64),
        mask: u64,
        sector: u64,
    ) -> Sectors {
        let (key, first, values) = Patterns::key(access, index, mask);
        let Some(values) = values else { return sectors(buffer, index, (bits, width), mask, sector) };
        let in_bits = sector as i64 * 8;
        let key = Key { place: (first * bits as i64).rem_euclid(in_bits), ..key };
        let place = (first * bits as i64).div_euclid(in_bits);
        // What lies before the buffer is not there: such indices are looked at as they are.
        if index.least().is_none_or(|least| least < 0) {
            return sectors(buffer, index, (bits, width), mask, sector);
        }
        if let Some(known) = self.sectors.get(&key) {
            return known.iter().map(|&sector| sector.wrapping_add(place as u64)).collect();
        }
        let all = sectors(buffer, index, (bits, width), mask, sector);
        self.kept.push(values);
        self.sectors.insert(key, all.iter().map(|&sector| sector.wrapping_sub(place as u64)).collect());
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_share_sectors() {
        let all = u64::from(u32::MAX);
        let count = |index: &Lanes, bits| sectors(0, index, (bits, bits), all, 32).len();
        assert_eq!(count(&Lanes::line(0, 1), 32), 4);
        assert_eq!(count(&Lanes::line(1, 1), 32), 5);
        assert_eq!(count(&Lanes::line(0, 1), 16), 2);
        assert_eq!(count(&Lanes::line(0, 1), 4), 1);
        assert_eq!(count(&Lanes::line(0, 1), 128), 16);
        assert_eq!(count(&Lanes::line(0, 2), 32), 8);
        assert_eq!(count(&Lanes::line(0, 100), 32), 32);
        assert_eq!(count(&Lanes::same(7), 32), 1);
        assert_eq!(count(&Lanes::each(|lane| 31 - lane as i64), 32), 4);
        // Vectors of four: side by side, and apart.
        assert_eq!(sectors(0, &Lanes::line(0, 4), (32, 128), all, 32).len(), 16);
        assert_eq!(sectors(0, &Lanes::line(0, 64), (32, 128), all, 32).len(), 32);
        assert_eq!(sectors(1, &Lanes::line(0, 1), (32, 32), 0, 32).len(), 0);
        assert_ne!(sectors(1, &Lanes::same(0), (32, 32), all, 32), sectors(0, &Lanes::same(0), (32, 32), all, 32));
    }

    #[test]
    fn words_of_one_bank_are_asked_for_one_by_one() {
        let all = u64::from(u32::MAX);
        let count = |index: &Lanes, bits| conflicts(0, index, (bits, bits), all, 32);
        assert_eq!(count(&Lanes::line(0, 1), 32), 1);
        assert_eq!(count(&Lanes::line(0, 2), 32), 2);
        assert_eq!(count(&Lanes::line(0, 32), 32), 32);
        assert_eq!(count(&Lanes::line(0, 33), 32), 1);
        assert_eq!(count(&Lanes::same(5), 32), 1);
        assert_eq!(count(&Lanes::line(0, 1), 64), 2);
        assert_eq!(count(&Lanes::line(0, 1), 16), 1);
        // Lines of 16 halves, read by eight halves at a time: side by side all banks meet, skewed by eight none.
        let lines = |pitch: i64| Lanes::each(move |lane| lane as i64 % 16 * pitch + lane as i64 / 16 * 8);
        assert_eq!(conflicts(0, &lines(32), (16, 128), all, 32), 8);
        assert_eq!(conflicts(0, &lines(40), (16, 128), all, 32), 4);
    }
}
