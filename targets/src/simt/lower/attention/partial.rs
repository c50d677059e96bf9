//! Results of parts of the keys, and what they are together: sums of weighted values that each have a greatest score of their own
//! (Dao et al., Flash-Decoding for long-context inference, 2023). Parts are combined in their order, whoever comes first.

use tcc_ir::ops::{BinaryFn, UnaryFn};

use super::SUM;
use crate::kernel::{ExprId, IndexFn, Memory, Scalar, SharedId};
use crate::lower::elements::Elements;
use crate::number::FoldFn;

/// Elements that are read before the first of them is used.
const AHEAD: usize = 16;

/// Where results of parts lie: for each part and row some sums of weighted values, the greatest score, and the sum of the weights.
#[derive(Clone, Copy, Debug)]
pub(super) struct Partial {
    pub memory: Memory,
    pub parts: usize,
    pub rows: usize,
    /// Sums of a row.
    pub width: usize,
    /// The first element.
    pub first: ExprId,
}

/// What parts have come to together, in shared memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Together {
    /// What the sums of each part and row are multiplied by, row by row.
    factors: SharedId,
    /// Parts up to a power of two.
    parts: usize,
    /// The greatest score of each row, if somebody wants it, and the sum of the weights.
    pub greatest: Option<SharedId>,
    pub totals: SharedId,
}

impl Partial {
    /// Elements for so many parts and rows with so many sums each.
    pub fn elements(parts: usize, rows: usize, width: usize) -> usize {
        parts * rows * (width + 2)
    }

    /// Elements of shared memory that putting so many parts together takes.
    pub fn together(parts: usize, rows: usize) -> usize {
        rows * (parts.next_power_of_two() + 2)
    }

    fn at(&self, elements: &mut Elements<'_>, place: ExprId) -> ExprId {
        elements.builder.add(self.first, place)
    }

    /// Where a sum lies.
    fn sum(&self, elements: &mut Elements<'_>, part: ExprId, within: ExprId) -> ExprId {
        let before = elements.builder.scaled(part, (self.rows * self.width) as i32);
        let place = elements.builder.add(before, within);
        self.at(elements, place)
    }

    /// Where the greatest score of a row lies; the sum of its weights is as far behind it as there are parts and rows.
    fn greatest(&self, elements: &mut Elements<'_>, part: ExprId, row: ExprId) -> ExprId {
        let builder = &mut elements.builder;
        let sums = builder.integer((self.parts * self.rows * self.width) as i32);
        let before = builder.scaled(part, self.rows as i32);
        let place = builder.add(before, row);
        let place = builder.add(sums, place);
        self.at(elements, place)
    }

    fn load(&self, elements: &mut Elements<'_>, at: ExprId, name: &str) -> ExprId {
        match self.memory {
            Memory::Shared(shared) => elements.builder.load_shared(shared, at, name),
            Memory::Buffer(buffer) => elements.builder.load(buffer, at, name),
        }
    }

    fn store(&self, elements: &mut Elements<'_>, at: ExprId, value: ExprId) {
        match self.memory {
            Memory::Shared(shared) => elements.builder.store_shared(shared, at, value),
            Memory::Buffer(buffer) => elements.builder.store(buffer, at, value),
        }
    }

    /// Writes a sum of a part: by its row, and its place there.
    pub fn put_sum(&self, elements: &mut Elements<'_>, (part, row, place): (ExprId, ExprId, ExprId), sum: ExprId) {
        let before = elements.builder.scaled(row, self.width as i32);
        let within = elements.builder.add(before, place);
        let at = self.sum(elements, part, within);
        self.store(elements, at, sum);
    }

    /// Writes the greatest score and the sum of the weights of a part's row.
    pub fn put_row(&self, elements: &mut Elements<'_>, (part, row): (ExprId, ExprId), [greatest, total]: [ExprId; 2]) {
        let at = self.greatest(elements, part, row);
        self.store(elements, at, greatest);
        let behind = elements.builder.integer((self.parts * self.rows) as i32);
        let at = elements.builder.add(at, behind);
        self.store(elements, at, total);
    }

    /// Arrays for what parts come to together, with the greatest scores or without.
    pub fn declare(&self, elements: &mut Elements<'_>, with_greatest: bool) -> Together {
        let parts = self.parts.next_power_of_two();
        let builder = &mut elements.builder;
        Together {
            factors: builder.shared("factors", SUM, (self.rows * parts) as u32),
            parts,
            greatest: with_greatest.then(|| builder.shared("greatest_of_all", SUM, self.rows as u32)),
            totals: builder.shared("totals", SUM, self.rows as u32),
        }
    }

