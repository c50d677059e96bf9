//! How a product is shared out in hardware.

use tcc_ir::ops::{Reshape, Transpose};
use tcc_ir::{Op, Plan, Shape, ValueId, View};

use super::columns::Columns;
use super::depth::Depth;
use super::{Widths, power_in};
use crate::lower::Written;
use crate::lower::elements::{Elements, defect};
use crate::lower::piece::Piece;
use crate::lower::product::Product;
use crate::lower::quantized::{Arranged, Constants};
use crate::target::TargetError;

/// Steps along the K-dimension that one iteration does, at the most.
const STEPS: u32 = 16;

/// Sums of floats that an iteration adds to by turns: no fewer than the cycles that an addition takes, so that iterations need not
/// wait for it.
const PARTIALS: u32 = 8;

/// Rows at a time, at the most: each has sums of its own in every lane.
const ROWS: u32 = 16;

/// Words of a factor that one iteration of a product along the depth reads.
const CHUNKS: usize = 16;

/// How a product is computed.
#[derive(Clone, Debug)]
pub(super) enum Method {
    /// With lanes along the columns of the result.
    Columns(Columns),
    /// With lanes along what is summed over.
    Depth(Depth),
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
        widths: Widths,
    ) -> Result<Option<Method>, TargetError> {
        let products = Product::all_of(plan, constants, piece);
        let Some(product) = products.and_then(|products| products.into_iter().next()) else { return Ok(None) };
        let graph = &plan.graph;
        if !product.is_shared(graph) {
            return Ok(None);
        }
        let is_float = product.sum.is_float();
        let macs = if is_float { widths.float_macs } else { widths.integer_macs };
        let [a, b] = product.factors;
        let is_constant = constants.derived[b.index()];
        if !is_constant && product.runs_along_k[1] {
            let lanes = power_in(product.k, widths.lanes);
            let chunks = product.k / lanes as usize;
            let a_along = product.runs_along_k[0] || lanes == 1;
            if chunks <= CHUNKS && lanes > 1 && a_along {
                let columns = power_in(product.n, widths.lanes);
                // As many cycles as an iteration takes to read its words of B.
                let cycles = (columns * chunks as u32).div_ceil(2).max(1);
                let all = u64::from(macs) * u64::from(cycles) / (product.k as u64 * u64::from(columns)).max(1);
                let rows = (all.clamp(1, u64::from(ROWS)) as u32).min(product.m as u32);
                let rows = 1 << rows.ilog2();
                return Ok(Some(Method::Depth(Depth { product, lanes, rows, columns })));
            }
        }
        let rows = (product.m as u32).next_power_of_two().min(ROWS).min(macs.max(1));
        let most = if is_constant { macs / rows } else { widths.lanes.min(macs / rows) };
        let lanes = lanes_for(product.n, most.max(1), widths.lanes);
        let steps = power_in(product.k, STEPS.min(1 << lanes.ilog2()));
        let partials = if is_float { steps.min(PARTIALS) } else { 1 };
        // Matrices of a batch follow each other, or there is one.
        let is_whole = graph.shape(b).count() == product.batch.count() * product.k * product.n;
        let packed = if is_constant && is_whole && lanes > 1 {
            let view = by_lanes(plan, b, &product, lanes)?;
            let number = constants.pack(Arranged { value: b, view });
            arranged_lanes.resize(arranged_lanes.len().max(number as usize + 1), widths.lanes);
            arranged_lanes[number as usize] = lanes;
            Some(number)
        } else {
            None
        };
        let stored = graph.ty(a).dtype;
        Ok(Some(Method::Columns(Columns { product, lanes, rows, steps, partials, packed, stored })))
    }

    /// Lanes of the kernel.
    pub fn lanes(&self) -> u32 {
        match self {
            Method::Columns(columns) => columns.lanes,
            Method::Depth(depth) => depth.lanes,
        }
    }

    /// Writes the kernel; returns its grid and how it is shared out.
    ///
    /// # Errors
    /// A defect.
    pub fn write(&self, elements: &mut Elements<'_>, outputs: &[ValueId]) -> Result<Written, TargetError> {
        match self {
            Method::Columns(columns) => columns.write(elements, outputs),
            Method::Depth(depth) => depth.write(elements, outputs),
        }
    }
}

/// Lanes for so many columns: the most that divide them, preferably such that no lane's bank changes.
fn lanes_for(columns: usize, most: u32, banks: u32) -> u32 {
    let most = most.min(columns as u32).max(1);
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
    let turned: Vec<usize> = perm.iter().map(|&axis| split[axis]).collect();
    let shapes = [&split, &turned].map(|dims| Shape::new(dims.iter().copied()));
    let [Ok(split), Ok(turned)] = shapes else { return Err(defect("the columns of a product cannot be told apart")) };
    let through = |view: View, op: Op, shape: &Shape| view.through(&op, shape);
    let view = through(View::dense(shape), Op::Reshape(Reshape { shape: split.clone() }), &split);
    let view = view.and_then(|view| through(view, Op::Transpose(Transpose { perm }), &turned));
    view.ok_or_else(|| defect("weights have no strides"))
}
