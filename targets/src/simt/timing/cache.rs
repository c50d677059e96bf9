//! A cache of sectors that forgets what was used least recently.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Sectors, and when each is there.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    capacity: usize,
    places: HashMap<u64, u32, BuildHasherDefault<SectorHasher>>,
    entries: Vec<Entry>,
    newest: u32,
    oldest: u32,
    /// Entries that hold nothing.
    unused: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Entry {
    sector: u64,
    ready: u64,
    newer: u32,
    older: u32,
}

const NONE: u32 = u32::MAX;

impl Cache {
    /// A cache that holds so many sectors.
    pub fn new(capacity: u64) -> Cache {
        let capacity = usize::try_from(capacity).unwrap_or(usize::MAX).min(1 << 22);
        Cache {
            capacity,
            places: HashMap::default(),
            entries: Vec::new(),
            newest: NONE,
            oldest: NONE,
            unused: Vec::new(),
        }
    }

    /// When a sector is there, if it is or comes; it is then the one that was used last.
    pub fn find(&mut self, sector: u64) -> Option<u64> {
        let place = *self.places.get(&sector)?;
        self.unlink(place);
        self.link(place);
        Some(self.entries[place as usize].ready)
    }

    /// Takes a sector in if it is not there, and says whether it was not.
    pub fn insert_new(&mut self, sector: u64) -> bool {
        let is_new = !self.places.contains_key(&sector);
        if is_new {
            self.insert(sector, 0);
        }
        is_new
    }

    /// Forgets as much as so many new sectors would take the room of, but none of those that were used last.
    pub fn forget(&mut self, sectors: u64, kept: u64) {
        let free = (self.capacity - self.places.len()) as u64;
        let count = sectors.saturating_sub(free).min((self.places.len() as u64).saturating_sub(kept));
        for _ in 0..count {
            let place = self.oldest;
            self.unlink(place);
            let sector = self.entries[place as usize].sector;
            self.places.remove(&sector);
            self.unused.push(place);
        }
    }

    /// Takes a sector in that is not there.
    pub fn insert(&mut self, sector: u64, ready: u64) {
        if self.capacity == 0 {
            return;
        }
        let entry = Entry { sector, ready, newer: NONE, older: NONE };
        let place = if let Some(place) = self.unused.pop() {
            self.entries[place as usize] = entry;
            place
        } else if self.entries.len() < self.capacity {
            self.entries.push(entry);
            self.entries.len() as u32 - 1
        } else {
            let place = self.oldest;
            self.unlink(place);
            self.places.remove(&self.entries[place as usize].sector);
            self.entries[place as usize] = entry;
            place
        };
        self.places.insert(sector, place);
        self.link(place);
    }

    fn unlink(&mut self, place: u32) {
        let Entry { newer, older, .. } = self.entries[place as usize];
        match newer {
            NONE => self.newest = older,
            newer => self.entries[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.entries[older as usize].newer = newer,
        }
    }

    fn link(&mut self, place: u32) {
        let before = self.newest;
        let entry = &mut self.entries[place as usize];
        (entry.newer, entry.older) = (NONE, before);
        match before {
            NONE => self.oldest = place,
            before => self.entries[before as usize].newer = place,
        }
        self.newest = place;
    }
}

/// Mixes the one number that a sector is.
#[derive(Clone, Copy, Debug, Default)]
struct SectorHasher(u64);

impl Hasher for SectorHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(u64::from(byte)));
    }

    fn write_u64(&mut self, number: u64) {
        // Fibonacci hashing: the golden ratio as a fraction of 2^64.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_least_recently_goes() {
        let mut cache = Cache::new(2);
        cache.insert(1, 10);
        cache.insert(2, 20);
        assert_eq!(cache.find(1), Some(10));
        cache.insert(3, 30);
        assert_eq!([cache.find(1), cache.find(2), cache.find(3)], [Some(10), None, Some(30)]);
        cache.insert(4, 40);
        assert_eq!([cache.find(1), cache.find(4)], [None, Some(40)]);
        cache.forget(1, 1);
        assert_eq!([cache.find(3), cache.find(4)], [None, Some(40)]);
        cache.insert(5, 50);
        assert_eq!([cache.find(4), cache.find(5)], [Some(40), Some(50)]);
        let mut none = Cache::new(0);
        none.insert(1, 1);
        assert_eq!(none.find(1), None);
    }
}
