//! Attention on chip: scores, their softmax and the product with the values never leave it.
//!
//! A step takes some rows of queries (of all heads that share keys) and some keys, for one or more pairs of batch and key
//! head. It goes through four stages: operands are loaded and multiplied to scores; the vector unit turns these into
//! weights; the array multiplies the weights with the values; the vector unit divides by the sum of the weights and the
//! result is stored. The stages of neighbouring steps are written in an order in which the array works on the scores of the
//! next step while the vector unit works on those of the present one. A step has half of the accumulators.
//!
//! Where not all keys of a row fit, rows go through several steps with a running maximum and sum.

mod buffers;
mod grid;
mod operands;
mod products;
mod softmax;
mod tiling;

use std::ops::Range;

use tcc_ir::ops::{Attention, AttentionDims, BinaryFn};
use tcc_ir::{DType, Kernel, NodeId, Op, ValueId};

pub(in crate::systolic) use operands::{attention_prologue_supported, attention_supported};

use super::prologue::{Part, Prologue, Slots};
use super::recipe::{BATCH, FEATURE, FRAME, HEAD, POSITION, TermSource};
use super::{ChipOperand, ChipSource, DramOperand, Lowering, element_bytes};
use crate::systolic::isa::{MapFn, Memory, Source};
use crate::systolic::layout::storage;
use crate::target::TargetError;
use buffers::Buffers;
use grid::Grid;
use operands::{look_through, operands};
use tiling::{Step, Tiling};

/// An attention that is being written, with its buffers.
struct Attend {
    op: Attention,
    dims: AttentionDims,
    /// Query heads of each key head, when heads that are one and the same count once.
    share: usize,
    q: Prologue,
    k: Prologue,
    v: Prologue,
    mask: Option<Prologue>,
    out: ValueId,
    /// Where the result is written to, densely.
    to: DramOperand,
    tiling: Tiling,
    /// Keys that are held for each key head, where they stay on chip.
    held: Range<usize>,
    buffers: Buffers,
    slots: Slots,
    /// Tiles of keys and values that were loaded one after the other.
    streamed: usize,
}

/// What the first stage of a step hands to the later ones.
struct Prepared {
    grid: Grid,
    v: u32,
    /// The first of the keys in the buffers.
    v_first: usize,
    mask: Option<Mask>,
}

enum Mask {
    Chip(ChipOperand),
    Number(Source),
}

