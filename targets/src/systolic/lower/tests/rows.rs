//! Products whose epilogues work on whole rows.

use tcc_ir::ops::{Binary, BinaryFn, MatMul, Reduce, ReduceFn, Unary, UnaryFn};
use tcc_ir::{Bytes, DType, Graph, Shape, TensorType, ValueId};
use tcc_passes::{FusionLimits, fuse};

use super::grouped::{check, default_machine, groups, inputs, machine, parse, plan, run};
use crate::machine::Machine;
use crate::systolic::compile::compile_plan;
use crate::systolic::isa::Operation;
use crate::systolic::layout::Layout;
use crate::systolic::lower::{lower, row_epilogue_fits};
use crate::systolic::residence::Residence;
use crate::target::{Program as _, TargetError};

/// Machines that hold all of a small product, and machines that hold little of it.
fn machines() -> Vec<Machine> {
    vec![default_machine(), machine(16, 1 << 20, 64), machine(16, 64 << 10, 32), machine(128, 64 << 10, 256)]
}

/// A projection with bias, residual and normalisation, both sums being results.
fn projection([m, k, n]: [usize; 3]) -> String {
    format!(
        r#"graph "projection" {{
            input %0 "x": f32[{m},{k}]
            input %1 "w": f32[{k},{n}]
            input %2 "bias": f32[{n}]
            input %3 "residual": f32[{m},{n}]
            input %4 "scale": f32[{n}]
            input %5 "shift": f32[{n}]
            %6: f32[{m},{n}] = mat_mul(%0, %1)
            %7: f32[{m},{n}] = add(%6, %2)
            %8: f32[{m},{n}] = add(%7, %3)
            %9: f32[{m},{n}] = layer_norm[axis=1,epsilon=1e-5,bias=true](%8, %4, %5)
            output "h" = %8
            output "norm" = %9
        }}"#
    )
}

#[test]
fn layer_norm_follows_its_product() {
    for machine in machines() {
        for shape in [[1, 8, 16], [5, 7, 9], [33, 20, 130], [70, 40, 300], [3, 5, 1], [2, 3, 1000], [257, 3, 2]] {
            check(&projection(shape), &machine, 1, 1e-4);
        }
    }
}

#[test]
fn rms_norm_and_softmax_follow_their_products() {
    for machine in machines() {
        for [m, k, n] in [[1, 8, 16], [37, 19, 45], [20, 16, 260]] {
            let source = format!(
                r#"graph "norm" {{
                    input %0 "x": f32[{m},{k}]
                    input %1 "w": f32[{n},{k}]
                    input %2 "scale": f32[{n}]
                    %3: f32[{m},{n}] = mat_mul[transpose_b=true](%0, %1)
                    %4: f32[{m},{n}] = rms_norm[axis=1,epsilon=1e-5](%3, %2)
                    output "norm" = %4
                    output "product" = %3
                }}"#
            );
            check(&source, &machine, 1, 1e-4);
            let source = format!(
                r#"graph "scores" {{
                    input %0 "q": f32[2,3,{m},{k}]
                    input %1 "k": f32[2,1,{n},{k}]
                    input %2 "mask": f32[2,1,1,{n}]
                    const %3: f32[] = [0.125]
                    %4: f32[2,3,{m},{n}] = mat_mul[transpose_b=true](%0, %1)
                    %5: f32[2,3,{m},{n}] = mul(%4, %3)
                    %6: f32[2,3,{m},{n}] = add(%5, %2)
                    %7: f32[2,3,{m},{n}] = softmax[axis=3](%6)
                    output "y" = %7
                }}"#
            );
            check(&source, &machine, 1, 1e-4);
        }
    }
}

#[test]
fn batches_that_share_an_operand_keep_their_rows() {
    // A is the same for all batches, which must not make one long row of theirs.
    let source = r#"graph "shared" {
        input %0 "a": f32[1,6,10]
        input %1 "b": f32[4,10,24]
        input %2 "column": f32[4,6,1]
        %3: f32[4,6,24] = mat_mul(%0, %1)
        %4: f32[4,6,24] = mul(%3, %2)
        %5: f32[4,6,24] = softmax[axis=2](%4)
        output "y" = %5
    }"#;
    for machine in machines() {
        check(source, &machine, 1, 1e-4);
    }
}

#[test]
fn columns_cut_by_a_view_keep_their_order() {
    // The residual lies in heads, so that columns are walked in two dimensions; the result is wanted in heads, too.
    for [heads, m, d] in [[3, 7, 20], [4, 40, 32], [2, 5, 150]] {
        let n = heads * d;
        let source = format!(
            r#"graph "heads" {{
                input %0 "x": f32[{m},16]
                input %1 "w": f32[16,{n}]
                input %2 "residual": f32[{heads},{m},{d}]
                %3: f32[{m},{heads},{d}] = transpose[perm=[1,0,2]](%2)
                %4: f32[{m},{n}] = reshape[shape=[{m},{n}]](%3)
                %5: f32[{m},{n}] = mat_mul(%0, %1)
                %6: f32[{m},{n}] = add(%5, %4)
                %7: f32[{m},{n}] = softmax[axis=1](%6)
                %8: f32[{m},{n}] = mul(%7, %4)
                %9: f32[{m},{heads},{d}] = reshape[shape=[{m},{heads},{d}]](%8)
                %10: f32[{heads},{m},{d}] = transpose[perm=[1,0,2]](%9)
                output "y" = %10
                output "softmax" = %7
            }}"#
        );
        for machine in machines() {
            check(&source, &machine, 1, 1e-4);
        }
    }
}

