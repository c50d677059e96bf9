#![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

use tcc_ir::ops::{Attention, Conv, Gather, MatMul, Softmax, TopK, Transpose};
use tcc_ir::{Data, Op, Shape, TensorType, evaluate};

use super::*;

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims.iter().copied()).unwrap()
}

fn ty(dims: &[usize]) -> TensorType {
    TensorType::new(DType::F32, shape(dims))
}

/// Numbers between -1 and 1 that are always the same.
fn spread(dims: &[usize], seed: u64) -> Tensor {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let count = dims.iter().product();
    Tensor::from_vec(shape(dims), (0..count).map(|_| next()).collect()).unwrap()
}

fn weights(graph: &mut Graph, dims: &[usize], seed: u64) -> ValueId {
    graph.constant(spread(dims, seed))
}

/// `x W`, the result of a graph with the one input x.
fn linear(x: &[usize], w: Tensor) -> Graph {
    let mut graph = Graph::new("linear");
    let x = graph.add_input("x", ty(x));
    let w = graph.constant(w);
    graph.set_origin("product");
    let y = graph.add(MatMul::default(), &[x, w]).unwrap();
    graph.add_output("y", y);
    graph
}

fn count(graph: &Graph, which: impl Fn(&Graph, &Node) -> bool) -> usize {
    graph.nodes().filter(|(_, node)| which(graph, node)).count()
}

fn integer_products_in(graph: &Graph) -> usize {
    let product = |graph: &Graph, node: &Node| {
        matches!(node.op, Op::MatMul(_) | Op::Conv(_)) && graph.ty(node.output()).dtype == DType::I32
    };
    count(&integer_products(graph).unwrap(), product)
}

/// How often values are rounded at run time.
fn roundings(graph: &Graph) -> usize {
    count(graph, |_, node| matches!(node.op, Op::Unary(Unary(UnaryFn::Round))))
}

/// The graph quantised, with scales from the inputs given.
fn quantized(graph: &Graph, scope: Scope, samples: &[&[Tensor]]) -> Quantized {
    let quantizer = Quantizer::new(graph, scope).unwrap();
    let mut ranges = quantizer.unseen();
    for sample in samples {
        assert!(ranges.merge(quantizer.ranges(sample).unwrap()));
    }
    quantizer.quantize(&ranges).unwrap()
}

/// The signal-to-noise ratio of all results together, in decibels.
fn decibels(graph: &Graph, quantized: &Graph, inputs: &[Tensor]) -> f64 {
    let values = |graph: &Graph| -> Vec<f64> {
        let results = evaluate(&integer_products(graph).unwrap(), inputs).unwrap();
        results.iter().flat_map(|tensor| tensor.to_f64s().unwrap()).collect()
    };
    let (expected, actual) = (values(graph), values(quantized));
    let signal: f64 = expected.iter().map(|x| x * x).sum();
    let noise: f64 = expected.iter().zip(&actual).map(|(x, y)| (x - y) * (x - y)).sum();
    10.0 * (signal / noise).log10()
}

#[test]
fn products_with_weights_become_integer() {
    let graph = linear(&[2, 3, 16], spread(&[16, 8], 1));
    let inputs = [spread(&[2, 3, 16], 2)];
    for samples in [&[][..], &[&inputs[..]]] {
        let quantized = quantized(&graph, Scope::Weights, samples);
        assert_eq!(integer_products_in(&quantized.graph), 1);
        assert_eq!((quantized.calibrated, quantized.dynamic), (samples.len(), 1 - samples.len()));
        let snr = decibels(&graph, &quantized.graph, &inputs);
        assert!(snr > 35.0, "{snr}");
    }
}

