//! Attention: a block computes some rows of queries that share keys, from one stretch of keys after another, with a softmax that
//! is corrected as it goes on (Milakov and Gimelshein, arXiv 1805.02867; Dao et al., arXiv 2205.14135).
//!
//! Rows are the queries of all heads that share keys, so that each key is read once for all of them. Threads first have keys of
//! their own, then a share of a row's weights, then elements of the results.

use tcc_ir::ops::{Attention, AttentionDims, BinaryFn, UnaryFn};
use tcc_ir::{DType, Graph, Node, NodeId, Op, ValueId};

use super::Written;
use super::elements::{Coords, Elements, defect};
use super::piece::ATTENTION_ROWS;
use crate::number::FoldFn;
use crate::simt::SimtMachine;
use crate::simt::kernel::{ExprId, IndexFn, Scalar, SharedId, VarId};
use crate::target::TargetError;

/// Threads of a block.
pub(super) const THREADS: u32 = 128;

/// Most keys of a stretch.
const KEYS: usize = 512;

/// What attention is computed in.
const SUM: DType = DType::F32;

/// How rows and keys are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shares {
    /// Rows of a block: a power of two.
    rows: usize,
    /// Keys of a stretch.
    keys: usize,
}

/// Whether a machine runs an attention of these operands in one kernel.
pub(in crate::simt) fn runs(machine: &SimtMachine, graph: &Graph, inputs: &[ValueId]) -> bool {
    let [q, k, v] = [inputs[0], inputs[1], inputs[2]].map(|input| graph.ty(input));
    let float = matches!(q.dtype, DType::F32 | DType::F16 | DType::BF16);
    float && Attention::dims(q, k, v).is_ok_and(|dims| Shares::new(machine, &dims).is_some())
}

impl Shares {
    /// For a machine; `None` if not even one row fits into its shared memory.
    fn new(machine: &SimtMachine, dims: &AttentionDims) -> Option<Shares> {
        let all = dims.heads / dims.groups * dims.queries;
        let mut rows = all.next_power_of_two().min(ATTENTION_ROWS);
        loop {
            let keys = dims.keys.min(KEYS);
            // Scores, queries, corrections and sums of rows, and what threads combine by.
            let elements = rows * (keys + dims.depth + 2) + THREADS as usize + 16;
            let held = (rows * dims.value_depth).div_ceil(THREADS as usize);
            if 4 * elements as u64 <= machine.shared.block_bytes && held <= 32 && dims.value_depth > 0 {
                return Some(Shares { rows, keys });
            }
            if rows == 1 {
                return None;
            }
            rows /= 2;
        }
    }
}

/// What threads know of the block.
struct Rows<'e, 'a> {
    elements: &'e mut Elements<'a>,
    op: Attention,
    dims: AttentionDims,
    shares: Shares,
    inputs: Vec<ValueId>,
    batch: ExprId,
    group: ExprId,
    /// The number of the first row.
    first: ExprId,
    thread: ExprId,
    queries: SharedId,
    scores: SharedId,
    corrections: SharedId,
    scratch: SharedId,
    /// The greatest score of this thread's row so far, and the sum of its weights.
    greatest: VarId,
    total: VarId,
    results: VarId,
}

