//! What kernels compute as it is, and what is written in other terms first.

use tcc_ir::{Graph, Op, ValueId};
use tcc_passes::Verdict;

use crate::lower::legal::judge;

/// What judges operators with their operands for the optimiser: what one kernel computes row by row stays whole until kernels are
/// chosen.
pub(super) fn judge_composite(graph: &Graph, op: &Op, inputs: &[ValueId]) -> Verdict {
    match op {
        Op::Softmax(_) | Op::LayerNorm(_) | Op::RmsNorm(_) => Verdict::Keep,
        _ => judge_fused(graph, op, inputs),
    }
}

/// What judges operators with their operands once kernels are chosen.
pub(super) fn judge_fused(graph: &Graph, op: &Op, inputs: &[ValueId]) -> Verdict {
    match op {
        Op::Rope(_) => Verdict::Keep,
        _ => judge()(graph, op, inputs),
    }
}
