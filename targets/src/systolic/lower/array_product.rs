//! Matrix products on the array.
//!
//! Weights are streamed past rows of A that stay on chip for all columns; the accumulators are used in parts, so that the
//! vector unit empties one while the array fills others. Where the K-dimension leaves rows of the array idle, these are used
//! as groups that work on several tiles of columns at a time. What differs where sums stay in the array instead of weights is
//! in `output_stationary`.

use tcc_ir::{Kernel, NodeId};

use super::contraction::Product;
use super::output_stationary::Matrix;
use super::rows::RowPlan;
use super::space::{A, B, Space, offset};
use super::tile::{self, Tile};
use super::{Home, Lowering, Stored, element_bytes};
use crate::systolic::emit::Filler;
use crate::systolic::isa::{Multiply, Operation, Preload};
use crate::target::TargetError;

/// Parts of the accumulators begin at multiples of so many rows, so that waits tell them apart.
const ACCUMULATOR_ALIGNMENT: usize = 8;

/// Of the scratchpad, the share as one in so many that weights of one product may take.
const WEIGHTS_SHARE: usize = 3;

/// Most tiles of columns whose weights are loaded in one piece.
const MOST_SLAB: usize = 8;

/// Most M-tiles that are considered for the sake of work on rows.
const MOST_TILES: usize = 16;

/// Where an operand that stays on chip begins, and the distances between its rows and between its columns, in elements.
type InPlace = ((i64, i64), u32);

/// How a product is cut, and where its operands are.
struct Cut {
    batches: Vec<Tile>,
    m: Vec<Tile>,
    n: Vec<Tile>,
    k: Vec<Tile>,
    /// Tiles of columns that the array works on at a time.
    groups: usize,
    /// Whether sums stay in the array instead of weights.
    sums_stay: bool,
    /// Operands that are read where they stay on chip.
    a_stays: Option<InPlace>,
    b_stays: Option<InPlace>,
    /// Whether rows of A stay in buffers for all columns.
    resident: bool,
    /// Tiles of weights that are loaded ahead.
    ahead: usize,
    /// Neighbouring tiles of columns whose weights are loaded in one piece, if several are.
    slab: usize,
}

/// How far a product is with everything that it takes in turn.
#[derive(Default)]
struct Turn {
    panel: usize,
    weight: usize,
    streamed: usize,
    slab: usize,
    /// Parts of the accumulators.
    part: usize,
}

/// What a place for weights holds: where they come from, and the lengths of the tile.
type Held = Option<(Home, Vec<usize>)>;

fn widest(tiles: &[Tile]) -> usize {
    tiles.iter().map(Tile::count).max().unwrap_or(1)
}

impl Cut {
    /// Bytes of a tile of weights.
    fn weights_bytes(&self, product: &Product) -> u64 {
        (widest(&self.k) * widest(&self.n)) as u64 * element_bytes(product.b.dtype) as u64
    }

    /// Rows of the accumulators that the tiles of columns take which the array works on at a time.
    fn part_rows(&self) -> usize {
        (widest(&self.m) * self.groups).next_multiple_of(ACCUMULATOR_ALIGNMENT)
    }

    fn describe(&self, product: &Product) -> String {
        let first = |tiles: &[Tile]| tiles.first().map(|tile| tile.lens.clone()).unwrap_or_default();
        let groups = if self.groups > 1 { format!(" in {} groups", self.groups) } else { String::new() };
        format!(
            "M {:?} K {:?} N {:?}{groups} of M {:?} K {:?} N {:?}, {} batches, A {}{}",
            first(&self.m),
            first(&self.k),
            first(&self.n),
            product.m.sizes,
            product.k.sizes,
            product.n.sizes,
            self.batches.len(),
            match (self.a_stays, self.resident) {
                (Some(_), _) => "in place",
                (None, true) => "resident",
                (None, false) => "streamed",
            },
            if self.sums_stay { ", sums stay" } else { "" }
        )
    }
}

