//! Attention of many rows, as products of tiles on matrix units: a block has some rows, and goes over the keys panel by panel (Dao,
//! FlashAttention-2, arXiv 2307.08691).
//!
//! Each warp has rows of its own. It multiplies them with a panel of keys; of the scores, which are spread over its lanes, it makes
//! weights, corrected as it goes on; and these, written to shared memory as the units take them, it multiplies with the values.
//! Keys of the next panel are on their way while weights are made, values while scores are.

use tcc_ir::ops::{AttentionDims, BinaryFn, UnaryFn};
use tcc_ir::{DType, ValueId};

use super::super::Written;
use super::super::product::vector_of;
use super::SUM;
use super::heads::{Heads, Place};
use crate::kernel::{ExprId, Factor, IndexFn, Scalar, SharedId, Spread, Stmt, VarId};
use crate::lower::elements::{Coords, Elements, defect};
use crate::number::FoldFn;
use crate::simt::SimtMachine;
use crate::target::TargetError;

/// Bytes by which lines in shared memory are longer than what they hold, so that lanes find lines in different banks.
const SKEW: usize = 16;

/// Elements by which rows of 32 bits that lanes read one by one are longer.
const WIDE_SKEW: usize = 8;

/// Warps of a block, rows of a warp, and keys of a panel: from most reuse to most blocks.
const CANDIDATES: [[usize; 3]; 8] =
    [[4, 32, 64], [4, 32, 32], [4, 16, 64], [4, 16, 32], [2, 16, 64], [2, 16, 32], [1, 16, 64], [1, 16, 32]];

/// Registers of a thread that are for anything but scores and results.
const OTHER_REGISTERS: usize = 60;

/// Blocks for each multiprocessor above which they are not made smaller.
const MOST_BLOCKS: usize = 8;

/// Elements that a thread reads before it makes something of the first.
const AHEAD: u32 = 8;

/// How an attention is computed in tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::simt::lower) struct Tiles {
    warp: usize,
    warps: usize,
    /// Rows of a warp.
    rows: usize,
    /// Keys of a panel.
    keys: usize,
    /// What is multiplied.
    dtype: DType,
}

/// A matrix that is brought to shared memory.
#[derive(Clone, Copy, Debug)]
struct Panel {
    value: ValueId,
    shared: SharedId,
    lines: usize,
    width: usize,
    pitch: usize,
    /// Elements that are copied at once, if they need not pass through registers.
    vector: Option<u32>,
}

impl Tiles {
    /// All sizes for a machine that are not too large for it; none if its units do not multiply this.
    pub(super) fn all(machine: &SimtMachine, heads: &Heads, dtype: DType) -> Vec<Tiles> {
        let Some(unit) = &machine.tensor else { return Vec::new() };
        let (step, rate) = match dtype {
            DType::F16 | DType::BF16 => (16, unit.half_macs),
            DType::F32 => (8, unit.tf32_macs),
            _ => return Vec::new(),
        };
        let AttentionDims { depth, value_depth, .. } = heads.dims;
        let fits = depth.is_multiple_of(step) && value_depth.is_multiple_of(16);
        let sizes = (1..=256).contains(&depth) && (1..=256).contains(&value_depth);
        if rate == 0 || !fits || !sizes || !matches!(machine.warp, 32 | 64) {
            return Vec::new();
        }
        let with = |[warps, rows, keys]: [usize; 3]| Tiles { warp: machine.warp as usize, warps, rows, keys, dtype };
        let mut all: Vec<Tiles> =
            CANDIDATES.into_iter().map(with).filter(|tiles| tiles.fits(machine, &heads.dims)).collect();
        // Blocks of so few rows that there are many more than run at a time only read more.
        let blocks =
            |tiles: &Tiles| heads.dims.batch * heads.dims.groups * heads.rows().div_ceil(tiles.warps * tiles.rows);
        let most = MOST_BLOCKS * machine.multiprocessors as usize;
        if all.iter().any(|tiles| blocks(tiles) <= most) {
            all.retain(|tiles| blocks(tiles) <= most);
        } else {
            all.truncate(1);
        }
        all
    }

