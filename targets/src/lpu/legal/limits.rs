//! What would become absurdly large.

use tcc_ir::ops::ScatterReduction;
use tcc_ir::{Graph, Node, Op};

use super::products::on_vector_unit;
use super::selection::constants;
use crate::machine::Machine;
use crate::target::TargetError;

/// Most comparisons, or products on the vector unit, that one operator may become.
const MOST_ELEMENTS: u128 = 1 << 24;

/// Fails for a model with an operator that compares so many elements with each other, or multiplies so many outside of the
/// matrix units, that the program would be of no use.
pub(in crate::lpu) fn check(machine: &Machine, graph: &Graph) -> Result<(), TargetError> {
    for (_, node) in graph.nodes() {
        let (what, elements) = expanded(graph, node);
        if elements > MOST_ELEMENTS {
            return Err(TargetError::Unsupported {
                origin: node.origin.to_string(),
                machine: machine.name.clone(),
                reason: format!(
                    "`{}` becomes {elements} {what} there, of at most {MOST_ELEMENTS}; choose smaller dimensions, or leave \
                     it to the host",
                    node.op.name()
                ),
            });
        }
    }
    Ok(())
}

/// How many elements an operator is worked out on at the most, where that is more than its operands and results have.
fn expanded(graph: &Graph, node: &Node) -> (&'static str, u128) {
    let shape = |operand: usize| graph.shape(node.inputs[operand]);
    let count = |operand: usize| shape(operand).count() as u128;
    let comparisons = match &node.op {
        Op::TopK(op) if op.k > 1 => count(0) * shape(0)[op.axis] as u128,
        Op::CumSum(op) => count(0) * shape(0)[op.axis] as u128,
        Op::ScatterElements(op) => count(1) * shape(0)[op.axis] as u128,
        Op::ScatterNd(op) => {
            let depth = shape(1).last().copied().unwrap_or(1);
            let rows: u128 = shape(0)[..depth].iter().map(|&extent| extent as u128).product();
            match op.reduction {
                ScatterReduction::Replace if constants(graph, node.inputs[1]).is_some() => 0,
                ScatterReduction::Replace => rows * (count(1) / depth as u128),
                _ => rows * count(2),
            }
        }
        _ => 0,
    };
    let macs = u128::from(graph.node_work(node).macs);
    if macs > 0 && on_vector_unit(graph.ty(node.inputs[0]).dtype, graph.ty(node.inputs[1]).dtype) {
        return ("products of a type that only the vector unit multiplies", macs);
    }
    ("comparisons of elements with each other", comparisons)
}
