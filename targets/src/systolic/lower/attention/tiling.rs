//! How an attention is cut into pieces.

use std::ops::Range;

use tcc_ir::ops::AttentionDims;

use crate::systolic::lower::tile::pieces;

/// What the choice depends on besides the extents.
pub(super) struct Limits {
    /// Rows of all arrays and columns of each.
    pub array_rows: usize,
    pub array_columns: usize,
    /// Rows on which weights enter by one bus: the cycles that they take to do so.
    pub block_rows: usize,
    /// Elements that the vector unit takes in a cycle: of plain functions, of exponentials, and with a stride.
    pub lanes: usize,
    pub special_lanes: usize,
    pub strided_lanes: usize,
    /// Rows of the accumulators that a step may take: half, since two steps are under way.
    pub accumulators: usize,
    /// Bytes of the scratchpad.
    pub budget: u64,
}

/// The lengths of pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tiling {
    /// Batches and key heads that a step works on.
    pub batches: usize,
    pub groups: usize,
    /// Query heads of one key head, and positions: the rows of one product.
    pub heads: usize,
    pub queries: usize,
    /// Most keys of a step.
    pub keys: usize,
    /// Features of the values that are worked on at a time.
    pub features: usize,
    /// The keys and values of a key head stay on chip for all its queries.
    pub resident: bool,
    /// Results come out of the array turned: the weights of attention are those of the array, and features pass through it.
    pub turned: bool,
    /// The sum of the weights comes out of the array, as the product with a column of ones.
    pub ones: bool,
}

impl Tiling {
    /// Rows of one product.
    pub fn rows(&self) -> usize {
        self.heads * self.queries
    }

    /// Pairs of batch and key head that a step works on.
    pub fn units(&self) -> usize {
        self.batches * self.groups
    }

    /// Columns of the product with the values.
    pub fn columns(&self) -> usize {
        self.features + usize::from(self.ones)
    }
}

/// Fewest row tiles of scores for the vector unit's latency not to show, in heights of the array.
const STEP_HEIGHTS: usize = 2;

/// Fewest steps that overlap well.
const STEPS: usize = 4;

/// Chooses lengths. `share` is the number of query heads of a key head; `keys` those that are visible at all. `footprint`
/// says how many bytes of the scratchpad a choice takes.
pub(super) fn choose(
    dims: &AttentionDims,
    share: usize,
    keys: usize,
    limits: &Limits,
    footprint: &dyn Fn(&Tiling) -> u64,
) -> Tiling {
    let groups = dims.heads / share;
    let width = limits.array_columns;
    let columns = limits.array_columns;
    // A product with more columns than the accumulators take is cut, and each piece computes the scores anew.
    let most_tiles = (limits.accumulators / 2).max(1);
    let features = dims.value_depth.min((most_tiles * columns).saturating_sub(1).max(1));
    let tall = limits.array_rows.max(MIN_ROWS);
    let mut tiling = Tiling {
        batches: 1,
        groups: 1,
        heads: share,
        queries: 1,
        keys,
        features,
        resident: true,
        turned: false,
        ones: true,
    };
    let most_rows = (limits.accumulators / (1 + (features + 1).div_ceil(columns))).max(1);
    let fit_rows = |tiling: &mut Tiling, rows: usize| {
        let rows = rows.min(most_rows).max(1);
        tiling.heads = even(share, rows);
        tiling.queries = even(dims.queries, (rows / tiling.heads).max(1));
    };
    fit_rows(&mut tiling, tall);
    // Of the numbers of rows with which all keys fit, the one that takes the array the least time.
    let products = Products { dims, share, keys, limits };
    let mut least = None;
    for pieces in 1..=share * dims.queries {
        let rows = (share * dims.queries).div_ceil(pieces);
        if rows < limits.array_columns.min(limits.block_rows) / 2 {
            break;
        }
        let mut candidate = tiling;
        fit_rows(&mut candidate, rows);
        let all_fit =
            candidate.rows() * (keys.div_ceil(width) + products.column_tiles(&candidate)) <= limits.accumulators;
        if all_fit {
            let cycles = products.cycles(&candidate, candidate.turned);
            candidate.turned = products.turns(&candidate);
            let cycles = cycles.min(products.cycles(&candidate, candidate.turned));
            if least.is_none_or(|(known, _)| cycles < known) {
                least = Some((cycles, candidate));
            }
        }
    }
    if let Some((_, best)) = least {
        tiling = best;
    }
    // A column of ones costs a pass of its own where the values fill the array: with few rows the vector unit is faster.
    let fills = features.is_multiple_of(columns);
    tiling.ones = !fills || tiling.turned || tiling.rows() >= limits.array_columns / 2;
    let score_tiles = |tiling: &Tiling| {
        (limits.accumulators / tiling.rows()).saturating_sub(tiling.columns().div_ceil(columns)).max(1)
    };
    // Half as many rows, if all keys then fit, are better than a running maximum.
    let all = keys.div_ceil(width);
    if score_tiles(&tiling) < all && tiling.queries > 1 {
        let mut lower = tiling;
        fit_rows(&mut lower, tiling.rows() / 2);
        if score_tiles(&lower) >= all {
            tiling = lower;
        }
    }
    tiling.keys = keys.min(score_tiles(&tiling) * width);
    let tiles = tiling.keys.div_ceil(width);
    if tiling.keys == keys && tiling.heads == share {
        let pairs = dims.batch * groups;
        let rows = tiling.rows() * tiles;
        let wanted = (STEP_HEIGHTS * tall).div_ceil(rows);
        let room = limits.accumulators / (tiling.rows() * (tiles + tiling.columns().div_ceil(columns)));
        // Rows of the array that one product leaves idle are used by others.
        let together = match products.score_groups() {
            groups if tiles.is_multiple_of(groups) => 1,
            groups => groups.max(products.value_groups()),
        };
        let units = wanted.min(pairs.div_ceil(STEPS)).max(together).min(room).min(pairs).max(1);
        tiling.groups = even(groups, units);
        tiling.batches = if tiling.groups == groups { even(dims.batch, units / groups) } else { 1 };
    }
    shrink(&mut tiling, width, limits.budget, footprint);
    tiling
}

