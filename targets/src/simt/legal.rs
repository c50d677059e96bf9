//! What kernels compute as it is, and what is written in other terms first.

use tcc_ir::{Graph, Op, ValueId};
use tcc_passes::Verdict;

use crate::products::{drop_zeros, is_zero};

/// What judges operators with their operands.
pub(super) fn judge() -> impl Fn(&Graph, &Op, &[ValueId]) -> Verdict + Sync {
    |graph, op, inputs| match op {
        Op::MatMul(_) if inputs[2..].iter().any(|&zero| is_zero(graph.as_constant(zero))) => Verdict::Rewrite(drop_zeros),
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
