//! Sums of many integers as trees.
//!
//! Written out, a sum is a chain, each addition waiting for the one before. Integers wrap, so they may be added in any order: what is there
//! first is added first, and what a loop carries last, so that the next iteration waits for one addition alone. (Vitis HLS does
//! the same, UG1399, `expression_balance`; floats are left as they are, since their sums would round otherwise.)
//!
//! Products come to a tree as short chains: each is added to the sum of those before it by the adder of its own DSP slice, which costs
//! nothing, and hands the sum on to the next slice (UG579).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use tcc_ir::ops::BinaryFn;

use super::slices::{is_sum, multiplies};
use super::{Item, Kind, Nest, Op, OpId};
use crate::fpga::widths::Range;

/// Products of a chain: longer ones have many operands wait for their slices.
const CHAIN: usize = 4;

/// When a value is there, to compare: levels of additions. What comes from a value that is carried comes last.
type Arrival = (bool, u32);

/// Makes trees of the sums of a nest, whose operations have these ranges.
pub(super) fn balance(nest: &mut Nest, ranges: &mut Vec<Range>) {
    let uses = uses(nest);
    let mut home = vec![u32::MAX; nest.ops.len()];
    for (number, block) in nest.blocks.iter().enumerate() {
        block.ops.iter().for_each(|id| home[id.index()] = number as u32);
    }
    for number in 0..nest.blocks.len() {
        let ops = std::mem::take(&mut nest.blocks[number].ops);
        let is_own = |id: OpId| home.get(id.index()) == Some(&(number as u32));
        let mut leaves: Vec<Vec<OpId>> = vec![Vec::new(); ops.len()];
        let mut absorbed = std::collections::HashSet::new();
        // From the last on, so that a sum is found before its parts.
        for (place, &root) in ops.iter().enumerate().rev() {
            if absorbed.contains(&root) || !is_sum(nest, root) {
                continue;
            }
            let (mut open, mut own, mut inner) = (vec![root], Vec::new(), Vec::new());
            while let Some(id) = open.pop() {
                for &operand in nest.ops[id.index()].operands.iter().rev() {
                    let is_part = is_own(operand)
                        && uses[operand.index()] == 1
                        && nest.ops[operand.index()].kind == nest.ops[root.index()].kind
                        && nest.ops[operand.index()].copies == nest.ops[root.index()].copies;
                    if is_part {
                        open.push(operand);
                        inner.push(operand);
                    } else {
                        own.push(operand);
                    }
                }
            }
            if own.len() > 2 {
                absorbed.extend(inner);
                leaves[place] = own;
            }
        }
        let mut arrivals: HashMap<OpId, Arrival> = HashMap::new();
        let mut balanced = Vec::with_capacity(ops.len());
        for (place, id) in ops.into_iter().enumerate() {
            if absorbed.contains(&id) {
                continue;
            }
            let own = std::mem::take(&mut leaves[place]);
            if !own.is_empty() {
                tree(nest, ranges, (id, own), &mut arrivals, &mut balanced);
            }
            let op = &nest.ops[id.index()];
            let operands = op.operands.iter().chain(&op.predicate);
            let last = operands.map(|&operand| arrival(nest, operand, &arrivals)).max().unwrap_or_default();
            arrivals.insert(id, (last.0, last.1 + weight(&op.kind)));
            balanced.push(id);
        }
        nest.blocks[number].ops = balanced;
    }
}

/// Replaces a sum by a tree of its parts, of which all but the last addition are new.
fn tree(
    nest: &mut Nest,
    ranges: &mut Vec<Range>,
    (root, leaves): (OpId, Vec<OpId>),
    arrivals: &mut HashMap<OpId, Arrival>,
    block: &mut Vec<OpId>,
) {
    let mut sum = Sum { nest, ranges, root, arrivals, block };
    let mut open: BinaryHeap<Reverse<(Arrival, OpId)>> =
        sum.chained(leaves).into_iter().map(|id| Reverse((arrival(sum.nest, id, sum.arrivals), id))).collect();
    while let (Some(Reverse((_, a))), Some(Reverse((_, b)))) = (open.pop(), open.pop()) {
        if open.is_empty() {
            return sum.finish([a, b]);
        }
        let next = sum.add([a, b]);
        open.push(Reverse((arrival(sum.nest, next, sum.arrivals), next)));
    }
}

/// A sum whose additions are made anew.
struct Sum<'n> {
    nest: &'n mut Nest,
    ranges: &'n mut Vec<Range>,
    root: OpId,
    arrivals: &'n mut HashMap<OpId, Arrival>,
    block: &'n mut Vec<OpId>,
}