impl Lowering<'_, '_> {
    pub(super) fn attention_kernel(&mut self, kernel: &Kernel, id: NodeId) -> Result<(), TargetError> {
        let graph = &self.plan.graph;
        let node = graph.node(id);
        let Op::Attention(op) = &node.op else {
            return Err(self.defect(kernel, "has no attention"));
        };
        if !attention_supported(graph, &node.inputs) || !kernel.epilogue.is_empty() {
            return Err(self.defect(kernel, "has an attention that should have been decomposed"));
        }
        let inside = |id: NodeId| kernel.prologue.contains(&id);
        let plan = self.plan;
        // What the kernel makes itself it finds by the graph: the plan's access may lead into the buffer of a result that
        // the value lies in.
        let access = |value: ValueId| match look_through(graph, value, &inside) {
            Some(own) if graph.producer(own.root).is_some_and(inside) => own,
            _ => plan.access(value).clone(),
        };
        let operands = operands(graph, op, &node.inputs, &|value| Some(access(value)), &inside)
            .map_err(|reason| self.defect(kernel, &format!("has a prologue of which {reason}")))?;
        let [q, k, v] = [0, 1, 2].map(|operand| graph.ty(node.inputs[operand]));
        let dims = Attention::dims(q, k, v).map_err(|error| TargetError::Fault(error.to_string()))?;
        let share = dims.heads / dims.groups * operands.repeat;
        let (k_access, v_access) = (access(node.inputs[1]), access(node.inputs[2]));

        // Copies that these need come before any buffer is taken.
        let mut q = self.prologue(0, operands.q)?;
        let mut k = self.prologue(1, operands.k)?;
        let mut v = self.prologue(2, operands.v)?;
        let mask = operands.mask.map(|recipe| self.prologue(3, recipe)).transpose()?;
        let mut stored: Vec<ValueId> = Vec::new();
        for prologue in [&mut q, &mut k, &mut v] {
            for term in &prologue.recipe.terms {
                let made = matches!(term.source, TermSource::Node { .. });
                if made && kernel.outputs.contains(&term.value) && !stored.contains(&term.value) {
                    stored.push(term.value);
                    prologue.stores.push((term.value, self.dense_result(term.value)?));
                }
            }
        }
        let (out, root) = (node.output(), self.plan.access(node.output()).root);
        let to = if self.layout.buffer(out).or(self.layout.buffer(root)).is_some() {
            self.dense_result(out)?
        } else {
            // Nobody reads it: the kernel was taken for what makes its operands.
            let ty = self.plan.graph.ty(out);
            self.scratch(storage(ty.dtype), &ty.shape)?
        };
        let seen = op.visible_keys(0, dims.keys).start..op.visible_keys(dims.queries - 1, dims.keys).end;
        let seen = seen.start.min(seen.end)..seen.end;
        let all = !k.stores.is_empty() || !v.stores.is_empty();
        let held = if all { 0..dims.keys } else { seen };
        let mut attend = Attend {
            op: *op,
            dims,
            share,
            q,
            k,
            v,
            mask,
            out: node.output(),
            to,
            tiling: Tiling {
                batches: 1,
                groups: 1,
                heads: 1,
                queries: 1,
                keys: 1,
                features: 1,
                resident: false,
                ones: true,
            },
            held,
            buffers: Buffers::default(),
            slots: Slots::default(),
            streamed: 0,
        };
        if self.turns_queries(&attend, &stored) {
            attend.q.factor = Some(attend.factor());
        }
        attend.tiling = self.attention_tiling(&attend);
        let t = attend.tiling;
        let chains = share.div_ceil(t.heads) * dims.queries.div_ceil(t.queries);
        if !t.resident && chains > 1 {
            for (index, access) in [(1, k_access), (2, v_access)] {
                let prologue = if index == 1 { &attend.k } else { &attend.v };
                if !prologue.recipe.computes() {
                    continue;
                }
                let made = self.leave_in_dram(prologue)?;
                let recipe = prologue.recipe.clone();
                let reading = self.reading(index, recipe, &access, &made)?;
                *(if index == 1 { &mut attend.k } else { &mut attend.v }) = reading;
            }
            attend.tiling = self.attention_tiling(&attend);
        }
        self.tiling = attend.describe();
        let visible = |queries: &Range<usize>| attend.visible(queries);
        let steps = tiling::steps(&attend.dims, share, &attend.tiling, visible);
        self.attention_buffers(&mut attend, &steps);
        self.attention_steps(&mut attend, &steps)
    }

    /// Whether the last that is done to the queries is to rotate them, and nobody else wants the result, so that their
    /// factor can go to the angles.
    fn turns_queries(&self, attend: &Attend, stored: &[ValueId]) -> bool {
        let (root, term) = (attend.q.recipe.root, attend.q.recipe.root_term());
        let rotation = match &term.source {
            TermSource::Node { node, .. } => matches!(self.plan.graph.node(*node).op, Op::Rope(_)),
            TermSource::Dram { .. } | TermSource::Number => false,
        };
        let whole = root.first == 0 && root.step == 1 && term.extents[FEATURE] == attend.dims.depth;
        rotation && whole && attend.factor() != 1.0 && !stored.contains(&term.value)
    }

