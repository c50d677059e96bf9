//! A part of a buffer that is wanted before the rest of it.

use serde::{Deserialize, Serialize};

/// Bytes that are brought to the common cache together (CUDA C++ Programming Guide: a cache line is 128 bytes).
pub const LINE: u64 = 128;

/// Rows of bytes in a buffer, which lie apart by a pitch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Region {
    /// The first byte.
    pub first: u64,
    /// Number of rows.
    pub rows: u64,
    /// Bytes from one row to the next.
    pub pitch: u64,
    /// Bytes of a row.
    pub width: u64,
}

impl Region {
    /// Bytes that it has.
    pub fn bytes(&self) -> u64 {
        self.rows.saturating_mul(self.width)
    }

    /// What comes after its last byte.
    pub fn end(&self) -> u64 {
        let last = self.rows.saturating_sub(1).saturating_mul(self.pitch);
        self.first.saturating_add(last).saturating_add(self.width)
    }

    /// Lines of a row.
    pub fn lines(&self) -> u64 {
        self.width.div_ceil(LINE)
    }

    /// Whether a byte of the buffer is in it.
    pub fn holds(&self, byte: u64) -> bool {
        let Some(within) = byte.checked_sub(self.first) else { return false };
        match within.checked_div(self.pitch) {
            Some(row) => row < self.rows && within % self.pitch < self.width,
            None => within < self.width,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_lie_apart() {
        let region = Region { first: 64, rows: 3, pitch: 1024, width: 200 };
        assert_eq!((region.bytes(), region.end(), region.lines()), (600, 64 + 2048 + 200, 2));
        let held = (0..4096).filter(|&byte| region.holds(byte)).count();
        assert_eq!(held, 600);
        assert!(region.holds(64) && region.holds(64 + 2048 + 199) && !region.holds(63) && !region.holds(64 + 200));
    }
}