    /// Threads of a block.
    pub(super) fn threads(&self) -> u32 {
        (self.warps * self.warp) as u32
    }

    /// Rows of a block.
    fn block_rows(&self) -> usize {
        self.warps * self.rows
    }

    fn skew(&self) -> usize {
        SKEW / (self.dtype.bits() / 8)
    }

    /// Elements from row to row of values.
    fn value_pitch(&self, width: usize) -> usize {
        width + if self.dtype.bits() == 32 { WIDE_SKEW } else { self.skew() }
    }

    fn fits(&self, machine: &SimtMachine, dims: &AttentionDims) -> bool {
        let rows = self.block_rows();
        let skew = self.skew();
        let elements = (rows + self.keys) * (dims.depth + skew)
            + self.keys * self.value_pitch(dims.value_depth)
            + rows * (self.keys + skew);
        let bytes = elements * self.dtype.bits() / 8 + 4 * self.threads() as usize + 64;
        let registers = self.rows * (self.keys + dims.value_depth) / self.warp + OTHER_REGISTERS;
        bytes as u64 <= machine.shared.block_bytes
            && registers <= machine.thread_registers as usize
            && self.threads() <= machine.block_threads
    }

    /// Writes the kernel.
    pub(super) fn write(
        &self,
        elements: &mut Elements<'_>,
        heads: &Heads,
        outputs: &[ValueId],
    ) -> Result<Written, TargetError> {
        let AttentionDims { batch, groups, keys, depth, value_depth, .. } = heads.dims;
        let rows = self.block_rows();
        let builder = &mut elements.builder;
        let (thread, tile, group, batch_index) =
            (builder.thread(), builder.block(0), builder.block(1), builder.block(2));
        let first = builder.scaled(tile, rows as i32);
        let (own_warp, lane) = builder.divided(thread, self.warp as i32);
        let lane = builder.keep("lane", Scalar::I32, lane);
        let part = builder.scaled(own_warp, self.rows as i32);
        let part = builder.keep("part_row", Scalar::I32, part);
        let skew = self.skew();
        let panel = |elements: &mut Elements<'_>,
                     name: &str,
                     operand: usize,
                     lines: usize,
                     width: usize,
                     pitch: usize| {
            let value = heads.inputs[operand];
            let shared = elements.builder.shared(name, self.dtype, (lines * pitch) as u32);
            Panel { value, shared, lines, width, pitch, vector: vector_of(elements, value, self.dtype, true, width) }
        };
        let queries = panel(elements, "queries", 0, rows, depth, depth + skew);
        let key_panel = panel(elements, "keys", 1, self.keys, depth, depth + skew);
        let values = panel(elements, "values", 2, self.keys, value_depth, self.value_pitch(value_depth));
        let pitch = self.keys + skew;
        let weights = elements.builder.shared("weights", self.dtype, (rows * pitch) as u32);
        let scratch = elements.builder.shared("scratch", SUM, self.threads());
        let spread = |columns: usize| {
            Spread::new(self.warp as u32, columns as u32).ok_or_else(|| defect("the tiles of an attention do not fit"))
        };
        let (of_scores, of_sums) = (spread(self.keys)?, spread(value_depth)?);
        let slots = of_scores.rows(self.rows as u32);
        let builder = &mut elements.builder;
        let own_column = of_scores.own_column(builder, lane);
        let own_column = builder.keep("own_first", Scalar::I32, own_column);
        let (zero, least) = (builder.float(SUM, 0.0), builder.float(SUM, f64::NEG_INFINITY));
        let sums = builder.array("sums", Scalar::F32, of_sums.count(self.rows as u32), zero);
        let greatest = builder.array("greatest", Scalar::F32, slots, least);
        let totals = builder.array("totals", Scalar::F32, slots, zero);
        let mut block = Block {
            elements,
            heads,
            tiles: *self,
            batch: batch_index,
            group,
            first,
            part,
            lane,
            own_column,
            thread,
            panels: [queries, key_panel, values],
            weights,
            pitch,
            scratch,
            spreads: [of_scores, of_sums],
            rows: Vec::new(),
            sums,
            greatest,
            totals,
        };
        block.find_rows(slots);
        block.compute()?;
        block.store(outputs)?;
        let all = heads.rows();
        let tiling = format!(
            "{batch} × {groups} heads of keys, {all} rows of {keys} × {depth} each: {rows} rows a block and {} a warp on matrix units, \
             {} keys at a time",
            self.rows, self.keys
        );
        Ok(([all.div_ceil(rows) as u32, groups as u32, batch as u32], tiling))
    }
}

