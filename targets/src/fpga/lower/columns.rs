//! Products with lanes along the columns of the result.
//!
//! Some rows of A are brought to a local array, such that elements of all rows are read in one cycle. Then, tile of columns by tile of
//! columns, every lane adds up the products of its column with all of these rows, several steps along the K-dimension in an
//! iteration; what follows a product is done row by row.

use tcc_ir::ops::BinaryFn;
use tcc_ir::{DType, ValueId};

use crate::kernel::check::wide;
use crate::kernel::{BufferId, ExprId, IndexFn, Scalar, SharedId};
use crate::lower::Written;
use crate::lower::elements::{Coords, Elements};
use crate::lower::product::Product;
use crate::target::TargetError;

/// How a product is shared out.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    pub product: Product,
    /// Columns at a time, a divisor of all.
    pub lanes: u32,
    /// Rows at a time.
    pub rows: u32,
    /// Steps along the K-dimension in an iteration, a divisor of all.
    pub steps: u32,
    /// Sums of a row that steps add to by turns, a divisor of the steps.
    pub partials: u32,
    /// What B is packed as, if it is a constant: tile by tile, step by step.
    pub packed: Option<u32>,
    /// The type of A.
    pub stored: DType,
    /// Lanes that do what follows the products, a divisor of all.
    pub few: u32,
}

/// What is known in a kernel for one block of rows.
struct Block {
    /// Leading coordinates.
    lead: Coords,
    /// The first row.
    first: ExprId,
    /// Rows of A: steps of an iteration of each row, iteration by iteration.
    staged: SharedId,
    /// What lanes have summed up, row by row.
    sums: SharedId,
    /// The parameter that holds B, if it is packed.
    packed: Option<BufferId>,
}

impl Columns {
    /// Writes the kernel.
    ///
    /// # Errors
    /// A defect.
    pub fn write(&self, elements: &mut Elements<'_>, outputs: &[ValueId]) -> Result<Written, TargetError> {
        let Columns { product, lanes, rows, steps, partials, .. } = self;
        let blocks = product.m.div_ceil(*rows as usize) as u32;
        let number = elements.builder.block(1);
        let lead = elements.coords_of(&product.batch, number);
        let builder = &mut elements.builder;
        let block = builder.block(0);
        let first = builder.scaled(block, *rows as i32);
        let first = builder.keep("first_row", Scalar::I32, first);
        let staged = builder.shared("rows", self.stored, rows * product.k as u32);
        let sums = builder.shared("sums", wide(product.sum), rows * partials * lanes);
        let packed = self.packed.map(|number| elements.arranged(number));
        let block = Block { lead, first, staged, sums, packed };
        self.stage(elements, &block)?;
        let tiles = product.n as u32 / lanes;
        let builder = &mut elements.builder;
        let (zero, end) = (builder.integer(0), builder.integer(tiles as i32));
        let tile = if tiles == 1 { zero } else { builder.loop_over("tile", zero, end, 1) };
        elements.open();
        self.multiply(elements, &block, tile)?;
        self.finish(elements, &block, tile, outputs)?;
        if tiles == 1 {
            elements.leave()
        } else {
            elements.close()
        }
        let batch = product.batch.count();
        let tiling = format!(
            "{}{}x{}x{} (rows, columns, depth): {rows} rows by {lanes} columns at a time, {steps} steps an iteration",
            if batch == 1 { String::new() } else { format!("{batch} of ") },
            product.m,
            product.n,
            product.k
        );
        Ok(([blocks, batch as u32, 1], tiling))
    }

    /// The row of a number among those of a block; where there is none, the last.
    fn row(&self, elements: &mut Elements<'_>, block: &Block, number: ExprId) -> ExprId {
        let builder = &mut elements.builder;
        let row = builder.add(block.first, number);
        if self.product.m.is_multiple_of(self.rows as usize) {
            return row;
        }
        let last = builder.integer(self.product.m as i32 - 1);
        builder.index(IndexFn::Min, row, last)
    }

    /// Brings rows of A to the local array.
    fn stage(&self, elements: &mut Elements<'_>, block: &Block) -> Result<(), TargetError> {
        let Columns { product, rows, steps, .. } = self;
        let builder = &mut elements.builder;
        let (zero, lane) = (builder.integer(0), builder.thread());
        let (last_row, last) = (builder.integer(*rows as i32), builder.integer(product.k as i32 / *steps as i32));
        let number = builder.loop_over("row", zero, last_row, 1);
        elements.open();
        let row = self.row(elements, block, number);
        let builder = &mut elements.builder;
        let part = builder.loop_over("part", zero, last, 1);
        elements.open();
        let builder = &mut elements.builder;
        let guarded = *steps < self.lanes;
        if guarded {
            let reads = builder.below(lane, *steps as i32);
            builder.when(reads);
        }
        let at = elements.builder.scaled(part, *steps as i32);
        let depth = elements.builder.add(at, lane);
        let coords = product.coords(elements, 0, &block.lead, row, depth);
        let element = elements.element(product.factors[0], &coords)?;
        let builder = &mut elements.builder;
        let to = builder.scaled(part, *rows as i32);
        let to = builder.add(to, number);
        let to = builder.scaled(to, *steps as i32);
        let to = builder.add(to, lane);
        builder.store_shared(block.staged, to, element);
        if guarded {
            builder.end();
        }
        elements.close();
        elements.close();
        Ok(())
    }

