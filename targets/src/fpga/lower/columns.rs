//! Products with lanes along the columns of the result.
//!
//! Some rows of A are brought to local arrays, one for each, such that elements of all rows are read in one cycle. Then, tile of
//! columns by tile of columns, every lane adds up the products of its column with all of these rows, several steps along the K-dimension
//! in an iteration; what follows a product is done row by row.
//!
//! An addition of floats takes longer than an iteration. So sums go round: each row has several of them in registers, an iteration
//! adds to the first, every sum moves on to the register before its own, and the new one enters at the end. An addition has as many
//! iterations as there are registers until its result is added to.

use tcc_ir::ops::BinaryFn;
use tcc_ir::{DType, ValueId};

use super::batch::Batch;
use super::paired::Paired;
use super::{power_in, tree, zero};
use crate::kernel::check::wide;
use crate::kernel::{BufferId, Builder, ExprId, IndexFn, Scalar, SharedId, VarId};
use crate::lower::Written;
use crate::lower::elements::Elements;
use crate::lower::product::Product;
use crate::target::TargetError;

/// How a product is shared out.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    pub product: Product,
    pub batch: Batch,
    /// Columns at a time, a divisor of all.
    pub lanes: u32,
    /// Rows at a time.
    pub rows: u32,
    /// Steps along the K-dimension in an iteration, a divisor of all.
    pub steps: u32,
    /// Sums of a row that iterations add to by turns.
    pub partials: u32,
    /// What B is packed as, if it is a constant: tile by tile, step by step.
    pub packed: Option<u32>,
    /// The type of A.
    pub stored: DType,
    /// Lanes that do what follows the products, a divisor of all.
    pub few: u32,
    /// What is written of B on the way, if B is a view of it.
    pub cache: Option<ValueId>,
}

/// How many times as much as products use in an iteration is staged in one, for one tile: two rows in a cycle, so that staging takes a
/// sixteenth of the products' time.
const STAGED: u32 = 8;

/// What is known in a kernel for one block of rows.
pub(super) struct Block {
    /// The matrix of B.
    pub matrix: ExprId,
    /// The first row.
    pub first: ExprId,
    /// Rows of A.
    pub staged: Vec<SharedId>,
    /// What lanes have summed up, row by row.
    pub sums: SharedId,
    /// The parameter that holds B, if it is packed.
    pub packed: Option<BufferId>,
}

impl Columns {
    /// Writes the kernel.
    ///
    /// # Errors
    /// A defect.
    pub fn write(&self, elements: &mut Elements<'_>, outputs: &[ValueId]) -> Result<Written, TargetError> {
        if self.is_together() {
            return self.write_together(elements, outputs);
        }
        let Columns { product, batch, lanes, rows, steps, .. } = self;
        let builder = &mut elements.builder;
        let (matrix, block) = (builder.block(1), builder.block(0));
        let first = builder.scaled(block, *rows as i32);
        let first = builder.keep("first_row", Scalar::I32, first);
        let staged = (0..*rows).map(|_| builder.shared("row", self.stored, product.k as u32)).collect();
        let sums = builder.shared("sums", wide(product.sum), rows * lanes);
        let packed = self.packed.map(|number| elements.arranged(number));
        let block = Block { matrix, first, staged, sums, packed };
        self.stage(elements, &block)?;
        let tiles = product.n as u32 / lanes;
        let builder = &mut elements.builder;
        let (nothing, end) = (builder.integer(0), builder.integer(tiles as i32));
        let tile = if tiles == 1 { nothing } else { builder.loop_over("tile", nothing, end, 1) };
        elements.open();
        self.multiply(elements, &block, tile)?;
        self.finish(elements, &block, tile, outputs)?;
        if tiles == 1 {
            elements.leave()
        } else {
            elements.close()
        }
        let tiling =
            format!("{}: {rows} rows by {lanes} columns at a time, {steps} steps an iteration", batch.about(product));
        Ok(([batch.rows().div_ceil(*rows as usize) as u32, batch.matrices() as u32, 1], tiling))
    }

    /// Whether there may be fewer rows than are computed at a time.
    fn is_guarded(&self) -> bool {
        !self.batch.rows().is_multiple_of(self.rows as usize)
    }

    /// Elements of a row that are staged at once: such that it takes a small part of what the products take.
    fn width(&self) -> u32 {
        let tiles = self.product.n as u32 / self.lanes;
        power_in(self.product.k, self.lanes.min((STAGED * self.rows * self.steps / tiles).max(self.steps)))
    }

