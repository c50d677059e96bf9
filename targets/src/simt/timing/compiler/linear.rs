//! Indices of accesses as sums of multiples and a constant.
//!
//! Compilers for these machines take constants out of indices however deep they stand, since an access has room for one, and share
//! what is left among all accesses that differ in nothing else (LLVM's SeparateConstOffsetFromGEP was written for that). So what
//! an index costs depends on its terms and not on how it is written: each term is one instruction, and the sum of those that do not
//! change in a loop is computed before it.

use std::collections::HashMap;

use super::super::code::{NOTHING, Slot};
use super::super::resource::Unit;
use super::Compiler;
use crate::kernel::{Expr, ExprId, IndexFn, Memory};

/// Expressions that are not known, each with what it is multiplied by, in order.
type Terms = Vec<(ExprId, i32)>;

/// What sums and addresses are held in.
#[derive(Debug)]
pub(super) struct Linear {
    held: HashMap<Held, Slot>,
    /// What was computed in each scope.
    scopes: Vec<Vec<Held>>,
    /// The variables that change in each loop that is open, and which expressions stay the same there, as far as that is known.
    loops: Vec<(Vec<bool>, Vec<Option<bool>>)>,
    /// Indices whose values warps know, and those of each scope.
    is_tracked: Vec<bool>,
    tracked: Vec<Vec<ExprId>>,
}

/// A sum, or an address in memory from it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Held {
    memory: Option<Memory>,
    terms: Terms,
}

impl Linear {
    /// Nothing is computed yet of so many expressions.
    pub fn new(expressions: usize) -> Linear {
        Linear {
            held: HashMap::new(),
            scopes: vec![Vec::new()],
            loops: Vec::new(),
            is_tracked: vec![false; expressions],
            tracked: vec![Vec::new()],
        }
    }

    pub fn open(&mut self) {
        self.scopes.push(Vec::new());
        self.tracked.push(Vec::new());
    }

    pub fn close(&mut self) {
        for held in self.scopes.pop().unwrap_or_default() {
            self.held.remove(&held);
        }
        for id in self.tracked.pop().unwrap_or_default() {
            self.is_tracked[id.index()] = false;
        }
    }

    /// Opens a loop in which variables change.
    pub fn enter(&mut self, changes: &[bool]) {
        self.loops.push((changes.to_vec(), vec![None; self.is_tracked.len()]));
    }

    pub fn leave(&mut self) {
        self.loops.pop();
    }

    /// Forgets what was computed from some expressions, which are in order.
    pub fn forget(&mut self, readers: &[ExprId]) {
        readers.iter().for_each(|id| self.is_tracked[id.index()] = false);
        let reads = |held: &Held| held.terms.iter().any(|(id, _)| readers.binary_search(id).is_ok());
        self.held.retain(|held, _| !reads(held));
    }

    fn hold(&mut self, held: Held, slot: Slot) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.push(held.clone());
        }
        self.held.insert(held, slot);
    }
}

