//! The buffers of an attention kernel, and how large its pieces may be for them.

use tcc_ir::DType;
use tcc_ir::ops::AttentionDims;

use super::Attend;
use super::tiling::{self, Limits, Step, Tiling};
use crate::systolic::emit::Filler;
use crate::systolic::isa::{MapFn, Memory, Source};
use crate::systolic::layout::storage;
use crate::systolic::lower::prologue::{Part, Prologue};
use crate::systolic::lower::{ChipOperand, ChipSource, Lowering, element_bytes};

/// Buffers of the scratchpad; those of which there are several are taken in turn.
#[derive(Default)]
pub(super) struct Buffers {
    pub q: Vec<u32>,
    pub q_dtype: Option<DType>,
    pub k: Vec<u32>,
    pub v: Vec<u32>,
    /// The number one, where values without a column of ones are used.
    pub one: Option<u32>,
    pub weights: Vec<u32>,
    pub result: Vec<u32>,
    /// Results of rows that go through several steps.
    pub running: Vec<u32>,
    /// One number for each row: the maximum, the sum, what earlier steps count for, the reciprocal of the sum.
    pub maximum: Vec<u32>,
    pub sum: Vec<u32>,
    pub factor: Vec<u32>,
    pub reciprocal: Vec<u32>,
    /// Truth values by distance: up to the diagonal, and from the window's edge on.
    pub below: Option<u32>,
    pub within: Option<u32>,
    /// Truth values for each row.
    pub nothing: Option<u32>,
}

/// Most pairs of buffers for keys and values beyond the two that are taken in turn, and of the room that is left the share, as
/// one in so many, that they may take.
const MOST_AHEAD: u64 = 4;
const SPARE_SHARE: u64 = 4;

impl Lowering<'_, '_> {
    /// Chooses the lengths of pieces.
    pub(super) fn attention_tiling(&self, attend: &Attend) -> Tiling {
        let scratchpad = self.emitter.capacity();
        let whole = scratchpad - scratchpad / 16;
        // At first half is left to the neighbours.
        let budget = if self.squeeze == 0 { scratchpad / 2 } else { whole >> (self.squeeze - 1).min(31) };
        let vector = &self.machine.vector;
        let limits = Limits {
            array_rows: self.machine.array.total_rows() as usize,
            block_rows: self.machine.array.block_rows() as usize,
            lanes: vector.lanes as usize,
            special_lanes: vector.special_lanes.min(vector.lanes) as usize,
            strided_lanes: vector.strided_lanes.min(vector.lanes) as usize,
            array_columns: self.machine.array.columns as usize,
            accumulators: (self.machine.accumulators.rows / 2) as usize,
            budget,
        };
        let footprint = |tiling: &Tiling| self.attention_bytes(attend, tiling);
        tiling::choose(&attend.dims, attend.share, attend.held.len().max(1), &limits, &footprint)
    }

    /// Bytes of the scratchpad that a choice of lengths takes.
    fn attention_bytes(&self, attend: &Attend, tiling: &Tiling) -> u64 {
        let AttentionDims { depth, .. } = attend.dims;
        let bytes = |count: usize, dtype: DType| self.emitter.allocated(count as u64 * element_bytes(dtype) as u64);
        let (units, rows) = (tiling.units(), tiling.units() * tiling.rows());
        let heads = tiling.groups * tiling.heads;
        let keys = if tiling.resident { attend.held.len() } else { tiling.keys };
        let q_dtype = self.prologue_dtype(&attend.q);
        let columns = tiling.columns();
        let result = storage(self.plan.graph.ty(attend.out).dtype);
        let piece = |prologue: &Prologue, heads: usize, most: usize| {
            let positions = self.piece(prologue, tiling.batches * heads).min(most);
            if prologue.recipe.computes() {
                self.prologue_bytes(prologue, [tiling.batches, heads, positions])
            } else {
                0
            }
        };
        let mask = attend.mask.as_ref().map_or(0, |mask| {
            let extents = mask.recipe.root_term().extents;
            let lens = [tiling.batches, heads, tiling.queries, tiling.keys];
            let count: usize = (0..4).map(|axis| if extents[axis] == 1 { 1 } else { lens[axis] }).product();
            bytes(count, self.prologue_dtype(mask))
        });
        let running = if tiling.keys < attend.held.len() { bytes(rows * columns, DType::F32) } else { 0 };
        let twice = bytes(rows * depth, q_dtype)
            + bytes(units * keys * depth, self.prologue_dtype(&attend.k))
            + bytes(units * keys * columns, self.prologue_dtype(&attend.v))
            + bytes(rows * tiling.keys.max(1), DType::BF16)
            + bytes(rows * tiling.features, result)
            + mask
            + running
            + 4 * bytes(rows, DType::F32);
        let bands = 2 * bytes(2 * (tiling.queries + tiling.keys) + 2, DType::Bool);
        2 * twice
            + bytes(rows * depth, q_dtype) * 2
            + self.prologue_bytes(&attend.q, [tiling.batches, heads, tiling.queries])
            + piece(&attend.k, tiling.groups, keys)
            + piece(&attend.v, tiling.groups, keys)
            + bands
            + bytes(rows, DType::Bool)
    }

