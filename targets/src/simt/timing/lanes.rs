//! What the lanes of a warp hold of an index, as far as it is known before data is.

use std::rc::Rc;

use crate::kernel::IndexFn;

/// Most lanes of a warp.
pub(super) const MAX_LANES: usize = 64;

/// An index in each lane. What depends on data has a part that is known nevertheless, with 0 for what was loaded: of
/// `768 row + lane` with a loaded row, that is the lane.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lanes {
    /// Whether it depends on data.
    pub is_unknown: bool,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    /// Evenly spaced: the first lane's, and what each lane has more than the one before it.
    Line { first: i64, step: i64 },
    /// Anything: what each lane has, and what all have more than that. What differs by the same in all lanes shares the rest.
    Each { more: i64, values: Rc<Values> },
}

impl PartialEq for Form {
    fn eq(&self, other: &Form) -> bool {
        match (self, other) {
            (Form::Line { first, step }, Form::Line { first: a, step: b }) => (first, step) == (a, b),
            (Form::Each { more, values }, Form::Each { more: a, values: b }) => {
                more == a && Rc::ptr_eq(values, b)
                    || values.each.iter().zip(&b.each).all(|(x, y)| x.wrapping_add(*more) == y.wrapping_add(*a))
            }
            _ => false,
        }
    }
}

/// What lanes have, and the least and the greatest of it.
#[derive(Clone, Debug)]
pub(super) struct Values {
    each: [i64; MAX_LANES],
    least: i64,
    most: i64,
}

impl Form {
    fn each(each: [i64; MAX_LANES]) -> Form {
        let (least, most) = each.iter().fold((i64::MAX, i64::MIN), |(low, high), &x| (low.min(x), high.max(x)));
        Form::Each { more: 0, values: Rc::new(Values { each, least, most }) }
    }
}

/// How lanes differ from each other.
#[derive(Clone, Debug)]
pub(super) enum Spacing {
    /// Evenly, by so much.
    Even(i64),
    /// In some way.
    Any(Rc<Values>),
}

impl Lanes {
    /// The same in all lanes.
    pub fn same(value: i64) -> Lanes {
        Lanes::line(value, 0)
    }

    /// Evenly spaced.
    pub fn line(first: i64, step: i64) -> Lanes {
        Lanes { is_unknown: false, form: Form::Line { first, step } }
    }

    /// What comes from data.
    pub fn unknown() -> Lanes {
        Lanes { is_unknown: true, ..Lanes::same(0) }
    }

    /// A value for each lane.
    pub fn each(value: impl Fn(usize) -> i64) -> Lanes {
        Lanes { is_unknown: false, form: Form::each(std::array::from_fn(value)) }
    }

    /// What a lane holds.
    pub fn at(&self, lane: usize) -> i64 {
        match &self.form {
            Form::Line { first, step } => first + step * lane as i64,
            Form::Each { more, values } => values.each[lane].wrapping_add(*more),
        }
    }

    /// The first lane's and the step, if lanes are evenly spaced.
    pub fn as_line(&self) -> Option<(i64, i64)> {
        match self.form {
            Form::Line { first, step } => Some((first, step)),
            Form::Each { .. } => None,
        }
    }

    /// The least that a lane has, if lanes are not evenly spaced; lanes that there are not have some of that too.
    pub fn least(&self) -> Option<i64> {
        match &self.form {
            Form::Line { .. } => None,
            Form::Each { more, values } => values.least.checked_add(*more),
        }
    }

    /// How lanes differ from each other, and what stands for where they all are.
    pub fn spacing(&self) -> (Spacing, i64) {
        match &self.form {
            Form::Line { first, step } => (Spacing::Even(*step), *first),
            Form::Each { more, values } => (Spacing::Any(values.clone()), *more),
        }
    }

    /// All lanes by so much more.
    pub fn plus(&self, more: i64) -> Lanes {
        let form = match &self.form {
            Form::Line { first, step } => Form::Line { first: first.wrapping_add(more), step: *step },
            Form::Each { more: before, values } => {
                Form::Each { more: before.wrapping_add(more), values: values.clone() }
            }
        };
        Lanes { is_unknown: self.is_unknown, form }
    }

    /// All lanes by so much more, if they are not evenly spaced, and what they had and have then fits into 32 bits.
    fn moved(&self, by: i64) -> Option<Form> {
        let Form::Each { more, values } = &self.form else { return None };
        let after = more.checked_add(by)?;
        let fits =
            |more: i64| [values.least, values.most].iter().all(|&end| i32::try_from(end.wrapping_add(more)).is_ok());
        (fits(*more) && fits(after)).then(|| Form::Each { more: after, values: values.clone() })
    }

    /// Arithmetic of indices, as [`IndexFn::of`], with 0 for what is no index.
    pub fn index(function: IndexFn, a: &Lanes, b: &Lanes, lanes: usize) -> Lanes {
        let is_unknown = a.is_unknown || b.is_unknown;
        let form = match (a.as_line(), b.as_line()) {
            (Some(a), Some(b)) => of_lines(function, a, b, lanes as i64),
            (Some((by, 0)), None) if function == IndexFn::Add => b.moved(by),
            (None, Some((by, 0))) if function == IndexFn::Add => a.moved(by),
            _ => None,
        };
        let fits = |form: &Form| match form {
            Form::Line { first, step } => {
                [*first, first + step * (lanes as i64 - 1)].iter().all(|&end| i32::try_from(end).is_ok())
            }
            Form::Each { .. } => true,
        };
        // What leaves 32 bits stops a launch; here it is found lane by lane, and is 0.
        let form = form.filter(fits);
        let form = form.unwrap_or_else(|| {
            Form::each(std::array::from_fn(|lane| {
                if lane < lanes { function_of(function, a.at(lane), b.at(lane)) } else { 0 }
            }))
        });
        Lanes { is_unknown, form }
    }

