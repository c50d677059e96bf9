//! Attention with grouped heads over a cache of keys and values.
//!
//! The cache is either exactly the past or a longer buffer, and how much of it each sequence has filled is an input. When
//! that is a constant, everything is slices and static masks. When it is data, rows of the cache are looked up by position
//! and masks are compared at run time, so that sequences of different length run in one batch.

use tcc_ir::ops::{Attention, BinaryFn, GatherNd, Pad};
use tcc_ir::{DType, Real, ValueId};

use super::super::attention::{
    angles, check_heads, default_scale, iota, merge_heads, required_head_count, rotate, split_heads,
};
use crate::onnx::context::NodeContext;
use crate::onnx::error::LowerError;
use crate::onnx::registry::{Entry, microsoft};

pub(in crate::onnx::ops) const FAMILY: &[Entry] = &[microsoft("GroupQueryAttention", group_query_attention)];

/// How many keys each sequence had before this call.
#[derive(Clone, Copy)]
enum Filled {
    /// The same number for all.
    Same(usize),
    /// `[B]` numbers known at run time.
    Each(ValueId),
}

/// The extents of one call.
#[derive(Clone, Copy)]
struct Extents {
    batch: usize,
    /// Queries, and new keys, of each sequence.
    len: usize,
    /// Keys of the longest sequence.
    total: usize,
    /// Rows of the past cache.
    past: usize,
    /// Rows of the present cache.
    present: usize,
}

fn group_query_attention(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    refuse_variants(cx)?;
    let heads = required_head_count(cx, "num_heads")?;
    let groups = required_head_count(cx, "kv_num_heads")?;
    let (q, k, v) = projections(cx, heads, groups)?;
    let head_size = check_heads(cx, q, k, v)?;
    if cx.shape(q)[2] != cx.shape(k)[2] {
        return Err(LowerError::invalid(format!(
            "{} queries come with {} new keys; there must be as many",
            cx.shape(q)[2],
            cx.shape(k)[2]
        )));
    }
    let total = match cx.const_i64s(6)?[..] {
        [total] => usize::try_from(total).map_err(|_| LowerError::invalid(format!("a total length of {total}")))?,
        _ => return Err(LowerError::invalid("total_sequence_length must be a single number")),
    };
    let past = match (cx.optional(3), cx.optional(4)) {
        (Some(key), Some(value)) => Some((key, value)),
        (None, None) => None,
        _ => return Err(LowerError::invalid("past_key and past_value must be given together")),
    };
    let past_len = past.map_or(0, |(key, _)| cx.shape(key).get(2).copied().unwrap_or(0));
    let extents =
        Extents { batch: cx.shape(q)[0], len: cx.shape(q)[2], total, past: past_len, present: total.max(past_len) };
    if extents.len > total || (extents.len < total && total - extents.len > past_len) {
        return Err(LowerError::invalid(format!(
            "{} new keys and a cache of {past_len} cannot make a total length of {total}",
            extents.len
        )));
    }
    let lengths = lengths(cx, extents)?;
    let prompt = extents.len == total;
    let filled = match (prompt, lengths) {
        (true, _) => Filled::Same(0),
        (false, None) => Filled::Same(total - extents.len),
        (false, Some(lengths)) => Filled::Each(cx.binary_scalar(BinaryFn::Sub, lengths, extents.len as f64)?),
    };
    let (q, k) = if cx.flag("do_rotary", false)? { rotate_both(cx, q, k, filled, extents)? } else { (q, k) };

    let (past_key, past_value) = (past.map(|(key, _)| key), past.map(|(_, value)| value));
    let present_key = append(cx, past_key, k, filled, extents)?;
    let present_value = append(cx, past_value, v, filled, extents)?;
    // Rows of the buffer beyond the longest sequence are never attended to.
    let (k, v) = (cx.slice(present_key, 2, 0, total)?, cx.slice(present_value, 2, 0, total)?);

    let window = match cx.int_or("local_window_size", -1)? {
        size if size > 0 => Some(size),
        _ => None,
    };
    let (mask, causal) = match filled {
        Filled::Same(filled) => {
            let valid = match lengths.filter(|_| prompt) {
                None => None,
                Some(lengths) => {
                    let keys = iota(cx, total)?;
                    let lengths = cx.reshape(lengths, &[extents.batch, 1, 1, 1])?;
                    Some(cx.binary(BinaryFn::Lt, keys, lengths)?)
                }
            };
            (valid, Some(filled as i64))
        }
        Filled::Each(filled) => (Some(visible(cx, filled, window, extents)?), None),
    };
    let mask = match (cx.optional(10), mask) {
        (Some(bias), Some(mask)) => {
            let never = cx.scalar_like(bias, f64::NEG_INFINITY);
            Some(cx.select(mask, bias, never)?)
        }
        (bias, mask) => bias.or(mask),
    };
    let scale = match cx.float_or("scale", 0.0)? {
        0.0 => default_scale(head_size),
        scale => Real::from(scale),
    };
    let op = Attention {
        scale,
        softcap: Real::from(cx.float_or("softcap", 0.0)?),
        causal,
        window: window.filter(|_| causal.is_some()),
        mask: mask.is_some(),
        // Queries of padding may have nothing to attend to.
        zero_masked_rows: true,
    };
    let operands: Vec<ValueId> = [q, k, v].into_iter().chain(mask).collect();
    let y = cx.add(op, &operands)?;
    Ok(vec![merge_heads(cx, y)?, present_key, present_value])
}

