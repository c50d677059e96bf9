//! How many banks local memories need, so that what is accessed in one iteration can be accessed in one cycle.

use std::collections::{BTreeMap, BTreeSet};

use super::walk::Reach;
use super::{LoopId, OpId};
use crate::fpga::access::Linear;

/// Accesses that a bank takes in a cycle: it has two ports.
const PORTS: u64 = 2;

/// Most banks of a local memory.
const MOST: u32 = 1024;

/// The least power of two that leaves no more accesses of an iteration to a bank than any other would, of an array of so many
/// elements.
pub(super) fn banks(elements: u64, reaches: &[&Reach]) -> u32 {
    let mut best = (u64::MAX, 1);
    let mut banks = 1u32;
    while banks <= MOST && u64::from(banks) < elements.next_power_of_two().max(2) {
        let demand = demand(i64::from(banks), reaches);
        if demand < best.0 {
            best = (demand, banks);
        }
        if demand <= 1 {
            break;
        }
        banks *= 2;
    }
    best.1
}

/// Cycles for which the accesses of an iteration keep a bank busy.
fn demand(banks: i64, reaches: &[&Reach]) -> u64 {
    // What goes to banks that are known now, by what is known later; all that is the same word is one access.
    type Terms<'r> = &'r [(OpId, i64)];
    let mut fixed: BTreeMap<Option<LoopId>, BTreeMap<(Terms, bool), BTreeSet<(i64, i64)>>> = BTreeMap::new();
    let mut others: BTreeMap<Option<LoopId>, [u64; 2]> = BTreeMap::new();
    for reach in reaches {
        match &reach.linear {
            Ok(linear) if linear.common_factor() % banks == 0 => {
                let places = fixed.entry(reach.within).or_default().entry((&linear.terms, reach.writes)).or_default();
                let place = |offset: i64| (offset.rem_euclid(banks), offset.div_euclid(banks));
                places.extend(linear.offsets().into_iter().map(place));
            }
            Ok(linear) => {
                others.entry(reach.within).or_default()[usize::from(reach.writes)] += most_shared(linear, banks)
            }
            Err(copies) => others.entry(reach.within).or_default()[usize::from(reach.writes)] += u64::from(*copies),
        }
    }
    let loops: BTreeSet<Option<LoopId>> = fixed.keys().chain(others.keys()).copied().collect();
    let of_loop = |within: &Option<LoopId>| {
        let mut counts: BTreeMap<i64, [u64; 2]> = BTreeMap::new();
        for ((_, writes), places) in fixed.get(within).into_iter().flatten() {
            for (bank, _) in places {
                counts.entry(*bank).or_default()[usize::from(*writes)] += 1;
            }
        }
        let all = others.get(within).copied().unwrap_or_default();
        let cycles = |[reads, writes]: [u64; 2]| {
            let (reads, writes) = (reads + all[0], writes + all[1]);
            writes.max((reads + writes).div_ceil(PORTS))
        };
        counts.values().copied().map(cycles).max().unwrap_or(0).max(cycles([0, 0]))
    };
    loops.iter().map(of_loop).max().unwrap_or(0)
}

/// The most different elements that lanes, which begin at some element, want of one bank.
pub(crate) fn most_shared(linear: &Linear, banks: i64) -> u64 {
    let elements: BTreeSet<i64> = linear.offsets().into_iter().collect();
    let mut counts: BTreeMap<i64, u64> = BTreeMap::new();
    for element in elements {
        *counts.entry(element.rem_euclid(banks)).or_default() += 1;
    }
    counts.values().copied().max().unwrap_or(0)
}