    /// Evaluates the whole of an operand once, and leaves it in DRAM: in the buffer of the value that it is or is a part
    /// of.
    fn leave_in_dram(&mut self, prologue: &Prologue) -> Result<DramOperand, TargetError> {
        let term = prologue.recipe.root_term();
        let (value, extents) = (term.value, term.extents);
        let ty = self.plan.graph.ty(value).clone();
        let known = prologue.stores.iter().find(|(stored, _)| *stored == value).map(|(_, to)| to.clone());
        let mut storing = prologue.clone();
        let made = match known {
            Some(made) => made,
            None => {
                let made = self.scratch(storage(ty.dtype), &ty.shape)?;
                storing.stores.push((value, made.clone()));
                made
            }
        };
        let mut slots = Slots::default();
        for batch in 0..extents[BATCH] {
            for head in 0..extents[HEAD] {
                let features = 0..extents[FEATURE];
                let part = Part([batch..batch + 1, head..head + 1, 0..extents[POSITION], features]);
                self.produce_only(&storing, &mut slots, &part)?;
            }
        }
        self.emitter.release();
        Ok(made)
    }

    /// Writes the stages of all steps: those of neighbours overlap.
    fn attention_steps(&mut self, attend: &mut Attend, steps: &[Step]) -> Result<(), TargetError> {
        let mut ready: Vec<Option<Prepared>> = Vec::new();
        for index in 0..steps.len() + 2 {
            if let Some(step) = steps.get(index) {
                let prepared = self.attention_scores(attend, step, index)?;
                ready.push(prepared);
            }
            let present =
                index.checked_sub(1).and_then(|index| Some((index, steps.get(index)?, ready[index].as_ref()?)));
            if let Some((index, step, prepared)) = present {
                self.attention_softmax(attend, step, prepared, index)?;
            }
            if let Some(done) = index.checked_sub(2) {
                self.attention_result(attend, &steps[done], ready[done].as_ref(), done)?;
            }
            if let Some((index, _, prepared)) = present {
                self.attention_values(attend, prepared, index);
            }
        }
        Ok(())
    }

    /// The operands of a step, and its scores on the array. Nothing is prepared where no key is visible.
    fn attention_scores(
        &mut self,
        attend: &mut Attend,
        step: &Step,
        index: usize,
    ) -> Result<Option<Prepared>, TargetError> {
        let mut slots = std::mem::take(&mut attend.slots);
        if step.features.start > 0 {
            // Everything has been stored with the first features.
            [&mut attend.q, &mut attend.k, &mut attend.v].into_iter().for_each(|prologue| prologue.stores.clear());
        }
        let t = attend.tiling;
        let q = attend.buffers.q[step.chain % attend.buffers.q.len()];
        if step.first {
            self.attention_queries(attend, &mut slots, step, q)?;
        }
        let streams = !t.resident && !step.keys.is_empty();
        let (set, keys) =
            if t.resident { (step.block, attend.held.clone()) } else { (attend.streamed, step.keys.clone()) };
        let capacity = if t.resident { attend.held.len() } else { t.keys };
        let k = attend.buffers.k[set % attend.buffers.k.len()];
        // Of fewer features than usual the column of ones still follows the last.
        let idle = (t.features - step.features.len()) as i64 * element_bytes(self.prologue_dtype(&attend.v));
        let v = attend.buffers.v[set % attend.buffers.v.len()] + idle as u32;
        if !keys.is_empty() && (streams || step.fresh) {
            attend.streamed += 1;
            let depth = attend.dims.depth;
            let place = |address: u32, dtype: DType, pitch: usize| ChipOperand {
                memory: Memory::Scratchpad,
                address,
                dtype,
                strides: [step.groups.len() * capacity * pitch, capacity * pitch, pitch, 1]
                    .iter()
                    .map(|&stride| stride as i64)
                    .collect(),
            };
            let heads = attend.key_heads(step);
            let part = Part([step.batches.clone(), heads.clone(), keys.clone(), 0..depth]);
            let k_place = place(k, self.prologue_dtype(&attend.k), depth);
            self.fetch_heads(attend, &attend.k, &mut slots, &part, &k_place)?;
            let part = Part([step.batches.clone(), heads, keys.clone(), step.features.clone()]);
            let v_place = place(v, self.prologue_dtype(&attend.v), t.columns());
            self.fetch_heads(attend, &attend.v, &mut slots, &part, &v_place)?;
        }
        if step.last && !t.resident {
            self.attention_unseen(attend, &mut slots, step)?;
        }
        let mut prepared = None;
        if !step.keys.is_empty() {
            let mask = self.attention_mask(attend, &mut slots, step)?;
            let half = (self.machine.accumulators.rows / 2) as usize;
            let (width, columns) = self.key_width();
            let grid = Grid::new(step, &t, width, columns, index % 2 * half);
            self.attention_keys(attend, &grid, (q, k), step.keys.start - keys.start, capacity);
            prepared = Some(Prepared { grid, v, v_first: step.keys.start - keys.start, mask });
        }
        attend.slots = slots;
        Ok(prepared)
    }

