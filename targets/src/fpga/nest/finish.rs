//! What is left of a nest: without what nobody needs, with perfectly nested loops as one.

use std::collections::{BTreeSet, HashMap};

use super::balance::balance;
use super::slices::slices;
use super::values::Values;
use super::{ArrayId, ArrayPlace, Block, BlockId, Item, Kind, Loop, LoopId, Nest, Op, OpId, Stream};
use crate::fpga::access::{Linear, Pattern};
use crate::fpga::schedule::is_shared;

/// Accesses that a bank of a memory on the part takes in a cycle.
const PORTS: usize = 2;

/// What has ports of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Ported {
    /// A memory of the function.
    Local(ArrayId),
    /// A memory of the design.
    Shared(ArrayPlace),
}

/// What was gone through, and is put in order.
pub(super) struct Finish {
    pub nest: Nest,
    /// Where external accesses go, in words or elements as their operand does.
    pub reached: HashMap<OpId, Linear>,
    pub same_as: HashMap<OpId, OpId>,
}

impl Finish {
    /// Puts a nest in order.
    ///
    /// # Errors
    /// In words, why something does not come in order that should.
    pub fn run(mut self, values: &mut Values) -> Result<Nest, String> {
        self.rename();
        self.drop_dead();
        let mut body = std::mem::take(&mut self.nest.body);
        self.flatten(&mut body);
        self.pop(&body, values)?;
        self.stream(&mut body, None, values);
        self.nest.body = body;
        self.drop_dead();
        balance(&mut self.nest, &mut values.ranges);
        self.number();
        self.nest.slices = slices(&self.nest);
        Ok(self.nest)
    }

    fn resolved(&self, mut id: OpId) -> OpId {
        while let Some(&other) = self.same_as.get(&id) {
            id = other;
        }
        id
    }

    /// Has values that are others replaced by them.
    fn rename(&mut self) {
        if self.same_as.is_empty() {
            return;
        }
        for index in 0..self.nest.ops.len() {
            let mut op = std::mem::take(&mut self.nest.ops[index].operands);
            op.iter_mut().for_each(|id| *id = self.resolved(*id));
            self.nest.ops[index].operands = op;
            self.nest.ops[index].predicate = self.nest.ops[index].predicate.map(|id| self.resolved(id));
        }
        for index in 0..self.nest.loops.len() {
            let mut carried = std::mem::take(&mut self.nest.loops[index].carried);
            for own in &mut carried {
                (own.initial, own.next) = (self.resolved(own.initial), self.resolved(own.next));
            }
            self.nest.loops[index].carried = carried;
        }
        let mut body = std::mem::take(&mut self.nest.body);
        self.rename_items(&mut body);
        self.nest.body = body;
        for linear in self.reached.values_mut() {
            for term in &mut linear.terms {
                while let Some(&other) = self.same_as.get(&term.0) {
                    term.0 = other;
                }
            }
        }
    }

    fn rename_items(&mut self, items: &mut [Item]) {
        for item in items {
            match item {
                Item::Block(_) => {}
                Item::Loop(id) => {
                    let id = *id;
                    let mut body = std::mem::take(&mut self.nest.loops[id.index()].body);
                    self.rename_items(&mut body);
                    self.nest.loops[id.index()].body = body;
                }
                Item::Branch { condition, then, otherwise } => {
                    *condition = self.resolved(*condition);
                    self.rename_items(then);
                    self.rename_items(otherwise);
                }
            }
        }
    }

    /// Removes what no write follows from.
    fn drop_dead(&mut self) {
        let mut live = vec![false; self.nest.ops.len()];
        let carried: HashMap<OpId, [OpId; 2]> =
            self.nest.loops.iter().flat_map(|own| &own.carried).map(|own| (own.op, [own.initial, own.next])).collect();
        let stores = self.nest.ops.iter().enumerate().filter(|(_, op)| matches!(op.kind, Kind::Store(..)));
        let mut open: Vec<OpId> = stores.map(|(index, _)| OpId(index as u32)).collect();
        let mut body = std::mem::take(&mut self.nest.body);
        self.conditions(&body, &mut open);
        while let Some(id) = open.pop() {
            if std::mem::replace(&mut live[id.index()], true) {
                continue;
            }
            let op = &self.nest.ops[id.index()];
            open.extend(op.operands.iter().copied().chain(op.predicate));
            open.extend(carried.get(&id).into_iter().flatten().copied());
        }
        for own in &mut self.nest.loops {
            own.carried.retain(|carried| live[carried.op.index()]);
        }
        for block in &mut self.nest.blocks {
            block.ops.retain(|id| live[id.index()]);
        }
        self.drop_empty(&mut body);
        self.nest.body = body;
        self.nest.streams.retain(|stream| live[stream.op.index()]);
    }

