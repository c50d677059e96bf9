//! External memory: how many beats loops read and write, and how long that takes.
//!
//! A stream keeps the beats of its present iteration in registers, and asks for a beat when an iteration needs one that is not among
//! them. Streams ask ahead from when their loop begins, so the first beat is there after the memory's latency, and others follow as fast
//! as the memory gives them: its bytes in a second, times its efficiency, over 64 bytes and the clock. What is accessed by an
//! address that only data gives is a beat for each lane, of which so many are on their way as the port allows. Reads and writes of a
//! channel share what it gives. Writes are not waited for until the call ends.

use std::collections::{BTreeMap, BTreeSet};

use crate::fpga::access::Pattern;
use crate::fpga::design::BEAT_BYTES;
use crate::fpga::machine::ExternalMemory;
use crate::fpga::nest::{ArrayId, ArrayPlace, Kind, Loop, LoopId, Nest, OpId};

/// Beats of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beats {
    /// Read.
    pub read: u64,
    /// Written.
    pub written: u64,
}

impl Beats {
    /// All.
    pub fn sum(self) -> u64 {
        self.read + self.written
    }

    /// So many times as many.
    pub fn times(self, times: u64) -> Beats {
        Beats { read: self.read.saturating_mul(times), written: self.written.saturating_mul(times) }
    }

    /// Both together.
    pub fn plus(self, other: Beats) -> Beats {
        Beats { read: self.read + other.read, written: self.written + other.written }
    }
}

/// What external memory gives at a clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Cycles from a request to its first beat.
    pub latency: u32,
    /// Bytes per second of a channel, as they come, and the cycles of a second.
    bytes_per_second: u64,
    clock_hz: u64,
    /// Requests of a port that are on their way.
    outstanding: u64,
}

impl Rate {
    /// Of a memory at a clock.
    pub fn new(memory: &ExternalMemory, clock_hz: u64) -> Rate {
        let latency = (memory.latency_ns * clock_hz as f64 / 1e9).ceil() as u32;
        let bytes_per_second = (memory.bytes_per_second * memory.efficiency) as u64;
        Rate { latency, bytes_per_second, clock_hz, outstanding: u64::from(memory.outstanding) }
    }

    /// Cycles that so many beats of bursts take: at most one comes in a cycle.
    pub fn streamed(self, beats: u64) -> u64 {
        let bytes = u128::from(beats) * u128::from(BEAT_BYTES) * u128::from(self.clock_hz);
        beats.max(bytes.div_ceil(u128::from(self.bytes_per_second.max(1))) as u64)
    }

    /// Parts of a cycle from one beat of a burst to the next, of so many that a cycle has.
    pub fn parts_of_beat(self, parts: u64) -> u64 {
        let bytes = u128::from(BEAT_BYTES) * u128::from(self.clock_hz) * u128::from(parts);
        parts.max(bytes.div_ceil(u128::from(self.bytes_per_second.max(1))) as u64)
    }

    /// Cycles that so many single beats take, each of which is waited for.
    pub fn single(self, beats: u64) -> u64 {
        let waited = (u128::from(beats) * u128::from(self.latency)).div_ceil(u128::from(self.outstanding)) as u64;
        self.streamed(beats).max(waited)
    }
}

/// What a block, or a loop that is one, asks of external memory.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Beats of streams of each channel.
    pub streamed: BTreeMap<u32, Beats>,
    /// Single beats of each channel.
    pub single: BTreeMap<u32, Beats>,
}

impl Asked {
    /// Beats of each channel.
    pub fn all(&self) -> BTreeMap<u32, Beats> {
        let mut all = self.streamed.clone();
        for (&channel, &beats) in &self.single {
            let own = all.entry(channel).or_default();
            *own = own.plus(beats);
        }
        all
    }

    /// Whether something is read by streams.
    pub fn reads_streams(&self) -> bool {
        self.streamed.values().any(|beats| beats.read > 0)
    }

    /// Cycles that the busiest channel takes.
    pub fn cycles(&self, rate: Rate) -> u64 {
        let channels: BTreeSet<u32> = self.streamed.keys().chain(self.single.keys()).copied().collect();
        let of = |beats: &BTreeMap<u32, Beats>, channel: u32| beats.get(&channel).map_or(0, |beats| beats.sum());
        let cycles = |channel| rate.streamed(of(&self.streamed, channel)) + rate.single(of(&self.single, channel));
        channels.into_iter().map(cycles).max().unwrap_or(0)
    }
}

