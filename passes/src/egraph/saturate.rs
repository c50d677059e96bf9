//! Saturation: rules are applied in rounds until nothing new comes or a limit on counts is reached.
//!
//! The rounds are our own and not those of [`egg::Runner`], which stops by the clock: results must not depend on how fast
//! the machine is that compiles.

use std::collections::HashMap;

use egg::Id;
use tcc_ir::Op;

use super::EGraph;
use super::facts::Conflict;
use super::premises::{Premises, Searched};
use super::rule::{Expr, GlobalRule, Rule, Site};
use super::terms::Terms;

/// When saturation gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most e-nodes.
    pub nodes: usize,
    /// Most rounds.
    pub rounds: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { nodes: 5_000, rounds: 32 }
    }
}

/// Why saturation stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// No rule has anything to add.
    Saturated,
    /// There are as many e-nodes as are allowed.
    NodeLimit,
    /// There were as many rounds as are allowed.
    RoundLimit,
}

/// What saturation did.
#[derive(Clone, Debug)]
pub struct Saturation {
    /// Why it stopped.
    pub stopped: Stopped,
    /// Number of rounds.
    pub rounds: usize,
    /// How often each rule joined two classes, in the order of the rules.
    pub applied: Vec<(&'static str, usize)>,
}

/// The definition of an operator with its operands, for those that the target does not run as they are.
pub type Define<'a> = dyn Fn(Terms<'_>, &Op, &[Id]) -> Option<Expr> + 'a;

/// The name that reports and explanations give to the definition of an operator that the target does not run.
pub const DEFINITION: &str = "definition";

/// An equality that was found and is to be written into the e-graph.
struct Found {
    rule: &'static str,
    class: Id,
    expr: Expr,
    /// The id of the form that was rewritten, where the e-graph explains itself; else that of its class.
    from: Id,
}

/// Applies rules to an e-graph, and adds the definitions that `define` gives. An e-graph that was told to explain itself
/// is told of every equality which form of a class was rewritten, and becomes the same otherwise.
///
/// # Errors
/// A rule contradicts the types of a class.
pub fn saturate(
    egraph: &mut EGraph,
    rules: &[Rule],
    global: &[GlobalRule],
    define: &Define<'_>,
    limits: Limits,
) -> Result<Saturation, Conflict> {
    let explains = egraph.are_explanations_enabled();
    let mut applied: HashMap<&'static str, usize> = HashMap::new();
    let mut stopped = Stopped::RoundLimit;
    let mut rounds = 0;
    egraph.rebuild();
    while rounds < limits.rounds {
        rounds += 1;
        let mut found: Vec<Found> = Vec::new();
        // What each was found by, to look for its premises.
        let mut searched: Vec<Searched> = Vec::new();
        let terms = Terms(egraph);
        // In the order of their ids, which is that in which they were made.
        let mut classes: Vec<Id> = egraph.classes().map(|class| class.id).collect();
        classes.sort_unstable();
        for &class in &classes {
            for (op, operands) in terms.applications(class) {
                let site = Site { terms, class, op, operands };
                for rule in rules {
                    for expr in (rule.rewrite)(&site) {
                        found.push(Found { rule: rule.name, class, expr, from: class });
                        searched.extend(explains.then(|| Searched::site(*rule, op, operands)));
                    }
                }
                if let Some(expr) = define(terms, op, operands) {
                    found.push(Found { rule: DEFINITION, class, expr, from: class });
                    searched.extend(explains.then(|| Searched::definition(op, operands)));
                }
            }
        }
        for rule in global {
            for (class, expr) in (rule.rewrite)(terms) {
                found.push(Found { rule: rule.name, class, expr, from: class });
                searched.extend(explains.then_some(Searched::Everything(*rule)));
            }
        }
        // While the e-graph is as it was searched.
        for (Found { class, expr, from, .. }, searched) in found.iter_mut().zip(&searched) {
            if expr.find(egraph).is_none_or(|known| egraph.find(known) != egraph.find(*class)) {
                *from = Premises::of(egraph, searched, *class, expr).add(egraph, searched, *class);
            }
        }
        let before = (egraph.total_number_of_nodes(), egraph.number_of_classes());
        let mut full = false;
        for Found { rule, class, expr, from } in found {
            let id = expr.add(egraph);
            if egraph.find(id) != egraph.find(class) && egraph.union_trusted(from, id, rule) {
                *applied.entry(rule).or_default() += 1;
            }
            if egraph.total_size() > limits.nodes {
                full = true;
                break;
            }
        }
        egraph.rebuild();
        if let Some(conflict) = egraph.analysis.conflict.take() {
            return Err(conflict);
        }
        if full {
            stopped = Stopped::NodeLimit;
            break;
        }
        if (egraph.total_number_of_nodes(), egraph.number_of_classes()) == before {
            stopped = Stopped::Saturated;
            break;
        }
    }
    let names = rules.iter().map(|rule| rule.name).chain(global.iter().map(|rule| rule.name)).chain([DEFINITION]);
    let applied = names.filter_map(|name| applied.get(name).map(|&count| (name, count))).collect();
    Ok(Saturation { stopped, rounds, applied })
}