/// How the array can walk an operand where it stays on chip: with one stride along each of two spaces.
fn in_place(operand: &Stored, which: usize, [rows, columns]: [&Space; 2]) -> Option<InPlace> {
    let Home::Scratchpad(base) = operand.address(0) else { return None };
    Some(((rows.single_stride(which)?, columns.single_stride(which)?), base))
}

impl Lowering<'_, '_> {
    /// Groups of rows of the array that a product is cut for: those with which it takes the fewest passes.
    fn groups(&self, product: &Product, columns: usize) -> usize {
        let array = &self.machine.array;
        if self.squeeze > 0 {
            return 1;
        }
        let n_tiles = tile::count(&product.n.sizes, &tile::fill(&product.n.sizes, columns));
        let passes = |groups: usize| {
            let rows = array.total_rows() as usize / groups;
            tile::count(&product.k.sizes, &tile::fill(&product.k.sizes, rows)) * n_tiles.div_ceil(groups)
        };
        let half = (self.machine.accumulators.rows / 2) as usize;
        let mut best = 1;
        let mut groups = 2;
        while groups <= array.blocks() as usize && groups <= half / ACCUMULATOR_ALIGNMENT {
            if passes(groups) < passes(best) {
                best = groups;
            }
            groups *= 2;
        }
        best
    }

    fn cut(&self, product: &Product, plan: Option<&RowPlan>, n: Vec<Tile>) -> Cut {
        let machine = self.machine;
        let columns = self.squeezed(machine.array.columns as usize);
        let groups = self.groups(product, columns);
        let sums_stay = self.sums_stay(product, groups);
        let groups = if sums_stay { 1 } else { groups };
        // Only a scratchpad that is small beside the array makes it necessary to leave a part of the array idle.
        let rows = self.squeezed(machine.array.total_rows() as usize / groups);
        let depth = if sums_stay { self.steps_of_pass(product) } else { rows };
        let scratchpad = self.squeezed(self.emitter.capacity() as usize);
        let most = (machine.accumulators.rows as usize / 2 / groups).max(1);
        let k = tile::tiles(&product.k.sizes, &tile::fill(&product.k.sizes, depth));
        // Rows of A that stay on chip while all columns pass: as many as the accumulators and the scratchpad take.
        let a_stays = in_place(&product.a, A, [&product.m, &product.k]);
        let b_stays = in_place(&product.b, B, [&product.k, &product.n]);
        let panel_row = if a_stays.is_some() { 0 } else { product.k.count() * element_bytes(product.a.dtype) as usize };
        let resident = panel_row * 8 <= scratchpad / 4;
        let m_limit = match (a_stays, resident) {
            (Some(_), _) => most,
            (None, true) => (scratchpad / 4 / panel_row.max(1)).clamp(1, most),
            (None, false) => most.min(rows),
        };
        let batches = tile::tiles(&product.batch.sizes, &vec![1; product.batch.sizes.len()]);
        let mut cut =
            Cut { batches, m: Vec::new(), n, k, groups, sums_stay, a_stays, b_stays, resident, ahead: 0, slab: 1 };
        let tile_bytes = self.emitter.allocated(cut.weights_bytes(product)) as usize;
        cut.ahead = (scratchpad / WEIGHTS_SHARE / tile_bytes).max(4);
        cut.slab = self.slab(product, &cut);
        let m_limit = match plan {
            Some(plan) => self.rows_at_a_time(product, plan, &cut, m_limit, scratchpad, panel_row),
            None => m_limit,
        };
        let m_limit = match product.m.sizes[..] {
            // Equal tiles: a small rest would not hide the time that weights take to enter the array.
            [size] => size.div_ceil(size.div_ceil(m_limit).max(1)).max(1),
            _ => m_limit,
        };
        cut.m = tile::tiles(&product.m.sizes, &tile::fill(&product.m.sizes, m_limit));
        cut
    }

