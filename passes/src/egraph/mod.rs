//! The e-graph of one block: terms, what is known of their classes, and saturation by rules.
//!
//! A block enters as a graph whose inputs and constants are [`Leaf`]s. [`saturate`] applies the rules of
//! [`crate::rules`] until nothing new comes, or a limit on counts is reached. Kernels are then offered for every form in it
//! (`kernels.rs`), and extraction chooses among them.

mod facts;
mod premises;
mod rule;
mod saturate;
mod term;
mod terms;

pub use facts::{Conflict, FOLDED_BYTES, Facts, Knowledge, Leaf};
pub use rule::{Expr, GlobalRule, Match, Rule, Site};
pub use saturate::{DEFINITION, Define, Limits, Saturation, Stopped, saturate};
pub use term::{LeafId, Term};
pub use terms::Terms;

/// The e-graph of one block.
pub type EGraph = egg::EGraph<Term, Knowledge>;
