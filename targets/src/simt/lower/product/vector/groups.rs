//! Weights of few bits: threads share columns, each with parts of the depth, and make numbers of what they have read when they
//! multiply it.
//!
//! A vector of weights lies within a group of one scale and one zero point, which come with it. What is made of one chunk of a
//! vector is multiplied before the next is made, so that it takes few registers. Several columns of a thread share what it reads of
//! the rows.

use tcc_ir::ops::BinaryFn;
use tcc_ir::{DType, ValueId};

use super::super::super::elements::Elements;
use super::super::super::piece::Prologue;
use super::super::super::quantized::{Parameter, Quantized};
use super::super::{Product, zero};
use super::depth::{Columns, REGISTERS, STAGED};
use super::{RESIDENT, Rows, SUMS, Shares, THREADS, told};
use crate::simt::SimtMachine;
use crate::simt::kernel::{Builder, ExprId, Scalar, Stmt, VarId};
use crate::target::TargetError;

/// Bits of a vector, at the most and at least.
const MOST: usize = 128;
const LEAST: usize = 32;

/// Weights that numbers are made of at a time.
const CHUNK: u32 = 8;

/// Columns of a thread.
const OWN: [u32; 3] = [1, 2, 4];

/// Ways to share out products with weights of few bits; none if no vectors of them lie within groups.
pub(super) fn shares(products: &[Product], quantized: &Quantized, machine: &SimtMachine, room: u64) -> Vec<Shares> {
    let (product, warp, bits) = (&products[0], machine.warp, quantized.stored.bits());
    let most = quantized.together(MOST / bits);
    let mut all = Vec::new();
    for at_once in [most, most / 2].into_iter().filter(|&count| count * bits >= LEAST) {
        let divides = |lanes: &u32| product.k.is_multiple_of(*lanes as usize * at_once);
        let lanes = (0..=warp.trailing_zeros()).map(|power| 1 << power).filter(divides).max().unwrap_or(1);
        for own in OWN {
            let sums = (product.m * products.len()) as u32 * own;
            // Blocks for all multiprocessors are worth more than columns that share what they read.
            let columns = product.n * product.batch.count() / own as usize;
            let enough = columns * lanes as usize >= (machine.multiprocessors * THREADS) as usize;
            if own > 1 && (2 * sums > SUMS || !enough) {
                continue;
            }
            for threads in [THREADS, 2 * THREADS, 4 * THREADS].into_iter().filter(|&all| all <= machine.block_threads) {
                let resident = (RESIDENT / threads).max(1) as usize * machine.multiprocessors as usize;
                let groups = product.n.div_ceil((threads / lanes * own) as usize) * product.batch.count();
                let rounds = groups.div_ceil(resident).max(1) as u32;
                all.push(Shares { lanes, own, at_once: at_once as u32, threads, warp, rounds, room });
            }
        }
    }
    all
}

/// What a thread has read of a column: a vector of weights, with their scale and zero point.
struct Vector {
    weights: VarId,
    scale: Option<VarId>,
    zero: Option<VarId>,
}

impl Vector {
    fn new(builder: &mut Builder, quantized: &Quantized, count: u32) -> Vector {
        let mut var = |name: &str, parameter: Parameter| match parameter {
            Parameter::Known(..) => None,
            Parameter::Groups(_, dtype, _) => {
                let start = zero(builder, dtype);
                Some(builder.declare(name, Scalar::of(dtype), start))
            }
        };
        let scale = var("scale", quantized.scale);
        let zero_point = quantized.zero.and_then(|parameter| var("zero_point", parameter));
        Vector { weights: builder.packed("weights", quantized.stored, count), scale, zero: zero_point }
    }

    /// The scale and the zero point.
    fn parameters(&self, builder: &mut Builder, quantized: &Quantized) -> (ExprId, Option<ExprId>) {
        let mut held = |var: Option<VarId>, parameter: Parameter| match (var, parameter) {
            (Some(var), _) => builder.get(var),
            (None, Parameter::Known(dtype, bits)) => builder.number(dtype, bits),
            (None, Parameter::Groups(_, dtype, _)) => zero(builder, dtype),
        };
        (held(self.scale, quantized.scale), quantized.zero.map(|parameter| held(self.zero, parameter)))
    }
}

