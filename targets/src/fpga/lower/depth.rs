//! Products with lanes along what is summed over, for factors that both lie along it in memory.
//!
//! Rows of A are held while rows of B come by, as much of them in an iteration as makes two words of a memory: several columns, or a
//! part of one. What is summed up across lanes goes to a local array for each row, so that no iteration waits for another; parts of a sum
//! are put together, and what follows the products is done, with neighbours in lanes.

use tcc_ir::ops::BinaryFn;
use tcc_ir::{DType, ValueId};

use super::batch::Batch;
use super::paired::Paired;
use super::together::MOST;
use super::{tree, zero};
use crate::kernel::check::wide;
use crate::kernel::{Builder, ExprId, IndexFn, Scalar, SharedId};
use crate::lower::Written;
use crate::lower::elements::Elements;
use crate::lower::product::Product;
use crate::number::FoldFn;
use crate::target::TargetError;

/// How a product is shared out.
#[derive(Clone, Debug)]
pub(super) struct Depth {
    pub product: Product,
    pub batch: Batch,
    /// Elements side by side along the K-dimension, a power of two that divides it.
    pub along: u32,
    /// Columns side by side, a divisor of all.
    pub columns: u32,
    /// Rows at a time.
    pub rows: u32,
    /// Lanes that do what follows the products, a divisor of all columns.
    pub few: u32,
    /// What is written of B on the way, if B is a view of it.
    pub cache: Option<ValueId>,
}

/// What is known in a kernel for one block of rows.
struct Block {
    /// The matrix of B.
    matrix: ExprId,
    /// The first row.
    first: ExprId,
    /// Sums of all columns, an array for each row: parts of a sum lie as many apart as there are columns side by side.
    sums: Vec<SharedId>,
    /// Where rows and sums of the matrix begin in their arrays.
    rows_at: ExprId,
    sums_at: ExprId,
}

/// Where rows of A are.
enum Held {
    /// In registers.
    Registers(Vec<ExprId>),
    /// In local arrays.
    Arrays(Vec<SharedId>),
}

impl Depth {
    /// Writes the kernel.
    ///
    /// # Errors
    /// A defect.
    pub fn write(&self, elements: &mut Elements<'_>, outputs: &[ValueId]) -> Result<Written, TargetError> {
        let Depth { product, batch, along, rows, columns, .. } = self;
        let count = product.n as u32 * self.parts();
        let matrices = if self.is_together() { batch.matrices() as u32 } else { 1 };
        let builder = &mut elements.builder;
        let sums: Vec<SharedId> =
            (0..*rows).map(|_| builder.shared("sums", wide(product.sum), matrices * count)).collect();
        let about = format!(
            "{}: {rows} rows by {columns} columns at a time, {along} lanes along the depth",
            batch.about(product)
        );
        if self.is_together() {
            let stored = elements.graph().ty(product.factors[0]).dtype;
            let size = matrices * product.k as u32;
            let arrays = (0..*rows).map(|_| elements.builder.shared("row", stored, size)).collect();
            let held = Held::Arrays(arrays);
            for phase in 0..3 {
                let builder = &mut elements.builder;
                let (nothing, end) = (builder.integer(0), builder.integer(matrices as i32));
                let matrix = builder.loop_over("matrix", nothing, end, 1);
                elements.open();
                let builder = &mut elements.builder;
                let rows_at = builder.scaled(matrix, product.k as i32);
                let sums_at = builder.scaled(matrix, count as i32);
                let block = Block { matrix, first: nothing, sums: sums.clone(), rows_at, sums_at };
                match (phase, &held) {
                    (0, Held::Arrays(arrays)) => self.stage(elements, &block, arrays)?,
                    (1, held) => self.multiply(elements, &block, held)?,
                    _ => self.finish(elements, &block, outputs)?,
                }
                elements.close();
            }
            return Ok(([1, 1, 1], format!("{about}, all in one loop")));
        }
        let builder = &mut elements.builder;
        let (matrix, block, nothing) = (builder.block(1), builder.block(0), builder.integer(0));
        let first = builder.scaled(block, *rows as i32);
        let first = builder.keep("first_row", Scalar::I32, first);
        let block = Block { matrix, first, sums, rows_at: nothing, sums_at: nothing };
        let held = self.hold(elements, &block)?;
        self.multiply(elements, &block, &held)?;
        self.finish(elements, &block, outputs)?;
        Ok(([batch.rows().div_ceil(*rows as usize) as u32, batch.matrices() as u32, 1], about))
    }

    /// Whether all matrices are gone through in one loop, so that its pipeline is filled once.
    fn is_together(&self) -> bool {
        let Depth { product, batch, rows, .. } = self;
        let (matrices, rows) = (batch.matrices(), *rows as usize);
        let sums = matrices * product.n * self.parts() as usize * rows;
        matrices > 1 && batch.rows() <= rows && matrices * product.k * rows <= MOST && sums <= MOST
    }

