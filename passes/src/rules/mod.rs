//! The rewriting rules, by topic. Each file ends in a table of its rules; adding one is a function and a line there.
//!
//! Every rule is an equality between two forms of one value, in exact arithmetic; where rounding differs, the rule's
//! comment says so. The tests of this folder evaluate both sides of every rule on random shapes and values.

pub mod algebra;
pub mod attention;
pub mod merging;
pub mod raising;
pub mod views;

#[cfg(test)]
mod tests;

use crate::egraph::{GlobalRule, Rule};

/// All rules that look at one class.
pub fn local() -> Vec<Rule> {
    [views::RULES, algebra::RULES, raising::RULES, attention::RULES].concat()
}

/// All rules that look at several classes at once.
pub fn global() -> Vec<GlobalRule> {
    merging::RULES.to_vec()
}
