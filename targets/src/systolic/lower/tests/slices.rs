//! Products whose epilogues read parts of their rows.

use tcc_ir::{Anchor, Graph, Plan, is_view};
use tcc_passes::{Group, anchor_of, assemble};

use super::grouped::{default_machine, inputs, machine, parse, run};
use crate::machine::Machine;
use crate::systolic::compile::compile_plan;
use crate::systolic::parts::store_parts;
use crate::target::Program as _;

/// The product with all that follows in one kernel, or with all element-wise work in a second.
fn plan(graph: &Graph, one: bool) -> Plan {
    let nodes = || graph.nodes().filter(|(_, node)| !is_view(&node.op)).map(|(id, _)| id);
    let is_product = |id: &tcc_ir::NodeId| matches!(graph.node(*id).op, tcc_ir::Op::MatMul(_));
    let product = nodes().find(is_product).unwrap();
    let rest: Vec<_> = nodes().filter(|id| !is_product(id)).collect();
    let group = |anchor, epilogue| Group { anchor, prologue: Vec::new(), epilogue, segment: 0 };
    let groups = if one {
        vec![group(Anchor::Contraction(product), rest)]
    } else {
        vec![group(Anchor::Contraction(product), Vec::new()), group(Anchor::ElementWise, rest)]
    };
    assemble(graph.clone(), groups).unwrap()
}

/// Runs a graph in one kernel and checks its results.
fn check(source: &str, machine: &Machine, tolerance: f64) {
    let graph = parse(source);
    let plan = plan(&graph, true);
    assert_eq!(plan.kernels.len(), 1, "{plan}");
    let run = run(plan, machine, &inputs(&graph)).unwrap_or_else(|error| panic!("{error}\n{source}"));
    run.check(tolerance, source);
}

/// Gate and up projections as one product, with SiLU.
fn gated([m, k, f]: [usize; 3]) -> String {
    let n = 2 * f;
    format!(
        r#"graph "gated" {{
            input %0 "x": f32[{m},{k}]
            input %1 "w": f32[{k},{n}]
            %2: f32[{m},{n}] = mat_mul(%0, %1)
            %3: f32[{m},{f}] = slice[starts=[0,0],steps=[1,1],sizes=[{m},{f}]](%2)
            %4: f32[{m},{f}] = slice[starts=[0,{f}],steps=[1,1],sizes=[{m},{f}]](%2)
            %5: f32[{m},{f}] = sigmoid(%3)
            %6: f32[{m},{f}] = mul(%3, %5)
            %7: f32[{m},{f}] = mul(%6, %4)
            output "y" = %7
        }}"#
    )
}

/// The same with a bias before, operands from outside, a batch, and the biased product as a result.
fn biased([batch, m, k, f]: [usize; 4]) -> String {
    let n = 2 * f;
    format!(
        r#"graph "biased" {{
            input %0 "x": f32[{batch},{m},{k}]
            input %1 "w": f32[{batch},{k},{n}]
            input %2 "bias": f32[{n}]
            input %3 "scale": f32[{f}]
            input %4 "residual": f32[{batch},{m},{f}]
            input %5 "column": f32[{m},1]
            %6: f32[{batch},{m},{n}] = mat_mul(%0, %1)
            %7: f32[{batch},{m},{n}] = add(%6, %2)
            %8: f32[{batch},{m},{f}] = slice[starts=[0,0,{f}],steps=[1,1,1],sizes=[{batch},{m},{f}]](%7)
            %9: f32[{batch},{m},{f}] = slice[starts=[0,0,0],steps=[1,1,1],sizes=[{batch},{m},{f}]](%7)
            %10: f32[{batch},{m},1] = slice[starts=[0,0,1],steps=[1,1,1],sizes=[{batch},{m},1]](%6)
            %11: f32[{batch},{m},{f}] = tanh(%8)
            %12: f32[{batch},{m},{f}] = mul(%11, %9)
            %13: f32[{batch},{m},{f}] = mul(%12, %3)
            %14: f32[{batch},{m},{f}] = add(%13, %4)
            %15: f32[{batch},{m},{f}] = mul(%14, %5)
            %16: f32[{batch},{m},{f}] = sub(%15, %10)
            output "y" = %16
            output "product" = %7
        }}"#
    )
}

