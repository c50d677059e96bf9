//! Weights whose columns lie beside each other: a thread has some columns and a share of the depth.

use tcc_ir::ops::BinaryFn;
use tcc_ir::{DType, ValueId};

use super::super::super::wide_type;
use super::super::{Product, zero};
use super::{Rows, Shares, at_once, open, told};
use crate::kernel::{Builder, ExprId, IndexFn, Scalar, SharedId, Stmt, VarId};
use crate::lower::elements::Elements;
use crate::lower::piece::Prologue;
use crate::number::FoldFn;
use crate::target::TargetError;

/// Registers for weights and rows that are read ahead.
const REGISTERS: u32 = 24;

/// Threads have columns that lie beside each other, and shares of the depth. Neighbouring threads of a warp have the same columns.
pub(super) fn along_columns(
    elements: &mut Elements<'_>,
    rows: &mut Rows<'_>,
    prologue: Option<&Prologue>,
    shares: Shares,
    outputs: &[ValueId],
) -> Result<([u32; 3], String), TargetError> {
    let products = rows.products;
    let k = products[0].k;
    let flow = Flow::new(elements, products, shares);
    let Flow { own, parts, ahead, rounds, blocks, .. } = flow;
    match flow.at_once {
        Some(at_once) if k.is_multiple_of((parts * ahead) as usize) => {
            flow.streamed(elements, rows, prologue, at_once, outputs)?;
        }
        _ => {
            rows.compute(elements, prologue, |_| Ok(()))?;
            let (zero_index, end) = (elements.builder.integer(0), elements.builder.integer(rounds as i32));
            let round = if rounds > 1 { elements.builder.loop_over("round", zero_index, end, 1) } else { zero_index };
            elements.open();
            let sums = flow.plain(elements, rows, round)?;
            flow.finish(elements, rows, (round, &sums), outputs)?;
            if rounds > 1 { elements.close() } else { elements.leave() }
        }
    }
    let Shares { lanes, .. } = shares;
    let how = format!(
        "{own} columns and 1/{parts} of the depth each, {lanes} threads beside each other, {ahead} vectors ahead, {rounds} rounds"
    );
    Ok(([blocks, 1, products[0].batch.count() as u32], told(&products[0], &how)))
}

/// What a thread multiplies, and in which order it reads it.
struct Flow {
    shares: Shares,
    thread: ExprId,
    block: ExprId,
    /// The number of the warp, and what of the columns and of the depth this thread has.
    number: ExprId,
    within: ExprId,
    share: ExprId,
    part: ExprId,
    /// Columns of a thread, and of a block.
    own: u32,
    all: u32,
    /// Threads of a warp with the same columns, and shares of the depth that there are.
    within_warp: u32,
    parts: u32,
    /// Vectors of weights that are on their way.
    ahead: u32,
    /// What is read at once, if anything is.
    at_once: Option<(u32, DType)>,
    /// Blocks, and columns that each has one after the other.
    blocks: u32,
    rounds: u32,
}

impl Flow {
    fn new(elements: &mut Elements<'_>, products: &[Product], shares: Shares) -> Flow {
        let Product { m, n, k, .. } = products[0];
        let Shares { lanes, own, threads, warp, rounds, .. } = shares;
        let within_warp = warp / lanes;
        let (parts, all) = (within_warp * (threads / warp), lanes * own);
        let builder = &mut elements.builder;
        let (thread, block) = (builder.thread(), builder.block(0));
        let (number, place) = builder.divided(thread, warp as i32);
        let (lane, share) = builder.divided(place, within_warp as i32);
        let share = builder.keep("share", Scalar::I32, share);
        let first = builder.scaled(number, within_warp as i32);
        let part = builder.add(first, share);
        let part = builder.keep("part", Scalar::I32, part);
        let within = builder.scaled(lane, own as i32);
        let within = builder.keep("within", Scalar::I32, within);
        let wide = at_once(elements, &products[0], false).filter(|(most, _)| own > 1 && own <= *most);
        let at_once = wide.map(|(_, dtype)| (own, dtype));
        let ahead = ahead(k, parts, own, at_once, (m, products.len()));
        let blocks = (n.div_ceil(all as usize) as u32).div_ceil(rounds);
        Flow {
            shares,
            thread,
            block,
            number,
            within,
            share,
            part,
            own,
            all,
            within_warp,
            parts,
            ahead,
            at_once,
            blocks,
            rounds,
        }
    }

