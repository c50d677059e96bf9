//! Names, order, dimensions, operator sets and unsupported operators.

use tcc_ir::DType;

use crate::onnx::error::{ImportError, LowerError};
use crate::onnx::import::ImportOptions;
use crate::onnx::testing::*;

fn message(error: ImportError) -> String {
    error.to_string()
}

#[test]
fn unsorted_nodes_are_sorted() {
    let nodes = [node("Abs", &["b"], &["c"], &[]), node("Add", &["a", "a"], &["b"], &[])];
    let model = model(graph(&[input("a", FLOAT, &["2"])], &nodes, &["c"]));
    assert_eq!(values(&run(&model, &[vector(&[-1.0, 2.0])])[0]), [2.0, 4.0]);
}

#[test]
fn cycles_name_their_nodes() {
    let nodes =
        [node("Abs", &["a"], &["free"], &[]), node("Add", &["a", "c"], &["b"], &[]), node("Abs", &["b"], &["c"], &[])];
    let model = model(graph(&[input("a", FLOAT, &["2"])], &nodes, &["c"]));
    assert_eq!(import(&model).unwrap_err(), ImportError::Cycle(vec!["Add_b".to_owned(), "Abs_c".to_owned()]));
}

#[test]
fn a_node_that_uses_its_own_result_is_a_cycle() {
    let model = model(graph(&[], &[node("Abs", &["x"], &["x"], &[])], &["x"]));
    assert_eq!(import(&model).unwrap_err(), ImportError::Cycle(vec!["Abs_x".to_owned()]));
}

#[test]
fn names_may_be_defined_only_once() {
    let nodes = [node("Abs", &["a"], &["b"], &[]), node("Abs", &["a"], &["b"], &[])];
    let twice = model(graph(&[input("a", FLOAT, &["2"])], &nodes, &["b"]));
    let ImportError::Node(error) = import(&twice).unwrap_err() else { panic!("expected an error of a node") };
    assert_eq!(error.error, LowerError::Redefined("b".to_owned()));

    let constants = [floats_tensor("w", &[], &[1.0]), floats_tensor("w", &[], &[2.0])];
    let twice = model(with_initializers(graph(&[], &[], &["w"]), &constants));
    assert_eq!(import(&twice).unwrap_err(), ImportError::Duplicate("w".to_owned()));
}

#[test]
fn undefined_names_are_errors() {
    let model = model(graph(&[input("a", FLOAT, &["2"])], &[node("Add", &["a", "gone"], &["b"], &[])], &["b"]));
    let text = message(import(&model).unwrap_err());
    assert!(text.contains("`Add_b` (Add)") && text.contains("`gone`"), "{text}");
}

#[test]
fn undefined_outputs_are_errors() {
    let model = model(graph(&[], &[], &["gone"]));
    assert_eq!(import(&model).unwrap_err(), ImportError::Output("gone".to_owned()));
}

#[test]
fn inputs_and_constants_can_be_outputs() {
    let constant = [floats_tensor("w", &[1], &[7.0])];
    let model = model(with_initializers(graph(&[input("a", FLOAT, &["1"])], &[], &["a", "w", "a"]), &constant));
    let outputs = run(&model, &[vector(&[3.0])]);
    assert_eq!(outputs.iter().map(values).collect::<Vec<_>>(), [[3.0], [7.0], [3.0]]);
}

#[test]
fn initializers_listed_as_inputs_are_constants() {
    let inputs = [input("a", FLOAT, &["1"]), input("w", FLOAT, &["1"])];
    let nodes = [node("Add", &["a", "w"], &["b"], &[])];
    let model = model(with_initializers(graph(&inputs, &nodes, &["b"]), &[floats_tensor("w", &[1], &[7.0])]));
    assert_eq!(values(&run(&model, &[vector(&[3.0])])[0]), [10.0]);
}

