//! Attention with its projection merged in, attention over given projections, and rotary embedding by position.

use tcc_ir::ops::{Attention, BinaryFn};
use tcc_ir::{DType, Real, ValueId};

use super::super::attention::{
    angles, check_heads, default_scale, head_count, iota, merge_heads, required_head_count, rotate, split_heads,
};
use super::super::quantization::{for_columns, integer_mat_mul};
use crate::onnx::context::NodeContext;
use crate::onnx::error::LowerError;
use crate::onnx::registry::{Entry, microsoft};

pub(in crate::onnx::ops) const FAMILY: &[Entry] = &[
    microsoft("Attention", attention),
    microsoft("MultiHeadAttention", multi_head_attention),
    microsoft("QAttention", q_attention),
    microsoft("RotaryEmbedding", rotary_embedding),
];

/// Queries, keys and values by heads: `[B, N, S, D]`.
#[derive(Clone, Copy)]
struct Heads {
    q: ValueId,
    k: ValueId,
    v: ValueId,
}

/// Where the inputs lie that Attention and QAttention share.
struct Positions {
    mask: usize,
    past: usize,
    bias: Option<usize>,
}

fn attention(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    if cx.flag("do_rotary", false)? || cx.flag("past_present_share_buffer", false)? || cx.optional(6).is_some() {
        return Err(LowerError::unsupported(
            "Attention with do_rotary or a shared past buffer; export with GroupQueryAttention instead",
        ));
    }
    let (x, weights) = (cx.input(0)?, cx.input(1)?);
    let mut projected = cx.mat_mul(x, weights)?;
    if let Some(bias) = cx.optional(2) {
        projected = cx.binary(BinaryFn::Add, projected, bias)?;
    }
    merged_attention(cx, projected, &Positions { mask: 3, past: 4, bias: Some(5) })
}

fn q_attention(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    if cx.flag("do_rotary", false)? {
        return Err(LowerError::unsupported("QAttention with do_rotary"));
    }
    let (x, weights, bias) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (x_scale, w_scale) = (cx.input(3)?, cx.input(4)?);
    let x_scale = cx.reshape(x_scale, &[])?;
    let w_scale = for_columns(cx, w_scale)?;
    let x_zero = cx.optional(6).map(|zero| cx.reshape(zero, &[])).transpose()?;
    let w_zero = cx.optional(7).map(|zero| for_columns(cx, zero)).transpose()?;
    let sums = integer_mat_mul(cx, (x, x_zero), (weights, w_zero), (false, false))?;
    let scale = cx.binary(BinaryFn::Mul, x_scale, w_scale)?;
    let sums = cx.cast(sums, cx.dtype(scale))?;
    let scaled = cx.binary(BinaryFn::Mul, sums, scale)?;
    let projected = cx.binary(BinaryFn::Add, scaled, bias)?;
    merged_attention(cx, projected, &Positions { mask: 5, past: 8, bias: None })
}

/// Attention over `[B, S, queries | keys | values]`.
fn merged_attention(
    cx: &mut NodeContext<'_>,
    projected: ValueId,
    positions: &Positions,
) -> Result<Vec<ValueId>, LowerError> {
    let heads = required_head_count(cx, "num_heads")?;
    let hidden = cx.shape(projected).last().copied().unwrap_or(0);
    let sizes = match cx.ints("qkv_hidden_sizes")? {
        None | Some([]) => [hidden / 3; 3],
        Some(&[q, k, v]) => [q, k, v].map(|size| usize::try_from(size).unwrap_or(0)),
        Some(_) => {
            return Err(LowerError::Attribute {
                name: "qkv_hidden_sizes".to_owned(),
                expected: "three sizes".to_owned(),
            });
        }
    };
    if sizes.iter().try_fold(0usize, |sum, &size| sum.checked_add(size)) != Some(hidden) || cx.rank(projected) != 3 {
        return Err(LowerError::invalid(format!(
            "the projections have shape {}, which is not [batch, length, {sizes:?}]",
            cx.shape(projected)
        )));
    }
    let mut part = |start: usize, size: usize| -> Result<ValueId, LowerError> {
        let part = cx.slice(projected, 2, start, size)?;
        split_heads(cx, part, heads)
    };
    let q = part(0, sizes[0])?;
    let k = part(sizes[0], sizes[1])?;
    let v = part(sizes[0] + sizes[1], sizes[2])?;
    let past = match cx.optional(positions.past) {
        None => None,
        Some(past) => {
            let dims = cx.shape(past).to_vec();
            if dims.len() != 5 || dims[0] != 2 {
                return Err(LowerError::invalid(format!(
                    "past has shape {dims:?}, not [2, batch, heads, length, size]"
                )));
            }
            let (key, value) = (cx.slice(past, 0, 0, 1)?, cx.slice(past, 0, 1, 1)?);
            Some((cx.reshape(key, &dims[1..])?, cx.reshape(value, &dims[1..])?))
        }
    };
    let bias = positions.bias.and_then(|index| cx.optional(index));
    let mask = cx.optional(positions.mask);
    let (y, k, v) = attend(cx, Heads { q, k, v }, past, mask, bias)?;
    if !cx.wants(1) {
        return Ok(vec![y]);
    }
    let mut stacked = [k, v];
    for state in &mut stacked {
        let dims: Vec<usize> = [1].into_iter().chain(cx.shape(*state).iter().copied()).collect();
        *state = cx.reshape(*state, &dims)?;
    }
    Ok(vec![y, cx.concat(&stacked, 0)?])
}

