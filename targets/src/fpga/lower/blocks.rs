//! Products of few rows with weights of few bits, which have a scale for each block of the K-dimension.
//!
//! Rows of A become integers first, less wide than a multiplier of the part takes, with one scale for a row: so a product with a weight
//! of few bits is one multiplication of integers, and sums of a block are exact. Then weights come by, each once: an iteration takes
//! some blocks of some columns, adds up their products, and adds the sums times their scales to what is summed so far of these columns.

use tcc_ir::ops::{BinaryFn, UnaryFn};
use tcc_ir::{DType, ValueId};

use crate::kernel::{BufferId, ExprId, IndexFn, Scalar, SharedId};
use crate::lower::Written;
use crate::lower::elements::Elements;
use crate::lower::product::Product;
use crate::lower::quantized::{Parameter, Quantized};
use crate::number::FoldFn;
use crate::target::TargetError;

/// Bits of the integers that rows of A become, at the most: those of the narrower factor of a DSP48E2 (UG579).
const BITS: u32 = 18;

/// Bits of a sum.
const SUM_BITS: u32 = 32;

/// How a product is shared out.
#[derive(Clone, Debug)]
pub(super) struct Blocks {
    pub product: Product,
    /// The weights.
    pub quantized: Quantized,
    /// Columns at a time, a power of two that divides all.
    pub lanes: u32,
    /// Blocks of a column in an iteration.
    pub blocks: u32,
    /// Weights of a block.
    pub size: u32,
    /// What integers, scales and zero points are packed as: iteration by iteration, block by block, and of integers step by step.
    pub packed: Packed,
    /// Lanes that make integers of rows and do what follows the product, a power of two.
    pub few: u32,
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

/// What is known in a kernel.
struct Rows {
    /// Integers of all rows, one behind the other.
    integers: SharedId,
    /// What each row's integers are multiplied by to be numbers again.
    scales: SharedId,
    /// Sums of all columns, row by row.
    sums: SharedId,
}

/// Where parameters come from.
enum Source {
    Number(ExprId),
    Buffer(BufferId),
}

impl Blocks {
    /// Bits of the integers that rows become, with their sign: such that no sum of a block overflows.
    fn bits(&self) -> u32 {
        // A difference with a zero point has a bit more.
        let weight = self.quantized.stored.bits() as u32 + u32::from(self.quantized.zero.is_some()) + 1;
        BITS.min(SUM_BITS - weight - self.size.next_power_of_two().ilog2())
    }

    /// Writes the kernel.
    ///
    /// # Errors
    /// A defect.
    pub fn write(&self, elements: &mut Elements<'_>, outputs: &[ValueId]) -> Result<Written, TargetError> {
        let Blocks { product, lanes, blocks, size, .. } = self;
        let (m, n, k) = (product.m as u32, product.n as u32, product.k as u32);
        let builder = &mut elements.builder;
        let integers = builder.shared("row_integers", DType::I32, m * k);
        let scales = builder.shared("row_scales", DType::F32, m);
        let sums = builder.shared("sums", DType::F32, m * n);
        let rows = Rows { integers, scales, sums };
        self.quantize(elements, &rows)?;
        self.multiply(elements, &rows)?;
        self.finish(elements, &rows, outputs)?;
        let tiling = format!(
            "{m}x{n}x{k} (rows, columns, depth): {lanes} columns at a time, {blocks} blocks of {size} weights an iteration, rows as \
             integers of {} bits",
            self.bits()
        );
        Ok(([1, 1, 1], tiling))
    }