#[test]
fn rows_are_quantised_by_their_extent() {
    let source = r#"graph "quantised" {
        input %0 "x": i8[40,24]
        input %1 "w": i8[24,200]
        input %2 "scale": f32[40,1]
        const %3: f32[] = [255.0]
        const %4: f32[] = [0.0]
        %5: i32[40,200] = mat_mul(%0, %1)
        %6: f32[40,200] = cast[to="f32"](%5)
        %7: f32[40,200] = mul(%6, %2)
        %8: f32[40,1] = reduce[function="min",axes=[1]](%7)
        %9: f32[40,1] = reduce[function="max",axes=[1]](%7)
        %10: f32[40,1] = min(%8, %4)
        %11: f32[40,1] = sub(%9, %10)
        %12: f32[40,1] = div(%11, %3)
        %13: f32[40,200] = mul(%7, %3)
        %14: f32[40,200] = floor(%13)
        %15: i8[40,200] = cast[to="i8"](%14)
        %16: i32[40,1] = reduce[function="sum",axes=[1]](%5)
        %17: i4[40,200] = cast[to="i4"](%5)
        output "low" = %10
        output "step" = %12
        output "y" = %15
        output "sums" = %16
        output "product" = %5
        output "small" = %17
    }"#;
    for machine in machines() {
        check(source, &machine, 1, 1e-6);
    }
}

#[test]
fn products_of_nothing_and_of_wide_numbers_have_rows() {
    for (dtype, k) in [("f32", 0), ("f64", 0), ("i64", 0), ("f64", 5), ("i64", 5), ("i32", 5), ("f16", 12)] {
        for [m, n] in [[3, 10], [70, 150]] {
            let source = format!(
                r#"graph "wide" {{
                    input %0 "x": {dtype}[2,{m},{k}]
                    input %1 "w": {dtype}[2,{k},{n}]
                    input %2 "residual": {dtype}[2,{m},{n}]
                    %3: {dtype}[2,{m},{n}] = mat_mul(%0, %1)
                    %4: {dtype}[2,{m},{n}] = add(%3, %2)
                    %5: {dtype}[2,{m},1] = reduce[function="max",axes=[2]](%4)
                    %6: {dtype}[2,{m},{n}] = sub(%4, %5)
                    %7: {dtype}[2,{m},1] = reduce[function="mean",axes=[2]](%6)
                    %8: {dtype}[2,{m},{n}] = mul(%6, %6)
                    %9: {dtype}[2,{m},1] = reduce[function="sum",axes=[2]](%8)
                    %10: {dtype}[2,{m},1] = add(%9, %7)
                    %11: {dtype}[2,{m},{n}] = add(%10, %3)
                    output "y" = %11
                    output "h" = %4
                    output "sums" = %10
                }}"#
            );
            for machine in machines() {
                check(&source, &machine, 1, if dtype == "f16" { 1e-3 } else { 1e-6 });
            }
        }
    }
}

/// A product with work on its rows that is drawn at random: of whole numbers, so that all is exact.
fn random(seed: u64) -> Graph {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = |most: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % most
    };
    let mut graph = Graph::new(format!("random {seed}"));
    let (batch, m, k, n) = (1 + draw(2), [1, 6, 33][draw(3)], 1 + draw(20), [1, 5, 40, 130, 257][draw(5)]);
    let float = draw(2) == 0;
    let (narrow, wide) = if float { (DType::F32, DType::F32) } else { (DType::I8, DType::I32) };
    let input = |graph: &mut Graph, dtype: DType, dims: [usize; 3]| {
        graph.add_input("", TensorType::new(dtype, Shape::new(dims).unwrap()))
    };
    let a = input(&mut graph, narrow, [batch, m, k]);
    let b = input(&mut graph, narrow, [if draw(2) == 0 { 1 } else { batch }, k, n]);
    let outside = [[batch, m, n], [1, 1, n], [batch, m, 1], [1, m, n]].map(|dims| input(&mut graph, wide, dims));
    let product = graph.add(MatMul::default(), &[a, b]).unwrap();
    let mut values: Vec<ValueId> = vec![product];
    for _ in 0..3 + draw(12) {
        // Late values more often, so that chains get long.
        let pick = |draw: &mut dyn FnMut(usize) -> usize| match draw(8) {
            0 => outside[draw(outside.len())],
            1..4 => values[values.len() - 1],
            _ => values[draw(values.len())],
        };
        let x = pick(&mut draw);
        let y = pick(&mut draw);
        let function = [BinaryFn::Add, BinaryFn::Sub, BinaryFn::Max, BinaryFn::Min][draw(4)];
        let added = match draw(7) {
            0 => graph.add(Unary(UnaryFn::Neg), &[x]).unwrap(),
            1 | 2 if graph.shape(x).count() == batch * m * n => {
                let function = [ReduceFn::Max, ReduceFn::Min, ReduceFn::Max, ReduceFn::Sum][draw(4)];
                graph.add(Reduce { function, axes: vec![2] }, &[x]).unwrap()
            }
            // Small enough for its sums to be exact.
            3 if graph.shape(product) == graph.shape(outside[0]) => {
                let square = graph.add(Binary(BinaryFn::Mul), &[outside[0], product]).unwrap();
                graph.add(Reduce { function: ReduceFn::Sum, axes: vec![2] }, &[square]).unwrap()
            }
            _ => graph.add(Binary(function), &[x, y]).unwrap(),
        };
        let shape = graph.shape(added);
        if shape == graph.shape(product) || shape[..] == [batch, m, 1] {
            values.push(added);
        }
    }
    graph.add_output("last", values[values.len() - 1]);
    for index in 0..draw(3) {
        let value = values[draw(values.len())];
        if graph.outputs().iter().all(|output| output.value != value) {
            graph.add_output(format!("{index}"), value);
        }
    }
    tcc_passes::clean_up(&graph)
}

