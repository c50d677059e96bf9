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

    /// Adds the term and returns its class.
    pub fn add(&self, egraph: &mut EGraph) -> Id {
        match self {
            Expr::Class(id) => egraph.find(*id),
            Expr::Constant(tensor) => {
                let leaf = egraph.analysis.constant(tensor);
                egraph.add(Term::Leaf(leaf))
            }
            Expr::Apply(op, operands) => {
                let operands: SmallVec<[Id; 3]> = operands.iter().map(|operand| operand.add(egraph)).collect();
                egraph.add(Term::Apply { op: op.clone(), operands })
            }
            Expr::Body { graph, operands, result } => {
                let mut classes: Vec<Id> = Vec::with_capacity(graph.value_count());
                for (id, value) in graph.values() {
                    let class = match (operands.get(id.index()), &value.def) {
                        (Some(&operand), _) => egraph.find(operand),
                        (None, Def::Constant(tensor)) => Expr::Constant(tensor.clone()).add(egraph),
                        (None, Def::Node { node, .. }) => {
                            let node = graph.node(*node);
                            let inputs: SmallVec<[Id; 3]> =
                                node.inputs.iter().map(|input| classes[input.index()]).collect();
                            egraph.add(Term::Apply { op: node.op.clone(), operands: inputs })
                        }
                        (None, Def::Input(_)) => unreachable!("all inputs stand for classes"),
                    };
                    classes.push(class);
                }
                classes[result.index()]
            }
        }
    }
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
