//! Sums of many integers as trees.
//!
//! Written out, a sum is a chain, each addition waiting for the one before. Integers wrap, so they may be added in any order: what is there
//! first is added first, and what a loop carries last, so that the next iteration waits for one addition alone. (Vitis HLS does
//! the same, UG1399, `expression_balance`; floats are left as they are, since their sums would round otherwise.)

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tcc_ir::ops::BinaryFn;

use super::{Form, Item, Kind, Nest, Op, OpId};
use crate::fpga::widths::Range;

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
        let mut arrivals: std::collections::HashMap<OpId, Arrival> = std::collections::HashMap::new();
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
    arrivals: &mut std::collections::HashMap<OpId, Arrival>,
    block: &mut Vec<OpId>,
) {
    let (kind, copies, within) = {
        let op = &nest.ops[root.index()];
        (op.kind.clone(), op.copies, op.within)
    };
    let Kind::Binary(_, dtype) = kind else { return };
    let limit = Range::of_dtype(dtype);
    let mut open: BinaryHeap<Reverse<(Arrival, OpId)>> =
        leaves.into_iter().map(|id| Reverse((arrival(nest, id, arrivals), id))).collect();
    while let (Some(Reverse((_, a))), Some(Reverse((last, b)))) = (open.pop(), open.pop()) {
        let range = ranges[a.index()].plus(ranges[b.index()]).within(limit);
        if open.is_empty() {
            let op = &mut nest.ops[root.index()];
            (op.operands, op.form) = (vec![a, b], range.form());
            ranges[root.index()] = range;
            return;
        }
        let own = nest.ops[a.index()].copies.max(nest.ops[b.index()].copies).min(copies);
        let op =
            Op { kind: kind.clone(), form: range.form(), copies: own, operands: vec![a, b], predicate: None, within };
        let id = OpId(nest.ops.len() as u32);
        nest.ops.push(op);
        ranges.push(range);
        block.push(id);
        let there = (last.0, last.1 + 1);
        arrivals.insert(id, there);
        open.push(Reverse((there, id)));
    }
}

/// Whether it is a sum of integers.
fn is_sum(nest: &Nest, id: OpId) -> bool {
    let op = &nest.ops[id.index()];
    matches!(op.kind, Kind::Binary(BinaryFn::Add, dtype) if !dtype.is_float())
        && matches!(op.form, Form::Integer { .. })
}

fn arrival(nest: &Nest, id: OpId, arrivals: &std::collections::HashMap<OpId, Arrival>) -> Arrival {
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
fn uses(nest: &Nest) -> Vec<u32> {
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
