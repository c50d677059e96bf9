//! What follows from a program's queues without values: its cycles, where they went, and what each kernel's share of them is.

use super::LpuMachine;
use super::attribution::{Attribution, attribute, is_work};
use super::isa::{Operation, Queues, Row};
use super::marks::{Mark, Owners};
use super::timeline::{cycles_with, northward, spans};
use super::units::UnitKind;

/// An account of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    /// Cycles of one run.
    pub cycles: u64,
    /// Where they went, but for those in which nothing was dispatched.
    pub attribution: Attribution,
    /// Instructions that ALUs dispatch, all together.
    pub alu_dispatches: u64,
    /// The shares of the kernels; if all instructions are some kernel's, they sum to `cycles`.
    pub kernels: Vec<KernelCycles>,
}

/// The share of one kernel in a program's cycles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KernelCycles {
    /// Cycles from the completion of all kernels before to its own; 0 if they complete after it.
    pub cycles: u64,
    /// The first cycle in which a unit dispatches something of it; `None` if none does.
    pub start: Option<u64>,
    /// The cycle before which all that it begins is over.
    pub completion: u64,
    /// What units of each kind dispatch of it, repetitions included.
    pub dispatches: [u64; UnitKind::COUNT],
    /// The same for the busiest unit of each kind.
    pub busy: [u64; UnitKind::COUNT],
    /// Rows of bytes and of halves that it multiplies.
    pub rows: [u64; 2],
}

impl KernelCycles {
    /// The kind of the unit that bounds the kernel, which is the one that it keeps busy longest; `None` if that is idle for
    /// more than half of the time from the kernel's first dispatch to its completion, so that latencies bound it.
    pub fn binding(&self) -> Option<UnitKind> {
        let mut busiest = UnitKind::Multiply;
        for kind in UnitKind::ALL {
            if self.busy[kind.index()] > self.busy[busiest.index()] {
                busiest = kind;
            }
        }
        let time = self.completion.saturating_sub(self.start?);
        Some(busiest).filter(|kind| self.busy[kind.index()] >= time / 2)
    }
}

/// Accounts for a program of so many kernels; `marks` says for each queue whose its instructions are, and `resumes` when it
/// goes on after syncs.
pub(super) fn summarize(
    program: &Queues,
    resumes: &[Vec<u64>],
    marks: &[Vec<Mark>],
    kernels: usize,
    machine: &LpuMachine,
) -> Summary {
    let mut summary = Summary {
        cycles: cycles_with(program, resumes, machine),
        attribution: attribute(program, resumes, machine),
        alu_dispatches: 0,
        kernels: vec![KernelCycles::default(); kernels],
    };
    let queues = machine.queues().into_iter().zip(&program.0).zip(resumes).zip(marks);
    for (((queue, operations), resumes), marks) in queues {
        let kind = UnitKind::of(queue).index();
        let mut owners = Owners::new(marks);
        let mut own = vec![0u64; kernels];
        for span in spans(operations, resumes) {
            let count = u64::from(span.count) + 1;
            if kind == UnitKind::Vector.index() && is_work(&span) {
                summary.alu_dispatches = summary.alu_dispatches.saturating_add(count);
            }
            let owner = owners.of(span.index);
            let Some((index, kernel)) = owner.and_then(|index| Some((index, summary.kernels.get_mut(index)?))) else {
                continue;
            };
            if let Some(end) = span.end(machine) {
                kernel.completion = kernel.completion.max(northward(end, machine));
            }
            if !is_work(&span) {
                continue;
            }
            kernel.start = Some(kernel.start.map_or(span.first, |start| start.min(span.first)));
            own[index] = own[index].saturating_add(count);
            if let Operation::Multiply { row, .. } = span.operation {
                let rows = &mut kernel.rows[usize::from(matches!(row, Row::Halves(_)))];
                *rows = rows.saturating_add(count);
            }
        }
        for (kernel, own) in summary.kernels.iter_mut().zip(own) {
            kernel.dispatches[kind] = kernel.dispatches[kind].saturating_add(own);
            kernel.busy[kind] = kernel.busy[kind].max(own);
        }
    }
    let mut before = 0;
    for kernel in &mut summary.kernels {
        let end = kernel.completion.max(before);
        kernel.cycles = end - before;
        before = end;
    }
    summary
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;
    use crate::lpu::arbitrary::dataflow::cases;
    use crate::lpu::assembly::assemble;
    use crate::lpu::machine::tests::small_machine;
    use crate::lpu::timeline::resumes;

    /// The account of a program whose queues are handed out to two kernels, the first for so many instructions.
    fn summary(program: &Queues, first: impl Fn(usize) -> u32) -> Summary {
        let machine = small_machine();
        let marks = program.0.iter().enumerate().map(|(index, queue)| {
            let all = queue.len() as u32;
            let first = first(index).min(all);
            vec![Mark { instructions: first, kernel: 0 }, Mark { instructions: all - first, kernel: 1 }]
        });
        summarize(program, &resumes(program, &machine), &marks.collect::<Vec<_>>(), 2, &machine)
    }

    #[test]
    fn kernels_take_all_cycles() {
        for (number, case) in cases(&small_machine(), 40, 5).iter().enumerate() {
            let summary = summary(&case.program, |queue| ((queue + number) % 5) as u32);
            assert_eq!(summary.kernels.iter().map(|kernel| kernel.cycles).sum::<u64>(), summary.cycles);
        }
    }

    #[test]
    fn a_kernel_is_bound_by_what_is_busy_longest() {
        let text = "alu 2:\n copy u8 e0\n repeat 99 every 1\n copy u8 e0\n nop 400\n end\n\
                    mem 1:\n read 0x0 -> e0\n repeat 60 every 1\n end\nothers:\n end\n";
        let program = assemble(text, &small_machine()).unwrap();
        let alu = small_machine().queues().iter().position(|queue| queue.to_string() == "alu 2").unwrap();
        let summary = summary(&program, |queue| if queue == alu { 2 } else { u32::MAX });
        let [first, second] = &summary.kernels[..] else { unreachable!() };
        assert_eq!((first.binding(), first.start, first.completion), (Some(UnitKind::Vector), Some(0), 99 + 2 + 1));
        assert_eq!(first.dispatches[UnitKind::Memory.index()], 61);
        // It waits for nothing, after one instruction.
        assert_eq!((second.binding(), second.start, second.cycles), (None, Some(100), 501 + 1 + 1 - 102));
        assert_eq!(summary.alu_dispatches, 101);
    }
}