    /// Finds what the sums of each part count in each row. All threads come here, and barriers stand before and behind it.
    pub fn weigh(&self, elements: &mut Elements<'_>, together: &Together, scratch: SharedId) {
        let builder = &mut elements.builder;
        builder.barrier();
        let (threads, thread) = (builder.threads() as usize, builder.thread());
        let items = self.rows * together.parts;
        let round = builder.unrolled("round", items.div_ceil(threads) as u32);
        elements.open();
        let builder = &mut elements.builder;
        let before = builder.scaled(round, threads as i32);
        let item = builder.add(before, thread);
        // Threads beyond the last work on it too, and do not write.
        let is_all = items.is_multiple_of(threads);
        let last = builder.integer(items as i32 - 1);
        let read = if is_all { item } else { builder.index(IndexFn::Min, item, last) };
        let read = builder.keep("item", Scalar::I32, read);
        let (row, part) = builder.divided(read, together.parts as i32);
        let is_padded = together.parts != self.parts;
        let last = builder.integer(self.parts as i32 - 1);
        let there = builder.below(part, self.parts as i32);
        let part = if is_padded { builder.index(IndexFn::Min, part, last) } else { part };
        let at = self.greatest(elements, part, row);
        let own = self.load(elements, at, "own_greatest");
        let behind = elements.builder.integer((self.parts * self.rows) as i32);
        let at = elements.builder.add(at, behind);
        let total = self.load(elements, at, "own_total");
        let builder = &mut elements.builder;
        let (least, zero) = (builder.float(SUM, f64::NEG_INFINITY), builder.float(SUM, 0.0));
        let own = if is_padded { builder.select(there, own, least) } else { own };
        let own = builder.keep("own_score", Scalar::F32, own);
        let greatest = builder.declare("greatest_score", Scalar::F32, own);
        builder.reduce(greatest, FoldFn::Max, SUM, together.parts as u32, scratch);
        let greatest = builder.get(greatest);
        // Where nothing is seen, weights are 0 and not what infinity less infinity is.
        let nothing = builder.binary(BinaryFn::Eq, SUM, greatest, least);
        let offset = builder.select(nothing, zero, greatest);
        let less = builder.binary(BinaryFn::Sub, SUM, own, offset);
        let factor = builder.unary(UnaryFn::Exp, SUM, less);
        let factor = builder.keep("factor", Scalar::F32, factor);
        let share = builder.binary(BinaryFn::Mul, SUM, total, factor);
        let share = builder.declare("share", Scalar::F32, share);
        builder.reduce(share, FoldFn::Sum, SUM, together.parts as u32, scratch);
        let share = builder.get(share);
        if !is_all {
            let writes = builder.below(item, items as i32);
            builder.when(writes);
        }
        builder.store_shared(together.factors, read, factor);
        let (_, part) = builder.divided(read, together.parts as i32);
        let none = builder.integer(0);
        let first = builder.index(IndexFn::Eq, part, none);
        builder.when(first);
        if let Some(kept) = together.greatest {
            builder.store_shared(kept, row, greatest);
        }
        builder.store_shared(together.totals, row, share);
        builder.end();
        if !is_all {
            builder.end();
        }
        elements.close();
        elements.builder.barrier();
    }

    /// A sum of all parts: by its row, and its place in all rows.
    pub fn total(&self, elements: &mut Elements<'_>, together: &Together, (row, within): (ExprId, ExprId)) -> ExprId {
        let builder = &mut elements.builder;
        let zero = builder.float(SUM, 0.0);
        let sum = builder.declare("sum", Scalar::F32, zero);
        let ahead = self.parts.min(AHEAD);
        let whole = self.parts / ahead * ahead;
        let held = builder.array("held", Scalar::F32, ahead as u32, zero);
        let (from, end) = (builder.integer(0), builder.integer(whole as i32));
        let first_factor = builder.scaled(row, together.parts as i32);
        let some = |elements: &mut Elements<'_>, first: ExprId, count: usize| {
            let next = elements.builder.unrolled("p", count as u32);
            let part = elements.builder.add(first, next);
            let at = self.sum(elements, part, within);
            let share = self.load(elements, at, "part");
            elements.builder.set_element(held, next, share);
            elements.builder.end();
            let builder = &mut elements.builder;
            let next = builder.unrolled("p", count as u32);
            let part = builder.add(first, next);
            let at = builder.add(first_factor, part);
            let factor = builder.load_shared(together.factors, at, "factor");
            let (share, so_far) = (builder.element(held, next), builder.get(sum));
            let more = builder.mul_add(SUM, share, factor, so_far);
            builder.set(sum, more);
            builder.end();
        };
        if whole == ahead {
            some(elements, from, ahead);
        } else {
            let first = elements.builder.loop_over("parts", from, end, ahead as u32);
            some(elements, first, ahead);
            elements.builder.end();
        }
        if self.parts > whole {
            some(elements, end, self.parts - whole);
        }
        elements.builder.get(sum)
    }
}