#[test]
fn integers_are_rounded_to_even_and_saturate() {
    let mut one = Graph::new("round");
    let x = one.add_input("x", ty(&[1, 7]));
    let operand = Operand { value: x, axes: vec![1], kind: OperandKind::Activation, unsigned: false };
    let y = with_scale(&mut one, x, &[], &operand, 1.0).unwrap();
    one.add_output("y", y);
    let x = Tensor::from_vec(shape(&[1, 7]), vec![0.5f32, 1.5, -2.5, 126.6, 500.0, -127.4, f32::NAN]).unwrap();
    let y = evaluate(&one, &[x]).unwrap().remove(0).to_f64s().unwrap();
    assert_eq!(y, [0.0, 2.0, -2.0, 127.0, 127.0, -127.0, 0.0]);
}

#[test]
fn channels_and_rows_of_zeros_stay_zero() {
    let mut w = spread(&[16, 3], 1).elements::<f32>().unwrap().into_owned();
    w.iter_mut().skip(1).step_by(3).for_each(|w| *w = 0.0);
    let graph = linear(&[2, 16], Tensor::from_vec(shape(&[16, 3]), w).unwrap());
    let mut x = spread(&[2, 16], 2).elements::<f32>().unwrap().into_owned();
    x[16..].fill(0.0);
    let inputs = [Tensor::from_vec(shape(&[2, 16]), x).unwrap()];
    let quantized = quantized(&graph, Scope::Weights, &[]);
    let y = evaluate(&quantized.graph, &inputs).unwrap().remove(0).to_f64s().unwrap();
    assert!(y[0] != 0.0 && y[2] != 0.0);
    assert_eq!([y[1], y[3], y[4], y[5]], [0.0; 4]);
    // Even at 127 times the least size nothing overflows.
    assert!((1.0 / (LEAST / 255.0)).is_finite() && LEAST.is_normal());
}

#[test]
fn channels_and_rows_of_any_size_are_precise() {
    // Each column and each row a thousand times the one before.
    let scaled = |tensor: &Tensor, columns: usize, by_column: bool| {
        let values = tensor.elements::<f32>().unwrap().into_owned();
        let power = |at: usize| if by_column { at % columns } else { at / columns } as i32;
        let values = values.iter().enumerate().map(|(at, x)| x * 1000f32.powi(power(at))).collect();
        Tensor::from_vec(tensor.shape().clone(), values).unwrap()
    };
    let graph = linear(&[3, 16], scaled(&spread(&[16, 3], 1), 3, true));
    let inputs = [scaled(&spread(&[3, 16], 2), 16, false)];
    // Calibration sees that one scale would not do.
    for samples in [&[][..], &[&inputs[..]]] {
        let quantized = quantized(&graph, Scope::Weights, samples);
        assert_eq!((quantized.calibrated, quantized.dynamic), (0, 1));
        let values = |graph: &Graph| evaluate(graph, &inputs).unwrap().remove(0).to_f64s().unwrap();
        for (x, y) in values(&graph).iter().zip(values(&quantized.graph)) {
            assert!((x - y).abs() < 0.05 * x.abs(), "{x} {y}");
        }
    }
}

#[test]
fn products_of_one_activation_share_its_integers() {
    let mut graph = Graph::new("siblings");
    let x = graph.add_input("x", ty(&[4, 16]));
    for seed in 0..3 {
        let w = weights(&mut graph, &[16, 8], seed);
        let y = graph.add(MatMul::default(), &[x, w]).unwrap();
        graph.add_output("y", y);
    }
    let inputs = [spread(&[4, 16], 7)];
    for samples in [&[][..], &[&inputs[..]]] {
        let quantized = quantized(&graph, Scope::Weights, samples);
        assert_eq!((integer_products_in(&quantized.graph), roundings(&quantized.graph)), (3, 1));
    }
}

