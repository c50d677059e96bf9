//! Products of few rows: weights are read once and in order, as fast as memory gives them, and multiplied as they come by.
//!
//! Where columns lie beside each other, a thread has some of them and a share of the depth; where the depth does, threads that
//! share a column have parts of that. Either way their sums are added up in shared memory or by their warp.

use tcc_ir::ops::BinaryFn;
use tcc_ir::{DType, ValueId};

use super::super::elements::{Coords, Elements};
use super::super::piece::Prologue;
use super::super::rows::one_row;
use super::panel::vector_of;
use super::{Product, zero};
use crate::simt::SimtMachine;
use crate::simt::kernel::{ExprId, IndexFn, Scalar, SharedId, Stmt, VarId};
use crate::target::TargetError;

/// Threads of a block.
const THREADS: u32 = 128;

/// Registers for weights and rows that are read ahead.
const REGISTERS: u32 = 64;

/// Bytes that the sums of a block's threads take at most, unless columns are multiplied one by one.
const SUMS: u64 = 32 << 10;

/// How the work is shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::simt::lower) struct Shares {
    /// Threads that have neighbouring columns, or the same.
    lanes: u32,
}

impl Shares {
    /// For a product.
    pub fn new(product: &Product, machine: &SimtMachine) -> Shares {
        if product.runs_along_k[1] {
            let lanes = (product.k / 4).next_power_of_two().clamp(1, machine.warp as usize) as u32;
            return Shares { lanes };
        }
        // As few threads beside each other as read whole sectors, but enough blocks for all multiprocessors.
        let mut lanes = 32;
        while lanes > 8 && product.n.div_ceil(lanes as usize * 4) < 2 * machine.multiprocessors as usize {
            lanes /= 2;
        }
        Shares { lanes }
    }

    pub fn threads(self) -> u32 {
        THREADS
    }
}

/// Products of the same rows, and where these are.
struct Rows<'p> {
    products: &'p [Product],
    /// The rows in shared memory, if every block has computed them.
    shared: Option<SharedId>,
    lead: Coords,
}

impl Rows<'_> {
    fn first(&self) -> &Product {
        &self.products[0]
    }
}

/// Writes the kernel.
pub(super) fn vector(
    elements: &mut Elements<'_>,
    products: &[Product],
    prologue: Option<&Prologue>,
    shares: Shares,
    outputs: &[ValueId],
    shared_bytes: u64,
) -> Result<([u32; 3], String), TargetError> {
    let product = &products[0];
    let block = elements.builder.block(2);
    let zero_index = elements.builder.integer(0);
    let lead = if product.batch.count() == 1 {
        Coords::from_elem(zero_index, product.batch.rank())
    } else {
        elements.coords_of(&product.batch.clone(), block)
    };
    let shared = match prologue {
        Some(prologue) => Some(computed(elements, product, prologue)?),
        None => None,
    };
    let rows = Rows { products, shared, lead };
    if product.runs_along_k[1] {
        along_depth(elements, &rows, shares, outputs)
    } else {
        let held = prologue.map_or(0, |_| 4 * (product.m * product.k) as u64);
        along_columns(elements, &rows, shares, outputs, shared_bytes.saturating_sub(held))
    }
}

/// Has the block compute the rows that it multiplies.
fn computed(elements: &mut Elements<'_>, product: &Product, prologue: &Prologue) -> Result<SharedId, TargetError> {
    let shared = elements.builder.shared("rows", DType::F32, (product.m * product.k) as u32);
    let Prologue { nodes, value, domain, axes } = prologue;
    let k = product.k;
    for row in 0..product.m {
        elements.scoped(|elements| {
            one_row(elements, (domain, axes), nodes, row, |elements, coords, column| {
                let element = elements.element(*value, coords)?;
                let first = elements.builder.integer((row * k) as i32);
                let at = elements.builder.add(first, column);
                elements.builder.store_shared(shared, at, element);
                Ok(())
            })
        })?;
    }
    elements.builder.barrier();
    Ok(shared)
}

/// Rows, which a thread computes all of, and what a kernel says of itself.
fn told(product: &Product, how: &str) -> String {
    format!("{} rows × {} × {}, {how}", product.m, product.n, product.k)
}

