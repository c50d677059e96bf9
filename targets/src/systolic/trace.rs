//! What every unit did when, for people: each instruction by itself, or, far into a long program, each kernel.

use super::SystolicMachine;
use super::code::Code;
use super::isa::{MapFn, Operation, Unit};
use super::timing::{Scheduler, Summary};
use crate::target::TraceSpan;

/// Most instructions that are shown one by one: about what a viewer opens in a few seconds. From the first kernel on that
/// goes beyond, kernels are shown as one span on every unit that they use.
pub(super) const SHOWN_ONE_BY_ONE: usize = 1 << 17;

/// The spans of a program. `kernels` are names and numbers of instructions of consecutive kernels, which cover it, and
/// `summary` is that of its execution.
pub(super) fn spans<'a>(
    code: &Code,
    kernels: impl IntoIterator<Item = (&'a str, usize)>,
    summary: &Summary,
    machine: &SystolicMachine,
) -> Vec<TraceSpan> {
    let mut spans = Vec::new();
    let mut steps = code.steps();
    let mut executed = Vec::with_capacity(code.len().min(SHOWN_ONE_BY_ONE));
    Scheduler::new(machine).run_while(code, |_, span| {
        executed.push(span);
        executed.len() < SHOWN_ONE_BY_ONE
    });
    let mut executed = executed.into_iter();
    for ((name, instructions), counted) in kernels.into_iter().zip(&summary.kernels) {
        if executed.len() >= instructions {
            for (step, span) in steps.by_ref().zip(executed.by_ref()).take(instructions) {
                let name = format!("{name} {}", operation_name(&step.instruction.op));
                spans.push(TraceSpan {
                    unit: span.unit.name().into(),
                    name,
                    start: span.start,
                    cycles: span.occupancy,
                });
            }
            continue;
        }
        executed = Vec::new().into_iter();
        for unit in Unit::ALL.into_iter().filter(|unit| counted.instructions[unit.index()] > 0) {
            let count = counted.instructions[unit.index()];
            let (start, end) = counted.spans[unit.index()];
            let name = format!("{name}, {count} instruction{}", if count == 1 { "" } else { "s" });
            spans.push(TraceSpan { unit: unit.name().into(), name, start, cycles: end.saturating_sub(start) });
        }
    }
    spans
}

fn operation_name(op: &Operation) -> String {
    match op {
        Operation::Load(_) => "load".to_owned(),
        Operation::Store(_) => "store".to_owned(),
        Operation::LoadRows(_) => "load rows".to_owned(),
        Operation::StoreRows(..) => "store rows".to_owned(),
        Operation::Preload(load) => format!("weights {}x{}", load.k, load.n),
        Operation::Multiply(pass) => format!("multiply {} rows", pass.m),
        Operation::Outer(pass) => format!("outer products {}x{}, {} steps", pass.m, pass.n, pass.k),
        Operation::Map(map) => match map.function {
            MapFn::Copy => "copy".to_owned(),
            MapFn::Unary(function) => function.name().to_owned(),
            MapFn::Binary(function) => function.name().to_owned(),
            MapFn::Select => "select".to_owned(),
        },
        Operation::Fold(_) => "fold".to_owned(),
        Operation::Scan(_) => "scan".to_owned(),
        Operation::Sort(_) => "sort".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;
    use crate::systolic::assembly::assemble;
    use crate::systolic::timing::{summarize, tests::small_machine};

    #[test]
    fn late_kernels_are_one_span_for_each_unit() {
        let load = "load dram=0 spm=0 element=4 dims=[16:4:4]\n";
        let code = assemble(&format!(
            "routine 0\n{}routine 1\n{load}preload spm=0 dtype=i8 k=4:4 n=4:1 wait(load<=0)\n{load}{}",
            load.repeat(1 << 10),
            "call 0\n".repeat(1 << 7) + "call 1\n"
        ))
        .unwrap();
        let machine = small_machine();
        let summary = summarize(&code, &[SHOWN_ONE_BY_ONE, 0, 3], &machine);
        let spans = spans(&code, [("early", SHOWN_ONE_BY_ONE), ("none", 0), ("late", 3)], &summary, &machine);
        assert_eq!(spans.len(), SHOWN_ONE_BY_ONE + 2);
        assert_eq!(spans[0].name, "early load");
        let late: Vec<_> = spans[SHOWN_ONE_BY_ONE..].iter().map(|span| (&*span.unit, span.name.as_str())).collect();
        assert_eq!(late, [("load", "late, 2 instructions"), ("preload", "late, 1 instruction")]);
        assert_eq!(spans[SHOWN_ONE_BY_ONE].cycles, 8);
    }
}
