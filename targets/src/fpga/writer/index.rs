//! Indices as sums, so that it can be seen which word they lead to and which bank.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::kernel::terms::Counters;
use crate::kernel::{Expr, ExprId, IndexFn, Kernel, Stmt, VarId};

/// Most terms of a sum that are told apart.
const MOST: usize = 32;

/// What a sum consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Atom {
    /// The block's number along an axis.
    Block(u8),
    /// A variable.
    Var(VarId),
    /// Something else.
    Other(ExprId),
    /// Where the index of a loop is that of the first lane.
    Base(VarId),
    /// The lane.
    Lane,
    /// The place in a vector of so many elements.
    Slot(u32),
}

/// A sum of multiples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Linear {
    pub terms: Vec<(Atom, i64)>,
    pub constant: i64,
}

/// A part of a quotient: what, how often, and what it is divided by, which it is a multiple of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub atom: Atom,
    pub times: i64,
    pub by: i64,
}

/// An index divided by a number: the quotient is that of `rest`, which is not negative, and all of `whole`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Split {
    pub whole: Vec<Part>,
    pub constant: i64,
    pub rest: Linear,
    /// Whether the rest is less than what is divided by.
    pub is_below: bool,
}

impl Linear {
    /// A known number.
    pub fn known(constant: i64) -> Linear {
        Linear { terms: Vec::new(), constant }
    }

    /// Something, once.
    pub fn of(atom: Atom) -> Linear {
        Linear { terms: vec![(atom, 1)], constant: 0 }
    }

    /// Adds a multiple of something.
    pub fn add(&mut self, atom: Atom, times: i64) -> Option<()> {
        match self.terms.iter_mut().find(|(own, _)| *own == atom) {
            Some((_, own)) => *own = own.checked_add(times)?,
            None => self.terms.push((atom, times)),
        }
        self.terms.retain(|&(_, times)| times != 0);
        (self.terms.len() <= MOST).then_some(())
    }

    /// The sum with a multiple of another.
    pub fn plus(mut self, other: &Linear, times: i64) -> Option<Linear> {
        for &(atom, own) in &other.terms {
            self.add(atom, own.checked_mul(times)?)?;
        }
        self.constant = self.constant.checked_add(other.constant.checked_mul(times)?)?;
        (i32::try_from(self.constant).is_ok()).then_some(self)
    }

    /// How often something is in it.
    pub fn times(&self, atom: Atom) -> i64 {
        self.terms.iter().find(|(own, _)| *own == atom).map_or(0, |&(_, times)| times)
    }
}

/// A loop whose index is the same for all lanes but for a multiple of the lane's number, which comes to the same end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stride {
    /// Where the first lane begins.
    pub base: Linear,
    /// How much further the next lane is.
    pub times: i64,
    /// Whether all lanes go through it equally often.
    pub is_even: bool,
    /// A number that the first lane's index is a multiple of.
    divisor: i64,
    /// The greatest that it can be; `None` if it may be negative.
    bound: Option<i64>,
}

/// What is known of the indices of a kernel.
pub(super) struct Indices<'k> {
    kernel: &'k Kernel,
    counters: Counters,
    /// What variables hold that keep it, if that is made of what stays the same as long as they do.
    definitions: Vec<Option<ExprId>>,
    known: RefCell<HashMap<ExprId, Linear>>,
    /// For the index of each loop, how it differs from lane to lane.
    strides: Vec<Option<Stride>>,
    /// Whether a variable is the index of a loop that all lanes go through alike.
    is_common: Vec<bool>,
}

