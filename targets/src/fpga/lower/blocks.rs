//! Products of few rows with weights of few bits, which have a scale for each block of the K-dimension.
//!
//! Three functions share the work. The first makes integers of the rows of A, with a scale for each block of a row, so that a product with a
//! weight of few bits is one multiplication of integers, and sums of a block are exact. The second is the engine: weights come by,
//! each once, in the order in which they lie in memory; an iteration takes some blocks of some columns, adds up their products, and
//! adds the sums times their scales to what is summed so far of these columns. It has no size in it but that of an iteration: how
//! many there are is up to its grid, so products of all sizes are calls of one function. The third does what follows the product.

use tcc_ir::ops::{BinaryFn, UnaryFn};
use tcc_ir::{DType, ValueId};

use super::paired::Paired;
use super::{finish, power_in};
use crate::fpga::widths::Range;
use crate::kernel::{BufferId, Builder, ExprId, IndexFn, Scalar, VarId};
use crate::lower::Written;
use crate::lower::elements::Elements;
use crate::lower::product::Product;
use crate::lower::quantized::{Parameter, Quantized};
use crate::number::FoldFn;
use crate::target::TargetError;

/// What rows become: two products of such a number with weights of four bits fit into a DSP slice.
const INTEGER: DType = DType::I16;

/// The largest of these integers that is used.
const LARGEST: f64 = 32_767.0;

/// Most weights of a block: sums of so many products of integers of 16 and 8 bits fit into 32.
const MOST: usize = 256;

/// Tiles of columns that there should be: so many iterations lie between two that add to the same sums, which takes a few cycles.
const TILES: u32 = 8;

/// How a product is shared out.
#[derive(Clone, Debug)]
pub(super) struct Blocks {
    pub product: Product,
    /// Columns at a time, a power of two that divides all.
    pub lanes: u32,
    /// Blocks of a column in an iteration.
    pub blocks: u32,
    /// Weights of a block.
    pub size: u32,
    /// What integers, scales and zero points are packed as: iteration by iteration, block by block, and of integers step by step.
    pub packed: Packed,
    /// How an element of a row is multiplied with two weights at a time, if it is: lanes have two columns then.
    pub paired: Option<Paired>,
    /// Lanes that make integers of rows.
    pub few: u32,
    /// Lanes that do what follows the product, at the most; a power of two.
    pub after: u32,
}

/// What lies in which order among the constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packed {
    pub integers: u32,
    pub scale: Packing,
    pub zero: Option<Packing>,
}

/// A scale or a zero point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    /// The same for all.
    Known(DType, u64),
    /// One for each block.
    Arranged(u32),
}

/// What the functions of a product hand to each other: numbers among [`Lowered::handed`](super::Lowered).
#[derive(Clone, Copy, Debug)]
pub(super) struct Handed {
    /// Integers of rows: part of the depth by part, row by row.
    pub integers: u32,
    /// What they are multiplied by to be numbers again: part by part, row by row, block by block.
    pub scales: u32,
    /// Sums: tile of columns by tile, row by row, lane by lane.
    pub sums: u32,
}

/// Where parameters come from.
enum Source {
    Number(ExprId),
    Buffer(BufferId),
}

impl Blocks {
    /// Columns at a time, for so many products in an iteration.
    pub fn lanes_for(columns: usize, most: u32) -> u32 {
        let few = (columns as u32 / TILES).max(1);
        power_in(columns, (1 << most.max(1).ilog2()).min(1 << few.ilog2()))
    }

    /// How two columns are one, if they can be.
    pub fn paired(quantized: &Quantized) -> Option<Paired> {
        let range = Range::of_dtype(quantized.stored);
        let range = match quantized.zero {
            None => range,
            Some(Parameter::Known(_, bits)) => range.minus(Range::one(i128::from(bits as i64))),
            Some(Parameter::Groups(_, dtype, _)) => range.minus(Range::of_dtype(dtype)),
        };
        Paired::of_ranges([range, Range::of_dtype(INTEGER)])
    }

    /// Columns of a lane.
    fn own(&self) -> u32 {
        if self.paired.is_some() { 2 } else { 1 }
    }

    /// Lanes of the engine.
    pub fn threads(&self) -> u32 {
        self.lanes / self.own()
    }

    /// Lanes that make integers of rows, of so many at most.
    pub fn few_for(size: u32, k: usize, most: u32) -> u32 {
        if size.is_power_of_two() && size <= most { power_in(k, most) } else { power_in(size as usize, most) }
    }

