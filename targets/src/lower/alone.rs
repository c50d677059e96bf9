//! Operators with a kernel of their own: order, running sums, scattering. Each thread looks for what its element is, so that none
//! waits for another.

use tcc_ir::ops::{ArgFn, ArgReduce, BinaryFn, CumSum, ScatterNd, ScatterReduction, TopK, UnaryFn};
use tcc_ir::{DType, Node, NodeId, Op, ValueId};

use super::Written;
use super::each;
use super::elements::{Coords, Elements, defect};
use crate::kernel::{ExprId, IndexFn, Scalar};
use crate::target::TargetError;

/// Writes the kernel of a node.
pub(crate) fn write(elements: &mut Elements<'_>, id: NodeId, outputs: &[ValueId]) -> Result<Written, TargetError> {
    let node = elements.graph().node(id).clone();
    match &node.op {
        Op::ArgReduce(op) => arg_reduce(elements, &node, *op),
        Op::CumSum(op) => cum_sum(elements, &node, *op),
        Op::ScatterNd(op) => scatter(elements, &node, *op),
        Op::TopK(op) => top_k(elements, &node, *op, outputs),
        op => Err(defect(&format!("`{}` has no kernel of its own", op.name()))),
    }
}

/// Whether a comes before b where the greatest is first: not a number comes before all.
fn precedes(elements: &mut Elements<'_>, dtype: DType, largest: bool, a: ExprId, b: ExprId) -> ExprId {
    let builder = &mut elements.builder;
    let function = if largest { BinaryFn::Gt } else { BinaryFn::Lt };
    let compared = builder.binary(function, dtype, a, b);
    if !dtype.is_float() {
        return compared;
    }
    let [a_nan, b_nan] = [a, b].map(|x| builder.unary(UnaryFn::IsNan, dtype, x));
    let zero = builder.integer(0);
    let (first, second) = if largest { (a_nan, b_nan) } else { (b_nan, a_nan) };
    let second = builder.index(IndexFn::Eq, second, zero);
    let only_first = builder.index(IndexFn::And, first, second);
    builder.index(IndexFn::Or, compared, only_first)
}

/// Whether neither of two comes before the other.
fn are_equal(elements: &mut Elements<'_>, dtype: DType, a: ExprId, b: ExprId) -> ExprId {
    let builder = &mut elements.builder;
    let equal = builder.binary(BinaryFn::Eq, dtype, a, b);
    if !dtype.is_float() {
        return equal;
    }
    let [a_nan, b_nan] = [a, b].map(|x| builder.unary(UnaryFn::IsNan, dtype, x));
    let both = builder.index(IndexFn::And, a_nan, b_nan);
    builder.index(IndexFn::Or, equal, both)
}

fn arg_reduce(elements: &mut Elements<'_>, node: &Node, op: ArgReduce) -> Result<Written, TargetError> {
    let graph = elements.graph();
    let (x, y) = (node.inputs[0], node.output());
    let (dtype, extent, shape) = (graph.ty(x).dtype, graph.shape(x)[op.axis], graph.shape(y).clone());
    each(elements, shape.count(), |elements, index| {
        let coords = elements.walk(&shape, index);
        let zero = elements.builder.integer(0);
        let first = elements.element(x, &coords)?;
        let best = elements.builder.declare("best", Scalar::of(dtype), first);
        let place = elements.builder.declare("place", Scalar::I32, zero);
        let (from, to) = (elements.builder.integer(1), elements.builder.integer(extent as i32));
        let i = elements.builder.loop_over("i", from, to, 1);
        elements.open();
        let mut at = coords.clone();
        at[op.axis] = i;
        let element = elements.element(x, &at)?;
        let so_far = elements.builder.get(best);
        let largest = op.function == ArgFn::Max;
        let mut better = precedes(elements, dtype, largest, element, so_far);
        if op.select_last {
            let equal = are_equal(elements, dtype, element, so_far);
            better = elements.builder.index(IndexFn::Or, better, equal);
        }
        elements.builder.when(better);
        elements.builder.set(best, element);
        elements.builder.set(place, i);
        elements.builder.end();
        elements.close();
        let place = elements.builder.get(place);
        let wide = elements.builder.convert(DType::I32, DType::I64, place);
        elements.write(y, &coords, wide);
        Ok(())
    })
}

