//! Who is busy when: a bit for each cycle and each thing of which the machine has one.

/// Cycles in which something is used, relative to the start of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::lpu) struct Pattern {
    /// The cycle of the first bit.
    start: i64,
    words: Vec<u64>,
}

impl Pattern {
    /// The pattern of some cycles. `None` if one of them comes twice.
    pub fn new(cycles: impl IntoIterator<Item = i64>) -> Option<Pattern> {
        let mut cycles: Vec<i64> = cycles.into_iter().collect();
        cycles.sort_unstable();
        let (Some(&start), Some(&last)) = (cycles.first(), cycles.last()) else { return Some(Pattern::default()) };
        let mut words = vec![0u64; ((last - start) / 64 + 1) as usize];
        for cycle in cycles {
            let bit = cycle - start;
            let (word, mask) = ((bit / 64) as usize, 1u64 << (bit % 64));
            if words[word] & mask != 0 {
                return None;
            }
            words[word] |= mask;
        }
        Some(Pattern { start, words })
    }
}

/// The cycles in which one thing is busy. Cycles may be a little before 0: streams are told by their diagonals.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    words: Vec<u64>,
}

/// What is added to a cycle before it becomes a bit.
const BEFORE: i64 = 512;

impl Row {
    /// 64 bits from a cycle on.
    fn bits(&self, cycle: i64) -> u64 {
        let at = cycle + BEFORE;
        let (word, shift) = ((at / 64) as usize, at % 64);
        let word_at = |index: usize| self.words.get(index).copied().unwrap_or(0);
        if shift == 0 { word_at(word) } else { word_at(word) >> shift | word_at(word + 1) << (64 - shift) }
    }

    /// Whether none of the pattern's cycles is taken, if it starts in a cycle.
    pub fn fits(&self, pattern: &Pattern, start: i64) -> bool {
        let first = pattern.start + start;
        pattern.words.iter().enumerate().all(|(index, word)| self.bits(first + 64 * index as i64) & word == 0)
    }

    /// The first cycle from `start` on in which the pattern fits.
    pub fn next_fit(&self, pattern: &Pattern, mut start: i64) -> i64 {
        'next: loop {
            let first = pattern.start + start;
            for (index, word) in pattern.words.iter().enumerate() {
                let taken = self.bits(first + 64 * index as i64) & word;
                if taken != 0 {
                    start += 1;
                    continue 'next;
                }
            }
            return start;
        }
    }

    /// Takes the pattern's cycles.
    pub fn take(&mut self, pattern: &Pattern, start: i64) {
        let first = pattern.start + start + BEFORE;
        let shift = first % 64;
        for (index, &word) in pattern.words.iter().enumerate() {
            let at = (first / 64) as usize + index;
            if self.words.len() < at + 2 {
                self.words.resize((at + 2).next_power_of_two(), 0);
            }
            self.words[at] |= word << shift;
            if shift > 0 {
                self.words[at + 1] |= word >> (64 - shift);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;

    #[test]
    fn patterns_fit_where_their_cycles_are_free() {
        let pattern = Pattern::new([70, -5, 3]).unwrap();
        let mut row = Row::default();
        row.take(&pattern, 10);
        let taken = [5, 13, 80];
        for cycle in -20..200 {
            let single = Pattern::new([cycle]).unwrap();
            assert_eq!(row.fits(&single, 0), !taken.contains(&cycle), "{cycle}");
        }
        // From 10 on: 10 meets all, 18 meets 13 with its first, 77 meets 80 with its 3.
        assert_eq!(row.next_fit(&pattern, 10), 11);
        assert!(!row.fits(&pattern, 18));
        assert!(!row.fits(&pattern, 77));
        assert_eq!(row.next_fit(&Pattern::new(0..10).unwrap(), 4), 14);
        assert_eq!(Pattern::new([1, 2, 1]), None);
    }
}
