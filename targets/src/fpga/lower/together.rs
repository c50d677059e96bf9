//! Products of all matrices of a batch in one loop.
//!
//! Where each head of keys or values has few rows of queries, a loop for each would spend much of its time on filling pipelines and on waiting for
//! the first that memory gives. So all rows are staged first, then all matrices go by in one loop, and then follows what is done with
//! the sums. Iterations that follow each other add to different sums, in a local array, so that no addition waits for another.

use tcc_ir::ValueId;
use tcc_ir::ops::BinaryFn;

use super::columns::{Block, Columns};
use super::{power_in, tree, zero};
use crate::kernel::check::wide;
use crate::kernel::{ExprId, IndexFn, Scalar, SharedId};
use crate::lower::Written;
use crate::lower::elements::Elements;
use crate::target::TargetError;

/// Most elements of rows, and of sums, that are kept for all matrices.
pub(super) const MOST: usize = 1 << 16;

/// Fewest matrices and tiles that are gone through together: with fewer, adding up what iterations have added to by turns takes longer
/// than is saved.
const FEWEST: usize = 4;

/// What is kept of all matrices, an array for each row.
struct Kept {
    /// Rows of A, matrix by matrix.
    rows: Vec<SharedId>,
    /// Sums: matrix by matrix, tile by tile, those that iterations add to by turns.
    sums: Vec<SharedId>,
    /// What they add up to, matrix by matrix, tile by tile: apart from them, so that what is written is nothing that is read.
    totals: Vec<SharedId>,
}

impl Columns {
    /// Whether all matrices are gone through in one loop.
    pub fn is_together(&self) -> bool {
        let Columns { product, batch, rows, steps, partials, lanes, packed, .. } = self;
        let (matrices, parts) = (batch.matrices(), product.k / *steps as usize);
        let rows_fit = matrices * product.k * *rows as usize <= MOST;
        let turns = self.turns() as usize;
        let sums_fit = matrices * (product.n / *lanes as usize) * turns * (lanes * rows) as usize <= MOST;
        let is_plain = product.sum.is_float() && packed.is_none() && batch.rows() <= *rows as usize;
        let is_plain = is_plain && matrices > 1 && matrices * self.tiles() as usize >= FEWEST;
        is_plain && rows_fit && sums_fit && parts.is_multiple_of(turns) && turns >= *partials as usize
    }

    /// Sums that iterations add to by turns: in memory, which takes longer than in registers.
    fn turns(&self) -> u32 {
        power_in(self.product.k / self.steps as usize, 2 * self.partials)
    }

    /// Elements of a row that are staged at once, a lane for each.
    fn staged(&self) -> u32 {
        power_in(self.product.k, (self.lanes / 2).max(self.steps).min(self.lanes))
    }

    fn tiles(&self) -> u32 {
        self.product.n as u32 / self.lanes
    }

    /// Writes the kernel.
    ///
    /// # Errors
    /// A defect.
    pub fn write_together(&self, elements: &mut Elements<'_>, outputs: &[ValueId]) -> Result<Written, TargetError> {
        let Columns { product, batch, lanes, rows, steps, .. } = self;
        let matrices = batch.matrices() as u32;
        let builder = &mut elements.builder;
        let kept = Kept {
            rows: (0..*rows).map(|_| builder.shared("row", self.stored, matrices * product.k as u32)).collect(),
            sums: (0..*rows)
                .map(|_| builder.shared("sums", wide(product.sum), matrices * self.tiles() * self.turns() * lanes))
                .collect(),
            totals: (0..*rows)
                .map(|_| builder.shared("totals", wide(product.sum), matrices * self.tiles() * lanes))
                .collect(),
        };
        self.stage_all(elements, &kept)?;
        self.multiply_all(elements, &kept)?;
        self.add_turns(elements, &kept);
        self.finish_all(elements, &kept, outputs)?;
        let about = batch.about(product);
        let tiling =
            format!("{about}: {rows} rows by {lanes} columns at a time, {steps} steps an iteration, all in one loop");
        Ok(([1, 1, 1], tiling))
    }

    /// A row of A of a number; where there is none, the last.
    fn row_of(&self, elements: &mut Elements<'_>, number: usize) -> ExprId {
        elements.builder.integer(number.min(self.batch.rows() - 1) as i32)
    }