/// Writes the kernel.
pub(super) fn attention(
    elements: &mut Elements<'_>,
    id: NodeId,
    outputs: &[ValueId],
    machine: &SimtMachine,
) -> Result<Written, TargetError> {
    let node: Node = elements.graph().node(id).clone();
    let Op::Attention(op) = &node.op else { return Err(defect("this is no attention")) };
    let types = elements.graph().input_types(&node);
    let dims = Attention::dims(types[0], types[1], types[2]).map_err(|error| defect(&error.to_string()))?;
    let shares = Shares::new(machine, &dims).ok_or_else(|| defect("a row of an attention does not fit"))?;
    let Shares { rows, keys } = shares;
    let all = dims.heads / dims.groups * dims.queries;
    let builder = &mut elements.builder;
    let (thread, tile, group, batch) = (builder.thread(), builder.block(0), builder.block(1), builder.block(2));
    let first = builder.scaled(tile, rows as i32);
    let queries = builder.shared("queries", SUM, (rows * dims.depth).max(1) as u32);
    let scores = builder.shared("scores", SUM, (rows * keys) as u32);
    let corrections = builder.shared("corrections", SUM, rows as u32);
    let scratch = builder.shared("scratch", SUM, THREADS);
    let (least, zero) = (builder.float(SUM, f64::NEG_INFINITY), builder.float(SUM, 0.0));
    let greatest = builder.declare("greatest", Scalar::F32, least);
    let total = builder.declare("total", Scalar::F32, zero);
    let held = (rows * dims.value_depth).div_ceil(THREADS as usize) as u32;
    let results = builder.array("results", Scalar::F32, held, zero);
    let mut block = Rows {
        elements,
        op: *op,
        dims,
        shares,
        inputs: node.inputs.to_vec(),
        batch,
        group,
        first,
        thread,
        queries,
        scores,
        corrections,
        scratch,
        greatest,
        total,
        results,
    };
    let (own, operands): (Vec<ValueId>, Vec<ValueId>) = outputs.iter().partition(|&&output| output == node.output());
    block.append(&operands)?;
    block.load_queries()?;
    let builder = &mut block.elements.builder;
    let (from, end) = (builder.integer(0), builder.integer(dims.keys as i32));
    let start = builder.loop_over("stretch", from, end, keys as u32);
    block.elements.open();
    block.elements.builder.barrier();
    block.score(start)?;
    block.elements.builder.barrier();
    block.weigh();
    block.elements.builder.barrier();
    block.sum(start)?;
    block.elements.close();
    block.store(&node, &own)?;
    let tiling = format!(
        "{} × {} heads of keys, {all} rows of {} × {} each: {rows} rows a block, {keys} keys at a time",
        dims.batch, dims.groups, dims.keys, dims.depth
    );
    Ok(([all.div_ceil(rows) as u32, dims.groups as u32, dims.batch as u32], tiling))
}

impl Rows<'_, '_> {
    /// The head and the query of a row of the block; those beyond the last are the last again.
    fn query(&mut self, row: ExprId) -> (ExprId, ExprId) {
        let shared = self.dims.heads / self.dims.groups;
        let all = shared * self.dims.queries;
        let builder = &mut self.elements.builder;
        let number = builder.add(self.first, row);
        let number = if all.is_multiple_of(self.shares.rows) {
            number
        } else {
            let last = builder.integer(all as i32 - 1);
            builder.index(IndexFn::Min, number, last)
        };
        let number = builder.keep("number", Scalar::I32, number);
        let (head, query) = builder.divided(number, self.dims.queries as i32);
        let before = builder.scaled(self.group, shared as i32);
        (builder.add(before, head), query)
    }

    /// An element of an operand.
    fn element(&mut self, operand: usize, coords: &[ExprId]) -> Result<ExprId, TargetError> {
        let value = self.inputs[operand];
        self.elements.element(value, coords)
    }

    /// Writes keys and values that others want too: those of this block's heads.
    fn append(&mut self, operands: &[ValueId]) -> Result<(), TargetError> {
        for &operand in operands {
            let width = self.elements.graph().shape(operand)[3];
            let end = self.elements.builder.integer((self.dims.keys * width) as i32);
            let i = self.elements.builder.loop_over("i", self.thread, end, THREADS);
            self.elements.open();
            let (key, d) = self.elements.builder.divided(i, width as i32);
            self.elements.store(operand, &[self.batch, self.group, key, d])?;
            self.elements.close();
        }
        Ok(())
    }

    /// Brings queries, scaled, to shared memory.
    fn load_queries(&mut self) -> Result<(), TargetError> {
        let depth = self.dims.depth;
        if depth == 0 {
            return Ok(());
        }
        let end = self.elements.builder.integer((self.shares.rows * depth) as i32);
        let i = self.elements.builder.loop_over("i", self.thread, end, THREADS);
        self.elements.open();
        let (row, d) = self.elements.builder.divided(i, depth as i32);
        let (head, query) = self.query(row);
        let x = self.element(0, &[self.batch, head, query, d])?;
        let builder = &mut self.elements.builder;
        let scale = builder.float(SUM, self.op.scale.0);
        let scaled = builder.binary(BinaryFn::Mul, SUM, x, scale);
        builder.store_shared(self.queries, i, scaled);
        self.elements.close();
        Ok(())
    }

