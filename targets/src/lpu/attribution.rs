//! Where the cycles of a program went: for each the kind of unit that it counts for, and for how many units were busy.

use super::LpuMachine;
use super::isa::{Hemisphere, Operation, Queues};
use super::timeline::{Span, spans};
use super::units::{UnitKind, hemisphere};

/// Cycles by what was dispatched in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attribution {
    /// Cycles that count for each kind of unit: the first that dispatched something.
    pub kinds: [u64; UnitKind::COUNT],
    /// Cycles in which units of a kind, in the west (0) and in the east (1), dispatched something; ALUs count as west.
    pub busy: [[u64; 2]; UnitKind::COUNT],
}

/// Cycles that are looked at together. They bound the memory that is taken, whatever the program says.
const WINDOW: u64 = 1 << 14;

/// A bit for each cycle of a window.
type Mask = [u64; (WINDOW / 64) as usize];

/// Whether a span is work of a unit and not the queue's own.
pub(super) fn is_work(span: &Span<'_>) -> bool {
    !matches!(
        span.operation,
        Operation::Nop(_) | Operation::Repeat { .. } | Operation::Sync | Operation::Notify | Operation::End
    )
}

/// Attributes the cycles of a program that goes on after its syncs in the cycles `resumes`.
pub(super) fn attribute(program: &Queues, resumes: &[Vec<u64>], machine: &LpuMachine) -> Attribution {
    let mut walks: Vec<_> = machine
        .queues()
        .into_iter()
        .zip(program.0.iter().zip(resumes))
        .map(|(queue, (operations, resumes))| {
            let side = hemisphere(queue, machine).map_or(0, Hemisphere::index);
            let walk = Walk { spans: spans(operations, resumes).filter(is_work), current: None };
            (UnitKind::of(queue).index(), side, walk)
        })
        .collect();
    let mut attribution = Attribution::default();
    let mut masks = [[[0; (WINDOW / 64) as usize]; 2]; UnitKind::COUNT];
    loop {
        let Some(start) = walks.iter_mut().filter_map(|(.., walk)| walk.next()).min() else { return attribution };
        masks.iter_mut().flatten().for_each(|mask| mask.fill(0));
        for (kind, side, walk) in &mut walks {
            walk.mark(start, &mut masks[*kind][*side]);
        }
        for (kind, sides) in masks.iter().enumerate() {
            for (side, mask) in sides.iter().enumerate() {
                attribution.busy[kind][side] += mask.iter().map(|word| u64::from(word.count_ones())).sum::<u64>();
            }
        }
        for word in 0..(WINDOW / 64) as usize {
            let mut taken = 0;
            for (kind, [west, east]) in masks.iter().enumerate() {
                let busy = west[word] | east[word];
                attribution.kinds[kind] += u64::from((busy & !taken).count_ones());
                taken |= busy;
            }
        }
    }
}

/// Dispatches of a queue that are still to come.
struct Walk<S> {
    spans: S,
    current: Option<Rest>,
}

/// The rest of a span: the next dispatch, how many there are from it on, and the cycles from one to another.
struct Rest {
    next: u64,
    left: u64,
    interval: u64,
}

impl<'a, S: Iterator<Item = Span<'a>>> Walk<S> {
    /// The cycle of the next dispatch.
    fn next(&mut self) -> Option<u64> {
        if self.current.is_none() {
            self.current = self.spans.next().map(|span| Rest {
                next: span.first,
                left: u64::from(span.count) + 1,
                interval: u64::from(span.interval),
            });
        }
        self.current.as_ref().map(|rest| rest.next)
    }

    /// Passes over all dispatches in the window from a cycle on, and sets their bits.
    fn mark(&mut self, start: u64, mask: &mut Mask) {
        while let Some(first) = self.next().and_then(|next| next.checked_sub(start)).filter(|&first| first < WINDOW) {
            let Some(rest) = &mut self.current else { return };
            let within = (WINDOW - 1 - first) / rest.interval.max(1) + 1;
            let count = rest.left.min(within);
            if rest.interval <= 1 {
                fill(mask, first, count);
            } else {
                (0..count).map(|index| first + index * rest.interval).for_each(|bit| fill(mask, bit, 1));
            }
            rest.left -= count;
            rest.next = rest.next.saturating_add(count.saturating_mul(rest.interval));
            if rest.left == 0 {
                self.current = None;
            }
        }
    }
}

/// Sets so many bits from the first on.
fn fill(mask: &mut Mask, first: u64, count: u64) {
    let (mut bit, end) = (first, first + count);
    while bit < end {
        let within = bit % 64;
        let bits = (64 - within).min(end - bit);
        mask[(bit / 64) as usize] |= (u64::MAX >> (64 - bits)) << within;
        bit += bits;
    }
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::lpu::arbitrary::dataflow::cases;
    use crate::lpu::assembly::assemble;
    use crate::lpu::machine::tests::small_machine;
    use crate::lpu::timeline::resumes;

    fn attributed(program: &Queues) -> Attribution {
        let machine = small_machine();
        attribute(program, &resumes(program, &machine), &machine)
    }

    /// The same, cycle by cycle.
    fn one_by_one(program: &Queues) -> Attribution {
        let machine = small_machine();
        let mut cycles: BTreeMap<u64, BTreeSet<(usize, usize)>> = BTreeMap::new();
        for (queue, (operations, resumes)) in
            machine.queues().into_iter().zip(program.0.iter().zip(resumes(program, &machine)))
        {
            let side = hemisphere(queue, &machine).map_or(0, Hemisphere::index);
            for span in spans(operations, &resumes).filter(is_work) {
                for repetition in 0..=span.count {
                    cycles.entry(span.cycle(repetition)).or_default().insert((UnitKind::of(queue).index(), side));
                }
            }
        }
        let mut attribution = Attribution::default();
        for units in cycles.values() {
            attribution.kinds[units.first().unwrap().0] += 1;
            units.iter().for_each(|&(kind, side)| attribution.busy[kind][side] += 1);
        }
        attribution
    }

    #[test]
    fn random_programs_are_attributed_as_cycle_by_cycle() {
        for case in cases(&small_machine(), 40, 7) {
            assert_eq!(attributed(&case.program), one_by_one(&case.program));
        }
    }

    #[test]
    fn long_programs_are_too() {
        let text = format!(
            "mem 0:\n nop {w}\n read 0x0 -> e0\n repeat 40000 every 3\n end\n\
             mem 5:\n nop 70\n read 0x0 -> e0\n repeat {w} every 1\n end\n\
             alu 1:\n nop 100\n copy f32 e0..3\n repeat 9000 every 17\n end\n\
             others:\n end\n",
            w = WINDOW
        );
        let program = assemble(&text, &small_machine()).unwrap();
        let attribution = attributed(&program);
        assert_eq!(attribution, one_by_one(&program));
        assert_eq!(attribution.kinds[UnitKind::Vector.index()], 9001);
        assert_eq!(attribution.busy[UnitKind::Memory.index()], [40_001, WINDOW + 1]);
    }
}