/// The common end: joins the past, masks, attends. Returns the result `[B, S, N·D]` and the joined keys and values.
fn attend(
    cx: &mut NodeContext<'_>,
    heads: Heads,
    past: Option<(ValueId, ValueId)>,
    padding: Option<ValueId>,
    bias: Option<ValueId>,
) -> Result<(ValueId, ValueId, ValueId), LowerError> {
    let Heads { q, mut k, mut v } = heads;
    if let Some((past_key, past_value)) = past {
        k = cx.concat(&[past_key, k], 2)?;
        v = cx.concat(&[past_value, v], 2)?;
    }
    let head_size = check_heads(cx, q, k, v)?;
    let (batch, len, total) = (cx.shape(q)[0], cx.shape(q)[2], cx.shape(k)[2]);
    let padding = match padding {
        Some(mask) => Some(padding_addend(cx, mask, (batch, len, total), cx.dtype(q))?),
        None => None,
    };
    let mask = match (padding, bias) {
        (Some(padding), Some(bias)) => Some(cx.binary(BinaryFn::Add, padding, bias)?),
        (padding, bias) => padding.or(bias),
    };
    let scale = match cx.float_or("scale", 0.0)? {
        0.0 => default_scale(head_size),
        scale => Real::from(scale),
    };
    let causal = cx.flag("unidirectional", false)?.then_some(total as i64 - len as i64);
    let op =
        Attention { scale, softcap: Real(0.0), causal, window: None, mask: mask.is_some(), zero_masked_rows: false };
    let operands: Vec<ValueId> = [q, k, v].into_iter().chain(mask).collect();
    let y = cx.add(op, &operands)?;
    Ok((merge_heads(cx, y)?, k, v))
}

/// The mask inputs of ONNX Runtime's attention as an addend to scores `[B, N, S, T]`: flags by key, flags by query and
/// key, or the ends (and starts) of the valid keys.
fn padding_addend(
    cx: &mut NodeContext<'_>,
    mask: ValueId,
    (batch, len, total): (usize, usize, usize),
    dtype: DType,
) -> Result<ValueId, LowerError> {
    let dims = cx.shape(mask).to_vec();
    let keep = match dims[..] {
        [n] if n == batch || n == 2 * batch => {
            let mask = cx.cast(mask, DType::I64)?;
            let keys = iota(cx, total)?;
            let ends = cx.slice(mask, 0, 0, batch)?;
            let ends = cx.reshape(ends, &[batch, 1, 1, 1])?;
            let before_end = cx.binary(BinaryFn::Lt, keys, ends)?;
            if n == batch {
                before_end
            } else {
                let starts = cx.slice(mask, 0, batch, batch)?;
                let starts = cx.reshape(starts, &[batch, 1, 1, 1])?;
                let from_start = cx.binary(BinaryFn::Ge, keys, starts)?;
                cx.binary(BinaryFn::And, before_end, from_start)?
            }
        }
        [b, t] if b == batch && t == total => flags(cx, mask, &[b, 1, 1, t])?,
        [b, s, t] if b == batch && s == len && t == total => flags(cx, mask, &[b, 1, s, t])?,
        _ => {
            return Err(LowerError::unsupported(format!(
                "a mask of shape {dims:?} for batch {batch}, {len} queries and {total} keys; masks of shape [batch], \
                 [2 · batch], [batch, keys] and [batch, queries, keys] are known"
            )));
        }
    };
    let filter = cx.float_or("mask_filter_value", -10000.0)?;
    let keep_value = cx.constant(tcc_ir::Tensor::scalar_of(dtype, 0.0));
    let drop_value = cx.constant(tcc_ir::Tensor::scalar_of(dtype, f64::from(filter)));
    cx.select(keep, keep_value, drop_value)
}