    /// Weights of a block, if a product can be computed by blocks: its parameters go with blocks of one size along the depth.
    pub fn size_of(quantized: &Quantized, k: usize) -> Option<u32> {
        let of = |parameter: Parameter| match parameter {
            Parameter::Known(..) => None,
            Parameter::Groups(_, _, size) => Some(size),
        };
        let sizes = [of(quantized.scale), quantized.zero.and_then(of)];
        let size = match sizes {
            [Some(a), Some(b)] if a != b => return None,
            [Some(size), _] | [None, Some(size)] => size,
            [None, None] => k,
        };
        (size <= MOST && k.is_multiple_of(size)).then_some(size as u32)
    }

    /// Steps of a row in an iteration.
    fn span(&self) -> u32 {
        self.blocks * self.size
    }

    fn rows(&self) -> u32 {
        self.product.m as u32
    }

    /// Elements that words have of what is handed over: as many integers, scales and sums as an iteration of the engine reads or writes.
    pub fn banks(&self) -> [u32; 3] {
        [self.rows() * self.span(), self.rows() * self.blocks, self.rows() * self.lanes]
    }

    /// How it is shared out, in words.
    fn tiling(&self) -> String {
        let Blocks { product, lanes, blocks, size, .. } = self;
        let (m, n, k) = (product.m, product.n, product.k);
        let bits = INTEGER.bits();
        format!(
            "{m}x{n}x{k} (rows, columns, depth): {lanes} columns at a time, {blocks} blocks of {size} weights an iteration, rows as integers \
             of {bits} bits"
        )
    }

    /// Writes the function that makes integers of rows.
    ///
    /// # Errors
    /// A defect.
    pub fn write_rows(&self, elements: &mut Elements<'_>, handed: Handed) -> Result<Written, TargetError> {
        let Blocks { product, few, size, blocks, .. } = self;
        let (m, k) = (self.rows(), product.k as u32);
        let integers = elements.between(handed.integers, "row_integers", (INTEGER, u64::from(m * k)), true);
        let scales = elements.between(handed.scales, "row_scales", (DType::F32, u64::from(m * k / size)), true);
        let (width, chunks) = ((*few).min(*size), (size / few).max(1));
        let a = product.factors[0];
        let dtype = elements.graph().ty(a).dtype;
        let builder = &mut elements.builder;
        let (lane, group) = (builder.thread(), builder.block(0));
        let zero = builder.integer(0);
        let row = if m == 1 { zero } else { builder.block(1) };
        let nothing = builder.float(DType::F32, 0.0);
        let held = builder.array("row_part", Scalar::F32, chunks, nothing);
        let largest = builder.declare("largest", Scalar::F32, nothing);
        let first = builder.scaled(group, (few * chunks) as i32);
        let chunk = builder.unrolled("chunk", chunks);
        elements.open();
        let at = elements.builder.place(chunk, &[(*few, lane)]);
        let depth = elements.builder.add(first, at);
        let lead = elements.coords_of(&product.batch, zero);
        let coords = product.coords(elements, 0, &lead, row, depth);
        let x = elements.element(a, &coords)?;
        let builder = &mut elements.builder;
        let x = builder.convert_register(dtype, DType::F32, x);
        let x = builder.keep("x", Scalar::F32, x);
        builder.set_element(held, chunk, x);
        let magnitude = builder.unary(UnaryFn::Abs, DType::F32, x);
        let so_far = builder.get(largest);
        let next = builder.binary(BinaryFn::Max, DType::F32, so_far, magnitude);
        builder.set(largest, next);
        elements.close();
        let builder = &mut elements.builder;
        if width > 1 {
            let scratch = builder.shared("scratch", DType::F32, *few);
            builder.reduce(largest, FoldFn::Max, DType::F32, width, scratch);
        }
        let most = builder.float(DType::F32, LARGEST);
        let all = builder.get(largest);
        let quotient = builder.binary(BinaryFn::Div, DType::F32, most, all);
        let is_there = builder.binary(BinaryFn::Gt, DType::F32, all, nothing);
        let by = builder.select(is_there, quotient, nothing);
        let by = builder.keep("to_integers", Scalar::F32, by);
        let inverse = builder.float(DType::F32, 1.0 / LARGEST);
        let back = builder.binary(BinaryFn::Mul, DType::F32, all, inverse);
        // One lane of each block writes its scale.
        let at = builder.add(first, lane);
        let (block, within) = builder.divided(at, *size as i32);
        let (part, block) = if m == 1 { (zero, block) } else { builder.divided(block, *blocks as i32) };
        let place = builder.place(part, &[(m, row), (*blocks, block)]);
        let is_first = builder.index(IndexFn::Eq, within, zero);
        builder.when(is_first);
        builder.store(scales, place, back);
        builder.end();
        let chunk = builder.unrolled("chunk", chunks);
        let at = builder.place(chunk, &[(*few, lane)]);
        let depth = builder.add(first, at);
        let span = self.span() as i32;
        let (part, within) = if m == 1 { (zero, depth) } else { builder.divided(depth, span) };
        let place = builder.place(part, &[(m, row)]);
        let place = builder.scaled(place, span);
        let place = builder.add(place, within);
        let x = builder.element(held, chunk);
        let scaled = builder.binary(BinaryFn::Mul, DType::F32, x, by);
        let rounded = builder.unary(UnaryFn::Round, DType::F32, scaled);
        let integer = builder.convert(DType::F32, INTEGER, rounded);
        builder.store(integers, place, integer);
        builder.end();
        Ok(([k / (few * chunks), m, 1], self.tiling()))
    }