    /// Keys of a tile, and columns of the array.
    fn key_width(&self) -> (usize, usize) {
        let (rows, columns) = (self.machine.array.total_rows() as usize, self.machine.array.columns as usize);
        (rows.min(columns), columns)
    }

    /// Keys or values of the key heads of a step; those of which several are one and the same are taken once.
    fn fetch_heads(
        &mut self,
        attend: &Attend,
        prologue: &Prologue,
        slots: &mut Slots,
        part: &Part,
        place: &ChipOperand,
    ) -> Result<(), TargetError> {
        let repeat = attend.repeat();
        let made = matches!(prologue.recipe.root_term().source, TermSource::Node { .. });
        if made || repeat == 1 {
            return self.fetch_pieces(prologue, slots, part, place);
        }
        for (turn, head) in part.0[HEAD].clone().enumerate() {
            let distance = turn as i64 * place.strides[HEAD] * element_bytes(place.dtype);
            let address = place.address.wrapping_add_signed(distance as i32);
            let one = part.along(HEAD, head * repeat..head * repeat + 1);
            self.fetch_pieces(prologue, slots, &one, &ChipOperand { address, ..place.clone() })?;
        }
        Ok(())
    }

    /// Keys and values that no step of these rows needs, but that are results of the kernel.
    fn attention_unseen(&mut self, attend: &Attend, slots: &mut Slots, step: &Step) -> Result<(), TargetError> {
        let seen = attend.visible(&step.queries);
        for (prologue, features) in [(&attend.k, attend.dims.depth), (&attend.v, attend.dims.value_depth)] {
            if prologue.stores.is_empty() {
                continue;
            }
            for keys in [0..seen.start, seen.end..attend.dims.keys] {
                let heads = attend.key_heads(step);
                let part = Part([step.batches.clone(), heads, keys, 0..features]);
                self.produce_only(prologue, slots, &part)?;
            }
        }
        Ok(())
    }

    /// The queries of a step, scaled, as rows of the product.
    fn attention_queries(
        &mut self,
        attend: &Attend,
        slots: &mut Slots,
        step: &Step,
        buffer: u32,
    ) -> Result<(), TargetError> {
        let depth = attend.dims.depth;
        let heads = attend.query_heads(step);
        let part = Part([step.batches.clone(), heads.clone(), step.queries.clone(), 0..depth]);
        let strides = [heads.len() * step.queries.len() * depth, step.queries.len() * depth, depth, 1];
        let place = ChipOperand {
            memory: Memory::Scratchpad,
            address: buffer,
            dtype: attend.buffers.q_dtype.unwrap_or(DType::F32),
            strides: strides.iter().map(|&stride| stride as i64).collect(),
        };
        let factor = attend.factor();
        if factor == 1.0 {
            return self.fetch(&attend.q, slots, &part, &place);
        }
        if attend.q.factor.is_some() {
            return self.fetch_scaled(&attend.q, slots, &part, &place);
        }
        let factor = ChipSource::Immediate(Source::Float(factor));
        if matches!(attend.q.recipe.root_term().source, TermSource::Number) {
            let number = ChipSource::Immediate(self.number(&attend.q)?);
            self.map(MapFn::Binary(BinaryFn::Mul), &part.lens(), &place, &[number, factor]);
            return Ok(());
        }
        let made = self.operand_part(&attend.q, slots, &part)?;
        self.map(MapFn::Binary(BinaryFn::Mul), &part.lens(), &place, &[ChipSource::Chip(&made), factor]);
        Ok(())
    }

