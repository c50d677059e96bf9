//! Round trips, and what is refused.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

use proptest::prelude::*;

use super::*;
use crate::ops::{
    Attention, Binary, BinaryFn, Cast, LayerNorm, MatMul, Reduce, ReduceFn, Reshape, Softmax, Unary, UnaryFn,
};
use crate::testing::{spread, ty};
use crate::{DType, Data, Graph, Real, Shape, Tensor, evaluate, verify};

const FULL: PrintOptions = PrintOptions { constants: Constants::Full };

/// Fails unless the graph reads back as the same text and verifies.
fn round_trips(graph: &Graph) {
    let text = print(graph, FULL);
    let parsed = parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(print(&parsed, FULL), text);
    verify(&parsed).unwrap();
    for ((_, a), (_, b)) in graph.values().zip(parsed.values()) {
        assert_eq!((&a.name, &a.ty), (&b.name, &b.ty));
    }
    for ((_, a), (_, b)) in graph.nodes().zip(parsed.nodes()) {
        assert_eq!((&a.op, &a.inputs, &a.outputs, &a.origin), (&b.op, &b.inputs, &b.outputs, &b.origin));
    }
    for (id, _) in graph.values() {
        let bytes = |graph: &Graph| graph.as_constant(id).map(|tensor| tensor.bytes().map(<[u8]>::to_vec));
        assert_eq!(bytes(graph), bytes(&parsed), "{id}");
    }
    assert_eq!(graph.outputs(), parsed.outputs());
}

/// A graph that is a function of `choices`: each draws an operator, operands and names.
fn build(choices: &[(u8, u8, u8, String)]) -> Graph {
    let mut graph = Graph::new(choices.first().map_or("", |choice| &choice.3));
    let mut values = vec![graph.add_input("x", ty(DType::F32, &[2, 3]))];
    for (kind, a, b, name) in choices {
        let pick = |index: u8| values[usize::from(index) % values.len()];
        let (x, y) = (pick(*a), pick(*b));
        graph.set_origin(name.as_str());
        let axis = usize::from(*b) % 2;
        let added = match kind % 12 {
            0 => Ok(graph.add_input(name.as_str(), ty(DType::F32, &[2, 3]))),
            1 => {
                let dtype = DType::ALL[usize::from(*a) % DType::ALL.len()];
                let constant = spread(dtype, &[usize::from(*b) % 40], u64::from(*a));
                Ok(graph.add_constant(name.as_str(), constant))
            }
            2 => {
                let ty = ty(DType::ALL[usize::from(*a) % DType::ALL.len()], &[3, usize::from(*b)]);
                Ok(graph.constant(Tensor::new(ty.clone(), Data::absent(ty.bytes())).unwrap()))
            }
            3 => Ok(graph.constant(Tensor::scalar_of(DType::F16, f64::from(*a)))),
            4 => graph.add(Unary(UnaryFn::ALL[usize::from(*b) % UnaryFn::ALL.len()]), &[x]),
            5 => graph.add(Binary(BinaryFn::ALL[usize::from(*kind) % BinaryFn::ALL.len()]), &[x, y]),
            6 => graph.add(MatMul { transpose_b: axis == 1, ..MatMul::default() }, &[x, y]),
            7 => graph.add(Reduce { function: ReduceFn::Max, axes: vec![axis] }, &[x]),
            8 => graph.add(Softmax { axis }, &[x]),
            9 => graph.add(LayerNorm { axis, epsilon: Real(f64::from(*b) / 7e5), bias: false }, &[x, y]),
            10 => graph.add(Cast { to: DType::ALL[usize::from(*b) % DType::ALL.len()] }, &[x]),
            _ => graph.add(Reshape { shape: Shape::vector(graph.shape(x).count()) }, &[x]),
        };
        // What does not fit is left out.
        let Ok(value) = added else { continue };
        if b % 3 == 0 {
            graph.rename(value, format!("{name}:{a}"));
        }
        values.push(value);
        if a % 4 == 0 {
            graph.add_output(name.as_str(), value);
        }
    }
    graph
}