impl Compiler<'_> {
    /// Computes where an access goes: one instruction, unless the index is known or another access goes to the same place but
    /// for what is added.
    pub(super) fn address(&mut self, memory: Memory, index: ExprId) -> Slot {
        self.track(index);
        let terms = self.terms(index);
        self.address_of(memory, terms)
    }

    fn address_of(&mut self, memory: Memory, terms: Terms) -> Slot {
        if terms.is_empty() {
            return NOTHING;
        }
        let held = Held { memory: Some(memory), terms };
        if let Some(&slot) = self.linear.held.get(&held) {
            let at = self.here();
            self.lives.touch(slot, at);
            return slot;
        }
        // What one term is multiplied by is multiplied by the size of an element.
        let from = match held.terms[..] {
            [(term, _)] => self.demand(term),
            _ => self.sum(&held.terms),
        };
        let slot = self.slot();
        let registers = match memory {
            Memory::Buffer(_) => 2,
            Memory::Shared(_) => 1,
        };
        self.begin(slot, registers);
        self.issue(Unit::I32, [from, NOTHING, NOTHING], slot, None);
        self.linear.hold(held, slot);
        slot
    }

    /// Computes before a loop what stays of an address, and returns the rest.
    pub(super) fn hoist_address(
        &mut self,
        memory: Memory,
        index: ExprId,
        (changes, known): (&[bool], &mut [Option<bool>]),
    ) -> Vec<ExprId> {
        let terms = self.terms(index);
        let (staying, changing): (Terms, Terms) =
            terms.into_iter().partition(|&(id, _)| self.stays(id, changes, known));
        // What only counters of loops that are written out are added to is a part of the access.
        if changing.iter().all(|&(id, _)| self.becomes_known(id)) {
            self.address_of(memory, staying);
        } else {
            self.sum(&staying);
        }
        changing.into_iter().map(|(id, _)| id).collect()
    }

    /// Whether an index follows from counters of loops that are written out.
    fn becomes_known(&self, id: ExprId) -> bool {
        match self.kernel.exprs[id.index()] {
            Expr::Integer(_) => true,
            Expr::Var(var) => self.analysis.is_written_out[var.index()],
            Expr::Index(_, a, b) => self.becomes_known(a) && self.becomes_known(b),
            _ => false,
        }
    }

    /// Has the sum of terms in a slot.
    fn sum(&mut self, terms: &[(ExprId, i32)]) -> Slot {
        match *terms {
            [] => return NOTHING,
            [(term, 1)] => return self.demand(term),
            _ => {}
        }
        let held = Held { memory: None, terms: terms.to_vec() };
        if let Some(&slot) = self.linear.held.get(&held) {
            let at = self.here();
            self.lives.touch(slot, at);
            return slot;
        }
        let mut changing: Terms = terms.to_vec();
        let mut so_far = NOTHING;
        if let Some((changes, mut known)) = self.linear.loops.pop() {
            let staying: Terms;
            (staying, changing) = terms.iter().partition(|&&(id, _)| self.stays(id, &changes, &mut known));
            self.linear.loops.push((changes, known));
            if changing.is_empty() {
                changing = staying;
            } else {
                so_far = self.sum(&staying);
            }
        }
        // What is taken as it is comes first, since that costs nothing.
        if so_far == NOTHING
            && let Some(first) = changing.iter().position(|&(_, factor)| factor == 1)
        {
            so_far = self.demand(changing.remove(first).0);
        }
        for (term, _) in changing {
            let term = self.demand(term);
            let next = self.slot();
            self.begin(next, 1);
            self.issue(Unit::I32, [term, so_far, NOTHING], next, None);
            so_far = next;
        }
        self.linear.hold(held, so_far);
        so_far
    }

    /// The terms of an index, without what is known.
    fn terms(&self, index: ExprId) -> Terms {
        let mut terms = Terms::new();
        self.add_terms(index, 1, &mut terms);
        terms.retain(|&(_, factor)| factor != 0);
        terms.sort_unstable();
        terms
    }

    fn add_terms(&self, id: ExprId, factor: i32, terms: &mut Terms) {
        if self.known(id).is_some() {
            return;
        }
        match self.kernel.exprs[id.index()] {
            Expr::Index(IndexFn::Add, a, b) => {
                self.add_terms(a, factor, terms);
                self.add_terms(b, factor, terms);
            }
            Expr::Index(IndexFn::Sub, a, b) => {
                self.add_terms(a, factor, terms);
                self.add_terms(b, factor.wrapping_neg(), terms);
            }
            Expr::Index(IndexFn::Mul, a, b) => match (self.known(a), self.known(b)) {
                (None, Some(by)) => self.add_terms(a, factor.wrapping_mul(by), terms),
                (Some(by), None) => self.add_terms(b, factor.wrapping_mul(by), terms),
                _ => add_term(id, factor, terms),
            },
            _ => add_term(id, factor, terms),
        }
    }

    /// Has warps know an index, without computing sums that only addresses are made of.
    fn track(&mut self, id: ExprId) {
        if self.known(id).is_some() || self.is_there[id.index()] || self.linear.is_tracked[id.index()] {
            return;
        }
        let expr = self.kernel.exprs[id.index()];
        match expr {
            Expr::Index(IndexFn::Add | IndexFn::Sub, a, b) => {
                [a, b].into_iter().for_each(|operand| self.track(operand))
            }
            Expr::Index(IndexFn::Mul, a, b) if self.known(a).is_some() || self.known(b).is_some() => {
                [a, b].into_iter().for_each(|operand| self.track(operand));
            }
            _ => {
                self.demand(id);
                return;
            }
        }
        self.value(id, expr);
        self.linear.is_tracked[id.index()] = true;
        if let Some(tracked) = self.linear.tracked.last_mut() {
            tracked.push(id);
        }
    }
}

fn add_term(id: ExprId, factor: i32, terms: &mut Terms) {
    match terms.iter_mut().find(|(term, _)| *term == id) {
        Some((_, own)) => *own = own.wrapping_add(factor),
        None => terms.push((id, factor)),
    }
}
