//! Which memory holds what: slices and addresses are given to values and taken back, in the order of the program.
//!
//! Constants lie at the lower end of slices and must never have held anything else. What the program computes lies at the upper
//! end, where memory is free earliest, so that new work need not wait for old. Between them lies a reserve for constants that turn up
//! while the program is made.

use std::collections::BTreeMap;

use super::LpuMachine;
use super::isa::Hemisphere;
use super::layout::Place;

/// A set of slices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Slices(u128);

impl Slices {
    /// None.
    pub const NONE: Slices = Slices(0);

    pub fn of(places: &[Place]) -> Self {
        places.iter().fold(Slices::default(), |slices, place| slices.with(place.slice))
    }

    pub fn with(self, slice: u8) -> Self {
        Slices(self.0 | 1 << slice)
    }

    pub fn union(self, other: Self) -> Self {
        Slices(self.0 | other.0)
    }

    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub fn others(self) -> Self {
        Slices(!self.0)
    }

    pub fn contains(self, slice: u8) -> bool {
        self.0 >> slice & 1 != 0
    }
}

/// Cycles that it does not matter to wait for memory.
const WAIT: u32 = 64;

/// The part of a side's slices that operands have which are there before: room for two of four bytes.
const HOMES: usize = 5;

/// What memory is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Something that is there before the program starts.
    Given,
    /// The same, of what chains read beside other operands.
    Operand,
    /// Something that the program writes.
    Computed,
}

/// Memory that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Number of slices.
    pub slices: usize,
    /// Vectors in each of them.
    pub depth: usize,
    pub purpose: Purpose,
    /// Slices that should not be among them.
    pub avoid: Slices,
    /// Slices that should rather not be, the first more than the second.
    pub busy: [Slices; 2],
    /// Whether the first address must be the same in all of them.
    pub aligned: bool,
    /// The hemisphere, if it matters.
    pub side: Option<Hemisphere>,
}

/// From when on so many vectors from a place on may be written.
pub(super) type FreeFrom<'a> = dyn Fn(Place, usize) -> u32 + 'a;

/// All memory.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    slices: Vec<Slice>,
    depth: usize,
    per_side: usize,
    /// Where operands lie that are there before, if there is room, so that they do not meet with what is computed: those of one
    /// byte plane, and others.
    homes: [Slices; 2],
    /// The slice of each side that is tried first.
    turn: [usize; 2],
    side: usize,
    /// Vectors in use.
    pub used: u64,
    /// Most vectors in use at a time.
    pub peak: u64,
}

#[derive(Clone, Debug)]
struct Slice {
    /// Free stretches: first address and number of vectors.
    free: BTreeMap<usize, usize>,
    /// What the program computes has never been below this address.
    floor: usize,
    /// What the program computes never goes below this address.
    reserved: usize,
}

impl Memory {
    pub fn new(machine: &LpuMachine) -> Self {
        let depth = (machine.mem.banks * machine.mem.words) as usize;
        let slice = Slice { free: BTreeMap::from([(0, depth)]), floor: depth, reserved: 0 };
        let per_side = machine.mem.slices as usize;
        // Far from the vector unit: these are read long before they meet with others.
        let far = (per_side / HOMES) as u8;
        let all = 2 * per_side as u8;
        let homes = match far {
            0..4 => [Slices::NONE; 2],
            _ => {
                let wide = (0..far).chain(all - far..all).fold(Slices::NONE, Slices::with);
                let narrow = (far..far + 3).chain(all - far - 3..all - far).fold(Slices::NONE, Slices::with);
                [narrow, wide]
            }
        };
        Memory { slices: vec![slice; 2 * per_side], depth, per_side, homes, turn: [0; 2], side: 0, used: 0, peak: 0 }
    }

    /// Vectors that nobody has, in all slices.
    #[cfg(test)]
    pub fn left(&self) -> u64 {
        self.slices.iter().flat_map(|slice| slice.free.values()).map(|&vectors| vectors as u64).sum()
    }

    /// Vectors of a side that can be given.
    fn room(&self, side: usize) -> usize {
        self.slices[side * self.per_side..(side + 1) * self.per_side].iter().map(Slice::room).sum()
    }

    /// Has the lowest vectors that are free now, so many in each slice, left to what is given.
    pub fn reserve(&mut self, vectors: usize) {
        for slice in &mut self.slices {
            slice.reserved = slice.free.first_key_value().map_or(0, |(&at, &length)| at + length.min(vectors));
        }
    }

