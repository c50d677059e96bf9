//! Weights of few bits: threads share columns, each with parts of the depth, and make numbers of what they have read when they
//! multiply it.
//!
//! A vector of weights lies within a group of one scale and one zero point, which come with it. What is made of one chunk of a
//! vector is multiplied before the next is made, so that it takes few registers. Several columns of a thread share what it reads of
//! the rows.

use std::cmp::Reverse;

use tcc_ir::ops::BinaryFn;
use tcc_ir::{DType, ValueId};

use super::super::super::Argument;
use super::super::{Product, zero};
use super::depth::{Columns, REGISTERS, STAGED};
use super::{RESIDENT, Rows, SUMS, Shares, THREADS, Turned, told};
use crate::kernel::{Builder, ExprId, Region, Scalar, Stmt, VarId};
use crate::lower::Opening;
use crate::lower::elements::Elements;
use crate::lower::piece::Prologue;
use crate::lower::quantized::{Parameter, Quantized};
use crate::simt::SimtMachine;
use crate::target::TargetError;

/// Bits of a vector, at the most and at least.
const MOST: usize = 128;
const LEAST: usize = 32;

/// Weights that numbers are made of at a time.
const CHUNK: u32 = 8;

/// Banks of shared memory that machines have.
const BANKS: u32 = 32;

/// Columns of a thread.
const OWN: [u32; 3] = [1, 2, 4];

/// Numbers of threads, for one way to share columns among them, that are looked at.
const CANDIDATES: usize = 3;

/// How much longer than the best the columns of a multiprocessor may take for more threads to share them.
const EVEN: f64 = 1.05;

/// Ways to share out products with weights of few bits; none if no vectors of them lie within groups. Where blocks compute rows first,
/// all their threads add up what they have, so that they are a power of two.
pub(super) fn shares(
    products: &[Product],
    quantized: &Quantized,
    machine: &SimtMachine,
    computes_rows: bool,
    room: u64,
) -> Vec<Shares> {
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
            for (threads, rounds) in balanced(product, (lanes, own), machine, computes_rows) {
                all.push(Shares { lanes, own, at_once: at_once as u32, threads, warp, rounds, room });
            }
        }
    }
    all
}

/// Threads of a block, and how many columns each has one after the other, such that no multiprocessor has many more columns than
/// others: each gets no more than its share of what memory gives.
fn balanced(
    product: &Product,
    (lanes, own): (u32, u32),
    machine: &SimtMachine,
    computes_rows: bool,
) -> Vec<(u32, u32)> {
    let multiprocessors = machine.multiprocessors as usize;
    let most = RESIDENT.min(machine.block_threads) / machine.warp;
    let warps = (1..=most).filter(|warps| warps * machine.warp >= THREADS.min(most * machine.warp));
    let warps = warps.filter(|warps| !computes_rows || (warps * machine.warp).is_power_of_two());
    let of_threads = |threads: u32| {
        let columns = (threads / lanes * own) as usize;
        let groups = product.n.div_ceil(columns);
        (1..=(RESIDENT / threads).max(1)).map(move |resident| {
            let rounds = (groups * product.batch.count()).div_ceil(multiprocessors * resident as usize).min(groups);
            let blocks = groups.div_ceil(rounds) * product.batch.count();
            let longest = blocks.div_ceil(multiprocessors) * rounds * columns;
            (longest, Reverse(resident * threads), threads, rounds as u32)
        })
    };
    let mut all: Vec<_> = warps.flat_map(|warps| of_threads(warps * machine.warp)).collect();
    // Of those that are about as even, the ones with more threads.
    let least = all.iter().map(|&(longest, ..)| longest).min().unwrap_or(0);
    all.retain(|&(longest, ..)| longest as f64 <= EVEN * least as f64);
    all.sort_unstable_by_key(|&(longest, all, threads, _)| (all, Reverse(threads), longest));
    all.into_iter().map(|(_, _, threads, rounds)| (threads, rounds)).take(CANDIDATES).collect()
}

/// What a thread has read of a column: a vector of weights, with their scale and zero point. All stay as they were read until they are
/// used, so that nothing waits for memory before.
struct Vector {
    weights: VarId,
    scale: Option<VarId>,
    zero: Option<VarId>,
    /// Which half of its byte the zero point is, if it has but four bits.
    half: Option<VarId>,
}

