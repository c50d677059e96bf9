//! Weights whose depth lies beside each other: threads share a column, each with parts of the depth.

use tcc_ir::{DType, ValueId};

use super::super::super::wide_type;
use super::super::panel::vector_of;
use super::super::{misfit, zero};
use super::{Rows, Shares, Turned, at_once, open, told};
use crate::kernel::{Builder, ExprId, IndexFn, Scalar, Stmt, VarId};
use crate::lower::elements::Elements;
use crate::lower::piece::Prologue;
use crate::lower::product::Product;
use crate::number::FoldFn;
use crate::target::TargetError;

/// Registers for weights that are read ahead.
pub(super) const REGISTERS: u32 = 24;

/// Elements of the rows that a thread reads before it writes the first of them to shared memory.
pub(super) const STAGED: usize = 8;

/// Threads that share a column: as many as a warp has, if each has a vector.
pub(super) fn lanes(elements: &Elements<'_>, product: &Product, warp: u32) -> u32 {
    let count = at_once(elements, product, true).map_or(4, |(count, _)| count);
    let most = (product.k / count as usize).max(1);
    let below = if most.is_power_of_two() { most } else { most.next_power_of_two() / 2 };
    below.min(warp as usize) as u32
}

/// Threads share a column, each with parts of the depth.
pub(super) fn along_depth(
    elements: &mut Elements<'_>,
    rows: &mut Rows<'_>,
    prologue: Option<&Prologue>,
    shares: Shares,
    outputs: &[ValueId],
) -> Result<([u32; 3], String), TargetError> {
    let product = rows.first();
    let (m, k) = (product.m, product.k);
    let at_once =
        at_once(elements, product, true).filter(|(count, _)| k.is_multiple_of((shares.lanes * count) as usize));
    match at_once.filter(|_| m * k <= shares.room as usize) {
        Some((count, stored)) => streamed(elements, rows, prologue, shares, (count, stored), outputs),
        None => {
            rows.compute(elements, prologue, |_| Ok(()))?;
            plain(elements, rows, shares, outputs)
        }
    }
}

/// Which columns a thread works on.
pub(super) struct Columns {
    shares: Shares,
    block: ExprId,
    /// The number of the column among those of the block, and that of the thread among those of the column.
    within: ExprId,
    pub lane: ExprId,
    pub columns: u32,
    pub blocks: u32,
    n: usize,
}

impl Columns {
    pub fn new(builder: &mut Builder, n: usize, shares: Shares) -> Columns {
        let (thread, block) = (builder.thread(), builder.block(0));
        let (within, lane) = builder.divided(thread, shares.lanes as i32);
        let lane = builder.keep("lane", Scalar::I32, lane);
        let columns = shares.threads / shares.lanes * shares.own;
        let blocks = (n.div_ceil(columns as usize) as u32).div_ceil(shares.rounds);
        Columns { shares, block, within, lane, columns, blocks, n }
    }

    fn is_full(&self) -> bool {
        self.n == (self.columns * self.blocks * self.shares.rounds) as usize
    }

    /// The column of a round that is the thread's by a number, and one that there is: threads beyond the last work on it too, and do
    /// not write.
    pub fn of_round(&self, builder: &mut Builder, round: ExprId, own: u32) -> (ExprId, ExprId) {
        let before = builder.scaled(round, self.blocks as i32);
        let number = builder.add(self.block, before);
        let first = builder.scaled(number, self.columns as i32);
        let column = builder.add(first, self.within);
        let distance = builder.integer((own * self.columns / self.shares.own) as i32);
        let column = builder.add(column, distance);
        let last = builder.integer(self.n as i32 - 1);
        let read = if self.is_full() { column } else { builder.index(IndexFn::Min, column, last) };
        (column, builder.keep("column", Scalar::I32, read))
    }