    fn conditions(&self, items: &[Item], found: &mut Vec<OpId>) {
        for item in items {
            match item {
                Item::Block(_) => {}
                Item::Loop(id) => self.conditions(&self.nest.loops[id.index()].body, found),
                Item::Branch { condition, then, otherwise } => {
                    found.push(*condition);
                    self.conditions(then, found);
                    self.conditions(otherwise, found);
                }
            }
        }
    }

    fn drop_empty(&mut self, items: &mut Vec<Item>) {
        let all = std::mem::take(items);
        for mut item in all {
            let is_there = match &mut item {
                Item::Block(id) => !self.nest.blocks[id.index()].ops.is_empty(),
                Item::Loop(id) => {
                    let id = *id;
                    let mut body = std::mem::take(&mut self.nest.loops[id.index()].body);
                    self.drop_empty(&mut body);
                    self.nest.loops[id.index()].body = body;
                    !self.nest.loops[id.index()].body.is_empty() || !self.nest.loops[id.index()].carried.is_empty()
                }
                Item::Branch { then, otherwise, .. } => {
                    self.drop_empty(then);
                    self.drop_empty(otherwise);
                    !then.is_empty() || !otherwise.is_empty()
                }
            };
            if is_there {
                items.push(item);
            }
        }
    }

    /// Has innermost loops pipelined, and perfectly nested ones as one.
    fn flatten(&mut self, items: &mut [Item]) {
        for item in items {
            match item {
                Item::Block(_) => {}
                Item::Branch { then, otherwise, .. } => {
                    self.flatten(then);
                    self.flatten(otherwise);
                }
                Item::Loop(id) => {
                    let id = *id;
                    let mut body = std::mem::take(&mut self.nest.loops[id.index()].body);
                    self.flatten(&mut body);
                    self.nest.loops[id.index()].body = body;
                    self.merge(id);
                    let own = &mut self.nest.loops[id.index()];
                    own.pipelined = match own.body[..] {
                        [] => {
                            let block = BlockId(self.nest.blocks.len() as u32);
                            self.nest.blocks.push(Block::default());
                            own.body.push(Item::Block(block));
                            true
                        }
                        [Item::Block(_)] => true,
                        _ => false,
                    };
                }
            }
        }
    }

    /// Makes one of a loop and what is perfectly nested in it: there is nothing else in it but what each iteration can do again, which
    /// is arithmetic of indices, what takes little to build, and reading memories whose ports are free.
    fn merge(&mut self, id: LoopId) {
        let (before, inner) = match self.nest.loops[id.index()].body[..] {
            [Item::Loop(inner)] => (None, inner),
            [Item::Block(before), Item::Loop(inner)] => (Some(before), inner),
            _ => return,
        };
        let plain = before.is_none_or(|block| self.can_be_done_again(block, inner));
        let (own, within) = (&self.nest.loops[id.index()], &self.nest.loops[inner.index()]);
        if !plain || !within.pipelined || !own.carried.is_empty() || !within.carried.is_empty() {
            return;
        }
        let within = std::mem::replace(&mut self.nest.loops[inner.index()], empty());
        if let ([Item::Block(block)], Some(before)) = (&within.body[..], before) {
            let mut ops = std::mem::take(&mut self.nest.blocks[before.index()].ops);
            ops.append(&mut self.nest.blocks[block.index()].ops);
            self.nest.blocks[block.index()].ops = ops;
        }
        if let [Item::Block(block)] = within.body[..] {
            for index in 0..self.nest.blocks[block.index()].ops.len() {
                let op = self.nest.blocks[block.index()].ops[index];
                self.nest.ops[op.index()].within = Some(id);
            }
        }
        for counter in &within.counters {
            let op = &mut self.nest.ops[counter.op.index()];
            (op.kind, op.within) = (Kind::Counter(id), Some(id));
        }
        let own = &mut self.nest.loops[id.index()];
        own.name = format!("{}_{}", own.name, within.name);
        own.counters.extend(within.counters);
        own.body = within.body;
    }

