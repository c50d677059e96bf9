//! The order in which a function touches the elements of a parameter: found by going through all iterations of its loops, so that
//! nothing is assumed of how indices go on.

use crate::fpga::access::Pattern;
use crate::fpga::nest::{ArrayId, Item, Kind, LoopId, Nest, OpId};

/// Most accesses of one parameter that are gone through.
const MOST_STEPS: usize = 1 << 21;

/// How a function touches one of its parameters, from first to last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::fpga) struct Order {
    /// Elements that an access touches, counted from where it goes, in the order of its lanes.
    patterns: Vec<Vec<i64>>,
    /// Each access: its pattern, and where it goes.
    steps: Vec<(u32, i64)>,
}

impl Order {
    /// The order of words of so many elements: each access touches whole words, one behind the other; `None` if some does not.
    pub fn words(&self, width: u32) -> Option<Vec<u64>> {
        let width = i64::from(width.max(1));
        let chunks = |pattern: &Vec<i64>| -> Option<Vec<i64>> {
            let first = *pattern.first()?;
            let is_word = |word: &[i64]| {
                let begins = word.first().is_some_and(|at| (at - first) % width == 0);
                begins && word.len() as i64 == width && word.windows(2).all(|pair| pair[1] == pair[0] + 1)
            };
            let in_order = pattern.windows(2).all(|pair| pair[0] < pair[1]);
            let whole = in_order && pattern.chunks(width as usize).all(is_word);
            whole.then(|| pattern.iter().copied().step_by(width as usize).collect())
        };
        let patterns: Vec<Vec<i64>> = self.patterns.iter().map(chunks).collect::<Option<_>>()?;
        let mut words = Vec::with_capacity(self.steps.len());
        for &(pattern, base) in &self.steps {
            for first in &patterns[pattern as usize] {
                let at = base.checked_add(*first)?;
                if at < 0 || at % width != 0 {
                    return None;
                }
                words.push((at / width) as u64);
            }
        }
        Some(words)
    }

    /// Words of an access, at the most, if they have so many elements.
    pub fn most_words(&self, width: u32) -> usize {
        self.patterns.iter().map(|pattern| pattern.len().div_ceil(width.max(1) as usize)).max().unwrap_or(0)
    }
}

/// Whether each word is there just once.
pub(in crate::fpga) fn is_once(words: &[u64]) -> bool {
    let Some(&most) = words.iter().max() else { return true };
    // With as many places as words, a gap means that another is there twice.
    if most >= words.len() as u64 {
        return false;
    }
    let mut seen = vec![false; words.len()];
    words.iter().all(|&word| !std::mem::replace(&mut seen[word as usize], true))
}

/// How a function touches a parameter or a memory of its own; `None` if that depends on data, or is different from lane to lane.
pub(in crate::fpga) fn order(nest: &Nest, array: ArrayId) -> Option<Order> {
    let mut walk = Walk {
        nest,
        array,
        counters: vec![0; nest.ops.len()],
        order: Order { patterns: Vec::new(), steps: Vec::new() },
        numbers: vec![None; nest.ops.len()],
        touches: vec![false; nest.blocks.len()],
        has: vec![None; nest.loops.len()],
    };
    for (number, block) in nest.blocks.iter().enumerate() {
        walk.touches[number] = block.ops.iter().any(|&id| walk.is_own(id));
    }
    walk.items(&nest.body)?;
    Some(walk.order)
}

struct Walk<'n> {
    nest: &'n Nest,
    array: ArrayId,
    /// What counters are now.
    counters: Vec<i64>,
    order: Order,
    /// The pattern of each access.
    numbers: Vec<Option<u32>>,
    /// Blocks in which the array is touched.
    touches: Vec<bool>,
    /// Loops in which it is, as far as that was asked.
    has: Vec<Option<bool>>,
}