/// The access that an operation makes to external memory.
fn external(nest: &Nest, id: OpId) -> Option<(ArrayId, &Pattern, bool, (u32, u32))> {
    let (array, pattern, writes) = match &nest.ops[id.index()].kind {
        Kind::Load(array, pattern) => (*array, pattern, false),
        Kind::Store(array, pattern) => (*array, pattern, true),
        _ => return None,
    };
    match nest.arrays[array.index()].place {
        ArrayPlace::External { first, ways } => Some((array, pattern, writes, (first, ways))),
        ArrayPlace::OnChip(_) | ArrayPlace::Fifo(_) | ArrayPlace::Local | ArrayPlace::Loaded { .. } => None,
    }
}

/// Whether an access goes to external memory.
pub fn is_external(nest: &Nest, id: OpId) -> bool {
    external(nest, id).is_some()
}

/// What operations of a block ask for, of a pipelined loop if one is given, each time that it is entered.
pub fn asked(nest: &Nest, ops: &[OpId], within: Option<(LoopId, &Loop)>) -> Asked {
    let mut asked = Asked::default();
    let mut groups: BTreeMap<(ArrayId, bool, OpId, Vec<i64>), Vec<&Pattern>> = BTreeMap::new();
    let trips = within.map_or(1, |(_, own)| own.trips());
    let own_streams = nest.streams.iter().filter(|stream| within.is_some_and(|(id, _)| stream.within == id));
    let strides: BTreeMap<OpId, &Vec<i64>> = own_streams.map(|stream| (stream.op, &stream.strides)).collect();
    let mut seen: BTreeSet<(ArrayId, bool, OpId, i64)> = BTreeSet::new();
    for &id in ops {
        let Some((array, pattern, writes, place)) = external(nest, id) else { continue };
        let op = &nest.ops[id.index()];
        match strides.get(&id) {
            Some(&strides) => {
                groups.entry((array, writes, op.operands[0], strides.clone())).or_default().push(pattern);
            }
            None => {
                // What is in a beat that something else in the iteration has too is not asked for again.
                let beats = match pattern {
                    Pattern::Fixed(places) => {
                        let mut is_new = |word: i64| seen.insert((array, writes, op.operands[0], word));
                        places.iter().filter(|place| is_new(place.word)).count() as u64
                    }
                    _ => once(pattern, i64::from(nest.arrays[array.index()].banks), op.copies),
                };
                spread(&mut asked.single, place, writes, beats.saturating_mul(trips));
            }
        }
    }
    for ((array, writes, start, strides), patterns) in groups {
        let (Some((_, own)), ArrayPlace::External { first, ways }) = (within, nest.arrays[array.index()].place) else {
            continue;
        };
        let elements = i64::from(nest.arrays[array.index()].banks);
        let starts_at_0 = matches!(&nest.ops[start.index()].kind, Kind::Constant(values) if values[..] == [0]);
        let counters: Vec<(u64, i64)> =
            own.counters.iter().map(|counter| counter.trips).zip(strides.iter().copied()).collect();
        spread(&mut asked.streamed, (first, ways), writes, beats(&patterns, elements, &counters, starts_at_0));
    }
    asked
}

/// Shares beats out among channels that take turns.
fn spread(to: &mut BTreeMap<u32, Beats>, (first, ways): (u32, u32), writes: bool, beats: u64) {
    for channel in 0..ways.max(1) {
        let own = to.entry(first + channel).or_default();
        let beats = beats.div_ceil(u64::from(ways.max(1)));
        if writes { own.written += beats } else { own.read += beats }
    }
}

/// Beats of an access that stands alone.
fn once(pattern: &Pattern, elements: i64, copies: u32) -> u64 {
    match pattern {
        Pattern::Fixed(places) => places.len() as u64,
        Pattern::Shifted(distances) => {
            let low = distances.iter().min().copied().unwrap_or(0);
            let high = distances.iter().max().copied().unwrap_or(0);
            let all = distances.iter().collect::<BTreeSet<_>>().len() as u64;
            // From wherever in a beat it begins.
            all.min(((high - low + elements - 1) / elements + 1) as u64)
        }
        Pattern::Scattered => u64::from(copies),
    }
}