impl Vector {
    fn new(builder: &mut Builder, quantized: &Quantized, count: u32) -> Vector {
        let mut held = |name: &str, parameter: Parameter| match parameter {
            Parameter::Known(..) => None,
            Parameter::Groups(_, dtype, _) => Some(builder.packed(name, dtype, read_with(dtype))),
        };
        let scale = held("scale", quantized.scale);
        let zero = quantized.zero.and_then(|parameter| held("zero_point", parameter));
        let start = builder.integer(0);
        let is_half =
            |parameter: Parameter| matches!(parameter, Parameter::Groups(_, dtype, _) if read_with(dtype) > 1);
        let half = quantized.zero.filter(|&zero| is_half(zero)).map(|_| builder.declare("half", Scalar::I32, start));
        Vector { weights: builder.packed("weights", quantized.stored, count), scale, zero, half }
    }

    /// The scale and the zero point.
    fn parameters(&self, builder: &mut Builder, quantized: &Quantized) -> (ExprId, Option<ExprId>) {
        let mut held = |var: Option<VarId>, half: Option<VarId>, parameter: Parameter| {
            let first = builder.integer(0);
            match (var, parameter) {
                (Some(var), _) => {
                    let element = builder.element(var, first);
                    let Some(half) = half else { return element };
                    let (half, second) = (builder.get(half), builder.integer(1));
                    let other = builder.element(var, second);
                    builder.select(half, other, element)
                }
                (None, Parameter::Known(dtype, bits)) => builder.number(dtype, bits),
                (None, Parameter::Groups(_, dtype, _)) => zero(builder, dtype),
            }
        };
        let scale = held(self.scale, None, quantized.scale);
        (scale, quantized.zero.map(|parameter| held(self.zero, self.half, parameter)))
    }
}

/// Elements that are read with one: those of four bits come in pairs.
fn read_with(dtype: DType) -> u32 {
    if dtype.bits() < 8 { 2 } else { 1 }
}

/// Where what a thread reads of a column lies: the first of its weights, and what goes with the first group.
struct Place {
    weights: ExprId,
    scale: ExprId,
    zero: ExprId,
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

    /// How rows lie in shared memory: such that neither threads that read the first of what each has, nor those that write all that
    /// one has, meet in a bank.
    fn turned(&self) -> Turned {
        let Shares { lanes, at_once, .. } = self.shares;
        Turned { lanes, own: at_once, pitch: lanes + (BANKS / at_once).max(1) }
    }

    /// Where columns lie.
    fn places(&self, elements: &mut Elements<'_>, rows: &Rows<'_>, columns: &[ExprId]) -> Vec<Place> {
        // Products that are computed together have weights of one form.
        let (product, quantized) = (&self.products[0], self.quantized[0]);
        let place = |&column: &ExprId| {
            let first = elements.builder.integer(0);
            let coords = product.coords(elements, 1, &rows.lead, first, column);
            let coords = elements.packed_coords(quantized, &coords);
            let mut kept = |name: &str, parameter: Option<Parameter>| {
                let index = match parameter {
                    None => elements.index_in(&quantized.shape, &coords),
                    Some(parameter) => elements.index_of_group(parameter, &quantized.shape, &coords),
                };
                elements.builder.keep(name, Scalar::I32, index)
            };
            let weights = kept("column_weights", None);
            let scale = kept("column_scales", Some(quantized.scale));
            let zero = quantized.zero.map_or(scale, |zero| kept("column_zeros", Some(zero)));
            Place { weights, scale, zero }
        };
        columns.iter().map(place).collect()
    }