    /// Adds up what threads of some columns have, and has the first of them write what follows. Sums are those of each product, column
    /// and row.
    pub fn finish(
        &self,
        elements: &mut Elements<'_>,
        rows: &Rows<'_>,
        columns: &[(ExprId, ExprId)],
        sums: &[VarId],
        outputs: &[ValueId],
    ) -> Result<(), TargetError> {
        let Product { m, sum, .. } = *rows.first();
        if self.shares.lanes > 1 {
            let scratch = elements.scratch_of(wide_type(sum));
            for &own in sums {
                elements.builder.reduce(own, FoldFn::Sum, sum, self.shares.lanes, scratch);
            }
        }
        let builder = &mut elements.builder;
        let zero_index = builder.integer(0);
        let writes = builder.index(IndexFn::Eq, self.lane, zero_index);
        for (number, &(column, read)) in columns.iter().enumerate() {
            let builder = &mut elements.builder;
            let mut writes = writes;
            if !self.is_full() {
                let there = builder.below(column, self.n as i32);
                writes = builder.index(IndexFn::And, writes, there);
            }
            builder.when(writes);
            elements.open();
            for row in 0..m {
                let index = elements.builder.integer(row as i32);
                let of_products = sums.chunks(m * columns.len());
                let totals = of_products.map(|sums| elements.builder.get(sums[number * m + row])).collect::<Vec<_>>();
                rows.write(elements, (index, read), &totals, outputs)?;
            }
            elements.close();
        }
        Ok(())
    }
}

/// Has vectors on their way all the time: each is read again as soon as it is multiplied, for the next column after the last. The
/// rows lie in shared memory so that threads beside each other read elements beside each other.
fn streamed(
    elements: &mut Elements<'_>,
    rows: &mut Rows<'_>,
    prologue: Option<&Prologue>,
    shares: Shares,
    (count, stored): (u32, DType),
    outputs: &[ValueId],
) -> Result<([u32; 3], String), TargetError> {
    let products = rows.products;
    let Product { m, n, k, sum, .. } = products[0];
    let Shares { lanes, rounds, .. } = shares;
    let dtype = elements.graph().ty(products[0].factors[1]).dtype;
    let columns = Columns::new(&mut elements.builder, n, shares);
    let vectors = k as u32 / (lanes * count);
    let registers = (count * stored.bits() as u32).div_ceil(32) * products.len() as u32;
    let fits = |&ahead: &u32| vectors.is_multiple_of(ahead) && registers * ahead <= REGISTERS;
    let ahead = [8, 7, 6, 5, 4, 3, 2].into_iter().find(fits).unwrap_or(1);
    let builder = &mut elements.builder;
    let zero_index = builder.integer(0);
    let held: Vec<Vec<VarId>> =
        (0..ahead).map(|_| products.iter().map(|_| builder.packed("weights", stored, count)).collect()).collect();
    let own = builder.scaled(columns.lane, count as i32);
    let own = builder.keep("own", Scalar::I32, own);
    let lead = rows.lead.clone();
    let read = |elements: &mut Elements<'_>, (column, from): (ExprId, ExprId), number: u32| {
        let depth = elements.builder.add(from, own);
        let distance = elements.builder.integer((number * lanes * count) as i32);
        let depth = elements.builder.add(depth, distance);
        for (product, &array) in products.iter().zip(&held[number as usize]) {
            let coords = product.coords(elements, 1, &lead, depth, column);
            let (buffer, from) = elements.source(product.factors[1], &coords);
            elements.builder.push(Stmt::LoadVector { array, to: zero_index, buffer, from, count });
        }
    };
    open(elements, rows, (columns.columns * columns.blocks) as usize, u64::from(lanes * count));
    rows.turned = Some(Turned { lanes, own: count, pitch: lanes });
    let first = |elements: &mut Elements<'_>| {
        elements.scoped(|elements| {
            let (_, column) = columns.of_round(&mut elements.builder, zero_index, 0);
            (0..ahead).for_each(|number| read(elements, (column, zero_index), number));
        });
        Ok(())
    };
    match prologue {
        Some(_) => rows.compute(elements, prologue, first)?,
        None => rows.stage(elements, STAGED, first)?,
    }
    let shared = rows.shared.ok_or_else(misfit)?;
    let end = elements.builder.integer(rounds as i32);
    let round = if rounds > 1 { elements.builder.loop_over("round", zero_index, end, 1) } else { zero_index };
    elements.open();
    let (column, present) = columns.of_round(&mut elements.builder, round, 0);
    let start = zero(&mut elements.builder, sum);
    let all = m * products.len();
    let sums: Vec<VarId> = (0..all).map(|_| elements.builder.declare("sum", Scalar::of(sum), start)).collect();
    let multiply = |elements: &mut Elements<'_>, from: ExprId, number: u32| {
        for row in 0..m {
            // All are read before the first is multiplied.
            let left: Vec<ExprId> = (0..count)
                .map(|j| {
                    let builder = &mut elements.builder;
                    let at = builder.add(from, columns.lane);
                    let distance = (number * lanes * count + j * lanes) as i32 + (row * k) as i32;
                    let distance = builder.integer(distance);
                    let at = builder.add(at, distance);
                    builder.load_shared(shared, at, "x")
                })
                .collect();
            for (j, x) in left.into_iter().enumerate() {
                let builder = &mut elements.builder;
                let j = builder.integer(j as i32);
                for (&weights, sums) in held[number as usize].iter().zip(sums.chunks(m)) {
                    let y = builder.element(weights, j);
                    let y = builder.convert_register(dtype, sum, y);
                    let so_far = builder.get(sums[row]);
                    let next = builder.mul_add(sum, x, y, so_far);
                    builder.set(sums[row], next);
                }
            }
        }
    };
    let step = lanes * count * ahead;
    if k as u32 > step {
        let end = elements.builder.integer((k as u32 - step) as i32);
        let from = elements.builder.loop_over("k", zero_index, end, step);
        elements.open();
        let distance = elements.builder.integer(step as i32);
        let next = elements.builder.add(from, distance);
        let next = elements.builder.keep("next", Scalar::I32, next);
        for number in 0..ahead {
            multiply(elements, from, number);
            elements.scoped(|elements| read(elements, (present, next), number));
        }
        elements.close();
    }
    let from = elements.builder.integer((k as u32 - step) as i32);
    (0..ahead).for_each(|number| multiply(elements, from, number));
    if rounds > 1 {
        // What the next round begins with comes while this one's sums are added up.
        let one = elements.builder.integer(1);
        let next = elements.builder.add(round, one);
        let more = elements.builder.below(next, rounds as i32);
        elements.builder.when(more);
        elements.open();
        let (_, column) = columns.of_round(&mut elements.builder, next, 0);
        (0..ahead).for_each(|number| read(elements, (column, zero_index), number));
        elements.close();
    }
    columns.finish(elements, rows, &[(column, present)], &sums, outputs)?;
    if rounds > 1 {
        elements.close()
    } else {
        elements.leave()
    }
    let how =
        format!("{lanes} threads for each column, {count} elements at once, {ahead} vectors ahead, {rounds} rounds");
    Ok(([columns.blocks, 1, products[0].batch.count() as u32], told(&products[0], &how)))
}

