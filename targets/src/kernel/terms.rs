//! What is known of indices: that they are multiples of numbers, how large they are at most, and that they are not negative.

use std::collections::HashMap;

use super::{Expr, ExprId, IndexFn, Kernel, VarId};

/// Most parts of a sum that are looked at.
const MOST: usize = 16;

/// What is known of the indices of loops, and of variables that keep what they hold; none of them is negative.
#[derive(Debug, Default)]
pub(crate) struct Counters(HashMap<VarId, Counter>);

#[derive(Clone, Copy, Debug)]
struct Counter {
    /// What it is a multiple of.
    divisor: i32,
    /// The greatest that it can be.
    bound: Option<i64>,
}

impl Counters {
    /// Remembers a loop from one index to another, by a step.
    pub fn insert(&mut self, kernel: &Kernel, var: VarId, (from, to, step): (ExprId, ExprId, u32)) {
        if self.is_natural(kernel, from) {
            let divisor = common(self.divisor(kernel, from), i32::try_from(step).unwrap_or(1));
            let bound = self.bound(kernel, to).map(|end| end - 1);
            self.0.insert(var, Counter { divisor, bound });
        }
    }

    /// Remembers a variable that goes on to hold a value.
    pub fn keep(&mut self, kernel: &Kernel, var: VarId, value: ExprId) {
        if self.is_natural(kernel, value) {
            let counter = Counter { divisor: self.divisor(kernel, value), bound: self.bound(kernel, value) };
            self.0.insert(var, counter);
        }
    }

    /// A number that a counter is a multiple of, and the greatest that it can be; `None` of what is none.
    pub fn counter(&self, var: VarId) -> Option<(i32, Option<i64>)> {
        self.0.get(&var).map(|counter| (counter.divisor, counter.bound))
    }

    /// Whether an index, and all that it is made of, is not negative for sure.
    pub fn is_natural(&self, kernel: &Kernel, id: ExprId) -> bool {
        match kernel.exprs[id.index()] {
            Expr::Integer(value) => value >= 0,
            Expr::Thread | Expr::Block(_) | Expr::BlockNumber => true,
            Expr::Var(var) => self.0.contains_key(&var),
            Expr::Index(IndexFn::Sub, ..) => false,
            Expr::Index(_, a, b) => self.is_natural(kernel, a) && self.is_natural(kernel, b),
            _ => false,
        }
    }

    /// A number that an index is a multiple of; 0 if it is 0.
    pub fn divisor(&self, kernel: &Kernel, id: ExprId) -> i32 {
        match kernel.exprs[id.index()] {
            Expr::Integer(value) => value.saturating_abs(),
            Expr::Var(var) => self.0.get(&var).map_or(1, |counter| counter.divisor),
            Expr::Index(IndexFn::Mul, a, b) => {
                self.divisor(kernel, a).checked_mul(self.divisor(kernel, b)).unwrap_or(1)
            }
            Expr::Index(IndexFn::Add, a, b) => common(self.divisor(kernel, a), self.divisor(kernel, b)),
            _ => 1,
        }
    }

    /// The greatest that an index can be, if that is known.
    pub fn bound(&self, kernel: &Kernel, id: ExprId) -> Option<i64> {
        Some(match kernel.exprs[id.index()] {
            Expr::Integer(value) => i64::from(value),
            Expr::Thread => i64::from(kernel.threads) - 1,
            Expr::Var(var) => self.0.get(&var)?.bound?,
            Expr::Index(function, a, b) => match function {
                IndexFn::Add => self.bound(kernel, a)?.checked_add(self.bound(kernel, b)?)?,
                IndexFn::Mul => self.bound(kernel, a)?.checked_mul(self.bound(kernel, b)?)?,
                IndexFn::Div => self.bound(kernel, a)? / positive(kernel, b)?,
                IndexFn::Mod => {
                    let most = positive(kernel, b)? - 1;
                    self.bound(kernel, a).map_or(most, |bound| bound.min(most))
                }
                IndexFn::Lt | IndexFn::Ge | IndexFn::Eq | IndexFn::And | IndexFn::Or => 1,
                IndexFn::Sub | IndexFn::Min | IndexFn::Max | IndexFn::Xor => return None,
            },
            _ => return None,
        })
    }

    /// The parts of a sum that are multiples of a number, and the others; `None` if there are too many, or one may be negative.
    pub fn parted(&self, kernel: &Kernel, id: ExprId, by: i32) -> Option<[Vec<ExprId>; 2]> {
        if !self.is_natural(kernel, id) {
            return None;
        }
        let (mut open, mut parts) = (vec![id], [Vec::new(), Vec::new()]);
        while let Some(id) = open.pop() {
            match kernel.exprs[id.index()] {
                Expr::Index(IndexFn::Add, a, b) => open.extend([b, a]),
                _ => parts[usize::from(self.divisor(kernel, id) % by != 0)].push(id),
            }
            if parts[0].len() + parts[1].len() + open.len() > MOST {
                return None;
            }
        }
        Some(parts)
    }
}

/// A known index above 0.
fn positive(kernel: &Kernel, id: ExprId) -> Option<i64> {
    match kernel.exprs[id.index()] {
        Expr::Integer(value) if value > 0 => Some(i64::from(value)),
        _ => None,
    }
}

/// The greatest number that two are multiples of.
fn common(a: i32, b: i32) -> i32 {
    if b == 0 { a } else { common(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::super::{Builder, Scalar};
    use super::*;

    #[test]
    fn multiples_come_out_of_quotients() {
        let mut builder = Builder::new("k", 64);
        let (thread, block, two) = (builder.thread(), builder.block(0), builder.integer(2));
        let before = builder.scaled(block, 64);
        let index = builder.add(before, thread);
        assert_eq!(builder.divided(index, 64), (block, thread));
        assert_eq!(builder.divided(thread, 64).1, thread);
        let twice = builder.scaled(block, 2);
        let (lane, warp) = (builder.divided(thread, 32).1, builder.divided(thread, 32).0);
        assert_eq!(builder.divided(index, 32).1, lane);
        assert_eq!(builder.divided(index, 32).0, builder.add(warp, twice));
        // What is known is added last, whatever it is divided by.
        let from = builder.integer(128);
        let moved = builder.add(index, from);
        let quotient = builder.add(block, two);
        assert_eq!(builder.divided(moved, 64), (quotient, thread));
        // What is kept, and loops.
        let kept = builder.keep("kept", Scalar::I32, before);
        let sum = builder.add(kept, thread);
        assert_eq!(builder.divided(sum, 64).1, thread);
        let (zero, end) = (builder.integer(0), builder.integer(1024));
        let counter = builder.loop_over("i", zero, end, 64);
        let sum = builder.add(counter, thread);
        assert_eq!(builder.divided(sum, 64).1, thread);
        assert_eq!(builder.divided(counter, 1024), (zero, counter));
    }

    #[test]
    fn what_may_be_negative_stays() {
        let mut builder = Builder::new("k", 64);
        let (thread, block) = (builder.thread(), builder.block(0));
        let before = builder.scaled(block, 64);
        let five = builder.integer(5);
        let less = builder.index(IndexFn::Sub, thread, five);
        let index = builder.add(before, less);
        assert_ne!(builder.divided(index, 64).0, block);
        let kept = builder.keep("less", Scalar::I32, less);
        let index = builder.add(before, kept);
        assert_ne!(builder.divided(index, 64), (block, kept));
        let back = builder.scaled(thread, -1);
        let index = builder.add(before, back);
        assert_ne!(builder.divided(index, 64), (block, back));
    }
}