/// What the two products of an attention take on the array.
struct Products<'a> {
    dims: &'a AttentionDims,
    /// Query heads of a key head.
    share: usize,
    keys: usize,
    limits: &'a Limits,
}

impl Products<'_> {
    /// Groups of rows of the array by which scores are computed: each holds a key's features.
    fn score_groups(&self) -> usize {
        score_groups(self.dims.depth, self.limits.array_rows, self.limits.block_rows)
    }

    /// Groups of rows of the array by which values are multiplied: each holds all keys of a head.
    fn value_groups(&self) -> usize {
        score_groups(self.keys, self.limits.array_rows, self.limits.block_rows).min(self.dims.heads / self.share)
    }

    fn column_tiles(&self, tiling: &Tiling) -> usize {
        tiling.columns().div_ceil(self.limits.array_columns)
    }

    /// Cycles of all rows with all keys of one key head, were there no waiting; results come out turned or not.
    fn cycles(&self, tiling: &Tiling, turned: bool) -> usize {
        let Limits { array_rows, array_columns, block_rows, .. } = *self.limits;
        let rows = tiling.rows();
        let pieces = self.share.div_ceil(tiling.heads) * self.dims.queries.div_ceil(tiling.queries);
        let pass = rows.max(block_rows);
        let scores = (self.keys.div_ceil(array_columns) * self.dims.depth.div_ceil(array_rows) * pass)
            .div_ceil(self.score_groups());
        let keys = self.keys.div_ceil(array_rows);
        let values = match turned {
            true => keys * rows.div_ceil(array_columns) * (tiling.features + 1).max(block_rows),
            false => (keys * self.column_tiles(tiling) * pass).div_ceil(self.value_groups()),
        };
        // The vector unit works meanwhile: the mask, the maximum and the difference, the exponential, and the result.
        let limits = self.limits;
        let elements = rows * self.keys;
        let results = rows * tiling.features;
        let vector = 3 * elements / limits.lanes
            + elements / limits.special_lanes
            + results / if turned { limits.strided_lanes } else { limits.lanes };
        pieces * (scores + values).max(vector)
    }

    /// Whether results should come out turned. Rows of several heads must then fit side by side, and the result must take no
    /// more of the accumulators than it would otherwise.
    fn turns(&self, tiling: &Tiling) -> bool {
        let columns = self.limits.array_columns;
        let one_head = tiling.heads == 1 || tiling.rows() <= columns;
        let tiles = tiling.rows().div_ceil(turned_rows(tiling.rows(), columns));
        let fits = tiles * (tiling.features + 1) <= tiling.rows() * self.column_tiles(tiling);
        one_head
            && fits
            && tiling.features == self.dims.value_depth
            && self.cycles(tiling, true) < self.cycles(tiling, false)
    }
}

