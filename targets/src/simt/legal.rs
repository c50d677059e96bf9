//! What kernels compute as it is, and what is written in other terms first.

use tcc_ir::{Graph, Op, ValueId};
use tcc_passes::Verdict;

use super::SimtMachine;
use super::lower::attends;
pub(super) use crate::lower::legal::judge;

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
