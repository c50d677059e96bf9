//! What the loader brings: constants beside the part that calls read once, in order; through which FIFOs, and where they lie.
//!
//! They lie in the order in which they are used, so that each channel is read from one end to the other. Where a call reads several
//! side by side, parts of them take turns, short enough for the FIFOs.

use std::collections::BTreeMap;

use crate::fpga::design::{BEAT_BYTES, Fifo, Loader, Storage};
use crate::fpga::machine::FpgaMachine;
use crate::fpga::memories::{bank, storage};
use crate::fpga::program::{Call, Load};
use crate::fpga::resources::Resources;

/// Bits of a beat.
const BEAT: u64 = BEAT_BYTES * 8;

/// Beats that the FIFO with most traffic holds, where there is UltraRAM, or block RAM, or neither to spare: as many as one or two blocks of
/// each have words. What comes while functions do something else than multiply should find room.
const DEPTHS: [(u64, Storage); 4] =
    [(8_192, Storage::Uram), (4_096, Storage::Uram), (512, Storage::Bram), (64, Storage::Lutram)];

/// The least that a FIFO holds, and the most that another than the deepest does: as many as two blocks of RAM have words.
const OTHERS: [u64; 2] = [32, 1_024];

/// The share of the part's UltraRAM and of its block RAM that the deepest FIFOs may take.
const SHARES: [f64; 2] = [0.75, 0.5];

/// How things are loaded.
#[derive(Clone, Debug)]
pub(super) struct Loads {
    pub loader: Loader,
    /// The FIFO that each thing comes through.
    pub streams: Vec<Option<u32>>,
}

/// What is known of a thing that is read in order.
#[derive(Clone, Copy, Debug)]
pub(super) struct InOrder {
    /// Bits that an iteration reads.
    pub bits: u64,
}

impl Loads {
    /// The loader for what calls read in order: of each call the things that it reads so; nothing if there is none.
    pub fn new(things: &[Option<InOrder>], calls: &[Vec<usize>], facts: &FpgaMachine, clock_hz: u64) -> Option<Loads> {
        let memory = &facts.memory;
        let of_cycle = memory.bytes_per_second * memory.efficiency * 8.0 / clock_hz as f64;
        let bits = |thing: usize| things[thing].map_or(0, |own| own.bits);
        let most = calls.iter().map(|own| own.iter().map(|&thing| bits(thing)).sum::<u64>()).max()?;
        let needed = (most as f64 / of_cycle.min(BEAT as f64)).ceil() as u64;
        let channels = needed.next_power_of_two().min(1 << memory.channels.ilog2());
        let fits = |bits: u64| {
            let beats = bits / BEAT;
            bits > 0
                && if beats == 0 {
                    BEAT.is_multiple_of(bits)
                } else {
                    bits.is_multiple_of(BEAT) && (beats.is_multiple_of(channels) || channels.is_multiple_of(beats))
                }
        };
        let mut streams: Vec<Option<u32>> = vec![None; things.len()];
        let mut traffic: Vec<u64> = Vec::new();
        for own in calls {
            let own = own.iter().copied().filter(|&thing| fits(bits(thing)));
            for (number, thing) in own.enumerate() {
                let stream = *streams[thing].get_or_insert(number as u32) as usize;
                if traffic.len() <= stream {
                    traffic.resize(stream + 1, 0);
                }
                traffic[stream] = traffic[stream].max(bits(thing));
            }
        }
        let busiest = traffic.iter().copied().max().filter(|&bits| bits > 0)?;
        let budget = facts.budget();
        let there = |&(depth, kind): &(u64, Storage)| {
            let Resources { bram18s, urams, .. } = bank(depth, BEAT, kind, false) * channels;
            urams as f64 <= budget.urams as f64 * SHARES[0] && bram18s as f64 <= budget.bram18s as f64 * SHARES[1]
        };
        let (deepest, kind) = DEPTHS.into_iter().find(there).unwrap_or(DEPTHS[DEPTHS.len() - 1]);
        let fifo = |&bits: &u64| {
            if bits == busiest {
                return Fifo { depth: deepest, storage: kind };
            }
            let depth = (deepest * bits).div_ceil(busiest).next_power_of_two().clamp(OTHERS[0], OTHERS[1]);
            Fifo { depth, storage: storage(depth, BEAT, facts, false) }
        };
        let loader = Loader { channels: channels as u32, streams: traffic.iter().map(fifo).collect() };
        Some(Loads { loader, streams })
    }

    /// Builds FIFOs from UltraRAM that were to be of block RAM, as far as memories leave some of so much.
    pub fn use_uram(&mut self, mut taken: u64, budget: u64) {
        taken += self.resources().urams;
        for fifo in self.loader.streams.iter_mut().filter(|fifo| fifo.storage == Storage::Bram) {
            let needed = bank(fifo.depth, BEAT, Storage::Uram, false).urams * u64::from(self.loader.channels);
            if taken + needed <= budget {
                fifo.storage = Storage::Uram;
                taken += needed;
            }
        }
    }