    /// Whether what stands before a loop can be done in each of its iterations, so that none takes longer.
    fn can_be_done_again(&self, before: BlockId, within: LoopId) -> bool {
        let ops = |block: BlockId| self.nest.blocks[block.index()].ops.iter().map(|id| &self.nest.ops[id.index()]);
        let [Item::Block(own)] = self.nest.loops[within.index()].body[..] else { return false };
        // Words of all banks of a memory, as if each were in the way of all others; what is in one word comes together.
        let mut words: HashMap<Ported, BTreeSet<(OpId, i64)>> = HashMap::new();
        let mut add = |op: &Op| {
            let (Kind::Load(array, ref pattern) | Kind::Store(array, ref pattern)) = op.kind else { return 0 };
            let own = words.entry(match self.nest.arrays[array.index()].place {
                ArrayPlace::Local => Ported::Local(array),
                place => Ported::Shared(place),
            });
            let own = own.or_default();
            match pattern {
                Pattern::Fixed(places) => own.extend(places.iter().map(|place| (op.operands[0], place.word))),
                _ => {
                    let number = own.len() as i64;
                    own.insert((op.operands[0], i64::MIN + number));
                }
            }
            own.len()
        };
        ops(own).for_each(|op| {
            add(op);
        });
        ops(before).all(|op| match op.kind {
            Kind::Index(_) => true,
            Kind::Load(array, ref pattern) => {
                let place = self.nest.arrays[array.index()].place;
                let is_outside = matches!(place, ArrayPlace::External { .. } | ArrayPlace::Loaded { .. });
                !is_outside && *pattern != Pattern::Scattered && add(op) <= PORTS
            }
            // What is built for each operation anyway.
            Kind::Binary(..) | Kind::Convert(..) | Kind::Select => !is_shared(self.nest.class(op)),
            _ => false,
        })
    }

    /// Finds accesses to external memory whose addresses follow from counters, and says where they begin.
    fn stream(&mut self, items: &mut Vec<Item>, within: Option<LoopId>, values: &mut Values) {
        let all = std::mem::take(items);
        for mut item in all {
            match &mut item {
                Item::Block(_) => {}
                Item::Branch { then, otherwise, .. } => {
                    self.stream(then, within, values);
                    self.stream(otherwise, within, values);
                }
                Item::Loop(id) => {
                    let id = *id;
                    if self.nest.loops[id.index()].pipelined {
                        let starts = self.starts(id, within, values);
                        if !starts.is_empty() {
                            if !matches!(items.last(), Some(Item::Block(_))) {
                                let block = BlockId(self.nest.blocks.len() as u32);
                                self.nest.blocks.push(Block::default());
                                items.push(Item::Block(block));
                            }
                            if let Some(Item::Block(block)) = items.last() {
                                self.nest.blocks[block.index()].ops.extend(starts);
                            }
                        }
                    } else {
                        let mut body = std::mem::take(&mut self.nest.loops[id.index()].body);
                        self.stream(&mut body, Some(id), values);
                        self.nest.loops[id.index()].body = body;
                    }
                }
            }
            items.push(item);
        }
    }