/// How the kernel goes through the depth.
struct Flow<'p> {
    products: &'p [Product],
    /// The weights of each.
    quantized: Vec<&'p Quantized>,
    shares: Shares,
    /// Where this thread's first weights of a step are.
    own: ExprId,
    lane: ExprId,
    /// What was read: for each vector of a step, each product and each column.
    held: Vec<Vec<Vec<Vector>>>,
    /// Numbers that a chunk becomes, of one column or of all.
    numbers: Vec<VarId>,
}

impl Flow<'_> {
    fn m(&self) -> usize {
        self.products[0].m
    }

    /// Whether the scale is left to the sum of what has it. Where weights are rounded to binary32, as sums are, that changes no more
    /// than the order of summation does; where they are rounded to fewer bits, what a product takes must be rounded so.
    fn scales_sums(&self) -> bool {
        self.quantized[0].rounded == DType::F32 && !self.quantized[0].stored.is_float()
    }

    /// Reads the vector of a number in its step, from a place of the depth on.
    fn read(&self, elements: &mut Elements<'_>, rows: &Rows<'_>, columns: &[ExprId], from: ExprId, number: u32) {
        let Shares { lanes, at_once, .. } = self.shares;
        let depth = elements.builder.add(from, self.own);
        let distance = elements.builder.integer((number * lanes * at_once) as i32);
        let depth = elements.builder.add(depth, distance);
        let to = elements.builder.integer(0);
        let of_products = self.products.iter().zip(&self.quantized).zip(&self.held[number as usize]);
        for ((product, quantized), held) in of_products {
            for (vector, &column) in held.iter().zip(columns) {
                let coords = product.coords(elements, 1, &rows.lead, depth, column);
                let coords = elements.packed_coords(quantized, &coords);
                let from = elements.index_in(&quantized.shape, &coords);
                let buffer = elements.arranged(quantized.integers);
                elements.builder.push(Stmt::LoadVector { array: vector.weights, to, buffer, from, count: at_once });
                let (scale, zero) = elements.scale_and_zero(quantized, &coords);
                for (var, read) in [(vector.scale, Some(scale)), (vector.zero, zero)] {
                    if let (Some(var), Some(read)) = (var, read) {
                        elements.builder.set(var, read);
                    }
                }
            }
        }
    }

    /// Makes numbers of a chunk of a vector.
    fn dequantize(&self, elements: &mut Elements<'_>, quantized: &Quantized, vector: &Vector, to: VarId, first: u32) {
        let count = CHUNK.min(self.shares.at_once);
        let (scale, zero) = vector.parameters(&mut elements.builder, quantized);
        if quantized.stored.is_float() {
            for place in 0..count {
                let [from, to_place] = [first + place, place].map(|place| elements.builder.integer(place as i32));
                let element = elements.builder.element(vector.weights, from);
                let number = elements.number_of(quantized, element, (scale, zero));
                elements.builder.set_element(to, to_place, number);
            }
            return;
        }
        let scale = Some(scale).filter(|_| !self.scales_sums());
        let (packed, dtype) = (vector.weights, quantized.rounded);
        elements.builder.push(Stmt::Dequantize { array: to, packed, first, count, zero, scale, dtype });
    }

    /// What a thread multiplies of a row: so many elements from one of a vector on.
    fn left(
        &self,
        elements: &mut Elements<'_>,
        rows: &Rows<'_>,
        (row, from): (usize, ExprId),
        (number, first): (u32, u32),
    ) -> Result<Vec<ExprId>, TargetError> {
        let Shares { lanes, at_once, .. } = self.shares;
        let k = self.products[0].k;
        let chunk = first..first + CHUNK.min(at_once);
        let read = |j: u32| {
            let Some(shared) = rows.shared else {
                let depth = elements.builder.add(from, self.own);
                let distance = elements.builder.integer((number * lanes * at_once + j) as i32);
                let depth = elements.builder.add(depth, distance);
                let row = elements.builder.integer(row as i32);
                return rows.left(elements, row, depth);
            };
            let builder = &mut elements.builder;
            let at = builder.add(from, self.lane);
            let distance = builder.integer((number * lanes * at_once + j * lanes) as i32 + (row * k) as i32);
            let at = builder.add(at, distance);
            Ok(builder.load_shared(shared, at, "x"))
        };
        chunk.map(read).collect()
    }

    /// Multiplies what was read, and adds it to the sums: of each product, column and row.
    fn multiply(
        &self,
        elements: &mut Elements<'_>,
        rows: &Rows<'_>,
        from: ExprId,
        number: u32,
        sums: &[VarId],
    ) -> Result<(), TargetError> {
        let held = &self.held[number as usize];
        let m = self.m();
        let sum = self.products[0].sum;
        let vectors = || self.quantized.iter().zip(held).flat_map(|(quantized, held)| held.iter().map(move |vector| (quantized, vector)));
        let mut parts: Vec<Option<VarId>> = vec![None; sums.len()];
        for first in (0..self.shares.at_once).step_by(CHUNK as usize) {
            let mut add = |elements: &mut Elements<'_>, to: usize, numbers: VarId, left: &[ExprId]| {
                for (j, &x) in left.iter().enumerate() {
                    let builder = &mut elements.builder;
                    let j = builder.integer(j as i32);
                    let y = builder.element(numbers, j);
                    let target = if self.scales_sums() { parts[to] } else { Some(sums[to]) };
                    match target {
                        Some(target) => {
                            let so_far = builder.get(target);
                            let next = builder.mul_add(sum, x, y, so_far);
                            builder.set(target, next);
                        }
                        None => {
                            let begun = builder.binary(BinaryFn::Mul, sum, x, y);
                            parts[to] = Some(builder.declare("part", Scalar::of(sum), begun));
                        }
                    }
                }
            };
            if self.numbers.len() > 1 {
                for ((quantized, vector), &numbers) in vectors().zip(&self.numbers) {
                    self.dequantize(elements, quantized, vector, numbers, first);
                }
                for row in 0..m {
                    let left = self.left(elements, rows, (row, from), (number, first))?;
                    for (place, &numbers) in self.numbers.iter().enumerate() {
                        add(elements, place * m + row, numbers, &left);
                    }
                }
            } else {
                let left = (0..m).map(|row| self.left(elements, rows, (row, from), (number, first)));
                let left = left.collect::<Result<Vec<_>, _>>()?;
                for (place, (quantized, vector)) in vectors().enumerate() {
                    self.dequantize(elements, quantized, vector, self.numbers[0], first);
                    for (row, left) in left.iter().enumerate() {
                        add(elements, place * m + row, self.numbers[0], left);
                    }
                }
            }
        }
        // The scale once for all of a vector.
        for (place, (quantized, vector)) in vectors().enumerate() {
            let (scale, _) = vector.parameters(&mut elements.builder, quantized);
            for row in 0..m {
                if let Some(part) = parts[place * m + row] {
                    let builder = &mut elements.builder;
                    let (part, so_far) = (builder.get(part), builder.get(sums[place * m + row]));
                    let next = builder.mul_add(sum, part, scale, so_far);
                    builder.set(sums[place * m + row], next);
                }
            }
        }
        Ok(())
    }
}

