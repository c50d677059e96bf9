//! The shelf: vectors whose halves hold what columns of weights leave behind whole vectors.
//!
//! A multiply of halves uses the weights of half of the lanes. So what is left of a column behind its whole vectors needs no vector
//! of its own: it lies in the first half of one, or in the second, and other columns' rests lie beside it, of the same weights or of others.
//! Columns that are loaded together are a *group*; rests of the columns of a tile lie in groups that follow each other, all in the
//! same lanes, where the rows that are multiplied have theirs.

use smallvec::SmallVec;
use tcc_ir::Shape;
use tcc_ir::ops::MatMul;

use super::layout::Place;

/// The lanes of a vector in which a rest lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Lanes {
    /// From the first lane on.
    First,
    /// From the first lane of the second half on.
    Second,
    /// At the end of the second half.
    Last,
}

/// Where a rest of the columns of a tile lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Slot {
    /// The group of the tile's first columns.
    pub group: usize,
    pub lanes: Lanes,
    /// The first element along the K-dimension.
    pub from: usize,
    /// How many there are.
    pub count: usize,
}

/// What weights leave behind whole vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    /// Number of products with weights of their own.
    pub batch: usize,
    /// The K-dimension.
    pub k: usize,
    /// Columns of a product.
    pub n: usize,
}

/// The rests of a tile: of its columns half a vector, and what is behind that or less.
pub(super) type Slots = SmallVec<[Slot; 2]>;

/// Which rests lie where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// For each weights the slots of their tiles: those of a batch's blocks of columns follow each other.
    pub slots: Vec<Vec<Slots>>,
    /// Groups that they take.
    pub groups: usize,
}

/// The memory of a shelf.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shelf {
    /// Groups in each stretch.
    pub groups: usize,
    /// Bytes of an element, which lie behind each other.
    pub planes: usize,
    /// Stretches of groups: one slice for each column of a group.
    pub stretches: Vec<Vec<Place>>,
}

impl Lanes {
    /// The half that is multiplied.
    pub fn half(self) -> u8 {
        match self {
            Lanes::First => 0,
            Lanes::Second | Lanes::Last => 1,
        }
    }

    /// The first lane of so many.
    pub fn first(self, count: usize, lanes: usize) -> usize {
        match self {
            Lanes::First => 0,
            Lanes::Second => lanes / 2,
            Lanes::Last => lanes - count,
        }
    }
}

impl Columns {
    /// The weights of a product.
    pub fn of(product: &MatMul, shape: &Shape) -> Columns {
        let [batch @ .., first, second] = shape.dims() else { return Columns { batch: 0, k: 0, n: 0 } };
        let (k, n) = if product.transpose_b { (*second, *first) } else { (*first, *second) };
        Columns { batch: batch.iter().product(), k, n }
    }

    /// Vectors of a column that are whole.
    pub fn whole(self, lanes: usize) -> usize {
        self.k / lanes
    }

    /// Elements of a column behind these.
    fn rest(self, lanes: usize) -> usize {
        self.k % lanes
    }

    /// Half vectors of all columns.
    pub fn halves(self, lanes: usize) -> usize {
        self.batch * self.n * self.k.div_ceil(lanes / 2)
    }
}

impl Plan {
    /// Gives rests their places, if so many columns are loaded together and a tile has `lanes` of them.
    pub fn new(weights: &[Columns], lanes: usize, width: usize) -> Plan {
        let half = lanes / 2;
        let mut plan = Plan { slots: vec![Vec::new(); weights.len()], groups: 0 };
        // Groups behind those whose first half is taken, whose second half has something at its start, and at its end.
        let (mut first, mut last) = (0, 0);
        let mut second: Vec<usize> = Vec::new();
        // Those whose rest is more than half a vector first: they have no choice.
        for (columns, slots) in weights.iter().zip(&mut plan.slots) {
            let rest = columns.rest(lanes);
            if rest <= half {
                continue;
            }
            for groups in columns.tiles(lanes, width) {
                let from = columns.k - rest;
                let group = first;
                slots.push(Slots::from_slice(&[
                    Slot { group, lanes: Lanes::First, from, count: half },
                    Slot { group, lanes: Lanes::Second, from: from + half, count: rest - half },
                ]));
                first += groups;
                second.resize(first, rest - half);
            }
        }
        for (columns, slots) in weights.iter().zip(&mut plan.slots) {
            let rest = columns.rest(lanes);
            if rest > half {
                continue;
            }
            for groups in columns.tiles(lanes, width) {
                if rest == 0 {
                    slots.push(Slots::new());
                    continue;
                }
                // Where the end of the second half is free, past what is too long beside it.
                let meets = |from: usize| {
                    let own = second.get(from..second.len().min(from + groups)).unwrap_or_default();
                    own.iter().rposition(|&other| other + rest > half).map(|at| from + at + 1)
                };
                let mut beside = last;
                while let Some(behind) = meets(beside) {
                    beside = behind;
                }
                let lanes = if beside < first { Lanes::Last } else { Lanes::First };
                let group = if beside < first { beside } else { first };
                slots.push(Slots::from_slice(&[Slot { group, lanes, from: columns.k - rest, count: rest }]));
                if beside < first {
                    last = beside + groups;
                } else {
                    first += groups;
                }
            }
        }
        plan.groups = first.max(last);
        plan
    }
}

