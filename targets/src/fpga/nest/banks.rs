//! How many banks local memories need, so that what is accessed in one iteration can be accessed in one cycle.

use std::collections::{BTreeMap, BTreeSet};

use super::walk::Reach;
use super::{LoopId, OpId};
use crate::fpga::access::Linear;

/// Accesses that a bank takes in a cycle: it has two ports.
const PORTS: u64 = 2;

/// Most banks of a local memory.
const MOST: u32 = 1024;

/// What a number of banks costs: first cycles for which one iteration of an innermost loop keeps a bank busy, then accesses there that
/// need a switch between lanes and banks, then cycles of what is done outside of innermost loops.
type Cost = (u64, u64, u64);

/// The least power of two at which nothing gets better with more, of an array of so many elements. Innermost loops are those that are
/// marked.
pub(super) fn banks(elements: u64, reaches: &[&Reach], innermost: &[bool]) -> u32 {
    let mut best = ((u64::MAX, 0, 0), 1);
    let mut banks = 1u32;
    while banks <= MOST && u64::from(banks) < elements.next_power_of_two().max(2) {
        let cost = cost(i64::from(banks), reaches, innermost);
        if cost < best.0 {
            best = (cost, banks);
        }
        if cost <= (1, 0, 1) {
            break;
        }
        banks *= 2;
    }
    best.1
}

/// Values, each times a number.
type Terms<'r> = &'r [(OpId, i64)];

/// What goes to banks in one iteration of a loop, or in what is straight there.
#[derive(Default)]
struct Busy<'r> {
    /// Words of banks that are known now, by what is known later.
    fixed: BTreeMap<(Terms<'r>, bool), BTreeSet<(i64, i64)>>,
    /// Reads and writes of all banks.
    others: [u64; 2],
    switched: u64,
}

impl Busy<'_> {
    fn cycles(&self) -> u64 {
        let mut counts: BTreeMap<i64, [u64; 2]> = BTreeMap::new();
        for ((_, writes), places) in &self.fixed {
            for (bank, _) in places {
                counts.entry(*bank).or_default()[usize::from(*writes)] += 1;
            }
        }
        let cycles = |[reads, writes]: [u64; 2]| {
            let (reads, writes) = (reads + self.others[0], writes + self.others[1]);
            writes.max((reads + writes).div_ceil(PORTS))
        };
        counts.into_values().map(cycles).max().unwrap_or(0).max(cycles([0, 0]))
    }
}

fn cost(banks: i64, reaches: &[&Reach], innermost: &[bool]) -> Cost {
    let mut loops: BTreeMap<Option<LoopId>, Busy<'_>> = BTreeMap::new();
    for reach in reaches {
        let busy = loops.entry(reach.within).or_default();
        match &reach.linear {
            Ok(linear) if linear.common_factor() % banks == 0 => {
                let places = busy.fixed.entry((&linear.terms, reach.writes)).or_default();
                let place = |offset: i64| (offset.rem_euclid(banks), offset.div_euclid(banks));
                places.extend(linear.offsets().into_iter().map(place));
            }
            Ok(linear) => {
                busy.others[usize::from(reach.writes)] += most_shared(linear, banks);
                busy.switched += 1;
            }
            Err(copies) => {
                busy.others[usize::from(reach.writes)] += u64::from(*copies);
                busy.switched += u64::from(banks > 1);
            }
        }
    }
    let mut cost = (0, 0, 0);
    for (within, busy) in loops {
        let cycles = busy.cycles();
        if within.is_some_and(|id| innermost[id.index()]) {
            cost = (cycles.max(cost.0), cost.1 + busy.switched, cost.2);
        } else {
            cost.2 = cycles.max(cost.2);
        }
    }
    cost
}

/// The most different elements that lanes, which begin at some element, want of one bank.
fn most_shared(linear: &Linear, banks: i64) -> u64 {
    let elements: BTreeSet<i64> = linear.offsets().into_iter().collect();
    let mut counts: BTreeMap<i64, u64> = BTreeMap::new();
    for element in elements {
        *counts.entry(element.rem_euclid(banks)).or_default() += 1;
    }
    counts.values().copied().max().unwrap_or(0)
}