/// Reads vectors, or single weights, and multiplies them.
fn plain(
    elements: &mut Elements<'_>,
    rows: &Rows<'_>,
    shares: Shares,
    outputs: &[ValueId],
) -> Result<([u32; 3], String), TargetError> {
    let product = rows.first();
    let Product { m, n, k, sum, .. } = *product;
    let weights = product.factors[1];
    let stored = elements.stored(weights);
    let wide = vector_of(elements, weights, stored, product.sums_along_last(1), 16).filter(|&count| count <= 8);
    let own = wide.unwrap_or(1);
    let Shares { lanes, rounds, .. } = shares;
    let columns = Columns::new(&mut elements.builder, n, shares);
    let builder = &mut elements.builder;
    let (zero_index, end) = (builder.integer(0), builder.integer(rounds as i32));
    let round = if rounds > 1 { builder.loop_over("round", zero_index, end, 1) } else { zero_index };
    elements.open();
    let (column, present) = columns.of_round(&mut elements.builder, round, 0);
    let builder = &mut elements.builder;
    let start = zero(builder, sum);
    let all = m * rows.products.len();
    let sums: Vec<VarId> = (0..all).map(|_| builder.declare("sum", Scalar::of(sum), start)).collect();
    let from = builder.scaled(columns.lane, own as i32);
    let end = builder.integer(k as i32);
    let depth = builder.loop_over("k", from, end, lanes * own);
    elements.open();
    let held = rows.weights(elements, (stored, wide), depth, present)?;
    let dtype = elements.graph().ty(weights).dtype;
    for j in 0..own {
        let distance = elements.builder.integer(j as i32);
        let at = elements.builder.add(depth, distance);
        for (row, x) in rows.all_left(elements, at)?.into_iter().enumerate() {
            for (&held, sums) in held.iter().zip(sums.chunks(m)) {
                let y = elements.builder.element(held, distance);
                let y = elements.builder.convert_register(dtype, sum, y);
                let so_far = elements.builder.get(sums[row]);
                let next = elements.builder.mul_add(sum, x, y, so_far);
                elements.builder.set(sums[row], next);
            }
        }
    }
    elements.close();
    columns.finish(elements, rows, &[(column, present)], &sums, outputs)?;
    if rounds > 1 {
        elements.close()
    } else {
        elements.leave()
    }
    let text = told(product, &format!("{lanes} threads for each column, {own} elements at once, {rounds} rounds"));
    Ok(([columns.blocks, 1, product.batch.count() as u32], text))
}
