//! Explanations: which rules made the kernels of a block out of the nodes that it had.
//!
//! The e-graph of a block is asked why the term that came in and the term that was chosen are the same value. What it
//! answers is a proof: a tree of terms, each of which follows from the one before it by one rule. It is told as a list of
//! [`Step`]s; terms are written with short symbols for the values that the kernel does not compute itself.

mod chosen;
mod proof;
#[cfg(test)]
mod tests;
mod writer;

use serde::Serialize;

pub(crate) use chosen::{Extracted, Way, explain};

/// Why a kernel is as it is.
///
/// A kernel is explained by the values that it gives. Where the model has none of them, because rules have moved work past
/// them, it is explained together with the kernels between it and the next value that the model has. What a kernel reads
/// is not looked into, unless the model does not have that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KernelExplanation {
    /// The rules that led to it, in the order in which they are first used. None, if the kernel computes nodes of the model
    /// as they are.
    pub rules: Vec<RuleUse>,
    /// What was rewritten.
    pub rewritings: Vec<Rewriting>,
    /// What the symbols in terms stand for.
    pub symbols: Vec<Symbol>,
}

/// A rule, and how often it was used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleUse {
    /// The rule's name.
    pub rule: String,
    /// How often it was used.
    pub uses: usize,
}

/// One value of the model in the form that the model has, and in the form that was chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rewriting {
    /// The value's name in the model.
    pub value: String,
    /// The term that computes it in the model.
    pub before: String,
    /// The term that computes it in the plan.
    pub after: String,
    /// How one becomes the other.
    pub steps: Vec<Step>,
}

/// One use of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The rule's name.
    pub rule: String,
    /// Whether the rule was used from right to left: what it makes was there, and what it starts from was wanted.
    pub reversed: bool,
    /// The part of the term that is rewritten.
    pub before: String,
    /// What that part becomes.
    pub after: String,
}

/// A symbol in terms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Symbol {
    /// The symbol: `x1` for what is computed, `w1` for constants.
    pub symbol: String,
    /// The value's name in the model; empty for a constant that rules made.
    pub name: String,
    /// Its element type and shape.
    #[serde(rename = "type")]
    pub ty: String,
}

impl KernelExplanation {
    /// Adds what was rewritten, unless nothing was, and counts its rules.
    fn push(&mut self, rewriting: Rewriting) {
        for step in &rewriting.steps {
            match self.rules.iter_mut().find(|known| known.rule == step.rule) {
                Some(known) => known.uses += 1,
                None => self.rules.push(RuleUse { rule: step.rule.clone(), uses: 1 }),
            }
        }
        if !rewriting.steps.is_empty() {
            self.rewritings.push(rewriting);
        }
    }
}
