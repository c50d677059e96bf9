//! How long launches take, one after another.
//!
//! A launch begins with empty caches, but for what the launch before it has written or asked for on its behalf and what then is
//! still in the common cache. Launches of one kernel that find the same there take as long, wherever their buffers lie.

use std::collections::HashMap;

use rayon::prelude::*;

use super::{Launch, Parts};
use crate::simt::SimtMachine;
use crate::simt::kernel::{Kernel, Stmt};
use crate::simt::simulator::buffer_bytes;
use crate::simt::timing::{KernelTime, Warm, time};

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
        let mut known: HashMap<(u32, Vec<Warm>), usize> = HashMap::new();
        let mut situations: Vec<(u32, Vec<Warm>)> = Vec::new();
        let mut of_kernel = vec![None; parts.kernels.len()];
        let mut before: Option<&Launch> = None;
        let mut of_launch = Vec::with_capacity(parts.launches.len());
        for launch in &parts.launches {
            let situation = (launch.kernel, before.map_or(Vec::new(), |before| warm(parts, facts, before, launch)));
            let number = *known.entry(situation).or_insert_with_key(|situation| {
                situations.push(situation.clone());
                situations.len() - 1
            });
            of_kernel[launch.kernel as usize].get_or_insert(number);
            of_launch.push(number);
            before = Some(launch);
        }
        let of = |(kernel, warm): &(u32, Vec<Warm>)| time(&parts.kernels[*kernel as usize], facts, clock_hz, warm);
        Times { all: situations.par_iter().map(of).collect(), of_launch, of_kernel }
    }

    /// That of a launch, by its number.
    pub fn of(&self, launch: usize) -> &KernelTime {
        &self.all[self.of_launch[launch]]
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

/// What a launch finds in the common cache of its buffers after another.
fn warm(parts: &Parts, facts: &SimtMachine, before: &Launch, launch: &Launch) -> Vec<Warm> {
    let kernel = &parts.kernels[before.kernel as usize];
    let keeps = keeps_results(facts, kernel);
    let of_buffer = |buffer: &u32| {
        let own = before.buffers.iter().position(|other| other == buffer);
        match own {
            Some(own) if keeps && kernel.buffers[own].is_written => Warm::All,
            Some(own) => prefetched(kernel, own),
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
fn prefetched(kernel: &Kernel, number: usize) -> Warm {
    let own = kernel.body.iter().find_map(|stmt| match *stmt {
        Stmt::Prefetch { buffer, region } if buffer.index() == number => Some(region),
        _ => None,
    });
    own.map_or(Warm::Cold, Warm::Region)
}
