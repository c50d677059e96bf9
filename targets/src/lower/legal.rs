//! What kernels compute as it is, and what is written in other terms first.

use tcc_ir::ops::{Binary, BinaryFn, MatMul, Reduce, ReduceFn, Transpose};
use tcc_ir::{DType, Graph, GraphError, Op, Tensor, ValueId};
use tcc_passes::Verdict;

use crate::products::{cast, drop_zeros, is_zero, zero_points};

/// What judges operators with their operands.
pub(crate) fn judge() -> impl Fn(&Graph, &Op, &[ValueId]) -> Verdict + Sync {
    |graph, op, inputs| match op {
        Op::MatMul(_) if inputs[2..].iter().any(|&zero| is_zero(graph.as_constant(zero))) => {
            Verdict::Rewrite(drop_zeros)
        }
        Op::MatMul(product) if (product.a_zero || product.b_zero) && are_bytes(graph, inputs) => {
            Verdict::Rewrite(apart_from_zeros)
        }
        Op::ScatterNd(_) => {
            let indices = graph.shape(inputs[1]);
            if indices.last() == Some(&1) && indices.rank() == 2 { Verdict::Keep } else { Verdict::Decompose }
        }
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
        | Op::TopK(_)
        | Op::MatMul(_) => Verdict::Keep,
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

/// Whether factors are integers of at most eight bits, which matrix units multiply.
fn are_bytes(graph: &Graph, inputs: &[ValueId]) -> bool {
    inputs[..2].iter().all(|&input| graph.ty(input).dtype.is_integer() && graph.ty(input).dtype.bits() <= 8)
}

/// A product of integers less their zero points, as products of what is stored: Σ (a - y)(b - z) = Σ a b - y Σ b - z Σ a + k y z,
/// all modulo 2³². Of weights, the sums follow from constants.
fn apart_from_zeros(graph: &mut Graph, op: &Op, inputs: &[ValueId]) -> Result<Vec<ValueId>, GraphError> {
    let Op::MatMul(product) = op else { return Ok(graph.add_multi(op.clone(), inputs)?.to_vec()) };
    let zeros = zero_points(product, inputs);
    let plain = MatMul { a_zero: false, b_zero: false, ..*product };
    let mut result = graph.add(plain, &inputs[..2])?;
    let turned = [product.transpose_a, product.transpose_b];
    // What is summed over is the last axis of A and the one before in B, if they are not turned.
    let along = |graph: &Graph, factor: usize| {
        graph.shape(inputs[factor]).rank() - if (factor == 0) == turned[factor] { 2 } else { 1 }
    };
    let mut wide = [None; 2];
    for factor in 0..2 {
        if let Some(zero) = zeros[factor] {
            let zero = cast(graph, zero, DType::I32)?;
            wide[factor] = Some(upright(graph, zero, turned[factor])?);
        }
    }
    for (factor, zero) in [(1, wide[0]), (0, wide[1])] {
        let Some(zero) = zero else { continue };
        let elements = cast(graph, inputs[factor], DType::I32)?;
        let axes = vec![along(graph, factor)];
        let sums = graph.add(Reduce { function: ReduceFn::Sum, axes }, &[elements])?;
        let sums = upright(graph, sums, turned[factor])?;
        let part = graph.add(Binary(BinaryFn::Mul), &[sums, zero])?;
        result = graph.add(Binary(BinaryFn::Sub), &[result, part])?;
    }
    if let [Some(a), Some(b)] = wide {
        let k = graph.shape(inputs[0])[along(graph, 0)];
        let k = graph.constant(Tensor::scalar(k as i32));
        let both = graph.add(Binary(BinaryFn::Mul), &[a, b])?;
        let part = graph.add(Binary(BinaryFn::Mul), &[both, k])?;
        result = graph.add(Binary(BinaryFn::Add), &[result, part])?;
    }
    Ok(vec![result])
}

/// A value with its last two axes exchanged, if its matrix is turned and it has them.
fn upright(graph: &mut Graph, value: ValueId, turned: bool) -> Result<ValueId, GraphError> {
    let rank = graph.shape(value).rank();
    if !turned || rank < 2 {
        return Ok(value);
    }
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.swap(rank - 2, rank - 1);
    graph.add(Transpose { perm }, &[value])
}