/// A row that a lane has scores of.
#[derive(Clone, Copy, Debug)]
struct Row {
    /// Its number in the block.
    within: ExprId,
    head: ExprId,
    query: ExprId,
}

/// What threads know of the block.
struct Block<'e, 'a> {
    elements: &'e mut Elements<'a>,
    heads: &'e Heads,
    tiles: Tiles,
    batch: ExprId,
    group: ExprId,
    /// The number of the first row, and of the warp's first in the block.
    first: ExprId,
    part: ExprId,
    lane: ExprId,
    /// The lane's first key of a panel, and its first element of a value.
    own_column: ExprId,
    thread: ExprId,
    /// Queries, keys and values in shared memory.
    panels: [Panel; 3],
    /// Weights in shared memory, and elements from row to row of them.
    weights: SharedId,
    pitch: usize,
    scratch: SharedId,
    /// How scores and results are spread over lanes.
    spreads: [Spread; 2],
    /// The rows of a lane.
    rows: Vec<Row>,
    /// Results, and of each row of a lane the greatest score and the lane's share of the sum of weights.
    sums: VarId,
    greatest: VarId,
    totals: VarId,
}

impl Block<'_, '_> {
    /// Finds the rows of a lane.
    fn find_rows(&mut self, slots: u32) {
        for slot in 0..slots {
            let builder = &mut self.elements.builder;
            let row = self.spreads[0].row_in(builder, self.lane, slot);
            let within = builder.add(self.part, row);
            let within = builder.keep("row", Scalar::I32, within);
            let number = self.heads.row(self.elements, self.first, within, self.tiles.block_rows());
            let number = self.elements.builder.keep("number", Scalar::I32, number);
            let (head, query) = self.heads.query(self.elements, self.group, number);
            self.rows.push(Row { within, head, query });
        }
    }

    /// Brings a panel to shared memory: queries, or keys or values from one on.
    fn load(&mut self, operand: usize, from: Option<ExprId>) -> Result<(), TargetError> {
        let panel = self.panels[operand];
        let threads = self.tiles.threads();
        let count = panel.vector.unwrap_or(1);
        let per_line = panel.width as u32 / count;
        let all = panel.lines as u32 * per_line;
        let rounds = all.div_ceil(threads);
        let is_whole = all.is_multiple_of(threads);
        if panel.vector.is_some() {
            let round = self.elements.builder.unrolled("i", rounds);
            self.elements.open();
            let (place, inside) = self.place(&panel, from, round, (per_line, count), is_whole);
            let Some(Spot { to, coords }) = place else { return Ok(()) };
            let (buffer, from) = self.elements.source(panel.value, &coords);
            self.elements.builder.push(Stmt::Copy { shared: panel.shared, to, buffer, from, count, when: inside });
            if !is_whole {
                self.elements.close();
            }
            self.elements.close();
            return Ok(());
        }
        // What passes through registers is read some at a time, before anything is made of it.
        let ahead = (1..=AHEAD.min(rounds)).rev().find(|ahead| rounds.is_multiple_of(*ahead)).unwrap_or(1);
        let builder = &mut self.elements.builder;
        let (none, end) = (builder.integer(0), builder.integer(rounds as i32));
        let round = builder.loop_over("i", none, end, ahead);
        self.elements.open();
        let mark = self.elements.builder.mark();
        for number in 0..ahead {
            let builder = &mut self.elements.builder;
            let more = builder.integer(number as i32);
            let round = builder.add(round, more);
            let (place, inside) = self.place(&panel, from, round, (per_line, 1), is_whole);
            let Some(Spot { to, coords }) = place else { continue };
            let element = self.elements.element(panel.value, &coords)?;
            let builder = &mut self.elements.builder;
            let zero = builder.float(SUM, 0.0);
            let element = builder.select(inside, element, zero);
            builder.store_shared(panel.shared, to, element);
            if !is_whole {
                self.elements.close();
            }
        }
        self.elements.builder.reads_first(mark);
        self.elements.close();
        Ok(())
    }

