//! Operators that operations share: those of a block that never start in the same cycle, of an interval if there is one.

use std::collections::{BTreeMap, HashMap};

use super::usage::is_shared;
use crate::fpga::nest::{Nest, OpId};
use crate::fpga::operators::{Class, Part};

/// What operations of a block need of operators that are shared.
pub(super) struct Shared {
    parts: HashMap<OpId, Vec<Part>>,
}

impl Shared {
    /// Of a block with these operations.
    pub fn new(nest: &Nest, ops: &[OpId], clock_hz: u64) -> Shared {
        let mut parts = HashMap::new();
        for &id in ops {
            let mut own = nest.operator(id, clock_hz).parts;
            own.retain(|part| is_shared(part.class));
            if !own.is_empty() {
                parts.insert(id, own);
            }
        }
        Shared { parts }
    }

    /// The least numbers of operators: all busy in each cycle of an interval, or as many as are there anyway, but enough for the copies of an
    /// operation.
    pub fn least(&self, interval: Option<u32>, there: &BTreeMap<Class, u64>) -> BTreeMap<Class, u64> {
        let mut sums: BTreeMap<Class, (u64, u64)> = BTreeMap::new();
        for part in self.parts.values().flatten() {
            let (sum, most) = sums.entry(part.class).or_default();
            (*sum, *most) = (*sum + u64::from(part.count), u64::from(part.count).max(*most));
        }
        let least = |(class, (sum, most)): (Class, (u64, u64))| {
            let count = match interval {
                // Copies of an operation start together.
                Some(interval) => sum.div_ceil(most * u64::from(interval)) * most,
                None => there.get(&class).copied().unwrap_or(0).max(most),
            };
            (class, count)
        };
        sums.into_iter().map(least).collect()
    }

    /// The numbers of operators that are busy at a time if operations start in some cycles.
    pub fn needed(&self, starts: &HashMap<OpId, u32>, interval: Option<u32>) -> BTreeMap<Class, u64> {
        let mut used: HashMap<(Class, u32), u64> = HashMap::new();
        for (id, parts) in &self.parts {
            for part in parts {
                let cycle = starts[id] + part.after;
                let slot = interval.map_or(cycle, |interval| cycle % interval);
                *used.entry((part.class, slot)).or_default() += u64::from(part.count);
            }
        }
        let mut needed = BTreeMap::new();
        for ((class, _), count) in used {
            let most: &mut u64 = needed.entry(class).or_default();
            *most = count.max(*most);
        }
        needed
    }
}

/// Which operators are busy when.
pub(super) struct Busy<'s> {
    shared: &'s Shared,
    limits: &'s BTreeMap<Class, u64>,
    interval: Option<u32>,
    used: HashMap<(Class, u32), u64>,
}

impl<'s> Busy<'s> {
    /// Nothing is busy.
    pub fn new(shared: &'s Shared, limits: &'s BTreeMap<Class, u64>, interval: Option<u32>) -> Busy<'s> {
        Busy { shared, limits, interval, used: HashMap::new() }
    }

    /// Has an operation keep its operators busy, in the first cycle from one on in which they are free.
    ///
    /// # Errors
    /// There is none: a class of operators that there are too few of.
    pub fn take(&mut self, id: OpId, from: u32) -> Result<u32, Class> {
        let Some(parts) = self.shared.parts.get(&id) else { return Ok(from) };
        let end = self.interval.map_or(u32::MAX, |interval| from.saturating_add(interval));
        let slot = |cycle: u32| self.interval.map_or(cycle, |interval| cycle % interval);
        let lacking = |start: u32| {
            parts.iter().find(|part| {
                let used = self.used.get(&(part.class, slot(start + part.after))).copied().unwrap_or(0);
                used + u64::from(part.count) > self.limits.get(&part.class).copied().unwrap_or(u64::MAX)
            })
        };
        let mut last = None;
        for start in from..end {
            match lacking(start) {
                None => {
                    last = Some(Ok(start));
                    break;
                }
                Some(part) => last = Some(Err(part.class)),
            }
        }
        let found = last.unwrap_or(Ok(from))?;
        for part in parts {
            *self.used.entry((part.class, slot(found + part.after))).or_default() += u64::from(part.count);
        }
        Ok(found)
    }
}
