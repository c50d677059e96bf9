//! How a product is shared out in hardware.

use tcc_ir::ops::{MatMul, Reshape, Transpose};
use tcc_ir::{DType, Graph, Node, Op, Plan, Shape, ValueId, View};

use super::batch::Batch;
use super::blocks::{Blocks, Packed, Packing};
use super::columns::Columns;
use super::depth::Depth;
use super::tiled::{Tile, Tiled};
use super::{Widths, power_in};
use crate::kernel::check::MAX_THREADS;
use crate::lower::elements::defect;
use crate::lower::piece::Piece;
use crate::lower::product::Product;
use crate::lower::quantized::{Arranged, Constants, Parameter, Quantized};
use crate::target::TargetError;

/// Steps along the K-dimension that one iteration does, at the most.
const STEPS: u32 = 16;

/// Words that an iteration reads of a factor in a memory for values: one by each port.
const PORTS: u32 = 2;

/// Sums of floats that iterations add to by turns: no fewer than the cycles that an addition takes, so that iterations need not
/// wait for it.
const PARTIALS: u32 = 8;

/// Rows up to which weights of few bits are multiplied as they are.
const FEW_ROWS: usize = 8;

/// Blocks of a column in an iteration, at the most.
const BLOCKS: u32 = 8;

/// Rows at a time, at the most: each has sums of its own in every lane.
const ROWS: u32 = 16;

/// Iterations that add to a sum of a product along the depth, at the most: what each gives is kept.
const PARTS: u32 = 16;

/// How a product is computed.
#[derive(Clone, Debug)]
pub(super) enum Method {
    /// With lanes along the columns of the result.
    Columns(Columns),
    /// With lanes along what is summed over.
    Depth(Depth),
    /// With weights of few bits.
    Blocks(Blocks),
    /// By an engine for all products of integers with constants.
    Tiled(Tiled),
}

impl Method {
    /// The way for the product of a piece, with what it multiplies arranged for it among the constants; `None` if the piece is none,
    /// or if lanes are to compute elements by themselves.
    ///
    /// # Errors
    /// A defect.
    pub fn of(
        plan: &Plan,
        constants: &mut Constants,
        arranged_lanes: &mut Vec<u32>,
        piece: &Piece,
        (widths, tile, is_cache): (Widths, Option<Tile>, bool),
    ) -> Result<Option<Method>, TargetError> {
        let products = Product::all_of(plan, constants, piece);
        let Some(product) = products.and_then(|products| products.into_iter().next()) else { return Ok(None) };
        let graph = &plan.graph;
        if !product.is_shared(graph) {
            return Ok(None);
        }
        if let Some(quantized) = &product.quantized
            && let Some(blocks) = by_blocks(&product, quantized, constants, arranged_lanes, widths)?
        {
            return Ok(Some(Method::Blocks(blocks)));
        }
        if let Some(tile) = tile.filter(|tile| tile.suits(plan, constants, &product)) {
            let [_, b] = product.factors;
            let view = by_tiles(plan, b, &product, tile)?;
            let packed = constants.pack(Arranged { value: b, view });
            read_at_once(arranged_lanes, packed, tile.steps * tile.lanes);
            return Ok(Some(Method::Tiled(Tiled::new(product, tile, packed, widths.lanes))));
        }
        let is_float = product.sum.is_float();
        let macs = if is_float { widths.float_macs } else { widths.integer_macs };
        let is_constant = constants.derived[product.factors[1].index()];
        let batch = Batch::of(plan, &product);
        // Elements of B that come at once: of a cache, which comes from beside the part, as many as all rows have multipliers for.
        let all_rows = (batch.rows() as u32).next_power_of_two().min(ROWS);
        let word = if is_cache { widths.lanes.max(macs / (PORTS * all_rows)) } else { widths.lanes };
        if !is_constant && let Some(depth) = along_depth(&product, &batch, (word, widths.lanes), macs) {
            return Ok(Some(Method::Depth(depth)));
        }
        let [a, b] = product.factors;
        let (rows, lanes, steps) = match is_constant {
            false if is_float => of_values(&product, &batch, word, macs),
            _ => {
                let rows = (batch.rows() as u32).next_power_of_two().min(ROWS).min(macs.max(1));
                let most = if is_constant { macs / rows } else { widths.lanes.min(macs / rows) };
                let lanes = lanes_for(product.n, most.max(1), widths.lanes);
                // More multiplications of floats than there are multipliers would take what there is of look-up tables.
                let most = if is_float { (macs / (rows * lanes)).max(1) } else { 1 << lanes.ilog2() };
                (rows, lanes, power_in(product.k, STEPS.min(most)))
            }
        };
        let partials = if is_float { PARTIALS.min(product.k as u32 / steps) } else { 1 };
        // Matrices of a batch follow each other, or there is one.
        let is_whole = graph.shape(b).count() == product.batch.count() * product.k * product.n;
        let is_whole = is_whole && batch.matrices() == product.batch.count();
        let packed = if is_constant && is_whole && lanes > 1 {
            let view = by_lanes(plan, b, &product, lanes)?;
            let number = constants.pack(Arranged { value: b, view });
            read_at_once(arranged_lanes, number, if is_float { lanes * (steps / PORTS).max(1) } else { lanes });
            Some(number)
        } else {
            None
        };
        let stored = graph.ty(a).dtype;
        let few = if lanes.is_multiple_of(widths.lanes) { widths.lanes } else { lanes };
        Ok(Some(Method::Columns(Columns {
            product,
            batch,
            lanes,
            rows,
            steps,
            partials,
            packed,
            stored,
            few,
            cache: None,
        })))
    }

