//! What a kernel reads of its parameters before anything else.

use super::Argument;
use crate::kernel::Region;

/// What a launch reads of something before anything else of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opening {
    /// What it is of.
    pub argument: Argument,
    /// All of it.
    pub region: Region,
    /// Whether rows are read one after the other; else all at once, each from its first byte on.
    pub by_rows: bool,
    /// Rows, or bytes of each row, that all threads read together.
    pub step: u64,
}

impl Opening {
    /// What is read first of it, so many bytes at the most; nothing if that is less than all threads read together.
    pub fn part(&self, bytes: u64) -> Option<Region> {
        let Region { first, rows, pitch, width } = self.region;
        let step = self.step.max(1);
        if !self.by_rows {
            let own = if bytes >= self.region.bytes() { width } else { bytes / rows.max(1) / step * step };
            return (own > 0).then_some(Region { width: own.min(width), ..self.region });
        }
        let own = if bytes >= self.region.bytes() { rows } else { bytes / width.max(1) / step * step };
        let own = own.min(rows);
        match own {
            0 => None,
            // Rows that lie beside each other are one.
            _ if pitch == width => Some(Region { first, rows: 1, pitch: own * width, width: own * width }),
            _ => Some(Region { rows: own, ..self.region }),
        }
    }
}