    /// Turns accesses of a pipelined loop into streams, and returns what computes where they begin.
    fn starts(&mut self, id: LoopId, within: Option<LoopId>, values: &mut Values) -> Vec<OpId> {
        let own = self.nest.loops[id.index()].clone();
        let [Item::Block(block)] = own.body[..] else { return Vec::new() };
        let ops = self.nest.blocks[block.index()].ops.clone();
        let inside: HashMap<OpId, ()> = ops.iter().map(|&op| (op, ())).collect();
        let carried: HashMap<OpId, ()> = own.carried.iter().map(|carried| (carried.op, ())).collect();
        let outside = self.nest.ops.get(own.counters[0].op.index()).and_then(|op| op.within);
        debug_assert_eq!(outside, Some(id));
        let mut added = Vec::new();
        for op in ops {
            let (Kind::Load(array, pattern) | Kind::Store(array, pattern)) = &self.nest.ops[op.index()].kind else {
                continue;
            };
            let is_external = matches!(self.nest.arrays[array.index()].place, ArrayPlace::External { .. });
            if !is_external || *pattern == Pattern::Scattered {
                continue;
            }
            let Some(linear) = self.reached.get(&op) else { continue };
            let varies = |term: &OpId| inside.contains_key(term) || carried.contains_key(term);
            if linear.terms.iter().any(|(term, _)| varies(term)) {
                continue;
            }
            let stride =
                |counter: OpId| linear.terms.iter().find(|(term, _)| *term == counter).map_or(0, |&(_, by)| by);
            let strides: Vec<i64> = own.counters.iter().map(|counter| stride(counter.op)).collect();
            let is_counter = |term: OpId| own.counters.iter().any(|counter| counter.op == term);
            let rest: Vec<(OpId, i64)> = linear.terms.iter().copied().filter(|&(term, _)| !is_counter(term)).collect();
            let start = self.sum(&rest, &mut added, values, within);
            self.nest.ops[op.index()].operands[0] = start;
            self.nest.streams.push(Stream { op, within: id, strides });
        }
        added
    }

    /// Computes a sum before a loop.
    fn sum(
        &mut self,
        terms: &[(OpId, i64)],
        added: &mut Vec<OpId>,
        values: &mut Values,
        within: Option<LoopId>,
    ) -> OpId {
        let mut sum: Option<OpId> = None;
        for &(term, by) in terms {
            let factor = values.integer(by);
            let term = if by == 1 {
                term
            } else {
                self.found(crate::kernel::IndexFn::Mul, [term, factor], added, values, within)
            };
            sum = Some(match sum {
                None => term,
                Some(sum) => self.found(crate::kernel::IndexFn::Add, [sum, term], added, values, within),
            });
        }
        let start = sum.unwrap_or_else(|| values.integer(0));
        self.adopt(values);
        start
    }

    fn found(
        &mut self,
        function: crate::kernel::IndexFn,
        operands: [OpId; 2],
        added: &mut Vec<OpId>,
        values: &mut Values,
        within: Option<LoopId>,
    ) -> OpId {
        self.adopt(values);
        let is_same = |&id: &OpId| {
            let op = &self.nest.ops[id.index()];
            op.kind == Kind::Index(function) && op.operands == operands
        };
        if let Some(&known) = added.iter().find(|id| is_same(id)) {
            return known;
        }
        let range = crate::fpga::widths::Range::index(function, values.range(operands[0]), values.range(operands[1]));
        let id = values.loose(Kind::Index(function), range, operands.to_vec(), within);
        self.adopt(values);
        added.push(id);
        id
    }

    /// Takes over operations that were made meanwhile.
    pub(super) fn adopt(&mut self, values: &mut Values) {
        let known = self.nest.ops.len();
        self.nest.ops.extend(values.ops[known..].iter().cloned());
    }