    /// Computes the scores of a stretch of keys, each thread those of some keys with all rows.
    fn score(&mut self, start: ExprId) -> Result<(), TargetError> {
        let (rows, keys) = (self.shares.rows as u32, self.shares.keys);
        let (thread, batch, group, depth) = (self.thread, self.batch, self.group, self.dims.depth);
        let builder = &mut self.elements.builder;
        let end = builder.integer(keys as i32);
        let own = builder.loop_over("own_key", thread, end, THREADS);
        self.elements.open();
        let builder = &mut self.elements.builder;
        let key = builder.add(start, own);
        let key = builder.keep("key", Scalar::I32, key);
        let is_all = self.dims.keys.is_multiple_of(keys);
        let (zero, least) = (builder.float(SUM, 0.0), builder.float(SUM, f64::NEG_INFINITY));
        let products = builder.array("products", Scalar::F32, rows, if is_all { zero } else { least });
        if !is_all {
            let there = builder.below(key, self.dims.keys as i32);
            builder.when(there);
            self.elements.open();
            let r = self.elements.builder.unrolled("r", rows);
            self.elements.builder.set_element(products, r, zero);
            self.elements.builder.end();
        }
        let builder = &mut self.elements.builder;
        let (from, to) = (builder.integer(0), builder.integer(depth as i32));
        let d = builder.loop_over("d", from, to, 1);
        self.elements.open();
        let y = self.element(1, &[batch, group, key, d])?;
        let builder = &mut self.elements.builder;
        let r = builder.unrolled("r", rows);
        let at = builder.scaled(r, depth as i32);
        let at = builder.add(at, d);
        let x = builder.load_shared(self.queries, at, "x");
        let so_far = builder.element(products, r);
        let next = builder.mul_add(SUM, x, y, so_far);
        builder.set_element(products, r, next);
        builder.end();
        self.elements.close();
        let r = self.elements.builder.unrolled("r", rows);
        self.elements.open();
        let product = self.elements.builder.element(products, r);
        let masked = self.masked(product, r, key)?;
        self.elements.builder.set_element(products, r, masked);
        self.elements.close();
        if !is_all {
            self.elements.close();
        }
        let builder = &mut self.elements.builder;
        let r = builder.unrolled("r", rows);
        let at = builder.scaled(r, keys as i32);
        let at = builder.add(at, own);
        let value = builder.element(products, r);
        builder.store_shared(self.scores, at, value);
        builder.end();
        self.elements.close();
        Ok(())
    }

    /// A score as the softmax takes it: bent by the cap, and nothing where its row does not look.
    fn masked(&mut self, product: ExprId, row: ExprId, key: ExprId) -> Result<ExprId, TargetError> {
        let (head, query) = self.query(row);
        let builder = &mut self.elements.builder;
        let mut score = product;
        if self.op.softcap.0 != 0.0 {
            let cap = builder.float(SUM, self.op.softcap.0);
            let small = builder.binary(BinaryFn::Div, SUM, score, cap);
            let bent = builder.unary(UnaryFn::Tanh, SUM, small);
            score = builder.binary(BinaryFn::Mul, SUM, bent, cap);
        }
        let least = builder.float(SUM, f64::NEG_INFINITY);
        if self.op.mask {
            let mask = self.inputs[3];
            let ty = self.elements.graph().ty(mask);
            let coords = [self.batch, head, query, key];
            let element = self.elements.broadcast_element(mask, &coords)?;
            let builder = &mut self.elements.builder;
            score = match ty.dtype {
                DType::Bool => builder.select(element, score, least),
                _ => builder.binary(BinaryFn::Add, SUM, score, element),
            };
        }
        if let Some(causal) = self.op.causal {
            // What lies beyond all keys is as good as infinitely far.
            let far = (self.dims.keys + self.dims.queries) as i64;
            let builder = &mut self.elements.builder;
            let offset = builder.integer(causal.clamp(-far, far) as i32);
            let last = builder.add(query, offset);
            let mut visible = builder.index(IndexFn::Ge, last, key);
            if let Some(window) = self.op.window {
                let offset = builder.integer(causal.saturating_sub(window).clamp(-far - 1, far) as i32);
                let before = builder.add(query, offset);
                let near = builder.index(IndexFn::Lt, before, key);
                visible = builder.index(IndexFn::And, visible, near);
            }
            score = builder.select(visible, score, least);
        }
        Ok(score)
    }

