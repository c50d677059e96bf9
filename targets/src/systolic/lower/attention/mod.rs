//! Attention on chip: scores, their softmax and the product with the values never leave it.
//!
//! A step takes some rows of queries (of all heads that share keys) and some keys, for one or more pairs of batch and key
//! head. It goes through four stages: operands are loaded and multiplied to scores; the vector unit turns these into
//! weights; the array multiplies the weights with the values; the vector unit divides by the sum of the weights and the
//! result is stored. The stages of neighbouring steps are written in an order in which the array works on the scores of the
//! next step while the vector unit works on those of the present one. A step has half of the accumulators.
//!
//! Where not all keys of a row fit, rows go through several steps with a running maximum and sum.

mod grid;
mod softmax;
mod tiling;

use std::ops::Range;

use tcc_ir::ops::{Attention, AttentionDims, BinaryFn};
use tcc_ir::{Access, DType, Graph, Kernel, NodeId, Op, ValueId, View, is_view};

use super::prologue::{Part, Prologue, Slots};
use super::recipe::{BATCH, FEATURE, FRAME, HEAD, POSITION, Recipe, Resolver, TermSource, four, groups_of, repeats};
use super::{ChipOperand, ChipSource, DramOperand, Lowering, element_bytes};
use crate::systolic::isa::{MapFn, Memory, Multiply, Operation, Preload, Source};
use crate::systolic::layout::storage;
use crate::target::TargetError;
use grid::Grid;
use tiling::{Limits, Step, Tiling, pieces};

/// The recipes of the operands, and the number of key heads of the operator that are one and the same.
struct Operands {
    q: Recipe,
    k: Recipe,
    v: Recipe,
    mask: Option<Recipe>,
    repeat: usize,
}

/// Whether an attention can run as one kernel: floats of at most 32 bits, and something to compute.
///
/// An optimiser keeps such a node; all others are decomposed.
pub(in crate::systolic) fn attention_supported(graph: &Graph, inputs: &[ValueId]) -> bool {
    let types: Vec<_> = inputs.iter().take(3).map(|&input| graph.ty(input)).collect();
    let [q, k, v] = types[..] else { return false };
    let dims = Attention::dims(q, k, v);
    q.dtype.is_float()
        && q.dtype != DType::F64
        && dims.is_ok_and(|dims| {
            [dims.batch, dims.heads, dims.queries, dims.depth, dims.value_depth].iter().all(|&extent| extent > 0)
        })
}

/// Whether the kernel of an attention can compute these nodes on chip, before it: each takes part in making q, k or v,
/// through views that only cut features, permute batch, heads and positions, or repeat key heads.
///
/// Nodes may be element-wise, reductions over features, rotations and concatenations along positions. An optimiser grows
/// a prologue from the attention up: as long as this holds, it may add the producer of another operand. Any value of the
/// prologue may be used elsewhere too.
///
/// # Errors
/// What is in the way, in words.
#[cfg_attr(not(test), expect(dead_code, reason = "for an optimiser that makes attention kernels"))]
pub(in crate::systolic) fn attention_prologue_supported(
    graph: &Graph,
    attention: NodeId,
    prologue: &[NodeId],
) -> Result<(), String> {
    let node = graph.node(attention);
    let Op::Attention(op) = &node.op else { return Err(format!("`{}` is no attention", node.origin)) };
    if !attention_supported(graph, &node.inputs) {
        return Err("the array does not multiply its type, or there is nothing to compute".to_owned());
    }
    let inside = |id: NodeId| prologue.contains(&id);
    let operands = operands(graph, op, &node.inputs, &|value| look_through(graph, value, &inside), &inside)?;
    let reached = |id: NodeId| {
        [&operands.q, &operands.k, &operands.v]
            .iter()
            .flat_map(|recipe| &recipe.terms)
            .any(|term| matches!(term.source, TermSource::Node { node, .. } if node == id))
    };
    match prologue.iter().find(|&&id| !reached(id)) {
        Some(&id) => Err(format!("`{}` makes no operand of the attention", graph.node(id).origin)),
        None => Ok(()),
    }
}

/// Whether a rotation can run as a kernel of its own.
pub(in crate::systolic) fn rope_supported(graph: &Graph, inputs: &[ValueId]) -> bool {
    let x = graph.ty(inputs[0]);
    x.dtype != DType::F64 && x.shape.rank() <= 4 && x.shape.count() > 0
}

