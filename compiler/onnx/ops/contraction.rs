//! Products of matrices.

use tcc_ir::ValueId;
use tcc_ir::ops::{BinaryFn, MatMul};

use crate::onnx::context::NodeContext;
use crate::onnx::error::LowerError;
use crate::onnx::registry::{Entry, onnx};

pub(super) const FAMILY: &[Entry] = &[onnx("Gemm", gemm), onnx("MatMul", mat_mul)];

fn mat_mul(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let (mut a, mut b) = (cx.input(0)?, cx.input(1)?);
    let dtype = cx.dtype(a);
    let (a_vector, b_vector) = (cx.rank(a) == 1, cx.rank(b) == 1);
    if a_vector {
        a = cx.reshape(a, &[1, cx.shape(a)[0]])?;
    }
    if b_vector {
        b = cx.reshape(b, &[cx.shape(b)[0], 1])?;
    }
    let product = cx.mat_mul(a, b)?;
    // A vector takes part as a row or column, which the result does not have.
    let mut dims = cx.shape(product).to_vec();
    if b_vector {
        dims.pop();
    }
    if a_vector {
        dims.remove(dims.len() - if b_vector { 1 } else { 2 });
    }
    let product = cx.reshape(product, &dims)?;
    Ok(vec![cx.cast(product, dtype)?])
}

fn gemm(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    let dtype = cx.dtype(a);
    let op = MatMul { transpose_a: cx.flag("transA", false)?, transpose_b: cx.flag("transB", false)?, ..MatMul::default() };
    let mut y = cx.add(op, &[a, b])?;
    y = cx.cast(y, dtype)?;
    y = scaled(cx, y, "alpha")?;
    if let Some(c) = cx.optional(2) {
        let c = scaled(cx, c, "beta")?;
        y = cx.binary(BinaryFn::Add, y, c)?;
    }
    Ok(vec![y])
}

fn scaled(cx: &mut NodeContext<'_>, x: ValueId, name: &str) -> Result<ValueId, LowerError> {
    let factor = cx.float_or(name, 1.0)?;
    if factor == 1.0 { Ok(x) } else { cx.binary_scalar(BinaryFn::Mul, x, factor.into()) }
}
