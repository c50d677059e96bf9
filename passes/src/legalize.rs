//! Legalisation: brings a graph into the operators that a target knows, by each other operator's own decomposition.

use std::ops::Range;

use tcc_ir::{Anchor, Def, Graph, GraphError, Node, NodeId, Op, OpError, TensorType, ValueId, is_view};

use crate::assemble::{Group, anchor_of, derived_constants};

/// Deepest nesting of decompositions. Real ones are three deep; more means that two decompose into each other.
const MAX_DEPTH: usize = 16;

/// What a target wants done with an operator.
pub enum Verdict {
    /// It knows the operator.
    Keep,
    /// It wants [`Operator::decompose`](tcc_ir::Operator::decompose)'s definition of it.
    Decompose,
    /// It has a definition of its own.
    Rewrite(Rewrite),
}

/// Writes an operator, with these operands, in terms of others at the end of a graph and returns its results.
pub type Rewrite = fn(&mut Graph, &Op, &[ValueId]) -> Result<Vec<ValueId>, GraphError>;

/// Rewrites `graph` until `judge` keeps every operator. It sees each operator with its operands in the new graph.
pub fn legalize(graph: &Graph, judge: &dyn Fn(&Graph, &Op, &[ValueId]) -> Verdict) -> Result<Graph, GraphError> {
    Ok(legalize_nodes(graph, judge)?.0)
}

/// [`legalize`] for a graph whose nodes have been put into groups: what a node becomes takes its place.
pub fn legalize_groups(
    graph: &Graph,
    groups: &[Group],
    judge: &dyn Fn(&Graph, &Op, &[ValueId]) -> Verdict,
) -> Result<(Graph, Vec<Group>), GraphError> {
    let (legal, became) = legalize_nodes(graph, judge)?;
    // Parameters in another type follow from constants.
    let derived = derived_constants(&legal);
    let computed = |nodes: &[NodeId]| -> Vec<NodeId> {
        let new = nodes.iter().flat_map(|node| became[node.index()].clone());
        let own = |&node: &NodeId| !is_view(&legal.node(node).op) && !derived[legal.node(node).output().index()];
        new.map(NodeId::from_index).filter(own).collect()
    };
    let groups = groups.iter().map(|group| {
        let segment = group.segment;
        let mut prologue = computed(&group.prologue);
        let mut epilogue = computed(&group.epilogue);
        let anchors = group.anchor.node().map_or_else(Vec::new, |node| computed(&[node]));
        // What a composite anchor is made of: the first that is more than element-wise is the anchor now.
        let found = anchors
            .iter()
            .enumerate()
            .find_map(|(place, &node)| anchor_of(node, &legal.node(node).op).map(|anchor| (place, anchor)));
        let anchor = match found {
            Some((place, anchor)) => {
                prologue.extend(&anchors[..place]);
                epilogue.splice(0..0, anchors[place + 1..].iter().copied());
                anchor
            }
            None => {
                epilogue.splice(0..0, prologue.drain(..).chain(anchors));
                Anchor::ElementWise
            }
        };
        // Without an anchor the first reduction of the epilogue takes its place.
        match epilogue.iter().position(|&node| matches!(legal.node(node).op, Op::Reduce(_))) {
            Some(place) if anchor == Anchor::ElementWise => {
                let rest = epilogue.split_off(place + 1);
                let anchor = epilogue.pop().map_or(Anchor::ElementWise, Anchor::Reduction);
                Group { anchor, prologue: epilogue, epilogue: rest, segment }
            }
            _ => Group { anchor, prologue, epilogue, segment },
        }
    });
    let groups = groups.collect();
    Ok((legal, groups))
}