#[test]
fn values_keep_their_names_and_nodes_their_origins() {
    let mut nameless = node("Abs", &["b"], &["c"], &[]);
    nameless.name.clear();
    let nodes = [node("Add", &["a", "a"], &["b"], &[]), nameless, node("Identity", &["a"], &["d"], &[])];
    let graph = import(&model(graph(&[input("a", FLOAT, &["2"])], &nodes, &["c", "d"]))).unwrap();
    let origins: Vec<_> = graph.nodes().map(|(_, node)| node.origin.to_string()).collect();
    assert_eq!(origins, ["Add_b", "Abs -> c"]);
    let names: Vec<_> = graph.values().map(|(_, value)| value.name.to_string()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(&*graph.outputs()[1].name, "d");
}

#[test]
fn all_unsupported_operators_are_reported_at_once() {
    let nodes = [
        node("Nonsense", &["a"], &["b"], &[]),
        in_domain(node("Abs", &["b"], &["c"], &[]), "elsewhere"),
        node("Nonsense", &["c"], &["d"], &[]),
    ];
    let ImportError::Unsupported(found) =
        import(&model(graph(&[input("a", FLOAT, &["n"])], &nodes, &["d"]))).unwrap_err()
    else {
        panic!("expected a list of operators");
    };
    assert_eq!(found.0["Nonsense"], ["Nonsense_b", "Nonsense_d"]);
    assert_eq!(found.0["elsewhere.Abs"], ["Abs_c"]);
}

#[test]
fn unknown_operator_sets_matter_only_if_used() {
    let mut model = model(graph(&[input("a", FLOAT, &["1"])], &[node("Abs", &["a"], &["b"], &[])], &["b"]));
    model.opset_import.push(opset("com.example", 12));
    assert!(import(&model).is_ok());
    model.opset_import[0].version = 99;
    assert!(matches!(import(&model).unwrap_err(), ImportError::Opset { version: 99, .. }));
}

#[test]
fn all_unbound_dimensions_are_reported_at_once() {
    let inputs = [
        input("a", FLOAT, &["batch", "4"]),
        input("b", FLOAT, &["batch", "?"]),
        input_without_shape("c", FLOAT),
        input("d", FLOAT, &["past + 1"]),
    ];
    let text = message(import(&model(graph(&inputs, &[], &["a"]))).unwrap_err());
    for part in [
        "`batch` (of `a`, `b`)",
        "`b:1`",
        "the shape of `c`",
        "`past + 1`",
        "--dim batch=N --dim past=N",
        "--shapes-from",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn dimensions_come_from_names_shapes_and_expressions() {
    let inputs = [
        input("a", FLOAT, &["batch", "seq"]),
        input("b", FLOAT, &["batch", "2 * (past + seq) - 1"]),
        input("c", FLOAT, &["?"]),
    ];
    let options = ImportOptions {
        dims: dims(&[("past", 3), ("c:0", 9)]),
        shapes: [("a".to_owned(), vec![2, 5])].into(),
        ..Default::default()
    };
    let graph = import_with(&model(graph(&inputs, &[], &["a"])), &options).unwrap();
    let shapes: Vec<Vec<usize>> = graph.inputs().iter().map(|&id| graph.shape(id).to_vec()).collect();
    assert_eq!(shapes, [vec![2, 5], vec![2, 15], vec![9]]);
}

#[test]
fn contradicting_dimensions_are_errors() {
    let inputs = [input("a", FLOAT, &["n", "4"]), input("b", INT64, &["n"])];
    let model = model(graph(&inputs, &[], &["a"]));
    let import = |dims: &[(&str, usize)], shapes: &[(&str, &[usize])]| {
        let shapes = shapes.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect();
        import_with(&model, &ImportOptions { dims: self::dims(dims), shapes, ..Default::default() }).map_err(message)
    };
    let conflict = import(&[("n", 3)], &[("a", &[2, 4])]).unwrap_err();
    assert!(conflict.contains("3 according to --dim") && conflict.contains("2 according to the shape"), "{conflict}");
    let mismatch = import(&[], &[("a", &[2, 5]), ("b", &[2])]).unwrap_err();
    assert!(mismatch.contains("[n,4]") && mismatch.contains("[2, 5]"), "{mismatch}");
    let unknown = import(&[("m", 3)], &[]).unwrap_err();
    assert!(unknown.contains("`m`") && unknown.contains("`n`"), "{unknown}");
    assert!(import(&[("n", 3)], &[("z", &[1])]).unwrap_err().contains("no input `z`"));
    assert!(import(&[("n", 1 << 40)], &[]).unwrap_err().contains("2^40"));
    assert!(import(&[("n", 3)], &[]).is_ok());
}

#[test]
fn inputs_without_shapes_take_given_ones() {
    let model = model(graph(&[input_without_shape("a", INT64)], &[node("Size", &["a"], &["n"], &[])], &["n"]));
    let options = ImportOptions { shapes: [("a".to_owned(), vec![2, 3])].into(), ..Default::default() };
    let graph = import_with(&model, &options).unwrap();
    assert_eq!(graph.ty(graph.inputs()[0]).to_string(), "i64[2,3]");
    assert_eq!(graph.as_constant(graph.outputs()[0].value).map(values), Some(vec![6.0]));
}

#[test]
fn strings_have_no_place() {
    let text = message(import(&model(graph(&[input("text", 8, &["1"])], &[], &["text"]))).unwrap_err());
    assert!(text.contains("input `text`") && text.contains("string"), "{text}");
}

#[test]
fn shapes_fold() {
    let nodes = [
        node("Shape", &["a"], &["all"], &[]),
        node("Shape", &["a"], &["last"], &[int("start", -1)]),
        node("Constant", &[], &["one"], &[int("value_int", 1)]),
        node("Constant", &[], &["zero"], &[int("value_int", 0)]),
        node("Constant", &[], &["seven"], &[int("value_int", 7)]),
        node("Constant", &[], &["two"], &[int("value_int", 2)]),
        node("Range", &["zero", "seven", "two"], &["range"], &[]),
        node("NonZero", &["range"], &["indices"], &[]),
    ];
    let outputs = ["all", "last", "range", "indices"];
    let graph = import(&model(graph(&[input("a", FLOAT, &["2", "3", "5"])], &nodes, &outputs))).unwrap();
    let results: Vec<_> =
        graph.outputs().iter().map(|output| graph.as_constant(output.value).map(values).unwrap()).collect();
    assert_eq!(results, [vec![2.0, 3.0, 5.0], vec![5.0], vec![0.0, 2.0, 4.0, 6.0], vec![1.0, 2.0, 3.0]]);
}

#[test]
fn descending_and_empty_ranges() {
    let range = |start, limit, delta| {
        let nodes = [
            node("Constant", &[], &["start"], &[float("value_float", start)]),
            node("Constant", &[], &["limit"], &[float("value_float", limit)]),
            node("Constant", &[], &["delta"], &[float("value_float", delta)]),
            node("Range", &["start", "limit", "delta"], &["range"], &[]),
        ];
        import(&model(graph(&[], &nodes, &["range"])))
            .map(|graph| graph.as_constant(graph.outputs()[0].value).map(values).unwrap())
    };
    assert_eq!(range(3.0, 0.0, -1.5), Ok(vec![3.0, 1.5]));
    assert_eq!(range(0.0, 3.0, -1.0), Ok(vec![]));
    assert!(message(range(0.0, 1.0, 0.0).unwrap_err()).contains("delta is zero"));
    assert!(message(range(0.0, 1e12, 1.0).unwrap_err()).contains("limit"));
}

#[test]
fn positions_of_unknown_values_are_data_dependent() {
    let model = model(graph(&[input("a", FLOAT, &["3"])], &[node("NonZero", &["a"], &["b"], &[])], &["b"]));
    assert!(message(import(&model).unwrap_err()).contains("depends on the input's values (a)"));
}

#[test]
fn dropout_keeps_everything() {
    let training = tensor("value", bool_tensor("", true));
    let nodes =
        [node("Constant", &[], &["training"], &[training]), node("Dropout", &["a", "", "training"], &["b"], &[])];
    let a = input("a", FLOAT, &["3"]);
    let random = import(&model(graph(std::slice::from_ref(&a), &nodes, &["b"]))).unwrap_err();
    assert!(message(random).contains("training mode"));
    let inference = model(graph(&[a], &[node("Dropout", &["a"], &["b"], &[])], &["b"]));
    assert_eq!(values(&run(&inference, &[vector(&[1.0, -2.0, 3.0])])[0]), [1.0, -2.0, 3.0]);
}

#[test]
fn results_have_the_declared_types() {
    let graph = import(&model(graph(&[input("a", 10, &["3"])], &[node("Abs", &["a"], &["b"], &[])], &["b"]))).unwrap();
    assert_eq!(graph.ty(graph.outputs()[0].value).dtype, DType::F16);
}
