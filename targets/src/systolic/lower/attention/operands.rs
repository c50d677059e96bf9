//! What an attention kernel can hold, and how its operands are made.

use tcc_ir::ops::Attention;
use tcc_ir::{Access, DType, Graph, NodeId, Op, ValueId, View, is_view};

use crate::systolic::lower::recipe::{HEAD, Recipe, Resolver, TermSource, four, groups_of, repeats};

/// The recipes of the operands, and the number of key heads of the operator that are one and the same.
pub(super) struct Operands {
    pub q: Recipe,
    pub k: Recipe,
    pub v: Recipe,
    pub mask: Option<Recipe>,
    pub repeat: usize,
}

/// Whether an attention can run as one kernel: floats of at most 32 bits, and something to compute.
///
/// An optimiser keeps such a node; all others are decomposed.
pub(in crate::systolic) fn attention_supported(graph: &Graph, inputs: &[ValueId]) -> bool {
    let types: Vec<_> = inputs.iter().take(3).map(|&input| graph.ty(input)).collect();
    let [q, k, v] = types[..] else { return false };
    let dims = Attention::dims(q, k, v);
    q.dtype.is_float()
        && q.dtype != DType::F64
        && dims.is_ok_and(|dims| {
            [dims.batch, dims.heads, dims.queries, dims.depth, dims.value_depth].iter().all(|&extent| extent > 0)
        })
}

/// Whether the kernel of an attention can compute these nodes on chip, before it: each takes part in making q, k or v,
/// through views that only cut features, permute batch, heads and positions, or repeat key heads.
///
/// Nodes may be element-wise, reductions over features, rotations and concatenations along positions. An optimiser grows
/// a prologue from the attention up: as long as this holds, it may add the producer of another operand. Any value of the
/// prologue may be used elsewhere too.
///
/// # Errors
/// What is in the way, in words.
pub(in crate::systolic) fn attention_prologue_supported(
    graph: &Graph,
    attention: NodeId,
    prologue: &[NodeId],
) -> Result<(), String> {
    let node = graph.node(attention);
    let Op::Attention(op) = &node.op else { return Err(format!("`{}` is no attention", node.origin)) };
    if !attention_supported(graph, &node.inputs) {
        return Err("the array does not multiply its type, or there is nothing to compute".to_owned());
    }
    let inside = |id: NodeId| prologue.contains(&id);
    let operands = operands(graph, op, &node.inputs, &|value| look_through(graph, value, &inside), &inside)?;
    let reached = |id: NodeId| {
        [&operands.q, &operands.k, &operands.v]
            .iter()
            .flat_map(|recipe| &recipe.terms)
            .any(|term| matches!(term.source, TermSource::Node { node, .. } if node == id))
    };
    match prologue.iter().find(|&&id| !reached(id)) {
        Some(&id) => Err(format!("`{}` makes no operand of the attention", graph.node(id).origin)),
        None => Ok(()),
    }
}

/// How a value is read before there is a plan: through views of what a node inside computes, or of anything else.
pub(super) fn look_through(graph: &Graph, value: ValueId, inside: &dyn Fn(NodeId) -> bool) -> Option<Access> {
    let mut views = Vec::new();
    let mut root = value;
    while let Some(id) = graph.producer(root)
        && is_view(&graph.node(id).op)
    {
        views.push(id);
        root = graph.node(id).inputs[0];
    }
    let mut view = View::dense(graph.shape(root).clone());
    for id in views.into_iter().rev() {
        let node = graph.node(id);
        match view.through(&node.op, graph.shape(node.output())) {
            Some(through) => view = through,
            // A value from outside is written out densely then.
            None if graph.producer(root).is_none_or(|id| !inside(id)) => {
                root = node.output();
                view = View::dense(graph.shape(root).clone());
            }
            None => return None,
        }
    }
    Some(Access { root, view })
}

/// Finds out how the operands are made.
pub(super) fn operands(
    graph: &Graph,
    op: &Attention,
    inputs: &[ValueId],
    access: &dyn Fn(ValueId) -> Option<Access>,
    inside: &dyn Fn(NodeId) -> bool,
) -> Result<Operands, String> {
    let resolver = Resolver { graph, access, inside };
    let q = resolver.resolve(inputs[0])?;
    let (k, v) = (resolver.resolve(inputs[1])?, resolver.resolve(inputs[2])?);
    let mask = if op.mask { Some(resolver.resolve(inputs[3])?) } else { None };
    if mask.as_ref().is_some_and(Recipe::computes) {
        return Err("the mask is computed by the same kernel".to_owned());
    }
    if q.root.repeat > 1 {
        return Err("heads of queries are repeated".to_owned());
    }
    let heads = four(graph.shape(inputs[1])).map_or(1, |dims| dims[HEAD]);
    let repeat_of = |recipe: &Recipe| match &recipe.root_term().source {
        TermSource::Node { .. } if recipe.root_term().extents[HEAD] == 1 => heads,
        TermSource::Node { .. } => recipe.root.repeat,
        TermSource::Number => heads,
        TermSource::Dram { access, shape, .. } => {
            groups_of(access, shape).map_or(1, |groups| repeats(&groups[HEAD]).max(1))
        }
    };
    let (by_k, by_v) = (repeat_of(&k), repeat_of(&v));
    let made = |recipe: &Recipe| matches!(recipe.root_term().source, TermSource::Node { .. });
    let repeat = if by_k == by_v {
        by_k
    } else if made(&k) || made(&v) {
        return Err("keys and values repeat heads differently".to_owned());
    } else {
        1
    };
    Ok(Operands { q, k, v, mask, repeat })
}