    /// Brings rows of A to the local arrays.
    fn stage(&self, elements: &mut Elements<'_>, block: &Block) -> Result<(), TargetError> {
        let (product, width) = (&self.product, self.width());
        let builder = &mut elements.builder;
        let (nothing, lane) = (builder.integer(0), builder.thread());
        let last = builder.integer(product.k as i32 / width as i32);
        let part = builder.loop_over("part", nothing, last, 1);
        elements.open();
        let builder = &mut elements.builder;
        let guarded = width < self.lanes;
        if guarded {
            let reads = builder.below(lane, width as i32);
            builder.when(reads);
        }
        let depth = elements.builder.place(part, &[(width, lane)]);
        for (number, &staged) in block.staged.iter().enumerate() {
            elements.enter();
            let builder = &mut elements.builder;
            let number = builder.integer(number as i32);
            let mut row = builder.add(block.first, number);
            if self.is_guarded() {
                let last = builder.integer(self.batch.rows() as i32 - 1);
                row = builder.index(IndexFn::Min, row, last);
            }
            let (lead, row) = self.batch.of_row(elements, block.matrix, row);
            let coords = product.coords(elements, 0, &lead, row, depth);
            let element = elements.element(product.factors[0], &coords)?;
            elements.builder.store_shared(staged, depth, element);
            elements.leave();
        }
        if guarded {
            elements.builder.end();
        }
        elements.close();
        Ok(())
    }

    /// Adds up the products of a tile and leaves the sums in their array.
    fn multiply(&self, elements: &mut Elements<'_>, block: &Block, tile: ExprId) -> Result<(), TargetError> {
        let Columns { product, lanes, rows, steps, partials, .. } = self;
        let sum = product.sum;
        let types = product.factors.map(|factor| elements.graph().ty(factor).dtype);
        let builder = &mut elements.builder;
        let (nothing, start) = (builder.integer(0), zero(builder, sum));
        let all = builder.array("partial_sums", Scalar::of(sum), rows * partials, start);
        let last = builder.integer(product.k as i32 / *steps as i32);
        let part = builder.loop_over("part", nothing, last, 1);
        elements.open();
        let builder = &mut elements.builder;
        let first = builder.scaled(part, *steps as i32);
        let weights = builder.array("weights", Scalar::of(sum), *steps, start);
        let step = builder.unrolled("step", *steps);
        elements.open();
        let depth = elements.builder.add(first, step);
        let b = self.weight(elements, block, tile, depth)?;
        let builder = &mut elements.builder;
        let b = builder.convert_register(types[1], sum, b);
        builder.set_element(weights, step, b);
        elements.close();
        let builder = &mut elements.builder;
        let held = builder.array("rows", Scalar::of(sum), rows * steps, start);
        let step = builder.unrolled("step", *steps);
        let depth = builder.add(first, step);
        for (row, &staged) in block.staged.iter().enumerate() {
            let a = builder.load_shared(staged, depth, "a");
            let a = builder.convert_register(types[0], sum, a);
            let before = builder.integer(row as i32 * *steps as i32);
            let place = builder.add(before, step);
            builder.set_element(held, place, a);
        }
        builder.end();
        let paired = Paired::of(types);
        let pairs = if paired.is_some() { rows / 2 } else { 0 };
        if let Some(paired) = paired.filter(|_| pairs > 0) {
            let pair = builder.unrolled("pair", pairs);
            self.add_two(builder, paired, (held, weights), all, pair);
            builder.end();
        }
        if 2 * pairs < *rows {
            let (row, first) = (builder.unrolled("row", rows - 2 * pairs), builder.integer(2 * pairs as i32));
            let row = builder.add(first, row);
            self.add(builder, (held, weights), all, row);
            builder.end();
        }
        elements.close();
        let builder = &mut elements.builder;
        let row = builder.unrolled("row", *rows);
        let parts = (0..*partials as i32)
            .map(|part| {
                let (first, part) = (builder.scaled(row, *partials as i32), builder.integer(part));
                let place = builder.add(first, part);
                builder.element(all, place)
            })
            .collect();
        let total = tree(builder, sum, parts);
        let before = builder.scaled(row, *lanes as i32);
        let lane = builder.thread();
        let to = builder.add(before, lane);
        builder.store_shared(block.sums, to, total);
        builder.end();
        Ok(())
    }

    /// An element of B in this lane's column.
    pub(super) fn weight(
        &self,
        elements: &mut Elements<'_>,
        block: &Block,
        tile: ExprId,
        depth: ExprId,
    ) -> Result<ExprId, TargetError> {
        let (product, lanes) = (&self.product, self.lanes as i32);
        let builder = &mut elements.builder;
        let lane = builder.thread();
        let Some(buffer) = block.packed else {
            let first_column = builder.scaled(tile, lanes);
            let column = builder.add(first_column, lane);
            let lead = self.batch.of_matrix(elements, block.matrix);
            let coords = product.coords(elements, 1, &lead, depth, column);
            let element = elements.element(product.factors[1], &coords)?;
            if let Some(cache) = self.cache {
                let (_, at) = elements.seen(product.factors[1], &coords);
                elements.store(cache, &at)?;
            }
            return Ok(element);
        };
        // Matrices of a batch follow each other.
        let tiles = builder.scaled(block.matrix, product.n as i32 / lanes);
        let tile = builder.add(tiles, tile);
        let row = builder.place(tile, &[(product.k as u32, depth)]);
        let first = builder.scaled(row, lanes);
        let index = builder.add(first, lane);
        Ok(builder.load(buffer, index, "weight"))
    }

