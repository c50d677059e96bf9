//! The array: floats as bf16 with sums in binary32, integers as 9-bit numbers with sums of 32 bits.

use half::bf16;
use rayon::prelude::*;
use tcc_ir::DType;

use super::fault::FaultCause;
use crate::number::{Number, canonical};
use crate::systolic::isa::{Multiply, Outer, Preload, Walk, WeightRows};
use crate::systolic::machine::ArrayType;
use crate::systolic::nest::walk_step;

/// Columns that are computed together; the weights of as many lie side by side.
const PANEL: usize = 16;
/// Rows that are computed together.
const ROWS: usize = 2;
/// Sums of this many integer products are exact in binary32: 256 · 255² < 2²⁴.
const EXACT_PRODUCTS: usize = 256;

/// What a plane of weights was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Float,
    Integer,
}

impl Kind {
    /// What it takes of an array.
    pub fn array_type(self) -> ArrayType {
        match self {
            Kind::Float => ArrayType::Bf16,
            Kind::Integer => ArrayType::Int8,
        }
    }
}

/// A plane of weights in the array.
#[derive(Clone, Debug)]
pub(super) struct Plane {
    kind: Kind,
    groups: usize,
    k: usize,
    n: usize,
    /// For each group, panels of [`PANEL`] columns; in each, row after row. Columns beyond `n` hold zeros.
    panels: Vec<f32>,
}

/// The kind of elements of a type, which stand somewhere as `role`.
pub(super) fn kind_of(dtype: DType, role: &'static str) -> Result<Kind, FaultCause> {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 | DType::F8E4M3 | DType::F8E5M2 => Ok(Kind::Float),
        DType::I8 | DType::U8 | DType::I4 | DType::U4 | DType::Bool => Ok(Kind::Integer),
        _ => Err(FaultCause::Type { dtype, role }),
    }
}

/// Step in nibbles of a stride in bytes; four-bit elements with stride 0 lie packed.
fn step(dtype: DType, stride: i32) -> i64 {
    if dtype.bits() == 4 && stride == 0 { 1 } else { 2 * i64::from(stride) }
}

fn zero_point_at(scratchpad: &[u8], dtype: DType, address: Option<u32>) -> f32 {
    let mut zero = [0.0f32];
    if let Some(address) = address {
        f32::load(scratchpad, dtype, 2 * i64::from(address), 0, &mut zero);
    }
    zero[0]
}

/// Brings elements into the form in which the array takes them.
fn convert(kind: Kind, zero: f32, x: &mut [f32]) {
    match kind {
        Kind::Float => x.iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32()),
        Kind::Integer => x.iter_mut().for_each(|x| *x -= zero),
    }
}

impl Plane {
    /// The part of the array that the weights take.
    pub fn rows(&self) -> WeightRows {
        WeightRows { groups: self.groups as u16, k: self.k as u16 }
    }

    /// Reads the weights, whose addresses have been checked.
    pub fn load(preload: &Preload, scratchpad: &[u8]) -> Result<Plane, FaultCause> {
        let kind = kind_of(preload.dtype, "weights of the array")?;
        if kind == Kind::Float && preload.zero_point.is_some() {
            return Err(FaultCause::Malformed("floats have no zero point"));
        }
        let zero = zero_point_at(scratchpad, preload.dtype, preload.zero_point);
        let (groups, k, n) = (usize::from(preload.groups), usize::from(preload.k), usize::from(preload.n));
        let n_step = step(preload.dtype, preload.n_stride);
        let packed_along_n = preload.dtype.bits() == 4 && preload.n_stride == 0;
        let k_step =
            if packed_along_n { 2 * i64::from(preload.k_stride) } else { step(preload.dtype, preload.k_stride) };
        let across = n.div_ceil(PANEL);
        let mut panels = vec![0.0; groups * across * PANEL * k];
        for (index, panel) in panels.chunks_mut(PANEL * k.max(1)).enumerate() {
            let (group, column) = (index / across, index % across * PANEL);
            let width = PANEL.min(n - column);
            let first = 2 * (i64::from(preload.address) + group as i64 * i64::from(preload.group_stride));
            for (row, weights) in panel.chunks_mut(PANEL).enumerate() {
                let at = first + row as i64 * k_step + column as i64 * n_step;
                let weights = &mut weights[..width];
                f32::load(scratchpad, preload.dtype, at, n_step, weights);
                convert(kind, zero, weights);
            }
        }
        Ok(Plane { kind, groups, k, n, panels })
    }

