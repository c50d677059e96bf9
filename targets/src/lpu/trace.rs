//! What every unit did when, for people: a track for each queue that does something, with the stretches of time in which it
//! works on one kernel. Dispatches that are close to each other are shown as one.

use super::LpuMachine;
use super::attribution::is_work;
use super::isa::{AluFn, Operation, Queues};
use super::marks::{Mark, Owners};
use super::timeline::{Span, Spans, spans};
use crate::target::TraceSpan;

/// Most spans that are shown: a file of about 40 MB, which a viewer still opens.
const MAX_SPANS: usize = 1 << 18;

/// The most cycles without a dispatch within one span, where there are not too many spans.
pub(super) const GAP: u64 = 4;

/// Most operations that a span names.
const NAMED: usize = 3;

/// A program to be traced: its queues, when they go on after syncs, and whose their instructions are.
#[derive(Clone, Copy)]
pub(super) struct Traced<'a> {
    pub queues: &'a Queues,
    pub resumes: &'a [Vec<u64>],
    pub marks: &'a [Vec<Mark>],
}

impl<'a> Traced<'a> {
    /// The cycles without a dispatch that spans reach across: as few as there can be without too many spans.
    pub fn gap(self) -> u64 {
        self.gap_for(MAX_SPANS)
    }

    fn gap_for(self, most: usize) -> u64 {
        let mut counts = [0usize; u64::BITS as usize];
        let queues = self.queues.0.iter().zip(self.resumes).zip(self.marks);
        for ((operations, resumes), marks) in queues {
            let mut owners = Owners::new(marks);
            let mut before = None;
            for span in spans(operations, resumes).filter(is_work) {
                let kernel = owners.of(span.index);
                // How often the least gap is doubled until a stretch reaches across what lies before the span.
                let doublings = match before {
                    Some((owner, end)) if owner == kernel => {
                        let idle: u64 = span.first.saturating_sub(end);
                        idle.div_ceil(GAP).max(1).next_power_of_two().trailing_zeros() as usize
                    }
                    _ => counts.len() - 1,
                };
                counts[doublings.min(counts.len() - 1)] += 1;
                before = Some((kernel, span.last().saturating_add(1)));
            }
        }
        let mut stretches: usize = counts.iter().sum();
        let mut gap = GAP;
        for reached in counts {
            stretches -= reached;
            if stretches <= most || gap >= u64::MAX / 2 {
                break;
            }
            gap *= 2;
        }
        gap
    }

    /// The spans, in the order of the machine's queues. `name` gives the names of kernels.
    pub fn spans(self, machine: &LpuMachine, name: impl Fn(usize) -> &'a str) -> Vec<TraceSpan> {
        let units: Vec<String> = machine.queues().iter().map(ToString::to_string).collect();
        self.stretches(self.gap())
            .map(|stretch| TraceSpan {
                unit: units.get(stretch.queue).cloned().unwrap_or_default().into(),
                name: match stretch.kernel {
                    Some(kernel) => format!("{} {}", name(kernel), stretch.operations()),
                    None => stretch.operations(),
                },
                start: stretch.start,
                cycles: stretch.end - stretch.start,
            })
            .collect()
    }

    /// The stretches of all queues.
    fn stretches(self, gap: u64) -> impl Iterator<Item = Stretch> + 'a {
        let queues = self.queues.0.iter().zip(self.resumes).zip(self.marks).enumerate();
        queues.flat_map(move |(queue, ((operations, resumes), marks))| Stretches {
            spans: spans(operations, resumes),
            owners: Owners::new(marks),
            queue,
            gap,
            begun: None,
        })
    }
}

/// A time in which a queue works on one kernel.
struct Stretch {
    queue: usize,
    kernel: Option<usize>,
    start: u64,
    /// The cycle after the last dispatch.
    end: u64,
    /// Names of what is dispatched, at most one more than are shown.
    names: Vec<&'static str>,
}

impl Stretch {
    fn add(&mut self, span: &Span<'_>) {
        self.end = span.last().saturating_add(1);
        let name = operation_name(span.operation);
        if self.names.len() <= NAMED && !self.names.contains(&name) {
            self.names.push(name);
        }
    }

    /// What is dispatched, in words.
    fn operations(&self) -> String {
        let shown = self.names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
        if self.names.len() > NAMED { shown + ", …" } else { shown }
    }
}