    /// Tiles of columns whose weights are loaded in one piece. Rows of weights that do not begin with a burst cost one burst more
    /// each; long ones are fewer.
    fn slab(&self, product: &Product, cut: &Cut) -> usize {
        let element = element_bytes(product.b.dtype);
        let burst = i64::from(self.machine.dram.burst_bytes);
        let aligned = product.k.strides[B].iter().all(|stride| stride * element % burst == 0);
        let in_rows = Order::of(&product.k, &product.n, B) == Order::RowMajor && product.n.sizes.len() == 1;
        if aligned || !in_rows || cut.b_stays.is_some() || cut.sums_stay || self.squeeze > 0 {
            return 1;
        }
        let room = cut.ahead / (2 * cut.k.len());
        let most = MOST_SLAB.min(room).min(cut.n.len()) / cut.groups * cut.groups;
        if most > cut.groups { most } else { 1 }
    }

    /// Rows of an M-tile where whole rows are worked on after it: the array goes on with the next tile meanwhile, so that
    /// several are better than one, if that does not cost more than it hides.
    fn rows_at_a_time(
        &self,
        product: &Product,
        plan: &RowPlan,
        cut: &Cut,
        most: usize,
        scratchpad: usize,
        panel_row: usize,
    ) -> usize {
        let machine = self.machine;
        // Panels of results take place beside those of A, two of each unless there is but one M-tile, and a good part is left
        // to rows that are worked on.
        let (own, panels) = (if cut.resident { panel_row } else { 0 }, plan.panel_row_bytes(product.n.count()));
        let room = scratchpad / 8 * 5;
        let all = product.m.count();
        let fits = |rows: usize, tiles: usize| {
            let bytes = if tiles * product.batch.count() > 1 { 2 * own + panels } else { own + panels / 2 };
            rows <= most && rows.saturating_mul(bytes) <= room
        };
        let (weight_tiles, passes) = (cut.k.len() * cut.n.len(), cut.k.len() * cut.n.len().div_ceil(cut.groups));
        let weights = product.k.count() * product.n.count() * element_bytes(product.b.dtype) as usize;
        let loading = weights / machine.dram.read_bytes_per_cycle as usize;
        // What may still be to come when the first tile begins.
        let awaited = if self.weights_wait { 0 } else { loading };
        let held = cut.b_stays.is_some() || weight_tiles <= cut.ahead;
        let work = all * product.n.count() * plan.passes() / machine.vector.lanes as usize;
        let stores = product.stored_bytes() as usize / machine.dram.write_bytes_per_cycle as usize;
        // Work on single tiles of few rows is over before its results are there.
        let waits = cut.n.len() * plan.early_values() * machine.vector.latency as usize;
        // Weights arrive during the first tile, and again during each if they do not find place.
        let cycles = |tiles: usize| {
            let array = passes * all.div_ceil(tiles).max(machine.array.block_rows() as usize);
            let later = if held { array } else { array.max(loading) };
            let busiest = (array.max(awaited) + (tiles - 1) * later).max(work + tiles * waits);
            // Where stores take longest, the last rows are worked on while those before are still on their way.
            if stores > busiest { stores + tiles * waits } else { busiest + work / tiles }
        };
        let candidates = (1..=MOST_TILES.min(all.max(1))).filter(|&tiles| fits(all.div_ceil(tiles), tiles));
        match candidates.min_by_key(|&tiles| (cycles(tiles), tiles)) {
            Some(tiles) => all.div_ceil(tiles).max(1),
            None => most.min(room / (2 * own + panels).max(1)).max(1),
        }
    }