/// Threads have columns that lie beside each other, and shares of the depth.
fn along_columns(
    elements: &mut Elements<'_>,
    rows: &Rows<'_>,
    shares: Shares,
    outputs: &[ValueId],
    room: u64,
) -> Result<([u32; 3], String), TargetError> {
    let product = rows.first();
    let Product { m, n, k, .. } = *product;
    let weights = product.factors[1];
    let stored = elements.stored(weights);
    let wide = vector_of(elements, weights, stored, !product.sums_along_last(1), 16).filter(|&count| count <= 8);
    // As many as leave room for the sums of all threads, and for other blocks.
    let sums = 4 * (m * rows.products.len()) as u64 * u64::from(THREADS);
    let fits = |count: u32| sums * u64::from(count) <= room.min(SUMS);
    let widths = [1, 2, 4].map(|part| wide.map(|count| count / part));
    let is_vector = |count: u32| count as usize * stored.bits() >= 32;
    let wide = widths.into_iter().flatten().find(|&count| is_vector(count) && fits(count));
    let own = wide.unwrap_or(1);
    let (lanes, parts) = (shares.lanes, THREADS / shares.lanes);
    let scalar = Scalar::of(product.sum);
    let builder = &mut elements.builder;
    let (thread, block) = (builder.thread(), builder.block(0));
    let (part, lane) = builder.divided(thread, lanes as i32);
    let part = builder.keep("part", Scalar::I32, part);
    let first = builder.scaled(block, (lanes * own) as i32);
    let within = builder.scaled(lane, own as i32);
    let column = builder.add(first, within);
    let column = builder.keep("column", Scalar::I32, column);
    let count = m as u32 * own;
    let start = zero(builder, product.sum);
    let sums: Vec<VarId> = rows.products.iter().map(|_| builder.array("sums", scalar, count, start)).collect();
    let is_full = n.is_multiple_of((lanes * own) as usize);
    if !is_full {
        let there = builder.below(column, n as i32);
        builder.when(there);
        elements.open();
    }
    let end = elements.builder.integer(k as i32);
    let ahead = ahead(k, parts, own * rows.products.len() as u32 + m as u32);
    let first_k = elements.builder.loop_over("k", part, end, parts * ahead);
    elements.open();
    let mut held = Vec::with_capacity(ahead as usize);
    for number in 0..ahead {
        let distance = elements.builder.integer((number * parts) as i32);
        let depth = elements.builder.add(first_k, distance);
        let weights = rows.weights(elements, (stored, wide), depth, column)?;
        held.push((weights, rows.all_left(elements, depth)?));
    }
    let dtype = elements.graph().ty(weights).dtype;
    for (held, left) in held {
        for (row, x) in left.into_iter().enumerate() {
            let j = elements.builder.unrolled("j", own);
            let base = elements.builder.integer((row as u32 * own) as i32);
            let place = elements.builder.add(base, j);
            for (&held, &sums) in held.iter().zip(&sums) {
                let y = elements.builder.element(held, j);
                let y = elements.builder.convert_register(dtype, product.sum, y);
                let so_far = elements.builder.element(sums, place);
                let next = elements.builder.mul_add(product.sum, x, y, so_far);
                elements.builder.set_element(sums, place, next);
            }
            elements.builder.end();
        }
    }
    elements.close();
    if !is_full {
        elements.close();
    }
    // The shares of the depth are added up by those who write.
    let all = lanes * own;
    let builder = &mut elements.builder;
    let dtype = super::super::wide_type(product.sum);
    let size = m as u32 * parts * all;
    let partial: Vec<SharedId> = sums.iter().map(|_| builder.shared("partial", dtype, size)).collect();
    let i = builder.unrolled("i", count);
    let (row, j) = builder.divided(i, own as i32);
    let at = builder.scaled(row, parts as i32);
    let at = builder.add(at, part);
    let at = builder.scaled(at, all as i32);
    let within = builder.add(within, j);
    let at = builder.add(at, within);
    for (&sums, &partial) in sums.iter().zip(&partial) {
        let value = builder.element(sums, i);
        builder.store_shared(partial, at, value);
    }
    builder.end();
    builder.barrier();
    let end = builder.integer((m as u32 * all) as i32);
    let i = builder.loop_over("i", thread, end, THREADS);
    elements.open();
    let builder = &mut elements.builder;
    let (row, within) = builder.divided(i, all as i32);
    let column = builder.add(first, within);
    let column = builder.keep("column", Scalar::I32, column);
    if !is_full {
        let there = builder.below(column, n as i32);
        builder.when(there);
        elements.open();
    }
    let builder = &mut elements.builder;
    let start = zero(builder, product.sum);
    let base = builder.scaled(row, (parts * all) as i32);
    let base = builder.add(base, within);
    let mut totals = Vec::with_capacity(partial.len());
    for &partial in &partial {
        let total = builder.declare("total", scalar, start);
        let p = builder.unrolled("p", parts);
        let across = builder.scaled(p, all as i32);
        let at = builder.add(base, across);
        let value = builder.load_shared(partial, at, "share");
        let so_far = builder.get(total);
        let next = builder.binary(BinaryFn::Add, product.sum, so_far, value);
        builder.set(total, next);
        builder.end();
        totals.push(builder.get(total));
    }
    rows.write(elements, (row, column), &totals, outputs)?;
    if !is_full {
        elements.close();
    }
    elements.close();
    let text =
        told(product, &format!("{own} columns and 1/{parts} of the depth each, {lanes} threads beside each other"));
    let blocks = n.div_ceil(all as usize) as u32;
    Ok(([blocks, 1, product.batch.count() as u32], text))
}