    /// Passes rows of A through the weights into the accumulators, which have `columns` columns. Addresses have been
    /// checked.
    pub fn multiply(
        &self,
        multiply: &Multiply,
        scratchpad: &[u8],
        accumulators: &mut [u8],
        columns: usize,
    ) -> Result<(), FaultCause> {
        let kind = kind_of(multiply.dtype, "the array's left operand")?;
        if kind != self.kind {
            return Err(FaultCause::Type { dtype: multiply.dtype, role: "left operand of weights of the other kind" });
        }
        if kind == Kind::Float && multiply.zero_point.is_some() {
            return Err(FaultCause::Malformed("floats have no zero point"));
        }
        // Addresses of no rows were not checked.
        if multiply.m == 0 {
            return Ok(());
        }
        let zero = zero_point_at(scratchpad, multiply.dtype, multiply.zero_point);
        let k_step = step(multiply.dtype, multiply.k_stride);
        let row_bytes = columns * 4;
        let pass_bytes = multiply.m as usize * row_bytes;
        let rows_per_task = (131_072 / (self.k * self.n).max(1)).clamp(1, 256).next_multiple_of(ROWS);
        let across = self.n.div_ceil(PANEL);
        for group in 0..self.groups {
            let first = (multiply.accumulator_row as usize + group * multiply.group_rows as usize) * row_bytes;
            let accumulators = &mut accumulators[first..first + pass_bytes];
            let address = i64::from(multiply.address) + group as i64 * i64::from(multiply.group_stride);
            let panels = &self.panels[group * across * PANEL * self.k..][..across * PANEL * self.k];
            accumulators.par_chunks_mut(row_bytes * rows_per_task).enumerate().for_each(|(task, accumulators)| {
                let mut a = vec![0.0f32; ROWS * self.k];
                for (index, accumulators) in accumulators.chunks_mut(row_bytes * ROWS).enumerate() {
                    let row = task * rows_per_task + index * ROWS;
                    for (offset, a) in a.chunks_mut(self.k.max(1)).enumerate().take(accumulators.len() / row_bytes) {
                        let at = 2 * (address + (row + offset) as i64 * i64::from(multiply.m_stride));
                        f32::load(scratchpad, multiply.dtype, at, k_step, a);
                        convert(kind, zero, a);
                    }
                    self.multiply_rows(&a, panels, accumulators, row_bytes, multiply.accumulate);
                }
            });
        }
        Ok(())
    }

    /// Multiplies [`ROWS`] rows with the weights of a group and combines as many as there are accumulators for.
    fn multiply_rows(&self, a: &[f32], panels: &[f32], accumulators: &mut [u8], row_bytes: usize, accumulate: bool) {
        for index in 0..self.n.div_ceil(PANEL) {
            let panel = &panels[index * PANEL * self.k..][..PANEL * self.k];
            let columns = index * PANEL * 4..(index * PANEL + PANEL).min(self.n) * 4;
            let words = accumulators.chunks_mut(row_bytes).map(|row| &mut row[columns.clone()]);
            match self.kind {
                Kind::Float => {
                    let sums = products(a, self.k, 0..self.k, panel);
                    for (words, sums) in words.zip(&sums) {
                        for (word, &sum) in words.chunks_exact_mut(4).zip(sums) {
                            let old: f32 = bytemuck::pod_read_unaligned(word);
                            let new = if accumulate { old + sum } else { sum };
                            word.copy_from_slice(&canonical(new).to_ne_bytes());
                        }
                    }
                }
                Kind::Integer => {
                    let mut sums = [[0i32; PANEL]; ROWS];
                    for start in (0..self.k).step_by(EXACT_PRODUCTS) {
                        let part = products(a, self.k, start..(start + EXACT_PRODUCTS).min(self.k), panel);
                        for (sum, part) in sums.as_flattened_mut().iter_mut().zip(part.as_flattened()) {
                            *sum = sum.wrapping_add(*part as i32);
                        }
                    }
                    for (words, sums) in words.zip(&sums) {
                        for (word, &sum) in words.chunks_exact_mut(4).zip(sums) {
                            let old: i32 = bytemuck::pod_read_unaligned(word);
                            let new = if accumulate { old.wrapping_add(sum) } else { sum };
                            word.copy_from_slice(&new.to_ne_bytes());
                        }
                    }
                }
            }
        }
    }
}

