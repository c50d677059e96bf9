//! Products of integers with constants, tile by tile, by one engine for products of all sizes.
//!
//! Three functions share the work. The first brings rows of A into the order in which the engine reads them: block of rows by block of
//! rows, and of these part of the depth by part. The second is the engine: an iteration multiplies a part of a block of rows with the same
//! part of some columns of B, whose weights come by in the order in which they lie in memory, and adds to the sums of these columns. It
//! has no size in it but that of an iteration, and is called for each block of rows. The third does what follows the product.
//!
//! Columns come before parts of the depth, so that sums are added to no sooner than after so many iterations as there are tiles of
//! columns, by when an addition is over.

use std::collections::BTreeMap;

use tcc_ir::ops::BinaryFn;
use tcc_ir::{DType, Plan, ValueId};

use super::paired::Paired;
use super::{Widths, finish, power_in};
use crate::fpga::design::BEAT_BYTES;
use crate::kernel::{Builder, ExprId, IndexFn, Scalar};
use crate::lower::Written;
use crate::lower::elements::Elements;
use crate::lower::piece::Piece;
use crate::lower::product::Product;
use crate::lower::quantized::Constants;
use crate::target::TargetError;

/// Rows at a time, at the most: each weight that comes by is multiplied with one of each.
const ROWS: u32 = 16;

/// Rows that are brought into order at a time: a memory gives a word of each in a cycle.
const AT_ONCE: u32 = 2;

/// Fewer steps of an iteration than these, or fewer columns, are not worth an engine.
const LEAST: u32 = 4;

/// Bytes of the sums of a product, at the most: what is larger has no room on a part.
const MOST_BYTES: u64 = 1 << 22;

/// The engine's iteration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tile {
    /// Rows of A, a power of two.
    pub rows: u32,
    /// Columns of B, a power of two.
    pub lanes: u32,
    /// Steps along the K-dimension, a power of two.
    pub steps: u32,
}

/// How a product is shared out.
#[derive(Clone, Debug)]
pub(super) struct Tiled {
    pub product: Product,
    pub tile: Tile,
    /// What B is packed as: part of the depth by part, tile by tile.
    pub packed: u32,
    /// Lanes that do what follows the product, at the most; a power of two.
    pub after: u32,
}

/// What tells rows in order apart.
pub(super) type Ordered = (ValueId, bool, [usize; 2]);

/// What the functions of a product hand to each other: numbers among [`Lowered::handed`](super::Lowered).
#[derive(Clone, Copy, Debug)]
pub(super) struct Handed {
    /// Rows in order: block of rows by block, part of the depth by part, row by row.
    pub rows: u32,
    /// Sums: block of rows by block, tile by tile, row by row.
    pub sums: u32,
}

impl Tile {
    /// The iteration that suits the products of a plan, for so many multiply-accumulates in a cycle; `None` if there are none, or too few of
    /// these. Products whose sizes it does not divide are computed otherwise.
    pub fn of(plan: &Plan, constants: &Constants, pieces: &[&Piece], widths: Widths) -> Option<Tile> {
        let products = pieces.iter().filter_map(|piece| Product::all_of(plan, constants, piece));
        let products = products.flatten().filter(|product| is_eligible(plan, constants, product));
        // Multiplications by what divides the columns and the depth.
        let mut work: BTreeMap<(u32, u32), u128> = BTreeMap::new();
        let mut rows = 1;
        for product in products {
            rows = (product.m as u32).next_power_of_two().min(ROWS).max(rows);
            let key = [product.n, product.k].map(|extent| power_in(extent, u32::MAX));
            *work.entry((key[0], key[1])).or_default() += product.m as u128 * product.n as u128 * product.k as u128;
        }
        let all: u128 = work.values().sum();
        let rows = rows.min(widths.integer_macs);
        let wanted = (widths.integer_macs / rows).max(1);
        // The narrowest that most of the work is divided by: as many steps as columns or twice as many, since sums take more memory than rows.
        let mut lanes = 1 << (wanted.ilog2() / 2);
        loop {
            let steps = wanted / lanes;
            if all == 0 || lanes < LEAST || steps < LEAST {
                return None;
            }
            let divided = |&(&(n, k), _): &(&(u32, u32), &u128)| n % lanes == 0 && k % steps == 0;
            let done: u128 = work.iter().filter(divided).map(|(_, work)| work).sum();
            if 2 * done > all {
                return Some(Tile { rows, lanes, steps });
            }
            lanes /= 2;
        }
    }

    /// Whether a product is computed by the engine: one of integers with a constant, of which an iteration divides columns and depth,
    /// and blocks of rows begin with beats wherever they lie.
    pub fn suits(self, plan: &Plan, constants: &Constants, product: &Product) -> bool {
        let Tile { rows, lanes, steps } = self;
        let divides = product.n.is_multiple_of(lanes as usize) && product.k.is_multiple_of(steps as usize);
        let types = [plan.graph.ty(product.factors[0]).dtype, product.sum];
        let begins =
            |(extent, dtype): (usize, DType)| dtype.bytes(rows as usize * extent).is_multiple_of(BEAT_BYTES as usize);
        divides && [product.k, product.n].into_iter().zip(types).all(begins) && is_eligible(plan, constants, product)
    }
}

