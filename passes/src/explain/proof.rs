//! Proofs of egg, flattened into steps.

use std::collections::HashSet;
use std::rc::Rc;

use egg::TreeTerm;

use super::writer::Writer;
use super::{Rewriting, Step};
use crate::egraph::Term;

/// A proof: each term follows from the one before it.
type Proof = [Rc<TreeTerm<Term>>];

/// Takes one use of a rule: its name, whether it is reversed, and the terms before and after it.
type Visitor<'a> = dyn FnMut(&str, bool, &TreeTerm<Term>, &TreeTerm<Term>) + 'a;

/// Which of the two terms that a proof leads from and to.
#[derive(Clone, Copy)]
pub(super) enum End {
    First,
    Last,
}

/// Writes a proof that the value called `value` is what was chosen.
pub(super) fn rewriting(proof: &Proof, value: &str, writer: &mut Writer<'_>) -> Rewriting {
    let mut steps = Vec::new();
    // Parts of a proof that are used again are there once.
    let mut seen = HashSet::new();
    walk(proof, &mut seen, &mut |rule, reversed, before, after| {
        let (before, after) = (writer.part(before, End::Last), writer.part(after, End::First));
        // What holds for several parts that are written the same is told once.
        let step = Step { rule: rule.to_owned(), reversed, before, after };
        if steps.last() != Some(&step) {
            steps.push(step);
        }
    });
    let whole = |writer: &mut Writer<'_>, term: Option<&Rc<TreeTerm<Term>>>, end| {
        term.map_or_else(String::new, |term| writer.whole(term, end))
    };
    let (before, after) = if steps.is_empty() {
        Default::default()
    } else {
        (whole(writer, proof.first(), End::First), whole(writer, proof.last(), End::Last))
    };
    Rewriting { value: value.to_owned(), before, after, steps }
}

/// Visits each use of a rule, in order.
fn walk(proof: &Proof, seen: &mut HashSet<*const TreeTerm<Term>>, step: &mut Visitor<'_>) {
    let mut last: Option<&Rc<TreeTerm<Term>>> = None;
    for term in proof {
        let is_new = seen.insert(Rc::as_ptr(term));
        if let (true, Some(last)) = (is_new, last) {
            match (&term.forward_rule, &term.backward_rule) {
                (Some(rule), _) => step(rule.as_str(), false, last, term),
                (None, Some(rule)) => step(rule.as_str(), true, last, term),
                (None, None) => {}
            }
        }
        if is_new {
            term.child_proofs.iter().for_each(|proof| walk(proof, seen, step));
        }
        last = Some(term);
    }
}