    /// Where a thread's element of a round goes and comes from, and whether it is one that counts; opens a scope for those threads
    /// that have one, unless all have.
    fn place(
        &mut self,
        panel: &Panel,
        from: Option<ExprId>,
        round: ExprId,
        (per_line, count): (u32, u32),
        is_whole: bool,
    ) -> (Option<Spot>, ExprId) {
        let threads = self.tiles.threads();
        let builder = &mut self.elements.builder;
        let before = builder.scaled(round, threads as i32);
        let item = builder.add(before, self.thread);
        if !is_whole {
            let there = builder.below(item, (panel.lines as u32 * per_line) as i32);
            builder.when(there);
            self.elements.open();
        }
        let builder = &mut self.elements.builder;
        // Where threads fill whole lines, their places in them are the same in each round.
        let (line, within) = if threads.is_multiple_of(per_line) {
            let (line, within) = builder.divided(self.thread, per_line as i32);
            let before = builder.scaled(round, (threads / per_line) as i32);
            (builder.add(line, before), within)
        } else {
            builder.divided(item, per_line as i32)
        };
        let within = builder.scaled(within, count as i32);
        let before = builder.scaled(line, panel.pitch as i32);
        let to = builder.add(before, within);
        let coords: Coords = match from {
            None => {
                let number = self.heads.row(self.elements, self.first, line, self.tiles.block_rows());
                let (head, query) = self.heads.query(self.elements, self.group, number);
                [self.batch, head, query, within].into_iter().collect()
            }
            Some(from) => {
                let builder = &mut self.elements.builder;
                let key = builder.add(from, line);
                let keys = self.heads.dims.keys;
                if !keys.is_multiple_of(self.tiles.keys) {
                    let inside = builder.below(key, keys as i32);
                    let last = builder.integer(keys as i32 - 1);
                    let key = builder.index(IndexFn::Min, key, last);
                    let coords = [self.batch, self.group, key, within].into_iter().collect();
                    return (Some(Spot { to, coords }), inside);
                }
                [self.batch, self.group, key, within].into_iter().collect()
            }
        };
        let inside = self.elements.builder.integer(1);
        (Some(Spot { to, coords }), inside)
    }

    /// The first and the last query of the block, if its rows are of one head.
    fn queries(&mut self) -> Option<(ExprId, ExprId)> {
        let (rows, queries) = (self.tiles.block_rows(), self.heads.dims.queries);
        if !queries.is_multiple_of(rows) {
            return None;
        }
        let builder = &mut self.elements.builder;
        let (_, first) = builder.divided(self.first, queries as i32);
        let behind = builder.integer(rows as i32 - 1);
        Some((first, builder.add(first, behind)))
    }

