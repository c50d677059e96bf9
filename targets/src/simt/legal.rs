//! What kernels compute as it is, and what is written in other terms first.

use tcc_ir::{Graph, Op, ValueId};
use tcc_passes::Verdict;

use super::SimtMachine;
use super::lower::attends;
use crate::products::{drop_zeros, is_zero};

/// What judges operators with their operands for the optimiser: what one kernel computes row by row stays whole until kernels are
/// chosen.
pub(super) fn judge_composite(machine: &SimtMachine) -> impl Fn(&Graph, &Op, &[ValueId]) -> Verdict + Sync + '_ {
    let single = judge_fused(machine);
    move |graph, op, inputs| match op {
        Op::Softmax(_) | Op::LayerNorm(_) | Op::RmsNorm(_) => Verdict::Keep,
        _ => single(graph, op, inputs),
    }
}

/// What judges operators with their operands once kernels are chosen.
pub(super) fn judge_fused(machine: &SimtMachine) -> impl Fn(&Graph, &Op, &[ValueId]) -> Verdict + Sync + '_ {
    let single = judge();
    move |graph, op, inputs| match op {
        Op::Attention(_) if attends(machine, graph, inputs) => Verdict::Keep,
        Op::Rope(_) => Verdict::Keep,
        _ => single(graph, op, inputs),
    }
}

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