    /// Gives memory in slices of one hemisphere; slices that should be avoided are taken if there are no others.
    pub fn take(&mut self, request: Request, free: &FreeFrom<'_>) -> Option<Vec<Place>> {
        let sides = match request.side {
            Some(Hemisphere::West) => [0, 0],
            Some(Hemisphere::East) => [1, 1],
            None => {
                self.side = match request.purpose {
                    Purpose::Given => usize::from(self.room(1) > self.room(0)),
                    Purpose::Operand | Purpose::Computed => 1 - self.side,
                };
                [self.side, 1 - self.side]
            }
        };
        let all_homes = self.homes[0].union(self.homes[1]);
        let Request { avoid, busy: [now, next], .. } = request;
        let avoided = match request.purpose {
            Purpose::Given => [avoid; 4],
            Purpose::Operand => {
                let homes = self.homes[usize::from(request.slices > 1)].others();
                [avoid.union(homes), avoid, avoid, avoid]
            }
            Purpose::Computed => {
                let homes = avoid.union(all_homes);
                [homes.union(now).union(next), homes.union(now), avoid.union(now), avoid]
            }
        };
        let mut tries = avoided.into_iter().chain([Slices::NONE]).flat_map(|avoided| sides.map(|side| (side, avoided)));
        let places = tries.find_map(|(side, avoid)| self.take_on(side, Request { avoid, ..request }, free))?;
        self.used += (request.slices * request.depth) as u64;
        self.peak = self.peak.max(self.used);
        Some(places)
    }

    /// Gives memory for weights in any slices with most room, which may be on both sides of the vector unit: planes of the matrix unit
    /// load from all of them.
    pub fn take_anywhere(&mut self, count: usize, depth: usize) -> Option<Vec<Place>> {
        let found = (0..self.slices.len())
            .filter_map(|slice| self.slices[slice].find(depth, Purpose::Given, self.depth).map(|at| (slice, at)));
        let mut found: Vec<(usize, usize)> = found.collect();
        found.sort_by_key(|&(slice, _)| std::cmp::Reverse(self.slices[slice].room()));
        found.truncate(count);
        found.sort_unstable();
        if found.len() < count {
            return None;
        }
        self.used += (count * depth) as u64;
        self.peak = self.peak.max(self.used);
        for &(slice, at) in &found {
            self.slices[slice].carve(at, depth, Purpose::Given);
        }
        Some(found.into_iter().map(|(slice, at)| Place { slice: slice as u8, address: at as u16 }).collect())
    }

    /// Gives memory of one hemisphere in so many pieces, each as it is asked for; in different slices, if there are enough.
    pub fn take_pieces(&mut self, request: Request, count: usize, free: &FreeFrom<'_>) -> Option<Vec<Place>> {
        let sides = match request.side {
            Some(side) => vec![side],
            None => vec![Hemisphere::ALL[1 - self.side], Hemisphere::ALL[self.side]],
        };
        sides.into_iter().find_map(|side| {
            let peak = self.peak;
            let mut places: Vec<Place> = Vec::with_capacity(count * request.slices);
            for _ in 0..count {
                let avoid = request.avoid.union(Slices::of(&places));
                let Some(own) = self.take(Request { avoid, side: Some(side), ..request }, free) else {
                    self.give_back(&places, request.depth);
                    self.peak = peak;
                    return None;
                };
                places.extend(own);
            }
            self.side = side.index();
            Some(places)
        })
    }