impl Walk<'_> {
    fn is_own(&self, id: OpId) -> bool {
        matches!(&self.nest.ops[id.index()].kind, Kind::Load(own, _) | Kind::Store(own, _) if *own == self.array)
    }

    fn touch(&mut self, items: &[Item]) -> bool {
        items.iter().any(|item| match item {
            Item::Block(id) => self.touches[id.index()],
            Item::Loop(id) => self.loop_touches(*id),
            Item::Branch { then, otherwise, .. } => self.touch(then) || self.touch(otherwise),
        })
    }

    fn loop_touches(&mut self, id: LoopId) -> bool {
        if let Some(known) = self.has[id.index()] {
            return known;
        }
        let nest = self.nest;
        let found = self.touch(&nest.loops[id.index()].body);
        self.has[id.index()] = Some(found);
        found
    }

    fn items(&mut self, items: &[Item]) -> Option<()> {
        let nest = self.nest;
        for item in items {
            match item {
                Item::Block(id) if self.touches[id.index()] => {
                    for &op in &nest.blocks[id.index()].ops {
                        if self.is_own(op) {
                            self.access(op)?;
                        }
                    }
                }
                Item::Block(_) => {}
                Item::Loop(id) => {
                    if self.loop_touches(*id) {
                        self.repeat(*id)?;
                    }
                }
                // What is done only sometimes takes words only sometimes.
                Item::Branch { then, otherwise, .. } => {
                    if self.touch(then) || self.touch(otherwise) {
                        return None;
                    }
                }
            }
        }
        Some(())
    }

    fn repeat(&mut self, id: LoopId) -> Option<()> {
        let own = &self.nest.loops[id.index()];
        own.counters.iter().for_each(|counter| self.counters[counter.op.index()] = 0);
        loop {
            self.items(&own.body)?;
            let mut place = own.counters.len();
            loop {
                let Some(next) = place.checked_sub(1) else { return Some(()) };
                place = next;
                let counter = own.counters[place];
                let value = &mut self.counters[counter.op.index()];
                *value += 1;
                if (*value as u64) < counter.trips {
                    break;
                }
                *value = 0;
            }
        }
    }

    fn access(&mut self, id: OpId) -> Option<()> {
        let nest = self.nest;
        let op = &nest.ops[id.index()];
        let (Kind::Load(array, pattern) | Kind::Store(array, pattern)) = &op.kind else { return None };
        if op.predicate.is_some() || self.order.steps.len() >= MOST_STEPS {
            return None;
        }
        let banks = i64::from(nest.arrays[array.index()].banks.max(1));
        let (scale, offsets): (i64, Vec<i64>) = match (self.numbers[id.index()], pattern) {
            (Some(_), Pattern::Fixed(_)) => (banks, Vec::new()),
            (Some(_), _) => (1, Vec::new()),
            (None, Pattern::Fixed(places)) => {
                (banks, places.iter().map(|place| place.word * banks + i64::from(place.bank)).collect())
            }
            (None, Pattern::Shifted(distances)) => (1, distances.clone()),
            (None, Pattern::Scattered) => return None,
        };
        let number = match self.numbers[id.index()] {
            Some(number) => number,
            None => {
                let mut distinct: Vec<i64> = Vec::with_capacity(offsets.len());
                let mut seen = std::collections::HashSet::new();
                distinct.extend(offsets.into_iter().filter(|&offset| seen.insert(offset)));
                let known = self.order.patterns.iter().position(|own| *own == distinct);
                let number = known.unwrap_or_else(|| {
                    self.order.patterns.push(distinct);
                    self.order.patterns.len() - 1
                }) as u32;
                self.numbers[id.index()] = Some(number);
                number
            }
        };
        let at = match nest.reached.get(&id) {
            Some(terms) => {
                let mut sum = 0i64;
                for &(term, by) in terms {
                    sum = sum.checked_add(self.value(term)?.checked_mul(by)?)?;
                }
                sum
            }
            None => self.value(*op.operands.first()?)?,
        };
        self.order.steps.push((number, at.checked_mul(scale)?));
        Some(())
    }

    /// What an operation gives that is the same for all lanes and follows from counters alone.
    fn value(&self, id: OpId) -> Option<i64> {
        let op = &self.nest.ops[id.index()];
        if op.copies != 1 {
            return None;
        }
        match &op.kind {
            Kind::Counter(_) => Some(self.counters[id.index()]),
            Kind::Constant(values) => values.first().map(|&value| value as i64),
            Kind::Index(function) => {
                let [a, b] = [*op.operands.first()?, *op.operands.get(1)?];
                let (a, b) = (i32::try_from(self.value(a)?).ok()?, i32::try_from(self.value(b)?).ok()?);
                function.of(a, b).map(i64::from)
            }
            _ => None,
        }
    }
}