/// Threads share a column, each with parts of the depth.
fn along_depth(
    elements: &mut Elements<'_>,
    rows: &Rows<'_>,
    shares: Shares,
    outputs: &[ValueId],
) -> Result<([u32; 3], String), TargetError> {
    let product = rows.first();
    let Product { m, n, k, .. } = *product;
    let weights = product.factors[1];
    let stored = elements.stored(weights);
    let wide = vector_of(elements, weights, stored, product.sums_along_last(1), 16).filter(|&count| count <= 8);
    let own = wide.unwrap_or(1);
    let lanes = shares.lanes;
    let columns = THREADS / lanes;
    let scalar = Scalar::of(product.sum);
    let builder = &mut elements.builder;
    let (thread, block) = (builder.thread(), builder.block(0));
    let (within, lane) = builder.divided(thread, lanes as i32);
    let lane = builder.keep("lane", Scalar::I32, lane);
    let first = builder.scaled(block, columns as i32);
    let column = builder.add(first, within);
    let is_full = n.is_multiple_of(columns as usize);
    // Threads beyond the last column work on it too, and do not write.
    let last = builder.integer(n as i32 - 1);
    let read = if is_full { column } else { builder.index(IndexFn::Min, column, last) };
    let read = builder.keep("column", Scalar::I32, read);
    let start = zero(builder, product.sum);
    let all = m * rows.products.len();
    let sums: Vec<VarId> = (0..all).map(|_| builder.declare("sum", scalar, start)).collect();
    let from = builder.scaled(lane, own as i32);
    let end = builder.integer(k as i32);
    let ahead = ahead(k, lanes * own, own * (rows.products.len() + m) as u32);
    let first_k = builder.loop_over("k", from, end, lanes * own * ahead);
    elements.open();
    let mut held = Vec::with_capacity(ahead as usize);
    for number in 0..ahead {
        let distance = elements.builder.integer((number * lanes * own) as i32);
        let depth = elements.builder.add(first_k, distance);
        let weights = rows.weights(elements, (stored, wide), depth, read)?;
        let mut left = Vec::with_capacity(own as usize);
        for j in 0..own {
            let distance = elements.builder.integer(j as i32);
            let at = elements.builder.add(depth, distance);
            left.push(rows.all_left(elements, at)?);
        }
        held.push((weights, left));
    }
    let dtype = elements.graph().ty(weights).dtype;
    for (held, left) in held {
        for (j, left) in left.into_iter().enumerate() {
            let j = elements.builder.integer(j as i32);
            for (row, x) in left.into_iter().enumerate() {
                for (held, sums) in held.iter().zip(sums.chunks(m)) {
                    let y = elements.builder.element(*held, j);
                    let y = elements.builder.convert_register(dtype, product.sum, y);
                    let so_far = elements.builder.get(sums[row]);
                    let next = elements.builder.mul_add(product.sum, x, y, so_far);
                    elements.builder.set(sums[row], next);
                }
            }
        }
    }
    elements.close();
    if lanes > 1 {
        let dtype = super::super::wide_type(product.sum);
        let known = elements.scratch.filter(|(known, _)| *known == dtype).map(|(_, scratch)| scratch);
        let scratch = known.unwrap_or_else(|| elements.builder.shared("scratch", dtype, THREADS));
        for &sum in &sums {
            elements.builder.reduce(sum, crate::number::FoldFn::Sum, product.sum, lanes, scratch);
        }
    }
    let builder = &mut elements.builder;
    let zero_index = builder.integer(0);
    let mut writes = builder.index(IndexFn::Eq, lane, zero_index);
    if !is_full {
        let there = builder.below(column, n as i32);
        writes = builder.index(IndexFn::And, writes, there);
    }
    builder.when(writes);
    elements.open();
    for row in 0..m {
        let index = elements.builder.integer(row as i32);
        let totals: Vec<ExprId> = sums.chunks(m).map(|sums| elements.builder.get(sums[row])).collect();
        rows.write(elements, (index, read), &totals, outputs)?;
    }
    elements.close();
    let text = told(product, &format!("{lanes} threads for each column, {own} elements at once"));
    Ok(([n.div_ceil(columns as usize) as u32, 1, product.batch.count() as u32], text))
}

