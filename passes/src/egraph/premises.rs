//! Premises: which terms a rule has looked at where it found an equality.
//!
//! A rule is a function, and does not say which forms of its operands it has matched. Here that is found out by hiding
//! forms: what a rule finds without them it does not need. Only e-graphs that explain themselves are asked so much.

use std::collections::BTreeMap;

use egg::Id;
use tcc_ir::Op;

use super::EGraph;
use super::rule::{Expr, GlobalRule, Rule, Site};
use super::term::Term;
use super::terms::Terms;

/// What an equality was found by.
pub(super) enum Searched {
    /// A rule that looks at one operator.
    Site(Rule, Op, Vec<Id>),
    /// A rule that looks at everything.
    Everything(GlobalRule),
    /// The definition of an operator, which has no premises but its types.
    Definition(Op, Vec<Id>),
}

impl Searched {
    pub(super) fn site(rule: Rule, op: &Op, operands: &[Id]) -> Self {
        Searched::Site(rule, op.clone(), operands.to_vec())
    }

    pub(super) fn definition(op: &Op, operands: &[Id]) -> Self {
        Searched::Definition(op.clone(), operands.to_vec())
    }

    /// Whether the rule still finds `expr`.
    fn finds(&self, egraph: &EGraph, class: Id, expr: &Expr) -> bool {
        let terms = Terms(egraph);
        match self {
            Searched::Site(rule, op, operands) => {
                (rule.rewrite)(&Site { terms, class, op, operands }).iter().any(|found| found.same(expr))
            }
            Searched::Everything(rule) => {
                (rule.rewrite)(terms).iter().any(|(of, found)| *of == class && found.same(expr))
            }
            Searched::Definition(..) => true,
        }
    }
}

/// The one form of each class that a rule needs to find an equality, for the classes that it needs one of.
#[derive(Default)]
pub(super) struct Premises(BTreeMap<Id, Term>);

/// How many levels of operands are looked through. Rules see five or six.
const DEPTH: usize = 8;

impl Premises {
    /// Finds the premises of an equality in an e-graph that is as it was when the equality was found, and is again
    /// afterwards.
    pub(super) fn of(egraph: &mut EGraph, searched: &Searched, class: Id, expr: &Expr) -> Self {
        let mut premises = Premises::default();
        let mut level: Vec<Id> = match searched {
            Searched::Site(_, _, operands) => operands.iter().map(|&operand| egraph.find(operand)).collect(),
            Searched::Everything(_) => vec![class],
            Searched::Definition(..) => return premises,
        };
        let mut hidden: BTreeMap<Id, Vec<Term>> = BTreeMap::new();
        for _ in 0..DEPTH {
            let mut next = Vec::new();
            for id in level {
                if hidden.contains_key(&id) {
                    continue;
                }
                let all = std::mem::take(&mut egraph[id].nodes);
                let rest: Vec<Term> = all.iter().filter(|term| !matches!(term, Term::Apply { .. })).cloned().collect();
                let only = |term: &Term| rest.iter().chain([term]).cloned().collect();
                egraph[id].nodes = rest.clone();
                if searched.finds(egraph, class, expr) {
                    egraph[id].nodes = all;
                    continue;
                }
                let sufficient = all.iter().filter(|term| matches!(term, Term::Apply { .. })).find(|term| {
                    egraph[id].nodes = only(term);
                    searched.finds(egraph, class, expr)
                });
                match sufficient {
                    Some(term) => {
                        next.extend(egg::Language::children(term).iter().map(|&child| egraph.find(child)));
                        premises.0.insert(id, term.clone());
                        hidden.insert(id, all);
                    }
                    // It needs several forms of this class, of which a term can have but one.
                    None => egraph[id].nodes = all,
                }
            }
            if next.is_empty() {
                break;
            }
            level = next;
        }
        hidden.into_iter().for_each(|(id, all)| egraph[id].nodes = all);
        premises
    }

    /// Adds the form that was rewritten, with the premises as its operands, and returns its id.
    pub(super) fn add(&self, egraph: &mut EGraph, searched: &Searched, class: Id) -> Id {
        match searched {
            Searched::Site(_, op, operands) | Searched::Definition(op, operands) => {
                self.add_term(egraph, &Term::apply(op.clone(), operands), DEPTH)
            }
            Searched::Everything(_) => self.add_class(egraph, class, DEPTH),
        }
    }

    fn add_term(&self, egraph: &mut EGraph, term: &Term, depth: usize) -> Id {
        let mut term = term.clone();
        for child in egg::Language::children_mut(&mut term) {
            *child = self.add_class(egraph, *child, depth);
        }
        egraph.add_uncanonical(term)
    }

    fn add_class(&self, egraph: &mut EGraph, class: Id, depth: usize) -> Id {
        match self.0.get(&egraph.find(class)) {
            // A premise may be its own operand.
            Some(term) if depth > 0 => self.add_term(egraph, term, depth - 1),
            _ => class,
        }
    }
}