    /// Turns the scores of a stretch into weights, each row by threads of its own, and says how what was summed is corrected.
    fn weigh(&mut self) {
        let (keys, width) = (self.shares.keys as i32, THREADS / self.shares.rows as u32);
        let (greatest, total) = (self.greatest, self.total);
        let builder = &mut self.elements.builder;
        let (row, lane) = builder.divided(self.thread, width as i32);
        let base = builder.scaled(row, keys);
        let (end, least) = (builder.integer(keys), builder.float(SUM, f64::NEG_INFINITY));
        let highest = builder.declare("highest", Scalar::F32, least);
        let j = builder.loop_over("j", lane, end, width);
        let at = builder.add(base, j);
        let score = builder.load_shared(self.scores, at, "score");
        let so_far = builder.get(highest);
        let next = builder.binary(BinaryFn::Max, SUM, so_far, score);
        builder.set(highest, next);
        builder.end();
        builder.reduce(highest, FoldFn::Max, SUM, width, self.scratch);
        let (before, highest) = (builder.get(greatest), builder.get(highest));
        let after = builder.binary(BinaryFn::Max, SUM, before, highest);
        let after = builder.keep("after", Scalar::F32, after);
        // Where nothing is seen yet, weights are 0 and not what infinity less infinity is.
        let (zero, nothing) = (builder.float(SUM, 0.0), builder.binary(BinaryFn::Eq, SUM, after, least));
        let offset = builder.select(nothing, zero, after);
        let offset = builder.keep("offset", Scalar::F32, offset);
        let less = builder.binary(BinaryFn::Sub, SUM, before, offset);
        let correction = builder.unary(UnaryFn::Exp, SUM, less);
        let correction = builder.keep("correction", Scalar::F32, correction);
        let share = builder.declare("share", Scalar::F32, zero);
        let j = builder.loop_over("j", lane, end, width);
        let at = builder.add(base, j);
        let score = builder.load_shared(self.scores, at, "score");
        let less = builder.binary(BinaryFn::Sub, SUM, score, offset);
        let weight = builder.unary(UnaryFn::Exp, SUM, less);
        let weight = builder.keep("weight", Scalar::F32, weight);
        builder.store_shared(self.scores, at, weight);
        let so_far = builder.get(share);
        let next = builder.binary(BinaryFn::Add, SUM, so_far, weight);
        builder.set(share, next);
        builder.end();
        builder.reduce(share, FoldFn::Sum, SUM, width, self.scratch);
        let (so_far, share) = (builder.get(total), builder.get(share));
        let next = builder.mul_add(SUM, so_far, correction, share);
        builder.set(total, next);
        builder.set(greatest, after);
        let zero = builder.integer(0);
        let first = builder.index(IndexFn::Eq, lane, zero);
        builder.when(first);
        builder.store_shared(self.corrections, row, correction);
        builder.end();
    }