    /// The first column of the block in a round.
    fn first(&self, builder: &mut Builder, round: ExprId) -> ExprId {
        let before = builder.scaled(round, self.blocks as i32);
        let number = builder.add(self.block, before);
        builder.scaled(number, self.all as i32)
    }

    /// The first column of this thread in a round. Threads beyond the last column work on it too, and do not write.
    fn column(&self, builder: &mut Builder, round: ExprId, n: usize) -> ExprId {
        let first = self.first(builder, round);
        let column = builder.add(first, self.within);
        let all = n.is_multiple_of((self.all * self.blocks * self.rounds) as usize);
        let last = builder.integer(n as i32 - self.own as i32);
        let column = if all { column } else { builder.index(IndexFn::Min, column, last) };
        builder.keep("column", Scalar::I32, column)
    }

    /// What of the depth a vector is of, from a place on.
    fn depth(&self, builder: &mut Builder, from: ExprId, number: u32) -> ExprId {
        let own = builder.add(from, self.part);
        let distance = builder.integer((number * self.parts) as i32);
        builder.add(own, distance)
    }

    /// Has vectors on their way all the time: each is read again as soon as it is multiplied. The first are read before the rows
    /// are computed, which takes as long as they take to come.
    fn streamed(
        &self,
        elements: &mut Elements<'_>,
        rows: &mut Rows<'_>,
        prologue: Option<&Prologue>,
        (count, stored): (u32, DType),
        outputs: &[ValueId],
    ) -> Result<(), TargetError> {
        let products = rows.products;
        let Product { m, n, k, sum, .. } = products[0];
        let builder = &mut elements.builder;
        let (start, zero_index) = (zero(builder, sum), builder.integer(0));
        let is_read = prologue.is_none();
        let held: Vec<(Vec<VarId>, Vec<VarId>)> = (0..self.ahead)
            .map(|_| {
                let weights = products.iter().map(|_| builder.packed("weights", stored, count)).collect();
                let left = (0..m).filter(|_| is_read).map(|_| builder.declare("x", Scalar::of(sum), start)).collect();
                (weights, left)
            })
            .collect();
        let read = |elements: &mut Elements<'_>, rows: &Rows<'_>, (column, from): (ExprId, ExprId), number: u32| {
            let depth = self.depth(&mut elements.builder, from, number);
            let (weights, left) = &held[number as usize];
            for (product, &array) in products.iter().zip(weights) {
                let coords = product.coords(elements, 1, &rows.lead, depth, column);
                let (buffer, from) = elements.source(product.factors[1], &coords);
                let to = elements.builder.integer(0);
                elements.builder.push(Stmt::LoadVector { array, to, buffer, from, count });
            }
            if is_read {
                for (x, &var) in rows.all_left(elements, depth)?.into_iter().zip(left) {
                    elements.builder.set(var, x);
                }
            }
            Ok::<(), TargetError>(())
        };
        open(elements, rows, (self.all * self.blocks) as usize, u64::from(self.parts));
        // Only the weights need not be waited for.
        let first = Rows { products, shared: None, turned: None, lead: rows.lead.clone() };
        rows.compute(elements, prologue, |elements| {
            elements.scoped(|elements| {
                let column = self.column(&mut elements.builder, zero_index, n);
                (0..self.ahead).try_for_each(|number| read(elements, &first, (column, zero_index), number))
            })
        })?;
        let end = elements.builder.integer(self.rounds as i32);
        let round = if self.rounds > 1 { elements.builder.loop_over("round", zero_index, end, 1) } else { zero_index };
        elements.open();
        let column = self.column(&mut elements.builder, round, n);
        let sums = self.sums(&mut elements.builder, products);
        let multiply = |builder: &mut Builder, number: u32, left: &[ExprId]| {
            for (row, &x) in left.iter().enumerate() {
                self.add_products(builder, (row, x), (&held[number as usize].0, stored, sum), &sums);
            }
        };
        let step = self.parts * self.ahead;
        // What of the rows lies in shared memory is read for all vectors before the first is multiplied.
        let all_left = |elements: &mut Elements<'_>, rows: &Rows<'_>, from: ExprId| {
            let of_vector = |number: u32| match is_read {
                true => Ok(held[number as usize].1.iter().map(|&var| elements.builder.get(var)).collect()),
                false => {
                    let depth = self.depth(&mut elements.builder, from, number);
                    rows.all_left(elements, depth)
                }
            };
            (0..self.ahead).map(of_vector).collect::<Result<Vec<Vec<ExprId>>, TargetError>>()
        };
        if k as u32 > step {
            let end = elements.builder.integer((k as u32 - step) as i32);
            let from = elements.builder.loop_over("k", zero_index, end, step);
            elements.open();
            let left = all_left(elements, rows, from)?;
            let distance = elements.builder.integer(step as i32);
            let next = elements.builder.add(from, distance);
            let next = elements.builder.keep("next", Scalar::I32, next);
            for (number, left) in (0..self.ahead).zip(&left) {
                multiply(&mut elements.builder, number, left);
                elements.scoped(|elements| read(elements, rows, (column, next), number))?;
            }
            elements.close();
        }
        let from = elements.builder.integer((k as u32 - step) as i32);
        let left = all_left(elements, rows, from)?;
        for (number, left) in (0..self.ahead).zip(&left) {
            multiply(&mut elements.builder, number, left);
        }
        if self.rounds > 1 {
            // What the next round begins with comes while this one's sums are added up.
            let one = elements.builder.integer(1);
            let next = elements.builder.add(round, one);
            let more = elements.builder.below(next, self.rounds as i32);
            elements.builder.when(more);
            elements.open();
            let column = self.column(&mut elements.builder, next, n);
            (0..self.ahead).try_for_each(|number| read(elements, rows, (column, zero_index), number))?;
            elements.close();
        }
        self.finish(elements, rows, (round, &sums), outputs)?;
        if self.rounds > 1 {
            elements.close()
        } else {
            elements.leave()
        }
        Ok(())
    }

