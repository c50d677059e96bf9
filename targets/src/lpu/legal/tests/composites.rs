//! Operators that are defined by others, and what becomes of these.

use tcc_ir::ops::{Attention, Conv, Dequantize, Gelu, LayerNorm, MatMul, Quantize, RmsNorm, Rope, Softmax, Window};
use tcc_ir::{DType, Op, Real, Tensor, ValueId};

use super::{Bench, Close, names, tensor};

const FLOATS: [(DType, f64); 4] = [(DType::F64, 1e-13), (DType::F32, 1e-5), (DType::F16, 5e-3), (DType::BF16, 4e-2)];

fn check(op: impl Into<Op>, seed: u64, dtype: DType, operands: &[&[usize]], tolerance: f64) -> Vec<&'static str> {
    let mut bench = Bench::new(seed);
    let operands: Vec<ValueId> = operands
        .iter()
        .map(|dims| {
            let operand = bench.any(dtype, dims);
            bench.input(operand)
        })
        .collect();
    bench.result(op, &operands);
    names(&bench.check(Close::Within(tolerance)))
}

#[test]
fn norms_and_activations() {
    for (dtype, tolerance) in FLOATS {
        check(Softmax { axis: 1 }, 1, dtype, &[&[3, 9, 2]], tolerance);
        let norm = LayerNorm { axis: 1, epsilon: Real(1e-5), bias: true };
        check(norm, 2, dtype, &[&[4, 16], &[16], &[16]], tolerance);
        check(RmsNorm { axis: 1, epsilon: Real(1e-6) }, 3, dtype, &[&[4, 16], &[16]], tolerance);
        for tanh in [false, true] {
            check(Gelu { tanh }, 4, dtype, &[&[5, 7]], tolerance);
        }
        for interleaved in [false, true] {
            check(Rope { interleaved }, 5, dtype, &[&[2, 3, 5, 8], &[5, 4], &[5, 4]], tolerance);
        }
    }
}

#[test]
fn attention_with_shared_keys_and_masks() {
    let plain = Attention {
        scale: Real(0.5),
        softcap: Real(0.0),
        causal: None,
        window: None,
        mask: false,
        zero_masked_rows: false,
    };
    for (dtype, tolerance) in FLOATS {
        for (heads, groups) in [(4, 4), (4, 2), (3, 1)] {
            for (causal, window, softcap) in [(None, None, 0.0), (Some(2), None, 1.5), (Some(2), Some(3), 0.0)] {
                for mask in [None, Some(DType::Bool), Some(dtype)] {
                    let mut bench = Bench::new(1);
                    let dims = [[2, heads, 5, 4], [2, groups, 7, 4], [2, groups, 7, 3]];
                    let mut operands: Vec<ValueId> = Vec::new();
                    for dims in dims {
                        let operand = bench.any(dtype, &dims);
                        operands.push(bench.input(operand));
                    }
                    if let Some(mask) = mask {
                        let mask = bench.any(mask, &[2, 1, 5, 7]);
                        operands.push(bench.input(mask));
                    }
                    let op = Attention {
                        softcap: Real(softcap),
                        causal,
                        window,
                        mask: mask.is_some(),
                        zero_masked_rows: true,
                        ..plain
                    };
                    bench.result(op, &operands);
                    let legal = bench.check(Close::Within(tolerance));
                    let products = names(&legal).iter().filter(|&&name| name == "mat_mul").count();
                    assert_eq!(products, if dtype == DType::F64 { 0 } else { 2 });
                }
            }
        }
    }
}

#[test]
fn convolutions() {
    for (dtype, tolerance) in [(DType::F32, 1e-5), (DType::F16, 5e-3), (DType::F64, 1e-13)] {
        for (groups, filters, strides, dilations, padding) in
            [(1, 6, 1, 1, 0), (2, 4, 2, 1, 1), (4, 8, 1, 2, 2), (1, 3, 3, 1, -1)]
        {
            let op = Conv {
                strides: vec![strides; 2],
                low: vec![padding; 2],
                high: vec![padding + 1; 2],
                dilations: vec![dilations; 2],
                groups,
                x_zero: false,
                w_zero: false,
            };
            for kernel in [1, 3] {
                check(op.clone(), 1, dtype, &[&[2, 4, 8, 9], &[filters, 4 / groups, kernel, kernel]], tolerance);
            }
        }
    }
}

#[test]
fn quantised_convolutions() {
    use DType::{I8, U8};
    for (x_type, w_type) in [(U8, I8), (I8, I8), (U8, U8)] {
        for x_zero in [false, true] {
            for w_zero in [None, Some(&[][..]), Some(&[4])] {
                for groups in [1, 2] {
                    let mut bench = Bench::new(3);
                    let x = bench.any(x_type, &[2, 4, 7]);
                    let w = bench.any(w_type, &[4, 4 / groups, 3]);
                    let mut operands = vec![bench.input(x), bench.graph.constant(w)];
                    if x_zero {
                        let zero = bench.any(x_type, &[]);
                        operands.push(bench.input(zero));
                    }
                    if let Some(dims) = w_zero {
                        let zero = bench.any(w_type, dims);
                        operands.push(bench.graph.constant(zero));
                    }
                    let op = Conv {
                        strides: vec![2],
                        low: vec![1],
                        high: vec![2],
                        dilations: vec![1],
                        groups,
                        x_zero,
                        w_zero: w_zero.is_some(),
                    };
                    bench.result(op, &operands);
                    bench.check(Close::Exactly);
                }
            }
        }
    }
}

#[test]
fn quantisation() {
    for (to, zero) in
        [(DType::U8, true), (DType::I8, true), (DType::I8, false), (DType::I4, true), (DType::F8E4M3, false)]
    {
        let mut bench = Bench::new(1);
        let x = bench.any(DType::F32, &[5, 6]);
        let x = bench.input(x);
        let scale = bench.graph.constant(tensor(DType::F32, &[], &[0.01]));
        let mut operands = vec![x, scale];
        if zero {
            let zero = bench.whole(to, &[], 0, 5);
            operands.push(bench.graph.constant(zero));
        }
        let quantized = bench.add(Quantize { to, zero }, &operands);
        operands[0] = quantized;
        bench.graph.add_output("q", quantized);
        bench.result(Dequantize { zero }, &operands);
        bench.check(Close::Exactly);
    }
}

#[test]
fn dequantised_operands_are_multiplied_as_integers() {
    let mut bench = Bench::new(1);
    let dequantized = |bench: &mut Bench, x: Tensor, weights: bool| {
        let zero = bench.any(x.dtype(), &[]);
        let x = if weights { bench.graph.constant(x) } else { bench.input(x) };
        let zero = bench.graph.constant(zero);
        let scale = bench.graph.constant(Tensor::scalar(0.01f32));
        bench.add(Dequantize { zero: true }, &[x, scale, zero])
    };
    let (x, w) = (bench.any(DType::U8, &[4, 9]), bench.any(DType::I8, &[9, 5]));
    let (x, w) = (dequantized(&mut bench, x, false), dequantized(&mut bench, w, true));
    bench.result(MatMul::default(), &[x, w]);
    let legal = bench.check(Close::Within(1e-5));
    let product = legal.nodes().find(|(_, node)| node.op.name() == "mat_mul").unwrap().1;
    assert_eq!(legal.ty(product.output()).dtype, DType::I32);
}

#[test]
fn windows_stay() {
    let kept = check(Window { axis: 1, size: 3, step: 2, dilation: 1 }, 1, DType::F32, &[&[2, 9]], 0.0);
    assert_eq!(kept, ["window"]);
}
