//! ONNX's own attention operators, and what they share with those of `com.microsoft`.

use tcc_ir::ops::{Attention, BinaryFn, MatMul, Pad, Rope, Softmax, UnaryFn};
use tcc_ir::{DType, Real, Shape, Tensor, ValueId};

use super::tables::{self, check_table};
use crate::onnx::context::NodeContext;
use crate::onnx::error::LowerError;
use crate::onnx::registry::{Entry, onnx};

pub(super) const FAMILY: &[Entry] = &[onnx("Attention", attention), onnx("RotaryEmbedding", rotary_embedding)];

/// Turns `[B, S, heads·D]` into `[B, heads, S, D]`.
pub(super) fn split_heads(cx: &mut NodeContext<'_>, x: ValueId, heads: usize) -> Result<ValueId, LowerError> {
    let shape = cx.shape(x).clone();
    let &[batch, len, hidden] = &shape[..] else {
        return Err(LowerError::invalid(format!("{shape} must be [batch, length, heads · head size]")));
    };
    if heads == 0 || hidden % heads != 0 {
        return Err(LowerError::invalid(format!("a hidden size of {hidden} does not divide into {heads} heads")));
    }
    let split = cx.reshape(x, &[batch, len, heads, hidden / heads])?;
    cx.transpose(split, &[0, 2, 1, 3])
}

/// Turns `[B, heads, S, D]` into `[B, S, heads·D]`.
pub(super) fn merge_heads(cx: &mut NodeContext<'_>, x: ValueId) -> Result<ValueId, LowerError> {
    let shape = cx.shape(x).clone();
    let merged = cx.transpose(x, &[0, 2, 1, 3])?;
    cx.reshape(merged, &[shape[0], shape[2], shape[1] * shape[3]])
}

/// An attribute that counts heads: at least 1, and few enough to compute with, or not there.
pub(super) fn head_count(cx: &NodeContext<'_>, name: &str) -> Result<Option<usize>, LowerError> {
    match cx.int(name)? {
        None | Some(0) => Ok(None),
        Some(heads) => Ok(Some(tables::counts(name, &[heads], 1)?[0])),
    }
}

/// [`head_count`] where there is no default.
pub(super) fn required_head_count(cx: &NodeContext<'_>, name: &str) -> Result<usize, LowerError> {
    head_count(cx, name)?.ok_or_else(|| LowerError::Attribute {
        name: name.to_owned(),
        expected: "a positive number of heads".to_owned(),
    })
}

/// The size of the heads of q `[B, H, S, D]`, k `[B, G, T, D]` and v `[B, G, T, E]`, checked to fit together.
pub(super) fn check_heads(cx: &NodeContext<'_>, q: ValueId, k: ValueId, v: ValueId) -> Result<usize, LowerError> {
    let (q, k, v) = (cx.shape(q), cx.shape(k), cx.shape(v));
    let fits = q.rank() == 4
        && k.rank() == 4
        && v.rank() == 4
        && q[0] == k[0]
        && k[..3] == v[..3]
        && q[3] == k[3]
        && k[1] > 0
        && q[1] % k[1] == 0;
    if fits {
        Ok(q[3])
    } else {
        Err(LowerError::invalid(format!("query {q}, key {k} and value {v} (by heads) do not fit together")))
    }
}

/// `1 / sqrt(head size)`, the usual factor of attention scores.
pub(super) fn default_scale(head_size: usize) -> Real {
    Real::from(1.0 / (head_size as f32).sqrt())
}

/// `0, 1, .., count - 1` as 64-bit integers.
pub(super) fn iota(cx: &mut NodeContext<'_>, count: usize) -> Result<ValueId, LowerError> {
    tables::iota(cx, count, 0, 1)
}

/// Rotates the first `2·(last extent of cos)` elements of x `[B, H, S, D]`; the rest stays. cos and sin broadcast to
/// `[B, H, S, rotated / 2]`.
pub(super) fn rotate(
    cx: &mut NodeContext<'_>,
    x: ValueId,
    cos: ValueId,
    sin: ValueId,
    interleaved: bool,
) -> Result<ValueId, LowerError> {
    let size = cx.shape(x).last().copied().unwrap_or(1);
    let rotated = 2 * cx.shape(cos).last().copied().unwrap_or(0);
    if rotated > size {
        return Err(LowerError::invalid(format!("the cosines are for {rotated} elements, but heads have {size}")));
    }
    let axis = cx.rank(x) - 1;
    let (cos, sin) = (cx.cast(cos, cx.dtype(x))?, cx.cast(sin, cx.dtype(x))?);
    let first = cx.slice(x, axis, 0, rotated)?;
    let first = cx.add(Rope { interleaved }, &[first, cos, sin])?;
    if rotated == size {
        return Ok(first);
    }
    let rest = cx.slice(x, axis, rotated, size - rotated)?;
    cx.concat(&[first, rest], axis)
}