/// Has vectors on their way all the time: each is read again as soon as it is multiplied, for the next columns after the last.
pub(super) fn by_groups(
    elements: &mut Elements<'_>,
    rows: &mut Rows<'_>,
    prologue: Option<&Prologue>,
    shares: Shares,
    outputs: &[ValueId],
) -> Result<([u32; 3], String), TargetError> {
    let products = rows.products;
    let Product { m, n, k, sum, .. } = products[0];
    let Shares { lanes, own, at_once, rounds, .. } = shares;
    let quantized: Vec<&Quantized> = products.iter().filter_map(|product| product.quantized.as_ref()).collect();
    let bits = at_once * quantized[0].stored.bits() as u32;
    let columns = Columns::new(&mut elements.builder, n, shares);
    let step = lanes * at_once;
    let vectors = k as u32 / step;
    // Weights, scales and zero points.
    let each = bits.div_ceil(32) + 1 + u32::from(quantized[0].zero.is_some());
    let registers = each * own * products.len() as u32;
    let fits = |&ahead: &u32| vectors.is_multiple_of(ahead) && registers * ahead <= REGISTERS;
    let ahead = [8, 7, 6, 5, 4, 3, 2].into_iter().find(fits).unwrap_or(1);
    let step = step * ahead;
    let builder = &mut elements.builder;
    let zero_index = builder.integer(0);
    let of_columns = |builder: &mut Builder, quantized: &&Quantized| -> Vec<Vector> {
        (0..own).map(|_| Vector::new(builder, quantized, at_once)).collect()
    };
    let held = (0..ahead).map(|_| quantized.iter().map(|quantized| of_columns(builder, quantized)).collect()).collect();
    // Either what is read of rows waits for the numbers of each column, or numbers of all columns wait for rows.
    let all = own as usize * products.len();
    let start = builder.float(DType::F32, 0.0);
    let arrays = if m > all { all } else { 1 };
    let numbers = (0..arrays).map(|_| builder.array("numbers", Scalar::F32, CHUNK.min(at_once), start)).collect();
    let first = builder.scaled(columns.lane, at_once as i32);
    let first = builder.keep("own", Scalar::I32, first);
    let flow = Flow { products, quantized, shares, own: first, lane: columns.lane, held, numbers };
    let is_shared = m * k <= shares.room as usize || prologue.is_some();
    let ahead_of_rows = Rows { products, shared: None, turned: None, lead: rows.lead.clone() };
    let of_round = |elements: &mut Elements<'_>, round: ExprId| -> Vec<(ExprId, ExprId)> {
        (0..own).map(|number| columns.of_round(&mut elements.builder, round, number)).collect()
    };
    let begin = |elements: &mut Elements<'_>, round: ExprId| {
        elements.scoped(|elements| {
            let read: Vec<ExprId> = of_round(elements, round).into_iter().map(|(_, read)| read).collect();
            (0..ahead).for_each(|number| flow.read(elements, &ahead_of_rows, &read, zero_index, number));
        });
        Ok::<(), TargetError>(())
    };
    rows.turned = is_shared.then_some((lanes, at_once));
    match prologue {
        Some(_) => rows.compute(elements, prologue, |elements| begin(elements, zero_index))?,
        None if is_shared => rows.stage(elements, STAGED, |elements| begin(elements, zero_index))?,
        None => begin(elements, zero_index)?,
    }
    let end = elements.builder.integer(rounds as i32);
    let round = if rounds > 1 { elements.builder.loop_over("round", zero_index, end, 1) } else { zero_index };
    elements.open();
    let own_columns = of_round(elements, round);
    let read: Vec<ExprId> = own_columns.iter().map(|&(_, read)| read).collect();
    let start = zero(&mut elements.builder, sum);
    let sums: Vec<VarId> =
        (0..all * m).map(|_| elements.builder.declare("sum", Scalar::of(sum), start)).collect();
    if k as u32 > step {
        let end = elements.builder.integer((k as u32 - step) as i32);
        let from = elements.builder.loop_over("k", zero_index, end, step);
        elements.open();
        let distance = elements.builder.integer(step as i32);
        let next = elements.builder.add(from, distance);
        let next = elements.builder.keep("next", Scalar::I32, next);
        for number in 0..ahead {
            flow.multiply(elements, rows, from, number, &sums)?;
            elements.scoped(|elements| flow.read(elements, &ahead_of_rows, &read, next, number));
        }
        elements.close();
    }
    let from = elements.builder.integer((k as u32 - step) as i32);
    for number in 0..ahead {
        flow.multiply(elements, rows, from, number, &sums)?;
    }
    if rounds > 1 {
        // What the next round begins with comes while this one's sums are added up.
        let one = elements.builder.integer(1);
        let next = elements.builder.add(round, one);
        let more = elements.builder.below(next, rounds as i32);
        elements.builder.when(more);
        elements.open();
        begin(elements, next)?;
        elements.close();
    }
    for (number, &column) in own_columns.iter().enumerate() {
        let of_column = |product: usize| (product * own as usize + number) * m;
        let sums: Vec<VarId> =
            (0..products.len()).flat_map(|product| sums[of_column(product)..of_column(product) + m].to_vec()).collect();
        columns.finish(elements, rows, column, &sums, outputs)?;
    }
    if rounds > 1 {
        elements.close()
    } else {
        elements.leave()
    }
    let how = format!(
        "{lanes} threads for {own} columns each, {at_once} weights of {} bits at once, {ahead} vectors ahead, {rounds} rounds",
        flow.quantized[0].stored.bits()
    );
    Ok(([columns.blocks, 1, products[0].batch.count() as u32], told(&products[0], &how)))
}
