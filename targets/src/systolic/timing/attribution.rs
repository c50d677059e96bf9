//! Where the cycles of a program, or of its kernels, went.

use std::ops::Range;

use super::{Span, Timing};
use crate::systolic::isa::Unit;

/// Cycles by what was going on in them. Every cycle counts for the first busy unit in the order of the fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attribution {
    /// The array was busy.
    pub array: u64,
    /// Else the vector unit was.
    pub vector: u64,
    /// Else a load moved data.
    pub load: u64,
    /// Else a store moved data.
    pub store: u64,
    /// Else weights shifted into the array.
    pub preload: u64,
    /// No unit was busy: something waited for a pipeline, for DRAM to answer or for the sequencer.
    pub latency: u64,
}

impl Attribution {
    /// All parts by name, in order.
    pub fn parts(&self) -> [(&'static str, u64); 6] {
        [
            ("array", self.array),
            ("vector", self.vector),
            ("load", self.load),
            ("store", self.store),
            ("preload", self.preload),
            ("latency", self.latency),
        ]
    }

    /// Sum of the parts.
    pub fn cycles(&self) -> u64 {
        self.parts().iter().map(|(_, cycles)| cycles).sum()
    }

    fn add(&mut self, busy: [bool; Unit::COUNT], cycles: u64) {
        let first = PRIORITY.into_iter().find(|unit| busy[unit.index()]);
        *match first {
            Some(Unit::Array) => &mut self.array,
            Some(Unit::Vector) => &mut self.vector,
            Some(Unit::Load) => &mut self.load,
            Some(Unit::Store) => &mut self.store,
            Some(Unit::Preload) => &mut self.preload,
            None => &mut self.latency,
        } += cycles;
    }
}

const PRIORITY: [Unit; Unit::COUNT] = [Unit::Array, Unit::Vector, Unit::Load, Unit::Store, Unit::Preload];

/// The share of one kernel, a stretch of the program, in the program's cycles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelCycles {
    /// The first cycle that counts for the kernel: everything before it has completed, or it is 0.
    pub from: u64,
    /// Cycles from there to the kernel's own last completion; 0 if earlier kernels complete after it.
    pub cycles: u64,
    /// What went on in those cycles, on any unit, whichever kernel kept it busy; sums to `cycles`.
    pub attribution: Attribution,
    /// Cycles for which the kernel's own instructions kept each unit busy, whenever that was.
    pub busy: [u64; Unit::COUNT],
}

impl KernelCycles {
    /// The unit that the kernel kept busy longest; of equals the first in the order of [`Unit::ALL`].
    pub fn busiest(&self) -> Unit {
        let mut busiest = Unit::Load;
        for unit in Unit::ALL {
            if self.busy[unit.index()] > self.busy[busiest.index()] {
                busiest = unit;
            }
        }
        busiest
    }
}

impl Timing {
    /// Where all cycles went; sums to [`Timing::cycles`].
    pub fn attribution(&self) -> Attribution {
        Sweep::new(self.spans()).up_to(self.cycles())
    }

    /// The shares of consecutive stretches of the program. Those of stretches that cover the program sum to
    /// [`Timing::cycles`]. A range that reaches beyond the program is cut.
    pub fn kernels(&self, ranges: &[Range<usize>]) -> Vec<KernelCycles> {
        let mut sweep = Sweep::new(self.spans());
        let mut from = 0;
        ranges
            .iter()
            .map(|range| {
                let end = range.end.min(self.spans().len());
                let own = &self.spans()[range.start.min(end)..end];
                let completion = own.iter().map(|span| span.completion).max().unwrap_or(0).max(from);
                let mut busy = [0u64; Unit::COUNT];
                for span in own {
                    let busy = &mut busy[span.unit.index()];
                    *busy = busy.saturating_add(span.occupancy);
                }
                let kernel =
                    KernelCycles { from, cycles: completion - from, attribution: sweep.up_to(completion), busy };
                from = completion;
                kernel
            })
            .collect()
    }
}

/// Walks through time along the busy intervals of all units.
struct Sweep<'a> {
    spans: &'a [Span],
    /// For every unit the position in the program of its interval that has not ended.
    current: [usize; Unit::COUNT],
    time: u64,
}

impl<'a> Sweep<'a> {
    fn new(spans: &'a [Span]) -> Self {
        Sweep { spans, current: [0; Unit::COUNT], time: 0 }
    }

    /// Attributes the cycles from where the sweep stands to `end`.
    fn up_to(&mut self, end: u64) -> Attribution {
        let mut attribution = Attribution::default();
        while self.time < end {
            let mut busy = [false; Unit::COUNT];
            let mut until = end;
            for unit in Unit::ALL {
                let current = &mut self.current[unit.index()];
                while self.spans.get(*current).is_some_and(|span| span.unit != unit || span.end() <= self.time) {
                    *current += 1;
                }
                if let Some(span) = self.spans.get(*current) {
                    busy[unit.index()] = span.start <= self.time;
                    until = until.min(if span.start <= self.time { span.end() } else { span.start });
                }
            }
            attribution.add(busy, until - self.time);
            self.time = until;
        }
        attribution
    }
}
