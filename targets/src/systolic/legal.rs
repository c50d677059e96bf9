//! What the machine computes as it is, and what is written in other terms first.

use tcc_ir::ops::{Binary, BinaryFn, Cast, MatMul, Unary, UnaryFn};
use tcc_ir::{DType, Graph, GraphError, Op, Tensor, ValueId};
use tcc_passes::Verdict;

use super::lower::{attention_supported, on_array, rope_supported};

/// Judges an operator with its operands for the optimiser: what one kernel computes row by row stays whole until kernels
/// are chosen.
pub(super) fn judge_composite(graph: &Graph, op: &Op, inputs: &[ValueId]) -> Verdict {
    match op {
        Op::Softmax(_) | Op::LayerNorm(_) | Op::RmsNorm(_) => Verdict::Keep,
        _ => judge_fused(graph, op, inputs),
    }
}

/// Judges an operator with its operands.
pub(super) fn judge(graph: &Graph, op: &Op, inputs: &[ValueId]) -> Verdict {
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
        Op::MatMul(product) => judge_product(graph, product, inputs),
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

/// Judges for an optimiser that hands out attention kernels: attention and rotary embeddings that the machine runs are
/// kept whole. Each attention must then be the anchor of a kernel; a rotation is in the prologue of one, or the anchor of a
/// movement kernel.
pub(super) fn judge_fused(graph: &Graph, op: &Op, inputs: &[ValueId]) -> Verdict {
    match op {
        Op::Attention(_) if attention_supported(graph, inputs) => Verdict::Keep,
        Op::Rope(_) if rope_supported(graph, inputs) => Verdict::Keep,
        _ => judge(graph, op, inputs),
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

/// The array multiplies floats of at most 32 bits and integers of at most 8, each operand less one zero point. Other
/// integers are widened, and zero points by row or column subtracted, in the vector unit.
fn judge_product(graph: &Graph, product: &MatMul, inputs: &[ValueId]) -> Verdict {
    let (a, b) = (graph.ty(inputs[0]).dtype, graph.ty(inputs[1]).dtype);
    let zeros = &inputs[2..];
    if zeros.iter().any(|&zero| is_zero(graph.as_constant(zero))) {
        return Verdict::Rewrite(drop_zeros);
    }
    let array = on_array(a, b);
    let single = zeros.iter().all(|&zero| graph.shape(zero).count() == 1);
    let wide = a == b && matches!(a, DType::I32 | DType::I64 | DType::U64 | DType::F64);
    match (product.a_zero || product.b_zero, array, single, wide) {
        (false, true, _, _) | (false, _, _, true) | (true, true, true, _) => Verdict::Keep,
        _ => Verdict::Rewrite(widen),
    }
}

fn is_zero(tensor: Option<&Tensor>) -> bool {
    tensor.and_then(|tensor| tensor.to_i64s().ok().flatten()).is_some_and(|values| values.iter().all(|&x| x == 0))
}

/// The same product without the zero points that are zero.
fn drop_zeros(graph: &mut Graph, op: &Op, inputs: &[ValueId]) -> Result<Vec<ValueId>, GraphError> {
    let Op::MatMul(product) = op else { return Ok(graph.add_multi(op.clone(), inputs)?.to_vec()) };
    let mut product = *product;
    let mut kept = inputs[..2].to_vec();
    let mut zeros = inputs[2..].iter();
    for flag in [&mut product.a_zero, &mut product.b_zero] {
        if !*flag {
            continue;
        }
        let Some(&zero) = zeros.next() else { continue };
        if is_zero(graph.as_constant(zero)) {
            *flag = false;
        } else {
            kept.push(zero);
        }
    }
    Ok(vec![graph.add(product, &kept)?])
}

/// The product of operands converted to the type of the result, less their zero points.
fn widen(graph: &mut Graph, op: &Op, inputs: &[ValueId]) -> Result<Vec<ValueId>, GraphError> {
    let Op::MatMul(product) = op else { return Ok(graph.add_multi(op.clone(), inputs)?.to_vec()) };
    let to = MatMul::result_dtype(graph.ty(inputs[0]).dtype);
    let mut zeros = inputs[2..].iter();
    let mut operands = Vec::with_capacity(2);
    for (&operand, has_zero) in inputs[..2].iter().zip([product.a_zero, product.b_zero]) {
        let mut wide = if graph.ty(operand).dtype == to { operand } else { graph.add(Cast { to }, &[operand])? };
        let zero = if has_zero { zeros.next() } else { None };
        if let Some(&zero) = zero {
            let zero = if graph.ty(zero).dtype == to { zero } else { graph.add(Cast { to }, &[zero])? };
            wide = graph.add(Binary(BinaryFn::Sub), &[wide, zero])?;
        }
        operands.push(wide);
    }
    let product = MatMul { a_zero: false, b_zero: false, ..*product };
    Ok(vec![graph.add(product, &operands)?])
}