    /// Adds the weighted values of a stretch of keys to the results, each thread to those that it holds.
    fn sum(&mut self, start: ExprId) -> Result<(), TargetError> {
        let held = self.held();
        let (batch, group) = (self.batch, self.group);
        let t = self.elements.builder.unrolled("t", held);
        self.elements.open();
        let (row, e, inside) = self.own(t);
        let builder = &mut self.elements.builder;
        if let Some(inside) = inside {
            builder.when(inside);
        }
        self.elements.open();
        let builder = &mut self.elements.builder;
        let correction = builder.load_shared(self.corrections, row, "correction");
        let before = builder.element(self.results, t);
        let corrected = builder.binary(BinaryFn::Mul, SUM, before, correction);
        let sum = builder.declare("sum", Scalar::F32, corrected);
        let base = builder.scaled(row, self.shares.keys as i32);
        // The last stretch may be shorter.
        let (from, most) = (builder.integer(0), builder.integer(self.shares.keys as i32));
        let end = if self.dims.keys.is_multiple_of(self.shares.keys) {
            most
        } else {
            let all = builder.integer(self.dims.keys as i32);
            let left = builder.index(IndexFn::Sub, all, start);
            builder.index(IndexFn::Min, most, left)
        };
        let j = builder.loop_over("j", from, end, 1);
        self.elements.open();
        let builder = &mut self.elements.builder;
        let at = builder.add(base, j);
        let weight = builder.load_shared(self.scores, at, "weight");
        let key = builder.add(start, j);
        let value = self.element(2, &[batch, group, key, e])?;
        let builder = &mut self.elements.builder;
        let so_far = builder.get(sum);
        let next = builder.mul_add(SUM, weight, value, so_far);
        builder.set(sum, next);
        self.elements.close();
        let builder = &mut self.elements.builder;
        let sum = builder.get(sum);
        builder.set_element(self.results, t, sum);
        match inside {
            Some(_) => self.elements.close(),
            None => self.elements.leave(),
        }
        self.elements.close();
        Ok(())
    }

    /// Results that a thread holds.
    fn held(&self) -> u32 {
        (self.shares.rows * self.dims.value_depth).div_ceil(THREADS as usize) as u32
    }

    /// The row and the element of one of this thread's results, and whether there is one, if that is not known.
    fn own(&mut self, t: ExprId) -> (ExprId, ExprId, Option<ExprId>) {
        let all = self.shares.rows * self.dims.value_depth;
        let builder = &mut self.elements.builder;
        let before = builder.scaled(t, THREADS as i32);
        let number = builder.add(before, self.thread);
        let number = builder.keep("result", Scalar::I32, number);
        let inside = (!all.is_multiple_of(THREADS as usize)).then(|| builder.below(number, all as i32));
        let (row, e) = builder.divided(number, self.dims.value_depth as i32);
        (row, e, inside)
    }

    /// Divides the results by the sums of weights and writes them.
    fn store(&mut self, node: &Node, outputs: &[ValueId]) -> Result<(), TargetError> {
        let (width, held) = (THREADS / self.shares.rows as u32, self.held());
        let builder = &mut self.elements.builder;
        let (row, lane) = builder.divided(self.thread, width as i32);
        builder.barrier();
        let zero = builder.integer(0);
        let first = builder.index(IndexFn::Eq, lane, zero);
        builder.when(first);
        let total = builder.get(self.total);
        builder.store_shared(self.corrections, row, total);
        builder.end();
        builder.barrier();
        let t = builder.unrolled("t", held);
        self.elements.open();
        let (row, e, inside) = self.own(t);
        let shared = self.dims.heads / self.dims.groups;
        let all = shared * self.dims.queries;
        let builder = &mut self.elements.builder;
        let number = builder.add(self.first, row);
        let mut writes = inside.unwrap_or_else(|| builder.integer(1));
        if !all.is_multiple_of(self.shares.rows) {
            let there = builder.below(number, all as i32);
            writes = builder.index(IndexFn::And, writes, there);
        }
        builder.when(writes);
        self.elements.open();
        let (head, query) = self.query(row);
        let builder = &mut self.elements.builder;
        let total = builder.load_shared(self.corrections, row, "total");
        let sum = builder.element(self.results, t);
        let mut result = builder.binary(BinaryFn::Div, SUM, sum, total);
        if self.op.zero_masked_rows {
            let zero = builder.float(SUM, 0.0);
            let nothing = builder.binary(BinaryFn::Eq, SUM, total, zero);
            result = builder.select(nothing, zero, result);
        }
        let result = builder.keep("y", Scalar::F32, result);
        let coords: Coords = [self.batch, head, query, e].into_iter().collect();
        self.elements.hold(node.output(), &coords, result);
        for &output in outputs {
            self.elements.store(output, &coords)?;
        }
        self.elements.close();
        self.elements.close();
        Ok(())
    }
}