    /// Goes over all keys that a row of the block sees.
    fn compute(&mut self) -> Result<(), TargetError> {
        let keys = self.tiles.keys;
        let span = self.queries();
        let (begin, end) = match span {
            Some(span) => self.heads.visible(self.elements, span),
            None => (None, None),
        };
        let builder = &mut self.elements.builder;
        let (none, all) = (builder.integer(0), builder.integer(self.heads.dims.keys as i32));
        let from = begin.map_or(none, |begin| {
            let (panel, _) = builder.divided(begin, keys as i32);
            builder.scaled(panel, keys as i32)
        });
        let to = end.map_or(all, |end| builder.index(IndexFn::Min, end, all));
        self.load(0, None)?;
        let is_some = self.elements.builder.index(IndexFn::Lt, from, to);
        self.when(is_some, |block| block.load(1, Some(from)))?;
        self.elements.builder.push(Stmt::Commit);
        self.when(is_some, |block| block.load(2, Some(from)))?;
        self.elements.builder.push(Stmt::Commit);
        let start = self.elements.builder.loop_over("start", from, to, keys as u32);
        self.elements.open();
        // Keys are there, and values may not be.
        self.elements.builder.push(Stmt::Await(1));
        self.elements.builder.barrier();
        let scores = self.score();
        let masks = self.key_masks(start)?;
        self.elements.builder.barrier();
        let builder = &mut self.elements.builder;
        let each = builder.integer(keys as i32);
        let next = builder.add(start, each);
        let more = builder.index(IndexFn::Lt, next, to);
        self.when(more, |block| block.load(1, Some(next)))?;
        self.elements.builder.push(Stmt::Commit);
        self.weigh(scores, masks, (start, span))?;
        self.elements.builder.push(Stmt::Await(1));
        self.elements.builder.barrier();
        let depth = self.heads.dims.value_depth as u32;
        let builder = &mut self.elements.builder;
        let at = builder.scaled(self.part, self.pitch as i32);
        let weights = Factor { shared: self.weights, at, pitch: self.pitch as u32 };
        let values = Factor { shared: self.panels[2].shared, at: none, pitch: self.panels[2].pitch as u32 };
        builder.multiply(self.sums, [self.tiles.rows as u32, depth, keys as u32], weights, values, true);
        builder.barrier();
        self.when(more, |block| block.load(2, Some(next)))?;
        self.elements.builder.push(Stmt::Commit);
        self.elements.close();
        Ok(())
    }

    /// Does something where a condition holds.
    fn when(
        &mut self,
        condition: ExprId,
        work: impl FnOnce(&mut Self) -> Result<(), TargetError>,
    ) -> Result<(), TargetError> {
        if self.elements.builder.known_index(condition) == Some(1) {
            self.elements.enter();
            work(self)?;
            self.elements.leave();
            return Ok(());
        }
        self.elements.builder.when(condition);
        self.elements.open();
        work(self)?;
        self.elements.close();
        Ok(())
    }

    /// The products of the warp's rows with a panel of keys.
    fn score(&mut self) -> VarId {
        let Tiles { rows, keys, .. } = self.tiles;
        let depth = self.heads.dims.depth as u32;
        let [queries, panel, _] = self.panels;
        let builder = &mut self.elements.builder;
        let zero = builder.float(SUM, 0.0);
        let scores = builder.array("scores", Scalar::F32, self.spreads[0].count(rows as u32), zero);
        let (at, none) = (builder.scaled(self.part, queries.pitch as i32), builder.integer(0));
        let left = Factor { shared: queries.shared, at, pitch: queries.pitch as u32 };
        let right = Factor { shared: panel.shared, at: none, pitch: panel.pitch as u32 };
        builder.multiply(scores, [rows as u32, keys as u32, depth], left, right, false);
        scores
    }

    /// Columns of a lane in each row.
    fn columns(&self, spread: Spread, columns: usize) -> u32 {
        columns as u32 / spread.tile_columns() * spread.columns_of_tile()
    }

    /// How far behind the lane's first column another is that it has; and the index of its sum in a row.
    fn column(&mut self, number: usize, (slot, column): (usize, ExprId)) -> (ExprId, ExprId) {
        let spread = self.spreads[number];
        let builder = &mut self.elements.builder;
        let own = spread.columns_of_tile();
        let (tile, within) = builder.divided(column, own as i32);
        let sum = spread.sum_in(builder, slot as u32, (tile, within));
        let at = spread.column_in(builder, (tile, within));
        (at, sum)
    }

