//! The loader beside the functions: when each beat is there, and how long functions wait for it.
//!
//! A channel has a beat in every row of what is loaded (in the last row of a buffer some have none, which is not told apart). The loader asks
//! for the next beat as soon as its FIFO has room, which it knows when a beat is taken; a channel gives one after the other at its
//! rate, the first after its latency, and that again where what comes next does not lie behind what came before. What functions read and
//! write of a channel by ports of their own comes first, and the loader waits meanwhile. An iteration begins when all channels have given what it
//! takes.

use std::collections::BTreeSet;

use smallvec::SmallVec;

use super::parts::Load;
use crate::fpga::design::Loader;
use crate::fpga::nest::Pop;
use crate::fpga::schedule::{Rate, Step};
use crate::target::TargetError;

/// What an iteration takes: of integers, scales and zero points.
type Pops = SmallVec<[Pop; 3]>;

/// Parts of a cycle that the loader's time is counted in.
const PARTS: u64 = 1 << 16;

/// The FIFOs of one number of all channels.
#[derive(Clone, Debug, Default)]
struct Stream {
    depth: usize,
    /// The cycle in which each row is taken.
    taken: Vec<u64>,
    /// Rows that were taken before the present call, and iterations of it that have taken some.
    before: usize,
    iterations: u64,
}

/// A channel in time, or several of which functions want the same.
#[derive(Clone, Debug)]
struct Channel {
    /// Its number, or that of the first of them.
    number: u32,
    /// The load that comes next, and how many of its rows have been read.
    next: (usize, u64),
    /// The row behind the one that was read last.
    behind: Option<u64>,
    /// When it is free, in parts of a cycle.
    free: u64,
    /// Of each FIFO the cycles in which its beats are there.
    arrived: Vec<Vec<u64>>,
}

/// The loader while a program runs.
pub(super) struct Loading<'l> {
    loads: &'l [Load],
    /// The FIFO that each buffer goes through.
    stream_of: &'l dyn Fn(u32) -> Option<u32>,
    streams: Vec<Stream>,
    channels: Vec<Channel>,
    /// Parts of a cycle from one beat to the next.
    period: u64,
    latency: u64,
}

