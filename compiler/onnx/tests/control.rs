//! Branches are chosen and loops unrolled.

use onnx_protobuf::{GraphProto, NodeProto};

use crate::onnx::import::ImportOptions;
use crate::onnx::testing::*;

fn constant(name: &str, value: onnx_protobuf::TensorProto) -> NodeProto {
    node("Constant", &[], &[name], &[tensor("value", value)])
}

fn choice(condition: bool, then_branch: GraphProto, else_branch: GraphProto) -> Vec<NodeProto> {
    vec![
        constant("condition", bool_tensor("", condition)),
        node("If", &["condition"], &["y"], &[body("then_branch", then_branch), body("else_branch", else_branch)]),
    ]
}

#[test]
fn a_branch_sees_the_names_around_it() {
    let yes = graph(&[], &[node("Add", &["a", "a"], &["yes"], &[])], &["yes"]);
    let no = graph(&[], &[node("Abs", &["a"], &["no"], &[])], &["no"]);
    for (condition, expected) in [(true, [-4.0]), (false, [2.0])] {
        let nodes = choice(condition, yes.clone(), no.clone());
        let model = model(graph(&[input("a", FLOAT, &["1"])], &nodes, &["y"]));
        assert_eq!(values(&run(&model, &[vector(&[-2.0])])[0]), expected);
    }
}

#[test]
fn unsupported_operators_matter_only_in_the_branch_taken() {
    let good = graph(&[], &[node("Abs", &["a"], &["yes"], &[])], &["yes"]);
    let bad = graph(&[], &[node("Nonsense", &["a"], &["no"], &[])], &["no"]);
    let build =
        |condition| model(graph(&[input("a", FLOAT, &["1"])], &choice(condition, good.clone(), bad.clone()), &["y"]));
    assert!(import(&build(true)).is_ok());
    let text = import(&build(false)).unwrap_err().to_string();
    assert!(text.contains("`Nonsense` (node `Nonsense_no`)"), "{text}");
}

#[test]
fn conditions_must_be_known() {
    let branch = graph(&[], &[], &["a"]);
    let nodes = [node("If", &["c"], &["y"], &[body("then_branch", branch.clone()), body("else_branch", branch)])];
    let model = model(graph(&[input("a", FLOAT, &["1"]), input("c", BOOL, &[])], &nodes, &["y"]));
    let text = import(&model).unwrap_err().to_string();
    assert!(text.contains("`If_y`") && text.contains("`c`"), "{text}");
}

/// Adds `step` to the carried value and gives the sum and the trip as scan outputs, while `condition` holds.
fn counting_body(condition: NodeProto) -> GraphProto {
    let inputs = [input("trip", INT64, &[]), input("before", BOOL, &[]), input("sum", FLOAT, &["1"])];
    let nodes =
        [condition, node("Add", &["sum", "step"], &["next"], &[]), node("Identity", &["trip"], &["index"], &[])];
    let mut body = graph(&inputs, &nodes, &["again", "next", "next", "index"]);
    body.output[2] = input("next", FLOAT, &["1"]);
    body
}

fn loop_model(trips: i64, condition: NodeProto) -> onnx_protobuf::ModelProto {
    let nodes = [
        constant("trips", ints_tensor("", &[], &[trips])),
        node("Loop", &["trips", "", "start"], &["last", "sums", "indices"], &[body("body", counting_body(condition))]),
    ];
    let inputs = [input("start", FLOAT, &["1"]), input("step", FLOAT, &["1"])];
    model(graph(&inputs, &nodes, &["last", "sums", "indices"]))
}

#[test]
fn loops_unroll() {
    let model = loop_model(3, node("Identity", &["before"], &["again"], &[]));
    let outputs = run(&model, &[vector(&[1.0]), vector(&[10.0])]);
    assert_eq!(values(&outputs[0]), [31.0]);
    assert_eq!(outputs[1].shape().to_vec(), [3, 1]);
    assert_eq!(values(&outputs[1]), [11.0, 21.0, 31.0]);
    assert_eq!(values(&outputs[2]), [0.0, 1.0, 2.0]);
}

#[test]
fn conditions_end_loops() {
    let model = loop_model(1 << 60, constant("again", bool_tensor("", false)));
    assert_eq!(values(&run(&model, &[vector(&[1.0]), vector(&[10.0])])[1]), [11.0]);
}

#[test]
fn loops_without_a_trip_have_empty_scans() {
    let model = loop_model(0, node("Identity", &["before"], &["again"], &[]));
    let outputs = run(&model, &[vector(&[1.0]), vector(&[10.0])]);
    assert_eq!(values(&outputs[0]), [1.0]);
    // The type of `sums` is declared by the body; that of `indices` shows when the body is lowered.
    assert_eq!(outputs[1].ty().to_string(), "f32[0,1]");
    assert_eq!(outputs[2].ty().to_string(), "i64[0]");
}

#[test]
fn endless_loops_end() {
    let identity = node("Identity", &["before"], &["again"], &[]);
    let text = import(&loop_model(i64::MAX, identity)).unwrap_err().to_string();
    assert!(text.contains("iterations that tcc unrolls"), "{text}");
}

#[test]
fn scans_walk_axes_in_both_directions() {
    let inputs = [input("sum", FLOAT, &["2"]), input("x", FLOAT, &["2"])];
    let nodes = [node("Add", &["sum", "x"], &["next"], &[])];
    let step = graph(&inputs, &nodes, &["next", "next"]);
    let attributes = [
        body("body", step),
        int("num_scan_inputs", 1),
        ints("scan_input_axes", &[-1]),
        ints("scan_input_directions", &[1]),
        ints("scan_output_axes", &[1]),
        ints("scan_output_directions", &[1]),
    ];
    let nodes = [node("Scan", &["start", "xs"], &["last", "sums"], &attributes)];
    let inputs = [input("start", FLOAT, &["2"]), input("xs", FLOAT, &["2", "3"])];
    let model = model(graph(&inputs, &nodes, &["last", "sums"]));
    let xs = vector(&[1.0, 2.0, 3.0, 10.0, 20.0, 30.0]).reshaped(tcc_ir::Shape::new([2, 3]).unwrap()).unwrap();
    let outputs = run(&model, &[vector(&[0.0, 0.0]), xs]);
    assert_eq!(values(&outputs[0]), [6.0, 60.0]);
    assert_eq!(outputs[1].shape().to_vec(), [2, 3]);
    assert_eq!(values(&outputs[1]), [6.0, 5.0, 3.0, 60.0, 50.0, 30.0]);
}

#[test]
fn a_truth_value_among_the_inputs_chooses_the_branch() {
    let yes = graph(&[], &[node("Add", &["a", "a"], &["yes"], &[])], &["yes"]);
    let no = graph(&[], &[node("Abs", &["a"], &["no"], &[])], &["no"]);
    let nodes = [node("If", &["c"], &["y"], &[body("then_branch", yes), body("else_branch", no)])];
    let model = model(graph(&[input("a", FLOAT, &["1"]), input("c", BOOL, &["1"])], &nodes, &["y"]));
    for (truth, expected) in [(true, [-4.0]), (false, [2.0])] {
        let options = ImportOptions { switches: [("c".to_owned(), truth)].into(), ..Default::default() };
        let graph = import_with(&model, &options).unwrap();
        let flag = tcc_ir::Tensor::from_bools(tcc_ir::Shape::vector(1), vec![truth]).unwrap();
        assert_eq!(values(&tcc_ir::evaluate(&graph, &[vector(&[-2.0]), flag]).unwrap()[0]), expected);
    }
}
