//! Arithmetic of indices, as far as what they are made of says what comes out.
//!
//! An index is a sum of values that are known at run time, each times a number, and of what is known for each lane. Where quotients,
//! comparisons and selections keep that form, lanes' banks stay known, and what is the same for all lanes is computed once.

use super::OpId;
use super::values::Values;
use crate::fpga::access::{Linear, greatest_common_divisor};
use crate::fpga::widths::Range;
use crate::kernel::IndexFn;

impl Values {
    /// What arithmetic of indices is without an operation of its own, or with simpler ones.
    pub fn simpler(&mut self, function: IndexFn, (a, x): (OpId, &Linear), (b, y): (OpId, &Linear)) -> Option<OpId> {
        match (function, x.as_constant(), y.as_constant()) {
            (IndexFn::Add | IndexFn::Sub | IndexFn::Xor, _, Some(0)) | (IndexFn::Mul | IndexFn::Div, _, Some(1)) => {
                Some(a)
            }
            (IndexFn::Add | IndexFn::Xor, Some(0), _) | (IndexFn::Mul, Some(1), _) => Some(b),
            (IndexFn::Mul, Some(0), _) | (IndexFn::Mul, _, Some(0)) | (IndexFn::Mod, _, Some(1)) => {
                Some(self.integer(0))
            }
            (IndexFn::And, Some(0), _) | (IndexFn::And, _, Some(0)) => Some(self.integer(0)),
            (IndexFn::And, _, Some(_)) if self.range(a) == Range::TRUTH => Some(a),
            (IndexFn::And, Some(_), _) if self.range(b) == Range::TRUTH => Some(b),
            (IndexFn::Div | IndexFn::Mod, _, Some(by)) if by > 1 => self.divided(function, x, by),
            (IndexFn::Xor, _, Some(by)) => self.flipped(x, by),
            (IndexFn::Lt | IndexFn::Ge, ..) => {
                let difference = self.linear_range(&x.plus(y, -1)?);
                let is_less = match (difference.high < 0, difference.low >= 0) {
                    (true, _) => true,
                    (_, true) => false,
                    _ => return self.compared(function, x, y.as_constant()?),
                };
                Some(self.integer(i64::from(is_less == (function == IndexFn::Lt))))
            }
            _ => None,
        }
    }

    /// A sum of a multiple of a number, and what is below it, divided by it.
    fn divided(&mut self, function: IndexFn, x: &Linear, by: i64) -> Option<OpId> {
        if self.linear_range(x).low < 0 {
            return None;
        }
        let (whole, rest): (Vec<_>, Vec<_>) = x.terms.iter().partition(|&&(_, factor)| factor % by == 0);
        let left = Linear { terms: rest, lanes: x.lanes.clone(), constant: x.constant };
        if let Some(known) = left.as_known(self.lanes) {
            // Quotients of what is not negative as a whole round towards zero however it is parted.
            let result: Vec<i64> = known
                .iter()
                .map(|&value| match function {
                    IndexFn::Div => value.div_euclid(by),
                    _ => value.rem_euclid(by),
                })
                .collect();
            let known = self.integers(result);
            let terms = if function == IndexFn::Div {
                whole.into_iter().map(|(id, factor)| (id, factor / by)).collect()
            } else {
                Vec::new()
            };
            let sum = self.sum(&terms);
            return Some(match sum {
                Some(sum) => self.index(IndexFn::Add, sum, known),
                None => known,
            });
        }
        let range = self.linear_range(&left);
        if range.low < 0 || range.high >= i128::from(by) {
            return self.parted(function, (whole, left), by);
        }
        match function {
            IndexFn::Div => {
                let terms: Vec<_> = whole.into_iter().map(|(id, factor)| (id, factor / by)).collect();
                Some(match self.sum(&terms) {
                    Some(sum) => sum,
                    None => self.integer(0),
                })
            }
            _ if whole.is_empty() => None,
            _ => {
                let offsets = left.offsets();
                let known = self.integers(offsets);
                Some(match self.sum(&left.terms) {
                    Some(sum) => self.index(IndexFn::Add, sum, known),
                    None => known,
                })
            }
        }
    }

