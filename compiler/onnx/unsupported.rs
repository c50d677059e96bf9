//! Finds what a model needs that tcc does not have: all of it at once, before anything is lowered.

use std::collections::{BTreeMap, HashMap, HashSet};

use onnx_protobuf::{ModelProto, NodeProto};

use super::error::list;
use super::functions::Functions;
use super::opsets::domain_name;
use super::order::node_name;
use super::registry::{self, Lower};

/// Operators of a model that tcc cannot lower, each with the nodes that use it.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
#[error("{}", describe(.0))]
pub struct UnsupportedOps(pub BTreeMap<String, Vec<String>>);

fn describe(operators: &BTreeMap<String, Vec<String>>) -> String {
    let one = |(operator, nodes): (&String, &Vec<String>)| {
        format!("`{operator}` ({} {})", if nodes.len() == 1 { "node" } else { "nodes" }, list(nodes))
    };
    let all: Vec<String> = operators.iter().map(one).collect();
    let count = if all.len() == 1 {
        "1 operator that tcc does".to_owned()
    } else {
        format!("{} operators that tcc does", all.len())
    };
    format!(
        "the model uses {count} not have: {}; export it without them, or decompose them with the exporter's options",
        all.join(", ")
    )
}

/// Every operator that can be lowered, for quick look-up.
pub struct Operators(HashMap<(&'static str, &'static str), Lower>);

impl Default for Operators {
    fn default() -> Self {
        Operators(registry::entries().map(|entry| ((entry.domain, entry.op_type), entry.lower)).collect())
    }
}

impl Operators {
    /// The function that lowers the operator of a node.
    pub fn get(&self, node: &NodeProto) -> Option<Lower> {
        // Shorter-lived keys find longer-lived ones because both are only compared.
        let key: (&str, &str) = (domain_name(&node.domain), &node.op_type);
        self.0.get(&key).copied()
    }
}

/// How far a search goes into the branches of `If`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Branches {
    /// Not at all: a branch that folds away needs no operators.
    Skip,
    /// Into both, for a report about the whole model.
    Enter,
}

/// What the whole model uses that tcc does not have, in any branch. Nothing if it is empty.
pub fn find(model: &ModelProto, branches: Branches) -> UnsupportedOps {
    let functions = Functions::new(model);
    let operators = Operators::default();
    let mut search = Search::new(&functions, &operators, branches);
    search.nodes(&model.graph.get_or_default().node, 0);
    search.found
}

/// A search over nodes, the functions they call, and the bodies they run.
pub struct Search<'a> {
    functions: &'a Functions<'a>,
    operators: &'a Operators,
    branches: Branches,
    seen: HashSet<usize>,
    /// What was found.
    pub found: UnsupportedOps,
}

impl<'a> Search<'a> {
    /// A search that has found nothing yet.
    pub fn new(functions: &'a Functions<'a>, operators: &'a Operators, branches: Branches) -> Self {
        Search { functions, operators, branches, seen: HashSet::new(), found: UnsupportedOps::default() }
    }

    /// Searches some nodes. `depth` counts bodies; whatever is nested too deeply is refused when it is lowered.
    pub fn nodes(&mut self, nodes: &[NodeProto], depth: usize) {
        if depth > super::store::MAX_NESTING {
            return;
        }
        for node in nodes {
            if let Some(function) = self.functions.get(node) {
                if self.seen.insert(function.index) {
                    self.nodes(&function.proto.node, depth + 1);
                }
            } else if self.operators.get(node).is_none() {
                let domain = domain_name(&node.domain);
                let name = if domain.is_empty() { node.op_type.clone() } else { format!("{domain}.{}", node.op_type) };
                self.found.0.entry(super::error::shown(&name)).or_default().push(node_name(node));
            } else if self.branches == Branches::Enter || node.op_type != "If" {
                for attribute in &node.attribute {
                    for body in attribute.g.as_ref().into_iter().chain(&attribute.graphs) {
                        self.nodes(&body.node, depth + 1);
                    }
                }
            }
        }
    }
}
