//! What accesses to one array have to wait for each other: in an iteration, and from one iteration to a later one.
//!
//! An access goes to elements `c i + v + o`, with `i` the counters of the loop, `v` what stays the same in it and `o` known. Where
//! two accesses have the same `c` and `v`, what they share is found exactly: the least number of iterations after which one reaches
//! an element of the other. Otherwise it is assumed that each iteration may touch what the one before it has. Parameters are taken to be
//! apart from each other, even where they lie in the same memory.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::fpga::access::Pattern;
use crate::fpga::nest::{ArrayId, ArrayPlace, Kind, Loop, Nest, OpId};

/// Iterations that are looked ahead: those behind begin when all that was begun before has ended, in any pipeline that is built.
const AHEAD: u64 = 256;

/// Most elements that are compared one by one, over all of the array's accesses in a block.
const MOST_ELEMENTS: usize = 1 << 16;

/// An access that has to wait for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dependence {
    /// What has to come first.
    pub before: OpId,
    /// What waits for it.
    pub after: OpId,
    /// How many iterations later that is.
    pub distance: u32,
    /// Cycles from the start of one to the start of the other, at least.
    pub cycles: u32,
}

/// What an index is multiplied by per counter, and its other terms.
type Shape = (Vec<i64>, Vec<(OpId, i64)>);

/// An access, in elements.
struct Access {
    op: OpId,
    writes: bool,
    /// What it is multiplied by per counter, and other terms; `None` if these change from one iteration to the next, or are not known.
    shape: Option<Shape>,
    /// Terms of an iteration, if they are known.
    terms: Option<Vec<(OpId, i64)>>,
    offsets: Vec<i64>,
    /// Cycles from the start until what it writes can be read.
    settles: u32,
}

/// What accesses of a block have to wait for, in the block and, if it is that of a loop, in later iterations.
pub fn dependences(nest: &Nest, ops: &[OpId], within: Option<&Loop>, settles: impl Fn(OpId) -> u32) -> Vec<Dependence> {
    let mut arrays: BTreeMap<ArrayId, Vec<Access>> = BTreeMap::new();
    let inside: HashSet<OpId> = ops.iter().copied().collect();
    for &id in ops {
        let (Kind::Load(array, pattern) | Kind::Store(array, pattern)) = &nest.ops[id.index()].kind else { continue };
        let access = access(nest, id, *array, pattern, within, &inside, settles(id));
        arrays.entry(*array).or_default().push(access);
    }
    let mut found = Vec::new();
    for (array, accesses) in &arrays {
        if matches!(nest.arrays[array.index()].place, ArrayPlace::Fifo(_)) {
            in_order(nest, accesses, within, &mut found);
        }
    }
    arrays.retain(|array, _| !matches!(nest.arrays[array.index()].place, ArrayPlace::Fifo(_)));
    for accesses in arrays.values().filter(|accesses| accesses.iter().any(|access| access.writes)) {
        pairs(accesses, within, &mut found);
    }
    // Of several that differ by the distance alone the nearest holds all.
    found.sort_unstable();
    found.dedup_by_key(|dependence| (dependence.before, dependence.after, dependence.distance > 0));
    found
}

/// Has accesses to a FIFO come one after the other, each for as many cycles as it takes words, and those of the next iteration after all
/// of this.
fn in_order(nest: &Nest, accesses: &[Access], within: Option<&Loop>, found: &mut Vec<Dependence>) {
    for pair in accesses.windows(2) {
        let (before, after) = (pair[0].op, pair[1].op);
        found.push(Dependence { before, after, distance: 0, cycles: words(nest, before) });
    }
    if let (Some(_), [first, .., last]) = (within, accesses) {
        found.push(Dependence { before: last.op, after: first.op, distance: 1, cycles: words(nest, last.op) });
    }
}

/// Words that an access to a FIFO takes.
fn words(nest: &Nest, id: OpId) -> u32 {
    let op = &nest.ops[id.index()];
    match &op.kind {
        Kind::Load(_, Pattern::Fixed(places)) | Kind::Store(_, Pattern::Fixed(places)) => {
            places.iter().map(|place| place.word).collect::<HashSet<_>>().len() as u32
        }
        _ => op.copies,
    }
}