    fn number(&self, prologue: &Prologue) -> Result<Source, TargetError> {
        let value = prologue.recipe.root_term().value;
        self.immediate(value).ok_or_else(|| TargetError::Fault("a constant without a number".to_owned()))
    }

    fn attention_mask(&mut self, attend: &Attend, slots: &mut Slots, step: &Step) -> Result<Option<Mask>, TargetError> {
        let Some(mask) = &attend.mask else { return Ok(None) };
        if matches!(mask.recipe.root_term().source, TermSource::Number) {
            return Ok(Some(Mask::Number(self.number(mask)?)));
        }
        let heads = attend.query_heads(step);
        let part = Part([step.batches.clone(), heads, step.queries.clone(), step.keys.clone()]);
        Ok(Some(Mask::Chip(self.operand_part(mask, slots, &part)?)))
    }

    /// Stores a part of the result.
    fn store_result(&mut self, attend: &Attend, step: &Step, grid_buffer: u32) -> Result<(), TargetError> {
        let AttentionDims { batch, heads, queries, value_depth, .. } = attend.dims;
        let to = attend.to.clone();
        let own = attend.query_heads(step);
        let features = step.features.len();
        let strides = [own.len() * step.queries.len() * features, step.queries.len() * features, features, 1];
        let made = ChipOperand {
            memory: Memory::Scratchpad,
            address: grid_buffer,
            dtype: to.dtype,
            strides: strides.iter().map(|&stride| stride as i64).collect(),
        };
        let part = Part([step.batches.clone(), own, step.queries.clone(), step.features.clone()]);
        self.store_part(&to, FRAME, [batch, heads, queries, value_depth], &part, &made);
        Ok(())
    }
}

impl Attend {
    /// Key heads, where those that are one and the same count once.
    fn groups(&self) -> usize {
        self.dims.heads / self.share
    }

    /// Key heads of the operator that are one and the same.
    fn repeat(&self) -> usize {
        self.dims.groups / self.groups()
    }

    fn key_heads(&self, step: &Step) -> Range<usize> {
        step.groups.clone()
    }

    /// The query heads of a step. Where it has several key heads it has all query heads of each.
    fn query_heads(&self, step: &Step) -> Range<usize> {
        step.groups.start * self.share + step.heads.start..(step.groups.end - 1) * self.share + step.heads.end
    }

    /// What queries are multiplied with.
    fn factor(&self) -> f64 {
        let cap = self.op.softcap.0;
        if cap == 0.0 { self.op.scale.0 } else { self.op.scale.0 / cap }
    }

    /// The keys that some of these queries see.
    fn visible(&self, queries: &Range<usize>) -> Range<usize> {
        let first = self.op.visible_keys(queries.start, self.dims.keys);
        let last = self.op.visible_keys(queries.end - 1, self.dims.keys);
        first.start.min(last.end)..last.end
    }

    /// How far from the diagonal a tile that it cuts reaches.
    fn reach(&self) -> usize {
        self.tiling.queries + self.tiling.keys
    }

    fn describe(&self) -> String {
        let Tiling { batches, groups, heads, queries, keys, features, resident, .. } = self.tiling;
        let AttentionDims { depth, value_depth, .. } = self.dims;
        format!(
            "{} rows ({heads} heads, {queries} queries) by {keys} keys of {} batches and {groups} key heads, of S {} T {} D \
             {depth} E {value_depth}, {features} features at a time, keys and values {}",
            heads * queries,
            batches,
            self.dims.queries,
            self.dims.keys,
            if resident { "resident" } else { "streamed" },
        )
    }
}

/// The least finite binary32, which stands for the maximum of rows that see nothing.
fn least() -> Source {
    Source::Float(f64::from(f32::MIN))
}

#[cfg(test)]
mod tests;