/// Whether a product is one of integers with a constant of which there is one matrix.
fn is_eligible(plan: &Plan, constants: &Constants, product: &Product) -> bool {
    let [_, b] = product.factors;
    let is_whole = plan.graph.shape(b).count() == product.k * product.n && product.batch.count() == 1;
    let few = 4 * (product.m * product.n) as u64 <= MOST_BYTES;
    let is_integer = product.sum == DType::I32 && product.is_shared(&plan.graph);
    is_integer && few && is_whole && constants.derived[b.index()] && product.quantized.is_none()
}

impl Tiled {
    /// A product that iterations divide, with B packed by a number, and so many lanes for values.
    pub fn new(product: Product, tile: Tile, packed: u32, lanes: u32) -> Tiled {
        // A memory gives two words of sums in a cycle.
        let after = power_in(product.n, lanes.min(2 * tile.lanes));
        Tiled { product, tile, packed, after }
    }

    /// What rows in order are of: the value, whether it is turned, and its rows and columns. Products of the same share them.
    pub fn ordered(&self) -> Ordered {
        let Product { op, factors, m, k, .. } = &self.product;
        (factors[0], op.transpose_a, [*m, *k])
    }

    /// Blocks of rows.
    pub fn blocks(&self) -> u32 {
        (self.product.m as u32).div_ceil(self.tile.rows)
    }

    fn parts(&self) -> u32 {
        self.product.k as u32 / self.tile.steps
    }

    /// Tiles of columns.
    pub fn tiles(&self) -> u32 {
        self.product.n as u32 / self.tile.lanes
    }

    /// Elements that words have of what is handed over: as many as an iteration reads or writes.
    pub fn banks(&self) -> [u32; 2] {
        let Tile { rows, lanes, steps } = self.tile;
        [rows * steps, rows * lanes]
    }

    /// Elements of rows and of sums of a block.
    fn elements(&self) -> [u64; 2] {
        let [rows, sums] = self.banks().map(u64::from);
        [rows * u64::from(self.parts()), sums * u64::from(self.tiles())]
    }

    fn stored(&self, elements: &Elements<'_>) -> DType {
        elements.graph().ty(self.product.factors[0]).dtype
    }

    /// How it is shared out, in words.
    fn tiling(&self) -> String {
        let (Product { m, n, k, .. }, Tile { rows, lanes, steps }) = (&self.product, self.tile);
        format!(
            "{m}x{n}x{k} (rows, columns, depth): {rows} rows by {lanes} columns at a time, {steps} steps an iteration"
        )
    }

    /// Elements of a row that are brought into order at a time.
    pub fn few(&self, widths: Widths) -> u32 {
        self.tile.steps.min(widths.lanes)
    }

    /// Lanes that bring rows into order, of so many elements of a row at a time.
    pub fn ordering(&self, few: u32) -> u32 {
        few * AT_ONCE.min(self.tile.rows)
    }

    /// Writes the function that brings rows into order.
    ///
    /// # Errors
    /// A defect.
    pub fn write_rows(&self, elements: &mut Elements<'_>, handed: Handed, few: u32) -> Result<Written, TargetError> {
        let (product, Tile { rows, steps, .. }) = (&self.product, self.tile);
        let (stored, all) = (self.stored(elements), self.elements()[0] * u64::from(self.blocks()));
        let ordered = elements.between(handed.rows, "ordered", (stored, all), true);
        let at_once = AT_ONCE.min(rows);
        let builder = &mut elements.builder;
        let (group, pair, zero) = (builder.block(0), builder.block(1), builder.integer(0));
        let blocks = self.blocks();
        let block = if blocks == 1 { zero } else { builder.block(2) };
        let thread = builder.thread();
        let (own, lane) = builder.divided(thread, few as i32);
        let (part, group) = builder.divided(group, (steps / few) as i32);
        let step = builder.place(group, &[(few, lane)]);
        let depth = builder.place(part, &[(steps, step)]);
        let within = builder.place(pair, &[(at_once, own)]);
        let row = builder.place(block, &[(rows, within)]);
        // There may be fewer rows than blocks have: nobody looks at what becomes of those behind.
        let is_guarded = !product.m.is_multiple_of(rows as usize);
        if is_guarded {
            let inside = builder.below(row, product.m as i32);
            builder.when(inside);
        }
        let lead = elements.coords_of(&product.batch, zero);
        let coords = product.coords(elements, 0, &lead, row, depth);
        let element = elements.element(product.factors[0], &coords)?;
        let builder = &mut elements.builder;
        let place = builder.place(block, &[(self.parts(), part), (rows, within), (steps, step)]);
        builder.store(ordered, place, element);
        if is_guarded {
            builder.end();
        }
        Ok(([product.k as u32 / few, rows / at_once, blocks], self.tiling()))
    }