/// Rows of a cosine or sine cache `[positions, r/2]` for `[B, S]` (or any broadcast of it) positions, as `[B, 1, S,
/// r/2]`; a cache of rank 3 has been looked up already.
pub(super) fn angles(
    cx: &mut NodeContext<'_>,
    cache: ValueId,
    positions: Option<ValueId>,
) -> Result<ValueId, LowerError> {
    let rows = match positions {
        Some(positions) => cx.gather(cache, positions, 0)?,
        None => cache,
    };
    let shape = cx.shape(rows).clone();
    let &[batch, len, half] = &shape[..] else {
        return Err(LowerError::invalid(format!(
            "the cosines and sines looked up have shape {shape}, not [batch, length, half]"
        )));
    };
    cx.reshape(rows, &[batch, 1, len, half])
}

fn rotary_embedding(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let (x, cos, sin) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let positions = cx.optional(3);
    let interleaved = cx.flag("interleaved", false)?;
    let by_heads = match cx.rank(x) {
        4 => x,
        _ => {
            let heads = required_head_count(cx, "num_heads")?;
            split_heads(cx, x, heads)?
        }
    };
    let (cos, sin) = (angles(cx, cos, positions)?, angles(cx, sin, positions)?);
    let dim = cx.int_or("rotary_embedding_dim", 0)?;
    let expected = if dim == 0 { cx.shape(by_heads)[3] as i64 } else { dim };
    if 2 * cx.shape(cos)[3] as i64 != expected {
        return Err(LowerError::invalid(format!(
            "the cosines are for {} rotated elements, but {expected} are to be rotated",
            2 * cx.shape(cos)[3]
        )));
    }
    let rotated = rotate(cx, by_heads, cos, sin, interleaved)?;
    Ok(vec![if cx.rank(x) == 4 { rotated } else { merge_heads(cx, rotated)? }])
}

/// Which stage of the scores the fourth output of Attention shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scores {
    Raw,
    Capped,
    Masked,
    Softmax,
}

fn attention(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let (q, k, v) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let flat = cx.rank(q) == 3;
    let (q, k, v) = if flat {
        let heads = required_head_count(cx, "q_num_heads")?;
        let groups = required_head_count(cx, "kv_num_heads")?;
        (split_heads(cx, q, heads)?, split_heads(cx, k, groups)?, split_heads(cx, v, groups)?)
    } else {
        (q, k, v)
    };
    let past = match (cx.optional(4), cx.optional(5)) {
        (Some(key), Some(value)) => Some((key, value)),
        (None, None) => None,
        _ => return Err(LowerError::invalid("past_key and past_value must be given together")),
    };
    let (k, v, past_len) = match past {
        Some((past_key, past_value)) => {
            let len = cx.shape(past_key).get(2).copied().unwrap_or(0);
            (cx.concat(&[past_key, k], 2)?, cx.concat(&[past_value, v], 2)?, len)
        }
        None => (k, v, 0),
    };
    let head_size = check_heads(cx, q, k, v)?;
    let scale = cx.float("scale")?.map_or_else(|| default_scale(head_size), Real::from);
    let causal = cx.flag("is_causal", false)?.then_some(past_len as i64);
    let mask = mask(cx, cx.shape(k)[2])?;
    let softcap = Real::from(cx.float_or("softcap", 0.0)?);
    let op = Attention { scale, softcap, causal, window: None, mask: mask.is_some(), zero_masked_rows: false };

    let dtype = cx.dtype(q);
    let precision = match cx.int_or("softmax_precision", 0)? {
        0 => dtype,
        1 => DType::F32,
        10 => DType::F16,
        11 => DType::F64,
        16 => DType::BF16,
        other => return Err(LowerError::invalid(format!("softmax_precision {other} is not a floating-point type"))),
    };
    // The operator computes its softmax in binary32 for all narrower types.
    let as_fused = precision == dtype || (precision == DType::F32 && dtype != DType::F64);
    let (y, scores) = if cx.wants(3) || !as_fused {
        let stage = match cx.int_or("qk_matmul_output_mode", 0)? {
            0 => Scores::Raw,
            1 => Scores::Capped,
            2 => Scores::Masked,
            3 => Scores::Softmax,
            other => return Err(LowerError::invalid(format!("qk_matmul_output_mode {other} is not one of 0 to 3"))),
        };
        let (y, scores) = decomposed(cx, &op, (q, k, v), mask, precision, stage)?;
        (y, Some(scores))
    } else {
        let operands: Vec<ValueId> = [q, k, v].into_iter().chain(mask).collect();
        (cx.add(op, &operands)?, None)
    };
    let y = if flat { merge_heads(cx, y)? } else { y };
    Ok([y, k, v].into_iter().chain(scores).collect())
}