    /// Blocks of memory that FIFOs take.
    pub fn resources(&self) -> Resources {
        let fifos = self.loader.streams.iter().map(|fifo| bank(fifo.depth, BEAT, fifo.storage, false));
        fifos.sum::<Resources>() * u64::from(self.loader.channels)
    }
}

/// What is loaded, in order, from a row on that nothing else lies behind; and the row behind all. `beats` are those of a buffer.
pub(super) fn loads(
    loader: &Loader,
    calls: &[Call],
    stream_of: impl Fn(u32) -> Option<u32>,
    beats: impl Fn(u32) -> u64,
    first: u64,
) -> (Vec<Load>, u64) {
    let (mut all, mut end) = (Vec::new(), first);
    let mut placed: BTreeMap<u32, Vec<Load>> = BTreeMap::new();
    for call in calls {
        let own: Vec<u32> = call.buffers.iter().copied().filter(|&buffer| stream_of(buffer).is_some()).collect();
        let rows = |buffer: u32| beats(buffer).div_ceil(u64::from(loader.channels)).max(1);
        let most = |buffer: u32| {
            let fifo = stream_of(buffer).and_then(|stream| loader.streams.get(stream as usize));
            fifo.map_or(1, |fifo| (fifo.depth / 2).max(1))
        };
        let rounds = own.iter().map(|&buffer| match placed.get(&buffer) {
            Some(known) => known.len() as u64,
            None => rows(buffer).div_ceil(most(buffer)),
        });
        let rounds = rounds.max().unwrap_or(0);
        let mut new: BTreeMap<u32, Vec<Load>> = BTreeMap::new();
        for round in 0..rounds {
            for &buffer in &own {
                // What lies somewhere already is read there again.
                if let Some(known) = placed.get(&buffer) {
                    all.extend(known.get(round as usize));
                    continue;
                }
                let at = |round: u64| (u128::from(rows(buffer)) * u128::from(round) / u128::from(rounds)) as u64;
                let (first, behind) = (at(round), at(round + 1));
                if behind > first {
                    let load = Load { buffer, first, rows: behind - first, at: end };
                    all.push(load);
                    new.entry(buffer).or_default().push(load);
                    end += behind - first;
                }
            }
        }
        placed.extend(new);
    }
    (all, end)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;
    use crate::fpga::design::FunctionId;
    use crate::machine::Machine;

    fn call(buffers: &[u32]) -> Call {
        Call { function: FunctionId(0), buffers: buffers.to_vec(), grid: [1; 3], group: 0 }
    }

    #[test]
    fn channels_give_what_an_iteration_takes() {
        let machine = Machine::parse("u280", Machine::built_in_text("u280").unwrap()).unwrap();
        let facts = machine.fpga.clone().unwrap();
        let loads = |bits: &[u64]| {
            let things: Vec<Option<InOrder>> = bits.iter().map(|&bits| Some(InOrder { bits })).collect();
            Loads::new(&things, &[(0..bits.len()).collect()], &facts, machine.clock_hz)
        };
        // A channel gives 44 bytes in a cycle: 2,304 need 53 of them, of which there are 32.
        let wide = loads(&[16_384, 2_048]).unwrap();
        assert_eq!((wide.loader.channels, wide.streams.as_slice()), (32, &[Some(0), Some(1)][..]));
        assert_eq!(wide.loader.streams.iter().map(|fifo| fifo.depth).collect::<Vec<_>>(), [8192, 1024]);
        // 68 bytes need 2. What is no even part of a beat is not loaded, and does not take a FIFO from what is.
        let narrow = loads(&[512, 32]).unwrap();
        assert_eq!((narrow.loader.channels, narrow.streams.as_slice()), (2, &[Some(0), Some(1)][..]));
        assert_eq!(loads(&[384, 512]).unwrap().streams, [None, Some(0)]);
        assert!(loads(&[384]).is_none());
    }

    #[test]
    fn parts_take_turns_and_lie_in_order() {
        let fifo = |depth| Fifo { depth, storage: Storage::Bram };
        let loader = Loader { channels: 4, streams: vec![fifo(16), fifo(4)] };
        // Buffers of 64 and 8 beats are 16 and 2 rows: two rounds, such that each part fills half of its FIFO at most.
        let beats = |buffer: u32| if buffer == 0 { 64 } else { 8 };
        let calls = [call(&[0, 1, 2]), call(&[0, 1])];
        let (all, end) = loads(&loader, &calls, |buffer| (buffer < 2).then_some(buffer), beats, 100);
        let first = [
            Load { buffer: 0, first: 0, rows: 8, at: 100 },
            Load { buffer: 1, first: 0, rows: 1, at: 108 },
            Load { buffer: 0, first: 8, rows: 8, at: 109 },
            Load { buffer: 1, first: 1, rows: 1, at: 117 },
        ];
        // What is wanted twice is read twice where it lies.
        assert_eq!(all, [first, first].concat());
        assert_eq!(end, 118);
    }
}