    /// Numbers of the arranged constants that calls read once from the first element to the last.
    pub fn in_order(&self) -> Vec<u32> {
        match self {
            Method::Blocks(Blocks { packed: Packed { integers, scale, zero }, .. }) => {
                let parameters = [Some(*scale), *zero].into_iter().flatten();
                let arranged = parameters.filter_map(|packing| match packing {
                    Packing::Arranged(number) => Some(number),
                    Packing::Known(..) => None,
                });
                [*integers].into_iter().chain(arranged).collect()
            }
            Method::Tiled(tiled) => vec![tiled.packed],
            Method::Columns(_) | Method::Depth(_) => Vec::new(),
        }
    }
}

/// Rows at a time of a product whose B lies in words of so many elements: as many as there are multiply-accumulates for the words that
/// come in a cycle.
fn rows_of(batch: &Batch, word: u32, macs: u32) -> u32 {
    let all = (batch.rows() as u32).next_power_of_two().min(ROWS);
    let most = (macs / (PORTS * word)).max(1);
    all.min(1 << most.ilog2())
}

/// A product with lanes along the depth, if its factors lie along it, of a B of which so many elements come at once; other values lie in
/// words of so many.
fn along_depth(product: &Product, batch: &Batch, (word, lanes): (u32, u32), macs: u32) -> Option<Depth> {
    let rows = rows_of(batch, word, macs);
    let elements = (PORTS * word).min(macs / rows).max(1);
    let along = power_in(product.k, elements);
    let columns = power_in(product.n, elements / along);
    let parts = product.k as u32 / along;
    if product.runs_along_k != [true; 2] || parts > PARTS || along == 1 {
        return None;
    }
    // Parts of sums are added up without further adders.
    let few = power_in(product.n, lanes.min(along * columns).min(macs / parts));
    Some(Depth { product: product.clone(), batch: batch.clone(), along, columns, rows, few, cache: None })
}

/// Rows and columns at a time, and steps of an iteration, of a product of floats whose B lies in words of so many elements.
fn of_values(product: &Product, batch: &Batch, word: u32, macs: u32) -> (u32, u32, u32) {
    let rows = rows_of(batch, word, macs);
    let lanes = lanes_for(product.n, word.min(macs / rows).max(1), word);
    let most = (PORTS * word).min(macs / rows) / lanes;
    (rows, lanes, power_in(product.k, most.clamp(1, STEPS)))
}

