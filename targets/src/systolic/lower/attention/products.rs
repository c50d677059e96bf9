//! The two products of an attention on the array.
//!
//! Keys have fewer features than the array has rows, often: then several tiles of keys, or several key heads, are multiplied at
//! a time, each by a group of the array's rows. Values have fewer features than the array has columns; where it takes less time,
//! the weights of the attention become those of the array and the features pass through it, so that the result comes out turned.

use std::ops::Range;

use tcc_ir::DType;

use super::grid::Grid;
use super::tiling::score_groups;
use super::{Attend, Prepared};
use crate::systolic::isa::{Multiply, Operation, Preload};
use crate::systolic::lower::recipe::{FEATURE, HEAD, POSITION};
use crate::systolic::lower::tile::pieces;
use crate::systolic::lower::{ChipOperand, Lowering, element_bytes};

/// Cuts a range into runs of a power of two each, at most `most`: the first of each and its length.
fn runs(most: usize, range: Range<usize>) -> impl Iterator<Item = (usize, usize)> {
    let mut next = range.start;
    std::iter::from_fn(move || {
        let left = range.end.checked_sub(next).filter(|left| *left > 0)?;
        let length = 1 << most.max(1).min(left).ilog2();
        next += length;
        Some((next - length, length))
    })
}

/// The address of an element of keys or values, by its distance along each axis from the first.
fn at(operand: &ChipOperand, position: [usize; 4]) -> u32 {
    let distance: i64 = position.iter().zip(&operand.strides).map(|(&at, &stride)| at as i64 * stride).sum();
    operand.part(distance).address
}

impl Lowering<'_, '_> {
    /// Scores: rows of queries times keys, which are the array's weights.
    pub(super) fn attention_keys(
        &mut self,
        attend: &Attend,
        grid: &Grid,
        q: u32,
        k: &ChipOperand,
    ) {
        let depth = attend.dims.depth;
        let q_dtype = attend.buffers.q_dtype.unwrap_or(DType::F32);
        let (q_element, k_element) = (element_bytes(q_dtype) as usize, element_bytes(k.dtype));
        let array = &self.machine.array;
        let most = score_groups(depth, array.total_rows() as usize, array.block_rows() as usize);
        let rows = array.total_rows() as usize;
        // Tiles of keys of equal width work together if they are many, else the same tile of several key heads.
        let by_tile = grid.tiles.min(most) >= grid.groups().min(most);
        let mut jobs: Vec<(usize, usize, usize)> = Vec::new();
        for batch in (0..grid.units()).step_by(grid.groups()) {
            if by_tile {
                for unit in batch..batch + grid.groups() {
                    for region in grid.regions() {
                        let tiles = region.first..region.first + region.count;
                        jobs.extend(runs(most, tiles).map(|(tile, groups)| (unit, tile, groups)));
                    }
                }
            } else {
                for tile in 0..grid.tiles {
                    let units = batch..batch + grid.groups();
                    jobs.extend(runs(most, units).map(|(unit, groups)| (unit, tile, groups)));
                }
            }
        }
        let (q_distance, k_distance, row_distance) = match by_tile {
            true => (0, grid.width as i64 * k.strides[POSITION], grid.rows()),
            false => (grid.rows() * depth * q_element, k.strides[HEAD], grid.tiles * grid.rows()),
        };
        for (unit, tile, groups) in jobs {
            let several = |distance: usize| if groups > 1 { distance } else { 0 };
            for features in pieces(0..depth, rows) {
                let position = [unit / grid.groups(), unit % grid.groups(), tile * grid.width, features.start];
                self.emitter.emit(Operation::Preload(Preload {
                    address: at(k, position),
                    dtype: k.dtype,
                    groups: groups as u16,
                    group_stride: if groups > 1 { (k_distance * k_element) as i32 } else { 0 },
                    k: features.len() as u16,
                    n: grid.width_of(tile) as u16,
                    k_stride: (k.strides[FEATURE] * k_element) as i32,
                    n_stride: (k.strides[POSITION] * k_element) as i32,
                    zero_point: None,
                }));
                self.emitter.emit(Operation::Multiply(Multiply {
                    address: q + ((unit * grid.rows() * depth + features.start) * q_element) as u32,
                    dtype: q_dtype,
                    group_stride: several(q_distance) as i32,
                    m: grid.rows() as u32,
                    m_stride: (depth * q_element) as i32,
                    k_stride: q_element as i32,
                    zero_point: None,
                    accumulator_row: grid.score_row(unit, tile) as u32,
                    group_rows: several(row_distance) as u32,
                    accumulate: features.start > 0,
                    switch_weights: true,
                }));
            }
        }
    }

