//! A schedule in lines, for people.

use std::fmt;

use super::{Binding, Schedule};
use crate::fpga::design::{BEAT_BYTES, Storage};
use crate::fpga::nest::Item;

impl Binding {
    /// What it is, in a word.
    pub fn name(self) -> &'static str {
        match self {
            Binding::Work => "compute",
            Binding::Recurrence => "recurrence",
            Binding::Ports => "ports",
            Binding::External => "memory",
        }
    }
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn built_from(storage: Storage) -> &'static str {
    match storage {
        Storage::Lutram => "look-up tables",
        Storage::Bram => "block RAM",
        Storage::Uram => "UltraRAM",
    }
}

impl Schedule {
    /// Bytes that a call moves from and to external memory.
    pub fn external_bytes(&self) -> u64 {
        self.traffic.values().map(|beats| beats.sum() * BEAT_BYTES).sum()
    }

    /// Its memories and loops in lines, each with how far it is indented.
    pub fn lines(&self) -> Vec<(usize, String)> {
        let mut lines = Vec::new();
        for local in &self.memories {
            let array = &self.nest.arrays[local.array.index()];
            let (banks, words, dtype) = (array.banks, local.words, array.dtype.name());
            lines.push((
                0,
                format!("{}: {words} words of {banks} {dtype} in {}", array.name, built_from(local.storage)),
            ));
        }
        self.lines_of(&self.nest.body, 0, &mut lines);
        lines
    }

    fn lines_of(&self, items: &[Item], depth: usize, lines: &mut Vec<(usize, String)>) {
        for item in items {
            match item {
                Item::Block(id) => {
                    let cycles = self.blocks[id.index()].cycles;
                    let plural = if cycles == 1 { "" } else { "s" };
                    lines.push((depth, format!("{cycles} cycle{plural}")));
                }
                Item::Loop(id) => {
                    let (own, time) = (&self.nest.loops[id.index()], &self.loops[id.index()]);
                    let (trips, cycles) = (own.trips(), time.cycles);
                    if own.pipelined {
                        let waits =
                            if time.waits > 0 { format!(", {} of them for memory", time.waits) } else { String::new() };
                        let interval = match time.interval {
                            1 => "an iteration each cycle".to_owned(),
                            interval => format!("an iteration every {interval} cycles: {}", self.reason(*id)),
                        };
                        let line = format!(
                            "{}: {trips} times, {interval}, depth {}, {cycles} cycles{waits}",
                            own.name, time.depth
                        );
                        lines.push((depth, line));
                    } else {
                        lines.push((depth, format!("{}: {trips} times {} cycles", own.name, time.depth)));
                        self.lines_of(&own.body, depth + 1, lines);
                    }
                }
                Item::Branch { then, otherwise, .. } => {
                    lines.push((depth, "either".to_owned()));
                    self.lines_of(then, depth + 1, lines);
                    if !otherwise.is_empty() {
                        lines.push((depth, "or".to_owned()));
                        self.lines_of(otherwise, depth + 1, lines);
                    }
                }
            }
        }
    }
}