#[test]
fn transposed_operands_and_operands_on_the_other_side() {
    for (transpose_a, transpose_b, constant_a) in [(false, true, false), (true, false, false), (true, true, true)] {
        let mut graph = Graph::new("product");
        let a_dims = if transpose_a { [12, 5] } else { [5, 12] };
        let b_dims = if transpose_b { [7, 12] } else { [12, 7] };
        let (activation, constant) = if constant_a { (b_dims, a_dims) } else { (a_dims, b_dims) };
        let x = graph.add_input("x", ty(&activation));
        let w = weights(&mut graph, &constant, 3);
        let operands = if constant_a { [w, x] } else { [x, w] };
        let y = graph.add(MatMul { transpose_a, transpose_b, ..MatMul::default() }, &operands).unwrap();
        graph.add_output("y", y);
        let inputs = [spread(&activation, 4)];
        for samples in [&[][..], &[&inputs[..]]] {
            let quantized = quantized(&graph, Scope::Weights, samples);
            assert_eq!(integer_products_in(&quantized.graph), 1);
            let snr = decibels(&graph, &quantized.graph, &inputs);
            assert!(snr > 35.0, "{transpose_a} {transpose_b} {constant_a}: {snr}");
        }
    }
}

#[test]
fn convolutions_become_integer() {
    for groups in [1, 2] {
        let mut graph = Graph::new("convolution");
        let x = graph.add_input("x", ty(&[2, 4, 6, 6]));
        let w = weights(&mut graph, &[6, 4 / groups, 3, 3], 1);
        let op = Conv {
            strides: vec![1, 1],
            low: vec![1, 1],
            high: vec![1, 1],
            dilations: vec![1, 1],
            groups,
            x_zero: false,
            w_zero: false,
        };
        let y = graph.add(op, &[x, w]).unwrap();
        graph.add_output("y", y);
        let inputs = [spread(&[2, 4, 6, 6], 2)];
        for samples in [&[][..], &[&inputs[..]]] {
            let quantized = quantized(&graph, Scope::Weights, samples);
            assert_eq!(integer_products_in(&quantized.graph), 1);
            let snr = decibels(&graph, &quantized.graph, &inputs);
            assert!(snr > 35.0, "{groups}: {snr}");
        }
    }
}

const ATTENTION: Attention = Attention::scaled(0.25);

#[test]
fn attention_is_taken_apart_only_where_floats_are_not_multiplied() {
    let mut graph = Graph::new("attention");
    let operands = [[1, 4, 5, 16], [1, 2, 40, 16], [1, 2, 40, 8]].map(|dims| graph.add_input("x", ty(&dims)));
    let y = graph.add(ATTENTION, &operands).unwrap();
    graph.add_output("y", y);
    let kept = quantized(&graph, Scope::Weights, &[]);
    assert_eq!((integer_products_in(&kept.graph), float_products(&kept.graph).unwrap().len()), (0, 2));
    let inputs = [spread(&[1, 4, 5, 16], 1), spread(&[1, 2, 40, 16], 2), spread(&[1, 2, 40, 8], 3)];
    for samples in [&[][..], &[&inputs[..]]] {
        let quantized = quantized(&graph, Scope::All, samples);
        assert_eq!((integer_products_in(&quantized.graph), float_products(&quantized.graph).unwrap().len()), (2, 0));
        let snr = decibels(&graph, &quantized.graph, &inputs);
        assert!(snr > 30.0, "{snr}");
    }
}

#[test]
fn weights_of_many_keys_do_not_vanish() {
    // Each weight is about a thousandth: less than half of 1/127.
    let mut graph = Graph::new("attention");
    let scores = graph.add_input("scores", ty(&[4, 1000]));
    let values = graph.add_input("values", ty(&[1000, 8]));
    let shares = graph.add(Softmax { axis: 1 }, &[scores]).unwrap();
    let y = graph.add(MatMul::default(), &[shares, values]).unwrap();
    graph.add_output("y", y);
    let inputs = [spread(&[4, 1000], 1), spread(&[1000, 8], 2)];
    for samples in [&[][..], &[&inputs[..]]] {
        let quantized = quantized(&graph, Scope::All, samples);
        assert_eq!(integer_products_in(&quantized.graph), 1);
        let snr = decibels(&graph, &quantized.graph, &inputs);
        assert!(snr > 35.0, "{snr}");
    }
}

