//! How long a program takes: a controller reads what is to be called, and calls one function after the other, while the loader reads
//! what they will want; or calls are stages that run at the same time.

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::fpga::FpgaMachine;
use crate::fpga::design::{Design, Home, Style};
use crate::fpga::memories::bank;
use crate::fpga::resources::Resources;
use crate::fpga::schedule::{AXI_PORT, AXI_READER, Rate, Schedule, Usage};
use crate::fpga::streaming::{Streamed, shared};
use crate::target::TargetError;

use crate::kernel::simulator::Place;

use super::loading::Loading;
use super::parts::{Buffer, Call, Load};
use crate::fpga::design::BEAT_BYTES;

/// Words of a call beside one for each parameter and for its grid: the function's number.
const HEADER: u64 = 1;

/// What the controller takes beside functions: its states, and the words of a call that it reads (assumed).
const CONTROLLER: Resources = Resources { luts: 500, ffs: 800, dsps: 0, bram18s: 0, urams: 0 };

/// What a process of the loader takes beside its port and its FIFOs: counters of rows, and what chooses a FIFO (assumed).
const LOADER: Resources = Resources { luts: 200, ffs: 700, dsps: 0, bram18s: 0, urams: 0 };

/// When what is done.
#[derive(Debug)]
pub(in crate::fpga) struct Times {
    /// Of each function how it is scheduled.
    pub functions: Vec<Schedule>,
    /// Each call.
    pub calls: Vec<CallTime>,
    /// Whether there is a port by which what lies on the part is brought there.
    has_host: bool,
    /// How stages go together, if calls are stages.
    pub streamed: Option<Streamed>,
}

/// A call in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::fpga) struct CallTime {
    /// Cycles in which the controller takes its words, one after the other; before the first also those until memory gives one.
    pub control: u64,
    /// Cycles of the function.
    pub cycles: u64,
    /// Cycles of those in which it waits for the loader.
    pub waits: u64,
}

impl CallTime {
    /// All its cycles.
    pub fn all(self) -> u64 {
        self.control + self.cycles
    }
}

impl Times {
    /// Schedules all functions, and has all calls done once.
    ///
    /// # Errors
    /// A function does what cannot be synthesised, or waits for what never comes.
    pub fn new(
        design: &Design,
        (calls, buffers, loads): (&[Call], &[Buffer], &[Load]),
        facts: &FpgaMachine,
        clock_hz: u64,
    ) -> Result<Times, TargetError> {
        if design.style == Style::Streaming {
            let facts = shared(facts, design);
            let schedule = |function| Schedule::new(function, design, &facts, clock_hz);
            let functions = design.functions.par_iter().map(schedule).collect::<Result<Vec<_>, _>>()?;
            let streamed = Streamed::new(design, calls, &functions, Rate::new(&facts.memory, clock_hz).latency.into())?;
            let stage = |&cycles: &u64| CallTime { control: 0, cycles, waits: 0 };
            let calls = streamed.waited.iter().map(stage).collect();
            return Ok(Times { functions, calls, has_host: false, streamed: Some(streamed) });
        }
        let schedule = |function| Schedule::new(function, design, facts, clock_hz);
        let functions = design.functions.par_iter().map(schedule).collect::<Result<Vec<_>, _>>()?;
        // All calls have as many words as the longest.
        let words = calls.iter().map(|call| HEADER + call.words(design)).max().unwrap_or(0);
        let rate = Rate::new(&facts.memory, clock_hz);
        let stream_of = |buffer: u32| match buffers.get(buffer as usize)?.home {
            Home::Loaded { stream } => Some(stream),
            Home::OnChip(_) | Home::External { .. } | Home::Fifo(_) => None,
        };
        let mut loading = Loading::new(design.loader.as_ref(), loads, &stream_of, rate);
        let channels = design.loader.as_ref().map_or(1, |loader| u64::from(loader.channels));
        let rows = |buffer: u32| buffers[buffer as usize].rows(channels);
        let mut sums: BTreeMap<u32, u64> = BTreeMap::new();
        let (mut now, mut times) = (u64::from(rate.latency), Vec::with_capacity(calls.len()));
        for call in calls {
            let control = words + if times.is_empty() { now } else { 0 };
            let schedule = &functions[call.function.index()];
            let begin = if times.is_empty() { control } else { now + control };
            let shared = design.loader.as_ref().map_or(0, |loader| schedule.beats_of_channels(loader.channels));
            loading.share(begin, shared);
            loading.call();
            let (mut end, mut needed) = (begin, 0);
            for step in schedule.steps(call.grid) {
                end = loading.step(&step, end)?;
                needed += step.cycles();
            }
            for &buffer in &call.buffers {
                let Some(stream) = stream_of(buffer) else { continue };
                let own = sums.entry(stream).or_insert(0);
                *own += rows(buffer);
                if loading.taken(stream) != *own {
                    let name = &design.functions[call.function.index()].kernel.name;
                    let what = format!("function `{name}` does not take all of what is loaded for it");
                    return Err(TargetError::Fault(what));
                }
            }
            times.push(CallTime { control, cycles: end - begin, waits: end - begin - needed });
            now = end;
        }
        let is_brought = |buffer: &Buffer| matches!((buffer.home, buffer.place), (Home::OnChip(_), Place::Weights(_)));
        Ok(Times { functions, calls: times, has_host: buffers.iter().any(is_brought), streamed: None })
    }

