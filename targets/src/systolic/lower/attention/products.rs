//! The two products of an attention on the array.

use tcc_ir::DType;

use super::grid::Grid;
use super::{Attend, Prepared};
use crate::systolic::isa::{Multiply, Operation, Preload};
use crate::systolic::lower::tile::pieces;
use crate::systolic::lower::{Lowering, element_bytes};

impl Lowering<'_, '_> {
    /// Scores: rows of queries times keys, which are the array's weights.
    pub(super) fn attention_keys(
        &mut self,
        attend: &Attend,
        grid: &Grid,
        (q, k): (u32, u32),
        first: usize,
        capacity: usize,
    ) {
        let depth = attend.dims.depth;
        let q_dtype = attend.buffers.q_dtype.unwrap_or(DType::F32);
        let k_dtype = self.prologue_dtype(&attend.k);
        let (q_element, k_element) = (element_bytes(q_dtype) as usize, element_bytes(k_dtype) as usize);
        for unit in 0..grid.units() {
            for tile in 0..grid.tiles {
                let key = unit * capacity + first + tile * grid.width;
                for features in pieces(0..depth, self.machine.array.total_rows() as usize) {
                    self.emitter.emit(Operation::Preload(Preload {
                        address: k + ((key * depth + features.start) * k_element) as u32,
                        dtype: k_dtype,
                        groups: 1,
                        group_stride: 0,
                        k: features.len() as u16,
                        n: grid.width_of(tile) as u16,
                        k_stride: k_element as i32,
                        n_stride: (depth * k_element) as i32,
                        zero_point: None,
                    }));
                    self.emitter.emit(Operation::Multiply(Multiply {
                        address: q + ((unit * grid.rows() * depth + features.start) * q_element) as u32,
                        dtype: q_dtype,
                        group_stride: 0,
                        m: grid.rows() as u32,
                        m_stride: (depth * q_element) as i32,
                        k_stride: q_element as i32,
                        zero_point: None,
                        accumulator_row: grid.score_row(unit, tile) as u32,
                        group_rows: 0,
                        accumulate: features.start > 0,
                        switch_weights: true,
                    }));
                }
            }
        }
    }

    /// Weights times values, which are the array's weights in turn.
    pub(super) fn attention_values(&mut self, attend: &Attend, prepared: &Prepared, index: usize) {
        let Prepared { grid, v, v_first, .. } = prepared;
        let t = attend.tiling;
        let capacity = if t.resident { attend.held.len() } else { t.keys };
        let dtype = self.prologue_dtype(&attend.v);
        let element = element_bytes(dtype) as usize;
        let weights = attend.buffers.weights[index % attend.buffers.weights.len()];
        let pitch = t.columns();
        for unit in 0..grid.units() {
            for (columns, (start, width)) in grid.column_tiles().enumerate() {
                for tile in 0..grid.tiles {
                    let key = unit * capacity + v_first + tile * grid.width;
                    self.emitter.emit(Operation::Preload(Preload {
                        address: v + ((key * pitch + start) * element) as u32,
                        dtype,
                        groups: 1,
                        group_stride: 0,
                        k: grid.width_of(tile) as u16,
                        n: width as u16,
                        k_stride: (pitch * element) as i32,
                        n_stride: element as i32,
                        zero_point: None,
                    }));
                    self.emitter.emit(Operation::Multiply(Multiply {
                        address: weights + (grid.weights_before(unit, tile) * 2) as u32,
                        dtype: DType::BF16,
                        group_stride: 0,
                        m: grid.rows() as u32,
                        m_stride: (grid.width * 2) as i32,
                        k_stride: 2,
                        zero_point: None,
                        accumulator_row: grid.result_row(unit, columns) as u32,
                        group_rows: 0,
                        accumulate: tile > 0,
                        switch_weights: true,
                    }));
                }
            }
        }
    }
}
