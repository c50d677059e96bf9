//! The facts of one FPGA on its board, as its file states them.

use serde::{Deserialize, Serialize};

use super::resources::Resources;
use crate::machine::MachineError;

/// The FPGA's part of a machine file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FpgaMachine {
    /// The part, as its maker's tools call it.
    pub part: String,
    /// What is on the part.
    pub resources: Resources,
    /// What share of it a design may take.
    pub usable: Usable,
    /// Memory beside the part.
    pub memory: ExternalMemory,
}

/// Shares of the part's resources, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usable {
    /// Of the look-up tables.
    pub luts: f64,
    /// Of the flip-flops.
    pub ffs: f64,
    /// Of the DSP slices.
    pub dsps: f64,
    /// Of the block RAM.
    pub bram18s: f64,
    /// Of the UltraRAM.
    pub urams: f64,
}

/// Memory beside the part: channels of the same size and speed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalMemory {
    /// What it is, for people.
    pub name: String,
    /// Bytes of all channels.
    pub bytes: u64,
    /// Number of channels, each with a port of its own.
    pub channels: u32,
    /// Bytes that a channel gives or takes in a second at its peak.
    pub bytes_per_second: f64,
    /// Share of the peak that long bursts reach.
    pub efficiency: f64,
    /// Nanoseconds from a request for a burst to its first word.
    pub latency_ns: f64,
    /// Most bytes of a burst.
    pub burst_bytes: u32,
    /// Bursts of a port that may be on their way.
    pub outstanding: u32,
}

impl ExternalMemory {
    /// Bytes of a channel.
    pub fn of_channel(&self) -> u64 {
        self.bytes / u64::from(self.channels.max(1))
    }
}

impl FpgaMachine {
    /// What a design may take of the part.
    pub fn budget(&self) -> Resources {
        let Usable { luts, ffs, dsps, bram18s, urams } = self.usable;
        let share = |all: u64, share: f64| (all as f64 * share) as u64;
        Resources {
            luts: share(self.resources.luts, luts),
            ffs: share(self.resources.ffs, ffs),
            dsps: share(self.resources.dsps, dsps),
            bram18s: share(self.resources.bram18s, bram18s),
            urams: share(self.resources.urams, urams),
        }
    }

    /// Checks that the figures make a machine.
    ///
    /// # Errors
    /// A figure cannot be.
    pub fn check(&self, file: &str) -> Result<(), MachineError> {
        let Resources { luts, ffs, dsps, bram18s, urams } = self.resources;
        let memory = &self.memory;
        let counts = [
            ("fpga.resources.luts", luts, 10_000, 1 << 32),
            ("fpga.resources.ffs", ffs, 10_000, 1 << 32),
            ("fpga.resources.dsps", dsps, 16, 1 << 24),
            ("fpga.resources.bram18s", bram18s, 16, 1 << 24),
            ("fpga.resources.urams", urams, 0, 1 << 24),
            ("fpga.memory.bytes", memory.bytes, 1 << 20, 1 << 48),
            ("fpga.memory.channels", u64::from(memory.channels), 1, 256),
            ("fpga.memory.burst_bytes", u64::from(memory.burst_bytes), 64, 4096),
            ("fpga.memory.outstanding", u64::from(memory.outstanding), 1, 1024),
        ];
        for (field, value, low, high) in counts {
            if !(low..=high).contains(&value) {
                return Err(wrong(file, field, value, format!("from {low} to {high}")));
            }
        }
        let shares = [
            ("fpga.usable.luts", self.usable.luts),
            ("fpga.usable.ffs", self.usable.ffs),
            ("fpga.usable.dsps", self.usable.dsps),
            ("fpga.usable.bram18s", self.usable.bram18s),
            ("fpga.usable.urams", self.usable.urams),
            ("fpga.memory.efficiency", memory.efficiency),
        ];
        for (field, value) in shares {
            if !(value > 0.0 && value <= 1.0) {
                return Err(wrong(file, field, value, "above 0 and at most 1".to_owned()));
            }
        }
        let rates = [
            ("fpga.memory.bytes_per_second", memory.bytes_per_second, 1e6, 1e15),
            ("fpga.memory.latency_ns", memory.latency_ns, 0.0, 1e6),
        ];
        for (field, value, low, high) in rates {
            if !(low..=high).contains(&value) {
                return Err(wrong(file, field, value, format!("from {low} to {high}")));
            }
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.part.is_empty() || !self.part.chars().all(is_name) {
            return Err(wrong(file, "fpga.part", &self.part, "letters, digits and dashes".to_owned()));
        }
        Ok(())
    }
}

fn wrong(file: &str, field: &str, value: impl ToString, expected: String) -> MachineError {
    MachineError::Value { file: file.to_owned(), field: field.to_owned(), value: value.to_string(), expected }
}