/// Vectors of weights that a thread reads before it multiplies the first of them, so that memory is never waited for alone: as many as
/// steps divide the depth by, and registers hold.
fn ahead(k: usize, step: u32, registers: u32) -> u32 {
    let fits = |&count: &u32| k.is_multiple_of((step * count) as usize) && registers * count <= REGISTERS;
    [8, 4, 2].into_iter().find(fits).unwrap_or(1)
}

/// An array for weights that are read at once.
fn weights_array(elements: &mut Elements<'_>, stored: DType, count: u32) -> VarId {
    let start = zero(&mut elements.builder, stored);
    elements.builder.array("weights", Scalar::of(stored), count, start)
}

impl Rows<'_> {
    /// Reads weights of each product: so many elements at once as there are.
    fn weights(
        &self,
        elements: &mut Elements<'_>,
        (stored, wide): (DType, Option<u32>),
        k: ExprId,
        column: ExprId,
    ) -> Result<Vec<VarId>, TargetError> {
        let mut all = Vec::with_capacity(self.products.len());
        for product in self.products {
            let weights = product.factors[1];
            let held = weights_array(elements, stored, wide.unwrap_or(1));
            let coords = product.coords(elements, 1, &self.lead, k, column);
            let to = elements.builder.integer(0);
            match wide {
                Some(count) => {
                    let (buffer, from) = elements.source(weights, &coords);
                    elements.builder.push(Stmt::LoadVector { array: held, to, buffer, from, count });
                }
                None => {
                    let element = elements.operand_of_product(weights, &coords)?;
                    elements.builder.set_element(held, to, element);
                }
            }
            all.push(held);
        }
        Ok(all)
    }

    /// An element of A, as it is multiplied.
    fn left(&self, elements: &mut Elements<'_>, row: ExprId, k: ExprId) -> Result<ExprId, TargetError> {
        let product = self.first();
        if let Some(shared) = self.shared {
            let builder = &mut elements.builder;
            let first = builder.scaled(row, product.k as i32);
            let at = builder.add(first, k);
            return Ok(builder.load_shared(shared, at, "x"));
        }
        let value = product.factors[0];
        let coords = product.coords(elements, 0, &self.lead, row, k);
        let element = elements.operand_of_product(value, &coords)?;
        let dtype = elements.graph().ty(value).dtype;
        Ok(elements.builder.convert_register(dtype, product.sum, element))
    }

    /// An element of each row of A.
    fn all_left(&self, elements: &mut Elements<'_>, k: ExprId) -> Result<Vec<ExprId>, TargetError> {
        let m = self.first().m;
        let mut all = Vec::with_capacity(m);
        for row in 0..m {
            let index = elements.builder.integer(row as i32);
            all.push(self.left(elements, index, k)?);
        }
        Ok(all)
    }

    /// Writes what follows from the sums of a row and a column.
    fn write(
        &self,
        elements: &mut Elements<'_>,
        (row, column): (ExprId, ExprId),
        totals: &[ExprId],
        outputs: &[ValueId],
    ) -> Result<(), TargetError> {
        let coords = self.first().result_coords(elements, &self.lead, row, column);
        for (product, &total) in self.products.iter().zip(totals) {
            elements.hold(product.result, &coords, total);
        }
        outputs.iter().try_for_each(|&output| elements.store(output, &coords))
    }
}