/// How a value is read before there is a plan: through views of what a node inside computes, or of anything else.
fn look_through(graph: &Graph, value: ValueId, inside: &dyn Fn(NodeId) -> bool) -> Option<Access> {
    let mut views = Vec::new();
    let mut root = value;
    while let Some(id) = graph.producer(root)
        && is_view(&graph.node(id).op)
    {
        views.push(id);
        root = graph.node(id).inputs[0];
    }
    let mut view = View::dense(graph.shape(root).clone());
    for id in views.into_iter().rev() {
        let node = graph.node(id);
        match view.through(&node.op, graph.shape(node.output())) {
            Some(through) => view = through,
            // A value from outside is written out densely then.
            None if graph.producer(root).is_none_or(|id| !inside(id)) => {
                root = node.output();
                view = View::dense(graph.shape(root).clone());
            }
            None => return None,
        }
    }
    Some(Access { root, view })
}

/// Finds out how the operands are made.
fn operands(
    graph: &Graph,
    op: &Attention,
    inputs: &[ValueId],
    access: &dyn Fn(ValueId) -> Option<Access>,
    inside: &dyn Fn(NodeId) -> bool,
) -> Result<Operands, String> {
    let resolver = Resolver { graph, access, inside };
    let q = resolver.resolve(inputs[0])?;
    let (k, v) = (resolver.resolve(inputs[1])?, resolver.resolve(inputs[2])?);
    let mask = if op.mask { Some(resolver.resolve(inputs[3])?) } else { None };
    if mask.as_ref().is_some_and(Recipe::computes) {
        return Err("the mask is computed by the same kernel".to_owned());
    }
    if q.root.repeat > 1 {
        return Err("heads of queries are repeated".to_owned());
    }
    let heads = four(graph.shape(inputs[1])).map_or(1, |dims| dims[HEAD]);
    let repeat_of = |recipe: &Recipe| match &recipe.root_term().source {
        TermSource::Node { .. } if recipe.root_term().extents[HEAD] == 1 => heads,
        TermSource::Node { .. } => recipe.root.repeat,
        TermSource::Number => heads,
        TermSource::Dram { access, shape, .. } => {
            groups_of(access, shape).map_or(1, |groups| repeats(&groups[HEAD]).max(1))
        }
    };
    let (by_k, by_v) = (repeat_of(&k), repeat_of(&v));
    let made = |recipe: &Recipe| matches!(recipe.root_term().source, TermSource::Node { .. });
    let repeat = if by_k == by_v {
        by_k
    } else if made(&k) || made(&v) {
        return Err("keys and values repeat heads differently".to_owned());
    } else {
        1
    };
    Ok(Operands { q, k, v, mask, repeat })
}

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
    tiling: Tiling,
    /// Keys that are held for each key head, where they stay on chip.
    held: Range<usize>,
    buffers: Buffers,
    slots: Slots,
    /// Tiles of keys and values that were loaded one after the other.
    streamed: usize,
}