fn access(
    nest: &Nest,
    id: OpId,
    array: ArrayId,
    pattern: &Pattern,
    within: Option<&Loop>,
    inside: &HashSet<OpId>,
    settles: u32,
) -> Access {
    let op = &nest.ops[id.index()];
    let writes = matches!(op.kind, Kind::Store(..));
    let banks = i64::from(nest.arrays[array.index()].banks.max(1));
    let (scale, mut offsets) = match pattern {
        Pattern::Fixed(places) => {
            (banks, places.iter().map(|place| place.word * banks + i64::from(place.bank)).collect())
        }
        Pattern::Shifted(distances) => (1, distances.clone()),
        Pattern::Scattered => (1, Vec::new()),
    };
    offsets.sort_unstable();
    offsets.dedup();
    let known = nest.reached.get(&id).filter(|_| *pattern != Pattern::Scattered);
    let terms: Option<Vec<(OpId, i64)>> = known.map(|terms| terms.iter().map(|&(id, by)| (id, by * scale)).collect());
    let shape = terms.as_ref().and_then(|terms| {
        let counters = within.map(|own| own.counters.as_slice()).unwrap_or_default();
        let factor = |op: OpId| terms.iter().find(|(term, _)| *term == op).map_or(0, |&(_, by)| by);
        let factors = counters.iter().map(|counter| factor(counter.op)).collect();
        let is_counter = |term: OpId| counters.iter().any(|counter| counter.op == term);
        let rest: Vec<_> = terms.iter().copied().filter(|&(term, _)| !is_counter(term)).collect();
        let is_carried = |term: OpId| within.is_some_and(|own| own.carried.iter().any(|carried| carried.op == term));
        let varies = rest.iter().any(|&(term, _)| inside.contains(&term) || is_carried(term));
        (!varies).then_some((factors, rest))
    });
    Access { op: id, writes, shape, terms, offsets, settles }
}

/// Cycles that one access waits for another; `None` if both read.
fn cycles(before: &Access, after: &Access) -> Option<u32> {
    match (before.writes, after.writes) {
        (true, false) => Some(before.settles),
        // Neither is a word read and written in one cycle.
        (false, true) | (true, true) => Some(1),
        (false, false) => None,
    }
}

fn pairs(accesses: &[Access], within: Option<&Loop>, found: &mut Vec<Dependence>) {
    let mut groups: BTreeMap<&Shape, Vec<usize>> = BTreeMap::new();
    let mut unknown = Vec::new();
    for (place, access) in accesses.iter().enumerate() {
        match &access.shape {
            Some(shape) => groups.entry(shape).or_default().push(place),
            None => unknown.push(place),
        }
    }
    let is_exact =
        |own: &[usize]| own.iter().map(|&place| accesses[place].offsets.len()).sum::<usize>() <= MOST_ELEMENTS;
    for ((factors, _), own) in groups.iter().filter(|(_, own)| is_exact(own.as_slice())) {
        exact(accesses, own, (factors, within), found);
    }
    // Between groups, and with what is not known, anything may be.
    let mut all: Vec<(usize, &[usize])> =
        groups.values().enumerate().map(|(number, own)| (number, own.as_slice())).collect();
    let singles: Vec<[usize; 1]> = unknown.iter().map(|&place| [place]).collect();
    let first = all.len();
    all.extend(singles.iter().enumerate().map(|(number, own)| (first + number, own.as_slice())));
    for (a, own) in &all {
        for (b, other) in &all {
            let inexact = *a >= first || !is_exact(own);
            if a == b && !inexact {
                continue;
            }
            for (&x, &y) in own.iter().flat_map(|x| other.iter().map(move |y| (x, y))) {
                assume(&accesses[x], &accesses[y], x < y, within, found);
            }
        }
    }
}