/// The stretches of one queue.
struct Stretches<'a> {
    spans: Spans<'a>,
    owners: Owners<'a>,
    queue: usize,
    gap: u64,
    /// The stretch that may go on.
    begun: Option<Stretch>,
}

impl Iterator for Stretches<'_> {
    type Item = Stretch;

    fn next(&mut self) -> Option<Stretch> {
        for span in self.spans.by_ref() {
            if !is_work(&span) {
                continue;
            }
            let kernel = self.owners.of(span.index);
            match &mut self.begun {
                Some(begun) if begun.kernel == kernel && span.first.saturating_sub(begun.end) <= self.gap => {
                    begun.add(&span);
                }
                begun => {
                    let mut stretch =
                        Stretch { queue: self.queue, kernel, start: span.first, end: span.first, names: Vec::new() };
                    stretch.add(&span);
                    if let Some(over) = begun.replace(stretch) {
                        return Some(over);
                    }
                }
            }
        }
        self.begun.take()
    }
}

/// What an instruction does, in a word or two.
fn operation_name(operation: &Operation) -> &'static str {
    match operation {
        Operation::Nop(_) => "nop",
        Operation::Repeat { .. } => "repeat",
        Operation::Sync => "sync",
        Operation::Notify => "notify",
        Operation::End => "end",
        Operation::Mem { write: None, .. } => "read",
        Operation::Mem { read: None, .. } => "write",
        Operation::Mem { .. } => "read and write",
        Operation::Gather { .. } => "gather",
        Operation::Alu(alu) => match alu.function {
            AluFn::Copy(_) => "copy",
            AluFn::Unary(function, _) => function.name(),
            AluFn::Binary(function, _) => function.name(),
            AluFn::Select(_) => "select",
            AluFn::Accumulate { function, .. } => function.name(),
        },
        Operation::Load { .. } => "load",
        Operation::Install => "install",
        Operation::Multiply { .. } => "multiply",
        Operation::Accumulate { add: true, .. } => "accumulate",
        Operation::Accumulate { add: false, .. } => "overwrite",
        Operation::Shift { rotate: false, .. } => "shift",
        Operation::Shift { rotate: true, .. } => "rotate",
        Operation::Distribute { .. } => "distribute",
        Operation::Transpose { .. } => "transpose",
    }
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;
    use crate::lpu::assembly::assemble;
    use crate::lpu::machine::tests::small_machine;
    use crate::lpu::timeline::resumes;

    fn traced(text: &str, marks: &[(u32, u32)], check: impl FnOnce(Traced<'_>)) {
        let machine = small_machine();
        let queues = assemble(&format!("{text}others:\n end\n"), &machine).unwrap();
        let resumes = resumes(&queues, &machine);
        let own = marks.iter().map(|&(instructions, kernel)| Mark { instructions, kernel }).collect::<Vec<_>>();
        let other = |queue: &Vec<Operation>| vec![Mark { instructions: queue.len() as u32, kernel: 0 }];
        let marks: Vec<_> = queues
            .0
            .iter()
            .enumerate()
            .map(|(index, queue)| if index == 2 { own.clone() } else { other(queue) })
            .collect();
        check(Traced { queues: &queues, resumes: &resumes, marks: &marks });
    }

    #[test]
    fn what_is_close_is_one_span() {
        let text = "mem 2:\n nop 3\n read 0x0 -> e0\n repeat 2 every 5\n nop 4\n write 0x1 <- e1\n nop 5\n read 0x0 -> e0\n \
                    read 0x2 -> e0\n notify\n end\nalu 3:\n copy u8 e0\n add u8 e0, 1\n sub u8 e0, 1\n mul u8 e0, 1\n end\n";
        traced(text, &[(6, 0), (4, 1)], |traced| {
            let spans = traced.spans(&small_machine(), |kernel| ["first", "second"][kernel]);
            let told: Vec<_> = spans.iter().map(|s| (&*s.unit, s.name.as_str(), s.start, s.cycles)).collect();
            assert_eq!(
                told,
                [
                    ("mem 2", "first read, write", 3, 16),
                    ("mem 2", "second read", 24, 2),
                    ("alu 3", "first copy, add, sub, …", 0, 4),
                ]
            );
        });
        // The gap of five is too long, but not where there may be fewer spans.
        traced(text, &[(10, 0)], |traced| {
            assert_eq!((traced.gap_for(3), traced.gap_for(2)), (4, 8));
            assert_eq!(traced.stretches(4).count(), 3);
            assert_eq!(traced.stretches(8).count(), 2);
        });
    }
}