    fn source(&self, elements: &mut Elements<'_>, packing: Packing) -> Source {
        match packing {
            Packing::Known(dtype, bits) => Source::Number(elements.builder.number(dtype, bits)),
            Packing::Arranged(number) => Source::Buffer(elements.arranged(number)),
        }
    }

    /// Writes the engine.
    pub fn write_engine(&self, elements: &mut Elements<'_>, handed: Handed) -> Written {
        let Blocks { product, lanes, blocks, size, packed, .. } = self;
        let (m, n, k) = (self.rows(), product.n as u32, product.k as u32);
        let (tiles, parts) = (n / lanes, k / self.span());
        let weights = elements.arranged(packed.integers);
        let scale = self.source(elements, packed.scale);
        let zeros = packed.zero.map(|zero| self.source(elements, zero));
        let integers = elements.between(handed.integers, "row_integers", (INTEGER, u64::from(m * k)), false);
        let scales = elements.between(handed.scales, "row_scales", (DType::F32, u64::from(m * k / size)), false);
        let results = elements.between(handed.sums, "sums", (DType::F32, u64::from(m * n)), true);
        let builder = &mut elements.builder;
        builder.in_turn();
        let so_far = builder.shared("sums_so_far", DType::F32, m * n);
        let (tile, part, number) = (builder.block(0), builder.block(1), builder.block_number());
        let (zero, lane, nothing) = (builder.integer(0), builder.thread(), builder.float(DType::F32, 0.0));
        let own = self.own();
        let all = builder.array("all", Scalar::F32, m * own, nothing);
        // The columns of this lane.
        let first_column = builder.scaled(lane, own as i32);
        let columns: Vec<ExprId> = (0..own as i32)
            .map(|column| {
                let column = builder.integer(column);
                builder.add(first_column, column)
            })
            .collect();
        let block = builder.unrolled("block", *blocks);
        let number = builder.place(number, &[(*blocks, block)]);
        let at = builder.scaled(number, *lanes as i32);
        let loaded = |builder: &mut Builder, source: &Source, column: ExprId, name: &str| match *source {
            Source::Number(number) => number,
            Source::Buffer(buffer) => {
                let at = builder.add(at, column);
                builder.load(buffer, at, name)
            }
        };
        let own_scales: Vec<ExprId> = columns.iter().map(|&column| loaded(builder, &scale, column, "scale")).collect();
        let own_zeros: Option<Vec<ExprId>> =
            zeros.map(|zeros| columns.iter().map(|&column| loaded(builder, &zeros, column, "zero")).collect());
        let held_as = if self.paired.is_some() { DType::I64 } else { DType::I32 };
        let start = builder.number(held_as, 0);
        let held = builder.array("weights", Scalar::of(held_as), *size, start);
        let within = builder.unrolled("step", *size);
        let row_of_weights = builder.place(number, &[(*size, within)]);
        let at = builder.scaled(row_of_weights, *lanes as i32);
        let weights: Vec<ExprId> = (columns.iter().enumerate())
            .map(|(column, &own)| {
                let at = builder.add(at, own);
                let integer = builder.load(weights, at, "integer");
                match &own_zeros {
                    Some(zeros) => builder.binary(BinaryFn::Sub, DType::I32, integer, zeros[column]),
                    None => integer,
                }
            })
            .collect();
        let weight = match (self.paired, &weights[..]) {
            (Some(paired), &[lower, upper]) => paired.both(builder, DType::I32, [upper, lower]),
            _ => weights[0],
        };
        builder.set_element(held, within, weight);
        builder.end();
        let row = builder.unrolled("row", m);
        let of_row = builder.place(part, &[(m, row)]);
        let first = builder.scaled(of_row, self.span() as i32);
        let own_block = builder.scaled(block, *size as i32);
        let first = builder.add(first, own_block);
        let dots = self.dots(builder, (integers, first), held);
        let from = builder.place(of_row, &[(*blocks, block)]);
        let row_scale = builder.load(scales, from, "row_scale");
        let first = builder.scaled(row, own as i32);
        for (column, (dot, own_scale)) in (0..).zip(dots.into_iter().zip(own_scales)) {
            let both = builder.binary(BinaryFn::Mul, DType::F32, own_scale, row_scale);
            let dot = builder.get(dot);
            let dot = builder.convert_register(DType::I32, DType::F32, dot);
            let scaled = builder.binary(BinaryFn::Mul, DType::F32, dot, both);
            let column = builder.integer(column);
            let place = builder.add(first, column);
            let before = builder.element(all, place);
            let next = builder.binary(BinaryFn::Add, DType::F32, before, scaled);
            builder.set_element(all, place, next);
        }
        builder.end();
        builder.end();
        // What the last part leaves in the results stays there.
        let row = builder.unrolled("row", m);
        let at = builder.place(tile, &[(m, row)]);
        let first = builder.scaled(at, *lanes as i32);
        let first_sum = builder.scaled(row, own as i32);
        for (number, column) in (0..).zip(columns) {
            let at = builder.add(first, column);
            let number = builder.integer(number);
            let place = builder.add(first_sum, number);
            let own = builder.element(all, place);
            let before = builder.load_shared(so_far, at, "before");
            let is_first = builder.index(IndexFn::Eq, part, zero);
            let before = builder.select(is_first, nothing, before);
            let next = builder.binary(BinaryFn::Add, DType::F32, before, own);
            let next = builder.keep("next", Scalar::F32, next);
            builder.store_shared(so_far, at, next);
            builder.store(results, at, next);
        }
        builder.end();
        ([tiles, parts, 1], self.tiling())
    }

