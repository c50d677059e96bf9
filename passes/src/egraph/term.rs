//! The language of the e-graph.

use std::fmt;

use egg::{Id, Language};
use smallvec::SmallVec;
use tcc_ir::Op;

/// A value that a block gets from outside, or a constant that a rule made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeafId(pub u32);

/// An e-node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Term {
    /// A leaf of the block.
    Leaf(LeafId),
    /// An operator with its operands. With several results the class stands for all of them together.
    Apply {
        /// The operator.
        op: Op,
        /// Its operands.
        operands: SmallVec<[Id; 3]>,
    },
    /// One result of an operator that has several: a view that costs nothing.
    Output {
        /// Which result.
        index: usize,
        /// The operator's class.
        of: [Id; 1],
    },
}

impl Term {
    /// An operator with its operands.
    pub fn apply(op: impl Into<Op>, operands: &[Id]) -> Self {
        Term::Apply { op: op.into(), operands: SmallVec::from_slice(operands) }
    }
}

impl Language for Term {
    type Discriminant = &'static str;

    fn discriminant(&self) -> &'static str {
        match self {
            Term::Leaf(_) => "leaf",
            Term::Apply { op, .. } => op.name(),
            Term::Output { .. } => "output",
        }
    }

    fn matches(&self, other: &Self) -> bool {
        match (self, other) {
            (Term::Leaf(a), Term::Leaf(b)) => a == b,
            (Term::Apply { op: a, operands: x }, Term::Apply { op: b, operands: y }) => x.len() == y.len() && a == b,
            (Term::Output { index: a, .. }, Term::Output { index: b, .. }) => a == b,
            _ => false,
        }
    }

    fn children(&self) -> &[Id] {
        match self {
            Term::Leaf(_) => &[],
            Term::Apply { operands, .. } => operands,
            Term::Output { of, .. } => of,
        }
    }

    fn children_mut(&mut self) -> &mut [Id] {
        match self {
            Term::Leaf(_) => &mut [],
            Term::Apply { operands, .. } => operands,
            Term::Output { of, .. } => of,
        }
    }
}

impl fmt::Display for Term {
    /// The operator's name in textual IR, without its operands.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Term::Leaf(LeafId(id)) => write!(f, "leaf{id}"),
            Term::Apply { op, .. } => f.write_str(op.name()),
            Term::Output { index, .. } => write!(f, "output{index}"),
        }
    }
}
