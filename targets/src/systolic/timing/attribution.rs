//! Where the cycles of a program, or of its kernels, went.

use std::collections::VecDeque;
use std::ops::Range;

use super::{Scheduler, Span};
use crate::systolic::SystolicMachine;
use crate::systolic::code::Code;
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
    /// The kernel's own instructions on each unit.
    pub instructions: [u64; Unit::COUNT],
    /// For every unit the first start and the last end of the kernel's own instructions; both 0 if it has none there.
    pub spans: [(u64, u64); Unit::COUNT],
    /// The last completion of the kernel's own instructions; 0 if it has none.
    pub completion: u64,
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

    /// The unit that bounds the kernel, which is the one that it kept busy longest; `None` if that unit was idle for more than
    /// half of the time from the kernel's first start to its last completion, so that latencies bound it.
    pub fn binding(&self) -> Option<Unit> {
        let unit = self.busiest();
        let time = self.completion.saturating_sub(self.start());
        Some(unit).filter(|unit| self.busy[unit.index()] >= time / 2)
    }

    /// The first start of the kernel's own instructions; 0 if it has none.
    pub fn start(&self) -> u64 {
        let used = self.spans.iter().zip(&self.instructions).filter(|(_, count)| **count > 0);
        used.map(|((start, _), _)| *start).min().unwrap_or(0)
    }

    fn add(&mut self, span: Span) {
        let unit = span.unit.index();
        self.busy[unit] = self.busy[unit].saturating_add(span.occupancy);
        let own = &mut self.spans[unit];
        *own = (if self.instructions[unit] == 0 { span.start } else { own.0 }, span.end());
        self.instructions[unit] += 1;
        self.completion = self.completion.max(span.completion);
    }
}

/// Where the cycles of a program went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Cycles from the first dispatch to the last completion.
    pub cycles: u64,
    /// Where they went; sums to `cycles`.
    pub attribution: Attribution,
    /// The shares of the kernels; they sum to `cycles`.
    pub kernels: Vec<KernelCycles>,
}

/// Instructions after which time is swept up to where nothing can start any more.
const SWEEP_EVERY: usize = 1024;

/// Executes a program and accounts for its cycles, in memory that does not grow with the program. `lengths` are the
/// instructions of consecutive kernels, which cover it.
pub fn summarize(code: &Code, lengths: &[usize], machine: &SystolicMachine) -> Summary {
    let mut sweep = Sweep { kernels: vec![KernelCycles::default(); lengths.len()], ..Sweep::default() };
    let mut scheduler = Scheduler::new(machine);
    let mut kernel = 0;
    let mut left = lengths.first().copied().unwrap_or(usize::MAX);
    scheduler.run(code, |scheduler, span| {
        while left == 0 && kernel < lengths.len() {
            sweep.close(kernel);
            kernel += 1;
            left = lengths.get(kernel).copied().unwrap_or(usize::MAX);
        }
        left -= 1;
        sweep.add(kernel, span);
        if left % SWEEP_EVERY == 0 {
            sweep.up_to(scheduler.horizon());
        }
    });
    (kernel..lengths.len()).for_each(|kernel| sweep.close(kernel));
    sweep.up_to(scheduler.cycles());
    Summary { cycles: scheduler.cycles(), attribution: sweep.attribution, kernels: sweep.kernels }
}

/// Walks through time along the busy intervals of all units.
#[derive(Default)]
struct Sweep {
    /// The busy intervals of every unit that have not ended, in order.
    busy: [VecDeque<Range<u64>>; Unit::COUNT],
    time: u64,
    attribution: Attribution,
    kernels: Vec<KernelCycles>,
    /// The kernel whose cycles it is.
    current: usize,
    /// Ends of the cycles of kernels from `current` on, as far as they are known.
    ends: VecDeque<u64>,
    /// The end of the last kernel's cycles that is known.
    last_end: u64,
}

impl Sweep {
    fn add(&mut self, kernel: usize, span: Span) {
        if let Some(kernel) = self.kernels.get_mut(kernel) {
            kernel.add(span);
        }
        let intervals = &mut self.busy[span.unit.index()];
        match intervals.back_mut() {
            Some(last) if last.end == span.start => last.end = span.end(),
            _ => intervals.push_back(span.start..span.end()),
        }
    }

    /// Says that all instructions of a kernel have been added.
    fn close(&mut self, kernel: usize) {
        let own = &mut self.kernels[kernel];
        let end = own.completion.max(self.last_end);
        (own.from, own.cycles) = (self.last_end, end - self.last_end);
        self.last_end = end;
        self.ends.push_back(end);
    }

    /// Attributes the cycles from where the sweep stands to `end`, before which nothing starts that was not added.
    fn up_to(&mut self, end: u64) {
        while self.time < end {
            if self.ends.front().is_some_and(|&end| end <= self.time) {
                self.ends.pop_front();
                self.current += 1;
                continue;
            }
            let mut busy = [false; Unit::COUNT];
            let mut until = end.min(self.ends.front().copied().unwrap_or(end));
            for (busy, intervals) in busy.iter_mut().zip(&mut self.busy) {
                while intervals.front().is_some_and(|interval| interval.end <= self.time) {
                    intervals.pop_front();
                }
                if let Some(interval) = intervals.front() {
                    *busy = interval.start <= self.time;
                    until = until.min(if *busy { interval.end } else { interval.start });
                }
            }
            let cycles = until - self.time;
            self.attribution.add(busy, cycles);
            if let Some(kernel) = self.kernels.get_mut(self.current) {
                kernel.attribution.add(busy, cycles);
            }
            self.time = until;
        }
    }
}