    pub(super) fn array_product(
        &mut self,
        kernel: &Kernel,
        anchor: NodeId,
        product: &Product,
    ) -> Result<(), TargetError> {
        let columns = self.squeezed(self.machine.array.columns as usize);
        let n_tiles = tile::tiles(&product.n.sizes, &tile::fill(&product.n.sizes, columns));
        let plan = self.row_plan(kernel, anchor, product, &n_tiles)?;
        let cut = self.cut(product, plan.as_ref(), n_tiles);
        self.tiling = cut.describe(product);
        let a_tile_bytes = (widest(&cut.m) * widest(&cut.k)) as u64 * element_bytes(product.a.dtype) as u64;
        // Panels alternate between two sets of buffers; streamed tiles of A go round like weights.
        let a_sets = if cut.resident { cut.k.len() } else { 4 };
        let panels: Vec<Vec<u32>> = match (cut.a_stays, cut.resident && cut.m.len() * cut.batches.len() > 1) {
            (Some(_), _) => Vec::new(),
            (None, true) => (0..2).map(|_| self.buffers(Filler::Load, a_tile_bytes, a_sets)).collect(),
            (None, false) => vec![self.buffers(Filler::Load, a_tile_bytes, a_sets)],
        };
        // Many tiles of weights arrive ahead of the array, so that DRAM is busy while the array waits for operands. Those of
        // the groups of a pass lie at equal distances.
        let groups = cut.groups;
        let b_bytes = self.emitter.allocated(cut.weights_bytes(product));
        let slabs = cut.n.len().div_ceil(cut.slab);
        let turns = match cut.slab {
            1 => {
                let all = cut.k.len() * together(&cut.n, groups).count() * cut.batches.len();
                (cut.ahead / groups).max(if groups > 1 { 2 } else { 4 }).min(all).max(1)
            }
            // All K-tiles of a slab are in use at a time.
            slab => cut.k.len() * (cut.ahead / slab / cut.k.len()).clamp(2, (slabs * cut.batches.len()).max(2)),
        };
        let weights: Vec<u32> = match cut.b_stays {
            Some(_) => Vec::new(),
            None if cut.slab > 1 => self.buffers(Filler::Load, b_bytes * cut.slab as u64, turns),
            None => {
                let places = self.buffers(Filler::Load, b_bytes * groups as u64, turns).into_iter();
                places.flat_map(|place| (0..groups).map(move |group| place + group as u32 * b_bytes as u32)).collect()
            }
        };
        let a_zero = self.zero_point(product.a_zero.as_ref());
        let b_zero = self.zero_point(product.b_zero.as_ref());
        let a_order = Order::of(&product.m, &product.k, A);
        let b_order = Order::of(&product.k, &product.n, B);
        let part = cut.part_rows();
        let parts = (self.machine.accumulators.rows as usize / part).max(1);
        let mut epilogue = self.begin_epilogue(kernel, product, plan, [&cut.m, &cut.n], cut.batches.len())?;
        let mut turn = Turn::default();
        let mut loaded: Vec<Held> = vec![None; weights.len()];
        let mut preloaded: Held = None;
        let (a_element, b_element) = (element_bytes(product.a.dtype), element_bytes(product.b.dtype));
        for batch in &cut.batches {
            for m in &cut.m {
                for (n_index, tiles) in together(&cut.n, groups) {
                    let row = turn.part % parts * part;
                    turn.part += 1;
                    turn.slab += usize::from(n_index % cut.slab == 0);
                    for (k_index, k) in cut.k.iter().enumerate() {
                        let start =
                            offset(batch, &product.batch, A) + offset(m, &product.m, A) + offset(k, &product.k, A);
                        let (a_address, (m_stride, k_stride)) = match cut.a_stays {
                            Some((strides, base)) => (base.wrapping_add_signed((start * a_element) as i32), strides),
                            None => {
                                let set = &panels[turn.panel % panels.len()];
                                let chip = if cut.resident { set[k_index] } else { set[turn.streamed % set.len()] };
                                if !cut.resident || n_index == 0 {
                                    let tiles = [(m, &product.m), (k, &product.k)];
                                    self.load_matrix(&product.a, start, tiles, A, a_order, chip);
                                    turn.streamed += 1;
                                }
                                (chip, a_order.strides(m.count(), k.count()))
                            }
                        };
                        let a = Matrix::new(a_address, product.a.dtype, (m_stride, k_stride), a_zero);
                        let from = |n: &Tile| {
                            offset(batch, &product.batch, B) + offset(k, &product.k, B) + offset(n, &product.n, B)
                        };
                        let key = |n: &Tile| Some((product.b.address(from(n)), [&k.lens[..], &n.lens[..]].concat()));
                        let first = from(&tiles[0]);
                        // A single tile of weights that serves every pass is preloaded once.
                        let same = !cut.sums_stay && cut.k.len() * cut.n.len() == 1 && preloaded == key(&tiles[0]);
                        if !same {
                            let n = tiles[0].count();
                            let (address, distance, (k_stride, n_stride)) = match cut.b_stays {
                                Some((strides, base)) => {
                                    let distance = tiles.get(1).map_or(0, |second| (from(second) - first) * b_element);
                                    (base.wrapping_add_signed((first * b_element) as i32), distance, strides)
                                }
                                None if cut.slab > 1 => {
                                    let within = n_index % cut.slab;
                                    let slot = (turn.slab * cut.k.len() + k_index) % turns;
                                    let from_slab = &cut.n[n_index - within..];
                                    let slab = joined(&from_slab[..cut.slab.min(from_slab.len())]);
                                    if loaded[slot] != key(&slab) {
                                        let both = [(k, &product.k), (&slab, &product.n)];
                                        self.load_matrix(&product.b, from(&slab), both, B, b_order, weights[slot]);
                                        loaded[slot] = key(&slab);
                                    }
                                    let strides = b_order.strides(k.count(), slab.count());
                                    let before = tiles[0].starts[0] - slab.starts[0];
                                    let first = weights[slot] + (before as i64 * b_element) as u32;
                                    (first, n as i64 * b_element, strides)
                                }
                                None => {
                                    let place = turn.weight % turns * groups;
                                    turn.weight += 1;
                                    for (tile, slot) in tiles.iter().zip(place..) {
                                        // Where there is room for all weights they are loaded once for all rows.
                                        if loaded[slot] != key(tile) {
                                            let both = [(k, &product.k), (tile, &product.n)];
                                            self.load_matrix(&product.b, from(tile), both, B, b_order, weights[slot]);
                                            loaded[slot] = key(tile);
                                        }
                                    }
                                    (weights[place], b_bytes as i64, b_order.strides(k.count(), n))
                                }
                            };
                            let b = Matrix::new(address, product.b.dtype, (k_stride, n_stride), b_zero);
                            if cut.sums_stay {
                                self.outer_passes(a, b, [m.count(), n, k.count()], row as u32, k_index > 0);
                                continue;
                            }
                            self.emitter.emit(Operation::Preload(Preload {
                                address,
                                dtype: product.b.dtype,
                                groups: tiles.len() as u16,
                                group_stride: if tiles.len() > 1 { distance as i32 } else { 0 },
                                k: k.count() as u16,
                                n: n as u16,
                                k_stride: b.row_stride,
                                n_stride: b.column_stride,
                                zero_point: b_zero,
                            }));
                            preloaded = key(&tiles[0]);
                        }
                        self.emitter.emit(Operation::Multiply(Multiply {
                            address: a_address,
                            dtype: product.a.dtype,
                            group_stride: 0,
                            m: m.count() as u32,
                            m_stride: a.row_stride,
                            k_stride: a.column_stride,
                            zero_point: a_zero,
                            accumulator_row: row as u32,
                            group_rows: if tiles.len() > 1 { m.count() as u32 } else { 0 },
                            accumulate: k_index > 0,
                            switch_weights: !same,
                        }));
                    }
                    for (group, n) in tiles.iter().enumerate() {
                        let accumulators = self.accumulator_tile(anchor, (row + group * m.count()) as u32, m, n);
                        self.epilogue(kernel, anchor, product, (batch, m, n), &accumulators, &mut epilogue)?;
                    }
                }
                turn.panel += 1;
            }
        }
        self.finish_epilogue(kernel, product, epilogue)
    }

