//! What all teams of a block want and somebody has to compute first: queries, and keys that are new.
//!
//! Both are computed once, each element by a thread of its own, and lie in shared memory in the order in which lanes take them. All
//! that this takes from memory is read before any of it is used.

use tcc_ir::ops::BinaryFn;

use super::super::SUM;
use super::super::operand::{Operand, Stretch};
use super::Block;
use crate::kernel::{ExprId, IndexFn, SharedId};
use crate::target::TargetError;

/// Keys that are computed for the block at the most; where there are more each team computes its own.
pub(super) const NEW_KEYS: usize = 16;

/// Rounds of a block's threads that are written out at the most.
const ROUNDS: usize = 4;

/// Keys and values that lie in shared memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Staged {
    /// The number of the first of them.
    pub first: usize,
    /// Keys and values.
    pub shared: [SharedId; 2],
}

/// Elements that are brought to shared memory.
#[derive(Clone, Copy, Debug)]
enum What<'s> {
    /// Those of the block's queries, scaled.
    Queries,
    /// Those of keys (0) or values (1) of a stretch.
    Keys(usize, &'s Stretch),
}

/// An element on its way: where it goes, what it is, and whether it is any, if not every thread has one.
struct Item {
    shared: SharedId,
    at: ExprId,
    value: ExprId,
    inside: Option<ExprId>,
}

impl Block<'_, '_> {
    /// Brings queries to shared memory, and new keys if there are any. Nobody has waited for it yet.
    pub(super) fn stage(&mut self, new: Option<&Stretch>) -> Result<(Option<SharedId>, Option<Staged>), TargetError> {
        let [keys, values] = self.operands;
        let mut all = Vec::new();
        let mut bring = |block: &mut Self, name: &str, lines: usize, operand: Operand, what| {
            let elements = lines * operand.padded();
            let shared = block.elements.builder.shared(name, SUM, elements.max(1) as u32);
            all.push((what, shared, elements));
            shared
        };
        let queries = (keys.width > 0).then(|| bring(self, "all_queries", self.shares.rows, keys, What::Queries));
        let staged = new.map(|new| Staged {
            first: new.first,
            shared: [
                bring(self, "new_keys", new.count, keys, What::Keys(0, new)),
                bring(self, "new_values", new.count, values, What::Keys(1, new)),
            ],
        });
        let threads = self.shares.threads;
        let (few, many): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|&(.., elements)| elements.div_ceil(threads) <= ROUNDS);
        let mark = self.elements.builder.mark();
        let mut items = Vec::new();
        for (what, shared, elements) in few {
            for round in 0..elements.div_ceil(threads) {
                let builder = &mut self.elements.builder;
                let before = builder.integer((round * threads) as i32);
                let i = builder.add(self.thread, before);
                let is_whole = (round + 1) * threads <= elements;
                let inside = (!is_whole).then(|| builder.below(i, elements as i32));
                let last = builder.integer(elements as i32 - 1);
                let i = if is_whole { i } else { builder.index(IndexFn::Min, i, last) };
                items.push(self.item(what, shared, i, inside)?);
            }
        }
        self.elements.builder.reads_first(mark);
        items.iter().for_each(|item| self.put(item));
        for (what, shared, elements) in many {
            let builder = &mut self.elements.builder;
            let end = builder.integer(elements as i32);
            let i = builder.loop_over("i", self.thread, end, threads as u32);
            self.elements.open();
            let item = self.item(what, shared, i, None)?;
            self.put(&item);
            self.elements.close();
        }
        Ok((queries, staged))
    }

    fn put(&mut self, &Item { shared, at, value, inside }: &Item) {
        let builder = &mut self.elements.builder;
        if let Some(inside) = inside {
            builder.when(inside);
        }
        builder.store_shared(shared, at, value);
        if inside.is_some() {
            builder.end();
        }
    }

    /// An element by its number, line by line. Those beyond the last of a line are 0.
    fn item(
        &mut self,
        what: What<'_>,
        shared: SharedId,
        i: ExprId,
        inside: Option<ExprId>,
    ) -> Result<Item, TargetError> {
        let operand = match what {
            What::Queries => self.operands[0],
            What::Keys(number, _) => self.operands[number],
        };
        let padded = operand.padded() as i32;
        let (line, d) = self.elements.builder.divided(i, padded);
        let place = operand.spread(self.elements, d);
        let builder = &mut self.elements.builder;
        let before = builder.scaled(line, padded);
        let at = builder.add(before, place);
        let there = builder.below(d, operand.width as i32);
        let last = builder.integer(operand.width as i32 - 1);
        let own = if operand.is_padded() { builder.index(IndexFn::Min, d, last) } else { d };
        let value = match what {
            What::Queries => {
                let (head, query) = self.query(line);
                let x = self.elements.element(self.heads.inputs[0], &[self.batch, head, query, own])?;
                let builder = &mut self.elements.builder;
                let scale = builder.float(SUM, self.heads.op.scale.0);
                builder.binary(BinaryFn::Mul, SUM, x, scale)
            }
            What::Keys(number, stretch) => {
                let source = stretch.sources[number];
                let offset = self.elements.builder.integer(source.offset as i32);
                let key = self.elements.builder.add(line, offset);
                self.elements.element(source.value, &[self.batch, self.group, key, own])?
            }
        };
        let builder = &mut self.elements.builder;
        let zero = builder.float(SUM, 0.0);
        let value = if operand.is_padded() { builder.select(there, value, zero) } else { value };
        Ok(Item { shared, at, value, inside })
    }

    /// Brings queries to the lanes that have the same elements of keys.
    pub(super) fn take_queries(&mut self, shared: SharedId) {
        let operand = self.operands[0];
        let builder = &mut self.elements.builder;
        let i = builder.unrolled("i", (self.shares.rows * operand.held()) as u32);
        let at = builder.scaled(i, operand.lanes as i32);
        let at = builder.add(at, self.lane);
        let x = builder.load_shared(shared, at, "x");
        builder.set_element(self.queries, i, x);
        builder.end();
    }

    /// Has lanes hold new keys and values instead of what they have read where their keys are new, by the numbers of those.
    pub(super) fn take_keys(&mut self, staged: &Staged, numbers: &[(ExprId, ExprId)]) {
        for (number, &(_, read)) in numbers.iter().enumerate() {
            let builder = &mut self.elements.builder;
            let first = builder.integer(staged.first as i32);
            let is_new = builder.index(IndexFn::Ge, read, first);
            builder.when(is_new);
            let line = builder.index(IndexFn::Sub, read, first);
            for operand in self.operands {
                if operand.width == 0 {
                    continue;
                }
                let builder = &mut self.elements.builder;
                let before = builder.scaled(line, operand.padded() as i32);
                let own = builder.add(before, self.lane);
                let i = builder.unrolled("i", operand.held() as u32);
                let further = builder.scaled(i, operand.lanes as i32);
                let at = builder.add(own, further);
                let x = builder.load_shared(staged.shared[operand.number], at, "x");
                let base = builder.integer((number * operand.held()) as i32);
                let to = builder.add(base, i);
                builder.set_element(self.held[operand.number], to, x);
                builder.end();
            }
            self.elements.builder.end();
        }
    }
}