    /// Cycles of all calls.
    pub fn cycles(&self) -> u64 {
        self.calls.iter().fold(0, |sum: u64, call| sum.saturating_add(call.all()))
    }

    /// What a design takes: functions share operators, since they never run at the same time; memories and ports are there once. Stages
    /// share nothing.
    pub fn resources(&self, design: &Design, calls: &[Call]) -> Resources {
        if self.streamed.is_some() {
            return Streamed::resources(design, calls, &self.functions);
        }
        let functions = self.functions.iter().fold(Usage::default(), |all, function| all.or(function.usage().clone()));
        if std::env::var("TCC_DBG").is_ok() {
            for (class, &count) in &functions.operators {
                let n = functions.operations.get(class).copied().unwrap_or(0);
                let mux =
                    Usage { operators: [(*class, count)].into(), operations: [(*class, n)].into(), ..Usage::default() }
                        .resources()
                        .luts
                        - class.resources().luts * count;
                eprintln!("{class:?} count {count} of {n} luts {} mux {mux}", class.resources().luts * count);
            }
            eprintln!("control {:?} memories {:?}", functions.control, functions.memories);
            for (f, own) in design.functions.iter().zip(&self.functions) {
                eprintln!("{} control {:?}", f.kernel.name, own.usage().control);
            }
        }
        let memories: Resources = design.memories.iter().map(|memory| memory.resources(true)).sum();
        let is_used = |channel: u32| {
            design.functions.iter().flat_map(|function| &function.homes).any(|home| match *home {
                Home::External { first, ways } => (first..first + ways).contains(&channel),
                Home::OnChip(_) | Home::Loaded { .. } | Home::Fifo(_) => false,
            })
        };
        let ports = (0..design.channels).filter(|&channel| is_used(channel)).count() as u64;
        let loader = design.loader.as_ref().map_or_else(Resources::default, |loader| {
            let fifos = loader.streams.iter().map(|fifo| bank(fifo.depth, BEAT_BYTES * 8, fifo.storage, false));
            // One port more reads what is to be loaded.
            (fifos.sum::<Resources>() + AXI_READER + LOADER) * u64::from(loader.channels) + AXI_READER
        });
        let host = if self.has_host { AXI_PORT } else { Resources::default() };
        // One more is the controller's own.
        functions.resources() + memories + AXI_PORT * ports + AXI_READER + CONTROLLER + host + loader
    }
}