/// The mask input, extended to all `total` keys, together with the count of valid keys.
fn mask(cx: &mut NodeContext<'_>, total: usize) -> Result<Option<ValueId>, LowerError> {
    let mask = match cx.optional(3) {
        Some(mask) => Some(extend_mask(cx, mask, total)?),
        None => None,
    };
    let Some(lengths) = cx.optional(6) else { return Ok(mask) };
    let keys = iota(cx, total)?;
    let lengths = cx.cast(lengths, DType::I64)?;
    let batch = cx.shape(lengths).count();
    let lengths = cx.reshape(lengths, &[batch, 1, 1, 1])?;
    let valid = cx.binary(BinaryFn::Lt, keys, lengths)?;
    Ok(Some(match mask {
        None => valid,
        Some(mask) if cx.dtype(mask) == DType::Bool => cx.binary(BinaryFn::And, mask, valid)?,
        Some(mask) => {
            let never = cx.scalar_like(mask, f64::NEG_INFINITY);
            cx.select(valid, mask, never)?
        }
    }))
}

/// Fills a mask that is shorter than the keys: keys beyond it are not attended to.
fn extend_mask(cx: &mut NodeContext<'_>, mask: ValueId, total: usize) -> Result<ValueId, LowerError> {
    let shape = cx.shape(mask).clone();
    let len = shape.last().copied().unwrap_or(1);
    if shape.rank() == 0 || len >= total {
        return Ok(mask);
    }
    let fill = if cx.dtype(mask) == DType::Bool { 0.0 } else { f64::NEG_INFINITY };
    let fill = cx.scalar_like(mask, fill);
    let mut high = vec![0; shape.rank()];
    high[shape.rank() - 1] = (total - len) as i64;
    cx.add(Pad { low: vec![0; shape.rank()], high, interior: vec![0; shape.rank()] }, &[mask, fill])
}

/// Attention step by step, for those who look at its scores or want another precision. Returns the result and the
/// scores at `stage`.
fn decomposed(
    cx: &mut NodeContext<'_>,
    op: &Attention,
    (q, k, v): (ValueId, ValueId, ValueId),
    mask: Option<ValueId>,
    precision: DType,
    stage: Scores,
) -> Result<(ValueId, ValueId), LowerError> {
    let dtype = cx.dtype(q);
    let (q_shape, k_shape, v_shape) = (cx.shape(q).clone(), cx.shape(k).clone(), cx.shape(v).clone());
    let (batch, heads, len, groups, total) = (q_shape[0], q_shape[1], q_shape[2], k_shape[1], k_shape[2]);
    // Query heads of one group are laid below each other, so that each group is one matrix product.
    let rows = heads / groups * len;
    let q = cx.reshape(q, &[batch, groups, rows, q_shape[3]])?;
    let raw = cx.add(MatMul { transpose_b: true, ..MatMul::default() }, &[q, k])?;
    let raw = cx.reshape(raw, &[batch, heads, len, total])?;
    let raw = cx.binary_scalar(BinaryFn::Mul, raw, op.scale.0)?;
    let capped = if op.softcap.0 == 0.0 {
        raw
    } else {
        let inner = cx.binary_scalar(BinaryFn::Div, raw, op.softcap.0)?;
        let inner = cx.unary(UnaryFn::Tanh, inner)?;
        cx.binary_scalar(BinaryFn::Mul, inner, op.softcap.0)?
    };
    let never = cx.scalar_like(capped, f64::NEG_INFINITY);
    let mut masked = capped;
    if let Some(mask) = mask {
        masked = if cx.dtype(mask) == DType::Bool {
            cx.select(mask, masked, never)?
        } else {
            cx.binary(BinaryFn::Add, masked, mask)?
        };
    }
    if let Some(offset) = op.causal {
        let keys = iota(cx, total)?;
        check_table(&[len])?;
        let last: Vec<i64> = (0..len as i64).map(|row| row + offset).collect();
        let last = cx.constant(Tensor::from_vec(Shape::new([len, 1])?, last)?);
        let visible = cx.binary(BinaryFn::Le, keys, last)?;
        masked = cx.select(visible, masked, never)?;
    }
    let wide = cx.cast(masked, precision)?;
    let weights = cx.add(Softmax { axis: 3 }, &[wide])?;
    let weights = cx.cast(weights, dtype)?;
    let by_group = cx.reshape(weights, &[batch, groups, rows, total])?;
    let y = cx.mat_mul(by_group, v)?;
    let y = cx.reshape(y, &[batch, heads, len, v_shape[3]])?;
    let scores = match stage {
        Scores::Raw => raw,
        Scores::Capped => capped,
        Scores::Masked => masked,
        Scores::Softmax => weights,
    };
    Ok((y, scores))
}