impl<'k> Indices<'k> {
    /// Looks at a kernel that was checked.
    pub fn new(kernel: &'k Kernel) -> Self {
        let mut is_set = vec![false; kernel.vars.len()];
        for stmt in &kernel.body {
            if let Stmt::Set(var, _) | Stmt::Reduce { var, .. } = *stmt {
                is_set[var.index()] = true;
            }
        }
        let (definitions, known) = (vec![None; kernel.vars.len()], RefCell::default());
        let (strides, is_common) = (vec![None; kernel.vars.len()], vec![false; kernel.vars.len()]);
        let mut indices = Indices { kernel, counters: Counters::default(), definitions, known, strides, is_common };
        let mut keeps = vec![false; kernel.vars.len()];
        let mut pure = vec![false; kernel.exprs.len()];
        let mut first = 0;
        for stmt in &kernel.body {
            match *stmt {
                Stmt::For { var, from, to, step, .. } => {
                    keeps[var.index()] = !is_set[var.index()];
                    if keeps[var.index()] {
                        indices.counters.insert(kernel, var, (from, to, step));
                        indices.spread(var, (from, to, step));
                    }
                }
                Stmt::Let(var, value) if kernel.vars[var.index()].array.is_none() && !is_set[var.index()] => {
                    // Expressions come before what uses them, and variables are declared before they are read.
                    while first <= value.index() {
                        pure[first] = match kernel.exprs[first] {
                            Expr::Integer(_) | Expr::Thread | Expr::Block(_) | Expr::BlockNumber => true,
                            Expr::Var(var) => keeps[var.index()],
                            Expr::Index(_, a, b) => pure[a.index()] && pure[b.index()],
                            _ => false,
                        };
                        first += 1;
                    }
                    if pure[value.index()] {
                        keeps[var.index()] = true;
                        indices.definitions[var.index()] = Some(value);
                        indices.counters.keep(kernel, var, value);
                    }
                }
                _ => {}
            }
        }
        indices
    }

    /// Finds out how a loop differs from lane to lane.
    fn spread(&mut self, var: VarId, (from, to, step): (ExprId, ExprId, u32)) {
        let (from, to) = (self.linear(from), self.linear(to));
        let is_common = |&(atom, _): &(Atom, i64)| match atom {
            Atom::Block(_) => true,
            Atom::Var(var) => self.is_common[var.index()],
            Atom::Other(_) | Atom::Base(_) | Atom::Lane | Atom::Slot(_) => false,
        };
        let times = from.times(Atom::Lane);
        let terms = from.terms.iter().copied().filter(|&(atom, _)| atom != Atom::Lane).collect();
        let base = Linear { terms, constant: from.constant };
        if times < 0 || !base.terms.iter().chain(&to.terms).all(is_common) {
            return;
        }
        self.is_common[var.index()] = times == 0;
        if times == 0 {
            return;
        }
        let step = i64::from(step);
        let last = times * (i64::from(self.kernel.threads) - 1);
        let length = to.clone().plus(&base, -1).filter(|length| length.terms.is_empty());
        let is_even = last < step && length.is_some_and(|length| length.constant % step == 0);
        let divisor = gcd(base.constant.abs(), self.common_divisor(&base, step));
        let bound = self.bound(&base).and_then(|_| self.range(&to)).map(|(_, end)| (end - 1).max(0));
        let bound = bound.map(|most| most - most % divisor.max(1));
        self.strides[var.index()] = Some(Stride { base, times, is_even, divisor, bound });
    }

    /// How a loop's index differs from lane to lane, if it does so by a multiple of the lane's number.
    pub fn stride(&self, var: VarId) -> Option<&Stride> {
        self.strides[var.index()].as_ref()
    }

    /// An index as a sum.
    pub fn linear(&self, id: ExprId) -> Linear {
        if let Some(known) = self.known.borrow().get(&id) {
            return known.clone();
        }
        let linear = self.resolved(id).unwrap_or_else(|| Linear::of(Atom::Other(id)));
        self.known.borrow_mut().insert(id, linear.clone());
        linear
    }

