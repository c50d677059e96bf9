//! How the lanes of an operation reach a memory.
//!
//! A memory has words of as many elements as it has banks (external memory: beats of as many elements as fit), so element `e` of a
//! parameter lies in bank `e % banks` of word `e / banks`. What an index is made of decides what hardware an access needs: where
//! only a part is known at run time that is a multiple of the banks, every lane's bank is known now, and lanes of one word share an
//! address ([`Pattern::Fixed`]). Where lanes are apart by known distances, but it is not known from which bank on, all banks are
//! behind a switch ([`Pattern::Shifted`]). Everything else is an address for each lane ([`Pattern::Scattered`]).
//!
//! [`Linear`] is what an index is made of, from which that is found.

use std::rc::Rc;

use super::nest::OpId;

/// How the lanes of a load or store are spread over a memory. Each has one copy of the access for every copy of the operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// The operand is the number of a word, the same for all lanes: copy `c` accesses bank `places[c].bank` of the word that lies
    /// `places[c].word` behind it.
    Fixed(Vec<Place>),
    /// The operand is the number of an element, the same for all lanes: copy `c` accesses the element `distances[c]` behind it.
    Shifted(Vec<i64>),
    /// The operand is the number of an element for each copy.
    Scattered,
}

/// Where a copy of a [`Pattern::Fixed`] access goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Words behind the one that the operand names.
    pub word: i64,
    /// The bank.
    pub bank: u32,
}

/// An index as a sum: values of operations, each times a number; a number that is known for each lane; and one for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Linear {
    /// Values that are known at run time, and what each is multiplied by, which is not 0; in the order of their ids.
    pub terms: Vec<(OpId, i64)>,
    /// What is added in each lane, with 0 in lane 0; nothing where that is 0 in all lanes.
    pub lanes: Option<Rc<[i64]>>,
    /// What is added in all lanes.
    pub constant: i64,
}

impl Linear {
    /// A number.
    pub fn known(constant: i64) -> Linear {
        Linear { constant, ..Linear::default() }
    }

    /// A number for each lane.
    pub fn of_lanes(values: impl Iterator<Item = i64>) -> Linear {
        let values: Vec<i64> = values.collect();
        let constant = values.first().copied().unwrap_or(0);
        let lanes: Rc<[i64]> = values.into_iter().map(|value| value - constant).collect();
        Linear { terms: Vec::new(), lanes: Some(lanes).filter(|lanes| lanes.iter().any(|&value| value != 0)), constant }
    }

    /// The value of an operation.
    pub fn term(op: OpId) -> Linear {
        Linear { terms: vec![(op, 1)], ..Linear::default() }
    }

    /// What is known of it if nothing but that is in it: a number for each lane, or one for all.
    pub fn as_known(&self, lanes: u32) -> Option<Vec<i64>> {
        self.terms.is_empty().then(|| match &self.lanes {
            None => vec![self.constant],
            Some(own) => (0..lanes as usize).map(|lane| own[lane] + self.constant).collect(),
        })
    }

    /// The number, if it is one that is the same for all lanes.
    pub fn as_constant(&self) -> Option<i64> {
        (self.terms.is_empty() && self.lanes.is_none()).then_some(self.constant)
    }

    /// The sum with another that is multiplied by a number; `None` where numbers become too large.
    pub fn plus(&self, other: &Linear, by: i64) -> Option<Linear> {
        let mut terms = Vec::with_capacity(self.terms.len() + other.terms.len());
        let (mut a, mut b) = (self.terms.iter().peekable(), other.terms.iter().peekable());
        loop {
            let (id, factor) = match (a.peek(), b.peek()) {
                (Some(&&(x, own)), Some(&&(y, _))) if x < y => (a.next().map(|_| x), own),
                (Some(&&(x, own)), Some(&&(y, more))) if x == y => {
                    a.next();
                    (b.next().map(|_| x), own.checked_add(more.checked_mul(by)?)?)
                }
                (_, Some(&&(y, more))) => (b.next().map(|_| y), more.checked_mul(by)?),
                (Some(&&(x, own)), None) => (a.next().map(|_| x), own),
                (None, None) => break,
            };
            if let (Some(id), true) = (id, factor != 0) {
                terms.push((id, factor));
            }
        }
        let lanes = match (&self.lanes, &other.lanes) {
            (own, None) => own.clone(),
            (own, Some(more)) => {
                let mut sums = Vec::with_capacity(more.len());
                for (lane, &more) in more.iter().enumerate() {
                    let own = own.as_ref().map_or(0, |own| own[lane]);
                    sums.push(own.checked_add(more.checked_mul(by)?)?);
                }
                Some(Rc::from(sums)).filter(|sums: &Rc<[i64]>| sums.iter().any(|&value| value != 0))
            }
        };
        let constant = self.constant.checked_add(other.constant.checked_mul(by)?)?;
        Some(Linear { terms, lanes, constant })
    }