/// The legal graph, and for every old node the numbers of those that it became.
fn legalize_nodes(
    graph: &Graph,
    judge: &dyn Fn(&Graph, &Op, &[ValueId]) -> Verdict,
) -> Result<(Graph, Vec<Range<usize>>), GraphError> {
    let mut legal = Graph::new(graph.name().clone());
    let mut map: Vec<ValueId> = Vec::with_capacity(graph.value_count());
    let mut became = Vec::with_capacity(graph.node_count());
    for (_, value) in graph.values() {
        let id = match &value.def {
            Def::Input(_) => legal.add_input(value.name.clone(), value.ty.clone()),
            Def::Constant(tensor) => legal.add_constant(value.name.clone(), tensor.clone()),
            Def::Node { node, output } => {
                if *output == 0 {
                    let first = legal.node_count();
                    let node = graph.node(*node);
                    let results = lower(&mut legal, node, &map, judge)?;
                    became.push(first..legal.node_count());
                    // A node's results are defined one after another, so that they take the next places of the map.
                    for (&old, &new) in node.outputs.iter().zip(&results) {
                        debug_assert_eq!(old.index(), map.len());
                        map.push(new);
                        if legal.producer(new).is_some() {
                            legal.rename(new, graph.value(old).name.clone());
                        }
                    }
                }
                continue;
            }
        };
        map.push(id);
    }
    for output in graph.outputs() {
        legal.add_output(output.name.clone(), map[output.value.index()]);
    }
    Ok((legal, became))
}

fn lower(
    legal: &mut Graph,
    node: &Node,
    map: &[ValueId],
    judge: &dyn Fn(&Graph, &Op, &[ValueId]) -> Verdict,
) -> Result<Vec<ValueId>, GraphError> {
    legal.set_origin(node.origin.clone());
    let inputs: Vec<ValueId> = node.inputs.iter().map(|input| map[input.index()]).collect();
    apply(legal, &node.op, &inputs, judge, 0)
}

fn apply(
    legal: &mut Graph,
    op: &Op,
    inputs: &[ValueId],
    judge: &dyn Fn(&Graph, &Op, &[ValueId]) -> Verdict,
    depth: usize,
) -> Result<Vec<ValueId>, GraphError> {
    let define: Rewrite = match judge(legal, op, inputs) {
        Verdict::Keep => return Ok(legal.add_multi(op.clone(), inputs)?.to_vec()),
        Verdict::Rewrite(rewrite) => rewrite,
        Verdict::Decompose => decompose,
    };
    if depth == MAX_DEPTH {
        let error = OpError::Value("has a decomposition without end; this is a defect in tcc, please report it".into());
        return Err(GraphError { origin: legal.origin().clone(), op: op.name(), error });
    }
    // The definition is written into a graph of its own, whose nodes are then judged in turn.
    let mut body = Graph::new("");
    body.set_origin(legal.origin().clone());
    let mut map: Vec<ValueId> = Vec::new();
    let mut operands = Vec::with_capacity(inputs.len());
    for &input in inputs {
        let value = legal.value(input);
        let operand = match &value.def {
            Def::Constant(tensor) => body.add_constant(value.name.clone(), tensor.clone()),
            Def::Input(_) | Def::Node { .. } => body.add_input(value.name.clone(), value.ty.clone()),
        };
        operands.push(operand);
        map.push(input);
    }
    let results = define(&mut body, op, &operands)?;
    let first_own = operands.len();
    for (_, value) in body.values().skip(first_own) {
        match &value.def {
            Def::Constant(tensor) => {
                let tensor = tensor.clone();
                map.push(legal.constant(tensor));
            }
            Def::Input(_) => {}
            Def::Node { node, output: 0 } => {
                let node = body.node(*node);
                let inputs: Vec<ValueId> = node.inputs.iter().map(|input| map[input.index()]).collect();
                map.extend(apply(legal, &node.op, &inputs, judge, depth + 1)?);
            }
            Def::Node { .. } => {}
        }
    }
    Ok(results.into_iter().map(|result| map[result.index()]).collect())
}

fn decompose(graph: &mut Graph, op: &Op, inputs: &[ValueId]) -> Result<Vec<ValueId>, GraphError> {
    op.decompose(graph, inputs).unwrap_or_else(|| {
        let types: Vec<TensorType> = inputs.iter().map(|&input| graph.ty(input).clone()).collect();
        let error = OpError::Value(format!("cannot be taken apart any further for operands {types:?}"));
        Err(GraphError { origin: graph.origin().clone(), op: op.name(), error })
    })
}