    /// Makes integers of all rows.
    fn quantize(&self, elements: &mut Elements<'_>, rows: &Rows) -> Result<(), TargetError> {
        let Blocks { product, lanes, few, .. } = self;
        let k = product.k as u32;
        let own = super::power_in(product.k, *few);
        let a = product.factors[0];
        let dtype = elements.graph().ty(a).dtype;
        let builder = &mut elements.builder;
        let (zero, lane) = (builder.integer(0), builder.thread());
        let (last_row, parts) = (builder.integer(product.m as i32), builder.integer((k / own) as i32));
        let nothing = builder.float(DType::F32, 0.0);
        let reads = (own < *lanes).then(|| builder.below(lane, own as i32));
        let scratch = builder.shared("scratch", DType::F32, *lanes);
        let row = if product.m == 1 { zero } else { builder.loop_over("row", zero, last_row, 1) };
        elements.open();
        let largest = elements.builder.declare("largest", Scalar::F32, nothing);
        for pass in 0..2 {
            // The second pass knows how large the row is.
            let by = (pass == 1).then(|| {
                let builder = &mut elements.builder;
                let most = builder.float(DType::F32, f64::from((1u32 << (self.bits() - 1)) - 1));
                let all = builder.get(largest);
                let quotient = builder.binary(BinaryFn::Div, DType::F32, most, all);
                let is_there = builder.binary(BinaryFn::Gt, DType::F32, all, nothing);
                let by = builder.select(is_there, quotient, nothing);
                let back = builder.binary(BinaryFn::Div, DType::F32, all, most);
                builder.store_shared(rows.scales, row, back);
                builder.keep("to_integers", Scalar::F32, by)
            });
            let part = elements.builder.loop_over("part", zero, parts, 1);
            elements.open();
            if let Some(reads) = reads {
                elements.builder.when(reads);
            }
            let at = elements.builder.scaled(part, own as i32);
            let depth = elements.builder.add(at, lane);
            let lead = elements.coords_of(&product.batch, zero);
            let coords = product.coords(elements, 0, &lead, row, depth);
            let x = elements.element(a, &coords)?;
            let builder = &mut elements.builder;
            let x = builder.convert_register(dtype, DType::F32, x);
            match by {
                None => {
                    let size = builder.unary(UnaryFn::Abs, DType::F32, x);
                    let so_far = builder.get(largest);
                    let next = builder.binary(BinaryFn::Max, DType::F32, so_far, size);
                    builder.set(largest, next);
                }
                Some(by) => {
                    let scaled = builder.binary(BinaryFn::Mul, DType::F32, x, by);
                    let rounded = builder.unary(UnaryFn::Round, DType::F32, scaled);
                    let integer = builder.convert(DType::F32, DType::I32, rounded);
                    let first = builder.scaled(row, k as i32);
                    let to = builder.add(first, depth);
                    builder.store_shared(rows.integers, to, integer);
                }
            }
            if reads.is_some() {
                elements.builder.end();
            }
            elements.close();
            if pass == 0 {
                elements.builder.reduce(largest, FoldFn::Max, DType::F32, *lanes, scratch);
            }
        }
        if product.m == 1 {
            elements.leave()
        } else {
            elements.close()
        }
        Ok(())
    }

    fn source(&self, elements: &mut Elements<'_>, packing: Packing) -> Source {
        match packing {
            Packing::Known(dtype, bits) => Source::Number(elements.builder.number(dtype, bits)),
            Packing::Arranged(number) => Source::Buffer(elements.arranged(number)),
        }
    }

