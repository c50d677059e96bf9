//! Who touched which part of a memory last, for the emitter to derive waits from.

use std::ops::Range;

use super::isa::Unit;

/// The last instruction of each unit that touched a page, counted from 1; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ages {
    pub written: [u32; Unit::COUNT],
    pub read: [u32; Unit::COUNT],
}

/// A memory, page by page.
#[derive(Debug)]
pub(super) struct Tracker {
    page_bytes: u64,
    pages: Vec<Ages>,
}

impl Tracker {
    /// A memory that nobody has touched.
    pub(super) fn new(page_bytes: u64) -> Self {
        Tracker { page_bytes, pages: Vec::new() }
    }

    /// The pages that hold these bytes.
    pub(super) fn pages(&mut self, range: &Range<u64>) -> &mut [Ages] {
        let first = (range.start / self.page_bytes) as usize;
        let end = range.end.div_ceil(self.page_bytes) as usize;
        if self.pages.len() < end {
            self.pages.resize(end, Ages::default());
        }
        &mut self.pages[first..end]
    }
}
