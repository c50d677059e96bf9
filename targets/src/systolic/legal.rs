//! What the machine computes as it is, and what is written in other terms first.

use tcc_ir::ops::{Binary, BinaryFn, MatMul, Unary, UnaryFn};
use tcc_ir::{DType, Graph, GraphError, Op, ValueId};
use tcc_passes::{Verdict, WeightProducts, integer_products};

use super::lower::{attention_supported, rope_supported};
use super::machine::Array;
use crate::machine::Machine;
use crate::products::{drop_zeros, is_zero, multiply_in_binary32, widen};
use crate::target::TargetError;

/// Whether the array multiplies floats, of which binary32 is the most precise.
pub(super) fn multiplies_floats(array: &Array) -> bool {
    array.multiplies(DType::F32, DType::F32)
}

/// Fails for a model whose weights are floats on a machine whose array multiplies none: every product with weights would
/// go to the vector unit. Where some of them are of integers, as in a model that was exported so, the model is as its maker
/// wants it, and the vector unit computes the rest.
pub(super) fn check(machine: &Machine, array: &Array, graph: &Graph) -> Result<(), TargetError> {
    if multiplies_floats(array) {
        return Ok(());
    }
    let WeightProducts { integer, float } = WeightProducts::of(&*integer_products(graph)?);
    match float.first() {
        Some(first) if integer == 0 => {
            Err(TargetError::Floats { machine: machine.name.clone(), products: float.len(), origin: first.to_string() })
        }
        _ => Ok(()),
    }
}

/// What judges operators with their operands for the optimiser: what one kernel computes row by row stays whole until
/// kernels are chosen.
pub(super) fn judge_composite(array: &Array) -> impl Fn(&Graph, &Op, &[ValueId]) -> Verdict + Sync + '_ {
    |graph, op, inputs| match op {
        Op::Softmax(_) | Op::LayerNorm(_) | Op::RmsNorm(_) => Verdict::Keep,
        _ => fused(array, graph, op, inputs),
    }
}

/// What judges operators with their operands.
pub(super) fn judge(array: &Array) -> impl Fn(&Graph, &Op, &[ValueId]) -> Verdict + Sync + '_ {
    |graph, op, inputs| single(array, graph, op, inputs)
}

/// What judges for an optimiser that hands out attention kernels: attention and rotary embeddings that the machine runs are
/// kept whole. Each attention must then be the anchor of a kernel; a rotation is in the prologue of one, or the anchor of a
/// movement kernel.
pub(super) fn judge_fused(array: &Array) -> impl Fn(&Graph, &Op, &[ValueId]) -> Verdict + Sync + '_ {
    |graph, op, inputs| fused(array, graph, op, inputs)
}

fn fused(array: &Array, graph: &Graph, op: &Op, inputs: &[ValueId]) -> Verdict {
    match op {
        // The kernel multiplies floats.
        Op::Attention(_) if multiplies_floats(array) && attention_supported(graph, inputs) => Verdict::Keep,
        Op::Rope(_) if rope_supported(graph, inputs) => Verdict::Keep,
        _ => single(array, graph, op, inputs),
    }
}

fn single(array: &Array, graph: &Graph, op: &Op, inputs: &[ValueId]) -> Verdict {
    match op {
        Op::Binary(Binary(BinaryFn::Div)) if divides_rows(graph, inputs) => Verdict::Rewrite(multiply_by_reciprocals),
        Op::Unary(_)
        | Op::Binary(_)
        | Op::Select(_)
        | Op::Cast(_)
        | Op::Reduce(_)
        | Op::Reshape(_)
        | Op::Transpose(_)
        | Op::Broadcast(_)
        | Op::Slice(_)
        | Op::Window(_)
        | Op::Concat(_)
        | Op::Pad(_)
        | Op::Gather(_)
        | Op::ArgReduce(_)
        | Op::CumSum(_)
        | Op::TopK(_) => Verdict::Keep,
        Op::MatMul(product) => judge_product(array, graph, product, inputs),
        Op::ScatterNd(_) => {
            let indices = graph.shape(inputs[1]);
            if indices.last() == Some(&1) && indices.rank() == 2 { Verdict::Keep } else { Verdict::Decompose }
        }
        Op::GatherElements(_)
        | Op::GatherNd(_)
        | Op::ScatterElements(_)
        | Op::Conv(_)
        | Op::Softmax(_)
        | Op::LayerNorm(_)
        | Op::RmsNorm(_)
        | Op::Gelu(_)
        | Op::Rope(_)
        | Op::Attention(_)
        | Op::Quantize(_)
        | Op::Dequantize(_) => Verdict::Decompose,
    }
}

/// Whether a quotient of floats has one divisor for many elements, computed at run time: softmax and normalisations do.
fn divides_rows(graph: &Graph, inputs: &[ValueId]) -> bool {
    let (dividend, divisor) = (graph.ty(inputs[0]), graph.ty(inputs[1]));
    let several = divisor.shape.count() > 1 && divisor.shape.count() * 4 <= dividend.shape.count();
    several && dividend.dtype.is_float() && graph.as_constant(inputs[1]).is_none()
}

/// `x / y` as `x · (1/y)`, since the vector unit has fewer lanes for quotients than for products. Rounds twice.
fn multiply_by_reciprocals(graph: &mut Graph, _op: &Op, inputs: &[ValueId]) -> Result<Vec<ValueId>, GraphError> {
    let reciprocal = graph.add(Unary(UnaryFn::Recip), &inputs[1..])?;
    Ok(vec![graph.add(Binary(BinaryFn::Mul), &[inputs[0], reciprocal])?])
}

/// The array multiplies floats of at most 32 bits, integers of at most 8, or both, each operand less one zero point. What it
/// does not multiply goes to the vector unit: integers widened, and less zero points by row or column, floats in binary32.
fn judge_product(array: &Array, graph: &Graph, product: &MatMul, inputs: &[ValueId]) -> Verdict {
    let (a, b) = (graph.ty(inputs[0]).dtype, graph.ty(inputs[1]).dtype);
    let zeros = &inputs[2..];
    if zeros.iter().any(|&zero| is_zero(graph.as_constant(zero))) {
        return Verdict::Rewrite(drop_zeros);
    }
    let on_array = array.multiplies(a, b);
    if a.is_float() && !on_array && !matches!(a, DType::F32 | DType::F64) {
        return Verdict::Rewrite(multiply_in_binary32);
    }
    let single = zeros.iter().all(|&zero| graph.shape(zero).count() == 1);
    let wide = a == b && matches!(a, DType::I32 | DType::I64 | DType::U64 | DType::F32 | DType::F64);
    match (product.a_zero || product.b_zero, on_array, single, wide) {
        (false, true, _, _) | (false, _, _, true) | (true, true, true, _) => Verdict::Keep,
        _ => Verdict::Rewrite(widen),
    }
}
