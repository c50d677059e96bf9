//! Which part of global memory holds what when: buffers that are not wanted at the same time share bytes.

use std::collections::BTreeMap;

/// What every buffer is aligned to, so that vectors of any width can be read from its start, and that every device can divide
/// its memory there: OpenCL asks for 512 bytes on some.
pub(super) const ALIGNMENT: u64 = 512;

/// Bytes that are given and taken back.
#[derive(Debug, Default)]
pub(super) struct Arena {
    /// Free stretches: first byte and size.
    free: BTreeMap<u64, u64>,
    /// Bytes that were ever used.
    pub size: u64,
}

impl Arena {
    /// Gives so many bytes: of the stretches that hold them the smallest.
    pub fn take(&mut self, bytes: u64) -> u64 {
        let bytes = bytes.max(1).next_multiple_of(ALIGNMENT);
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

    /// Takes bytes back.
    pub fn give_back(&mut self, mut at: u64, bytes: u64) {
        let mut size = bytes.max(1).next_multiple_of(ALIGNMENT);
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
        let mut arena = Arena::default();
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