    /// What a mask that is the same for all rows has for the keys of a panel: for each of a lane's columns.
    fn key_masks(&mut self, start: ExprId) -> Result<Option<VarId>, TargetError> {
        if !self.heads.masks_keys_alone(self.elements) {
            return Ok(None);
        }
        let row = self.rows[0];
        self.masks(start, row)
    }

    /// The elements of the mask in a row of a panel, for each of a lane's columns.
    fn masks(&mut self, start: ExprId, row: Row) -> Result<Option<VarId>, TargetError> {
        let Some(scalar) = self.heads.mask_scalar(self.elements) else { return Ok(None) };
        let columns = self.columns(self.spreads[0], self.tiles.keys);
        let builder = &mut self.elements.builder;
        let nothing = if scalar == Scalar::F32 { builder.float(SUM, 0.0) } else { builder.integer(0) };
        let masks = builder.array("masks", scalar, columns, nothing);
        let first = builder.add(start, self.own_column);
        let first = builder.keep("first_key", Scalar::I32, first);
        let column = builder.unrolled("column", columns);
        self.elements.open();
        let (within, _) = self.column(0, (0, column));
        let builder = &mut self.elements.builder;
        let key = builder.add(first, within);
        let keys = self.heads.dims.keys;
        let last = builder.integer(keys as i32 - 1);
        let key = if keys.is_multiple_of(self.tiles.keys) { key } else { builder.index(IndexFn::Min, key, last) };
        let place = Place { batch: self.batch, head: row.head, query: row.query, key };
        if let Some(mask) = self.heads.mask(self.elements, place)? {
            self.elements.builder.set_element(masks, column, mask);
        }
        self.elements.close();
        Ok(Some(masks))
    }

    /// Whether keys of a panel may be out of sight of some row, or not there: nothing if none ever is.
    fn is_edge(&mut self, start: ExprId, span: Option<(ExprId, ExprId)>) -> Option<ExprId> {
        let keys = self.tiles.keys;
        let is_ragged = !self.heads.dims.keys.is_multiple_of(keys);
        if self.heads.op.causal.is_none() && !is_ragged {
            return None;
        }
        let builder = &mut self.elements.builder;
        let each = builder.integer(keys as i32);
        let end = builder.add(start, each);
        let all = builder.integer(self.heads.dims.keys as i32);
        let mut edge = if is_ragged { builder.index(IndexFn::Lt, all, end) } else { builder.integer(0) };
        if self.heads.op.causal.is_some() {
            let Some((first, last)) = span else { return Some(builder.integer(1)) };
            // What the first row sees last, and what the last sees first.
            let (_, seen) = self.heads.visible(self.elements, (first, first));
            let (begin, _) = self.heads.visible(self.elements, (last, last));
            let builder = &mut self.elements.builder;
            for (a, b) in [(seen, Some(end)), (Some(start), begin)] {
                if let (Some(a), Some(b)) = (a, b) {
                    let is_beyond = builder.index(IndexFn::Lt, a, b);
                    edge = builder.index(IndexFn::Or, edge, is_beyond);
                }
            }
        }
        Some(edge)
    }