    /// Adds up the shares of the depth, by neighbouring threads and then by those who write.
    fn finish(
        &self,
        elements: &mut Elements<'_>,
        rows: &Rows<'_>,
        (round, sums): (ExprId, &[VarId]),
        outputs: &[ValueId],
    ) -> Result<(), TargetError> {
        let Product { m, n, sum, .. } = *rows.first();
        let Flow { own, all, .. } = *self;
        let warps = self.shares.threads / self.shares.warp;
        let count = m as u32 * own;
        let scalar = Scalar::of(sum);
        let dtype = wide_type(sum);
        let builder = &mut elements.builder;
        let mut totals = Vec::with_capacity(sums.len() * count as usize);
        for &sums in sums {
            for i in 0..count {
                let i = builder.integer(i as i32);
                let value = builder.element(sums, i);
                totals.push(builder.declare("total", scalar, value));
            }
        }
        if self.within_warp > 1 {
            let scratch = elements.scratch_of(dtype);
            for &total in &totals {
                elements.builder.reduce(total, FoldFn::Sum, sum, self.within_warp, scratch);
            }
        }
        let builder = &mut elements.builder;
        let size = m as u32 * warps * all;
        let partial: Vec<SharedId> = sums.iter().map(|_| builder.shared("partial", dtype, size)).collect();
        if self.rounds > 1 {
            // All have read what the round before left.
            builder.barrier();
        }
        let zero_index = builder.integer(0);
        let writes = builder.index(IndexFn::Eq, self.share, zero_index);
        builder.when(writes);
        let base = builder.scaled(self.number, all as i32);
        let base = builder.add(base, self.within);
        for (totals, &partial) in totals.chunks(count as usize).zip(&partial) {
            for (i, &total) in totals.iter().enumerate() {
                let (row, j) = (i as u32 / own, i as u32 % own);
                let distance = builder.integer((row * warps * all + j) as i32);
                let at = builder.add(base, distance);
                let value = builder.get(total);
                builder.store_shared(partial, at, value);
            }
        }
        builder.end();
        builder.barrier();
        let first = self.first(builder, round);
        let end = builder.integer((m as u32 * all) as i32);
        let i = builder.loop_over("i", self.thread, end, self.shares.threads);
        elements.open();
        let builder = &mut elements.builder;
        let (row, within) = builder.divided(i, all as i32);
        let column = builder.add(first, within);
        let column = builder.keep("column", Scalar::I32, column);
        let is_full = n.is_multiple_of((all * self.blocks * self.rounds) as usize);
        if !is_full {
            let there = builder.below(column, n as i32);
            builder.when(there);
            elements.open();
        }
        let builder = &mut elements.builder;
        let start = zero(builder, sum);
        let base = builder.scaled(row, (warps * all) as i32);
        let base = builder.add(base, within);
        let base = builder.keep("base", Scalar::I32, base);
        let mut totals = Vec::with_capacity(partial.len());
        for &partial in &partial {
            // All are read before the first two are added.
            let shares: Vec<ExprId> = (0..warps)
                .map(|p| {
                    let across = builder.integer((p * all) as i32);
                    let at = builder.add(base, across);
                    builder.load_shared(partial, at, "share")
                })
                .collect();
            let add = |builder: &mut Builder, a, b| builder.binary(BinaryFn::Add, sum, a, b);
            let total = shares.into_iter().reduce(|so_far, share| add(builder, so_far, share)).unwrap_or(start);
            totals.push(builder.keep("total", scalar, total));
        }
        rows.write(elements, (row, column), &totals, outputs)?;
        if !is_full {
            elements.close();
        }
        elements.close();
        Ok(())
    }

