//! Values that stay on chip between kernels.

use tcc_ir::Anchor;

use super::grouped::{check, default_machine, inputs, machine, parse, plan, run};
use crate::machine::Machine;
use crate::systolic::compile::compile_plan;
use crate::systolic::isa::Unit;
use crate::target::Program as _;

/// Two products; the second reads the result of the first, as it is or transposed.
fn chain(rows: usize, view: &str, second: &str) -> String {
    format!(
        r#"graph "chain" {{
            input %0 "x": f32[{rows},40]
            input %1 "w": f32[40,48]
            input %2 "v": f32[{second}]
            %3: f32[{rows},48] = mat_mul(%0, %1)
            %4: f32[{rows},48] = tanh(%3)
            {view}
            output "y" = %6
        }}"#
    )
}

/// Stores to DRAM that a graph's program takes, its results being right.
fn stores(source: &str, machine: &Machine) -> u64 {
    let graph = parse(source);
    let facts = machine.systolic.as_ref().unwrap();
    run(plan(&graph), machine, &inputs(&graph)).unwrap().check(1e-2, source);
    let program = compile_plan(machine, facts, plan(&graph)).unwrap();
    let spans = program.trace();
    spans.iter().filter(|span| span.unit == Unit::Store.name()).count() as u64
}

#[test]
fn what_the_next_kernel_reads_goes_through_no_memory() {
    let straight = chain(24, "%6: f32[24,20] = mat_mul(%4, %2)", "48,20");
    let turned =
        chain(24, "%5: f32[48,24] = transpose[perm=[1,0]](%4)\n            %6: f32[48,20] = mat_mul(%5, %2)", "24,20");
    let rows = chain(24, "%5: f32[24,1] = reduce[function=\"max\",axes=[1]](%4)\n %6: f32[24,48] = sub(%4, %5)", "1");
    for source in [&straight, &turned] {
        // The one tile of the result.
        assert_eq!(stores(source, &default_machine()), 1, "{source}");
    }
    for machine in [machine(16, 64 << 10, 32), machine(8, 1 << 20, 16)] {
        for source in [&straight, &turned, &rows] {
            let graph = parse(source);
            run(plan(&graph), &machine, &inputs(&graph)).unwrap().check(1e-2, source);
        }
    }
}

#[test]
fn what_is_too_large_goes_through_dram() {
    // 600 rows of 48 floats are more than half of the scratchpad.
    let source = chain(600, "%6: f32[600,20] = mat_mul(%4, %2)", "48,20");
    let small = stores(&source, &machine(16, 64 << 10, 512));
    let large = stores(&source, &machine(16, 1 << 20, 512));
    assert!(large < small, "{large} stores with room, {small} without");
}

#[test]
fn tables_lie_in_dram_and_rows_of_them_stay() {
    let source = r#"graph "rows" {
        input %0 "table": f32[30,8]
        input %1 "indices": i32[5]
        input %2 "w": f32[8,12]
        %3: f32[30,8] = exp(%0)
        %4: f32[5,8] = gather[axis=0](%3, %1)
        %5: f32[5,12] = mat_mul(%4, %2)
        output "y" = %5
    }"#;
    let graph = parse(source);
    let kernels = plan(&graph);
    assert!(kernels.kernels.iter().any(|kernel| matches!(kernel.anchor, Anchor::Movement(_))), "{kernels}");
    // The table, and the result.
    assert_eq!(stores(source, &default_machine()), 2);
    check(source, &machine(8, 64 << 10, 16), 3, 1e-2);
}
