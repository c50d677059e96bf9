//! Which part of a memory holds what when: what is not wanted at the same time shares it.

use std::collections::BTreeMap;

/// Bytes, or words, that are given and taken back.
#[derive(Debug)]
pub(crate) struct Arena {
    /// What all that is given begins at a multiple of.
    alignment: u64,
    /// Free stretches: where they begin and their size.
    free: BTreeMap<u64, u64>,
    /// How much was ever used.
    pub size: u64,
}

impl Arena {
    /// One of which nothing is given yet.
    pub fn new(alignment: u64) -> Arena {
        Arena { alignment, free: BTreeMap::new(), size: 0 }
    }

    /// Gives so much: of the stretches that hold it the smallest.
    pub fn take(&mut self, bytes: u64) -> u64 {
        let bytes = bytes.max(1).next_multiple_of(self.alignment);
        let fits = self.free.iter().filter(|&(_, &size)| size >= bytes);
        match fits.min_by_key(|&(&at, &size)| (size, at)).map(|(&at, &size)| (at, size)) {
            Some((at, size)) => {
                self.free.remove(&at);
                if size > bytes {
                    self.free.insert(at + bytes, size - bytes);
                }
                at
            }
            None => {
                // What is free at the end is a part of it.
                let last = self.free.last_key_value().map(|(&at, &size)| (at, size));
                let at = last.filter(|(at, size)| at + size == self.size).map_or(self.size, |(at, _)| at);
                self.free.remove(&at);
                self.size = at + bytes;
                at
            }
        }
    }

    /// Takes something back.
    pub fn give_back(&mut self, mut at: u64, bytes: u64) {
        let mut size = bytes.max(1).next_multiple_of(self.alignment);
        if let Some((&before, &length)) = self.free.range(..at).next_back()
            && before + length == at
        {
            self.free.remove(&before);
            (at, size) = (before, length + size);
        }
        if let Some(after) = self.free.remove(&(at + size)) {
            size += after;
        }
        self.free.insert(at, size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_given_once_and_used_again() {
        let mut arena = Arena::new(512);
        let [a, b, c] = [1, 300, 256].map(|bytes| arena.take(bytes));
        assert_eq!([a, b, c, arena.size], [0, 512, 1024, 1536]);
        arena.give_back(a, 1);
        arena.give_back(b, 300);
        // The two have become one.
        assert_eq!(arena.take(700), 0);
        arena.give_back(c, 256);
        assert_eq!((arena.take(1000), arena.size), (1024, 2048));
    }
}