    /// Loads a zero point and returns where it lies on chip.
    fn zero_point(&mut self, zero: Option<&Stored>) -> Option<u32> {
        let zero = zero?;
        let chip = self.emitter.allocate(Filler::Load, element_bytes(zero.dtype) as u64);
        self.move_tile(false, zero.address(0), zero.dtype, &[1], &[1], chip, &[1]);
        Some(chip)
    }

    /// Brings a tile of a matrix on chip: of its rows and columns the tile and the space each.
    pub(super) fn load_matrix(
        &mut self,
        operand: &Stored,
        start: i64,
        [(outer, outer_space), (inner, inner_space)]: [(&Tile, &Space); 2],
        which: usize,
        order: Order,
        chip: u32,
    ) {
        let dense = |lens: &[usize], unit: i64| -> Vec<i64> {
            tile::dense_strides(lens, |_| true).into_iter().map(|stride| stride * unit).collect()
        };
        let (outer_unit, inner_unit) = order.strides(outer.count(), inner.count());
        let lens = |first: &Tile, second: &Tile| [&first.lens[..], &second.lens[..]].concat();
        let (o, i) = (&outer_space.strides[which], &inner_space.strides[which]);
        let (o_chip, i_chip) = (dense(&outer.lens, outer_unit), dense(&inner.lens, inner_unit));
        let (lens, dram, chip_strides) = match order {
            Order::RowMajor => (lens(outer, inner), [&o[..], &i[..]].concat(), [o_chip, i_chip].concat()),
            Order::ColumnMajor => (lens(inner, outer), [&i[..], &o[..]].concat(), [i_chip, o_chip].concat()),
        };
        self.move_tile(false, operand.address(start), operand.dtype, &lens, &dram, chip, &chip_strides);
    }
}