fn refuse_variants(cx: &NodeContext<'_>) -> Result<(), LowerError> {
    let refused = if cx.flag("smooth_softmax", false)? || cx.optional(11).is_some() {
        "a smooth softmax or head sinks"
    } else if cx.string("k_quant_type")?.is_some_and(|kind| kind != "NONE")
        || cx.string("v_quant_type")?.is_some_and(|kind| kind != "NONE")
        || cx.optional(12).is_some()
        || cx.optional(13).is_some()
    {
        "a quantised cache"
    } else if cx.wants(3) || cx.int_or("qk_output", 0)? != 0 {
        "the qk output"
    } else {
        return Ok(());
    };
    Err(LowerError::unsupported(format!("GroupQueryAttention with {refused}")))
}

/// Queries, keys and values by heads, which may come packed in the first input.
fn projections(
    cx: &mut NodeContext<'_>,
    heads: usize,
    groups: usize,
) -> Result<(ValueId, ValueId, ValueId), LowerError> {
    let query = cx.input(0)?;
    let (q, k, v) = match (cx.optional(1), cx.optional(2)) {
        (Some(key), Some(value)) => (query, key, value),
        (None, None) => {
            let hidden = cx.shape(query).last().copied().unwrap_or(0);
            let parts = heads + 2 * groups;
            if cx.rank(query) != 3 || hidden % parts != 0 {
                return Err(LowerError::invalid(format!(
                    "packed query, key and value of shape {} do not divide into {heads} + 2 · {groups} heads",
                    cx.shape(query)
                )));
            }
            let size = hidden / parts;
            let q = cx.slice(query, 2, 0, heads * size)?;
            let k = cx.slice(query, 2, heads * size, groups * size)?;
            (q, k, cx.slice(query, 2, (heads + groups) * size, groups * size)?)
        }
        _ => return Err(LowerError::invalid("key and value must be given together")),
    };
    Ok((split_heads(cx, q, heads)?, split_heads(cx, k, groups)?, split_heads(cx, v, groups)?))
}

/// Keys of each sequence with the new ones, `[B]`: `None` if they are known to be `total` for all.
fn lengths(cx: &mut NodeContext<'_>, extents: Extents) -> Result<Option<ValueId>, LowerError> {
    let last = cx.input(5)?;
    let last = cx.cast(last, DType::I64)?;
    let last = cx.reshape(last, &[extents.batch])?;
    let lengths = cx.binary_scalar(BinaryFn::Add, last, 1.0)?;
    let all_full = match cx.known(lengths) {
        Some(tensor) => tensor.to_i64s()?.is_some_and(|lengths| lengths.iter().all(|&len| len == extents.total as i64)),
        None => false,
    };
    Ok(if all_full { None } else { Some(lengths) })
}