/// The most groups of rows of an array of so many rows, in blocks of `block_rows`, that hold `depth` features each.
pub(super) fn score_groups(depth: usize, array_rows: usize, block_rows: usize) -> usize {
    let mut groups = 1;
    while array_rows / (groups * 2) >= depth.max(block_rows) {
        groups *= 2;
    }
    groups
}

/// Rows of the tiles, as equal as can be, that a turned result of `rows` rows is made of.
pub(super) fn turned_rows(rows: usize, columns: usize) -> usize {
    even(rows, columns)
}

/// Rows of a product below which the latency of the array shows.
const MIN_ROWS: usize = 32;

/// Makes pieces smaller until they fit, those first whose size matters least.
fn shrink(tiling: &mut Tiling, width: usize, budget: u64, footprint: &dyn Fn(&Tiling) -> u64) {
    let halve = |size: &mut usize| *size = size.div_ceil(2);
    while footprint(tiling) > budget {
        if tiling.batches > 1 {
            halve(&mut tiling.batches);
        } else if tiling.groups > 1 {
            halve(&mut tiling.groups);
        } else if tiling.resident {
            tiling.resident = false;
        } else if tiling.keys > width {
            tiling.turned = false;
            tiling.keys = tiling.keys.div_ceil(2).next_multiple_of(width).min(tiling.keys - 1);
        } else if tiling.queries > 1 {
            halve(&mut tiling.queries);
        } else if tiling.heads > 1 {
            halve(&mut tiling.heads);
        } else if tiling.keys > 1 {
            tiling.turned = false;
            halve(&mut tiling.keys);
        } else if tiling.features > 1 {
            tiling.turned = false;
            halve(&mut tiling.features);
        } else {
            return;
        }
    }
}

/// The length of pieces of at most `most` that are as equal as can be.
fn even(size: usize, most: usize) -> usize {
    size.div_ceil(size.div_ceil(most.clamp(1, size)))
}

/// A step: the scores of some rows with some keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub batches: Range<usize>,
    pub groups: Range<usize>,
    /// Among the heads of a key head.
    pub heads: Range<usize>,
    pub queries: Range<usize>,
    pub keys: Range<usize>,
    pub features: Range<usize>,
    /// The first and the last step of its rows.
    pub first: bool,
    pub last: bool,
    /// The first step of its key heads, and the number of key heads before, in order of steps.
    pub fresh: bool,
    pub block: usize,
    /// The number of rows' tiles before.
    pub chain: usize,
}

impl Step {
    pub fn rows(&self) -> usize {
        self.heads.len() * self.queries.len()
    }

    pub fn units(&self) -> usize {
        self.batches.len() * self.groups.len()
    }
}

/// All steps, in order. `visible` says which keys some queries see; `share` is the number of query heads of a key head.
pub(super) fn steps(
    dims: &AttentionDims,
    share: usize,
    t: &Tiling,
    visible: impl Fn(&Range<usize>) -> Range<usize>,
) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let (mut block, mut chain) = (0, 0);
    for features in pieces(0..dims.value_depth, t.features) {
        for batches in pieces(0..dims.batch, t.batches) {
            for groups in pieces(0..dims.heads / share, t.groups) {
                let mut fresh = true;
                for heads in pieces(0..share, t.heads) {
                    for queries in pieces(0..dims.queries, t.queries) {
                        let visible = visible(&queries);
                        let count = visible.len().div_ceil(t.keys).max(1);
                        let mut parts: Vec<Range<usize>> =
                            pieces(visible.clone(), visible.len().div_ceil(count)).collect();
                        if parts.is_empty() {
                            parts.push(visible);
                        }
                        let last = parts.len() - 1;
                        for (index, keys) in parts.into_iter().enumerate() {
                            steps.push(Step {
                                batches: batches.clone(),
                                groups: groups.clone(),
                                heads: heads.clone(),
                                queries: queries.clone(),
                                keys,
                                features: features.clone(),
                                first: index == 0,
                                last: index == last,
                                fresh,
                                block,
                                chain,
                            });
                            fresh = false;
                        }
                        chain += 1;
                    }
                }
                block += 1;
            }
        }
    }
    steps
}

/// Widths of the tiles of `keys` keys, as equal as can be: their number, that of all but the last, and that of the last.
pub(super) fn key_tiles(keys: usize, width: usize) -> (usize, usize, usize) {
    let count = keys.div_ceil(width).max(1);
    let usual = keys.div_ceil(count);
    (count, usual, keys - usual * (count - 1))
}
