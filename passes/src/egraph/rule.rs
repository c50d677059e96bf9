//! Rules: what they see and what they say.

use std::sync::Arc;

use egg::Id;
use smallvec::SmallVec;
use tcc_ir::{Def, Graph, Op, Tensor, ValueId};

use super::EGraph;
use super::term::Term;
use super::terms::Terms;

/// A term that a rule proposes, over classes that exist.
#[derive(Clone, Debug)]
pub enum Expr {
    /// A class.
    Class(Id),
    /// A constant.
    Constant(Tensor),
    /// An operator of one result.
    Apply(Op, Vec<Expr>),
    /// A value of a graph whose first values stand for classes.
    Body {
        /// The graph; it has operators of one result only.
        graph: Arc<Graph>,
        /// The classes of its first values.
        operands: Vec<Id>,
        /// The value.
        result: ValueId,
    },
}

impl From<Id> for Expr {
    fn from(id: Id) -> Self {
        Expr::Class(id)
    }
}

impl Expr {
    /// An operator with its operands.
    pub fn apply<const N: usize>(op: impl Into<Op>, operands: [Expr; N]) -> Expr {
        Expr::Apply(op.into(), operands.into())
    }

    /// A scalar constant of the type of class `like`.
    pub fn number(terms: Terms<'_>, like: Id, value: f64) -> Expr {
        Expr::Constant(Tensor::scalar_of(terms.dtype(like), value))
    }

    /// Adds the term and returns an id of its class: where the e-graph explains itself, that of this very form.
    pub fn add(&self, egraph: &mut EGraph) -> Id {
        match self {
            Expr::Class(id) => *id,
            Expr::Constant(tensor) => {
                let leaf = egraph.analysis.constant(tensor);
                egraph.add_uncanonical(Term::Leaf(leaf))
            }
            Expr::Apply(op, operands) => {
                let operands: SmallVec<[Id; 3]> = operands.iter().map(|operand| operand.add(egraph)).collect();
                egraph.add_uncanonical(Term::Apply { op: op.clone(), operands })
            }
            Expr::Body { graph, operands, result } => {
                let mut classes: Vec<Id> = Vec::with_capacity(graph.value_count());
                for (id, value) in graph.values() {
                    let class = match (operands.get(id.index()), &value.def) {
                        (Some(&operand), _) => operand,
                        (None, Def::Constant(tensor)) => Expr::Constant(tensor.clone()).add(egraph),
                        (None, Def::Node { node, .. }) => {
                            let node = graph.node(*node);
                            let inputs: SmallVec<[Id; 3]> =
                                node.inputs.iter().map(|input| classes[input.index()]).collect();
                            egraph.add_uncanonical(Term::Apply { op: node.op.clone(), operands: inputs })
                        }
                        (None, Def::Input(_)) => unreachable!("all inputs stand for classes"),
                    };
                    classes.push(class);
                }
                classes[result.index()]
            }
        }
    }

    /// The class of the term, if the e-graph has it.
    pub(super) fn find(&self, egraph: &EGraph) -> Option<Id> {
        match self {
            Expr::Class(id) => Some(*id),
            Expr::Constant(tensor) => egraph.lookup(Term::Leaf(egraph.analysis.known(tensor)?)),
            Expr::Apply(op, operands) => {
                let operands = operands.iter().map(|operand| operand.find(egraph)).collect::<Option<_>>()?;
                egraph.lookup(Term::Apply { op: op.clone(), operands })
            }
            Expr::Body { graph, operands, result } => {
                let mut classes: Vec<Id> = Vec::with_capacity(graph.value_count());
                for (id, value) in graph.values() {
                    classes.push(match (operands.get(id.index()), &value.def) {
                        (Some(&operand), _) => operand,
                        (None, Def::Constant(tensor)) => Expr::Constant(tensor.clone()).find(egraph)?,
                        (None, Def::Node { node, .. }) => {
                            let node = graph.node(*node);
                            let operands = node.inputs.iter().map(|input| classes[input.index()]).collect();
                            egraph.lookup(Term::Apply { op: node.op.clone(), operands })?
                        }
                        (None, Def::Input(_)) => return None,
                    });
                }
                Some(classes[result.index()])
            }
        }
    }

    /// Whether two terms are written the same.
    pub(super) fn same(&self, other: &Expr) -> bool {
        match (self, other) {
            (Expr::Class(a), Expr::Class(b)) => a == b,
            (Expr::Constant(a), Expr::Constant(b)) => same_constants(a, b),
            (Expr::Apply(a, x), Expr::Apply(b, y)) => {
                a == b && x.len() == y.len() && x.iter().zip(y).all(|(x, y)| x.same(y))
            }
            (Expr::Body { graph: a, operands: x, result: m }, Expr::Body { graph: b, operands: y, result: n }) => {
                x == y && m == n && same_bodies(a, b)
            }
            _ => false,
        }
    }
}

fn same_constants(a: &Tensor, b: &Tensor) -> bool {
    a.ty() == b.ty() && matches!((a.bytes(), b.bytes()), (Ok(x), Ok(y)) if x == y)
}

fn same_bodies(a: &Graph, b: &Graph) -> bool {
    let same = |x: &Def, y: &Def| match (x, y) {
        (Def::Constant(x), Def::Constant(y)) => same_constants(x, y),
        (Def::Node { node: x, .. }, Def::Node { node: y, .. }) => {
            let (x, y) = (a.node(*x), b.node(*y));
            x.op == y.op && x.inputs == y.inputs
        }
        (Def::Input(_), Def::Input(_)) => true,
        _ => false,
    };
    a.value_count() == b.value_count() && a.values().zip(b.values()).all(|((_, x), (_, y))| same(&x.def, &y.def))
}

/// The place that a rule looks at: one operator in one class.
#[derive(Clone, Copy)]
pub struct Site<'a> {
    /// The e-graph.
    pub terms: Terms<'a>,
    /// The class.
    pub class: Id,
    /// The operator.
    pub op: &'a Op,
    /// Its operands.
    pub operands: &'a [Id],
}

/// A rule that rewrites one class at a time.
#[derive(Clone, Copy)]
pub struct Rule {
    /// Its name, as reports and explanations give it.
    pub name: &'static str,
    /// Other forms of the class that the site is in.
    pub rewrite: fn(&Site<'_>) -> Vec<Expr>,
}

/// Equalities that a [`GlobalRule`] found: for each a class and another form of it.
pub type Match = (Id, Expr);

/// A rule that must see several classes at once.
#[derive(Clone, Copy)]
pub struct GlobalRule {
    /// Its name, as reports and explanations give it.
    pub name: &'static str,
    /// What it finds.
    pub rewrite: fn(Terms<'_>) -> Vec<Match>,
}