impl<'l> Loading<'l> {
    /// Before anything is read. `wanted` says what functions move of a channel by their own ports, so that channels can be told apart.
    pub fn new(
        loader: Option<&Loader>,
        loads: &'l [Load],
        stream_of: &'l dyn Fn(u32) -> Option<u32>,
        rate: Rate,
        wanted: impl Fn(u32) -> Vec<u64>,
    ) -> Loading<'l> {
        let fifos = loader.map(|loader| loader.streams.as_slice()).unwrap_or_default();
        let streams: Vec<Stream> =
            fifos.iter().map(|fifo| Stream { depth: fifo.depth as usize, ..Stream::default() }).collect();
        let mut known: BTreeSet<Vec<u64>> = BTreeSet::new();
        let numbers = (0..loader.map_or(0, |loader| loader.channels)).filter(|&number| known.insert(wanted(number)));
        let arrived = vec![Vec::new(); streams.len()];
        let channel = |number| Channel { number, next: (0, 0), behind: None, free: 0, arrived: arrived.clone() };
        let (channels, period) = (numbers.map(channel).collect(), rate.parts_of_beat(PARTS));
        Loading { loads, stream_of, streams, channels, period, latency: u64::from(rate.latency) }
    }

    /// Reads the next beat of a channel, unless there is none or its FIFO stays full; not after a cycle, if one is given. Says whether it was read.
    fn read(&mut self, channel: usize, until: Option<u64>) -> bool {
        let own = &mut self.channels[channel];
        while self.loads.get(own.next.0).is_some_and(|load| load.rows == own.next.1) {
            own.next = (own.next.0 + 1, 0);
        }
        let Some(load) = self.loads.get(own.next.0) else { return false };
        let Some(number) = (self.stream_of)(load.buffer).map(|stream| stream as usize) else { return false };
        let (Some(stream), Some(arrived)) = (self.streams.get(number), own.arrived.get_mut(number)) else {
            return false;
        };
        let has_room = match arrived.len().checked_sub(stream.depth) {
            None => 0,
            Some(before) => match stream.taken.get(before) {
                Some(&cycle) => cycle * PARTS,
                None => return false,
            },
        };
        let row = load.at + own.next.1;
        let asked = if own.behind == Some(row) { 0 } else { self.latency * PARTS };
        let there = own.free.max(has_room) + asked + self.period;
        let cycle = there.div_ceil(PARTS);
        if until.is_some_and(|until| cycle > until) {
            return false;
        }
        arrived.push(cycle);
        (own.free, own.behind) = (there, Some(row + 1));
        own.next.1 += 1;
        true
    }

    /// Has ports of functions move beats of channels from a cycle on.
    pub fn share(&mut self, now: u64, beats: impl Fn(u32) -> u64) {
        for channel in 0..self.channels.len() {
            let beats = beats(self.channels[channel].number);
            if beats > 0 {
                while self.read(channel, Some(now)) {}
                let own = &mut self.channels[channel];
                own.free = own.free.max(now * PARTS) + beats * self.period;
            }
        }
    }

    /// Begins a call.
    pub fn call(&mut self) {
        for stream in &mut self.streams {
            (stream.before, stream.iterations) = (stream.taken.len(), 0);
        }
    }

    /// Rows that were taken of a FIFO.
    pub fn taken(&self, stream: u32) -> u64 {
        self.streams.get(stream as usize).map_or(0, |stream| stream.taken.len() as u64)
    }

    /// The cycle in which all channels have given so many beats to a FIFO.
    fn there(&mut self, stream: usize, needed: usize) -> Result<u64, TargetError> {
        let Some(last) = needed.checked_sub(1) else { return Ok(0) };
        let mut latest = 0;
        for channel in 0..self.channels.len() {
            while self.channels[channel].arrived.get(stream).is_some_and(|arrived| arrived.len() < needed) {
                if !self.read(channel, None) {
                    let what = "functions wait for weights that the loader cannot read, since its other FIFOs are full";
                    return Err(TargetError::Fault(what.to_owned()));
                }
            }
            let arrived = self.channels[channel].arrived.get(stream).and_then(|arrived| arrived.get(last));
            latest = latest.max(arrived.map_or(0, |&cycle| cycle + 1));
        }
        Ok(latest)
    }

    /// The next iteration of a loop that begins now which takes a beat that none before it has taken.
    fn next(&self, pop: Pop) -> Option<u64> {
        let own = self.streams.get(pop.stream as usize)?;
        let beat = (own.taken.len() - own.before) as u64;
        Some(pop.iteration_of(beat).saturating_sub(own.iterations))
    }

    /// Rows of its FIFO that are taken when an iteration from now has taken what it takes.
    fn needed(&self, pop: Pop, iteration: u64) -> usize {
        let own = self.streams.get(pop.stream as usize);
        own.map_or(0, |own| own.before as u64 + pop.taken(own.iterations + iteration + 1)) as usize
    }

    /// Does a step that begins in a cycle, and returns the one in which it ends.
    ///
    /// # Errors
    /// What it takes never comes.
    pub fn step(&mut self, step: &Step, begin: u64) -> Result<u64, TargetError> {
        let Step::Loop { trips, interval, rest, pops } = step else {
            return Ok(begin + step.cycles());
        };
        // From one iteration that takes something new to the next.
        let (mut last, mut now) = (0, begin);
        while let Some(iteration) = pops.iter().filter_map(|pop| self.next(*pop)).min().filter(|next| next < trips) {
            let mut start = now + (iteration - last) * interval;
            for pop in pops.iter().filter(|pop| self.next(**pop) == Some(iteration)).copied().collect::<Pops>() {
                start = start.max(self.there(pop.stream as usize, self.needed(pop, iteration))?);
            }
            for pop in pops.iter().filter(|pop| self.next(**pop) == Some(iteration)).copied().collect::<Pops>() {
                let needed = self.needed(pop, iteration);
                if let Some(own) = self.streams.get_mut(pop.stream as usize) {
                    own.taken.resize(needed, start);
                }
            }
            (last, now) = (iteration, start);
        }
        for pop in pops {
            if let Some(own) = self.streams.get_mut(pop.stream as usize) {
                own.iterations += trips;
            }
        }
        now += (trips - 1 - last) * interval;
        Ok(now + rest)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;
    use crate::fpga::design::{Fifo, Storage};
    use crate::fpga::machine::ExternalMemory;
    use crate::fpga::nest::{ArrayId, LoopId};

    /// A memory that gives a beat every two cycles, the first after ten.
    fn rate() -> Rate {
        let memory = ExternalMemory {
            name: "memory".to_owned(),
            bytes: 1 << 30,
            channels: 2,
            bytes_per_second: 32e8,
            efficiency: 1.0,
            latency_ns: 100.0,
            burst_bytes: 4096,
            outstanding: 16,
        };
        Rate::new(&memory, 100_000_000)
    }

    fn pop(stream: u32, bits: u64) -> Pop {
        Pop { within: LoopId(0), array: ArrayId(0), stream, bits, channels: 2 }
    }

    /// What a call of so many iterations, one a cycle, takes of FIFOs of some depths, which get rows of buffers in some order.
    fn end(depths: &[u64], loads: &[(u32, u64)], pops: &[Pop], trips: u64) -> Result<u64, TargetError> {
        let streams = depths.iter().map(|&depth| Fifo { depth, storage: Storage::Bram }).collect();
        let loader = Loader { channels: 2, streams };
        let mut at = 0;
        let loads = loads.iter().map(|&(buffer, rows)| {
            at += rows;
            Load { buffer, first: 0, rows, at: at - rows }
        });
        let loads: Vec<Load> = loads.collect();
        let stream_of = |buffer: u32| Some(buffer);
        let mut loading = Loading::new(Some(&loader), &loads, &stream_of, rate(), |_| Vec::new());
        loading.call();
        loading.step(&Step::Loop { trips, interval: 1, rest: 5, pops: pops.to_vec() }, 0)
    }

    #[test]
    fn iterations_begin_when_their_beats_are_there() {
        // Both channels give a beat each: row r is there in cycle 10 + 2 (r + 1), and is taken in the next.
        assert_eq!(end(&[64], &[(0, 8)], &[pop(0, 1024)], 8).unwrap(), 10 + 2 * 8 + 1 + 5);
        // A beat in an iteration is a row in two: 16 iterations go on with one after the last row.
        assert_eq!(end(&[64], &[(0, 8)], &[pop(0, 512)], 16).unwrap(), 10 + 2 * 8 + 1 + 1 + 5);
        // Halves of a beat: four iterations from each row, which take longer than the memory; only the first waits.
        assert_eq!(end(&[64], &[(0, 8)], &[pop(0, 256)], 32).unwrap(), 10 + 2 + 1 + 31 + 5);
    }

    #[test]
    fn what_never_comes_is_an_error() {
        let pops = [pop(0, 1024), pop(1, 1024)];
        // Four rows of the first fill their FIFO before the second gets any.
        assert!(end(&[4, 4], &[(0, 4), (1, 4), (0, 4), (1, 4)], &pops, 8).is_ok());
        assert!(end(&[4, 4], &[(0, 8), (1, 8)], &pops, 8).is_err());
    }
}
