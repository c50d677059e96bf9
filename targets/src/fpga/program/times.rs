//! How long a program takes: a controller reads what is to be called, and calls one function after the other, while the loader reads
//! what they will want; or calls are stages that run at the same time.

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::fpga::FpgaMachine;
use crate::fpga::design::{Design, Home, Style};
use crate::fpga::memories::bank;
use crate::fpga::resources::Resources;
use crate::fpga::schedule::{AXI_ONE_WAY, AXI_PORT, Rate, Schedule, Usage};
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
        let wanted = |channel: u32| functions.iter().map(|function| function.beats_of(channel)).collect();
        let mut loading = Loading::new(design.loader.as_ref(), loads, &stream_of, rate, wanted);
        let channels = design.loader.as_ref().map_or(1, |loader| u64::from(loader.channels));
        let rows = |buffer: u32| buffers[buffer as usize].rows(channels);
        let mut sums: BTreeMap<u32, u64> = BTreeMap::new();
        let (mut now, mut times) = (u64::from(rate.latency), Vec::with_capacity(calls.len()));
        for call in calls {
            let control = words + if times.is_empty() { now } else { 0 };
            let schedule = &functions[call.function.index()];
            let begin = if times.is_empty() { control } else { now + control };
            loading.share(begin, |channel| schedule.beats_of(channel));
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

    /// What functions are built from that never run at the same time.
    pub fn usage(&self) -> Usage {
        self.functions.iter().fold(Usage::default(), |all, function| all.or(function.usage().clone()))
    }

    /// What a design takes: functions share operators, since they never run at the same time; memories and ports are there once. Stages
    /// share nothing.
    pub fn resources(&self, design: &Design, calls: &[Call]) -> Resources {
        if self.streamed.is_some() {
            return Streamed::resources(design, calls, &self.functions);
        }
        let functions = self.usage();
        let memories: Resources = design.memories.iter().map(|memory| memory.resources(true)).sum();
        let loader = design.loader.as_ref().map_or_else(Resources::default, |loader| {
            let fifos = loader.streams.iter().map(|fifo| bank(fifo.depth, BEAT_BYTES * 8, fifo.storage, false));
            // One port more reads what is to be loaded.
            (fifos.sum::<Resources>() + AXI_ONE_WAY + LOADER) * u64::from(loader.channels) + AXI_ONE_WAY
        });
        let host = if self.has_host { AXI_PORT } else { Resources::default() };
        // One more is the controller's own.
        functions.resources(design.adders) + memories + ports(design) + AXI_ONE_WAY + CONTROLLER + host + loader
    }
}

/// What ports to external memory take, by whether functions read or write each channel, or both.
pub(in crate::fpga) fn ports(design: &Design) -> Resources {
    // Of each channel, whether functions read it, and whether they write it.
    let mut used = vec![[false; 2]; design.channels as usize];
    for function in &design.functions {
        for (home, buffer) in function.homes.iter().zip(&function.kernel.buffers) {
            if let Home::External { first, ways } = *home {
                let own = used.iter_mut().skip(first as usize).take(ways as usize);
                own.for_each(|used| used[usize::from(buffer.is_written)] = true);
            }
        }
    }
    used.into_iter()
        .map(|used| match used {
            [false, false] => Resources::default(),
            [true, true] => AXI_PORT,
            [true, false] | [false, true] => AXI_ONE_WAY,
        })
        .sum()
}
