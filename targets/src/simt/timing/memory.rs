//! Memory as one multiprocessor sees it: its cache, its part of the common cache and of the memory, and their queues.
//!
//! Each level is a server: what it hands on takes time by its bandwidth, and comes its latency after it was begun. Of the
//! bandwidth of what all share a multiprocessor has its part, the whole over the number of those that have blocks. Sectors that
//! are on their way are waited for, not fetched again. Stores go through to the common cache and are not waited for, but no
//! more are taken when what is to be moved takes longer than a load from memory does.

use super::cache::Cache;
use super::pattern::{Sectors, within_buffer};
use super::resource::{Counters, Resource, TICKS};
use super::sharing::Sharing;
use super::warm::{Start, Warm};
use crate::simt::SimtMachine;

/// Bandwidths and latencies of a multiprocessor.
#[derive(Clone, Debug)]
pub(super) struct Rates {
    /// Ticks that a sector takes.
    l1: u64,
    l2: u64,
    dram: u64,
    /// Cycles from a load to its result.
    l1_latency: u64,
    l2_latency: u64,
    dram_latency: u64,
    shared_latency: u64,
    /// Bytes of a sector.
    sector: u64,
    /// Sectors of its part of the common cache.
    l2_sectors: u64,
    /// Sectors of all of it.
    all_l2_sectors: u64,
}

impl Rates {
    /// Those of a machine of which so many multiprocessors have blocks.
    pub fn new(machine: &SimtMachine, clock_hz: u64, active: u64) -> Rates {
        let sector = f64::from(machine.sector);
        let ticks = |bytes_per_cycle: f64| ((sector * TICKS as f64 / bytes_per_cycle).round() as u64).max(1);
        let dram = machine.dram.bytes_per_second * machine.dram.efficiency / clock_hz as f64;
        Rates {
            l1: ticks(machine.l1.bytes_per_cycle),
            l2: ticks(machine.l2.bytes_per_cycle / active as f64),
            dram: ticks(dram / active as f64),
            l1_latency: u64::from(machine.l1.latency),
            l2_latency: u64::from(machine.l2.latency),
            dram_latency: u64::from(machine.dram.latency),
            shared_latency: u64::from(machine.shared.latency),
            sector: u64::from(machine.sector),
            l2_sectors: machine.l2.bytes / active / u64::from(machine.sector),
            all_l2_sectors: machine.l2.bytes / u64::from(machine.sector),
        }
    }
}

/// Memory of a multiprocessor.
#[derive(Clone, Debug)]
pub(super) struct Memory<'p> {
    rates: &'p Rates,
    sharing: &'p Sharing,
    start: &'p Start,
    l1: Cache,
    /// Sectors in the common cache because this multiprocessor has read them.
    read: Cache,
    /// Sectors there that it has written.
    written: Cache,
    /// The tick in which each server is free.
    shared_free: u64,
    l1_free: u64,
    l2_free: u64,
    dram_free: u64,
    /// The same of memory, had nothing been asked for on behalf of a later launch.
    own_free: u64,
    /// The tick in which all is moved that this launch itself has asked for.
    moved: u64,
    /// What each access has of a sector that it has to fetch.
    owed: Vec<u64>,
}