/// Whether each number is above 0, in another shape.
fn flags(cx: &mut NodeContext<'_>, mask: ValueId, dims: &[usize]) -> Result<ValueId, LowerError> {
    let mask = cx.reshape(mask, dims)?;
    if cx.dtype(mask) == DType::Bool { Ok(mask) } else { cx.binary_scalar(BinaryFn::Gt, mask, 0.0) }
}

fn multi_head_attention(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    if cx.optional(8).is_some() || cx.optional(9).is_some() || cx.wants(3) {
        return Err(LowerError::unsupported(
            "MultiHeadAttention with past_sequence_length, cache_indirection or the qk output",
        ));
    }
    let heads = required_head_count(cx, "num_heads")?;
    let query = cx.input(0)?;
    let packed = |cx: &mut NodeContext<'_>, x: ValueId, index: usize| -> Result<ValueId, LowerError> {
        // [B, S, N, parts, D]: the parts of each head lie together.
        let dims = cx.shape(x).to_vec();
        let part = cx.slice(x, 3, index, 1)?;
        cx.reshape(part, &[dims[0], dims[1], dims[2] * dims[4]])
    };
    let (q, k, v) = match (cx.rank(query), cx.optional(1), cx.optional(2)) {
        (5, None, None) => (packed(cx, query, 0)?, packed(cx, query, 1)?, packed(cx, query, 2)?),
        (3, Some(key), None) if cx.rank(key) == 5 => (query, packed(cx, key, 0)?, packed(cx, key, 1)?),
        (3, Some(key), Some(value)) => (query, key, value),
        _ => {
            return Err(LowerError::invalid(
                "query, key and value must be three inputs, a query with packed [B, S, N, 2, D] key and value, or packed \
                 [B, S, N, 3, D] together",
            ));
        }
    };
    let mut parts = [q, k, v];
    if let Some(bias) = cx.optional(3) {
        let mut start = 0;
        for part in &mut parts {
            if cx.rank(*part) != 3 {
                continue;
            }
            let size = cx.shape(*part)[2];
            let slice = cx.slice(bias, 0, start, size)?;
            *part = cx.binary(BinaryFn::Add, *part, slice)?;
            start += size;
        }
    }
    for part in &mut parts {
        // Keys and values of cross-attention may come by heads already.
        if cx.rank(*part) == 3 {
            *part = split_heads(cx, *part, heads)?;
        }
    }
    let [q, k, v] = parts;
    let past = match (cx.optional(6), cx.optional(7)) {
        (Some(key), Some(value)) => Some((key, value)),
        (None, None) => None,
        _ => return Err(LowerError::invalid("past_key and past_value must be given together")),
    };
    let (padding, bias) = (cx.optional(4), cx.optional(5));
    let (y, k, v) = attend(cx, Heads { q, k, v }, past, padding, bias)?;
    Ok(vec![y, k, v])
}

fn rotary_embedding(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    if cx.flag("is_packed_batching", false)? {
        return Err(LowerError::unsupported("RotaryEmbedding with is_packed_batching"));
    }
    let (x, positions) = (cx.input(0)?, cx.input(1)?);
    let (cos, sin) = (cx.input(2)?, cx.input(3)?);
    let interleaved = cx.flag("interleaved", false)?;
    let half = cx.shape(cos).last().copied().unwrap_or(0);
    let by_heads = match cx.rank(x) {
        4 => x,
        _ => {
            let hidden = cx.shape(x).last().copied().unwrap_or(0);
            let heads = match head_count(cx, "num_heads")? {
                Some(heads) => heads,
                None => hidden / (2 * half).max(1),
            };
            split_heads(cx, x, heads)?
        }
    };
    let len = cx.shape(by_heads)[2];
    let positions = cx.cast(positions, DType::I64)?;
    let positions = if cx.shape(positions).count() == 1 && cx.rank(positions) < 2 {
        // A single number is the position of the first element of every sequence.
        let first = cx.reshape(positions, &[1, 1])?;
        let steps = iota(cx, len)?;
        cx.binary(BinaryFn::Add, first, steps)?
    } else {
        positions
    };
    let (cos, sin) = (angles(cx, cos, Some(positions))?, angles(cx, sin, Some(positions))?);
    let rotated = rotate(cx, by_heads, cos, sin, interleaved)?;
    Ok(vec![if cx.rank(x) == 4 { rotated } else { merge_heads(cx, rotated)? }])
}
