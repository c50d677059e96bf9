//! What kernels cost, as far as that is the same for all targets that run them: which pieces a group of nodes becomes.

use tcc_ir::{Anchor, Graph, Kernel, Op, TensorType, ValueId};
use tcc_passes::{Group, Verdict, legalize_groups};

use super::piece::{Piece, pieces};
use crate::stored::storage;

/// Bytes of a value as it is stored.
pub(crate) fn bytes_of(ty: &TensorType) -> usize {
    storage(ty.dtype).bytes(ty.shape.count())
}

/// The pieces of a group of nodes that would be one kernel of the plan, in the graph of what is computed, and the values that it
/// writes; `None` if it would be several all the same, which are chosen as such.
pub(crate) fn pieces_of(
    graph: &Graph,
    group: &Group,
    judge: &(impl Fn(&Graph, &Op, &[ValueId]) -> Verdict + Sync),
) -> Option<(Graph, Vec<Piece>, Vec<ValueId>)> {
    let (legal, groups) = legalize_groups(graph, std::slice::from_ref(group), judge).ok()?;
    let Group { anchor, prologue, epilogue, segment } = groups.into_iter().next()?;
    let mut kernel = Kernel { anchor, prologue, epilogue, outputs: Vec::new(), segment };
    let nodes: Vec<_> = kernel.nodes().collect();
    let used = |value: &ValueId| nodes.iter().any(|&id| legal.node(id).inputs.contains(value));
    kernel.outputs =
        nodes.iter().flat_map(|&id| legal.node(id).outputs.to_vec()).filter(|value| !used(value)).collect();
    let pieces = pieces(&legal, &kernel);
    let is_attention = matches!(kernel.anchor, Anchor::Attention(_));
    if is_attention && !group.epilogue.is_empty() || pieces.len() > 1 && group.nodes().count() > 1 && !is_attention {
        return None;
    }
    Some((legal, pieces, kernel.outputs))
}

/// Bytes that a piece reads of what it does not compute itself; of a table only what is looked up.
pub(crate) fn read_bytes(graph: &Graph, piece: &Piece) -> usize {
    let mut read: Vec<ValueId> = Vec::new();
    let mut bytes = 0;
    for node in piece.nodes.iter().map(|&id| graph.node(id)) {
        for (place, &input) in node.inputs.iter().enumerate() {
            let own = graph.producer(input).is_some_and(|id| piece.nodes.contains(&id));
            if own || read.contains(&input) {
                continue;
            }
            read.push(input);
            bytes += match &node.op {
                Op::Gather(_) if place == 0 => bytes_of(graph.ty(node.output())),
                _ => bytes_of(graph.ty(input)),
            };
        }
    }
    bytes
}
