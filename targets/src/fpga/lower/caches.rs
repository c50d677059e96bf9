//! Caches: what a decoding model has kept of earlier tokens, put together with what is new, which it gives back and multiplies.
//!
//! Written out first and then read, a cache would go through memory twice. So the product makes it of its parts while it reads them, and writes
//! what others want on the way.

use std::collections::{HashMap, HashSet};

use tcc_ir::{NodeId, Op, Plan, ValueId};

use super::Step;
use super::method::Method;
use crate::lower::piece::{Piece, Work};

/// A concatenation that a product makes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cache {
    /// The step that would make it.
    pub step: usize,
    /// The node.
    pub node: NodeId,
    /// What it gives.
    pub value: ValueId,
}

/// The caches that products make, by the products' steps.
pub(super) fn caches(plan: &Plan, steps: &[(usize, Step)]) -> HashMap<usize, Cache> {
    let graph = &plan.graph;
    let mut readers: HashMap<ValueId, Vec<usize>> = HashMap::new();
    for (number, (_, step)) in steps.iter().enumerate() {
        let read: HashSet<ValueId> = match step {
            Step::Copy(_, source) => HashSet::from([source.root]),
            Step::Piece(piece, _) => {
                let inputs = piece.all_nodes().flat_map(|id| &graph.node(id).inputs);
                inputs.map(|&input| plan.access(input).root).collect()
            }
        };
        read.into_iter().for_each(|root| readers.entry(root).or_default().push(number));
    }
    let mut found = HashMap::new();
    for (step, (_, own)) in steps.iter().enumerate() {
        let Some((node, value)) = concatenation(plan, own) else { continue };
        let [reader] = readers.get(&value).map(Vec::as_slice).unwrap_or_default() else { continue };
        let Step::Piece(piece, Some(method)) = &steps[*reader].1 else { continue };
        let reads_all = method.reads_once(plan, value) && !piece.outputs.contains(&value);
        if *reader > step && reads_all && !found.contains_key(reader) {
            found.insert(*reader, Cache { step, node, value });
        }
    }
    found
}

/// The node and the result of a step that does nothing but put together one of the model's outputs.
fn concatenation(plan: &Plan, step: &Step) -> Option<(NodeId, ValueId)> {
    let Step::Piece(piece, None) = step else { return None };
    let Piece { work: Work::Elements, nodes, outputs, prologue: None } = &**piece else { return None };
    let (&[node], &[value]) = (nodes.as_slice(), outputs.as_slice()) else { return None };
    let is_output = plan.graph.outputs().iter().any(|output| output.value == value);
    (is_output && matches!(plan.graph.node(node).op, Op::Concat(_))).then_some((node, value))
}

impl Method {
    /// Whether each element of a value is read once as B's.
    fn reads_once(&self, plan: &Plan, value: ValueId) -> bool {
        let (product, batch, rows) = match self {
            Method::Columns(columns) => (&columns.product, &columns.batch, columns.rows),
            Method::Depth(depth) => (&depth.product, &depth.batch, depth.rows),
            Method::Blocks(_) => return false,
        };
        let [a, b] = product.factors.map(|factor| plan.access(factor).root);
        let all = batch.matrices() * product.k * product.n;
        b == value && a != value && batch.rows() <= rows as usize && all == plan.graph.shape(value).count()
    }

    /// Has it write what it reads as B.
    pub fn keep(&mut self, value: ValueId) {
        match self {
            Method::Columns(columns) => columns.cache = Some(value),
            Method::Depth(depth) => depth.cache = Some(value),
            Method::Blocks(_) => {}
        }
    }
}