    /// Adds the products of a row and an iteration's steps to the row's sums.
    fn add(&self, builder: &mut Builder, (held, weights): (VarId, VarId), all: VarId, row: ExprId) {
        let Columns { product, steps, partials, .. } = self;
        let (sum, partials) = (product.sum, *partials as i32);
        let first = builder.scaled(row, *steps as i32);
        let factors = |builder: &mut Builder, step: ExprId| {
            let place = builder.add(first, step);
            (builder.element(held, place), builder.element(weights, step))
        };
        if !sum.is_float() {
            let step = builder.unrolled("step", *steps);
            let (a, b) = factors(builder, step);
            let so_far = builder.element(all, row);
            let next = builder.mul_add(sum, a, b, so_far);
            builder.set_element(all, row, next);
            builder.end();
            return;
        }
        let products = (0..*steps as i32)
            .map(|step| {
                let step = builder.integer(step);
                let (a, b) = factors(builder, step);
                builder.binary(BinaryFn::Mul, sum, a, b)
            })
            .collect();
        let own = tree(builder, sum, products);
        let place = builder.scaled(row, partials);
        let so_far = builder.element(all, place);
        let next = builder.binary(BinaryFn::Add, sum, so_far, own);
        let next = builder.keep("next", Scalar::of(sum), next);
        let turn = builder.unrolled("turn", partials as u32 - 1);
        let (one, to) = (builder.integer(1), builder.add(place, turn));
        let from = builder.add(to, one);
        let moved = builder.element(all, from);
        builder.set_element(all, to, moved);
        builder.end();
        let last = builder.integer(partials - 1);
        let to = builder.add(place, last);
        builder.set_element(all, to, next);
    }

    /// Adds the products of two rows, by the number of both, and an iteration's steps to the rows' sums.
    fn add_two(
        &self,
        builder: &mut Builder,
        paired: Paired,
        (held, weights): (VarId, VarId),
        all: VarId,
        pair: ExprId,
    ) {
        let (sum, steps) = (self.product.sum, self.steps);
        let (lower, one) = (builder.scaled(pair, 2), builder.integer(1));
        let two = [builder.add(lower, one), lower];
        let factors = |builder: &mut Builder, step: ExprId| {
            let both = two.map(|row| {
                let place = builder.place(row, &[(steps, step)]);
                builder.element(held, place)
            });
            let both = paired.both(builder, sum, both);
            let weight = builder.element(weights, step);
            let weight = builder.convert_register(sum, DType::I64, weight);
            [both, builder.keep("shared", Scalar::I64, weight)]
        };
        paired.add_up(builder, (steps, sum), factors, |builder, sums| {
            for (row, own) in two.into_iter().zip(sums) {
                let before = builder.element(all, row);
                let next = builder.binary(BinaryFn::Add, sum, before, own);
                builder.set_element(all, row, next);
            }
        });
    }

    /// Does what follows the products of a tile.
    fn finish(
        &self,
        elements: &mut Elements<'_>,
        block: &Block,
        tile: ExprId,
        outputs: &[ValueId],
    ) -> Result<(), TargetError> {
        let Columns { product, batch, lanes, rows, few, .. } = self;
        let builder = &mut elements.builder;
        let (nothing, lane) = (builder.integer(0), builder.thread());
        let (end, parts) = (builder.integer(*rows as i32), lanes / few);
        let number = if *rows == 1 { nothing } else { builder.loop_over("row", nothing, end, 1) };
        let last = builder.integer(parts as i32);
        let part = if parts == 1 { nothing } else { builder.loop_over("part", nothing, last, 1) };
        elements.open();
        let builder = &mut elements.builder;
        if parts > 1 {
            let works = builder.below(lane, *few as i32);
            builder.when(works);
        }
        let lane = builder.place(part, &[(*few, lane)]);
        let row = builder.add(block.first, number);
        if self.is_guarded() {
            let inside = builder.below(row, batch.rows() as i32);
            builder.when(inside);
        }
        let from = builder.place(number, &[(*lanes, lane)]);
        let sum = builder.load_shared(block.sums, from, "sum");
        let column = builder.place(tile, &[(*lanes, lane)]);
        let (lead, row) = batch.of_row(elements, block.matrix, row);
        let coords = product.result_coords(elements, &lead, row, column);
        elements.hold(product.result, &coords, sum);
        outputs.iter().try_for_each(|&output| elements.store(output, &coords))?;
        let opened = u32::from(self.is_guarded()) + if lanes > few { 2 } else { 0 } + u32::from(*rows > 1);
        (0..opened).for_each(|_| elements.builder.end());
        elements.leave();
        Ok(())
    }
}