/// Has one access wait for another wherever they might meet.
fn assume(before: &Access, after: &Access, in_order: bool, within: Option<&Loop>, found: &mut Vec<Dependence>) {
    let Some(cycles) = cycles(before, after) else { return };
    let (op, next) = (before.op, after.op);
    // In one iteration terms that change are the same.
    let same_terms = before.terms.is_some() && before.terms == after.terms;
    let apart = same_terms && !before.offsets.iter().any(|offset| after.offsets.binary_search(offset).is_ok());
    if in_order && !apart {
        found.push(Dependence { before: op, after: next, distance: 0, cycles });
    }
    if within.is_some() {
        found.push(Dependence { before: op, after: next, distance: 1, cycles });
    }
}

/// Finds where accesses of one shape meet.
fn exact(accesses: &[Access], own: &[usize], (factors, within): (&[i64], Option<&Loop>), found: &mut Vec<Dependence>) {
    let mut at: HashMap<i64, Vec<usize>> = HashMap::new();
    for &place in own {
        accesses[place].offsets.iter().for_each(|&offset| at.entry(offset).or_default().push(place));
    }
    let mut seen: HashSet<(usize, usize, bool)> = HashSet::new();
    let mut add = |before: usize, after: usize, distance: u32| {
        if let Some(cycles) = cycles(&accesses[before], &accesses[after])
            && seen.insert((before, after, distance > 0))
        {
            let (before, after) = (accesses[before].op, accesses[after].op);
            found.push(Dependence { before, after, distance, cycles });
        }
    };
    for places in at.values() {
        for (number, &before) in places.iter().enumerate() {
            places[number + 1..].iter().filter(|&&after| before < after).for_each(|&after| add(before, after, 0));
        }
    }
    let Some(within) = within else { return };
    let (low, high) = at.keys().fold((i64::MAX, i64::MIN), |(low, high), &offset| (low.min(offset), high.max(offset)));
    // Where calls have several grids, the least is what brings accesses together first.
    let trips: Vec<u64> = within.counters.iter().map(|counter| counter.least).collect();
    for distance in 1..AHEAD.min(within.trips()) {
        for moved in moves(distance, &trips, factors) {
            // What is at `o` in an iteration and at `o - moved` in the later one is the same element.
            if moved > high - low || moved < low - high {
                continue;
            }
            for (offset, befores) in &at {
                if let Some(afters) = offset.checked_sub(moved).and_then(|offset| at.get(&offset)) {
                    for &before in befores {
                        afters.iter().for_each(|&after| add(before, after, distance as u32));
                    }
                }
            }
        }
    }
}

/// How far accesses move in so many iterations, which is not the same from wherever one counts: a counter that has come to its end
/// begins again.
fn moves(distance: u64, trips: &[u64], factors: &[i64]) -> Vec<i64> {
    // From the last counter on: what is left for those before it, and what it has moved so far.
    let mut open = vec![(distance, 0i64)];
    for (&trips, &factor) in trips.iter().zip(factors).rev() {
        let mut next = Vec::new();
        for (left, moved) in open {
            let (carry, digit) = (left / trips, (left % trips) as i64);
            next.push((carry, moved.wrapping_add(digit.wrapping_mul(factor))));
            if digit > 0 {
                let back = digit - trips as i64;
                next.push((carry + 1, moved.wrapping_add(back.wrapping_mul(factor))));
            }
        }
        next.sort_unstable();
        next.dedup();
        open = next;
    }
    open.into_iter().filter(|&(left, _)| left == 0).map(|(_, moved)| moved).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_begin_again() {
        // Of 4 by 8 iterations, 3 later is 3 further in the same row, or 5 back in the next.
        assert_eq!(moves(3, &[4, 8], &[100, 1]), [3, 95]);
        // 8 later is the same place of the next row.
        assert_eq!(moves(8, &[4, 8], &[100, 1]), [100]);
        assert_eq!(moves(8, &[4, 8], &[0, 1]), [0]);
        // Nothing is 32 later.
        assert!(moves(32, &[4, 8], &[100, 1]).is_empty());
    }
}