    /// The same where what is known is less than all that other terms are multiples of, and so makes no difference to the quotient.
    fn parted(&mut self, function: IndexFn, (whole, left): (Vec<(OpId, i64)>, Linear), by: i64) -> Option<OpId> {
        let rest = Linear { terms: left.terms.clone(), ..Linear::default() };
        let unit = greatest_common_divisor(rest.common_factor(), by);
        let is_below = |offset: &i64| (0..unit).contains(offset);
        if unit <= 1 || self.linear_range(&rest).low < 0 || !left.offsets().iter().all(is_below) {
            return None;
        }
        let terms: Vec<_> = rest.terms.iter().map(|&(id, factor)| (id, factor / unit)).collect();
        let sum = self.sum(&terms)?;
        let by_units = self.integer(by / unit);
        let result = self.index(function, sum, by_units);
        if function == IndexFn::Div {
            let terms: Vec<_> = whole.into_iter().map(|(id, factor)| (id, factor / by)).collect();
            return Some(match self.sum(&terms) {
                Some(sum) => self.index(IndexFn::Add, sum, result),
                None => result,
            });
        }
        let unit = self.integer(unit);
        let before = self.index(IndexFn::Mul, result, unit);
        let known = self.integers(left.offsets());
        Some(self.index(IndexFn::Add, before, known))
    }

    /// An index some bits of which are turned over, where these are known.
    fn flipped(&mut self, x: &Linear, by: i64) -> Option<OpId> {
        let unit = x.common_factor();
        let unit = unit & unit.wrapping_neg();
        let is_below = |offset: &i64| (0..unit).contains(offset);
        let rest = Linear { terms: x.terms.clone(), ..Linear::default() };
        if !is_below(&by) || !x.offsets().iter().all(is_below) || self.linear_range(&rest).low < 0 {
            return None;
        }
        let known = self.integers(x.offsets().into_iter().map(|offset| offset ^ by).collect());
        let sum = self.sum(&x.terms)?;
        Some(self.index(IndexFn::Add, sum, known))
    }

    /// Whether an index is below a known one, or not, where that is the same for all lanes.
    fn compared(&mut self, function: IndexFn, x: &Linear, limit: i64) -> Option<OpId> {
        let unit = x.common_factor();
        if x.lanes.is_none() || unit <= 1 {
            return None;
        }
        // With a multiple of the unit and less than that above it, only the multiple counts.
        let multiples: Vec<i64> = x.offsets().into_iter().map(|offset| (offset - limit).div_euclid(unit)).collect();
        let first = *multiples.first()?;
        if multiples.iter().any(|&multiple| multiple != first) {
            return None;
        }
        let terms: Vec<_> = x.terms.iter().map(|&(id, factor)| (id, factor / unit)).collect();
        let sum = self.sum(&terms)?;
        let limit = self.integer(-first);
        Some(self.index(function, sum, limit))
    }

    /// One of two indices that differ by what is known, where lanes have such of their own: what they are made of stays known.
    pub fn selected(&mut self, condition: OpId, a: OpId, b: OpId) -> Option<OpId> {
        let (x, y) = (self.linear(a), self.linear(b));
        if x.terms != y.terms || !self.is_integer(a) || !self.is_integer(b) {
            return None;
        }
        if let Some(holds) = self.linear(condition).as_known(self.lanes) {
            let of = |values: &[i64], lane: usize| values[if values.len() == 1 { 0 } else { lane }];
            let (x, y) = (x.offsets(), y.offsets());
            let chosen = (0..self.lanes as usize).map(|lane| of(if of(&holds, lane) != 0 { &x } else { &y }, lane));
            let known = self.integers(chosen.collect());
            let terms = self.linear(a).terms.clone();
            return Some(match self.sum(&terms) {
                Some(sum) => self.index(IndexFn::Add, sum, known),
                None => known,
            });
        }
        let is_truth = self.op(condition).copies == 1 && Range::TRUTH.holds(self.range(condition));
        if !is_truth || x.lanes.is_none() || x.lanes != y.lanes {
            return None;
        }
        let difference = self.integer(x.constant - y.constant);
        let more = self.index(IndexFn::Mul, condition, difference);
        Some(self.index(IndexFn::Add, b, more))
    }
}
