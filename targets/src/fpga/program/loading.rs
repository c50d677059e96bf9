//! The loader beside the functions: when each beat is there, and how long functions wait for it.
//!
//! What is said of one channel holds for all: beats of a row are spread over the channels, of which the first has one in every row. The
//! loader asks for the next beat as soon as its FIFO has room, which it knows when a beat is taken; the channel gives one after the
//! other at its rate, the first after its latency, and that again where what comes next does not lie behind what came before. What
//! functions read and write by ports of their own comes first, and the loader waits meanwhile.

use super::parts::Load;
use crate::fpga::design::Loader;
use crate::fpga::schedule::{Rate, Step};
use crate::target::TargetError;

/// Parts of a cycle that the loader's time is counted in.
const PARTS: u64 = 1 << 16;

/// A FIFO in time.
#[derive(Clone, Debug, Default)]
struct Stream {
    depth: usize,
    /// The cycle in which each beat is in the FIFO.
    arrived: Vec<u64>,
    /// The cycle in which each beat is taken.
    taken: Vec<u64>,
    /// Beats that were taken before the present call, and iterations of it that have taken some.
    before: usize,
    iterations: u64,
}

/// The loader while a program runs.
pub(super) struct Loading<'l> {
    loads: &'l [Load],
    /// The load that comes next, and how many of its rows have been read.
    next: (usize, u64),
    /// The row behind the one that was read last.
    behind: Option<u64>,
    /// The FIFO that each buffer goes through.
    stream_of: &'l dyn Fn(u32) -> Option<u32>,
    streams: Vec<Stream>,
    /// When the channel is free, in parts of a cycle.
    free: u64,
    /// Parts of a cycle from one beat to the next.
    period: u64,
    latency: u64,
}

impl<'l> Loading<'l> {
    pub fn new(
        loader: Option<&Loader>,
        loads: &'l [Load],
        stream_of: &'l dyn Fn(u32) -> Option<u32>,
        rate: Rate,
    ) -> Loading<'l> {
        let fifos = loader.map(|loader| loader.streams.as_slice()).unwrap_or_default();
        let streams = fifos.iter().map(|fifo| Stream { depth: fifo.depth as usize, ..Stream::default() }).collect();
        let (period, latency) = (rate.parts_of_beat(PARTS), u64::from(rate.latency));
        Loading { loads, next: (0, 0), behind: None, stream_of, streams, free: 0, period, latency }
    }

    /// Reads the next beat, unless there is none or its FIFO stays full; `until` a cycle, if one is given. Says whether it was read.
    fn read(&mut self, until: Option<u64>) -> bool {
        while self.loads.get(self.next.0).is_some_and(|load| load.rows == self.next.1) {
            self.next = (self.next.0 + 1, 0);
        }
        let Some(load) = self.loads.get(self.next.0) else { return false };
        let Some(stream) = (self.stream_of)(load.buffer).and_then(|stream| self.streams.get_mut(stream as usize))
        else {
            return false;
        };
        let number = stream.arrived.len();
        let has_room = match number.checked_sub(stream.depth) {
            None => 0,
            Some(before) => match stream.taken.get(before) {
                Some(&cycle) => cycle * PARTS,
                None => return false,
            },
        };
        let row = load.at + self.next.1;
        let asked = if self.behind == Some(row) { 0 } else { self.latency * PARTS };
        let there = self.free.max(has_room) + asked + self.period;
        let cycle = there.div_ceil(PARTS);
        if until.is_some_and(|until| cycle > until) {
            return false;
        }
        stream.arrived.push(cycle);
        (self.free, self.behind) = (there, Some(row + 1));
        self.next.1 += 1;
        true
    }

    /// Has ports of functions move so many beats of a channel from a cycle on.
    pub fn share(&mut self, now: u64, beats: u64) {
        if beats > 0 {
            while self.read(Some(now)) {}
            self.free = self.free.max(now * PARTS) + beats * self.period;
        }
    }

    /// Begins a call.
    pub fn call(&mut self) {
        for stream in &mut self.streams {
            (stream.before, stream.iterations) = (stream.taken.len(), 0);
        }
    }

    /// Beats that were taken of a FIFO.
    pub fn taken(&self, stream: u32) -> u64 {
        self.streams.get(stream as usize).map_or(0, |stream| stream.taken.len() as u64)
    }

    /// Does a step that begins in a cycle, and returns the one in which it ends.
    ///
    /// # Errors
    /// What it takes never comes.
    pub fn step(&mut self, step: &Step, begin: u64) -> Result<u64, TargetError> {
        let Step::Loop { trips, interval, rest, pops } = step else {
            return Ok(begin + step.cycles());
        };
        let mut now = begin;
        for iteration in 0..*trips {
            let mut start = if iteration == 0 { begin } else { now + interval };
            for pop in pops {
                let stream = pop.stream as usize;
                let needed =
                    self.streams.get(stream).map_or(0, |own| own.before as u64 + pop.taken(own.iterations + 1));
                while self.streams.get(stream).is_some_and(|own| (own.arrived.len() as u64) < needed) {
                    if !self.read(None) {
                        let what =
                            "functions wait for weights that the loader cannot read, since its other FIFOs are full";
                        return Err(TargetError::Fault(what.to_owned()));
                    }
                }
                let last = (needed as usize).checked_sub(1);
                let there = self.streams.get(stream).zip(last).and_then(|(own, last)| own.arrived.get(last));
                start = start.max(there.map_or(0, |&there| there + 1));
            }
            now = start;
            for pop in pops {
                if let Some(own) = self.streams.get_mut(pop.stream as usize) {
                    own.iterations += 1;
                    own.taken.resize(own.before + pop.taken(own.iterations) as usize, now);
                }
            }
        }
        Ok(now + rest)
    }
}