/// Buffers of the scratchpad; those of which there are several are taken in turn.
#[derive(Default)]
struct Buffers {
    q: Vec<u32>,
    q_dtype: Option<DType>,
    k: Vec<u32>,
    v: Vec<u32>,
    weights: Vec<u32>,
    result: Vec<u32>,
    /// Results of rows that go through several steps.
    running: Vec<u32>,
    /// One number for each row: the maximum, the sum, what earlier steps count for, the reciprocal of the sum.
    maximum: Vec<u32>,
    sum: Vec<u32>,
    factor: Vec<u32>,
    reciprocal: Vec<u32>,
    /// Truth values by distance: up to the diagonal, and from the window's edge on.
    below: Option<u32>,
    within: Option<u32>,
    /// Truth values for each row.
    nothing: Option<u32>,
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
        let operands = operands(graph, op, &node.inputs, &|value| Some(plan.access(value).clone()), &inside)
            .map_err(|reason| self.defect(kernel, &format!("has a prologue of which {reason}")))?;
        let [q, k, v] = [0, 1, 2].map(|operand| graph.ty(node.inputs[operand]));
        let dims = Attention::dims(q, k, v).map_err(|error| TargetError::Fault(error.to_string()))?;
        let share = dims.heads / dims.groups * operands.repeat;
        let k_access = plan.access(node.inputs[1]).clone();
        let v_access = plan.access(node.inputs[2]).clone();

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
                    prologue.stores.push((term.value, self.result(term.value)?));
                }
            }
        }
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
        let steps = attend.steps();
        self.attention_buffers(&mut attend, &steps)?;
        self.attention_steps(&mut attend, &steps)
    }

    fn attention_tiling(&self, attend: &Attend) -> Tiling {
        let scratchpad = u64::from(self.machine.scratchpad.bytes);
        let whole = scratchpad - scratchpad / 16;
        // At first half is left to the neighbours.
        let budget = if self.squeeze == 0 { scratchpad / 2 } else { whole >> (self.squeeze - 1).min(31) };
        let limits = Limits {
            array_rows: self.machine.array.rows as usize,
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
            + bytes(rows * tiling.keys, DType::BF16)
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

    /// Evaluates the whole of an operand once, and leaves it in DRAM: in the buffer of the value that it is or is a part
    /// of.
    fn leave_in_dram(&mut self, prologue: &Prologue) -> Result<DramOperand, TargetError> {
        let term = prologue.recipe.root_term();
        let (value, extents) = (term.value, term.extents);
        let ty = self.plan.graph.ty(value).clone();
        let known = prologue.stores.iter().find(|(stored, _)| *stored == value).map(|(_, to)| to.clone());
        let view = View::dense(ty.shape.clone());
        let mut storing = prologue.clone();
        let made = match known {
            Some(made) => made,
            None => {
                let dtype = storage(ty.dtype);
                let base = self.layout.scratch(dtype.bytes(ty.shape.count()) as u64);
                let made = DramOperand { base, dtype, view };
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

    fn attention_buffers(&mut self, attend: &mut Attend, steps: &[Step]) -> Result<(), TargetError> {
        let Some(last) = steps.last() else { return Ok(()) };
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
        let mut buffers = Buffers {
            q: self.buffers(bytes(rows * dims.depth, q_dtype), turns(last.chain + 1)),
            q_dtype: Some(q_dtype),
            k: self.buffers(bytes(t.units() * keys * dims.depth, k_dtype), turns(loads)),
            v: self.buffers(bytes(t.units() * keys * t.columns(), v_dtype), turns(loads)),
            weights: self.buffers(bytes(rows * t.keys.max(1), DType::BF16), by_step),
            result: self.buffers(bytes(rows * t.features, result), by_step),
            maximum: self.buffers(bytes(rows, DType::F32), by_step),
            reciprocal: self.buffers(bytes(rows, DType::F32), by_step),
            ..Buffers::default()
        };
        if several {
            buffers.running = self.buffers(bytes(rows * t.columns(), DType::F32), by_step);
            buffers.factor = self.buffers(bytes(rows, DType::F32), by_step);
        }
        if !t.ones {
            buffers.sum = self.buffers(bytes(rows, DType::F32), by_step);
        }
        if attend.op.zero_masked_rows {
            buffers.nothing = Some(self.emitter.allocate(rows as u64));
        }
        if t.ones {
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
            let address = lowering.emitter.allocate(2 * reach as u64 + 1);
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
        Ok(())
    }

    /// Writes the stages of all steps: those of neighbours overlap.
    fn attention_steps(&mut self, attend: &mut Attend, steps: &[Step]) -> Result<(), TargetError> {
        let mut ready: Vec<Option<Prepared>> = Vec::new();
        for index in 0..steps.len() + 2 {
            if let Some(step) = steps.get(index) {
                let prepared = self.attention_scores(attend, step, index)?;
                ready.push(prepared);
            }
            let present = index.checked_sub(1).and_then(|index| Some((index, steps.get(index)?, ready[index].as_ref()?)));
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
        let (set, keys) = if t.resident { (step.block, attend.held.clone()) } else { (attend.streamed, step.keys.clone()) };
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
        let (rows, columns) = (self.machine.array.rows as usize, self.machine.array.columns as usize);
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

    fn attention_mask(
        &mut self,
        attend: &Attend,
        slots: &mut Slots,
        step: &Step,
    ) -> Result<Option<Mask>, TargetError> {
        let Some(mask) = &attend.mask else { return Ok(None) };
        if matches!(mask.recipe.root_term().source, TermSource::Number) {
            return Ok(Some(Mask::Number(self.number(mask)?)));
        }
        let heads = attend.query_heads(step);
        let part = Part([step.batches.clone(), heads, step.queries.clone(), step.keys.clone()]);
        Ok(Some(Mask::Chip(self.operand_part(mask, slots, &part)?)))
    }

    /// Scores: rows of queries times keys, which are the array's weights.
    fn attention_keys(&mut self, attend: &Attend, grid: &Grid, (q, k): (u32, u32), first: usize, capacity: usize) {
        let depth = attend.dims.depth;
        let q_dtype = attend.buffers.q_dtype.unwrap_or(DType::F32);
        let k_dtype = self.prologue_dtype(&attend.k);
        let (q_element, k_element) = (element_bytes(q_dtype) as usize, element_bytes(k_dtype) as usize);
        for unit in 0..grid.units() {
            for tile in 0..grid.tiles {
                let key = unit * capacity + first + tile * grid.width;
                for features in pieces(0..depth, self.machine.array.rows as usize) {
                    self.emitter.emit(Operation::Preload(Preload {
                        address: k + ((key * depth + features.start) * k_element) as u32,
                        dtype: k_dtype,
                        k: features.len() as u16,
                        n: grid.width_of(tile) as u16,
                        k_stride: k_element as i32,
                        n_stride: (depth * k_element) as i32,
                        zero_point: None,
                    }));
                    self.emitter.emit(Operation::Multiply(Multiply {
                        address: q + ((unit * grid.rows() * depth + features.start) * q_element) as u32,
                        dtype: q_dtype,
                        m: grid.rows() as u32,
                        m_stride: (depth * q_element) as i32,
                        k_stride: q_element as i32,
                        zero_point: None,
                        accumulator_row: grid.score_row(unit, tile) as u32,
                        accumulate: features.start > 0,
                        switch_weights: true,
                    }));
                }
            }
        }
    }

    /// Weights times values, which are the array's weights in turn.
    fn attention_values(&mut self, attend: &Attend, prepared: &Prepared, index: usize) {
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
                        k: grid.width_of(tile) as u16,
                        n: width as u16,
                        k_stride: (pitch * element) as i32,
                        n_stride: element as i32,
                        zero_point: None,
                    }));
                    self.emitter.emit(Operation::Multiply(Multiply {
                        address: weights + (grid.weights_before(unit, tile) * 2) as u32,
                        dtype: DType::BF16,
                        m: grid.rows() as u32,
                        m_stride: (grid.width * 2) as i32,
                        k_stride: 2,
                        zero_point: None,
                        accumulator_row: grid.result_row(unit, columns) as u32,
                        accumulate: tile > 0,
                        switch_weights: true,
                    }));
                }
            }
        }
    }

    /// A rotation as a kernel of its own.
    pub(super) fn rope_kernel(&mut self, kernel: &Kernel, id: NodeId) -> Result<(), TargetError> {
        let graph = &self.plan.graph;
        let node = graph.node(id);
        let plan = self.plan;
        let dense = |value: ValueId| Access { root: value, view: View::dense(graph.shape(value).clone()) };
        let access = |value: ValueId| {
            Some(if value == node.output() { dense(value) } else { plan.access(value).clone() })
        };
        let resolver = Resolver { graph, access: &access, inside: &|inside| inside == id };
        let recipe = resolver
            .resolve(node.output())
            .map_err(|reason| self.defect(kernel, &format!("has a rotation of which {reason}")))?;
        let mut prologue = self.prologue(0, recipe)?;
        prologue.stores.push((node.output(), self.result(node.output())?));
        let extents = prologue.recipe.root_term().extents;
        let mut slots = Slots::default();
        // As many heads as make a usual piece.
        let heads = self.piece(&prologue, extents[POSITION]).min(extents[HEAD]);
        self.tiling = format!("{heads} of {} heads at a time", extents[HEAD]);
        for batch in 0..extents[BATCH] {
            for heads in pieces(0..extents[HEAD], heads) {
                let part = Part([batch..batch + 1, heads, 0..extents[POSITION], 0..extents[FEATURE]]);
                self.produce_only(&prologue, &mut slots, &part)?;
            }
        }
        Ok(())
    }

    /// Stores a part of the result.
    fn store_result(&mut self, attend: &Attend, step: &Step, grid_buffer: u32) -> Result<(), TargetError> {
        let AttentionDims { batch, heads, queries, value_depth, .. } = attend.dims;
        let to = self.result(attend.out)?;
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

    /// All steps, in order.
    fn steps(&self) -> Vec<Step> {
        let t = &self.tiling;
        let mut steps: Vec<Step> = Vec::new();
        let (mut block, mut chain) = (0, 0);
        for features in pieces(0..self.dims.value_depth, t.features) {
            for batches in pieces(0..self.dims.batch, t.batches) {
                for groups in pieces(0..self.groups(), t.groups) {
                    let mut fresh = true;
                    for heads in pieces(0..self.share, t.heads) {
                        for queries in pieces(0..self.dims.queries, t.queries) {
                            let visible = self.visible(&queries);
                            let count = visible.len().div_ceil(t.keys).max(1);
                            let mut parts: Vec<Range<usize>> =
                                pieces(visible.clone(), visible.len().div_ceil(count)).collect();
                            if parts.is_empty() {
                                parts.push(visible);
                            }
                            let last = parts.len() - 1;
                            for (index, keys) in parts.into_iter().enumerate() {
                                steps.push(Step {
                                    batches: batches.clone(),
                                    groups: groups.clone(),
                                    heads: heads.clone(),
                                    queries: queries.clone(),
                                    keys,
                                    features: features.clone(),
                                    first: index == 0,
                                    last: index == last,
                                    fresh,
                                    block,
                                    chain,
                                });
                                fresh = false;
                            }
                            chain += 1;
                        }
                    }
                    block += 1;
                }
            }
        }
        steps
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