    fn stage_all(&self, elements: &mut Elements<'_>, kept: &Kept) -> Result<(), TargetError> {
        let (product, width) = (&self.product, self.staged());
        let builder = &mut elements.builder;
        let (nothing, lane) = (builder.integer(0), builder.thread());
        let (end, last) =
            (builder.integer(self.batch.matrices() as i32), builder.integer(product.k as i32 / width as i32));
        let matrix = builder.loop_over("matrix", nothing, end, 1);
        let part = builder.loop_over("part", nothing, last, 1);
        elements.open();
        let guarded = width < self.lanes;
        if guarded {
            let reads = elements.builder.below(lane, width as i32);
            elements.builder.when(reads);
        }
        let builder = &mut elements.builder;
        let depth = builder.place(part, &[(width, lane)]);
        let to = builder.place(matrix, &[(product.k as u32, depth)]);
        for (number, &array) in kept.rows.iter().enumerate() {
            elements.enter();
            let row = self.row_of(elements, number);
            let (lead, row) = self.batch.of_row(elements, matrix, row);
            let coords = product.coords(elements, 0, &lead, row, depth);
            let element = elements.element(product.factors[0], &coords)?;
            elements.builder.store_shared(array, to, element);
            elements.leave();
        }
        if guarded {
            elements.builder.end();
        }
        elements.close();
        elements.builder.end();
        Ok(())
    }

    /// Where the sums of a tile of a matrix lie, of a turn.
    fn place(&self, elements: &mut Elements<'_>, [matrix, tile, turn]: [ExprId; 3], lane: ExprId) -> ExprId {
        let builder = &mut elements.builder;
        let at = builder.place(matrix, &[(self.tiles(), tile), (self.turns(), turn)]);
        let at = builder.scaled(at, self.lanes as i32);
        builder.add(at, lane)
    }

    /// Where their totals lie.
    fn total_place(&self, elements: &mut Elements<'_>, [matrix, tile]: [ExprId; 2], lane: ExprId) -> ExprId {
        let builder = &mut elements.builder;
        let at = builder.place(matrix, &[(self.tiles(), tile)]);
        let at = builder.scaled(at, self.lanes as i32);
        builder.add(at, lane)
    }

    fn multiply_all(&self, elements: &mut Elements<'_>, kept: &Kept) -> Result<(), TargetError> {
        let Columns { product, rows, steps, .. } = self;
        let sum = product.sum;
        let types = product.factors.map(|factor| elements.graph().ty(factor).dtype);
        let tiles = self.tiles();
        let builder = &mut elements.builder;
        let (nothing, lane, start) = (builder.integer(0), builder.thread(), zero(builder, sum));
        let [matrices, last_tile, turns, rounds] =
            [self.batch.matrices() as u32, tiles, self.turns(), product.k as u32 / (steps * self.turns())]
                .map(|count| builder.integer(count as i32));
        let matrix = builder.loop_over("matrix", nothing, matrices, 1);
        let tile = if tiles == 1 { nothing } else { builder.loop_over("tile", nothing, last_tile, 1) };
        let round = builder.loop_over("round", nothing, rounds, 1);
        let turn = builder.loop_over("turn", nothing, turns, 1);
        elements.open();
        let builder = &mut elements.builder;
        let part = builder.place(round, &[(self.turns(), turn)]);
        let first = builder.scaled(part, *steps as i32);
        let weights = builder.array("weights", Scalar::of(sum), *steps, start);
        let step = builder.unrolled("step", *steps);
        elements.open();
        let depth = elements.builder.add(first, step);
        let block = Block { matrix, first: nothing, staged: Vec::new(), sums: kept.sums[0], packed: None };
        let b = self.weight(elements, &block, tile, depth)?;
        let builder = &mut elements.builder;
        let b = builder.convert_register(types[1], sum, b);
        builder.set_element(weights, step, b);
        elements.close();
        let builder = &mut elements.builder;
        let from = builder.place(matrix, &[(product.k as u32, first)]);
        for row in 0..*rows as usize {
            let builder = &mut elements.builder;
            let products = (0..*steps as i32)
                .map(|step| {
                    let step = builder.integer(step);
                    let at = builder.add(from, step);
                    let a = builder.load_shared(kept.rows[row], at, "a");
                    let a = builder.convert_register(types[0], sum, a);
                    let b = builder.element(weights, step);
                    builder.binary(BinaryFn::Mul, sum, a, b)
                })
                .collect();
            let own = tree(builder, sum, products);
            let place = self.place(elements, [matrix, tile, turn], lane);
            let builder = &mut elements.builder;
            let so_far = builder.load_shared(kept.sums[row], place, "so_far");
            let is_first = builder.index(IndexFn::Eq, round, nothing);
            let so_far = builder.select(is_first, start, so_far);
            let next = builder.binary(BinaryFn::Add, sum, so_far, own);
            builder.store_shared(kept.sums[row], place, next);
        }
        elements.close();
        (0..2 + u32::from(tiles > 1)).for_each(|_| elements.builder.end());
        Ok(())
    }