#[test]
fn any_work_on_rows_is_exact() {
    let machines = machines();
    let mut rows = 0;
    for seed in 0..300 {
        let graph = random(seed);
        let plan = plan(&graph);
        let reduces = |group: &tcc_passes::Group| {
            group.anchor.kind() == "contraction"
                && group.epilogue.iter().any(|&id| matches!(graph.node(id).op, tcc_ir::Op::Reduce(_)))
        };
        rows += usize::from(groups(&graph).iter().any(reduces));
        let machine = &machines[seed as usize % machines.len()];
        let run = run(plan.clone(), machine, &inputs(&graph)).unwrap_or_else(|error| panic!("{seed}: {error}\n{plan}"));
        run.check(1e-6, &format!("seed {seed}\n{plan}"));
    }
    assert!(rows > 100, "{rows}");
}

#[test]
fn rows_that_no_scratchpad_holds_are_refused() {
    let graph = parse(&projection([2, 4, 20_000]));
    let machine = machine(16, 64 << 10, 32);
    let facts = machine.systolic.as_ref().unwrap();
    let error = run(plan(&graph), &machine, &inputs(&graph)).map(|_| ()).unwrap_err();
    assert!(matches!(&error, TargetError::DoesNotFit { memory, .. } if memory == "scratchpad"), "{error}");
    assert!(!row_epilogue_fits(facts, 20_000, 4 * 4));
    // What is said to fit is lowered: sums, residual, normalised and its steps.
    for n in (100..2000).step_by(300) {
        let element_bytes = 8 * 4;
        if row_epilogue_fits(facts, n, element_bytes) {
            check(&projection([3, 4, n]), &machine, 1, 1e-4);
        }
    }
    assert!(row_epilogue_fits(facts, 400, 8 * 4));
}

/// Number of vector instructions of a plan on the default machine.
fn vector_instructions(source: &str) -> usize {
    let plan = plan(&parse(source));
    let machine = default_machine();
    let mut layout = Layout::new(&plan, &|_| false, Residence::default());
    let (code, _) = lower(&plan, &mut layout, machine.systolic.as_ref().unwrap()).unwrap();
    let vector = |op: &Operation| op.unit() == crate::systolic::isa::Unit::Vector;
    code.steps().filter(|step| vector(&step.instruction.op)).count()
}

#[test]
fn nothing_is_copied_or_computed_twice() {
    // For each of three tiles two sums; for the row: mean, its division, difference, sum of squares, its division, epsilon,
    // root, quotient, scale, shift.
    assert_eq!(vector_instructions(&projection([1, 64, 384])), 3 * 2 + 10);
    // With one tile of columns rows are read from the accumulators.
    assert_eq!(vector_instructions(&projection([1, 64, 128])), 2 + 10);
}

/// Cycles on the default machine with rows in the product's kernel, and with rows in a kernel of their own.
fn cycles(source: &str) -> [u64; 2] {
    let graph = parse(source);
    let machine = default_machine();
    let limits = FusionLimits { row_bytes: Bytes(2 << 20), nodes: 48 };
    [plan(&graph), fuse(graph.clone(), limits)].map(|plan| {
        let program = compile_plan(&machine, machine.systolic.as_ref().unwrap(), plan).unwrap();
        program.report().cycles
    })
}

#[test]
fn one_kernel_is_faster_than_two() {
    for shape in [
        [128, 768, 768],
        [1, 4096, 4096],
        [1024, 768, 768],
        [512, 3072, 768],
        [256, 64, 4096],
        [384, 768, 768],
        [2048, 768, 3072],
        [256, 4096, 4096],
        [200, 256, 256],
    ] {
        let [one, two] = cycles(&projection(shape));
        assert!(one < two, "{shape:?}: {one} cycles in one kernel, {two} in two");
    }
}