    /// Lanes of the kernel.
    pub fn lanes(&self) -> u32 {
        self.along * self.columns
    }

    /// Parts of a sum, of which an iteration has one.
    fn parts(&self) -> u32 {
        self.product.k as u32 / self.along
    }

    /// Whether there may be fewer rows than are computed at a time.
    fn is_guarded(&self) -> bool {
        !self.batch.rows().is_multiple_of(self.rows as usize)
    }

    /// An element of a row of A, by the row's number in the block.
    fn row(
        &self,
        elements: &mut Elements<'_>,
        block: &Block,
        number: u32,
        depth: ExprId,
    ) -> Result<ExprId, TargetError> {
        let builder = &mut elements.builder;
        let number = builder.integer(number as i32);
        let mut row = builder.add(block.first, number);
        if self.is_guarded() {
            let last = builder.integer(self.batch.rows() as i32 - 1);
            row = builder.index(IndexFn::Min, row, last);
        }
        let (lead, row) = self.batch.of_row(elements, block.matrix, row);
        let coords = self.product.coords(elements, 0, &lead, row, depth);
        elements.element(self.product.factors[0], &coords)
    }

    /// Reads rows of A: all that a lane has of them, or all that lanes need one after the other.
    fn hold(&self, elements: &mut Elements<'_>, block: &Block) -> Result<Held, TargetError> {
        let Depth { product, along, rows, .. } = self;
        let stored = elements.graph().ty(product.factors[0]).dtype;
        let builder = &mut elements.builder;
        let thread = builder.thread();
        let (_, lane) = builder.divided(thread, *along as i32);
        if self.parts() == 1 {
            let rows = (0..*rows).map(|row| {
                let a = self.row(elements, block, row, lane)?;
                let a = elements.builder.convert_register(stored, product.sum, a);
                Ok(elements.builder.keep("row", Scalar::of(product.sum), a))
            });
            return Ok(Held::Registers(rows.collect::<Result<_, TargetError>>()?));
        }
        let arrays: Vec<SharedId> = (0..*rows).map(|_| builder.shared("row", stored, product.k as u32)).collect();
        self.stage(elements, block, &arrays)?;
        Ok(Held::Arrays(arrays))
    }

    /// Brings rows of A to their arrays.
    fn stage(&self, elements: &mut Elements<'_>, block: &Block, arrays: &[SharedId]) -> Result<(), TargetError> {
        let along = self.along as i32;
        let builder = &mut elements.builder;
        let (nothing, thread) = (builder.integer(0), builder.thread());
        let (column, lane) = builder.divided(thread, along);
        let end = builder.integer(self.parts() as i32);
        let part = if self.parts() == 1 { nothing } else { builder.loop_over("part", nothing, end, 1) };
        elements.open();
        let builder = &mut elements.builder;
        let is_first = builder.index(IndexFn::Eq, column, nothing);
        builder.when(is_first);
        let before = builder.scaled(part, along);
        let depth = builder.add(before, lane);
        let to = builder.add(block.rows_at, depth);
        for (row, &array) in (0..).zip(arrays) {
            let a = self.row(elements, block, row, depth)?;
            elements.builder.store_shared(array, to, a);
        }
        elements.builder.end();
        if self.parts() == 1 {
            elements.leave();
        } else {
            elements.close();
        }
        Ok(())
    }