    /// Numbers what is left anew, in the order in which it is there.
    fn number(&mut self) {
        let mut blocks = Vec::new();
        let mut loops: Vec<Loop> = Vec::new();
        let mut body = std::mem::take(&mut self.nest.body);
        let mut renamed: HashMap<LoopId, LoopId> = HashMap::new();
        let mut order = Order { found: Vec::new(), is_there: vec![false; self.nest.ops.len()] };
        self.number_items(&mut body, (&mut blocks, &mut loops), &mut renamed, &mut order);
        self.nest.body = body;
        let Order { found, is_there: live } = order;
        let mut numbers = vec![OpId(0); self.nest.ops.len()];
        let mut ops = Vec::with_capacity(found.len());
        for id in found {
            numbers[id.index()] = OpId(ops.len() as u32);
            ops.push(self.nest.ops[id.index()].clone());
        }
        let of = |id: OpId| numbers[id.index()];
        for op in &mut ops {
            op.operands.iter_mut().chain(&mut op.predicate).for_each(|id| *id = of(*id));
            op.within = op.within.and_then(|id| renamed.get(&id).copied());
            if let Kind::Counter(id) | Kind::Carried(id) | Kind::Left(id) = &mut op.kind
                && let Some(&new) = renamed.get(id)
            {
                *id = new;
            }
        }
        blocks.iter_mut().flat_map(|block| &mut block.ops).for_each(|id| *id = of(*id));
        for own in &mut loops {
            own.counters.iter_mut().for_each(|counter| counter.op = of(counter.op));
            for carried in &mut own.carried {
                carried.op = of(carried.op);
                carried.initial = of(carried.initial);
                carried.next = of(carried.next);
            }
        }
        for own in &mut loops {
            rename_conditions(&mut own.body, &of);
        }
        rename_conditions(&mut self.nest.body, &of);
        for pop in &mut self.nest.pops {
            pop.within = renamed.get(&pop.within).copied().unwrap_or(pop.within);
        }
        for stream in &mut self.nest.streams {
            stream.op = of(stream.op);
            stream.within = renamed.get(&stream.within).copied().unwrap_or(stream.within);
        }
        for (id, linear) in &self.reached {
            if live[id.index()] && linear.terms.iter().all(|(term, _)| live[term.index()]) {
                let terms = linear.terms.iter().map(|&(term, by)| (of(term), by)).collect();
                self.nest.reached.insert(of(*id), terms);
            }
        }
        (self.nest.ops, self.nest.blocks, self.nest.loops) = (ops, blocks, loops);
    }

    fn number_items(
        &mut self,
        items: &mut [Item],
        (blocks, loops): (&mut Vec<Block>, &mut Vec<Loop>),
        renamed: &mut HashMap<LoopId, LoopId>,
        order: &mut Order,
    ) {
        for item in items {
            match item {
                Item::Block(id) => {
                    let block = std::mem::take(&mut self.nest.blocks[id.index()]);
                    for &own in &block.ops {
                        let op = &self.nest.ops[own.index()];
                        op.operands.iter().chain(&op.predicate).for_each(|&operand| self.give(operand, order));
                        order.put(own);
                    }
                    *id = BlockId(blocks.len() as u32);
                    blocks.push(block);
                }
                Item::Loop(id) => {
                    let mut own = std::mem::replace(&mut self.nest.loops[id.index()], empty());
                    let new = LoopId(loops.len() as u32);
                    renamed.insert(*id, new);
                    *id = new;
                    loops.push(empty());
                    own.carried.iter().for_each(|carried| self.give(carried.initial, order));
                    own.counters.iter().for_each(|counter| order.put(counter.op));
                    own.carried.iter().for_each(|carried| order.put(carried.op));
                    self.number_items(&mut own.body, (&mut *blocks, &mut *loops), renamed, order);
                    own.carried.iter().for_each(|carried| self.give(carried.next, order));
                    loops[new.index()] = own;
                }
                Item::Branch { condition, then, otherwise } => {
                    self.give(*condition, order);
                    self.number_items(then, (&mut *blocks, &mut *loops), renamed, order);
                    self.number_items(otherwise, (&mut *blocks, &mut *loops), renamed, order);
                }
            }
        }
    }

    /// Puts what is in no block where it is first used.
    fn give(&self, id: OpId, order: &mut Order) {
        if !order.is_there[id.index()] {
            self.nest.ops[id.index()].operands.iter().for_each(|&operand| order.put(operand));
            order.put(id);
        }
    }
}

/// Operations in the order in which they are there.
struct Order {
    found: Vec<OpId>,
    is_there: Vec<bool>,
}

impl Order {
    fn put(&mut self, id: OpId) {
        if !std::mem::replace(&mut self.is_there[id.index()], true) {
            self.found.push(id);
        }
    }
}

fn rename_conditions(items: &mut [Item], of: &impl Fn(OpId) -> OpId) {
    for item in items {
        if let Item::Branch { condition, then, otherwise } = item {
            *condition = of(*condition);
            rename_conditions(then, of);
            rename_conditions(otherwise, of);
        }
    }
}

fn empty() -> Loop {
    Loop { name: String::new(), counters: Vec::new(), carried: Vec::new(), body: Vec::new(), pipelined: false }
}