    /// Reads the vector of a number in its step, from a place of the depth on.
    fn read(&self, elements: &mut Elements<'_>, places: &[Place], from: ExprId, number: u32) {
        let Shares { lanes, at_once, .. } = self.shares;
        let builder = &mut elements.builder;
        let depth = builder.add(from, self.own);
        let distance = builder.integer((number * lanes * at_once) as i32);
        let depth = builder.add(depth, distance);
        let to = builder.integer(0);
        for (quantized, held) in self.quantized.iter().zip(&self.held[number as usize]) {
            for (vector, place) in held.iter().zip(places) {
                let from = elements.builder.add(place.weights, depth);
                let buffer = elements.arranged(quantized.integers);
                elements.builder.push(Stmt::LoadVector { array: vector.weights, to, buffer, from, count: at_once });
                let scale = (vector.scale, None, place.scale, Some(quantized.scale));
                let zero = (vector.zero, vector.half, place.zero, quantized.zero);
                for (array, half, first, parameter) in [scale, zero] {
                    let (Some(array), Some(Parameter::Groups(number, dtype, size))) = (array, parameter) else {
                        continue;
                    };
                    let buffer = elements.arranged(number);
                    let builder = &mut elements.builder;
                    // One for all of a column needs no place among others.
                    let is_one = size == self.products[0].k;
                    let group = if is_one { to } else { builder.divided(depth, size as i32).0 };
                    let mut from = builder.add(first, group);
                    if let Some(half) = half {
                        let (pair, which) = builder.divided(from, 2);
                        builder.set(half, which);
                        from = builder.scaled(pair, 2);
                    }
                    builder.push(Stmt::LoadVector { array, to, buffer, from, count: read_with(dtype) });
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
            let turned = self.turned();
            let (before, _) = builder.divided(from, lanes as i32);
            let before = builder.scaled(before, turned.pitch as i32);
            let at = builder.add(before, self.lane);
            let distance = (number * at_once + j) * turned.pitch + (row * turned.size(k)) as u32;
            let distance = builder.integer(distance as i32);
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
        let vectors = || {
            self.quantized
                .iter()
                .zip(held)
                .flat_map(|(quantized, held)| held.iter().map(move |vector| (quantized, vector)))
        };
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
    let flow = Flow { products, quantized, shares, own: first, lane: columns.lane, held, numbers };
    let is_shared = m * k <= shares.room as usize || prologue.is_some();
    let ahead_of_rows = Rows { products, shared: None, turned: None, lead: rows.lead.clone() };
    let of_round = |elements: &mut Elements<'_>, round: ExprId| -> Vec<(ExprId, ExprId)> {
        (0..own).map(|number| columns.of_round(&mut elements.builder, round, number)).collect()
    };
    let begin = |elements: &mut Elements<'_>| {
        elements.scoped(|elements| {
            let read: Vec<ExprId> = of_round(elements, zero_index).into_iter().map(|(_, read)| read).collect();
            let places = flow.places(elements, &ahead_of_rows, &read);
            (0..ahead).for_each(|number| flow.read(elements, &places, zero_index, number));
        });
        Ok::<(), TargetError>(())
    };
    if products[0].batch.count() == 1 {
        let bytes = |count: usize| (count * flow.quantized[0].stored.bits() / 8) as u64;
        let first = n.min((columns.columns * columns.blocks) as usize) as u64;
        let region = Region { first: 0, rows: first, pitch: bytes(k), width: bytes(k) };
        let opening = |quantized: &&Quantized| Opening {
            argument: Argument::Arranged(quantized.integers),
            region,
            by_rows: false,
            step: bytes((lanes * at_once) as usize),
        };
        elements.openings.extend(flow.quantized.iter().map(opening));
    }
    rows.turned = is_shared.then_some(flow.turned());
    match prologue {
        Some(_) => rows.compute(elements, prologue, |elements| begin(elements))?,
        None if is_shared => rows.stage(elements, STAGED, |elements| begin(elements))?,
        None => begin(elements)?,
    }
    let end = elements.builder.integer(rounds as i32);
    let round = if rounds > 1 { elements.builder.loop_over("round", zero_index, end, 1) } else { zero_index };
    elements.open();
    let own_columns = of_round(elements, round);
    let start = zero(&mut elements.builder, sum);
    let sums: Vec<VarId> = (0..all * m).map(|_| elements.builder.declare("sum", Scalar::of(sum), start)).collect();
    if k as u32 > step {
        let read: Vec<ExprId> = own_columns.iter().map(|&(_, read)| read).collect();
        let places = flow.places(elements, &ahead_of_rows, &read);
        let end = elements.builder.integer((k as u32 - step) as i32);
        let from = elements.builder.loop_over("k", zero_index, end, step);
        elements.open();
        let distance = elements.builder.integer(step as i32);
        let next = elements.builder.add(from, distance);
        let next = elements.builder.keep("next", Scalar::I32, next);
        for number in 0..ahead {
            flow.multiply(elements, rows, from, number, &sums)?;
            elements.scoped(|elements| flow.read(elements, &places, next, number));
        }
        elements.close();
    }
    // What the next round begins with comes as soon as there is room for it.
    let one = elements.builder.integer(1);
    let next = elements.builder.add(round, one);
    let more = elements.builder.below(next, rounds as i32);
    let after: Vec<ExprId> = match rounds {
        1 => Vec::new(),
        _ => of_round(elements, next).into_iter().map(|(_, read)| read).collect(),
    };
    let places = flow.places(elements, &ahead_of_rows, &after);
    let from = elements.builder.integer((k as u32 - step) as i32);
    for number in 0..ahead {
        flow.multiply(elements, rows, from, number, &sums)?;
        if rounds > 1 {
            elements.builder.when(more);
            elements.open();
            flow.read(elements, &places, zero_index, number);
            elements.close();
        }
    }
    columns.finish(elements, rows, &own_columns, &sums, outputs)?;
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