#[test]
fn what_chooses_by_size_stays_in_floats() {
    for goes_on in [true, false] {
        let mut graph = Graph::new("router");
        let x = graph.add_input("x", ty(&[4, 16]));
        let w = weights(&mut graph, &[16, 8], 1);
        let y = graph.add(MatMul::default(), &[x, w]).unwrap();
        let shares = graph.add(Softmax { axis: 1 }, &[y]).unwrap();
        let chosen = graph.add_multi(TopK { axis: 1, k: 2, largest: true }, &[shares]).unwrap();
        let table = weights(&mut graph, &[8, 3], 2);
        let result = if goes_on { graph.add(Gather { axis: 0 }, &[table, chosen[1]]).unwrap() } else { chosen[1] };
        graph.add_output("y", result);
        let quantizer = Quantizer::new(&graph, Scope::All).unwrap();
        assert_eq!(quantizer.products(), usize::from(!goes_on));
    }
}

#[test]
fn outer_products_stay_in_floats() {
    let mut graph = Graph::new("angles");
    let positions = graph.add_input("positions", ty(&[6, 1]));
    let frequencies = weights(&mut graph, &[1, 8], 1);
    let y = graph.add(MatMul::default(), &[positions, frequencies]).unwrap();
    graph.add_output("y", y);
    assert_eq!(Quantizer::new(&graph, Scope::All).unwrap().products(), 0);
    assert!(float_products(&graph).unwrap().is_empty());
    assert_eq!(WeightProducts::of(&graph), WeightProducts::default());
}

#[test]
fn halves_are_quantised_in_binary32() {
    let mut graph = Graph::new("halves");
    let x = graph.add_input("x", TensorType::new(DType::F16, shape(&[4, 16])));
    let w = weights(&mut graph, &[16, 8], 1);
    let w = graph.add(Cast { to: DType::F16 }, &[w]).unwrap();
    let y = graph.add(MatMul::default(), &[x, w]).unwrap();
    graph.add_output("y", y);
    let x = spread(&[4, 16], 2);
    let x = Tensor::narrow(TensorType::new(DType::F16, x.shape().clone()), x.widen().unwrap());
    let quantized = quantized(&graph, Scope::Weights, &[]);
    assert_eq!(integer_products_in(&quantized.graph), 1);
    assert_eq!(quantized.graph.ty(quantized.graph.outputs()[0].value), graph.ty(y));
    let snr = decibels(&graph, &quantized.graph, &[x]);
    assert!(snr > 35.0, "{snr}");
}

#[test]
fn weights_need_not_be_there() {
    let absent = Tensor::new(ty(&[16, 8]), Data::absent(16 * 8 * 4)).unwrap();
    let graph = linear(&[4, 16], absent);
    let with = quantized(&linear(&[4, 16], spread(&[16, 8], 1)), Scope::Weights, &[]);
    let without = quantized(&graph, Scope::Weights, &[]);
    assert_eq!(integer_products_in(&without.graph), 1);
    assert_eq!(without.graph.node_count(), with.graph.node_count());
    assert!(Quantizer::new(&graph, Scope::Weights).unwrap().ranges(&[spread(&[4, 16], 1)]).is_err());
}

#[test]
fn integers_and_their_views_are_left_as_they_are() {
    let graph = quantized(&linear(&[4, 16], spread(&[16, 8], 1)), Scope::Weights, &[]).graph;
    let again = Quantizer::new(&graph, Scope::All).unwrap();
    assert_eq!(again.products(), 0);
    assert_eq!(WeightProducts::of(&integer_products(&graph).unwrap()).integer, 1);
    let mut turned = Graph::new("turned");
    let x = turned.add_input("x", ty(&[4, 16]));
    let w = weights(&mut turned, &[8, 16], 1);
    let w = turned.add(Transpose { perm: vec![1, 0] }, &[w]).unwrap();
    let y = turned.add(MatMul::default(), &[x, w]).unwrap();
    turned.add_output("y", y);
    assert_eq!(integer_products_in(&quantized(&turned, Scope::Weights, &[]).graph), 1);
}