/// Lanes for so many columns: the most that divide them, preferably such that no lane's bank changes.
fn lanes_for(columns: usize, most: u32, banks: u32) -> u32 {
    let most = most.min(columns as u32).clamp(1, MAX_THREADS);
    let divides = |lanes: &u32| columns.is_multiple_of(*lanes as usize);
    let is_aligned = |lanes: &u32| lanes.is_multiple_of(banks) || banks.is_multiple_of(*lanes);
    let all = (1..=most).rev();
    all.clone().filter(divides).find(is_aligned).or_else(|| all.clone().find(divides)).unwrap_or(1)
}

/// The elements of B in the order in which lanes want them: tiles of columns, then what is summed over, then columns of a tile.
fn by_lanes(plan: &Plan, value: ValueId, product: &Product, lanes: u32) -> Result<View, TargetError> {
    let shape = plan.graph.shape(value).clone();
    let lead = shape.count() / (product.k * product.n).max(1);
    let (tiles, lanes) = (product.n / lanes as usize, lanes as usize);
    let (split, perm) = match product.op.transpose_b {
        false => (vec![lead, product.k, tiles, lanes], vec![0, 2, 1, 3]),
        true => (vec![lead, tiles, lanes, product.k], vec![0, 1, 3, 2]),
    };
    turned(&shape, split, perm)
}

/// The elements of B in the order in which an engine wants them: parts of what is summed over, tiles of columns, steps of a part, columns
/// of a tile.
fn by_tiles(plan: &Plan, value: ValueId, product: &Product, tile: Tile) -> Result<View, TargetError> {
    let (lanes, steps) = (tile.lanes as usize, tile.steps as usize);
    let (parts, tiles) = (product.k / steps, product.n / lanes);
    let (split, perm) = match product.op.transpose_b {
        false => (vec![parts, steps, tiles, lanes], vec![0, 2, 1, 3]),
        true => (vec![tiles, lanes, parts, steps], vec![2, 0, 3, 1]),
    };
    turned(plan.graph.shape(value), split, perm)
}

/// A value whose dimensions are split, and then exchanged.
fn turned(shape: &Shape, split: Vec<usize>, perm: Vec<usize>) -> Result<View, TargetError> {
    let turned: Vec<usize> = perm.iter().map(|&axis| split[axis]).collect();
    let shapes = [&split, &turned].map(|dims| Shape::new(dims.iter().copied()));
    let [Ok(split), Ok(turned)] = shapes else { return Err(defect("the columns of a product cannot be told apart")) };
    let through = |view: View, op: Op, shape: &Shape| view.through(&op, shape);
    let view = through(View::dense(shape.clone()), Op::Reshape(Reshape { shape: split.clone() }), &split);
    let view = view.and_then(|view| through(view, Op::Transpose(Transpose { perm }), &turned));
    view.ok_or_else(|| defect("weights have no strides"))
}

/// Whether a product reads weights of few bits as they are.
pub(in crate::fpga) fn has_few_rows(graph: &Graph, node: &Node, product: &MatMul) -> bool {
    let [a, b] = [graph.ty(node.inputs[0]), graph.ty(node.inputs[1])];
    let is_float = a.dtype == b.dtype && matches!(a.dtype, DType::F32 | DType::F16 | DType::BF16);
    let Ok(dims) = product.dims(a, b) else { return false };
    let is_plain = b.shape.count() == dims.k * dims.n && !product.a_zero && !product.b_zero;
    is_float && is_plain && dims.batch.count() * dims.m <= FEW_ROWS && dims.n > 1
}

