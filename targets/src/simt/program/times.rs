//! How long launches take, one after another.
//!
//! A launch begins with empty caches, but for what the launch before it has written or asked for on its behalf and what then is
//! still in the common cache. What was asked for and comes later than the launch is waited for. Launches of one kernel that find
//! the same there take as long, wherever their buffers lie.

use std::collections::HashMap;

use rayon::prelude::*;

use super::{Launch, Parts};
use crate::kernel::simulator::buffer_bytes;
use crate::kernel::{Kernel, Region, Stmt};
use crate::simt::SimtMachine;
use crate::simt::timing::{Asked, KernelTime, Start, Warm, time};

/// A kernel by its number, and how it begins.
type Situation = (u32, Start);

/// The times of all launches.
#[derive(Debug)]
pub(super) struct Times {
    /// Those that differ.
    all: Vec<KernelTime>,
    /// The number of that of each launch.
    of_launch: Vec<usize>,
    /// The number of the first of each kernel, if it is launched.
    of_kernel: Vec<Option<usize>>,
}

impl Times {
    /// On a machine with so many cycles a second.
    pub fn new(parts: &Parts, facts: &SimtMachine, clock_hz: u64) -> Times {
        let gap = facts.launch_cycles(clock_hz);
        let of = |(kernel, start): &Situation| time(&parts.kernels[*kernel as usize], facts, clock_hz, start);
        let before = std::iter::once(None).chain(parts.launches.iter().map(Some));
        let situations: Vec<(Situation, bool)> =
            parts.launches.iter().zip(before).map(|pair| situation(parts, (facts, clock_hz), pair)).collect();
        // What waits for nothing of the launch before is timed side by side.
        let mut known: HashMap<Situation, usize> = HashMap::new();
        let mut first: Vec<&Situation> = Vec::new();
        for (situation, waits) in &situations {
            if !waits && !known.contains_key(situation) {
                known.insert(situation.clone(), first.len());
                first.push(situation);
            }
        }
        let mut times = Times {
            all: first.into_par_iter().map(of).collect(),
            of_launch: Vec::with_capacity(situations.len()),
            of_kernel: vec![None; parts.kernels.len()],
        };
        for ((kernel, start), waits) in situations {
            let before = times.of_launch.last().filter(|_| waits).map_or(0, |&before: &usize| times.all[before].behind);
            let situation = (kernel, start.late_by(before.saturating_sub(gap)));
            let number = *known.entry(situation).or_insert_with_key(|situation| {
                times.all.push(of(situation));
                times.all.len() - 1
            });
            times.of_kernel[kernel as usize].get_or_insert(number);
            times.of_launch.push(number);
        }
        times
    }

    /// Those of all launches in order.
    pub fn launched(&self) -> impl Iterator<Item = &KernelTime> {
        self.of_launch.iter().map(|&number| &self.all[number])
    }

    /// That of the first launch of a kernel, by its number.
    pub fn of_kernel(&self, kernel: usize) -> Option<&KernelTime> {
        self.of_kernel[kernel].map(|number| &self.all[number])
    }
}

/// How a launch begins after another, if there is one, and whether it waits for what that has asked for.
fn situation(
    parts: &Parts,
    (facts, clock_hz): (&SimtMachine, u64),
    (launch, before): (&Launch, Option<&Launch>),
) -> (Situation, bool) {
    let warm = before.map_or(Vec::new(), |before| warm(parts, (facts, clock_hz), before, launch));
    let waits = warm.iter().any(|warm| matches!(warm, Warm::Asked(_)));
    ((launch.kernel, Start { warm, late: 0 }), waits)
}

/// What a launch finds in the common cache of its buffers after another.
fn warm(parts: &Parts, (facts, clock_hz): (&SimtMachine, u64), before: &Launch, launch: &Launch) -> Vec<Warm> {
    let kernel = &parts.kernels[before.kernel as usize];
    let keeps = keeps_results(facts, kernel);
    let of_buffer = |buffer: &u32| {
        let own = before.buffers.iter().position(|other| other == buffer);
        match own {
            Some(own) if keeps && kernel.buffers[own].is_written => Warm::All,
            Some(own) => {
                asked(kernel, own).map_or(Warm::Cold, |region| Warm::Asked(Asked::new(region, facts, clock_hz)))
            }
            None => Warm::Cold,
        }
    };
    launch.buffers.iter().map(of_buffer).collect()
}

/// Whether what a kernel has written is in the common cache when it is over: all that it touches fits, or all of its blocks run at
/// once and write when they have read.
fn keeps_results(facts: &SimtMachine, kernel: &Kernel) -> bool {
    let bytes = |written: bool| {
        let own = kernel.buffers.iter().filter(|buffer| buffer.is_written || !written);
        own.map(|buffer| buffer_bytes(buffer.dtype, buffer.elements)).fold(0, u64::saturating_add)
    };
    let has_one_wave = kernel.blocks() <= u64::from(facts.multiprocessors);
    bytes(false) <= facts.l2.bytes || has_one_wave && bytes(true) <= facts.l2.bytes / 2
}

/// What a kernel asks for of one of its buffers on behalf of the next.
fn asked(kernel: &Kernel, number: usize) -> Option<Region> {
    kernel.body.iter().find_map(|stmt| match *stmt {
        Stmt::Prefetch { buffer, region, .. } if buffer.index() == number => Some(region),
        _ => None,
    })
}