    fn resolved(&self, id: ExprId) -> Option<Linear> {
        let kernel = self.kernel;
        match kernel.exprs[id.index()] {
            Expr::Integer(value) => Some(Linear::known(i64::from(value))),
            Expr::Thread if kernel.threads == 1 => Some(Linear::known(0)),
            Expr::Thread => Some(Linear::of(Atom::Lane)),
            Expr::BlockNumber => {
                let (mut number, mut stride) = (Linear::known(0), 1);
                for (axis, &blocks) in (0u8..).zip(&kernel.grid) {
                    if blocks > 1 {
                        number = number.plus(&Linear::of(Atom::Block(axis)), stride)?;
                    }
                    stride *= i64::from(blocks);
                }
                Some(number)
            }
            Expr::Block(axis) if kernel.grid[usize::from(axis)] == 1 => Some(Linear::known(0)),
            Expr::Block(axis) => Some(Linear::of(Atom::Block(axis))),
            Expr::Var(var) => match (self.definitions[var.index()], &self.strides[var.index()]) {
                (Some(value), _) => Some(self.linear(value)),
                (None, Some(stride)) => {
                    Some(Linear { terms: vec![(Atom::Base(var), 1), (Atom::Lane, stride.times)], constant: 0 })
                }
                (None, None) => Some(Linear::of(Atom::Var(var))),
            },
            Expr::Index(IndexFn::Add, a, b) => self.linear(a).plus(&self.linear(b), 1),
            Expr::Index(IndexFn::Sub, a, b) => self.linear(a).plus(&self.linear(b), -1),
            Expr::Index(IndexFn::Mul, a, b) => {
                let (a, b) = (self.linear(a), self.linear(b));
                match (a.terms.is_empty(), b.terms.is_empty()) {
                    (_, true) => Linear::default().plus(&a, b.constant),
                    (true, false) => Linear::default().plus(&b, a.constant),
                    (false, false) => None,
                }
            }
            _ => None,
        }
    }

    /// Whether something is not negative for sure.
    fn is_natural(&self, atom: Atom) -> bool {
        match atom {
            Atom::Block(_) | Atom::Lane | Atom::Slot(_) => true,
            Atom::Var(var) => self.counters.counter(var).is_some(),
            Atom::Other(id) => self.counters.is_natural(self.kernel, id),
            Atom::Base(var) => self.stride(var).is_some_and(|stride| stride.bound.is_some()),
        }
    }

    /// A number that something is a multiple of.
    fn divisor(&self, atom: Atom) -> i64 {
        match atom {
            Atom::Block(_) | Atom::Lane | Atom::Slot(_) => 1,
            Atom::Var(var) => self.counters.counter(var).map_or(1, |(divisor, _)| i64::from(divisor).max(1)),
            Atom::Other(id) => i64::from(self.counters.divisor(self.kernel, id)).max(1),
            Atom::Base(var) => self.stride(var).map_or(1, |stride| stride.divisor.max(1)),
        }
    }

    /// The greatest that something can be.
    fn atom_bound(&self, atom: Atom) -> Option<i64> {
        match atom {
            Atom::Block(axis) => Some(i64::from(self.kernel.grid[usize::from(axis)]) - 1),
            Atom::Lane => Some(i64::from(self.kernel.threads) - 1),
            Atom::Slot(count) => Some(i64::from(count) - 1),
            Atom::Var(var) => self.counters.counter(var).and_then(|(_, bound)| bound),
            Atom::Other(id) => self.counters.bound(self.kernel, id),
            Atom::Base(var) => self.stride(var).and_then(|stride| stride.bound),
        }
    }

    /// The least and the greatest that a sum can be, if that is known.
    pub fn range(&self, linear: &Linear) -> Option<(i64, i64)> {
        linear.terms.iter().try_fold((linear.constant, linear.constant), |(least, most), &(atom, times)| {
            let bound = if self.is_natural(atom) { self.atom_bound(atom)?.checked_mul(times)? } else { return None };
            Some((least.checked_add(bound.min(0))?, most.checked_add(bound.max(0))?))
        })
    }

    /// The greatest that a sum can be, if nothing in it is negative.
    pub fn bound(&self, linear: &Linear) -> Option<i64> {
        self.range(linear).filter(|&(least, _)| least >= 0).map(|(_, most)| most)
    }

    /// The greatest divisor of a number that all terms of a sum are multiples of.
    pub fn common_divisor(&self, linear: &Linear, of: i64) -> i64 {
        let multiple = |&(atom, times): &(Atom, i64)| times.saturating_mul(self.divisor(atom)).saturating_abs();
        linear.terms.iter().map(multiple).fold(of, gcd)
    }

    /// An index divided by a number; `None` if what is left of it may be negative.
    pub fn split(&self, linear: &Linear, by: i64) -> Option<Split> {
        // What is subtracted stays so if the rest is not negative even then.
        let signed = self.split_so(linear, by, |times| (times / by, times % by));
        let is_natural = |split: &Split| self.range(&split.rest).is_some_and(|(least, _)| least >= 0);
        signed
            .filter(is_natural)
            .or_else(|| self.split_so(linear, by, |times| (times.div_euclid(by), times.rem_euclid(by))))
    }