impl Columns {
    /// The groups of each tile's columns.
    fn tiles(self, lanes: usize, width: usize) -> impl Iterator<Item = usize> {
        let per_product =
            move |_| (0..self.n).step_by(lanes).map(move |start| (self.n - start).min(lanes).div_ceil(width));
        (0..self.batch).flat_map(per_product)
    }
}

impl Shelf {
    /// Where the columns of a group lie, one plane of them.
    pub fn places(&self, group: usize, plane: usize) -> Vec<Place> {
        let Some(stretch) = self.stretches.get(group / self.groups.max(1)) else { return Vec::new() };
        let offset = (group % self.groups.max(1)) * self.planes + plane;
        let at = |place: &Place| Place { slice: place.slice, address: place.address + offset as u16 };
        stretch.iter().map(at).collect()
    }

    /// Vectors of each slice of a stretch.
    pub fn depth(&self) -> usize {
        self.groups * self.planes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// No lane of a column is given twice.
    fn check(weights: &[Columns], lanes: usize, width: usize) -> Plan {
        let plan = Plan::new(weights, lanes, width);
        let mut taken: HashMap<(usize, usize), (usize, usize)> = HashMap::new();
        for (index, (columns, slots)) in weights.iter().zip(&plan.slots).enumerate() {
            let tiles: Vec<usize> = columns.tiles(lanes, width).collect();
            assert_eq!(slots.len(), tiles.len());
            for (tile, (slots, groups)) in slots.iter().zip(tiles).enumerate() {
                let mut elements: Vec<usize> = Vec::new();
                for slot in slots {
                    elements.extend(slot.from..slot.from + slot.count);
                    let start = slot.lanes.first(slot.count, lanes);
                    assert_eq!(start / (lanes / 2), usize::from(slot.lanes.half()));
                    assert_eq!((start + slot.count - 1) / (lanes / 2), usize::from(slot.lanes.half()));
                    for group in slot.group..slot.group + groups {
                        assert!(group < plan.groups);
                        for lane in start..start + slot.count {
                            assert_eq!(taken.insert((group, lane), (index, tile)), None, "{group} {lane}");
                        }
                    }
                }
                assert!(elements.into_iter().eq(columns.k / lanes * lanes..columns.k));
            }
        }
        plan
    }

    #[test]
    fn rests_share_vectors() {
        let columns = |batch, k, n| Columns { batch, k, n };
        // 5 tiles of 2 groups each: 3 in the first halves and 2 in the second.
        assert_eq!(check(&[columns(1, 20, 40)], 8, 4).groups, 6);
        // 32 elements are behind half a vector, and 128 fit beside them.
        let bert = [columns(1, 768, 2304), columns(1, 768, 768), columns(1, 768, 3072), columns(1, 3072, 768)];
        let groups = |n: usize| n / 16;
        let halves = groups(2304 + 768 + 3072 + 768);
        let plan = check(&bert, 320, 16);
        assert!((halves.div_ceil(2)..=halves.div_ceil(2) + 20).contains(&plan.groups), "{}", plan.groups);
        assert_eq!(plan.slots[3][0].len(), 2);
        // What is too long is not put beside them.
        check(&[columns(3, 21, 19), columns(1, 15, 50), columns(2, 4, 9), columns(1, 17, 30)], 8, 4);
        check(&[columns(1, 8, 9), columns(1, 3, 1)], 8, 4);
        assert_eq!(check(&[columns(4, 640, 640)], 320, 16).groups, 0);
    }
}