    /// In lanes of a mask what another holds, else what is here.
    pub fn set(&self, other: &Lanes, mask: u64, lanes: usize) -> Lanes {
        if mask == full(lanes) || self == other {
            return other.clone();
        }
        let value = |lane: usize| if mask >> lane & 1 == 1 { other.at(lane) } else { self.at(lane) };
        let form = Form::each(std::array::from_fn(value));
        Lanes { is_unknown: self.is_unknown || other.is_unknown, form }
    }

    /// The lanes that do not hold 0.
    pub fn holds(&self, lanes: usize) -> u64 {
        match self.form {
            Form::Line { first, step: 0 } => {
                if first == 0 {
                    0
                } else {
                    full(lanes)
                }
            }
            _ => (0..lanes).filter(|&lane| self.at(lane) != 0).fold(0, |mask, lane| mask | 1 << lane),
        }
    }

    /// The lanes that hold less than another has.
    pub fn below(&self, other: &Lanes, lanes: usize) -> u64 {
        match (self.as_line(), other.as_line()) {
            (Some((a, 0)), Some((b, 0))) => {
                if a < b {
                    full(lanes)
                } else {
                    0
                }
            }
            _ => (0..lanes).filter(|&lane| self.at(lane) < other.at(lane)).fold(0, |mask, lane| mask | 1 << lane),
        }
    }
}

/// All lanes.
pub(super) fn full(lanes: usize) -> u64 {
    if lanes >= MAX_LANES { u64::MAX } else { (1 << lanes) - 1 }
}

fn function_of(function: IndexFn, a: i64, b: i64) -> i64 {
    match (i32::try_from(a), i32::try_from(b)) {
        (Ok(a), Ok(b)) => function.of(a, b).map_or(0, i64::from),
        _ => 0,
    }
}

/// The result as a line, if it is one and that is easy to see.
fn of_lines(function: IndexFn, (a, s): (i64, i64), (b, t): (i64, i64), lanes: i64) -> Option<Form> {
    let line = |first, step| Some(Form::Line { first, step });
    if s == 0 && t == 0 {
        return line(function_of(function, a, b), 0);
    }
    let last = lanes - 1;
    // What both hold in the last lane; in between lies what is in between.
    let (x, y) = (a + s * last, b + t * last);
    let same_truth = |truth: fn(i64, i64) -> bool| {
        let (first, end) = (truth(a, b), truth(x, y));
        if first == end { line(i64::from(first), 0) } else { None }
    };
    match function {
        IndexFn::Add => line(a + b, s + t),
        IndexFn::Sub => line(a - b, s - t),
        IndexFn::Mul if t == 0 => line(a * b, s * b),
        IndexFn::Mul if s == 0 => line(a * b, a * t),
        IndexFn::Div if t == 0 && b > 0 && a >= 0 && x >= 0 && a / b == x / b => line(a / b, 0),
        IndexFn::Div if t == 0 && b > 0 && a >= 0 && x >= 0 && a % b == 0 && s % b == 0 => line(a / b, s / b),
        IndexFn::Mod if t == 0 && b > 0 && a >= 0 && x >= 0 && a / b == x / b => line(a % b, s),
        IndexFn::Mod if t == 0 && b > 0 && a >= 0 && x >= 0 && s % b == 0 => line(a % b, 0),
        IndexFn::Min if a <= b && x <= y => line(a, s),
        IndexFn::Min if a >= b && x >= y => line(b, t),
        IndexFn::Max if a >= b && x >= y => line(a, s),
        IndexFn::Max if a <= b && x <= y => line(b, t),
        IndexFn::Lt => same_truth(|a, b| a < b),
        IndexFn::Ge => same_truth(|a, b| a >= b),
        IndexFn::Eq if (a < b) == (x < y) && a != b && x != y => line(0, 0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_what_lanes_hold() {
        let functions = [
            IndexFn::Add,
            IndexFn::Sub,
            IndexFn::Mul,
            IndexFn::Div,
            IndexFn::Mod,
            IndexFn::Min,
            IndexFn::Max,
            IndexFn::Xor,
            IndexFn::Lt,
            IndexFn::Ge,
            IndexFn::Eq,
            IndexFn::And,
            IndexFn::Or,
        ];
        let numbers = [-7, 0, 1, 3, 31, 32, 64, 100, i64::from(i32::MAX), i64::from(i32::MIN)];
        for function in functions {
            for a in numbers {
                for b in numbers {
                    for (s, t) in [(0, 0), (1, 0), (0, 1), (4, 0), (-1, 2), (32, 0), (1, 1)] {
                        let (x, y) = (Lanes::line(a, s), Lanes::line(b, t));
                        if [x.at(31), y.at(31)].iter().any(|&end| i32::try_from(end).is_err()) {
                            continue;
                        }
                        let found = Lanes::index(function, &x, &y, 32);
                        for lane in 0..32 {
                            let wanted = function_of(function, x.at(lane), y.at(lane));
                            assert_eq!(found.at(lane), wanted, "{function:?} {a}+{s}i {b}+{t}i at {lane}");
                        }
                    }
                }
            }
        }
    }
}