/// Narrow values that are reduced, a sum of products of slices, and rows that are written over while parts are read.
fn reduced([m, k, f]: [usize; 3]) -> String {
    let n = 2 * f + 3;
    let at = f + 1;
    format!(
        r#"graph "reduced" {{
            input %0 "x": f32[{m},{k}]
            input %1 "w": f32[{k},{n}]
            %2: f32[{m},{n}] = mat_mul(%0, %1)
            %3: f32[{m},{f}] = slice[starts=[0,1],steps=[1,1],sizes=[{m},{f}]](%2)
            %4: f32[{m},{f}] = slice[starts=[0,{at}],steps=[1,1],sizes=[{m},{f}]](%2)
            %5: f32[{m},{f}] = mul(%3, %4)
            %6: f32[{m},1] = reduce[function="sum",axes=[1]](%5)
            %7: f32[{m},1] = reduce[function="max",axes=[1]](%4)
            %8: f32[{m},{f}] = sub(%3, %7)
            %9: f32[{m},1] = reduce[function="mean",axes=[1]](%8)
            %10: f32[{m},1] = slice[starts=[0,0],steps=[1,1],sizes=[{m},1]](%8)
            %11: f32[{m},{f}] = add(%8, %10)
            %12: f32[{m},1] = slice[starts=[0,0],steps=[1,1],sizes=[{m},1]](%2)
            %13: f32[{m},{n}] = sub(%2, %12)
            %14: f32[{m},{n}] = max(%13, %9)
            output "y" = %11
            output "sums" = %6
            output "wide" = %14
        }}"#
    )
}

fn machines() -> Vec<Machine> {
    vec![default_machine(), machine(4, 256 << 10, 64), machine(16, 64 << 10, 32), machine(128, 128 << 10, 256)]
}

#[test]
fn halves_of_a_product_are_multiplied() {
    for machine in machines() {
        for m in [1, 3, 200] {
            for f in [5, 64, 130, 300] {
                check(&gated([m, 12, f]), &machine, 1e-4);
            }
        }
        check(&gated([3, 0, 64]), &machine, 1e-4);
    }
}

#[test]
fn bias_batch_and_results_of_both_extents() {
    for machine in machines() {
        for (batch, m, k) in [(1, 1, 9), (2, 3, 9), (2, 70, 9), (1, 200, 5), (2, 3, 0)] {
            for f in [5, 130, 300] {
                check(&biased([batch, m, k, f]), &machine, 1e-4);
            }
        }
    }
}

#[test]
fn parts_are_reduced() {
    for machine in machines() {
        for (m, k) in [(1, 6), (37, 6), (3, 0)] {
            for f in [2, 64, 150] {
                check(&reduced([m, k, f]), &machine, 1e-4);
            }
        }
    }
}

#[test]
fn types_that_the_array_does_not_take_are_cut() {
    let source = gated([30, 7, 90]).replace("f32", "f64");
    machines().iter().for_each(|machine| check(&source, machine, 1e-6));
}

#[test]
fn one_kernel_is_faster_than_two() {
    let machine = default_machine();
    for shape in [[128, 768, 2048], [1, 4096, 14336], [512, 768, 2048]] {
        let graph = parse(&gated(shape));
        let [one, two] = [true, false].map(|one| {
            let plan = plan(&graph, one);
            compile_plan(&machine, machine.systolic.as_ref().unwrap(), plan).unwrap().report().cycles
        });
        assert!(one < two, "{shape:?}: {one} cycles in one kernel, {two} in two");
    }
}

/// Three projections as one product, of which two parts are results, rearranged, and all of it goes into a third.
fn projected([batch, m, heads, depth]: [usize; 4], work: &str) -> String {
    let (f, n) = (heads * depth, 3 * heads * depth);
    let part = |first: usize, from: &str, to: [&str; 3]| {
        let [cut, split, turned] = to;
        format!(
            r#"%{cut}: f32[{batch},{m},{f}] = slice[starts=[0,0,{first}],steps=[1,1,1],sizes=[{batch},{m},{f}]](%{from})
            %{split}: f32[{batch},{m},{heads},{depth}] = reshape[shape=[{batch},{m},{heads},{depth}]](%{cut})
            %{turned}: f32[{batch},{heads},{m},{depth}] = transpose[perm=[0,2,1,3]](%{split})"#
        )
    };
    format!(
        r#"graph "projected" {{
            input %0 "x": f32[{batch},{m},12]
            input %1 "w": f32[12,{n}]
            input %2 "bias": f32[{n}]
            %3: f32[{batch},{m},{n}] = mat_mul(%0, %1)
            %4: f32[{batch},{m},{n}] = add(%3, %2)
            {}
            {}
            {work}
            output "keys" = %7
            output "values" = %10
            output "rest" = %11
        }}"#,
        part(f, "4", ["5", "6", "7"]),
        part(2 * f, "4", ["8", "9", "10"]),
    )
}