    /// Makes weights of scores, and corrects what was summed.
    fn weigh(
        &mut self,
        scores: VarId,
        key_masks: Option<VarId>,
        (start, span): (ExprId, Option<(ExprId, ExprId)>),
    ) -> Result<(), TargetError> {
        let columns = self.columns(self.spreads[0], self.tiles.keys);
        let op = self.heads.op;
        // Scores that nothing but the scale changes are scaled where their exponentials are taken.
        let is_scaled_late = op.scale.0 > 0.0 && op.softcap.0 == 0.0 && !op.mask;
        if !is_scaled_late {
            for slot in 0..self.rows.len() {
                self.bend(scores, key_masks, (start, slot))?;
            }
        }
        if let Some(edge) = self.is_edge(start, span) {
            self.when(edge, |block| {
                (0..block.rows.len()).for_each(|slot| block.hide(scores, (start, slot)));
                Ok(())
            })?;
        }
        let scale = if is_scaled_late { op.scale.0 } else { 1.0 };
        let lanes = self.spreads[0].lanes_of_row();
        let mut found = Vec::with_capacity(self.rows.len());
        for slot in 0..self.rows.len() {
            let builder = &mut self.elements.builder;
            let index = builder.integer(slot as i32);
            let before = builder.element(self.greatest, index);
            let highest = builder.declare("highest", Scalar::F32, before);
            let column = builder.unrolled("column", columns);
            let (_, sum) = self.column(0, (slot, column));
            let builder = &mut self.elements.builder;
            let (so_far, score) = (builder.get(highest), builder.element(scores, sum));
            let next = builder.binary(BinaryFn::Max, SUM, so_far, score);
            builder.set(highest, next);
            builder.end();
            found.push(highest);
        }
        for &highest in &found {
            self.elements.builder.reduce(highest, FoldFn::Max, SUM, lanes, self.scratch);
        }
        let depth_columns = self.columns(self.spreads[1], self.heads.dims.value_depth);
        for (slot, highest) in found.into_iter().enumerate() {
            let builder = &mut self.elements.builder;
            let (zero, least) = (builder.float(SUM, 0.0), builder.float(SUM, f64::NEG_INFINITY));
            let (scale, index) = (builder.float(SUM, scale), builder.integer(slot as i32));
            let after = builder.get(highest);
            // Where nothing is seen yet, weights are 0 and not what infinity less infinity is.
            let nothing = builder.binary(BinaryFn::Eq, SUM, after, least);
            let offset = builder.select(nothing, zero, after);
            let minus = builder.unary(UnaryFn::Neg, SUM, offset);
            let minus = builder.binary(BinaryFn::Mul, SUM, minus, scale);
            let minus = builder.keep("minus_offset", Scalar::F32, minus);
            let before = builder.element(self.greatest, index);
            let less = builder.mul_add(SUM, before, scale, minus);
            let correction = builder.unary(UnaryFn::Exp, SUM, less);
            let correction = builder.keep("correction", Scalar::F32, correction);
            builder.set_element(self.greatest, index, after);
            let total = builder.element(self.totals, index);
            let total = builder.binary(BinaryFn::Mul, SUM, total, correction);
            let total = builder.declare("total", Scalar::F32, total);
            let line = builder.scaled(self.rows[slot].within, self.pitch as i32);
            let line = builder.add(line, self.own_column);
            let line = builder.keep("line", Scalar::I32, line);
            // Step by step for all keys, so that none waits for the one before.
            let column = builder.unrolled("column", columns);
            let (_, sum) = self.column(0, (slot, column));
            let builder = &mut self.elements.builder;
            let score = builder.element(scores, sum);
            let less = builder.mul_add(SUM, score, scale, minus);
            builder.set_element(scores, sum, less);
            builder.end();
            let column = builder.unrolled("column", columns);
            let (_, sum) = self.column(0, (slot, column));
            let builder = &mut self.elements.builder;
            let less = builder.element(scores, sum);
            let weight = builder.unary(UnaryFn::Exp, SUM, less);
            builder.set_element(scores, sum, weight);
            builder.end();
            let column = builder.unrolled("column", columns);
            let (within, sum) = self.column(0, (slot, column));
            let builder = &mut self.elements.builder;
            let (so_far, weight) = (builder.get(total), builder.element(scores, sum));
            let next = builder.binary(BinaryFn::Add, SUM, so_far, weight);
            builder.set(total, next);
            let at = builder.add(line, within);
            builder.store_shared(self.weights, at, weight);
            builder.end();
            let total = builder.get(total);
            builder.set_element(self.totals, index, total);
            let column = builder.unrolled("column", depth_columns);
            let (_, sum) = self.column(1, (slot, column));
            let builder = &mut self.elements.builder;
            let so_far = builder.element(self.sums, sum);
            let corrected = builder.binary(BinaryFn::Mul, SUM, so_far, correction);
            builder.set_element(self.sums, sum, corrected);
            builder.end();
        }
        Ok(())
    }