    /// Weights times values.
    pub(super) fn attention_values(&mut self, attend: &Attend, prepared: &Prepared, index: usize) {
        let Prepared { grid, v, .. } = prepared;
        let (dtype, element) = (v.dtype, element_bytes(v.dtype));
        let weights = attend.buffers.weights[index % attend.buffers.weights.len()];
        let [unit_pitch, row_pitch] = grid.weights_pitch();
        let (k_stride, n_stride) = ((v.strides[POSITION] * element) as i32, (v.strides[FEATURE] * element) as i32);
        let values =
            |unit: usize, key: usize, column: usize| at(v, [unit / grid.groups(), unit % grid.groups(), key, column]);
        if let Some(rows) = grid.turned {
            for unit in 0..grid.units() {
                for (tile, first) in (0..grid.rows()).step_by(rows).enumerate() {
                    let n = rows.min(grid.rows() - first);
                    for keys in pieces(0..grid.keys(), self.machine.array.total_rows() as usize) {
                        let from = unit * unit_pitch + first * row_pitch + keys.start;
                        self.emitter.emit(Operation::Preload(Preload {
                            address: weights + (from * 2) as u32,
                            dtype: DType::BF16,
                            groups: 1,
                            group_stride: 0,
                            k: keys.len() as u16,
                            n: n as u16,
                            k_stride: 2,
                            n_stride: (row_pitch * 2) as i32,
                            zero_point: None,
                        }));
                        let pass = Multiply {
                            address: values(unit, keys.start, 0),
                            dtype,
                            group_stride: 0,
                            m: grid.columns as u32,
                            m_stride: n_stride,
                            k_stride,
                            zero_point: None,
                            accumulator_row: grid.result_row(unit, tile) as u32,
                            group_rows: 0,
                            accumulate: keys.start > 0,
                            switch_weights: true,
                        };
                        // Where values stay they have no column of ones beside them: one number serves for it.
                        match attend.buffers.one {
                            None => self.emitter.emit(Operation::Multiply(pass)),
                            Some(one) => {
                                let features = pass.m - 1;
                                let sum = Multiply {
                                    address: one,
                                    m: 1,
                                    m_stride: 0,
                                    k_stride: 0,
                                    accumulator_row: pass.accumulator_row + features,
                                    switch_weights: false,
                                    ..pass.clone()
                                };
                                self.emitter.emit(Operation::Multiply(Multiply { m: features, ..pass }));
                                self.emitter.emit(Operation::Multiply(sum));
                            }
                        }
                    }
                }
            }
            return;
        }
        // Several key heads work together where the keys leave rows of the array idle.
        let array = &self.machine.array;
        let total = array.total_rows() as usize;
        let passes = |groups: usize| grid.keys().div_ceil(total / groups) * grid.groups().div_ceil(groups);
        let mut most = 1;
        let mut groups = 2;
        while groups <= (array.blocks() as usize).min(grid.groups()) {
            if passes(groups) < passes(most) {
                most = groups;
            }
            groups *= 2;
        }
        let rows = total / most;
        let batches = (0..grid.units()).step_by(grid.groups());
        for (unit, groups) in batches.flat_map(|first| runs(most, first..first + grid.groups())) {
            let several = |distance: usize| if groups > 1 { distance } else { 0 };
            for (columns, (start, width)) in grid.column_tiles().enumerate() {
                for keys in pieces(0..grid.keys(), rows) {
                    self.emitter.emit(Operation::Preload(Preload {
                        address: values(unit, keys.start, start),
                        dtype,
                        groups: groups as u16,
                        group_stride: if groups > 1 { (v.strides[HEAD] * element) as i32 } else { 0 },
                        k: keys.len() as u16,
                        n: width as u16,
                        k_stride,
                        n_stride,
                        zero_point: None,
                    }));
                    self.emitter.emit(Operation::Multiply(Multiply {
                        address: weights + ((unit * unit_pitch + keys.start) * 2) as u32,
                        dtype: DType::BF16,
                        group_stride: several(unit_pitch * 2) as i32,
                        m: grid.rows() as u32,
                        m_stride: (row_pitch * 2) as i32,
                        k_stride: 2,
                        zero_point: None,
                        accumulator_row: grid.result_row(unit, columns) as u32,
                        group_rows: several(grid.result_rows()) as u32,
                        accumulate: keys.start > 0,
                        switch_weights: true,
                    }));
                }
            }
        }
    }
}
