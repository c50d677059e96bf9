//! What the machine computes as it is, and how everything else is written in these terms.
//!
//! The matrix units multiply halves and bytes, the vector unit computes element by element and along axes, reads may take
//! their addresses from data, and the rest is movement. Whatever looks for places or puts elements there becomes
//! comparisons with counted places, since nothing on the machine branches: time then depends on shapes alone.

mod limits;
mod order;
mod pad;
mod parts;
mod products;
mod scatter;
mod selection;
mod softmax;
mod sums;
#[cfg(test)]
mod tests;

use tcc_ir::ops::{Attention, ReduceFn};
use tcc_ir::{DType, Graph, GraphError, Op, ValueId};
use tcc_passes::{Verdict, clean_up, integer_products, legalize};

pub(super) use limits::check;

use super::LpuMachine;
use super::lower::is_worth;
use crate::target::TargetError;

/// The graph in the operators that the machine runs.
///
/// # Errors
/// An operand cannot be what its operator takes, such as a constant index that lies outside its axis.
pub(super) fn legal(graph: &Graph) -> Result<Graph, TargetError> {
    let legal = clean_up(&legalize(&*integer_products(graph)?, &judge())?);
    Ok(clean_up(&softmax::turn_products(&legal)?))
}

/// What judges operators with their operands for the optimiser: what has flows of its own stays whole until kernels are chosen.
pub(super) fn judge_composite(machine: &LpuMachine) -> impl Fn(&Graph, &Op, &[ValueId]) -> Verdict + Sync + '_ {
    let fused = judge_fused(machine);
    move |graph, op, inputs| match op {
        Op::Softmax(_) | Op::LayerNorm(_) | Op::RmsNorm(_) => Verdict::Keep,
        // The search knows no definitions with several results.
        Op::TopK(_) => Verdict::Keep,
        _ => fused(graph, op, inputs),
    }
}

/// What judges operators with their operands once kernels are chosen.
pub(super) fn judge_fused(machine: &LpuMachine) -> impl Fn(&Graph, &Op, &[ValueId]) -> Verdict + Sync + '_ {
    let single = judge();
    move |graph, op, inputs| match op {
        Op::Attention(_) if attends(machine, graph, inputs) => Verdict::Keep,
        Op::Softmax(_) => Verdict::Decompose,
        _ => single(graph, op, inputs),
    }
}

/// Whether an attention is run as one.
fn attends(machine: &LpuMachine, graph: &Graph, inputs: &[ValueId]) -> bool {
    let [q, k, v] = [inputs[0], inputs[1], inputs[2]].map(|input| graph.ty(input));
    matches!(q.dtype, DType::F32 | DType::F16) && Attention::dims(q, k, v).is_ok_and(|dims| is_worth(machine, &dims))
}

/// What judges operators with their operands.
pub(super) fn judge() -> impl Fn(&Graph, &Op, &[ValueId]) -> Verdict + Sync {
    |graph, op, inputs| {
        let runs = match op {
            Op::Unary(_)
            | Op::Binary(_)
            | Op::Select(_)
            | Op::Cast(_)
            | Op::Reshape(_)
            | Op::Transpose(_)
            | Op::Broadcast(_)
            | Op::Slice(_)
            | Op::Window(_)
            | Op::Concat(_) => true,
            Op::Reduce(reduce) => reduce.function != ReduceFn::Mean,
            Op::Pad(pad) => pad::surrounds(pad),
            Op::Gather(gather) => selection::runs(graph, *gather, inputs),
            Op::MatMul(product) => products::next_step(graph, product, inputs).is_none(),
            Op::ArgReduce(_) | Op::CumSum(_) | Op::ScatterElements(_) | Op::ScatterNd(_) | Op::TopK(_) => false,
            Op::Softmax(op) if softmax::is_turned(graph, op, inputs) => false,
            Op::GatherElements(_)
            | Op::GatherNd(_)
            | Op::Conv(_)
            | Op::Softmax(_)
            | Op::LayerNorm(_)
            | Op::RmsNorm(_)
            | Op::Gelu(_)
            | Op::Rope(_)
            | Op::Attention(_)
            | Op::Quantize(_)
            | Op::Dequantize(_) => return Verdict::Decompose,
        };
        if runs { Verdict::Keep } else { Verdict::Rewrite(rewrite) }
    }
}

/// Writes what the machine does not run in other terms, which may have to be judged and rewritten again.
fn rewrite(graph: &mut Graph, op: &Op, inputs: &[ValueId]) -> Result<Vec<ValueId>, GraphError> {
    match op {
        Op::ArgReduce(op) => order::arg_reduce(graph, *op, inputs),
        Op::CumSum(op) => sums::cum_sum(graph, *op, inputs),
        Op::Gather(op) => selection::gather(graph, *op, inputs),
        Op::MatMul(op) => products::mat_mul(graph, op, inputs),
        Op::Pad(op) => pad::pad(graph, op, inputs),
        Op::Reduce(op) => sums::mean(graph, op, inputs),
        Op::ScatterElements(op) => scatter::scatter_elements(graph, *op, inputs),
        Op::ScatterNd(op) => scatter::scatter_nd(graph, *op, inputs),
        Op::Softmax(_) => softmax::turned(graph, inputs),
        Op::TopK(op) => order::top_k(graph, *op, inputs),
        _ => Ok(graph.add_multi(op.clone(), inputs)?.to_vec()),
    }
}
