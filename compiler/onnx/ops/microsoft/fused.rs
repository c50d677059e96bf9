//! Activations, convolutions and matrix products with what ONNX Runtime's fusions merge into them.

use tcc_ir::ValueId;
use tcc_ir::ops::{BinaryFn, Gelu, MatMul, UnaryFn};

use super::super::convolution::conv;
use crate::onnx::context::NodeContext;
use crate::onnx::error::LowerError;
use crate::onnx::registry::{Entry, microsoft};

pub(in crate::onnx::ops) const FAMILY: &[Entry] = &[
    microsoft("BiasGelu", |cx| gelu(cx, false)),
    microsoft("FastGelu", |cx| gelu(cx, true)),
    microsoft("FusedConv", fused_conv),
    microsoft("FusedGemm", fused_gemm),
    microsoft("FusedMatMul", fused_mat_mul),
    microsoft("Gelu", |cx| gelu(cx, false)),
    microsoft("QuickGelu", quick_gelu),
];

fn gelu(cx: &mut NodeContext<'_>, tanh: bool) -> Result<Vec<ValueId>, LowerError> {
    let mut x = cx.input(0)?;
    if let Some(bias) = cx.optional(1) {
        x = cx.binary(BinaryFn::Add, x, bias)?;
    }
    Ok(vec![cx.add(Gelu { tanh }, &[x])?])
}

fn quick_gelu(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    let alpha = cx.float_or("alpha", 1.702)?;
    let scaled = cx.binary_scalar(BinaryFn::Mul, x, f64::from(alpha))?;
    let gate = cx.unary(UnaryFn::Sigmoid, scaled)?;
    Ok(vec![cx.binary(BinaryFn::Mul, x, gate)?])
}

fn times(cx: &mut NodeContext<'_>, x: ValueId, factor: f32) -> Result<ValueId, LowerError> {
    if factor == 1.0 { Ok(x) } else { cx.binary_scalar(BinaryFn::Mul, x, f64::from(factor)) }
}

fn fused_mat_mul(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    let (mut transpose_a, mut transpose_b) = (cx.flag("transA", false)?, cx.flag("transB", false)?);
    let a = if cx.flag("transBatchA", false)? { batches_first(cx, a)? } else { a };
    let b = if cx.flag("transBatchB", false)? { batches_first(cx, b)? } else { b };
    // A vector has nothing to transpose.
    let (a_rank, b_rank) = (cx.rank(a), cx.rank(b));
    let a = if a_rank == 1 {
        transpose_a = false;
        cx.reshape(a, &[1, cx.shape(a)[0]])?
    } else {
        a
    };
    let b = if b_rank == 1 {
        transpose_b = false;
        cx.reshape(b, &[cx.shape(b)[0], 1])?
    } else {
        b
    };
    let y = cx.add(MatMul { transpose_a, transpose_b, ..MatMul::default() }, &[a, b])?;
    let y = times(cx, y, cx.float_or("alpha", 1.0)?)?;
    let mut dims = cx.shape(y).to_vec();
    if b_rank == 1 {
        dims.pop();
    }
    if a_rank == 1 {
        dims.remove(dims.len() - if b_rank == 1 { 1 } else { 2 });
    }
    Ok(vec![cx.reshape(y, &dims)?])
}

/// Turns `[rows, batches.., columns]` into `[batches.., rows, columns]`.
fn batches_first(cx: &mut NodeContext<'_>, x: ValueId) -> Result<ValueId, LowerError> {
    let rank = cx.rank(x);
    if rank < 3 {
        return Ok(x);
    }
    let perm: Vec<usize> = (1..rank - 1).chain([0, rank - 1]).collect();
    cx.transpose(x, &perm)
}

fn fused_gemm(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    let op =
        MatMul { transpose_a: cx.flag("transA", false)?, transpose_b: cx.flag("transB", false)?, ..MatMul::default() };
    let product = cx.add(op, &[a, b])?;
    let mut y = times(cx, product, cx.float_or("alpha", 1.0)?)?;
    if let Some(c) = cx.optional(2) {
        let c = times(cx, c, cx.float_or("beta", 1.0)?)?;
        y = cx.binary(BinaryFn::Add, y, c)?;
    }
    let alpha = cx.float("activation_alpha")?;
    let beta = cx.float("activation_beta")?;
    Ok(vec![activation(cx, y, [alpha, beta])?])
}

/// A convolution, a tensor of the result's shape that is added, and an activation.
fn fused_conv(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let mut y = conv(cx)?;
    if let Some(residual) = cx.optional(3) {
        y = cx.binary(BinaryFn::Add, y, residual)?;
    }
    let parameters = cx.floats("activation_params")?.unwrap_or_default();
    let parameters = [parameters.first().copied(), parameters.get(1).copied()];
    Ok(vec![activation(cx, y, parameters)?])
}

/// The function that attribute `activation` names, of `y`. `parameters` are its alpha and beta where they are given.
fn activation(cx: &mut NodeContext<'_>, y: ValueId, parameters: [Option<f32>; 2]) -> Result<ValueId, LowerError> {
    let [alpha, beta] = parameters;
    let or = |given: Option<f32>, default: f32| f64::from(given.unwrap_or(default));
    match cx.string("activation")?.unwrap_or_default() {
        "" => Ok(y),
        "Relu" => cx.binary_scalar(BinaryFn::Max, y, 0.0),
        "Sigmoid" => cx.unary(UnaryFn::Sigmoid, y),
        "Tanh" => cx.unary(UnaryFn::Tanh, y),
        "LeakyRelu" => leaky_relu(cx, y, or(alpha, 0.01)),
        "HardSigmoid" => {
            let line = cx.binary_scalar(BinaryFn::Mul, y, or(alpha, 0.2))?;
            let line = cx.binary_scalar(BinaryFn::Add, line, or(beta, 0.5))?;
            let line = cx.binary_scalar(BinaryFn::Max, line, 0.0)?;
            cx.binary_scalar(BinaryFn::Min, line, 1.0)
        }
        "Clip" => {
            let raised = cx.binary_scalar(BinaryFn::Max, y, or(alpha, f32::MIN))?;
            cx.binary_scalar(BinaryFn::Min, raised, or(beta, f32::MAX))
        }
        other => Err(LowerError::unsupported(format!("{} with activation `{other}`", cx.op_type()))),
    }
}

/// x, or `slope · x` below 0.
pub(super) fn leaky_relu(cx: &mut NodeContext<'_>, x: ValueId, slope: f64) -> Result<ValueId, LowerError> {
    let negative = cx.binary_scalar(BinaryFn::Lt, x, 0.0)?;
    let scaled = cx.binary_scalar(BinaryFn::Mul, x, slope)?;
    cx.select(negative, scaled, x)
}