    /// Adds up the products of a block of a row, from a place among the row's integers on, with each of this lane's columns.
    fn dots(&self, builder: &mut Builder, (integers, first): (BufferId, ExprId), held: VarId) -> Vec<VarId> {
        let none = builder.number(DType::I32, 0);
        let dots: Vec<VarId> = (0..self.own()).map(|_| builder.declare("dot", Scalar::I32, none)).collect();
        let x = |builder: &mut Builder, within: ExprId| {
            let from = builder.add(first, within);
            builder.load(integers, from, "x")
        };
        let Some(paired) = self.paired else {
            let within = builder.unrolled("step", self.size);
            let x = x(builder, within);
            let (weight, before) = (builder.element(held, within), builder.get(dots[0]));
            let next = builder.mul_add(DType::I32, x, weight, before);
            builder.set(dots[0], next);
            builder.end();
            return dots;
        };
        let factors = |builder: &mut Builder, within: ExprId| {
            let x = x(builder, within);
            let x = builder.convert_register(INTEGER, DType::I64, x);
            let x = builder.keep("shared", Scalar::I64, x);
            [builder.element(held, within), x]
        };
        paired.add_up(builder, (self.size, DType::I32), factors, |builder, [upper, lower]| {
            for (&dot, own) in dots.iter().zip([lower, upper]) {
                let before = builder.get(dot);
                let next = builder.binary(BinaryFn::Add, DType::I32, before, own);
                builder.set(dot, next);
            }
        });
        dots
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
        let Blocks { product, lanes, .. } = self;
        let (m, n) = (self.rows(), product.n as u32);
        let sums = elements.between(handed.sums, "sums", (DType::F32, u64::from(m * n)), false);
        let builder = &mut elements.builder;
        let (zero, lane, group) = (builder.integer(0), builder.thread(), builder.block(0));
        let row = if m == 1 { zero } else { builder.block(1) };
        let column = builder.place(group, &[(after, lane)]);
        let column = builder.keep("column", Scalar::I32, column);
        let (tile, within) = if m == 1 { (zero, column) } else { builder.divided(column, *lanes as i32) };
        let at = builder.place(tile, &[(m, row), (*lanes, within)]);
        let sum = builder.load(sums, at, "sum");
        let sum = builder.keep("product", Scalar::F32, sum);
        finish(elements, product, [row, column], sum, outputs)?;
        Ok(([n / after, m, 1], self.tiling()))
    }
}
