//! What every unit did when, for people: each instruction by itself, or, far into a long program, each kernel.

use std::collections::BTreeMap;

use super::SystolicMachine;
use super::code::Code;
use super::isa::{MapFn, Operation, Unit};
use super::timing::{Scheduler, Span};
use crate::target::TraceSpan;

/// Instructions that are shown one by one: about what a viewer opens in a few seconds. Kernels that begin later are shown
/// as one span on every unit that they use.
pub(super) const SHOWN_ONE_BY_ONE: usize = 1 << 17;

/// The spans of a program. `kernels` are names and numbers of instructions of consecutive kernels, which cover it.
pub(super) fn spans<'a>(
    code: &Code,
    kernels: impl IntoIterator<Item = (&'a str, usize)>,
    machine: &SystolicMachine,
) -> Vec<TraceSpan> {
    let mut spans = Vec::new();
    let mut kernels = kernels.into_iter();
    let mut kernel = Kernel::default();
    let (mut steps, mut executed) = (code.steps(), 0);
    Scheduler::new(machine).run(code, |_, span| {
        while kernel.left == 0 {
            kernel.finish(&mut spans);
            let Some((name, left)) = kernels.next() else { return };
            kernel = Kernel { name, left, whole: executed >= SHOWN_ONE_BY_ONE, units: BTreeMap::new() };
        }
        let Some(step) = steps.next() else { return };
        kernel.add(span, &step.instruction.op, &mut spans);
        executed += 1;
    });
    kernel.finish(&mut spans);
    spans
}

#[derive(Default)]
struct Kernel<'a> {
    name: &'a str,
    /// Instructions that have not been executed.
    left: usize,
    /// Whether it is shown as one span on every unit.
    whole: bool,
    /// If so, for every unit its start, its end and its instructions so far.
    units: BTreeMap<Unit, (u64, u64, usize)>,
}

impl Kernel<'_> {
    fn add(&mut self, span: Span, op: &Operation, spans: &mut Vec<TraceSpan>) {
        self.left -= 1;
        if self.whole {
            let (_, end, count) = self.units.entry(span.unit).or_insert((span.start, 0, 0));
            (*end, *count) = (span.end(), *count + 1);
        } else {
            let name = format!("{} {}", self.name, operation_name(op));
            spans.push(TraceSpan { unit: span.unit.name(), name, start: span.start, cycles: span.occupancy });
        }
    }

    fn finish(&mut self, spans: &mut Vec<TraceSpan>) {
        for (unit, (start, end, count)) in std::mem::take(&mut self.units) {
            let name = format!("{}, {count} instruction{}", self.name, if count == 1 { "" } else { "s" });
            spans.push(TraceSpan { unit: unit.name(), name, start, cycles: end.saturating_sub(start) });
        }
    }
}

fn operation_name(op: &Operation) -> String {
    match op {
        Operation::Load(_) => "load".to_owned(),
        Operation::Store(_) => "store".to_owned(),
        Operation::LoadRows(_) => "load rows".to_owned(),
        Operation::StoreRows(..) => "store rows".to_owned(),
        Operation::Preload(load) => format!("weights {}x{}", load.k, load.n),
        Operation::Multiply(pass) => format!("multiply {} rows", pass.m),
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
    use crate::systolic::timing::tests::small_machine;

    #[test]
    fn late_kernels_are_one_span_for_each_unit() {
        let load = "load dram=0 spm=0 element=4 dims=[16:4:4]\n";
        let code = assemble(&format!(
            "routine 0\n{}routine 1\n{load}preload spm=0 dtype=i8 k=4:4 n=4:1 wait(load<=0)\n{load}{}",
            load.repeat(1 << 10),
            "call 0\n".repeat(1 << 7) + "call 1\n"
        ))
        .unwrap();
        let spans = spans(&code, [("early", SHOWN_ONE_BY_ONE), ("none", 0), ("late", 3)], &small_machine());
        assert_eq!(spans.len(), SHOWN_ONE_BY_ONE + 2);
        assert_eq!(spans[0].name, "early load");
        let late: Vec<_> = spans[SHOWN_ONE_BY_ONE..].iter().map(|span| (span.unit, span.name.as_str())).collect();
        assert_eq!(late, [("load", "late, 2 instructions"), ("preload", "late, 1 instruction")]);
        assert_eq!(spans[SHOWN_ONE_BY_ONE].cycles, 8);
    }
}
