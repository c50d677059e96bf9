//! Products with lanes along what is summed over, for factors that both lie along it in memory.
//!
//! Rows of A are held in registers while rows of B come by, a few of them in an iteration; sums are put together across lanes. Results
//! of neighbouring columns are written to neighbouring banks.

use tcc_ir::ValueId;
use tcc_ir::ops::BinaryFn;

use crate::kernel::check::wide;
use crate::kernel::{IndexFn, Scalar};
use crate::lower::Written;
use crate::lower::elements::Elements;
use crate::lower::product::Product;
use crate::number::FoldFn;
use crate::target::TargetError;

/// How a product is shared out.
#[derive(Clone, Debug)]
pub(super) struct Depth {
    pub product: Product,
    /// Elements side by side along the K-dimension, a divisor of it.
    pub lanes: u32,
    /// Rows at a time.
    pub rows: u32,
    /// Columns in an iteration, a divisor of all.
    pub columns: u32,
}

impl Depth {
    /// Writes the kernel.
    ///
    /// # Errors
    /// A defect.
    pub fn write(&self, elements: &mut Elements<'_>, outputs: &[ValueId]) -> Result<Written, TargetError> {
        let Depth { product, lanes, rows, columns } = self;
        let sum = product.sum;
        let types = product.factors.map(|factor| elements.graph().ty(factor).dtype);
        let chunks = product.k as u32 / lanes;
        let number = elements.builder.block(1);
        let lead = elements.coords_of(&product.batch, number);
        let builder = &mut elements.builder;
        let (zero, lane, block) = (builder.integer(0), builder.thread(), builder.block(0));
        let first = builder.scaled(block, *rows as i32);
        let first = builder.keep("first_row", Scalar::I32, first);
        let start = if sum.is_float() { builder.float(sum, 0.0) } else { builder.number(sum, 0) };
        // Rows of A.
        let held = builder.array("rows", Scalar::of(sum), rows * chunks, start);
        let row = builder.unrolled("row", *rows);
        let chunk = builder.unrolled("chunk", chunks);
        elements.open();
        let builder = &mut elements.builder;
        let at = builder.scaled(chunk, *lanes as i32);
        let depth = builder.add(at, lane);
        let mut own = builder.add(first, row);
        let guarded = !product.m.is_multiple_of(*rows as usize);
        if guarded {
            let last = builder.integer(product.m as i32 - 1);
            own = builder.index(IndexFn::Min, own, last);
        }
        let coords = product.coords(elements, 0, &lead, own, depth);
        let a = elements.element(product.factors[0], &coords)?;
        let builder = &mut elements.builder;
        let a = builder.convert_register(types[0], sum, a);
        let place = builder.scaled(row, chunks as i32);
        let place = builder.add(place, chunk);
        builder.set_element(held, place, a);
        elements.close();
        elements.builder.end();
        // Rows of B come by.
        let builder = &mut elements.builder;
        let scratch = builder.shared("scratch", wide(sum), *lanes);
        let end = builder.integer(product.n as i32 / *columns as i32);
        let part = builder.loop_over("part", zero, end, 1);
        elements.open();
        let builder = &mut elements.builder;
        let first_column = builder.scaled(part, *columns as i32);
        let within = builder.unrolled("column", *columns);
        elements.open();
        let builder = &mut elements.builder;
        let column = builder.add(first_column, within);
        let weights = builder.array("weights", Scalar::of(sum), chunks, start);
        let chunk = builder.unrolled("chunk", chunks);
        elements.open();
        let builder = &mut elements.builder;
        let at = builder.scaled(chunk, *lanes as i32);
        let depth = builder.add(at, lane);
        let coords = product.coords(elements, 1, &lead, depth, column);
        let b = elements.element(product.factors[1], &coords)?;
        let builder = &mut elements.builder;
        let b = builder.convert_register(types[1], sum, b);
        builder.set_element(weights, chunk, b);
        elements.close();
        let builder = &mut elements.builder;
        let row = builder.unrolled("row", *rows);
        elements.open();
        let builder = &mut elements.builder;
        let all = builder.declare("sum", Scalar::of(sum), start);
        let chunk = builder.unrolled("chunk", chunks);
        let place = builder.scaled(row, chunks as i32);
        let place = builder.add(place, chunk);
        let (a, b, so_far) = (builder.element(held, place), builder.element(weights, chunk), builder.get(all));
        let next = match sum.is_float() {
            true => {
                let both = builder.binary(BinaryFn::Mul, sum, a, b);
                builder.binary(BinaryFn::Add, sum, so_far, both)
            }
            false => builder.mul_add(sum, a, b, so_far),
        };
        builder.set(all, next);
        builder.end();
        builder.reduce(all, FoldFn::Sum, sum, *lanes, scratch);
        // All lanes have the sum; one of them goes on with it.
        let own = builder.add(first, row);
        let is_first = builder.index(IndexFn::Eq, lane, zero);
        let inside = if guarded { builder.below(own, product.m as i32) } else { builder.integer(1) };
        let writes = builder.index(IndexFn::And, is_first, inside);
        builder.when(writes);
        elements.open();
        let total = elements.builder.get(all);
        let coords = product.result_coords(elements, &lead, own, column);
        elements.hold(product.result, &coords, total);
        outputs.iter().try_for_each(|&output| elements.store(output, &coords))?;
        elements.close();
        elements.close();
        elements.close();
        elements.close();
        let batch = product.batch.count();
        let tiling = format!(
            "{}{}x{}x{} (rows, columns, depth): {rows} rows by {columns} columns at a time, {lanes} lanes along the depth",
            if batch == 1 { String::new() } else { format!("{batch} of ") },
            product.m,
            product.n,
            product.k
        );
        Ok(([product.m.div_ceil(*rows as usize) as u32, batch as u32, 1], tiling))
    }
}