impl<'p> Memory<'p> {
    /// An empty one, with so many sectors in the multiprocessor's cache.
    pub fn new(rates: &'p Rates, sharing: &'p Sharing, start: &'p Start, l1_sectors: u64) -> Memory<'p> {
        // What a multiprocessor has read stays in the common cache until all have filled it with what nobody had read.
        let (blocks, distinct) = sharing
            .accesses
            .iter()
            .fold((0, 0), |(blocks, distinct), share| (blocks + share.blocks * 1024 / share.distinct, distinct + 1024));
        let read = (rates.l2_sectors * blocks / distinct.max(1)).clamp(rates.l2_sectors, rates.all_l2_sectors);
        Memory {
            rates,
            sharing,
            start,
            l1: Cache::new(l1_sectors),
            read: Cache::new(read),
            written: Cache::new(rates.l2_sectors),
            shared_free: 0,
            l1_free: 0,
            l2_free: 0,
            dram_free: start.late * TICKS,
            own_free: 0,
            moved: 0,
            owed: sharing.accesses.iter().map(|share| share.blocks - share.distinct).collect(),
        }
    }

    /// Loads sectors, and says when the last is there. What lies at addresses from data is always fetched.
    pub fn load(&mut self, now: u64, access: usize, sectors: &Sectors, is_data: bool, counters: &mut Counters) -> u64 {
        let rates = self.rates;
        let mut ready = now + rates.l1_latency;
        for &sector in sectors {
            let start = self.l1_free.max(now * TICKS);
            self.l1_free = start + rates.l1;
            counters.busy[Resource::L1.index()] += rates.l1;
            let known = if is_data { None } else { self.l1.find(sector) };
            let there = match known {
                Some(there) => there.max(start.div_ceil(TICKS) + rates.l1_latency),
                None => {
                    let there = self.fetch(start, access, sector, is_data, counters);
                    if !is_data {
                        self.l1.insert(sector, there);
                        counters.inserted[0] += 1;
                    }
                    there
                }
            };
            ready = ready.max(there);
        }
        ready
    }

    fn fetch(&mut self, start: u64, access: usize, sector: u64, is_data: bool, counters: &mut Counters) -> u64 {
        let rates = self.rates;
        let start = self.common(start, counters);
        self.moved = self.moved.max(self.l2_free);
        if let Some(there) = self.warm(access, sector, is_data) {
            return (start.div_ceil(TICKS)).max(there) + rates.l2_latency;
        }
        let is_here = !is_data && (self.read.find(sector).is_some() || !self.is_first(access, counters));
        if !is_data && self.read.insert_new(sector) {
            counters.inserted[1] += 1;
        }
        if is_here {
            return start.div_ceil(TICKS) + rates.l2_latency;
        }
        counters.fetched[self.sharing.accesses[access].buffer as usize] += 1;
        let start = self.dram(start, counters);
        self.moved = self.moved.max(self.dram_free);
        start.div_ceil(TICKS) + rates.dram_latency
    }

    /// The cycle in which a sector is in the common cache, if it was asked for or written before the launch.
    fn warm(&self, access: usize, sector: u64, is_data: bool) -> Option<u64> {
        match self.start.warm.get(self.sharing.accesses[access].buffer as usize) {
            None | Some(Warm::Cold) => None,
            Some(Warm::All) => Some(0),
            Some(Warm::Asked(_)) if is_data => None,
            Some(Warm::Asked(asked)) => asked.of(within_buffer(sector, self.rates.sector)),
        }
    }

    /// When what was stored is seen by all, which is taken to be as far as memory is.
    pub fn fence(&self, now: u64) -> u64 {
        now.max(self.l2_free.max(self.own_free).div_ceil(TICKS)) + self.rates.dram_latency
    }

    /// Asks for sectors on behalf of a later launch. Nobody waits for them, and what is there is not fetched again.
    pub fn prefetch(&mut self, now: u64, access: usize, sectors: &Sectors, counters: &mut Counters) {
        for &sector in sectors {
            if self.read.insert_new(sector) {
                counters.inserted[1] += 1;
                counters.fetched[self.sharing.accesses[access].buffer as usize] += 1;
                // Nothing is handed on to the multiprocessor.
                let own = self.own_free;
                self.dram(now * TICKS, counters);
                self.own_free = own;
            }
        }
    }

    /// Whether this multiprocessor is the one that fetches what it has not had yet.
    fn is_first(&mut self, access: usize, counters: &Counters) -> bool {
        let share = &self.sharing.accesses[access];
        if share.limit.is_some_and(|limit| counters.fetched[share.buffer as usize] >= limit) {
            return false;
        }
        self.owed[access] += share.distinct;
        let is_first = self.owed[access] >= share.blocks;
        if is_first {
            self.owed[access] -= share.blocks;
        }
        is_first
    }

    /// How often what was fetched in a time can be fetched again until the common cache has all.
    pub fn room(&self, in_time: &Counters, counters: &Counters) -> u64 {
        let limits = self.sharing.accesses.iter().filter_map(|share| Some((share.buffer as usize, share.limit?)));
        let rooms = limits.map(|(buffer, limit)| {
            match (in_time.fetched[buffer], limit.saturating_sub(counters.fetched[buffer])) {
                (0, _) | (_, 0) => u64::MAX,
                (each, left) => left / each,
            }
        });
        rooms.min().unwrap_or(u64::MAX)
    }

    fn common(&mut self, at: u64, counters: &mut Counters) -> u64 {
        let start = self.l2_free.max(at);
        self.l2_free = start + self.rates.l2;
        counters.busy[Resource::L2.index()] += self.rates.l2;
        counters.l2_sectors += 1;
        start
    }

    fn dram(&mut self, at: u64, counters: &mut Counters) -> u64 {
        let start = self.dram_free.max(at);
        self.dram_free = start + self.rates.dram;
        self.own_free = self.own_free.max(at) + self.rates.dram;
        counters.busy[Resource::Dram.index()] += self.rates.dram;
        counters.dram_sectors += 1;
        start
    }

    /// Stores sectors, and says when they are taken. Those that are still in the common cache go to memory once.
    pub fn store(&mut self, now: u64, sectors: &Sectors, is_data: bool, counters: &mut Counters) -> u64 {
        for &sector in sectors {
            let start = self.l1_free.max(now * TICKS);
            self.l1_free = start + self.rates.l1;
            counters.busy[Resource::L1.index()] += self.rates.l1;
            let start = self.common(start, counters);
            if is_data || self.written.find(sector).is_none() {
                self.dram(start, counters);
                if !is_data {
                    self.written.insert(sector, 0);
                    counters.inserted[2] += 1;
                }
            }
        }
        // What is stored is in the common cache, and need not wait for what was only asked for.
        let stored = self.l2_free.max(self.own_free);
        self.moved = self.moved.max(stored);
        stored.div_ceil(TICKS).saturating_sub(self.rates.dram_latency).max(now)
    }

    /// How far each server is behind, in ticks.
    pub fn backlog(&self, now: u64) -> [u64; 4] {
        let servers = [self.shared_free, self.l1_free, self.l2_free, self.dram_free];
        servers.map(|free| free.saturating_sub(now * TICKS))
    }

    /// Reads or writes shared memory, whose banks are asked so often, and says when that is done.
    pub fn shared(&mut self, now: u64, times: u64, counters: &mut Counters) -> u64 {
        let start = self.shared_free.max(now * TICKS);
        self.shared_free = start + times * TICKS;
        counters.busy[Resource::Shared.index()] += times * TICKS;
        start.div_ceil(TICKS) + times - 1 + self.rates.shared_latency
    }

    /// The cycle in which all is moved that the launch itself has asked for: what was stored is in memory.
    pub fn drained(&self) -> u64 {
        self.moved.div_ceil(TICKS)
    }

    /// The cycle in which all is moved, also what was asked for on behalf of a later launch.
    pub fn all_moved(&self) -> u64 {
        self.l2_free.max(self.dram_free).div_ceil(TICKS)
    }

    /// Forgets what would have made room if what was counted in a time were done so many times.
    pub fn age(&mut self, in_time: &Counters, times: u64) {
        let caches = [&mut self.l1, &mut self.read, &mut self.written];
        for (cache, inserted) in caches.into_iter().zip(in_time.inserted) {
            cache.forget(inserted.saturating_mul(times), inserted);
        }
    }

    /// Moves all that is on its way into the future.
    pub fn delay(&mut self, cycles: u64) {
        let servers = [&mut self.shared_free, &mut self.l1_free, &mut self.l2_free, &mut self.dram_free];
        servers.into_iter().for_each(|free| *free += cycles * TICKS);
        self.own_free += cycles * TICKS;
        self.moved += cycles * TICKS;
    }
}
