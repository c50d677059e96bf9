//! Activations and matrix products with what ONNX Runtime's fusions merge into them.

use tcc_ir::ValueId;
use tcc_ir::ops::{BinaryFn, Gelu, MatMul, UnaryFn};

use crate::onnx::context::NodeContext;
use crate::onnx::error::LowerError;
use crate::onnx::registry::{Entry, microsoft};

pub(in crate::onnx::ops) const FAMILY: &[Entry] = &[
    microsoft("BiasGelu", |cx| gelu(cx, false)),
    microsoft("FastGelu", |cx| gelu(cx, true)),
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
    let alpha = |default: f32| cx.float_or("activation_alpha", default).map(f64::from);
    Ok(vec![match cx.string("activation")?.unwrap_or_default() {
        "" => y,
        "Relu" => cx.binary_scalar(BinaryFn::Max, y, 0.0)?,
        "Sigmoid" => cx.unary(UnaryFn::Sigmoid, y)?,
        "Tanh" => cx.unary(UnaryFn::Tanh, y)?,
        "LeakyRelu" => {
            let slope = alpha(0.01)?;
            leaky_relu(cx, y, slope)?
        }
        "HardSigmoid" => {
            let (slope, offset) = (alpha(0.2)?, cx.float_or("activation_beta", 0.5)?);
            let line = cx.binary_scalar(BinaryFn::Mul, y, slope)?;
            let line = cx.binary_scalar(BinaryFn::Add, line, f64::from(offset))?;
            let line = cx.binary_scalar(BinaryFn::Max, line, 0.0)?;
            cx.binary_scalar(BinaryFn::Min, line, 1.0)?
        }
        other => return Err(LowerError::unsupported(format!("FusedGemm with activation `{other}`"))),
    }])
}

/// x, or `slope · x` below 0.
pub(super) fn leaky_relu(cx: &mut NodeContext<'_>, x: ValueId, slope: f64) -> Result<ValueId, LowerError> {
    let negative = cx.binary_scalar(BinaryFn::Lt, x, 0.0)?;
    let scaled = cx.binary_scalar(BinaryFn::Mul, x, slope)?;
    cx.select(negative, scaled, x)
}