impl Sum<'_> {
    fn range(&self, [a, b]: [OpId; 2]) -> Range {
        let limit = match self.nest.ops[self.root.index()].kind {
            Kind::Binary(_, dtype) => Range::of_dtype(dtype),
            _ => Range::TRUTH,
        };
        self.ranges[a.index()].plus(self.ranges[b.index()]).within(limit)
    }

    /// An addition that is not the last.
    fn add(&mut self, operands: [OpId; 2]) -> OpId {
        let range = self.range(operands);
        let root = &self.nest.ops[self.root.index()];
        let (kind, within, most) = (root.kind.clone(), root.within, root.copies);
        let copies = operands.map(|id| self.nest.ops[id.index()].copies);
        let copies = copies[0].max(copies[1]).min(most);
        let id = OpId(self.nest.ops.len() as u32);
        let op = Op { kind, form: range.form(), copies, operands: operands.to_vec(), predicate: None, within };
        self.nest.ops.push(op);
        self.ranges.push(range);
        self.block.push(id);
        let last = operands.map(|id| arrival(self.nest, id, self.arrivals)).into_iter().max().unwrap_or_default();
        self.arrivals.insert(id, (last.0, last.1 + 1));
        id
    }

    /// The last addition.
    fn finish(self, operands: [OpId; 2]) {
        let range = self.range(operands);
        let op = &mut self.nest.ops[self.root.index()];
        (op.operands, op.form) = (operands.to_vec(), range.form());
        self.ranges[self.root.index()] = range;
    }

    /// The parts with chains of products in place of these, from what is known on if something is; two parts are left at least.
    fn chained(&mut self, leaves: Vec<OpId>) -> Vec<OpId> {
        let copies = self.nest.ops[self.root.index()].copies;
        let is_product = |id: &OpId| multiplies(self.nest, *id) && self.nest.ops[id.index()].copies == copies;
        let (products, mut others): (Vec<OpId>, Vec<OpId>) = leaves.into_iter().partition(is_product);
        let known = others.iter().position(|id| matches!(self.nest.ops[id.index()].kind, Kind::Constant(_)));
        let mut first = known.filter(|_| !products.is_empty()).map(|place| others.remove(place));
        // The last addition of all is the root.
        let is_one = others.is_empty() && products.len() <= CHAIN;
        let (products, last) = products.split_at(products.len() - usize::from(is_one));
        for chain in products.chunks(CHAIN) {
            let mut chain = chain.iter().copied();
            let start = first.take().or_else(|| chain.next());
            others.extend(start.map(|start| chain.fold(start, |sum, product| self.add([sum, product]))));
        }
        others.extend(first.into_iter().chain(last.iter().copied()));
        others
    }
}

fn arrival(nest: &Nest, id: OpId, arrivals: &HashMap<OpId, Arrival>) -> Arrival {
    let is_carried = matches!(nest.ops[id.index()].kind, Kind::Carried(_));
    arrivals.get(&id).copied().unwrap_or((is_carried, 0))
}

/// Levels of additions that an operation is as long as, roughly: only which of two values is there first follows from it.
fn weight(kind: &Kind) -> u32 {
    match kind {
        Kind::Constant(_) | Kind::Counter(_) | Kind::Carried(_) | Kind::Left(_) => 0,
        Kind::Index(_) | Kind::Select => 1,
        Kind::Unary(_, dtype) | Kind::Binary(_, dtype) | Kind::MulAdd(dtype) if dtype.is_float() => 12,
        Kind::Binary(BinaryFn::Mul, _) | Kind::MulAdd(_) => 8,
        Kind::Unary(..) | Kind::Binary(..) => 1,
        Kind::Convert(from, to) => {
            if from.is_float() || to.is_float() {
                8
            } else {
                0
            }
        }
        Kind::Fold { width, .. } => 4 * width.ilog2(),
        Kind::Load(..) | Kind::Store(..) => 4,
    }
}

/// How often each value is used.
pub(super) fn uses(nest: &Nest) -> Vec<u32> {
    let mut uses = vec![0; nest.ops.len()];
    let in_ops = nest.blocks.iter().flat_map(|block| &block.ops).flat_map(|id| {
        let op = &nest.ops[id.index()];
        op.operands.iter().chain(&op.predicate)
    });
    let carried = nest.loops.iter().flat_map(|own| own.carried.iter().flat_map(|own| [&own.initial, &own.next]));
    in_ops.chain(carried).for_each(|id| uses[id.index()] += 1);
    nest.reached.values().flatten().for_each(|&(id, _)| uses[id.index()] += 1);
    conditions(nest, &nest.body, &mut uses);
    uses
}

fn conditions(nest: &Nest, items: &[Item], uses: &mut [u32]) {
    for item in items {
        match item {
            Item::Block(_) => {}
            Item::Loop(id) => conditions(nest, &nest.loops[id.index()].body, uses),
            Item::Branch { condition, then, otherwise } => {
                uses[condition.index()] += 1;
                conditions(nest, then, uses);
                conditions(nest, otherwise, uses);
            }
        }
    }
}
