//! What is told of a program, held against itself.

#![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

use tcc_ir::{Tensor, text};

use super::*;
use crate::machine::Kind;
use crate::simt::Simt;
use crate::simt::compile::compile;
use crate::target::Optimization;

/// A product, what follows from it along rows, and a copy that no kernel can go without.
const TEXT: &str = r#"graph "small" {
  input %0 "x": f32[4,40,96]
  input %1 "rows": i64[3]
  const %2: f32[96,64] = seeded 1
  const %3: f32[64] = seeded 2
  %4: f32[4,40,64] = mat_mul(%0, %2)
  %5: f32[4,40,64] = add(%4, %3)
  %6: f32[4,40,64] = softmax[axis=2](%5)
  %7: f32[4,64,40] = transpose[perm=[0,2,1]](%6)
  %8: f32[4,3,64] = gather[axis=1](%6, %1)
  output "y" = %7
  output "z" = %8
}
"#;

fn compiled(machine: &Machine, text: &str) -> SimtProgram {
    let (facts, graph) = (machine.simt.clone().unwrap(), text::parse(text).unwrap());
    let target = Simt::new(machine.clone()).unwrap();
    let planned = target.planned(&graph, Optimization::Exact, false).unwrap();
    compile(machine, &facts, planned).unwrap()
}

fn programs() -> impl Iterator<Item = SimtProgram> {
    let machines = Machine::built_in().unwrap().into_iter().filter(|machine| machine.kind == Kind::Simt);
    machines.map(|machine| compiled(&machine, TEXT))
}

#[test]
fn a_report_adds_up() {
    for program in programs() {
        let report = program.report();
        assert!(report.cycles > 0 && report.lower_bound_cycles <= report.cycles, "{report:?}");
        assert_eq!(report.breakdown.iter().map(|part| part.cycles).sum::<u64>(), report.cycles);
        assert_eq!(report.kernels.iter().map(|kernel| kernel.cycles).sum::<u64>(), report.cycles);
        assert_eq!(report.kernels.iter().map(|kernel| kernel.dram_bytes).sum::<u64>(), report.dram_bytes);
        assert_eq!(report.macs, 4 * 40 * 96 * 64);
        assert!(report.utilization > 0.0 && report.utilization < 1.0);
        let trace = program.trace();
        let end = trace.iter().fold(0, |now, span| {
            assert_eq!(span.start, now);
            now + span.cycles
        });
        assert_eq!(end, report.cycles);
    }
}

#[test]
fn a_run_takes_as_long_as_is_reported() {
    let program = programs().next().unwrap();
    let mut weights = Vec::new();
    program.write_weights(&mut weights).unwrap();
    let x = Tensor::from_vec(program.inputs()[0].ty.shape.clone(), vec![0.5f32; 4 * 40 * 96]).unwrap();
    let inputs = [x, Tensor::vector_i64(vec![0, 39, -1])];
    assert_eq!(program.simulate(&weights, &inputs).unwrap().cycles, program.report().cycles);
}

#[test]
fn a_program_that_was_read_takes_as_long() {
    for program in programs() {
        let again = SimtProgram::decode(&program.machine, &program.facts, &program.encode()).unwrap();
        assert_eq!(again.report(), program.report());
        assert_eq!(again.schedule_text(), program.schedule_text());
    }
}

#[test]
fn a_schedule_names_every_launch() {
    for program in programs() {
        let text = program.schedule_text();
        for launch in &program.parts.launches {
            assert!(text.contains(&program.parts.kernels[launch.kernel as usize].name), "{text}");
        }
        assert!(text.contains(&format!("{} cycles", program.report().cycles)), "{text}");
    }
}
