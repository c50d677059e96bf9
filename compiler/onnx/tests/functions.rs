//! Functions that models define.

use onnx_protobuf::attribute_proto::AttributeType;
use onnx_protobuf::{FunctionProto, ModelProto, NodeProto};

use crate::onnx::error::ImportError;
use crate::onnx::testing::*;

fn local(op_type: &str, inputs: &[&str], outputs: &[&str], attributes: &[onnx_protobuf::AttributeProto]) -> NodeProto {
    in_domain(node(op_type, inputs, outputs, attributes), "local")
}

fn with_functions(nodes: &[NodeProto], functions: &[FunctionProto]) -> ModelProto {
    let mut model = model(graph(&[input("a", FLOAT, &["1"])], nodes, &["y"]));
    model.opset_import.push(opset("local", 1));
    model.functions = functions.to_vec();
    model
}

/// Adds its attribute `by`, which is 5 unless the call says otherwise.
fn increase() -> FunctionProto {
    let constant = node("Constant", &[], &["by"], &[reference("value_float", "by", AttributeType::FLOAT)]);
    let mut increase = function("Increase", &["x"], &["y"], &[constant, node("Add", &["x", "by"], &["y"], &[])]);
    increase.attribute_proto.push(float("by", 5.0));
    increase
}

#[test]
fn attributes_come_from_the_call_or_the_defaults() {
    let nodes = [local("Increase", &["a"], &["b"], &[]), local("Increase", &["b"], &["y"], &[float("by", 100.0)])];
    let model = with_functions(&nodes, &[increase()]);
    assert_eq!(values(&run(&model, &[vector(&[1.0])])[0]), [106.0]);
}

#[test]
fn functions_call_functions() {
    let twice = function(
        "Twice",
        &["x"],
        &["z"],
        &[
            local("Increase", &["x"], &["y"], &[reference("by", "step", AttributeType::FLOAT)]),
            local("Increase", &["y"], &["z"], &[reference("by", "step", AttributeType::FLOAT)]),
        ],
    );
    let model = with_functions(&[local("Twice", &["a"], &["y"], &[float("step", 2.0)])], &[twice.clone(), increase()]);
    assert_eq!(values(&run(&model, &[vector(&[1.0])])[0]), [5.0]);
    // Without a value, the reference is left out and the inner default holds.
    let model = with_functions(&[local("Twice", &["a"], &["y"], &[])], &[twice, increase()]);
    assert_eq!(values(&run(&model, &[vector(&[1.0])])[0]), [11.0]);
}

#[test]
fn functions_do_not_see_the_names_around_them() {
    let peek = function("Peek", &["x"], &["z"], &[node("Add", &["x", "a"], &["z"], &[])]);
    let text = import(&with_functions(&[local("Peek", &["a"], &["y"], &[])], &[peek])).unwrap_err().to_string();
    assert!(text.contains("`Peek_y/Add_z`") && text.contains("`a`"), "{text}");
}

#[test]
fn recursion_is_refused() {
    let direct = function("Again", &["x"], &["z"], &[local("Again", &["x"], &["z"], &[])]);
    let error = import(&with_functions(&[local("Again", &["a"], &["y"], &[])], &[direct])).unwrap_err();
    assert_eq!(error, ImportError::Recursion("local.Again".to_owned()));
}

#[test]
fn exponential_growth_is_bounded() {
    // Twenty-five functions, each of which calls the next one twice.
    let level = |n: usize| {
        let name = format!("F{}", n + 1);
        let nodes = [local(&name, &["x"], &["y"], &[]), local(&name, &["y"], &["z"], &[])];
        function(&format!("F{n}"), &["x"], &["z"], &nodes)
    };
    let mut functions: Vec<_> = (0..25).map(level).collect();
    functions.push(function("F25", &["x"], &["z"], &[node("Identity", &["x"], &["z"], &[])]));
    let error = import(&with_functions(&[local("F0", &["a"], &["y"], &[])], &functions)).unwrap_err();
    assert!(matches!(error, ImportError::Limit(_)), "{error}");
}

#[test]
fn unsupported_operators_of_called_functions_are_reported() {
    let bad = function("Bad", &["x"], &["z"], &[node("Nonsense", &["x"], &["z"], &[])]);
    let unused = function("Unused", &["x"], &["z"], &[node("Missing", &["x"], &["z"], &[])]);
    let ImportError::Unsupported(found) =
        import(&with_functions(&[local("Bad", &["a"], &["y"], &[])], &[bad, unused])).unwrap_err()
    else {
        panic!("expected a list of operators");
    };
    assert_eq!(found.0.keys().collect::<Vec<_>>(), ["Nonsense"]);
}