/// Rotates queries and new keys to their positions.
fn rotate_both(
    cx: &mut NodeContext<'_>,
    q: ValueId,
    k: ValueId,
    filled: Filled,
    extents: Extents,
) -> Result<(ValueId, ValueId), LowerError> {
    let interleaved = cx.flag("rotary_interleaved", false)?;
    let (cos, sin) = (cx.input(7)?, cx.input(8)?);
    let mut tables = [cos, sin];
    for table in &mut tables {
        *table = match (cx.optional(9), filled) {
            (Some(positions), _) => {
                let positions = cx.reshape(positions, &[extents.batch, extents.len])?;
                angles(cx, *table, Some(positions))?
            }
            (None, Filled::Same(filled)) => {
                let dims = cx.shape(*table).to_vec();
                if dims.len() != 2 || dims[0] < filled + extents.len {
                    return Err(LowerError::invalid(format!(
                        "the rotary cache has shape {dims:?}, but position {} is needed",
                        (filled + extents.len).saturating_sub(1)
                    )));
                }
                let rows = cx.slice(*table, 0, filled, extents.len)?;
                cx.reshape(rows, &[1, 1, extents.len, dims[1]])?
            }
            (None, Filled::Each(filled)) => {
                let filled = cx.reshape(filled, &[extents.batch, 1])?;
                let steps = iota(cx, extents.len)?;
                let positions = cx.binary(BinaryFn::Add, filled, steps)?;
                angles(cx, *table, Some(positions))?
            }
        };
    }
    let [cos, sin] = tables;
    Ok((rotate(cx, q, cos, sin, interleaved)?, rotate(cx, k, cos, sin, interleaved)?))
}

/// The present cache `[B, G, present, D]`: what was filled of the past, then the new rows, then zeros.
fn append(
    cx: &mut NodeContext<'_>,
    past: Option<ValueId>,
    new: ValueId,
    filled: Filled,
    extents: Extents,
) -> Result<ValueId, LowerError> {
    match (past, filled) {
        (Some(past), Filled::Each(filled)) => append_each(cx, past, new, filled, extents),
        (past, filled) => {
            let filled = if let Filled::Same(filled) = filled { filled } else { 0 };
            let joined = match past {
                Some(past) if filled > 0 => {
                    let past = cx.slice(past, 2, 0, filled)?;
                    cx.concat(&[past, new], 2)?
                }
                _ => new,
            };
            let missing = extents.present - cx.shape(joined)[2];
            if missing == 0 {
                return Ok(joined);
            }
            let fill = cx.scalar_like(new, 0.0);
            cx.add(Pad { low: vec![0; 4], high: vec![0, 0, missing as i64, 0], interior: vec![0; 4] }, &[joined, fill])
        }
    }
}

/// [`append`] where each sequence has filled its own number of rows: every row of the result is looked up in the past, the
/// new rows and one row of zeros, laid behind each other.
fn append_each(
    cx: &mut NodeContext<'_>,
    past: ValueId,
    new: ValueId,
    filled: ValueId,
    extents: Extents,
) -> Result<ValueId, LowerError> {
    let Extents { batch, len, past: past_len, present, .. } = extents;
    let shape = cx.shape(new).clone();
    let zero = cx.scalar_like(new, 0.0);
    let zeros = cx.broadcast(zero, &[shape[0], shape[1], 1, shape[3]])?;
    let rows = cx.concat(&[past, new, zeros], 2)?;
    let rows = cx.transpose(rows, &[0, 2, 1, 3])?;

    let positions = iota(cx, present)?;
    let filled = cx.reshape(filled, &[batch, 1])?;
    let from_past = cx.binary(BinaryFn::Lt, positions, filled)?;
    let since = cx.binary(BinaryFn::Sub, positions, filled)?;
    let in_new = cx.binary_scalar(BinaryFn::Add, since, past_len as f64)?;
    let beyond = cx.binary_scalar(BinaryFn::Min, in_new, (past_len + len) as f64)?;
    let index = cx.select(from_past, positions, beyond)?;
    let index = cx.reshape(index, &[batch, present, 1])?;
    let picked = cx.add(GatherNd { batch_dims: 1 }, &[rows, index])?;
    cx.transpose(picked, &[0, 2, 1, 3])
}

/// Which keys each query sees, `[B, 1, S, total]`, by the number of keys that its sequence had before.
fn visible(
    cx: &mut NodeContext<'_>,
    filled: ValueId,
    window: Option<i64>,
    extents: Extents,
) -> Result<ValueId, LowerError> {
    let keys = iota(cx, extents.total)?;
    let steps = iota(cx, extents.len)?;
    let steps = cx.reshape(steps, &[extents.len, 1])?;
    let filled = cx.reshape(filled, &[extents.batch, 1, 1, 1])?;
    let own = cx.binary(BinaryFn::Add, filled, steps)?;
    let past = cx.binary(BinaryFn::Le, keys, own)?;
    let Some(window) = window else { return Ok(past) };
    let first = cx.binary_scalar(BinaryFn::Sub, own, window as f64)?;
    let near = cx.binary(BinaryFn::Gt, keys, first)?;
    cx.binary(BinaryFn::And, past, near)
}