/// Remembers how many elements of what is packed lanes read at once.
fn read_at_once(arranged_lanes: &mut Vec<u32>, number: u32, lanes: u32) {
    let place = number as usize;
    if arranged_lanes.len() <= place {
        arranged_lanes.resize(place + 1, 1);
    }
    arranged_lanes[place] = lanes;
}

/// A product by blocks of weights of few bits, if they are integers and blocks lie along the depth.
fn by_blocks(
    product: &Product,
    quantized: &Quantized,
    constants: &mut Constants,
    arranged_lanes: &mut Vec<u32>,
    widths: Widths,
) -> Result<Option<Blocks>, TargetError> {
    let is_integer = matches!(quantized.stored, DType::I4 | DType::U4 | DType::I8 | DType::U8);
    let is_plain = product.batch.count() == 1 && product.m <= FEW_ROWS && product.sum.is_float();
    let Some(size) = Blocks::size_of(quantized, product.k).filter(|_| is_integer && is_plain) else { return Ok(None) };
    // With fewer multipliers than a block has weights they are packed as floats.
    if widths.integer_macs < size * product.m as u32 {
        return Ok(None);
    }
    let lanes = Blocks::lanes_for(product.n, widths.integer_macs / (size * product.m as u32).max(1));
    let all = product.k as u32 / size;
    // An iteration writes out what as many cycles do as it has blocks.
    let most = widths.integer_macs / (size * lanes * product.m as u32).max(1);
    let most = most.clamp(1, BLOCKS).min(all);
    let blocks = (1..=most).rev().find(|blocks| all.is_multiple_of(*blocks)).unwrap_or(1);
    let order = Order { tiles: product.n as u32 / lanes, lanes, parts: all / blocks, blocks };
    let integers = order.packed(constants, quantized.integers, size)?;
    read_at_once(arranged_lanes, integers, size * lanes);
    let mut parameter = |parameter: Parameter| -> Result<Packing, TargetError> {
        Ok(match parameter {
            Parameter::Known(dtype, bits) => Packing::Known(dtype, bits),
            Parameter::Groups(number, ..) => {
                let number = order.packed(constants, number, 1)?;
                read_at_once(arranged_lanes, number, blocks * lanes);
                Packing::Arranged(number)
            }
        })
    };
    let scale = parameter(quantized.scale)?;
    let zero = quantized.zero.map(parameter).transpose()?;
    let product = product.clone();
    let packed = Packed { integers, scale, zero };
    let (few, after) = (Blocks::few_for(size, product.k, widths.lanes), power_in(product.n, widths.lanes));
    let paired = Blocks::paired(quantized).filter(|_| lanes > 1);
    Ok(Some(Blocks { product, lanes, blocks, size, packed, paired, few, after }))
}

/// The order of what belongs to blocks: parts of the depth, tiles of columns, blocks of a part, steps of a block, columns of a tile.
#[derive(Clone, Copy)]
struct Order {
    tiles: u32,
    lanes: u32,
    parts: u32,
    blocks: u32,
}

impl Order {
    /// Packs in this order what lies column by column, with so many elements of each block.
    fn packed(self, constants: &mut Constants, number: u32, steps: u32) -> Result<u32, TargetError> {
        let Arranged { value, view } = constants.arranged[number as usize].clone();
        let split = [self.tiles, self.lanes, self.parts, self.blocks, steps].map(|extent| extent as usize);
        let perm = vec![2, 0, 3, 4, 1];
        let turned: Vec<usize> = perm.iter().map(|&axis| split[axis]).collect();
        let shapes = [Shape::new(split), Shape::new(turned)];
        let [Ok(split), Ok(turned)] = shapes else { return Err(defect("blocks of weights cannot be told apart")) };
        let view = view.through(&Op::Reshape(Reshape { shape: split.clone() }), &split);
        let view = view.and_then(|view| view.through(&Op::Transpose(Transpose { perm }), &turned));
        let view = view.ok_or_else(|| defect("weights of few bits have no strides"))?;
        Ok(constants.pack(Arranged { value, view }))
    }
}