/// Beats of streams of one array that move alike, over all iterations of a loop: counters with their strides, outermost first.
fn beats(patterns: &[&Pattern], elements: i64, counters: &[(u64, i64)], starts_at_0: bool) -> u64 {
    let mut words = BTreeSet::new();
    let mut distances = BTreeSet::new();
    for pattern in patterns {
        match pattern {
            Pattern::Fixed(places) => words.extend(places.iter().map(|place| place.word)),
            Pattern::Shifted(own) => distances.extend(own.iter().copied()),
            Pattern::Scattered => {}
        }
    }
    // What goes evenly on from one counter to the next is one counter.
    let mut rows: Vec<(u64, i64)> = Vec::new();
    for &(trips, stride) in counters {
        match rows.last_mut() {
            Some((more, outer)) if *outer == stride.saturating_mul(trips as i64) => {
                (*more, *outer) = (more.saturating_mul(trips), stride);
            }
            _ => rows.push((trips, stride)),
        }
    }
    let mut total = 0u64;
    if !words.is_empty() {
        total += over(&rows, words_of(&words));
    }
    if !distances.is_empty() {
        let (low, high) = (distances.first().copied().unwrap_or(0), distances.last().copied().unwrap_or(0));
        let span = high - low + 1;
        // Rows of elements that touch each other are beats from the first to the last.
        let (mut length, mut times) = (span, 1u64);
        for &(trips, stride) in rows.iter().rev() {
            let touches = times == 1 && stride.abs() <= length + elements;
            if touches {
                length += stride.abs().saturating_mul(trips as i64 - 1);
            } else {
                times = times.saturating_mul(trips);
            }
        }
        let beats = if times == 1 && starts_at_0 && low >= 0 && rows.iter().all(|&(_, stride)| stride >= 0) {
            (low + length - 1) / elements - low / elements + 1
        } else {
            (length - 1 + elements - 1) / elements + 1
        };
        total += (beats as u64).saturating_mul(times);
    }
    total
}

/// The number of words, and those from the first to the last.
fn words_of(words: &BTreeSet<i64>) -> (u64, i64) {
    let (low, high) = (words.first().copied().unwrap_or(0), words.last().copied().unwrap_or(0));
    (words.len() as u64, high - low + 1)
}

/// Words that are new, over all iterations: the innermost counters first.
fn over(rows: &[(u64, i64)], (count, span): (u64, i64)) -> u64 {
    let (mut total, mut span, mut is_dense) = (count, span, count as i64 == span);
    let mut moved = false;
    for &(trips, stride) in rows.iter().rev() {
        if stride == 0 && !moved {
            // The same words, which are held.
            continue;
        }
        if !moved && is_dense && stride.abs() < span {
            total += stride.unsigned_abs() * (trips - 1);
            span += stride.abs() * (trips as i64 - 1);
        } else {
            total = total.saturating_mul(trips);
        }
        is_dense = is_dense && stride.abs() <= span;
        moved = true;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fpga::access::Place;

    #[test]
    fn beats_are_those_that_are_new() {
        let word = |word| Pattern::Fixed(vec![Place { word, bank: 0 }]);
        let one = word(0);
        // A beat in each of 100 iterations; the same in all; 10 rows of 100.
        assert_eq!(beats(&[&one], 16, &[(100, 1)], true), 100);
        assert_eq!(beats(&[&one], 16, &[(100, 0)], true), 1);
        assert_eq!(beats(&[&one], 16, &[(10, 200), (100, 1)], true), 1000);
        // The row again for each of 10: what is no longer held is asked for again.
        assert_eq!(beats(&[&one], 16, &[(10, 0), (100, 1)], true), 1000);
        // Two neighbours, moving by one: 101 in all.
        let next = word(1);
        assert_eq!(beats(&[&one, &next], 16, &[(100, 1)], true), 101);
        // 4 elements in each of 100 iterations are 400 elements, 25 beats of 16; from anywhere, one more.
        let four = Pattern::Shifted(vec![0, 1, 2, 3]);
        assert_eq!(beats(&[&four], 16, &[(100, 4)], true), 25);
        assert_eq!(beats(&[&four], 16, &[(100, 4)], false), 26);
        assert_eq!(beats(&[&four], 16, &[(10, 40), (10, 4)], true), 25);
    }

    #[test]
    fn beats_come_at_the_rate_of_the_memory() {
        let memory = ExternalMemory {
            name: "HBM".to_owned(),
            bytes: 1 << 33,
            channels: 32,
            bytes_per_second: 14.375e9,
            efficiency: 0.92,
            latency_ns: 400.0,
            burst_bytes: 4096,
            outstanding: 16,
        };
        let rate = Rate::new(&memory, 300_000_000);
        // 13.225 GB/s are 44.083 bytes in a cycle, so that 1,000 beats of 64 bytes take 64,000 / 44.083 cycles.
        assert_eq!(rate.streamed(1000), 1452);
        assert_eq!(rate.latency, 120);
        // 16 requests on their way, each for 120 cycles.
        assert_eq!(rate.single(1000), 7500);
        // Slower than a beat in a cycle, one comes in a cycle.
        assert_eq!(Rate::new(&memory, 100_000_000).streamed(1000), 1000);
    }
}
