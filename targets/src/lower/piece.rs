//! Pieces of a plan's kernel: what one launch computes. Most kernels are one piece; where threads would have to wait for what
//! others compute, the rest is another.

use std::collections::HashSet;

use tcc_ir::ops::Attention;
use tcc_ir::{Anchor, Graph, Kernel, NodeId, Op, Shape, ValueId, is_view};

/// How the threads of a launch share the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Each computes single elements, whatever they take.
    Elements,
    /// Some work on each row together: on all elements of a domain along some axes.
    Rows { domain: Shape, axes: Vec<usize> },
    /// Attention, with what makes its operands.
    Attention(NodeId),
    /// Operators that have a kernel of their own.
    Alone,
}

/// What one launch computes.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub work: Work,
    /// Its nodes, in topological order.
    pub nodes: Vec<NodeId>,
    /// Its values that others use.
    pub outputs: Vec<ValueId>,
    /// What every block computes by itself first.
    pub prologue: Option<Prologue>,
}

/// Rows that every block of a product computes by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prologue {
    /// The nodes, in topological order.
    pub nodes: Vec<NodeId>,
    /// What they give.
    pub value: ValueId,
    /// What they work on, and along which axes.
    pub domain: Shape,
    pub axes: Vec<usize>,
}

impl Piece {
    /// Its nodes and those that every block computes by itself.
    pub fn all_nodes(&self) -> impl Iterator<Item = NodeId> + Clone + '_ {
        let before = self.prologue.iter().flat_map(|prologue| &prologue.nodes);
        before.chain(&self.nodes).copied()
    }
}

/// Whether a piece is of elements that take a few operations each.
pub(crate) fn is_plain_work(graph: &Graph, piece: &Piece) -> bool {
    !piece.nodes.iter().any(|&id| matches!(graph.node(id).op, Op::MatMul(_) | Op::Reduce(_)))
}

/// The pieces of a kernel that is no copy.
pub(crate) fn pieces(graph: &Graph, kernel: &Kernel) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    if let Anchor::Attention(anchor) = kernel.anchor {
        return attention(graph, kernel, anchor);
    }
    for id in kernel.nodes() {
        let joins = pieces.last().and_then(|piece| joined(graph, piece, id));
        match (joins, pieces.last_mut()) {
            (Some(work), Some(piece)) => {
                piece.work = work;
                piece.nodes.push(id);
            }
            _ => pieces.push(Piece { work: first(graph, id), nodes: vec![id], outputs: Vec::new(), prologue: None }),
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

/// Rows of an attention up to which all that share keys are in one block.
pub(crate) const ATTENTION_ROWS: usize = 8;

/// The pieces of an attention: what of its operands others want too is computed first, the rest where it is wanted. Where one block
/// has all rows that share keys, it writes keys and values that others want itself.
fn attention(graph: &Graph, kernel: &Kernel, anchor: NodeId) -> Vec<Piece> {
    let types = graph.input_types(graph.node(anchor));
    let written = |value: ValueId| {
        let dims = Attention::dims(types[0], types[1], types[2]);
        dims.is_ok_and(|dims| {
            let all = dims.heads / dims.groups * dims.queries;
            let lead = graph.shape(value).dims();
            all <= ATTENTION_ROWS && lead.len() == 4 && lead[..3] == [dims.batch, dims.groups, dims.keys]
        })
    };
    let mut first: HashSet<NodeId> = HashSet::new();
    for &id in kernel.prologue.iter().rev() {
        let node = graph.node(id);
        let wanted = node.outputs.iter().any(|output| kernel.outputs.contains(output) && !written(*output));
        let is_first = |value: &ValueId| graph.producer(*value).is_some_and(|id| first.contains(&id));
        let needed = graph.users(id).any(|user| {
            let user = graph.node(user);
            user.outputs.iter().any(is_first) || is_view(&user.op) && feeds(graph, user.output(), &first)
        });
        if wanted || needed {
            first.insert(id);
        }
    }
    let (before, within): (Vec<NodeId>, Vec<NodeId>) = kernel.prologue.iter().partition(|id| first.contains(id));
    let outputs = |nodes: &[NodeId]| -> Vec<ValueId> {
        let all = nodes.iter().flat_map(|&id| graph.node(id).outputs.iter().copied());
        all.filter(|output| kernel.outputs.contains(output)).collect()
    };
    let mut pieces = Vec::new();
    if !before.is_empty() {
        pieces.push(Piece { work: Work::Elements, outputs: outputs(&before), nodes: before, prologue: None });
    }
    let nodes: Vec<NodeId> = within.into_iter().chain([anchor]).collect();
    pieces.push(Piece { work: Work::Attention(anchor), outputs: outputs(&nodes), nodes, prologue: None });
    pieces
}

/// Whether a view is used, by other views or not, by some nodes.
fn feeds(graph: &Graph, value: ValueId, nodes: &HashSet<NodeId>) -> bool {
    let Some(id) = graph.producer(value) else { return false };
    graph.users(id).any(|user| {
        nodes.contains(&user) || is_view(&graph.node(user).op) && feeds(graph, graph.node(user).output(), nodes)
    })
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
        Op::Attention(_) => Work::Attention(id),
        Op::ArgReduce(_) | Op::CumSum(_) | Op::TopK(_) | Op::ScatterNd(_) => Work::Alone,
        _ => Work::Elements,
    }
}

/// What a piece becomes with a node, if that can join.
fn joined(graph: &Graph, piece: &Piece, id: NodeId) -> Option<Work> {
    let node = graph.node(id);
    let is_single = |work: &Work| matches!(work, Work::Alone | Work::Attention(_));
    if is_single(&piece.work) || is_single(&first(graph, id)) {
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
        // What follows a product is computed with its sums.
        (Work::Elements, _) if piece.nodes.iter().any(|id| matches!(graph.node(*id).op, Op::MatMul(_))) => {
            let product = graph.shape(graph.node(piece.nodes[0]).output());
            lies_in(graph, id, product, &[], &own).then_some(Work::Elements)
        }
        // What gathers from elements computed here would compute them again and again.
        (_, Op::Gather(_) | Op::Pad(_) | Op::Concat(_)) if uses_own() && piece.nodes.iter().any(is_heavy) => None,
        (Work::Elements, _) => Some(Work::Elements),
        (Work::Alone | Work::Attention(_), _) => None,
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
    let whole_or_row = |shape: &Shape| shape == domain || fits(shape) && axes.iter().all(|&axis| shape[axis] == 1);
    let element_wise = matches!(node.op, Op::Unary(_) | Op::Binary(_) | Op::Select(_) | Op::Cast(_));
    element_wise
        && whole_or_row(shape)
        && node
            .inputs
            .iter()
            .all(|&input| !is_of(graph, input, own) || is_as_is(graph, input, own) && whole_or_row(graph.shape(input)))
}