    /// Adds up what iterations have added to by turns: turn by turn of all matrices, so that no addition waits for another.
    fn add_turns(&self, elements: &mut Elements<'_>, kept: &Kept) {
        let tiles = self.tiles();
        let builder = &mut elements.builder;
        let (nothing, lane) = (builder.integer(0), builder.thread());
        let [turns, matrices, last_tile] =
            [self.turns(), self.batch.matrices() as u32, tiles].map(|count| builder.integer(count as i32));
        let turn = builder.loop_over("turn", nothing, turns, 1);
        let matrix = builder.loop_over("matrix", nothing, matrices, 1);
        let tile = if tiles == 1 { nothing } else { builder.loop_over("tile", nothing, last_tile, 1) };
        elements.open();
        for (&sums, &totals) in kept.sums.iter().zip(&kept.totals) {
            let from = self.place(elements, [matrix, tile, turn], lane);
            let to = self.total_place(elements, [matrix, tile], lane);
            let builder = &mut elements.builder;
            let (so_far, own) =
                (builder.load_shared(totals, to, "so_far"), builder.load_shared(sums, from, "partial_sum"));
            let start = zero(builder, self.product.sum);
            let is_first = builder.index(IndexFn::Eq, turn, nothing);
            let so_far = builder.select(is_first, start, so_far);
            let next = builder.binary(BinaryFn::Add, self.product.sum, so_far, own);
            builder.store_shared(totals, to, next);
        }
        elements.close();
        (0..1 + u32::from(tiles > 1)).for_each(|_| elements.builder.end());
    }

    fn finish_all(&self, elements: &mut Elements<'_>, kept: &Kept, outputs: &[ValueId]) -> Result<(), TargetError> {
        let Columns { product, batch, lanes, few, .. } = self;
        let (tiles, parts) = (self.tiles(), lanes / few);
        let builder = &mut elements.builder;
        let (nothing, thread) = (builder.integer(0), builder.thread());
        let [matrices, last_tile, last] =
            [batch.matrices() as u32, tiles, parts].map(|count| builder.integer(count as i32));
        let matrix = builder.loop_over("matrix", nothing, matrices, 1);
        let tile = if tiles == 1 { nothing } else { builder.loop_over("tile", nothing, last_tile, 1) };
        let part = if parts == 1 { nothing } else { builder.loop_over("part", nothing, last, 1) };
        elements.open();
        let builder = &mut elements.builder;
        if parts > 1 {
            let works = builder.below(thread, *few as i32);
            builder.when(works);
        }
        let lane = builder.place(part, &[(*few, thread)]);
        let column = builder.place(tile, &[(*lanes, lane)]);
        for number in 0..batch.rows() {
            elements.enter();
            let place = self.total_place(elements, [matrix, tile], lane);
            let total = elements.builder.load_shared(kept.totals[number], place, "sum");
            let total = elements.builder.keep("total", Scalar::of(product.sum), total);
            let row = self.row_of(elements, number);
            let (lead, row) = batch.of_row(elements, matrix, row);
            let coords = product.result_coords(elements, &lead, row, column);
            elements.hold(product.result, &coords, total);
            outputs.iter().try_for_each(|&output| elements.store(output, &coords))?;
            elements.leave();
        }
        if parts > 1 {
            elements.builder.end();
        }
        elements.close();
        (0..u32::from(tiles > 1) + u32::from(parts > 1)).for_each(|_| elements.builder.end());
        Ok(())
    }
}