/// A pass of outer products, whose sums are those of a pass through weights that B makes.
///
/// # Errors
/// The operands are of different kinds, or floats have a zero point.
pub(super) fn outer(
    outer: &Outer,
    scratchpad: &[u8],
    accumulators: &mut [u8],
    columns: usize,
) -> Result<(), FaultCause> {
    let kind = kind_of(outer.b.dtype, "the array's right operand")?;
    if kind_of(outer.a.dtype, "the array's left operand")? != kind {
        return Err(FaultCause::Type {
            dtype: outer.b.dtype,
            role: "right operand of a left operand of the other kind",
        });
    }
    if kind == Kind::Float && (outer.a_zero_point.is_some() || outer.b_zero_point.is_some()) {
        return Err(FaultCause::Malformed("floats have no zero point"));
    }
    let (m, n, k) = (usize::from(outer.m), usize::from(outer.n), outer.k as usize);
    // Addresses of no elements were not checked.
    if m == 0 || n == 0 {
        return Ok(());
    }
    let matrix = |walk: &Walk, zero_point: Option<u32>, [rows, length]: [usize; 2]| {
        let zero = zero_point_at(scratchpad, walk.dtype, zero_point);
        let mut elements = vec![0.0f32; rows * length];
        for (row, elements) in elements.chunks_mut(length.max(1)).enumerate() {
            let at = 2 * i64::from(walk.address) + row as i64 * walk_step(walk, 0, 2);
            f32::load(scratchpad, walk.dtype, at, walk_step(walk, 1, 2), elements);
            convert(kind, zero, elements);
        }
        elements
    };
    let a = matrix(&outer.a, outer.a_zero_point, [m, k]);
    let b = matrix(&outer.b, outer.b_zero_point, [k, n]);
    let mut panels = vec![0.0; n.div_ceil(PANEL) * PANEL * k];
    for (index, panel) in panels.chunks_mut(PANEL * k.max(1)).enumerate() {
        let columns = index * PANEL..(index * PANEL + PANEL).min(n);
        for (weights, row) in panel.chunks_mut(PANEL).zip(b.chunks(n)) {
            weights[..columns.len()].copy_from_slice(&row[columns.clone()]);
        }
    }
    let plane = Plane { kind, groups: 1, k, n, panels };
    let row_bytes = columns * 4;
    let first = outer.accumulator_row as usize * row_bytes;
    let accumulators = &mut accumulators[first..first + m * row_bytes];
    accumulators.par_chunks_mut(row_bytes * ROWS).enumerate().for_each(|(index, accumulators)| {
        let rows = &a[index * ROWS * k..];
        let mut pair = vec![0.0f32; ROWS * k];
        let length = pair.len().min(rows.len());
        pair[..length].copy_from_slice(&rows[..length]);
        plane.multiply_rows(&pair, &plane.panels, accumulators, row_bytes, outer.accumulate);
    });
    Ok(())
}

/// Sums of products over rows `range` of one panel, in order, for [`ROWS`] rows of `a`, each `k` long.
fn products(a: &[f32], k: usize, range: std::ops::Range<usize>, panel: &[f32]) -> [[f32; PANEL]; ROWS] {
    let mut sums = [[0.0f32; PANEL]; ROWS];
    let (first, second) = a.split_at(k);
    let weights = panel[range.start * PANEL..range.end * PANEL].chunks_exact(PANEL);
    for ((&first, &second), weights) in first[range.clone()].iter().zip(&second[range]).zip(weights) {
        for column in 0..PANEL {
            sums[0][column] += first * weights[column];
            sums[1][column] += second * weights[column];
        }
    }
    sums
}