    /// Scales the scores of a row, and has cap and mask change them.
    fn bend(
        &mut self,
        scores: VarId,
        key_masks: Option<VarId>,
        (start, slot): (ExprId, usize),
    ) -> Result<(), TargetError> {
        let row = self.rows[slot];
        let masks = match key_masks {
            Some(masks) => Some(masks),
            None => self.masks(start, row)?,
        };
        let columns = self.columns(self.spreads[0], self.tiles.keys);
        let column = self.elements.builder.unrolled("column", columns);
        let (_, sum) = self.column(0, (slot, column));
        let builder = &mut self.elements.builder;
        let (score, scale) = (builder.element(scores, sum), builder.float(SUM, self.heads.op.scale.0));
        let product = builder.binary(BinaryFn::Mul, SUM, score, scale);
        let mask = masks.map(|masks| builder.element(masks, column));
        let bent = self.heads.bent(self.elements, product, mask);
        self.elements.builder.set_element(scores, sum, bent);
        self.elements.builder.end();
        Ok(())
    }

    /// Leaves nothing of scores whose keys a row does not see, or that are not there.
    fn hide(&mut self, scores: VarId, (start, slot): (ExprId, usize)) {
        let columns = self.columns(self.spreads[0], self.tiles.keys);
        let query = self.rows[slot].query;
        let first = self.elements.builder.add(start, self.own_column);
        let column = self.elements.builder.unrolled("column", columns);
        let (within, sum) = self.column(0, (slot, column));
        let builder = &mut self.elements.builder;
        let key = builder.add(first, within);
        let mut score = builder.element(scores, sum);
        if !self.heads.dims.keys.is_multiple_of(self.tiles.keys) {
            let least = builder.float(SUM, f64::NEG_INFINITY);
            let inside = builder.below(key, self.heads.dims.keys as i32);
            score = builder.select(inside, score, least);
        }
        let score = self.heads.seen(self.elements, score, (query, key));
        self.elements.builder.set_element(scores, sum, score);
        self.elements.builder.end();
    }

    /// Writes results.
    fn store(&mut self, outputs: &[ValueId]) -> Result<(), TargetError> {
        let all = self.heads.rows();
        let guarded = !all.is_multiple_of(self.tiles.block_rows());
        let columns = self.columns(self.spreads[1], self.heads.dims.value_depth);
        let lanes = self.spreads[0].lanes_of_row();
        let mut found = Vec::with_capacity(self.rows.len());
        for slot in 0..self.rows.len() {
            let builder = &mut self.elements.builder;
            let index = builder.integer(slot as i32);
            let own = builder.element(self.totals, index);
            found.push(builder.declare("total", Scalar::F32, own));
        }
        // What is combined together does not wait for each other.
        for &total in &found {
            self.elements.builder.reduce(total, FoldFn::Sum, SUM, lanes, self.scratch);
        }
        for (slot, total) in found.into_iter().enumerate() {
            let Row { within, head, query } = self.rows[slot];
            let total = self.elements.builder.get(total);
            if guarded {
                let builder = &mut self.elements.builder;
                let number = builder.add(self.first, within);
                let there = builder.below(number, all as i32);
                builder.when(there);
                self.elements.open();
            }
            let column = self.elements.builder.unrolled("column", columns);
            self.elements.open();
            let (e, sum) = self.column(1, (slot, column));
            let builder = &mut self.elements.builder;
            let e = builder.add(self.own_column, e);
            let e = builder.keep("e", Scalar::I32, e);
            let sum = builder.element(self.sums, sum);
            self.heads.write(self.elements, [self.batch, head, query, e], (sum, total), outputs)?;
            self.elements.close();
            if guarded {
                self.elements.close();
            }
        }
        Ok(())
    }
}

/// Where an element of a panel goes, and its coordinates.
struct Spot {
    to: ExprId,
    coords: Coords,
}