/// Neighbouring tiles of one dimension as one.
fn joined(tiles: &[Tile]) -> Tile {
    let starts = tiles.first().map(|tile| tile.starts.clone()).unwrap_or_default();
    Tile { starts, lens: vec![tiles.iter().map(Tile::count).sum()] }
}

/// Tiles of columns that are worked on at a time, with the number of the first: up to `groups`, a power of two of them and
/// all of one shape and at equal distances, as groups of the array must be.
fn together(tiles: &[Tile], groups: usize) -> impl Iterator<Item = (usize, &[Tile])> {
    let mut next = 0;
    std::iter::from_fn(move || {
        let rest = tiles.get(next..).filter(|rest| !rest.is_empty())?;
        let distance = |tile: &Tile, before: &Tile| -> Vec<usize> {
            tile.starts.iter().zip(&before.starts).map(|(&start, &before)| start.wrapping_sub(before)).collect()
        };
        let alike = |count: usize| {
            rest.len() >= count
                && rest[..count].iter().all(|tile| tile.lens == rest[0].lens)
                && rest[..count].windows(2).all(|pair| distance(&pair[1], &pair[0]) == distance(&rest[1], &rest[0]))
        };
        let mut count = groups.max(1);
        while count > 1 && !alike(count) {
            count /= 2;
        }
        let first = next;
        next += count;
        Some((first, &rest[..count]))
    })
}

/// How a tile of a matrix lies in the scratchpad: the way that follows its contiguous dimension in DRAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    RowMajor,
    ColumnMajor,
}

impl Order {
    fn of(rows: &Space, columns: &Space, which: usize) -> Order {
        let innermost = |space: &Space| space.strides[which].last().map_or(i64::MAX, |stride| stride.abs());
        if innermost(columns) <= innermost(rows) { Order::RowMajor } else { Order::ColumnMajor }
    }

    /// Distances between rows and between columns of a dense tile, in elements.
    fn strides(self, rows: usize, columns: usize) -> (i64, i64) {
        match self {
            Order::RowMajor => (columns as i64, 1),
            Order::ColumnMajor => (1, rows as i64),
        }
    }
}