    /// Adds up the products of a tile and leaves the sums in their array.
    fn multiply(&self, elements: &mut Elements<'_>, block: &Block, tile: ExprId) -> Result<(), TargetError> {
        let Columns { product, lanes, rows, steps, partials, .. } = self;
        let sum = product.sum;
        let builder = &mut elements.builder;
        let (zero, lane) = (builder.integer(0), builder.thread());
        let start = if sum.is_float() { builder.float(sum, 0.0) } else { builder.number(sum, 0) };
        let all = builder.array("partial_sums", Scalar::of(sum), rows * partials, start);
        let last = builder.integer(product.k as i32 / *steps as i32);
        let part = builder.loop_over("part", zero, last, 1);
        elements.open();
        let turn = elements.builder.unrolled("turn", steps / partials);
        let step = elements.builder.unrolled("step", *partials);
        elements.open();
        let builder = &mut elements.builder;
        let before = builder.scaled(turn, *partials as i32);
        let within = builder.add(before, step);
        let at = builder.scaled(part, *steps as i32);
        let depth = builder.add(at, within);
        let first_column = builder.scaled(tile, *lanes as i32);
        let column = builder.add(first_column, lane);
        let b = match block.packed {
            Some(buffer) => {
                // Matrices of a batch follow each other.
                let matrix = elements.index_in(&product.batch, &block.lead);
                let builder = &mut elements.builder;
                let tiles = builder.scaled(matrix, product.n as i32 / *lanes as i32);
                let tile = builder.add(tiles, tile);
                let row = builder.scaled(tile, product.k as i32);
                let row = builder.add(row, depth);
                let first = builder.scaled(row, *lanes as i32);
                let index = builder.add(first, lane);
                builder.load(buffer, index, "weight")
            }
            None => {
                let coords = product.coords(elements, 1, &block.lead, depth, column);
                elements.element(product.factors[1], &coords)?
            }
        };
        let types = product.factors.map(|factor| elements.graph().ty(factor).dtype);
        let builder = &mut elements.builder;
        let b = builder.convert_register(types[1], sum, b);
        let b = builder.keep("weight", Scalar::of(sum), b);
        let row = builder.unrolled("row", *rows);
        let from = builder.scaled(part, *rows as i32);
        let from = builder.add(from, row);
        let from = builder.scaled(from, *steps as i32);
        let from = builder.add(from, within);
        let a = builder.load_shared(block.staged, from, "a");
        let a = builder.convert_register(types[0], sum, a);
        let place = builder.scaled(row, *partials as i32);
        let place = builder.add(place, step);
        let so_far = builder.element(all, place);
        let next = match sum.is_float() {
            true => {
                let both = builder.binary(BinaryFn::Mul, sum, a, b);
                builder.binary(BinaryFn::Add, sum, so_far, both)
            }
            false => builder.mul_add(sum, a, b, so_far),
        };
        builder.set_element(all, place, next);
        builder.end();
        elements.close();
        elements.builder.end();
        elements.close();
        let builder = &mut elements.builder;
        let place = builder.unrolled("place", rows * partials);
        let to = builder.scaled(place, *lanes as i32);
        let to = builder.add(to, lane);
        let own = builder.element(all, place);
        builder.store_shared(block.sums, to, own);
        builder.end();
        Ok(())
    }

    /// Does what follows the products of a tile.
    fn finish(
        &self,
        elements: &mut Elements<'_>,
        block: &Block,
        tile: ExprId,
        outputs: &[ValueId],
    ) -> Result<(), TargetError> {
        let Columns { product, lanes, rows, partials, few, .. } = self;
        let builder = &mut elements.builder;
        let (zero, lane) = (builder.integer(0), builder.thread());
        let (end, parts) = (builder.integer(*rows as i32), lanes / few);
        let number = if *rows == 1 { zero } else { builder.loop_over("row", zero, end, 1) };
        let last = builder.integer(parts as i32);
        let part = if parts == 1 { zero } else { builder.loop_over("part", zero, last, 1) };
        elements.open();
        let builder = &mut elements.builder;
        if parts > 1 {
            let works = builder.below(lane, *few as i32);
            builder.when(works);
        }
        let before = builder.scaled(part, *few as i32);
        let lane = builder.add(before, lane);
        let builder = &mut elements.builder;
        let row = builder.add(block.first, number);
        let guarded = !product.m.is_multiple_of(*rows as usize);
        if guarded {
            let inside = builder.below(row, product.m as i32);
            builder.when(inside);
        }
        // A tree, so that additions wait for as few others as can be.
        let mut parts: Vec<ExprId> = (0..*partials as i32)
            .map(|part| {
                let (first, part) = (builder.scaled(number, *partials as i32), builder.integer(part));
                let place = builder.add(first, part);
                let from = builder.scaled(place, *lanes as i32);
                let from = builder.add(from, lane);
                builder.load_shared(block.sums, from, "partial_sum")
            })
            .collect();
        while parts.len() > 1 {
            let pairs = std::mem::take(&mut parts);
            for pair in pairs.chunks(2) {
                parts.push(match *pair {
                    [a, b] => builder.binary(BinaryFn::Add, product.sum, a, b),
                    _ => pair[0],
                });
            }
        }
        let sum = builder.keep("sum", Scalar::of(product.sum), parts[0]);
        let first_column = builder.scaled(tile, *lanes as i32);
        let column = builder.add(first_column, lane);
        let coords = product.result_coords(elements, &block.lead, row, column);
        elements.hold(product.result, &coords, sum);
        outputs.iter().try_for_each(|&output| elements.store(output, &coords))?;
        let opened = u32::from(guarded) + if lanes > few { 2 } else { 0 } + u32::from(*rows > 1);
        (0..opened).for_each(|_| elements.builder.end());
        elements.leave();
        Ok(())
    }
}