proptest! {
    #[test]
    fn random_graphs_round_trip(choices in proptest::collection::vec(any::<(u8, u8, u8, String)>(), 0..24)) {
        round_trips(&build(&choices));
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC*") {
        let _ = parse(&text);
        let _ = parse(&format!("graph \"g\" {{ {text}"));
    }

    #[test]
    fn damaged_text_is_read_or_refused(
        choices in proptest::collection::vec(any::<(u8, u8, u8, String)>(), 0..12),
        at in any::<prop::sample::Index>(),
        piece in "[\\[\\](){}%=,:\"0-9a-z ]{0,3}",
    ) {
        let mut text = print(&build(&choices), FULL);
        let start = at.index(text.len());
        let start = (start..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap();
        let end = (start + 1..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(start);
        text.replace_range(start..end, &piece);
        if let Ok(graph) = parse(&text) {
            verify(&graph).unwrap();
        }
    }
}

#[test]
fn prints_one_line_for_each_definition() {
    let mut graph = Graph::new("small");
    let x = graph.add_input("x", ty(DType::F32, &[2, 3]));
    let weight = ty(DType::F32, &[4, 3]);
    let weight = graph.add_constant("w", Tensor::new(weight.clone(), Data::absent(weight.bytes())).unwrap());
    graph.set_origin("layer.0/MatMul");
    let y = graph.add(MatMul { transpose_b: true, ..MatMul::default() }, &[x, weight]).unwrap();
    let splat = graph.add_constant("", Tensor::from_vec(Shape::vector(64), vec![0.5f32; 64]).unwrap());
    graph.add_constant("", spread(DType::U8, &[20], 1));
    graph.set_origin("");
    let sum = graph.add(Reduce { function: ReduceFn::Sum, axes: vec![0, 1] }, &[y]).unwrap();
    graph.rename(sum, "a \"name\"");
    graph.add_output("sum", sum);
    graph.add_output("splat", splat);
    let expected = r#"graph "small" {
  input %0 "x": f32[2,3]
  const %1 "w": f32[4,3] = absent
  %2: f32[2,4] = mat_mul[transpose_b=true](%0, %1) from "layer.0/MatMul"
  const %3: f32[64] = splat 0.5
  const %4: u8[20] = HEX
  %5 "a \"name\"": f32[1,1] = reduce[axes=[0,1], function="sum"](%2)
  output "sum" = %5
  output "splat" = %3
}
"#;
    let text = print(&graph, FULL);
    let start = text.find("hex \"").unwrap();
    assert_eq!(text.replace(&text[start..start + 46], "HEX"), expected);
    let brief = graph.to_string();
    let start = brief.find("elided 20 ").unwrap();
    assert_eq!(brief.replace(&brief[start..start + 26], "HEX"), expected);
    assert!(parse(&brief).unwrap().as_constant(graph.values().nth(4).unwrap().0).unwrap().data().is_absent());
    round_trips(&graph);
}

#[test]
fn every_attribute_round_trips() {
    let mut graph = Graph::new("");
    let x = graph.add_input("", ty(DType::F32, &[1, 2, 3, 4]));
    for (scale, causal, window) in [(0.1, None, None), (-0.0, Some(-3), None), (1e-300, Some(i64::MIN), Some(i64::MAX))]
    {
        let op = Attention {
            scale: Real(scale),
            softcap: Real(30.0),
            causal,
            window,
            mask: false,
            zero_masked_rows: causal.is_some(),
        };
        graph.add(op, &[x, x, x]).unwrap();
    }
    round_trips(&graph);
}

#[test]
fn numbers_comments_and_order_are_free() {
    let graph = parse(
        "// a comment\ngraph\"g\"{ ; another\n input %7: f32[] const%3:f32[]=2.5 %100:f32[]=add(%7,%3)\noutput\"y\"=%100}\n//",
    )
    .unwrap();
    let y = evaluate(&graph, &[Tensor::scalar(1.0f32)]).unwrap();
    assert_eq!(y[0].to_f64s().unwrap(), [3.5]);
}

#[test]
fn seeded_constants_are_spread_and_repeatable() {
    let text =
        |seed: u32| format!("graph \"\" {{ const %0: f32[10000] = seeded {seed} const %1: i4[1000] = seeded 1 }}");
    let values = |seed, index| {
        let graph = parse(&text(seed)).unwrap();
        graph.as_constant(graph.values().nth(index).unwrap().0).unwrap().to_f64s().unwrap()
    };
    let drawn = values(7, 0);
    assert_eq!(drawn, values(7, 0));
    assert_ne!(drawn, values(8, 0));
    let mean = drawn.iter().sum::<f64>() / 1e4;
    let variance = drawn.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 1e4;
    assert!(mean.abs() < 0.05 && (variance - 1.0).abs() < 0.05, "mean {mean}, variance {variance}");
    let integers = values(7, 1);
    assert!((-8..8).all(|i| integers.contains(&f64::from(i))));
}

/// The message for a text.
fn refused(text: &str) -> String {
    parse(text).map(|graph| graph.to_string()).unwrap_err().to_string()
}

#[test]
fn errors_say_where_and_what() {
    let within = |line: &str| refused(&format!("graph \"g\" {{\n  input %0: f32[2,3]\n  {line}\n}}"));
    for (line, message) in [
        ("%1: f32[2,3] = frobnicate(%0)", "line 3, column 18: expected an operator's name, found `frobnicate`"),
        ("%1: f32[2,3] = exp(%9)", "line 3, column 22: expected a value that is defined above, found %9"),
        (
            "%0: f32[2,3] = exp(%0)",
            "line 3, column 3: expected a value that is not yet defined, found %0, which is defined above",
        ),
        ("%1: f32[3,3] = exp(%0)", "line 3, column 7: expected f32[2,3], the type that `exp` gives, found f32[3,3]"),
        ("%1: f33[3,3] = exp(%0)", "line 3, column 7: expected an element type such as `f32`, found `f33`"),
        ("%1: f32[2,3], %2: f32[2,3] = exp(%0)", "line 3, column 3: expected 1 results of `exp`, found 2"),
        ("%1: f32[2,3] = exp[fast=true](%0)", "line 3, column 22: expected an attribute of `exp`, found `fast`"),
        (
            "%1: f32[2,3] = softmax[axis=1, axis=1](%0)",
            "line 3, column 34: expected each attribute once, found `axis` again",
        ),
        ("%1: f32[2,3] = softmax[axis=](%0)", "line 3, column 31: expected a value in JSON, found `]`"),
        ("const %1: i8[2] = [1, 300]", "line 3, column 25: expected a number of type i8, found `300`"),
        ("const %1: i8[2] = [1]", "line 3, column 23: expected 2 elements of i8[2], not 1, found `]`"),
        ("const %1: i8[2] = [1, 2, 3]", "line 3, column 28: expected `]` after the 2 elements of i8[2], found `3`"),
        (
            "const %1: i8[2] = hex \"01\"",
            "line 3, column 26: expected 2 digits for each of the 2 bytes of i8[2], found 2 digits",
        ),
        ("const %1: i8[2] = elided 3 00", "line 3, column 28: expected the 2 bytes of i8[2], found 3"),
        ("const %1: i8[] = splot", "line 3, column 20: expected a number of type i8, found `splot`"),
        ("input %1 x: f32[]", "line 3, column 12: expected `:`, found `x`"),
        ("output \"y\" %0", "line 3, column 14: expected `=`, found `%0`"),
        (
            "outputs",
            "line 3, column 3: expected `input`, `const`, `output`, a value such as `%0`, or `}`, found `outputs`",
        ),
        ("} }", "line 3, column 5: expected the end of the text, found `}`"),
    ] {
        assert_eq!(within(line), message);
    }
    assert_eq!(refused(""), "line 1, column 1: expected `graph`, found the end of the text");
    let operands = within("%1: f32[2,3] = mat_mul(%0, %0)");
    assert!(operands.starts_with("line 3, column 18: expected operands that `mat_mul` can take, found"), "{operands}");
    let attributes = within("%1: f32[2,3] = softmax(%0)");
    assert!(attributes.starts_with("line 3, column 18: expected the attributes of `softmax`, found"), "{attributes}");
}

#[test]
fn short_texts_do_not_ask_for_all_memory() {
    for line in ["const %0: f64[1099511627776] = splat 1", "const %0: i4[1099511627776] = seeded 1"] {
        let message = refused(&format!("graph \"\" {{ {line} }}"));
        assert!(message.contains("expected at most 1073741824 bytes"), "{message}");
    }
    let message = refused("graph \"\" { const %0: f64[1099511627776,2] = absent }");
    assert!(message.contains("more than 2^40 elements"), "{message}");
    assert!(parse("graph \"\" { const %0: f64[1099511627776] = absent }").is_ok());
}

#[test]
fn default_attributes_may_be_written() {
    let text = "graph \"\" { input %0: f32[2,2] %1: f32[2,2] = mat_mul[transpose_a=false](%0, %0) }";
    assert_eq!(parse(text).unwrap().node_count(), 1);
}
