//! Reductions, extremes, running sums and selection by rank.

use tcc_ir::ops::{ArgFn, ArgReduce, BinaryFn, CumSum, ReduceFn, TopK, UnaryFn};
use tcc_ir::{DType, ValueId};

use super::tables;
use crate::onnx::context::NodeContext;
use crate::onnx::error::LowerError;
use crate::onnx::registry::{Entry, onnx};

pub(super) const FAMILY: &[Entry] = &[
    onnx("ArgMax", |cx| arg_reduce(cx, ArgFn::Max)),
    onnx("ArgMin", |cx| arg_reduce(cx, ArgFn::Min)),
    onnx("CumSum", cum_sum),
    onnx("ReduceL1", |cx| reduce(cx, l1)),
    onnx("ReduceL2", |cx| reduce(cx, l2)),
    onnx("ReduceLogSum", |cx| reduce(cx, log_sum)),
    onnx("ReduceLogSumExp", |cx| reduce(cx, log_sum_exp)),
    onnx("ReduceMax", |cx| reduce(cx, |cx, x, axes| cx.reduce(ReduceFn::Max, x, axes, true))),
    onnx("ReduceMean", |cx| reduce(cx, |cx, x, axes| cx.reduce(ReduceFn::Mean, x, axes, true))),
    onnx("ReduceMin", |cx| reduce(cx, |cx, x, axes| cx.reduce(ReduceFn::Min, x, axes, true))),
    onnx("ReduceProd", |cx| reduce(cx, |cx, x, axes| cx.reduce(ReduceFn::Prod, x, axes, true))),
    onnx("ReduceSum", |cx| reduce(cx, |cx, x, axes| cx.reduce(ReduceFn::Sum, x, axes, true))),
    onnx("ReduceSumSquare", |cx| reduce(cx, sum_square)),
    onnx("TopK", top_k),
];

/// A reduction that keeps reduced axes with extent 1.
type Reduction = fn(&mut NodeContext<'_>, ValueId, &[usize]) -> Result<ValueId, LowerError>;

fn reduce(cx: &mut NodeContext<'_>, reduction: Reduction) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let rank = cx.rank(x);
    // The axes were an attribute before operator set 18 (13 for sums).
    let named = match cx.ints("axes")? {
        Some(axes) => axes.to_vec(),
        None => cx.optional_const_i64s(1)?.unwrap_or_default(),
    };
    let axes = if !named.is_empty() {
        cx.axes(&named, rank)?
    } else if cx.flag("noop_with_empty_axes", false)? {
        Vec::new()
    } else {
        (0..rank).collect()
    };
    let reduced = reduction(cx, x, &axes)?;
    if cx.flag("keepdims", true)? {
        return Ok(vec![reduced]);
    }
    Ok(vec![drop_axes(cx, reduced, &axes)?])
}

fn drop_axes(cx: &mut NodeContext<'_>, x: ValueId, axes: &[usize]) -> Result<ValueId, LowerError> {
    let dims: Vec<usize> =
        cx.shape(x).iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, &dim)| dim).collect();
    cx.reshape(x, &dims)
}

fn l1(cx: &mut NodeContext<'_>, x: ValueId, axes: &[usize]) -> Result<ValueId, LowerError> {
    let sizes = cx.unary(UnaryFn::Abs, x)?;
    cx.reduce(ReduceFn::Sum, sizes, axes, true)
}

fn sum_square(cx: &mut NodeContext<'_>, x: ValueId, axes: &[usize]) -> Result<ValueId, LowerError> {
    let squares = cx.binary(BinaryFn::Mul, x, x)?;
    cx.reduce(ReduceFn::Sum, squares, axes, true)
}

/// Applies a reduction that is only defined on floats; integers go through binary64 and are truncated.
fn in_floats(cx: &mut NodeContext<'_>, x: ValueId, axes: &[usize], reduction: Reduction) -> Result<ValueId, LowerError> {
    let dtype = cx.dtype(x);
    let wide = if dtype.is_float() { x } else { cx.cast(x, DType::F64)? };
    let reduced = reduction(cx, wide, axes)?;
    cx.cast(reduced, dtype)
}

fn l2(cx: &mut NodeContext<'_>, x: ValueId, axes: &[usize]) -> Result<ValueId, LowerError> {
    in_floats(cx, x, axes, |cx, x, axes| {
        let sum = sum_square(cx, x, axes)?;
        cx.unary(UnaryFn::Sqrt, sum)
    })
}

fn log_sum(cx: &mut NodeContext<'_>, x: ValueId, axes: &[usize]) -> Result<ValueId, LowerError> {
    in_floats(cx, x, axes, |cx, x, axes| {
        let sum = cx.reduce(ReduceFn::Sum, x, axes, true)?;
        cx.unary(UnaryFn::Log, sum)
    })
}

fn log_sum_exp(cx: &mut NodeContext<'_>, x: ValueId, axes: &[usize]) -> Result<ValueId, LowerError> {
    in_floats(cx, x, axes, |cx, x, axes| {
        // Shifted by the maximum, so that no exponential overflows; an infinite one would make inf - inf.
        let max = cx.reduce(ReduceFn::Max, x, axes, true)?;
        let infinite = cx.unary(UnaryFn::IsInf, max)?;
        let zero = cx.scalar_like(max, 0.0);
        let shift = cx.select(infinite, zero, max)?;
        let shifted = cx.binary(BinaryFn::Sub, x, shift)?;
        let exp = cx.unary(UnaryFn::Exp, shifted)?;
        let sum = cx.reduce(ReduceFn::Sum, exp, axes, true)?;
        let log = cx.unary(UnaryFn::Log, sum)?;
        cx.binary(BinaryFn::Add, log, shift)
    })
}

fn arg_reduce(cx: &mut NodeContext<'_>, function: ArgFn) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let axis = cx.axis(cx.int_or("axis", 0)?, cx.rank(x))?;
    let select_last = cx.flag("select_last_index", false)?;
    let index = cx.add(ArgReduce { function, axis, select_last }, &[x])?;
    Ok(vec![if cx.flag("keepdims", true)? { index } else { drop_axes(cx, index, &[axis])? }])
}

fn cum_sum(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let axis = cx.axis(tables::const_int(cx, 1)?, cx.rank(x))?;
    let (exclusive, reverse) = (cx.flag("exclusive", false)?, cx.flag("reverse", false)?);
    Ok(vec![cx.add(CumSum { axis, exclusive, reverse }, &[x])?])
}

fn top_k(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let axis = cx.axis(cx.int_or("axis", -1)?, cx.rank(x))?;
    // The count was an attribute before operator set 10.
    let k = match cx.int("k")? {
        Some(k) => k,
        None => tables::const_int(cx, 1)?,
    };
    let largest = cx.flag("largest", true)?;
    let k = tables::counts("k", &[k], 0)?[0];
    cx.add_multi(TopK { axis, k, largest }, &[x])
}
