//! Pieces of a plan's kernel: what one launch computes. Most kernels are one piece; where threads would have to wait for what
//! others compute, the rest is another.

use std::collections::HashSet;

use tcc_ir::{Graph, Kernel, NodeId, Op, Shape, ValueId, is_view};

/// How the threads of a launch share the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Each computes single elements, whatever they take.
    Elements,
    /// Some work on each row together: on all elements of a domain along some axes.
    Rows { domain: Shape, axes: Vec<usize> },
    /// Operators that have a kernel of their own.
    Alone,
}

/// What one launch computes.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub work: Work,
    /// Its nodes, in topological order.
    pub nodes: Vec<NodeId>,
    /// Its values that others use.
    pub outputs: Vec<ValueId>,
}

/// The pieces of a kernel that is no copy.
pub(super) fn pieces(graph: &Graph, kernel: &Kernel) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for id in kernel.nodes() {
        let joins = pieces.last().and_then(|piece| joined(graph, piece, id));
        match (joins, pieces.last_mut()) {
            (Some(work), Some(piece)) => {
                piece.work = work;
                piece.nodes.push(id);
            }
            _ => pieces.push(Piece { work: first(graph, id), nodes: vec![id], outputs: Vec::new() }),
        }
    }
    for place in 0..pieces.len() {
        let values: Vec<ValueId> =
            pieces[place].nodes.iter().flat_map(|&id| graph.node(id).outputs.iter().copied()).collect();
        let later: HashSet<ValueId> = pieces[place + 1..]
            .iter()
            .flat_map(|piece| &piece.nodes)
            .flat_map(|&id| graph.node(id).inputs.iter().flat_map(|&input| through_views(graph, input)))
            .collect();
        let leaves = |value: &ValueId| later.contains(value) || kernel.outputs.contains(value);
        let outputs = values.into_iter().filter(leaves).collect();
        pieces[place].outputs = outputs;
    }
    pieces
}

/// A value and what it is a view of.
fn through_views(graph: &Graph, value: ValueId) -> Vec<ValueId> {
    let mut chain = vec![value];
    let mut at = value;
    while let Some(node) = graph.producer(at).map(|id| graph.node(id)).filter(|node| is_view(&node.op)) {
        at = node.inputs[0];
        chain.push(at);
    }
    chain
}

/// Whether a value is computed by some nodes, or a view of what is.
fn is_of(graph: &Graph, value: ValueId, nodes: &HashSet<NodeId>) -> bool {
    through_views(graph, value).iter().any(|&value| graph.producer(value).is_some_and(|id| nodes.contains(&id)))
}

/// What a piece is that begins with a node.
fn first(graph: &Graph, id: NodeId) -> Work {
    let node = graph.node(id);
    match &node.op {
        Op::Reduce(reduce) => Work::Rows { domain: graph.shape(node.inputs[0]).clone(), axes: reduce.axes.clone() },
        Op::ArgReduce(_) | Op::CumSum(_) | Op::TopK(_) | Op::ScatterNd(_) => Work::Alone,
        _ => Work::Elements,
    }
}

/// What a piece becomes with a node, if that can join.
fn joined(graph: &Graph, piece: &Piece, id: NodeId) -> Option<Work> {
    let node = graph.node(id);
    if piece.work == Work::Alone || first(graph, id) == Work::Alone {
        return None;
    }
    let own: HashSet<NodeId> = piece.nodes.iter().copied().collect();
    let uses_own = || node.inputs.iter().any(|&input| is_of(graph, input, &own));
    let is_heavy = |id: &NodeId| matches!(graph.node(*id).op, Op::MatMul(_) | Op::Reduce(_));
    match (&piece.work, &node.op) {
        // Its operands would be computed again for each of its elements.
        (_, Op::MatMul(_)) => None,
        (Work::Elements, Op::Reduce(reduce)) => {
            let domain = graph.shape(node.inputs[0]);
            let fits = piece.nodes.iter().all(|id| !is_heavy(id) && lies_in(graph, *id, domain, &reduce.axes, &own));
            let as_is = is_as_is(graph, node.inputs[0], &own);
            (fits && as_is).then(|| Work::Rows { domain: domain.clone(), axes: reduce.axes.clone() })
        }
        (Work::Rows { domain, axes }, Op::Reduce(reduce)) => {
            let same = graph.shape(node.inputs[0]) == domain && reduce.axes == *axes;
            (same && is_as_is(graph, node.inputs[0], &own)).then(|| piece.work.clone())
        }
        (Work::Rows { domain, axes }, _) => lies_in(graph, id, domain, axes, &own).then(|| piece.work.clone()),
        // What gathers from elements computed here would compute them again and again.
        (_, Op::Gather(_) | Op::Pad(_) | Op::Concat(_)) if uses_own() && piece.nodes.iter().any(is_heavy) => None,
        (Work::Elements, _) => Some(Work::Elements),
        (Work::Alone, _) => None,
    }
}

/// Whether an operand is either no value of a piece or one of its values and no view of it.
fn is_as_is(graph: &Graph, value: ValueId, own: &HashSet<NodeId>) -> bool {
    !is_of(graph, value, own) || graph.producer(value).is_some_and(|id| own.contains(&id))
}

/// Whether a node is element-wise over rows of a domain, and takes what the piece computes as it is.
fn lies_in(graph: &Graph, id: NodeId, domain: &Shape, axes: &[usize], own: &HashSet<NodeId>) -> bool {
    let node = graph.node(id);
    let shape = graph.shape(node.output());
    let fits = |shape: &Shape| {
        shape.rank() == domain.rank()
            && shape.iter().enumerate().all(|(axis, &size)| size == domain[axis] || size == 1 && axes.contains(&axis))
    };
    let whole_or_row = |shape: &Shape| {
        shape == domain || fits(shape) && axes.iter().all(|&axis| shape[axis] == 1)
    };
    let element_wise = matches!(node.op, Op::Unary(_) | Op::Binary(_) | Op::Select(_) | Op::Cast(_));
    element_wise
        && whole_or_row(shape)
        && node.inputs.iter().all(|&input| {
            !is_of(graph, input, own) || is_as_is(graph, input, own) && whole_or_row(graph.shape(input))
        })
}