    /// Writes the engine, for the first block of rows.
    pub fn write_engine(&self, elements: &mut Elements<'_>, handed: Handed) -> Written {
        let (product, Tile { rows, lanes, steps }) = (&self.product, self.tile);
        let types = product.factors.map(|factor| elements.graph().ty(factor).dtype);
        let (sum, parts, [of_rows, of_sums]) = (product.sum, self.blocks(), self.elements());
        let weights = elements.arranged(self.packed);
        let ordered = elements.part(handed.rows, "ordered", (types[0], of_rows), (0, parts), false);
        let sums = elements.part(handed.sums, "sums", (sum, of_sums), (0, parts), true);
        let builder = &mut elements.builder;
        builder.in_turn();
        let so_far = builder.shared("sums_so_far", sum, of_sums as u32);
        let (tile, part, number) = (builder.block(0), builder.block(1), builder.block_number());
        let (zero, lane, none) = (builder.integer(0), builder.thread(), builder.number(sum, 0));
        let paired = Paired::of(types).filter(|_| rows > 1);
        let held_as = if paired.is_some() { DType::I64 } else { sum };
        let nothing = builder.number(held_as, 0);
        let held = builder.array("weights", Scalar::of(held_as), steps, nothing);
        let step = builder.unrolled("step", steps);
        let at = builder.place(number, &[(steps, step), (lanes, lane)]);
        let weight = builder.load(weights, at, "weight");
        let weight = builder.convert_register(types[1], held_as, weight);
        builder.set_element(held, step, weight);
        builder.end();
        // An element of a row that is in order.
        let x = |builder: &mut Builder, row: ExprId, step: ExprId| {
            let from = builder.place(part, &[(rows, row), (steps, step)]);
            let x = builder.load(ordered, from, "x");
            builder.convert_register(types[0], sum, x)
        };
        let dots = builder.array("dots", Scalar::of(sum), rows, none);
        match paired {
            None => {
                let row = builder.unrolled("row", rows);
                let step = builder.unrolled("step", steps);
                let x = x(builder, row, step);
                let (weight, before) = (builder.element(held, step), builder.element(dots, row));
                let next = builder.mul_add(sum, x, weight, before);
                builder.set_element(dots, row, next);
                builder.end();
                builder.end();
            }
            Some(paired) => {
                let pair = builder.unrolled("pair", rows / 2);
                let (lower, one) = (builder.scaled(pair, 2), builder.integer(1));
                let two = [builder.add(lower, one), lower];
                let factors = |builder: &mut Builder, step: ExprId| {
                    let both = two.map(|row| x(builder, row, step));
                    [paired.both(builder, sum, both), builder.element(held, step)]
                };
                paired.add_up(builder, (steps, sum), factors, |builder, sums| {
                    for (row, own) in two.into_iter().zip(sums) {
                        let before = builder.element(dots, row);
                        let next = builder.binary(BinaryFn::Add, sum, before, own);
                        builder.set_element(dots, row, next);
                    }
                });
                builder.end();
            }
        }
        let row = builder.unrolled("row", rows);
        let at = builder.place(tile, &[(rows, row), (lanes, lane)]);
        let before = builder.load_shared(so_far, at, "before");
        let is_first = builder.index(IndexFn::Eq, part, zero);
        let before = builder.select(is_first, none, before);
        let dot = builder.element(dots, row);
        let next = builder.binary(BinaryFn::Add, sum, before, dot);
        let next = builder.keep("next", Scalar::of(sum), next);
        builder.store_shared(so_far, at, next);
        // What the last part leaves there stays.
        builder.store(sums, at, next);
        builder.end();
        ([self.tiles(), self.parts(), 1], self.tiling())
    }

    /// Writes the function that does what follows the product, with some lanes.
    ///
    /// # Errors
    /// A defect.
    pub fn write_rest(
        &self,
        elements: &mut Elements<'_>,
        handed: Handed,
        after: u32,
        outputs: &[ValueId],
    ) -> Result<Written, TargetError> {
        let (product, Tile { rows, lanes, .. }) = (&self.product, self.tile);
        let all = self.elements()[1] * u64::from(self.blocks());
        let sums = elements.between(handed.sums, "sums", (product.sum, all), false);
        let builder = &mut elements.builder;
        let (lane, group, row) = (builder.thread(), builder.block(0), builder.block(1));
        let column = builder.place(group, &[(after, lane)]);
        let column = builder.keep("column", Scalar::I32, column);
        let (block, within) = builder.divided(row, rows as i32);
        let (tile, own) = builder.divided(column, lanes as i32);
        let at = builder.place(block, &[(self.tiles(), tile), (rows, within), (lanes, own)]);
        let sum = builder.load(sums, at, "sum");
        let sum = builder.keep("product", Scalar::of(product.sum), sum);
        finish(elements, product, [row, column], sum, outputs)?;
        Ok(([product.n as u32 / after, product.m as u32, 1], self.tiling()))
    }
}