    /// An array of sums for each product.
    fn sums(&self, builder: &mut Builder, products: &[Product]) -> Vec<VarId> {
        let Product { m, sum, .. } = products[0];
        let start = zero(builder, sum);
        let count = m as u32 * self.own;
        products.iter().map(|_| builder.array("sums", Scalar::of(sum), count, start)).collect()
    }

    /// Reads vectors, or single weights, and multiplies them.
    fn plain(&self, elements: &mut Elements<'_>, rows: &Rows<'_>, round: ExprId) -> Result<Vec<VarId>, TargetError> {
        let product = rows.first();
        let column = self.column(&mut elements.builder, round, product.n);
        let sums = self.sums(&mut elements.builder, rows.products);
        let (k, sum) = (product.k, product.sum);
        let weights = product.factors[1];
        let stored = elements.stored(weights);
        let end = elements.builder.integer(k as i32);
        let first = elements.builder.loop_over("k", self.part, end, self.parts * self.ahead);
        elements.open();
        let mut held = Vec::with_capacity(self.ahead as usize);
        for number in 0..self.ahead {
            let distance = elements.builder.integer((number * self.parts) as i32);
            let depth = elements.builder.add(first, distance);
            let weights = rows.weights(elements, (stored, self.at_once.map(|(count, _)| count)), depth, column)?;
            held.push((weights, rows.all_left(elements, depth)?));
        }
        let dtype = elements.graph().ty(weights).dtype;
        for (weights, left) in held {
            for (row, x) in left.into_iter().enumerate() {
                self.add_products(&mut elements.builder, (row, x), (&weights, dtype, sum), &sums);
            }
        }
        elements.close();
        Ok(sums)
    }

    /// Adds the products of an element of a row with the weights of a vector.
    fn add_products(
        &self,
        builder: &mut Builder,
        (row, x): (usize, ExprId),
        (weights, dtype, sum): (&[VarId], DType, DType),
        sums: &[VarId],
    ) {
        let j = builder.unrolled("j", self.own);
        let base = builder.integer((row as u32 * self.own) as i32);
        let place = builder.add(base, j);
        for (&weights, &sums) in weights.iter().zip(sums) {
            let y = builder.element(weights, j);
            let y = builder.convert_register(dtype, sum, y);
            let so_far = builder.element(sums, place);
            let next = builder.mul_add(sum, x, y, so_far);
            builder.set_element(sums, place, next);
        }
        builder.end();
    }
}

/// Vectors of weights that a thread has on their way, so that memory is never waited for alone: as many as steps divide the depth by,
/// and registers hold.
fn ahead(k: usize, parts: u32, own: u32, at_once: Option<(u32, DType)>, (m, products): (usize, usize)) -> u32 {
    let vector = at_once.map_or(own, |(count, dtype)| (count * dtype.bits() as u32).div_ceil(32));
    let registers = vector * products as u32 + m as u32;
    let fits = |&count: &u32| k.is_multiple_of((parts * count) as usize) && registers * count <= REGISTERS;
    [8, 7, 6, 5, 4, 3, 2].into_iter().find(fits).unwrap_or(1)
}
