//! Layers that repeat: written once, called with the bases of each.

use std::fmt::Write as _;

use tcc_ir::{Plan, text};

use super::super::routines::{LoweredKernel, lower_sharing};
use super::grouped::{default_machine, inputs, run};
use crate::machine::Machine;
use crate::systolic::Systolic;
use crate::systolic::code::Code;
use crate::systolic::isa::Instruction;
use crate::systolic::layout::Layout;
use crate::systolic::residence::Residence;
use crate::target::Optimization;

/// A decoder-like stack: each layer appends to a cache of its own, which is a result, mixes, and has a residual.
fn stack(layers: usize, rows: usize, width: usize) -> String {
    let mut text = format!("graph \"stack\" {{\ninput %0 \"x\": f32[{rows},{width}]\n");
    let mut next = 1;
    let mut value = 0;
    let mut outputs = String::new();
    let inner = 2 * width;
    for layer in 0..layers {
        let (past, scale, up, down) = (next, next + 1, next + 2, next + 3);
        let _ = writeln!(text, "input %{past} \"past.{layer}\": f32[{rows},{width}]");
        let _ = writeln!(text, "const %{scale}: f32[{width}] = seeded {scale}");
        let _ = writeln!(text, "const %{up}: f32[{width},{inner}] = seeded {up}");
        let _ = writeln!(text, "const %{down}: f32[{inner},{width}] = seeded {down}");
        // Keeps the network from amplifying roundings.
        let small = next + 4;
        let _ = writeln!(text, "const %{small}: f32[] = [0.02]");
        let at = next + 5;
        let _ = writeln!(text, "%{at}: f32[{rows},{width}] = mul(%{value}, %{scale})");
        let _ = writeln!(text, "%{}: f32[{rows},{inner}] = mat_mul(%{at}, %{up})", at + 1);
        let _ = writeln!(text, "%{}: f32[{rows},{inner}] = mul(%{}, %{small})", at + 2, at + 1);
        let _ = writeln!(text, "%{}: f32[{rows},{inner}] = tanh(%{})", at + 3, at + 2);
        let _ = writeln!(text, "%{}: f32[{rows},{width}] = mat_mul(%{}, %{down})", at + 4, at + 3);
        let _ = writeln!(text, "%{}: f32[{rows},{width}] = mul(%{}, %{small})", at + 5, at + 4);
        let _ = writeln!(text, "%{}: f32[{rows},{width}] = add(%{}, %{value})", at + 6, at + 5);
        let _ = writeln!(text, "%{}: f32[{},{width}] = concat[axis=0](%{past}, %{})", at + 7, 2 * rows, at + 6);
        let _ = writeln!(outputs, "output \"present.{layer}\" = %{}", at + 7);
        value = at + 6;
        next = at + 8;
    }
    let _ = writeln!(outputs, "output \"y\" = %{value}");
    text + &outputs + "}"
}

fn optimized(source: &str, machine: &Machine) -> Plan {
    let graph = text::parse(source).unwrap();
    Systolic::new(machine.clone()).unwrap().plan(&graph, Optimization::Exact).unwrap()
}

fn lowered(plan: &Plan, machine: &Machine, share: bool) -> (Code, Vec<LoweredKernel>) {
    let mut layout = Layout::new(plan, &|_| false, Residence::default());
    lower_sharing(plan, &mut layout, machine.systolic.as_ref().unwrap(), share).unwrap()
}

fn executed(code: &Code) -> Vec<Instruction> {
    code.steps().map(|step| step.resolved()).collect()
}

fn squeezed(bytes: u32) -> Machine {
    let mut machine = default_machine();
    machine.systolic.as_mut().unwrap().scratchpad.bytes = bytes;
    machine
}

#[test]
fn layers_are_written_until_they_repeat() {
    let machine = default_machine();
    let routines = |layers: usize| {
        let (code, kernels) = lowered(&optimized(&stack(layers, 8, 64), &machine), &machine, true);
        assert_eq!(kernels.iter().map(|kernel| kernel.instructions).sum::<usize>(), code.len());
        (code.routines().len(), code.calls().len())
    };
    let (few, many) = (routines(8), routines(40));
    assert_eq!(few.0, many.0);
    assert!(many.1 > few.1 && few.0 < 8, "{few:?} {many:?}");
}

#[test]
fn sharing_changes_nothing_that_is_executed() {
    for (rows, width, machine) in
        [(8, 64, default_machine()), (33, 96, squeezed(64 << 10)), (3, 256, squeezed(96 << 10))]
    {
        let plan = optimized(&stack(9, rows, width), &machine);
        let (shared, kernels) = lowered(&plan, &machine, true);
        let (apart, others) = lowered(&plan, &machine, false);
        assert!(shared.routines().len() < apart.routines().len());
        assert_eq!(apart.routines().len(), apart.calls().len());
        assert_eq!(executed(&shared), executed(&apart));
        let tilings =
            |kernels: &[LoweredKernel]| kernels.iter().map(|kernel| kernel.tiling.clone()).collect::<Vec<_>>();
        assert_eq!(tilings(&kernels), tilings(&others));
    }
}

#[test]
fn repeated_layers_compute_what_the_reference_does() {
    for machine in [default_machine(), squeezed(64 << 10)] {
        let plan = optimized(&stack(7, 20, 96), &machine);
        let inputs = inputs(&plan.graph);
        run(plan, &machine, &inputs).unwrap().check(0.02, "stack");
    }
}
