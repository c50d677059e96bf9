//! Caches: what a decoding model has kept of earlier tokens, put together with what is new, which it gives back and multiplies.
//!
//! Written out first and then read, a cache would go through memory twice. So the product makes it of its parts while it reads them, and writes
//! what others want on the way.

use std::collections::{HashMap, HashSet};

use tcc_ir::{NodeId, Op, Plan, ValueId};

use super::method::Method;
use crate::lower::piece::{Piece, Work};

/// A concatenation that a product makes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cache {
    /// The part that would make it.
    pub step: usize,
    /// The node.
    pub node: NodeId,
    /// What it gives.
    pub value: ValueId,
}

/// A part of a kernel of the plan as far as this goes.
pub(super) enum Part<'p> {
    /// Writes a view out.
    Copy(ValueId),
    /// Computes.
    Piece(&'p Piece),
}

/// The caches that are read by one product alone, as its B, by that product's place among the parts of all kernels.
pub(super) fn caches(plan: &Plan, parts: &[Part<'_>]) -> HashMap<usize, Cache> {
    let graph = &plan.graph;
    let mut readers: HashMap<ValueId, Vec<usize>> = HashMap::new();
    for (number, part) in parts.iter().enumerate() {
        let read: HashSet<ValueId> = match part {
            Part::Copy(root) => HashSet::from([*root]),
            Part::Piece(piece) => {
                let inputs = piece.all_nodes().flat_map(|id| &graph.node(id).inputs);
                inputs.map(|&input| plan.access(input).root).collect()
            }
        };
        read.into_iter().for_each(|root| readers.entry(root).or_default().push(number));
    }
    let mut found = HashMap::new();
    for (step, part) in parts.iter().enumerate() {
        let Some((node, value)) = concatenation(plan, part) else { continue };
        let [reader] = readers.get(&value).map(Vec::as_slice).unwrap_or_default() else { continue };
        let Part::Piece(piece) = parts[*reader] else { continue };
        let product = piece.nodes.first().map(|&id| graph.node(id)).filter(|node| matches!(node.op, Op::MatMul(_)));
        let factors = product.map(|node| [node.inputs[0], node.inputs[1]].map(|factor| plan.access(factor).root));
        let is_b = factors.is_some_and(|[a, b]| b == value && a != value);
        if is_b && *reader > step && !piece.outputs.contains(&value) && !found.contains_key(reader) {
            found.insert(*reader, Cache { step, node, value });
        }
    }
    found
}

/// The node and the result of a part that does nothing but put together one of the model's outputs.
fn concatenation(plan: &Plan, part: &Part<'_>) -> Option<(NodeId, ValueId)> {
    let Part::Piece(Piece { work: Work::Elements, nodes, outputs, prologue: None }) = part else { return None };
    let (&[node], &[value]) = (nodes.as_slice(), outputs.as_slice()) else { return None };
    let is_output = plan.graph.outputs().iter().any(|output| output.value == value);
    (is_output && matches!(plan.graph.node(node).op, Op::Concat(_))).then_some((node, value))
}

impl Method {
    /// Whether each element of a value is read once as B's.
    pub fn reads_once(&self, plan: &Plan, value: ValueId) -> bool {
        let (product, batch, rows) = match self {
            Method::Columns(columns) => (&columns.product, &columns.batch, columns.rows),
            Method::Depth(depth) => (&depth.product, &depth.batch, depth.rows),
            Method::Blocks(_) | Method::Tiled(_) => return false,
        };
        let all = batch.matrices() * product.k * product.n;
        batch.rows() <= rows as usize && all == plan.graph.shape(value).count()
    }

    /// Has it write what it reads as B.
    pub fn keep(&mut self, value: ValueId) {
        match self {
            Method::Columns(columns) => columns.cache = Some(value),
            Method::Depth(depth) => depth.cache = Some(value),
            Method::Blocks(_) | Method::Tiled(_) => {}
        }
    }
}