#[test]
fn parts_that_are_results_are_stored_where_they_belong() {
    for machine in machines() {
        for shape in [[1, 1, 2, 3], [2, 9, 4, 16], [1, 150, 2, 40], [2, 70, 5, 20]] {
            let [batch, m, heads, depth] = shape;
            let n = 3 * heads * depth;
            for work in [
                format!("%11: f32[{batch},{m},{n}] = tanh(%4)"),
                format!(r#"%11: f32[{batch},{m},1] = reduce[function="max",axes=[2]](%4)"#),
            ] {
                let graph = parse(&projected(shape, &work));
                let facts = machine.systolic.as_ref().unwrap();
                let mut plan = plan(&graph, true);
                assert_eq!(plan.kernels.len(), 3, "{plan}");
                store_parts(&mut plan, facts);
                assert_eq!(plan.kernels.len(), 1, "{plan}");
                let source = format!("{plan}");
                run(plan, &machine, &inputs(&graph)).unwrap().check(1e-4, &source);
            }
        }
    }
}

/// Where a third part is read by another kernel, nothing is stored as a whole.
#[test]
fn storing_parts_is_faster_than_copying_them() {
    let machine = default_machine();
    let facts = machine.systolic.as_ref().unwrap();
    for shape in [[1, 1, 12, 64], [2, 9, 4, 16], [1, 128, 12, 64], [1, 512, 12, 64], [8, 512, 32, 64]] {
        let [batch, m, heads, depth] = shape;
        let f = heads * depth;
        let work = format!(
            r#"%12: f32[{batch},{m},{f}] = slice[starts=[0,0,0],steps=[1,1,1],sizes=[{batch},{m},{f}]](%4)
            %13: f32[{batch},{m},1] = reduce[function="max",axes=[2]](%12)
            %14: f32[{batch},{heads},{m},{depth}] = exp(%7)
            %11: f32[{batch},{m},{f}] = sub(%12, %13)
            output "exponentials" = %14"#
        );
        let graph = parse(&projected(shape, &work));
        let by_itself = |graph: &Graph| {
            let mut groups = Vec::new();
            for (id, node) in graph.nodes().filter(|(_, node)| !is_view(&node.op)) {
                match anchor_of(id, &node.op) {
                    Some(anchor) => {
                        groups.push(Group { anchor, prologue: Vec::new(), epilogue: Vec::new(), segment: 0 })
                    }
                    None if groups.len() == 1 && graph.shape(node.output()).last() != Some(&f) => {
                        groups[0].epilogue.push(id);
                    }
                    None => groups.push(Group {
                        anchor: Anchor::ElementWise,
                        prologue: Vec::new(),
                        epilogue: vec![id],
                        segment: 0,
                    }),
                }
            }
            assemble(graph.clone(), groups).unwrap()
        };
        let copied = by_itself(&graph);
        let mut stored = copied.clone();
        store_parts(&mut stored, facts);
        assert_eq!(copied.kernels.len(), stored.kernels.len() + 2, "{stored}");
        assert_eq!(stored.kernels[0].outputs.len(), 3, "{stored}");
        let cycles = |plan: Plan| compile_plan(&machine, facts, plan).unwrap().report().cycles;
        let source = format!("{stored}");
        if m < 128 {
            run(stored.clone(), &machine, &inputs(&graph)).unwrap().check(1e-4, &source);
        }
        let [copied, stored] = [copied, stored].map(cycles);
        // What stays on chip as a whole is copied from there as fast as it would be stored in parts.
        let stays = batch * m * f * 12 <= facts.scratchpad.bytes as usize / 2;
        let faster = if stays { stored <= copied } else { stored < copied };
        assert!(faster, "{shape:?}: {stored} cycles stored, {copied} copied");
    }
}