    /// Adds up all products.
    fn multiply(&self, elements: &mut Elements<'_>, rows: &Rows) -> Result<(), TargetError> {
        let Blocks { product, lanes, blocks, size, packed, .. } = self;
        let (n, k) = (product.n as u32, product.k as u32);
        let (tiles, parts) = (n / lanes, k / (blocks * size));
        let integers = elements.arranged(packed.integers);
        let scale = self.source(elements, packed.scale);
        let zeros = packed.zero.map(|zero| self.source(elements, zero));
        let builder = &mut elements.builder;
        let (zero, lane) = (builder.integer(0), builder.thread());
        let nothing = builder.float(DType::F32, 0.0);
        let none = builder.integer(0);
        let (last_part, last_tile) = (builder.integer(parts as i32), builder.integer(tiles as i32));
        let part = if parts == 1 { zero } else { builder.loop_over("part", zero, last_part, 1) };
        let tile = if tiles == 1 { zero } else { builder.loop_over("tile", zero, last_tile, 1) };
        let before = builder.scaled(part, tiles as i32);
        let step = builder.add(before, tile);
        let all = builder.array("all", Scalar::F32, product.m as u32, nothing);
        let block = builder.unrolled("block", *blocks);
        let first = builder.scaled(step, *blocks as i32);
        let number = builder.add(first, block);
        let at = builder.scaled(number, *lanes as i32);
        let own = builder.add(at, lane);
        let loaded = |builder: &mut crate::kernel::Builder, source: &Source, name: &str| match *source {
            Source::Number(number) => number,
            Source::Buffer(buffer) => builder.load(buffer, own, name),
        };
        let own_scale = loaded(builder, &scale, "scale");
        let own_zero = zeros.map(|zeros| loaded(builder, &zeros, "zero"));
        let weights = builder.array("weights", Scalar::I32, *size, none);
        let within = builder.unrolled("step", *size);
        let row_of_weights = builder.scaled(number, *size as i32);
        let row_of_weights = builder.add(row_of_weights, within);
        let at = builder.scaled(row_of_weights, *lanes as i32);
        let at = builder.add(at, lane);
        let integer = builder.load(integers, at, "integer");
        let weight = match own_zero {
            Some(zero) => builder.binary(BinaryFn::Sub, DType::I32, integer, zero),
            None => integer,
        };
        builder.set_element(weights, within, weight);
        builder.end();
        let row = builder.unrolled("row", product.m as u32);
        let dot = builder.declare("dot", Scalar::I32, none);
        let within = builder.unrolled("step", *size);
        let first_depth = builder.scaled(part, (blocks * size) as i32);
        let own_depth = builder.scaled(block, *size as i32);
        let depth = builder.add(first_depth, own_depth);
        let depth = builder.add(depth, within);
        let first = builder.scaled(row, k as i32);
        let from = builder.add(first, depth);
        let x = builder.load_shared(rows.integers, from, "x");
        let (weight, so_far) = (builder.element(weights, within), builder.get(dot));
        let next = builder.mul_add(DType::I32, x, weight, so_far);
        builder.set(dot, next);
        builder.end();
        let dot = builder.get(dot);
        let dot = builder.convert_register(DType::I32, DType::F32, dot);
        let scaled = builder.binary(BinaryFn::Mul, DType::F32, dot, own_scale);
        let so_far = builder.element(all, row);
        let next = builder.binary(BinaryFn::Add, DType::F32, so_far, scaled);
        builder.set_element(all, row, next);
        builder.end();
        builder.end();
        let row = builder.unrolled("row", product.m as u32);
        let first = builder.scaled(row, n as i32);
        let of_tile = builder.scaled(tile, *lanes as i32);
        let at = builder.add(first, of_tile);
        let at = builder.add(at, lane);
        let own = builder.element(all, row);
        let next = if parts == 1 {
            own
        } else {
            let before = builder.load_shared(rows.sums, at, "before");
            let is_first = builder.index(IndexFn::Eq, part, zero);
            let before = builder.select(is_first, nothing, before);
            builder.binary(BinaryFn::Add, DType::F32, before, own)
        };
        builder.store_shared(rows.sums, at, next);
        builder.end();
        if tiles > 1 {
            builder.end();
        }
        if parts > 1 {
            builder.end();
        }
        Ok(())
    }

    /// Does what follows the product.
    fn finish(&self, elements: &mut Elements<'_>, rows: &Rows, outputs: &[ValueId]) -> Result<(), TargetError> {
        let Blocks { product, lanes, few, .. } = self;
        let (m, n) = (product.m as i32, product.n as i32);
        let builder = &mut elements.builder;
        let (zero, lane) = (builder.integer(0), builder.thread());
        let (last_row, last_tile) = (builder.integer(m), builder.integer(n / *few as i32));
        let row = if m == 1 { zero } else { builder.loop_over("row", zero, last_row, 1) };
        let tile = builder.loop_over("tile", zero, last_tile, 1);
        elements.open();
        let builder = &mut elements.builder;
        let guarded = few < lanes;
        if guarded {
            let works = builder.below(lane, *few as i32);
            builder.when(works);
        }
        let back = builder.load_shared(rows.scales, row, "row_scale");
        let first = builder.scaled(tile, *few as i32);
        let column = builder.add(first, lane);
        let before = builder.scaled(row, n);
        let at = builder.add(before, column);
        let sum = builder.load_shared(rows.sums, at, "sum");
        let number = builder.binary(BinaryFn::Mul, DType::F32, sum, back);
        let number = builder.keep("product", Scalar::F32, number);
        let lead = elements.coords_of(&product.batch, zero);
        let coords = product.result_coords(elements, &lead, row, column);
        elements.hold(product.result, &coords, number);
        outputs.iter().try_for_each(|&output| elements.store(output, &coords))?;
        if guarded {
            elements.builder.end();
        }
        elements.close();
        if m > 1 {
            elements.builder.end();
        }
        Ok(())
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
}

/// Most weights of a block.
const MOST: usize = 256;
