//! The order in which nodes are lowered.
//!
//! ONNX demands that nodes are stored in topological order. Some tools do not keep to it, so a list that is not gets
//! sorted; nodes stay in the order of the file wherever dependencies allow.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use onnx_protobuf::{GraphProto, NodeProto};
use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};

use super::error::ImportError;

/// Positions in `nodes` in an order in which every node comes after those whose outputs it uses.
pub fn sort(nodes: &[NodeProto]) -> Result<Vec<usize>, ImportError> {
    let mut producers: HashMap<&str, usize> = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        // The first definition counts here; a second one is an error when it is lowered.
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            producers.entry(name).or_insert(index);
        }
    }
    let dependencies: Vec<Vec<usize>> = nodes
        .iter()
        .map(|node| {
            let mut names = Vec::new();
            used_names(node, &mut names);
            names.iter().filter_map(|name| producers.get(name).copied()).collect()
        })
        .collect();
    if dependencies.iter().enumerate().all(|(index, before)| before.iter().all(|&producer| producer < index)) {
        return Ok((0..nodes.len()).collect());
    }
    let mut dag: DiGraph<(), ()> = DiGraph::with_capacity(nodes.len(), nodes.len());
    for _ in nodes {
        dag.add_node(());
    }
    for (index, before) in dependencies.iter().enumerate() {
        for &producer in before {
            dag.add_edge(NodeIndex::new(producer), NodeIndex::new(index), ());
        }
    }
    let mut waiting: Vec<usize> = dependencies.iter().map(Vec::len).collect();
    let mut ready: BinaryHeap<Reverse<usize>> =
        (0..nodes.len()).filter(|&index| waiting[index] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(Reverse(index)) = ready.pop() {
        order.push(index);
        for user in dag.neighbors_directed(NodeIndex::new(index), Direction::Outgoing) {
            waiting[user.index()] -= 1;
            if waiting[user.index()] == 0 {
                ready.push(Reverse(user.index()));
            }
        }
    }
    if order.len() == nodes.len() {
        return Ok(order);
    }
    let cyclic = |component: &Vec<NodeIndex>| component.len() > 1 || dag.contains_edge(component[0], component[0]);
    let mut cycle: Vec<usize> = petgraph::algo::tarjan_scc(&dag)
        .into_iter()
        .filter(cyclic)
        .map(|component| component.into_iter().map(NodeIndex::index).collect::<Vec<_>>())
        .min()
        .unwrap_or_default();
    cycle.sort_unstable();
    Err(ImportError::Cycle(cycle.into_iter().map(|index| node_name(&nodes[index])).collect()))
}

/// What messages call a node: its name, or its operator and first output.
pub fn node_name(node: &NodeProto) -> String {
    if node.name.is_empty() {
        let output = node.output.iter().find(|name| !name.is_empty()).map_or("", String::as_str);
        super::error::shown(&format!("{} -> {output}", node.op_type))
    } else {
        super::error::shown(&node.name)
    }
}

/// The names that a node uses: its inputs, and what its bodies take from around them.
fn used_names<'a>(node: &'a NodeProto, names: &mut Vec<&'a str>) {
    names.extend(node.input.iter().map(String::as_str).filter(|name| !name.is_empty()));
    for attribute in &node.attribute {
        attribute.g.as_ref().into_iter().chain(&attribute.graphs).for_each(|body| captured_names(body, names));
    }
}

fn captured_names<'a>(body: &'a GraphProto, names: &mut Vec<&'a str>) {
    let mut inner = Vec::new();
    body.node.iter().for_each(|node| used_names(node, &mut inner));
    inner.extend(body.output.iter().map(|output| output.name.as_str()));
    let own: HashSet<&str> = body
        .input
        .iter()
        .map(|input| input.name.as_str())
        .chain(body.initializer.iter().map(|tensor| tensor.name.as_str()))
        .chain(body.node.iter().flat_map(|node| node.output.iter().map(String::as_str)))
        .collect();
    names.extend(inner.into_iter().filter(|name| !own.contains(name)));
}