    fn take_on(&mut self, side: usize, request: Request, free: &FreeFrom<'_>) -> Option<Vec<Place>> {
        let first = side * self.per_side;
        let turn = self.turn[side];
        let order = (0..self.per_side).map(|index| first + (turn + index) % self.per_side);
        let mut order: Vec<usize> = order.filter(|&slice| !request.avoid.contains(slice as u8)).collect();
        if request.purpose != Purpose::Computed {
            // So that all slices become full together, and what takes many of them finds room to the end; of equals those that are
            // farthest from the vector unit.
            let near = |slice: usize| if slice < self.per_side { slice } else { 2 * self.per_side - 1 - slice };
            order.sort_by_key(|&slice| (std::cmp::Reverse(self.slices[slice].room()), near(slice)));
        }
        let find = |slice: usize| self.slices[slice].find(request.depth, request.purpose, self.depth);
        let found: Vec<(usize, usize)> = if request.aligned {
            // What is the first room of one slice may be room of others too.
            let mut starts: Vec<usize> = order.iter().filter_map(|&slice| find(slice)).collect();
            starts.sort_unstable();
            starts.dedup();
            let room = |at: usize| {
                let has = |slice: &&usize| self.slices[**slice].has(at, request.depth, request.purpose);
                order.iter().filter(has).take(request.slices).map(|&slice| (slice, at)).collect::<Vec<_>>()
            };
            starts.into_iter().map(room).find(|found| found.len() == request.slices).unwrap_or_default()
        } else {
            match request.purpose {
                Purpose::Computed => self.earliest(&order, request, free),
                Purpose::Given | Purpose::Operand => {
                    let found: Vec<(usize, usize)> =
                        order.iter().filter_map(|&slice| find(slice).map(|at| (slice, at))).collect();
                    self.near(&found, request.slices)
                        .unwrap_or_else(|| found.iter().copied().take(request.slices).collect())
                }
            }
        };
        if found.len() < request.slices {
            return None;
        }
        self.turn[side] = (found[found.len() - 1].0 - first + 1) % self.per_side;
        for &(slice, at) in &found {
            self.slices[slice].carve(at, request.depth, request.purpose);
        }
        Some(found.into_iter().map(|(slice, at)| Place { slice: slice as u8, address: at as u16 }).collect())
    }

    /// Of some slices those in which there is room earliest; of equals so many beside each other, if there are.
    fn earliest(&self, order: &[usize], request: Request, free: &FreeFrom<'_>) -> Vec<(usize, usize)> {
        let best = |&slice: &usize| {
            let from = |at: usize| free(Place { slice: slice as u8, address: at as u16 }, request.depth);
            self.slices[slice].earliest(request.depth, self.depth, &from).map(|(time, at)| (time, slice, at))
        };
        let found: Vec<(u32, usize, usize)> = order.iter().filter_map(best).collect();
        let mut times: Vec<u32> = found.iter().map(|&(time, ..)| time).collect();
        times.sort_unstable();
        let Some(&latest) = times.get(request.slices.max(1) - 1) else { return Vec::new() };
        let early = found.iter().filter(|&&(time, ..)| time <= latest + WAIT).map(|&(_, slice, at)| (slice, at));
        let early: Vec<(usize, usize)> = early.collect();
        let beside = |found: &&[(usize, usize)]| found.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0);
        match early.windows(request.slices.max(1)).find(beside) {
            Some(beside) => beside.to_vec(),
            None => early.into_iter().take(request.slices).collect(),
        }
    }

    /// So many of some slices that are near each other, among them the one with most room, so that all become full together. What
    /// is read at once from near slices comes to either matrix unit within few cycles, so that gaps of the one are long enough for
    /// the other.
    fn near(&self, found: &[(usize, usize)], count: usize) -> Option<Vec<(usize, usize)>> {
        let within = count + count / 2;
        let room = |&(slice, _): &(usize, usize)| self.slices[slice].room();
        let starts = found.iter().map(|&(slice, _)| slice);
        let chosen = starts.filter_map(|start| {
            let mut own: Vec<(usize, usize)> = found.to_vec();
            own.retain(|&(slice, _)| (start..start + within).contains(&slice));
            own.sort_by_key(|found| (std::cmp::Reverse(room(found)), found.0));
            own.truncate(count);
            own.sort_unstable();
            let (least, most) = (own.iter().map(room).min()?, own.iter().map(room).max()?);
            (own.len() == count).then_some((most, least, std::cmp::Reverse(start), own))
        });
        chosen.max().map(|(.., own)| own)
    }

    /// Takes memory back.
    pub fn give_back(&mut self, places: &[Place], depth: usize) {
        for place in places {
            self.slices[usize::from(place.slice)].give_back(usize::from(place.address), depth);
        }
        self.used -= (places.len() * depth) as u64;
    }
}

impl Slice {
    /// Vectors that can be given.
    fn room(&self) -> usize {
        self.free.iter().map(|(&at, &length)| length.min(self.floor.saturating_sub(at))).sum()
    }

    fn find(&self, depth: usize, purpose: Purpose, size: usize) -> Option<usize> {
        if depth == 0 {
            return Some(0);
        }
        match purpose {
            Purpose::Given | Purpose::Operand => self.free.iter().find_map(|(&at, &length)| {
                let length = length.min(self.floor.saturating_sub(at));
                (length >= depth).then_some(at)
            }),
            Purpose::Computed => self.earliest(depth, size, &|_| 0).map(|(_, at)| at),
        }
    }

