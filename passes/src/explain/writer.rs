//! Terms for people: operators by name, and symbols for values that are not looked into.

use std::collections::BTreeMap;

use egg::{Id, TreeTerm};

use super::Symbol;
use super::proof::End;
use crate::egraph::{EGraph, Knowledge, Term};

/// Most operators that are written of a term, and how deep.
#[derive(Clone, Copy)]
struct Extent {
    operators: usize,
    depth: usize,
}

/// Of a part that one rule rewrites: rules see a few levels.
const PART: Extent = Extent { operators: 16, depth: 5 };

/// Of all that a kernel computes.
const WHOLE: Extent = Extent { operators: 48, depth: 24 };

/// A value that has a symbol instead of a term.
pub(super) struct Opaque {
    pub id: Id,
    pub name: String,
}

/// Writes terms, and keeps count of the symbols in them.
pub(super) struct Writer<'a> {
    knowledge: &'a Knowledge,
    opaque: BTreeMap<Term, Known>,
    numbers: BTreeMap<Term, usize>,
    /// In the order of their first use.
    pub symbols: Vec<Symbol>,
    constants: usize,
}

/// What is known of a value that has a symbol.
#[derive(Clone)]
struct Known {
    name: String,
    ty: String,
    constant: bool,
}

impl<'a> Writer<'a> {
    pub fn new(egraph: &'a EGraph, opaque: impl IntoIterator<Item = Opaque>) -> Self {
        let opaque = opaque.into_iter().map(|Opaque { id, name }| {
            let facts = &egraph[id].data;
            let ty = facts.types.first().map_or_else(String::new, ToString::to_string);
            (egraph.id_to_node(id).clone(), Known { name, ty, constant: facts.constant })
        });
        Writer {
            knowledge: &egraph.analysis,
            opaque: opaque.collect(),
            numbers: BTreeMap::new(),
            symbols: Vec::new(),
            constants: 0,
        }
    }

    /// What a rule rewrites, or what that becomes.
    pub fn part(&mut self, term: &TreeTerm<Term>, end: End) -> String {
        self.write(term, end, PART)
    }

    /// All that a kernel computes.
    pub fn whole(&mut self, term: &TreeTerm<Term>, end: End) -> String {
        self.write(term, end, WHOLE)
    }

    fn write(&mut self, term: &TreeTerm<Term>, end: End, extent: Extent) -> String {
        let mut text = String::new();
        let mut left = extent.operators;
        self.write_term(&mut text, term, end, extent.depth, &mut left);
        text
    }

    fn write_term(&mut self, out: &mut String, term: &TreeTerm<Term>, end: End, depth: usize, left: &mut usize) {
        if let Some(symbol) = self.symbol(&term.node) {
            out.push_str(&symbol);
            return;
        }
        if depth == 0 || *left == 0 {
            out.push('…');
            return;
        }
        *left -= 1;
        match &term.node {
            Term::Output { index, .. } => out.push_str(&format!("result {index} of ")),
            Term::Leaf(_) | Term::Apply { .. } => out.push_str(&term.node.to_string()),
        }
        out.push('(');
        for (number, proof) in term.child_proofs.iter().enumerate() {
            if number > 0 {
                out.push_str(", ");
            }
            let child = match end {
                End::First => proof.first(),
                End::Last => proof.last(),
            };
            if let Some(child) = child {
                self.write_term(out, child, end, depth - 1, left);
            }
        }
        out.push(')');
    }

    /// The symbol of a value that is not looked into; the number itself for a constant that is one.
    fn symbol(&mut self, term: &Term) -> Option<String> {
        let leaf = match term {
            Term::Leaf(leaf) => Some(self.knowledge.leaf(*leaf)),
            Term::Apply { .. } | Term::Output { .. } => None,
        };
        let single = leaf.and_then(|leaf| leaf.value.as_ref()).filter(|value| value.ty().shape.count() == 1);
        if let Some([number]) = single.and_then(|value| value.to_f64s().ok()).as_deref() {
            return Some(written(*number));
        }
        if let Some(&number) = self.numbers.get(term) {
            return Some(self.symbols[number].symbol.clone());
        }
        // Constants that rules made have no names.
        let made = leaf.map(|leaf| Known { name: String::new(), ty: leaf.ty.to_string(), constant: leaf.constant });
        let Known { name, ty, constant } = self.opaque.get(term).cloned().or(made)?;
        self.constants += usize::from(constant);
        let symbol = match constant {
            true => format!("w{}", self.constants),
            false => format!("x{}", self.symbols.len() + 1 - self.constants),
        };
        self.numbers.insert(term.clone(), self.symbols.len());
        self.symbols.push(Symbol { symbol: symbol.clone(), name, ty });
        Some(symbol)
    }
}

/// A number in as few digits as tell it from other binary32 numbers.
fn written(number: f64) -> String {
    let number = number as f32;
    match number.abs() {
        0.0 => "0".to_owned(),
        size if (1e-4..1e6).contains(&size) => number.to_string(),
        _ => format!("{number:e}"),
    }
}