    /// It times a number.
    pub fn times(&self, by: i64) -> Option<Linear> {
        Linear::default().plus(self, by)
    }

    /// What is added in each lane to the terms: one number, or one for each lane.
    pub fn offsets(&self) -> Vec<i64> {
        match &self.lanes {
            None => vec![self.constant],
            Some(lanes) => lanes.iter().map(|lane| lane + self.constant).collect(),
        }
    }

    /// The same for lanes that take part. Others go where the first of these goes, so that they want nothing of their own.
    pub fn of_active(&self, active: Option<&[bool]>) -> Linear {
        let (Some(active), Some(lanes)) = (active, &self.lanes) else { return self.clone() };
        let Some(first) = active.iter().position(|&active| active) else { return self.clone() };
        let lane = |(lane, &active): (usize, &bool)| self.constant + if active { lanes[lane] } else { lanes[first] };
        let offsets = Linear::of_lanes(active.iter().enumerate().map(lane));
        Linear { terms: self.terms.clone(), ..offsets }
    }

    /// The greatest number that what it is multiplied by has in common, 0 without terms.
    pub fn common_factor(&self) -> i64 {
        self.terms.iter().fold(0, |common, &(_, factor)| greatest_common_divisor(common, factor))
    }
}

/// The greatest number that two are multiples of.
pub fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a.saturating_abs() } else { greatest_common_divisor(b, a.checked_rem(b).unwrap_or(0)) }
}

/// Values of lanes with as few copies as hold them: neighbours that all have the same are one, in groups of equal size, a power of
/// two.
pub fn condensed<T: PartialEq + Clone>(mut values: Vec<T>) -> Vec<T> {
    while values.len().is_multiple_of(2) && values.len() > 1 && values.chunks(2).all(|pair| pair[0] == pair[1]) {
        values = values.iter().step_by(2).cloned().collect();
    }
    let is_same = values.len() > 1 && values.iter().all(|value| *value == values[0]);
    if is_same {
        values.truncate(1);
    }
    values
}

impl Pattern {
    /// How lanes reach words of so many elements by an index with these terms and offsets.
    pub fn of(linear: &Linear, banks: u32) -> Pattern {
        let banks = i64::from(banks.max(1));
        let offsets = condensed(linear.offsets());
        if linear.common_factor() % banks == 0 {
            let place = |offset: i64| Place { word: offset.div_euclid(banks), bank: offset.rem_euclid(banks) as u32 };
            Pattern::Fixed(offsets.into_iter().map(place).collect())
        } else {
            Pattern::Shifted(offsets)
        }
    }

    /// The same with so many copies, of which it has some: neighbours do the same.
    pub fn with_copies(self, copies: u32) -> Pattern {
        fn spread<T: Clone>(values: Vec<T>, copies: u32) -> Vec<T> {
            let each = (copies as usize / values.len().max(1)).max(1);
            values.into_iter().flat_map(|value| std::iter::repeat_n(value, each)).collect()
        }
        match self {
            Pattern::Fixed(places) => Pattern::Fixed(spread(places, copies)),
            Pattern::Shifted(distances) => Pattern::Shifted(spread(distances, copies)),
            Pattern::Scattered => Pattern::Scattered,
        }
    }

    /// Elements that are accessed, as far as that is known.
    pub fn copies(&self) -> Option<u32> {
        match self {
            Pattern::Fixed(places) => Some(places.len() as u32),
            Pattern::Shifted(distances) => Some(distances.len() as u32),
            Pattern::Scattered => None,
        }
    }
}
