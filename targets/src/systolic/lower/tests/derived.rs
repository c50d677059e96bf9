//! Values that follow from constants alone: packed like weights.

use tcc_ir::{DType, Data, Graph, Shape, Tensor, TensorType, text};
use tcc_passes::{FusionLimits, clean_up, fuse};

use super::grouped::{check, default_machine, inputs, numbers, parse, plan, run};
use crate::systolic::compile::compile_plan;
use crate::target::Program as _;

/// A projection by three joined matrices, of which one is used elsewhere, too.
const JOINED: &str = r#"graph "joined" {
    input %0 "x": f32[5,32]
    const %1: f32[32,16] = seeded 1
    const %2: f32[32,24] = seeded 2
    const %3: f32[32,8] = seeded 3
    %4: f32[32,48] = concat[axis=1](%1, %2, %3)
    %5: f32[5,48] = mat_mul(%0, %4)
    output "y" = %5
}"#;

#[test]
fn joined_weights_are_streamed_into_place() {
    let run = check(JOINED, &default_machine(), 1, 0.02);
    // Only the joined matrix is there, as what the array multiplies.
    assert_eq!(run.weights.len(), 4096);
}

#[test]
fn what_the_vector_unit_reads_keeps_its_type() {
    let source = r#"graph "scaled" {
        input %0 "x": f32[5,32]
        const %1: f32[32,16] = seeded 1
        const %2: f32[16] = seeded 2
        const %3: f32[] = [0.125]
        %4: f32[32,16] = mul(%1, %2)
        %5: f32[16,32] = transpose[perm=[1,0]](%4)
        %6: f32[16] = mul(%2, %3)
        %7: f32[5,16] = mat_mul[transpose_b=true](%0, %5)
        %8: f32[5,16] = add(%7, %6)
        %9: f32[16] = exp(%6)
        output "y" = %8
        output "constant" = %9
        output "turned" = %5
    }"#;
    check(source, &default_machine(), 1, 0.02);
}

#[test]
fn a_number_that_is_derived_is_loaded() {
    let source = r#"graph "number" {
        input %0 "x": f32[5,4]
        const %1: f32[1,1] = [3.0]
        %2: f32[1,1] = sqrt(%1)
        %3: f32[5,4] = mul(%0, %2)
        output "y" = %3
    }"#;
    check(source, &default_machine(), 1, 1e-6);
}

#[test]
fn fusion_without_search_leaves_them_to_packing_too() {
    let graph = parse(JOINED);
    let limits = FusionLimits { row_bytes: tcc_ir::Bytes(1 << 20), nodes: 48 };
    let fused = fuse(graph.clone(), limits);
    assert_eq!(fused.kernels.len(), 1);
    run(fused, &default_machine(), &inputs(&graph)).unwrap().check(0.02, "fused");
}

#[test]
fn programs_without_weights_need_only_sizes() {
    let absent = |dims: [usize; 2]| {
        let ty = TensorType::new(DType::F32, Shape::new(dims).unwrap());
        Tensor::new(ty.clone(), Data::absent(ty.bytes())).unwrap()
    };
    let build = |constant: &dyn Fn([usize; 2]) -> Tensor| {
        let mut graph = Graph::new("sizes");
        let x = graph.add_input("x", TensorType::new(DType::F32, Shape::new([5, 32]).unwrap()));
        let (a, b) = (graph.constant(constant([32, 16])), graph.constant(constant([32, 20])));
        let joined = graph.add(tcc_ir::ops::Concat { axis: 1 }, &[a, b]).unwrap();
        let y = graph.add(tcc_ir::ops::MatMul::default(), &[x, joined]).unwrap();
        graph.add_output("y", y);
        let machine = default_machine();
        compile_plan(&machine, machine.systolic.as_ref().unwrap(), plan(&clean_up(&graph))).unwrap()
    };
    let without = build(&absent);
    let with = build(&|dims| numbers(1, absent(dims).ty()));
    assert_eq!(without.encode(), with.encode());
    assert!(without.write_weights(&mut Vec::new()).is_err());
    assert!(with.write_weights(&mut Vec::new()).is_ok());
    assert_eq!(without.report().lower_bound_cycles, with.report().lower_bound_cycles);
    assert!(text::parse(JOINED).is_ok());
}