    /// Where so many vectors are free earliest, and when.
    fn earliest(&self, depth: usize, size: usize, free: &dyn Fn(usize) -> u32) -> Option<(u32, usize)> {
        if depth == 0 {
            return Some((0, 0));
        }
        let above = |low: usize| {
            let mut best: Option<(u32, usize)> = None;
            for (&at, &length) in self.free.iter().rev() {
                let (first, mut end) = (at.max(low), at + length);
                while end >= first + depth {
                    let time = free(end - depth);
                    if best.is_none_or(|(least, _)| time < least) {
                        best = Some((time, end - depth));
                    }
                    if time == 0 {
                        return best;
                    }
                    end -= depth;
                }
            }
            best
        };
        // An eighth of the slice goes round before more is touched.
        let window = self.floor.min(size - size / 8).max(self.reserved);
        above(window).or_else(|| above(self.reserved))
    }

    fn has(&self, at: usize, depth: usize, purpose: Purpose) -> bool {
        let holds = self.free.range(..=at).next_back().is_some_and(|(&first, &length)| first + length >= at + depth);
        depth == 0 || holds && (purpose == Purpose::Computed || at + depth <= self.floor)
    }

    fn carve(&mut self, at: usize, depth: usize, purpose: Purpose) {
        if depth == 0 {
            return;
        }
        if let Some((&first, &length)) = self.free.range(..=at).next_back() {
            self.free.remove(&first);
            if first < at {
                self.free.insert(first, at - first);
            }
            if at + depth < first + length {
                self.free.insert(at + depth, first + length - at - depth);
            }
        }
        if purpose == Purpose::Computed {
            self.floor = self.floor.min(at);
        }
    }

    fn give_back(&mut self, mut at: usize, mut depth: usize) {
        if depth == 0 {
            return;
        }
        if let Some((&first, &length)) = self.free.range(..at).next_back()
            && first + length == at
        {
            self.free.remove(&first);
            (at, depth) = (first, depth + length);
        }
        if let Some(length) = self.free.remove(&(at + depth)) {
            depth += length;
        }
        self.free.insert(at, depth);
    }
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;
    use crate::lpu::machine::tests::small_machine;

    fn request(slices: usize, depth: usize, purpose: Purpose) -> Request {
        Request {
            slices,
            depth,
            purpose,
            avoid: Slices::default(),
            busy: [Slices::NONE; 2],
            aligned: false,
            side: Some(Hemisphere::West),
        }
    }

    #[test]
    fn memory_is_given_once_and_constants_are_never_overwritten() {
        let mut memory = Memory::new(&small_machine());
        let all = memory.left();
        let computed = memory.take(request(4, 100, Purpose::Computed), &|_, _| 0).unwrap();
        assert!(computed.iter().all(|place| place.address == 28));
        let given = memory.take(request(2, 20, Purpose::Given), &|_, _| 0).unwrap();
        assert!(given.iter().all(|place| place.address == 0));
        memory.give_back(&computed, 100);
        // What was computed on cannot be given any more.
        assert_eq!(memory.take(request(4, 20, Purpose::Given), &|_, _| 0), None);
        assert!(memory.take(request(2, 28, Purpose::Given), &|_, _| 0).is_some());
        assert_eq!(memory.left(), all - 2 * 20 - 2 * 28);
        assert_eq!(memory.peak, 440);
    }

    #[test]
    fn slices_are_avoided_while_there_are_others() {
        let mut memory = Memory::new(&small_machine());
        let avoid = Slices::default().with(0).with(2);
        let places = memory.take(Request { avoid, ..request(2, 1, Purpose::Computed) }, &|_, _| 0).unwrap();
        assert_eq!(places.iter().map(|place| place.slice).collect::<Vec<_>>(), [1, 3]);
        let places = memory.take(Request { avoid, ..request(3, 1, Purpose::Computed) }, &|_, _| 0).unwrap();
        assert!(places.iter().any(|place| avoid.contains(place.slice)));
        let places = memory.take(Request { avoid, side: None, ..request(3, 1, Purpose::Computed) }, &|_, _| 0).unwrap();
        assert!(places.iter().all(|place| place.slice >= 4));
    }
}
