//! Work in lots of rows: its results are those of the order of the program, and it takes less time.

use tcc_ir::ops::*;
use tcc_ir::{DType, Graph, Real, Shape as Dims, Tensor, ValueId};

use super::{bytes, check, floats, machine, run, run_on, ty};

/// A product of so many rows, with a residual and a norm behind it.
fn product_and_norm(graph: &mut Graph, rows: usize, columns: usize) -> (ValueId, ValueId) {
    let x = graph.add_input("x", ty(DType::F32, &[rows, columns]));
    let weights = graph.constant(floats(&[columns, columns], 41));
    let product = graph.add(MatMul::default(), &[x, weights]).unwrap();
    let sum = graph.add(Binary(BinaryFn::Add), &[product, x]).unwrap();
    let (scale, bias) = (graph.constant(floats(&[columns], 42)), graph.constant(floats(&[columns], 43)));
    let norm = LayerNorm { axis: 1, epsilon: Real(1e-5), bias: true };
    (sum, graph.add(norm, &[sum, scale, bias]).unwrap())
}

#[test]
fn norms_behind_products_are_right_for_all_rows() {
    // Two lots, three, and lots that are not whole groups of rows.
    for rows in [128, 300, 107] {
        let mut graph = Graph::new("norm");
        let (sum, norm) = product_and_norm(&mut graph, rows, 20);
        let weights = graph.constant(floats(&[20, 9], 44));
        let next = graph.add(MatMul::default(), &[norm, weights]).unwrap();
        for (name, value) in [("sum", sum), ("norm", norm), ("next", next)] {
            graph.add_output(name, value);
        }
        check(&graph, &[floats(&[rows, 20], 45)], 1e-2);
    }
}

#[test]
fn rows_of_later_lots_are_waited_for() {
    let rows = 512;
    let mut graph = Graph::new("later");
    let x = graph.add_input("x", ty(DType::F32, &[rows, 6]));
    let weights = graph.constant(floats(&[6, 20], 46));
    let product = graph.add(MatMul::default(), &[x, weights]).unwrap();
    let bent = graph.add(Unary(UnaryFn::Abs), &[product]).unwrap();
    let mut half = |start: usize| {
        let slice = Slice { starts: vec![start as _, 0], steps: vec![1; 2], sizes: vec![rows / 2, 20] };
        graph.add(slice, &[bent]).unwrap()
    };
    let (first, last) = (half(0), half(rows / 2));
    // The first rows of the sum need rows of the product's last lots.
    let sum = graph.add(Binary(BinaryFn::Add), &[first, last]).unwrap();
    let mean = graph.add(Reduce { function: ReduceFn::Mean, axes: vec![1] }, &[sum]).unwrap();
    let centred = graph.add(Binary(BinaryFn::Sub), &[sum, mean]).unwrap();
    graph.add_output("bent", bent);
    graph.add_output("centred", centred);
    check(&graph, &[floats(&[rows, 6], 47)], 1e-2);
}

#[test]
fn numbers_of_rows_that_others_need_are_kept() {
    // What follows a reduction is not all that it is for.
    let mut graph = Graph::new("numbers");
    let x = graph.add_input("x", ty(DType::F32, &[40, 24]));
    let y = graph.add(Unary(UnaryFn::Neg), &[x]).unwrap();
    let most = graph.add(Reduce { function: ReduceFn::Max, axes: vec![1] }, &[y]).unwrap();
    let half = graph.constant(Tensor::scalar(0.5f32));
    let part = graph.add(Binary(BinaryFn::Mul), &[half, most]).unwrap();
    let part = graph.add(Unary(UnaryFn::Exp), &[part]).unwrap();
    let scaled = graph.add(Binary(BinaryFn::Mul), &[y, part]).unwrap();
    let less = graph.add(Binary(BinaryFn::Sub), &[scaled, most]).unwrap();
    for (name, value) in [("most", most), ("part", part), ("less", less)] {
        graph.add_output(name, value);
    }
    check(&graph, &[floats(&[40, 24], 49)], 1e-5);
}

/// Sums that are rounded to their type before what follows: that does not have them computed again.
#[test]
fn products_behind_which_integers_are_rounded_are_computed_once() {
    let multiplied = |steps: usize| {
        let mut graph = Graph::new("integers");
        let x = graph.add_input("x", ty(DType::I8, &[40, 24]));
        let weights = graph.constant(bytes(&[24, 24], 5, DType::I8));
        let sums = graph.add(MatMul::default(), &[x, weights]).unwrap();
        let columns = (0..24).map(|column| column * 7 - 60).collect::<Vec<i32>>();
        let zero_point = graph.constant(Tensor::from_vec(Dims::new([24]).unwrap(), columns).unwrap());
        let mut last = sums;
        if steps > 0 {
            let corrected = graph.add(Binary(BinaryFn::Sub), &[sums, zero_point]).unwrap();
            last = graph.add(Cast { to: DType::F32 }, &[corrected]).unwrap();
        }
        if steps > 1 {
            let norm = LayerNorm { axis: 1, epsilon: Real(1e-5), bias: false };
            let scale = graph.constant(floats(&[24], 51));
            last = graph.add(norm, &[last, scale]).unwrap();
        }
        graph.add_output("last", last);
        let inputs = [bytes(&[40, 24], 3, DType::I8)];
        check(&graph, &inputs, 1e-5);
        let (machine, facts) = machine("groq-tsp");
        run_on(&machine, &facts, &graph, &inputs).2.counts.byte_macs
    };
    assert_eq!([1, 2].map(multiplied), [multiplied(0); 2]);
}

/// Work on the first rows begins before the last are multiplied.
#[test]
fn norms_behind_products_take_less_time_than_alone() {
    let (dims, input) = ([128, 768], floats(&[128, 768], 45));
    let cycles = |graph: &Graph| run("groq-tsp", graph, std::slice::from_ref(&input)).1;
    let mut graph = Graph::new("both");
    let (_, norm) = product_and_norm(&mut graph, dims[0], dims[1]);
    graph.add_output("norm", norm);
    let both = cycles(&graph);
    let mut graph = Graph::new("product");
    let x = graph.add_input("x", ty(DType::F32, &dims));
    let weights = graph.constant(floats(&[dims[1], dims[1]], 41));
    let product = graph.add(MatMul::default(), &[x, weights]).unwrap();
    graph.add_output("product", product);
    let product = cycles(&graph);
    let mut graph = Graph::new("norm");
    let x = graph.add_input("x", ty(DType::F32, &dims));
    let (scale, bias) = (graph.constant(floats(&dims[1..], 42)), graph.constant(floats(&dims[1..], 43)));
    let norm = graph.add(LayerNorm { axis: 1, epsilon: Real(1e-5), bias: true }, &[x, scale, bias]).unwrap();
    graph.add_output("norm", norm);
    let norm = cycles(&graph);
    assert!(both < product + norm, "{both} cycles, of a product of {product} and a norm of {norm}");
}