    /// Takes the buffers, and fills those that stay the same.
    pub(super) fn attention_buffers(&mut self, attend: &mut Attend, steps: &[Step]) {
        let Some(last) = steps.last() else { return };
        let (t, dims) = (attend.tiling, attend.dims);
        let turns = |count: usize| count.min(2);
        let rows = t.units() * t.rows();
        let bytes = |count: usize, dtype: DType| count as u64 * element_bytes(dtype) as u64;
        let keys = if t.resident { attend.held.len() } else { t.keys };
        let loads = if t.resident { last.block + 1 } else { steps.len() };
        let (k_dtype, v_dtype) = (self.prologue_dtype(&attend.k), self.prologue_dtype(&attend.v));
        let q_dtype = if attend.factor() == 1.0 { self.prologue_dtype(&attend.q) } else { DType::BF16 };
        let result = storage(self.plan.graph.ty(attend.out).dtype);
        let several = steps.iter().any(|step| !(step.first && step.last));
        let by_step = turns(steps.len());
        let heads = Part([0..1, 0..1, 0..1, 0..1]);
        let k_stays = attend.heads_in_place(&attend.k, &heads).is_some();
        let v_stays = (t.turned || !t.ones) && attend.heads_in_place(&attend.v, &heads).is_some();
        // Keys and values that need little room are loaded further ahead.
        let spare = self.emitter.room().saturating_sub(self.attention_bytes(attend, &t)) / SPARE_SHARE;
        let pair = bytes(t.units() * keys * dims.depth, k_dtype) + bytes(t.units() * keys * t.columns(), v_dtype);
        let ahead = |loads: usize| loads.min(2 + (spare / pair.max(1)).min(MOST_AHEAD) as usize);
        // The column of ones is the vector unit's.
        let v_filler = if t.ones { Filler::Both } else { self.filler(&attend.v) };
        let q_filler = if attend.factor() == 1.0 { self.filler(&attend.q) } else { Filler::Vector };
        let mut buffers = Buffers {
            q: self.buffers(q_filler, bytes(rows * dims.depth, q_dtype), turns(last.chain + 1)),
            q_dtype: Some(q_dtype),
            k: match k_stays {
                true => Vec::new(),
                false => {
                    self.buffers(self.filler(&attend.k), bytes(t.units() * keys * dims.depth, k_dtype), ahead(loads))
                }
            },
            v: match v_stays {
                true => Vec::new(),
                false => self.buffers(v_filler, bytes(t.units() * keys * t.columns(), v_dtype), ahead(loads)),
            },
            weights: self.buffers(Filler::Vector, bytes(rows * t.keys.max(1), DType::BF16), by_step),
            result: self.buffers(Filler::Vector, bytes(rows * t.features, result), by_step),
            maximum: self.buffers(Filler::Vector, bytes(rows, DType::F32), by_step),
            reciprocal: self.buffers(Filler::Vector, bytes(rows, DType::F32), by_step),
            ..Buffers::default()
        };
        if several {
            buffers.running = self.buffers(Filler::Vector, bytes(rows * t.columns(), DType::F32), by_step);
            buffers.factor = self.buffers(Filler::Vector, bytes(rows, DType::F32), by_step);
        }
        if !t.ones {
            buffers.sum = self.buffers(Filler::Vector, bytes(rows, DType::F32), by_step);
        }
        if attend.op.zero_masked_rows {
            buffers.nothing = Some(self.emitter.allocate(Filler::Vector, rows as u64));
        }
        if t.ones && v_stays {
            let one = self.emitter.allocate(Filler::Vector, element_bytes(v_dtype) as u64);
            let place = ChipOperand { memory: Memory::Scratchpad, address: one, dtype: v_dtype, strides: Vec::new() };
            self.map(MapFn::Copy, &[], &place, &[ChipSource::Immediate(Source::Float(1.0))]);
            buffers.one = Some(one);
        } else if t.ones {
            // The sum of the weights is their product with a column of ones.
            for &buffer in &buffers.v {
                let column = ChipOperand {
                    memory: Memory::Scratchpad,
                    address: buffer + (t.features as i64 * element_bytes(v_dtype)) as u32,
                    dtype: v_dtype,
                    strides: vec![t.columns() as i64],
                };
                self.map(MapFn::Copy, &[t.units() * keys], &column, &[ChipSource::Immediate(Source::Float(1.0))]);
            }
        }
        let reach = attend.reach();
        let edge = |lowering: &mut Self, low: i64, high: i64| {
            let address = lowering.emitter.allocate(Filler::Vector, 2 * reach as u64 + 1);
            for (start, len, value) in [(0, reach + 1, low), (reach + 1, reach, high)] {
                let strides = vec![1];
                let address = address + start as u32;
                let place = ChipOperand { memory: Memory::Scratchpad, address, dtype: DType::Bool, strides };
                lowering.map(MapFn::Copy, &[len], &place, &[ChipSource::Immediate(Source::Integer(value))]);
            }
            address
        };
        if attend.op.causal.is_some() {
            buffers.below = Some(edge(self, 1, 0));
        }
        if attend.op.window.is_some() {
            buffers.within = Some(edge(self, 0, 1));
        }
        attend.buffers = buffers;
    }
}