    /// The same with a way to part factors into a multiple of the number and what is left.
    fn split_so(&self, linear: &Linear, by: i64, part: impl Fn(i64) -> (i64, i64)) -> Option<Split> {
        let mut split = Split {
            whole: Vec::new(),
            constant: linear.constant.div_euclid(by),
            rest: Linear::known(linear.constant.rem_euclid(by)),
            is_below: false,
        };
        for &(atom, times) in &linear.terms {
            let (multiple, left) = part(times);
            let shared = gcd(times.abs(), by);
            if left == 0 {
                split.whole.push(Part { atom, times: multiple, by: 1 });
            } else if self.divisor(atom) % (by / shared) == 0 {
                split.whole.push(Part { atom, times: times / shared, by: by / shared });
            } else if self.is_natural(atom) {
                if multiple != 0 {
                    split.whole.push(Part { atom, times: multiple, by: 1 });
                }
                split.rest.terms.push((atom, left));
            } else {
                return None;
            }
        }
        split.is_below = self.bound(&split.rest).is_some_and(|bound| bound < by);
        Some(split)
    }
}

/// The greatest number that two are multiples of.
pub(super) fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;
    use crate::kernel::Builder;

    /// What an index is for a lane and a block.
    fn value(linear: &Linear, lane: i64, block: i64) -> i64 {
        let each = linear.terms.iter().map(|&(atom, times)| times * of(atom, lane, block));
        each.sum::<i64>() + linear.constant
    }

    fn of(atom: Atom, lane: i64, block: i64) -> i64 {
        match atom {
            Atom::Lane => lane,
            Atom::Block(_) => block,
            Atom::Var(_) | Atom::Other(_) | Atom::Base(_) | Atom::Slot(_) => 0,
        }
    }

    #[test]
    fn parts_make_the_whole() {
        for (times, constant) in [(1, 0), (3, 5), (-1, 15), (-1, 47), (-2, 30), (17, 16), (-17, 300)] {
            for (own, by) in [(16, 16), (64, 16), (24, 16), (5, 8), (1, 3)] {
                let mut builder = Builder::new("k", 16);
                let (lane, block) = (builder.thread(), builder.block(0));
                let (lane, block) = (builder.scaled(lane, times), builder.scaled(block, own));
                let sum = builder.add(block, lane);
                let constant = builder.integer(constant);
                let index = builder.add(sum, constant);
                let kernel = builder.finish([8, 1, 1], Vec::new());
                let indices = Indices::new(&kernel);
                let linear = indices.linear(index);
                let split = indices.split(&linear, by).unwrap();
                for lane in 0..16 {
                    for block in 0..8 {
                        let all = value(&linear, lane, block);
                        let rest = value(&split.rest, lane, block);
                        let parts = split.whole.iter().map(|part| of(part.atom, lane, block) * part.times / part.by);
                        let whole = parts.sum::<i64>() + split.constant;
                        assert_eq!(whole * by + rest, all);
                        assert!(rest >= 0 && (!split.is_below || rest < by), "{rest} of {split:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn lanes_that_begin_apart_have_a_base() {
        let mut builder = Builder::new("k", 16);
        let (lane, end) = (builder.thread(), builder.integer(64));
        let column = builder.loop_over("column", lane, end, 16);
        builder.end();
        let other = builder.integer(60);
        let uneven = builder.loop_over("uneven", lane, other, 16);
        builder.end();
        let kernel = builder.finish([1, 1, 1], Vec::new());
        let indices = Indices::new(&kernel);
        assert!(indices.stride(VarId(0)).unwrap().is_even && !indices.stride(VarId(1)).unwrap().is_even);
        let split = indices.split(&indices.linear(column), 16).unwrap();
        assert_eq!(split.whole, [Part { atom: Atom::Base(VarId(0)), times: 1, by: 16 }]);
        assert_eq!((split.rest, split.is_below), (Linear::of(Atom::Lane), true));
        assert_eq!(indices.range(&indices.linear(uneven)), Some((0, 48 + 15)));
    }
}