    /// Has rows of B come by, and leaves the sums in their arrays.
    fn multiply(&self, elements: &mut Elements<'_>, block: &Block, held: &Held) -> Result<(), TargetError> {
        let Depth { product, batch, along, rows, columns, .. } = self;
        let sum = product.sum;
        let stored = product.factors.map(|factor| elements.graph().ty(factor).dtype);
        let lead = batch.of_matrix(elements, block.matrix);
        let builder = &mut elements.builder;
        let (nothing, thread, start) = (builder.integer(0), builder.thread(), zero(builder, sum));
        let (within, lane) = builder.divided(thread, *along as i32);
        let scratch = builder.shared("scratch", wide(sum), self.lanes());
        let (end, parts) = (builder.integer(product.n as i32 / *columns as i32), builder.integer(self.parts() as i32));
        let number = builder.loop_over("column", nothing, end, 1);
        let part = if self.parts() == 1 { nothing } else { builder.loop_over("part", nothing, parts, 1) };
        elements.open();
        let builder = &mut elements.builder;
        let column = builder.place(number, &[(*columns, within)]);
        let depth = builder.place(part, &[(*along, lane)]);
        let coords = product.coords(elements, 1, &lead, depth, column);
        let b = elements.element(product.factors[1], &coords)?;
        if let Some(cache) = self.cache {
            let (_, at) = elements.seen(product.factors[1], &coords);
            elements.store(cache, &at)?;
        }
        let builder = &mut elements.builder;
        let b = builder.convert_register(stored[1], sum, b);
        let b = builder.keep("weight", Scalar::of(sum), b);
        let own = builder.array("row", Scalar::of(sum), *rows, start);
        for row in 0..*rows {
            let a = match held {
                Held::Registers(rows) => rows[row as usize],
                Held::Arrays(arrays) => {
                    let from = builder.add(block.rows_at, depth);
                    let a = builder.load_shared(arrays[row as usize], from, "a");
                    builder.convert_register(stored[0], sum, a)
                }
            };
            let row = builder.integer(row as i32);
            builder.set_element(own, row, a);
        }
        let totals = builder.array("totals", Scalar::of(sum), *rows, start);
        let paired = Paired::of(stored);
        let pairs = if paired.is_some() { rows / 2 } else { 0 };
        let total = |builder: &mut Builder, row: ExprId, own: ExprId| {
            let all = builder.declare("sum", Scalar::of(sum), own);
            builder.reduce(all, FoldFn::Sum, sum, *along, scratch);
            let total = builder.get(all);
            builder.set_element(totals, row, total);
        };
        if let Some(paired) = paired.filter(|_| pairs > 0) {
            let pair = builder.unrolled("pair", pairs);
            let (lower, one) = (builder.scaled(pair, 2), builder.integer(1));
            let two = [builder.add(lower, one), lower];
            let both = two.map(|row| builder.element(own, row));
            let both = paired.both(builder, sum, both);
            let shared = builder.convert_register(sum, DType::I64, b);
            let shared = builder.keep("shared", Scalar::I64, shared);
            let start = paired.start(builder);
            let start = builder.keep("start", Scalar::I64, start);
            let sums = builder.mul_add(DType::I64, both, shared, start);
            let sums = builder.keep("two_products", Scalar::I64, sums);
            for (row, own) in two.into_iter().zip(paired.parted(builder, sum, sums)) {
                total(builder, row, own);
            }
            builder.end();
        }
        if 2 * pairs < *rows {
            let (row, first) = (builder.unrolled("row", rows - 2 * pairs), builder.integer(2 * pairs as i32));
            let row = builder.add(first, row);
            let a = builder.element(own, row);
            let own = builder.binary(BinaryFn::Mul, sum, a, b);
            total(builder, row, own);
            builder.end();
        }
        // All lanes of a column have its sums; one of them keeps them.
        let is_first = builder.index(IndexFn::Eq, lane, nothing);
        builder.when(is_first);
        let place = builder.place(number, &[(self.parts(), part), (*columns, within)]);
        let place = builder.add(block.sums_at, place);
        for (row, &sums) in block.sums.iter().enumerate() {
            let row = builder.integer(row as i32);
            let total = builder.element(totals, row);
            builder.store_shared(sums, place, total);
        }
        builder.end();
        if self.parts() > 1 {
            builder.end();
        }
        elements.close();
        Ok(())
    }

    /// Does what follows the products.
    fn finish(&self, elements: &mut Elements<'_>, block: &Block, outputs: &[ValueId]) -> Result<(), TargetError> {
        let Depth { product, batch, few, columns, .. } = self;
        let lanes = self.lanes();
        let builder = &mut elements.builder;
        let (nothing, lane) = (builder.integer(0), builder.thread());
        let end = builder.integer(product.n as i32 / *few as i32);
        let word = builder.loop_over("word", nothing, end, 1);
        elements.open();
        let builder = &mut elements.builder;
        if *few < lanes {
            let works = builder.below(lane, *few as i32);
            builder.when(works);
        }
        let before = builder.scaled(word, *few as i32);
        let column = builder.add(before, lane);
        for (number, &sums) in block.sums.iter().enumerate() {
            let builder = &mut elements.builder;
            let number = builder.integer(number as i32);
            let row = builder.add(block.first, number);
            if self.is_guarded() {
                let inside = builder.below(row, batch.rows() as i32);
                builder.when(inside);
            }
            elements.enter();
            let builder = &mut elements.builder;
            let (number, within) = builder.divided(column, *columns as i32);
            let parts = (0..self.parts() as i32)
                .map(|part| {
                    let (before, part) = (builder.scaled(number, self.parts() as i32), builder.integer(part));
                    let place = builder.add(before, part);
                    let place = builder.place(place, &[(*columns, within)]);
                    let place = builder.add(block.sums_at, place);
                    builder.load_shared(sums, place, "sum")
                })
                .collect();
            let total = tree(builder, product.sum, parts);
            let total = builder.keep("total", Scalar::of(product.sum), total);
            let (lead, row) = batch.of_row(elements, block.matrix, row);
            let coords = product.result_coords(elements, &lead, row, column);
            elements.hold(product.result, &coords, total);
            outputs.iter().try_for_each(|&output| elements.store(output, &coords))?;
            elements.leave();
            if self.is_guarded() {
                elements.builder.end();
            }
        }
        if *few < lanes {
            elements.builder.end();
        }
        elements.close();
        Ok(())
    }
}