fn cum_sum(elements: &mut Elements<'_>, node: &Node, op: CumSum) -> Result<Written, TargetError> {
    let graph = elements.graph();
    let (x, y) = (node.inputs[0], node.output());
    let (dtype, shape) = (graph.ty(x).dtype, graph.shape(y).clone());
    // Sums of narrower floats are carried in binary64.
    let carried = if dtype.is_float() { DType::F64 } else { dtype };
    each(elements, shape.count(), |elements, index| {
        let coords = elements.walk(&shape, index);
        let builder = &mut elements.builder;
        let start = if carried.is_float() { builder.float(carried, 0.0) } else { builder.number(carried, 0) };
        let sum = builder.declare("sum", Scalar::of(carried), start);
        let (zero, one) = (builder.integer(0), builder.integer(1));
        let end = builder.integer(shape[op.axis] as i32);
        let own = coords[op.axis];
        let after = builder.add(own, one);
        let (from, to) = match (op.reverse, op.exclusive) {
            (false, false) => (zero, after),
            (false, true) => (zero, own),
            (true, false) => (own, end),
            (true, true) => (after, end),
        };
        let i = builder.loop_over("i", from, to, 1);
        elements.open();
        let mut at = coords.clone();
        // From the end the last comes first.
        at[op.axis] = if op.reverse {
            let distance = elements.builder.index(IndexFn::Sub, i, from);
            let last = elements.builder.index(IndexFn::Sub, end, one);
            elements.builder.index(IndexFn::Sub, last, distance)
        } else {
            i
        };
        let element = elements.element(x, &at)?;
        let wide = elements.builder.convert(dtype, carried, element);
        let so_far = elements.builder.get(sum);
        let next = elements.builder.binary(BinaryFn::Add, carried, so_far, wide);
        elements.builder.set(sum, next);
        elements.close();
        let sum = elements.builder.get(sum);
        let sum = elements.builder.convert(carried, dtype, sum);
        elements.write(y, &coords, sum);
        Ok(())
    })
}

/// Each element looks for the updates that fall on it, in their order.
fn scatter(elements: &mut Elements<'_>, node: &Node, op: ScatterNd) -> Result<Written, TargetError> {
    let graph = elements.graph();
    let [data, indices, updates] = [node.inputs[0], node.inputs[1], node.inputs[2]];
    let y = node.output();
    let (dtype, shape) = (graph.ty(data).dtype, graph.shape(y).clone());
    let index_type = graph.ty(indices).dtype;
    let tuples = graph.shape(indices).clone();
    let count = tuples.count();
    each(elements, shape.count(), |elements, index| {
        let coords = elements.walk(&shape, index);
        let element = elements.element(data, &coords)?;
        let result = elements.builder.declare("result", Scalar::of(dtype), element);
        let (zero, end) = (elements.builder.integer(0), elements.builder.integer(count as i32));
        let update = elements.builder.loop_over("update", zero, end, 1);
        elements.open();
        let mut at = elements.coords_of(&tuples, update);
        let named = elements.element(indices, &at)?;
        let position = elements.counted(named, index_type, shape[0]);
        let hits = elements.builder.index(IndexFn::Eq, position, coords[0]);
        elements.builder.when(hits);
        elements.open();
        // The last axis of the indices holds their depth of 1.
        at.pop();
        let at: Coords = at.into_iter().chain(coords[1..].iter().copied()).collect();
        let new = elements.element(updates, &at)?;
        let old = elements.builder.get(result);
        let function = match op.reduction {
            ScatterReduction::Replace => None,
            ScatterReduction::Add => Some(BinaryFn::Add),
            ScatterReduction::Mul => Some(BinaryFn::Mul),
            ScatterReduction::Max => Some(BinaryFn::Max),
            ScatterReduction::Min => Some(BinaryFn::Min),
        };
        let next = function.map_or(new, |function| elements.builder.binary(function, dtype, old, new));
        elements.builder.set(result, next);
        elements.close();
        elements.close();
        let result = elements.builder.get(result);
        elements.write(y, &coords, result);
        Ok(())
    })
}

/// Each element finds out how many come before it, and goes there.
fn top_k(elements: &mut Elements<'_>, node: &Node, op: TopK, outputs: &[ValueId]) -> Result<Written, TargetError> {
    let graph = elements.graph();
    let x = node.inputs[0];
    let (dtype, shape) = (graph.ty(x).dtype, graph.shape(x).clone());
    each(elements, shape.count(), |elements, index| {
        let coords = elements.walk(&shape, index);
        let own = elements.element(x, &coords)?;
        let (zero, end) = (elements.builder.integer(0), elements.builder.integer(shape[op.axis] as i32));
        let rank = elements.builder.declare("rank", Scalar::I32, zero);
        let i = elements.builder.loop_over("i", zero, end, 1);
        elements.open();
        let mut at = coords.clone();
        at[op.axis] = i;
        let other = elements.element(x, &at)?;
        let before = precedes(elements, dtype, op.largest, other, own);
        let equal = are_equal(elements, dtype, other, own);
        let lower = elements.builder.index(IndexFn::Lt, i, coords[op.axis]);
        let first = elements.builder.index(IndexFn::And, equal, lower);
        let counts = elements.builder.index(IndexFn::Or, before, first);
        let so_far = elements.builder.get(rank);
        let next = elements.builder.add(so_far, counts);
        elements.builder.set(rank, next);
        elements.close();
        let rank = elements.builder.get(rank);
        let kept = elements.builder.below(rank, op.k as i32);
        elements.builder.when(kept);
        elements.open();
        let mut to = coords.clone();
        to[op.axis] = rank;
        for (&value, is_index) in node.outputs.iter().zip([false, true]) {
            if outputs.contains(&value) {
                let place = coords[op.axis];
                let written = if is_index { elements.builder.convert(DType::I32, DType::I64, place) } else { own };
                elements.write(value, &to, written);
            }
        }
        elements.close();
        Ok(())
    })
}
