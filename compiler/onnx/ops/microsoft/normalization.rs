//! Normalisations with the additions that precede them.

use tcc_ir::ops::{BinaryFn, LayerNorm, ReduceFn, RmsNorm};
use tcc_ir::{DType, Real, Tensor, ValueId};

use crate::onnx::context::NodeContext;
use crate::onnx::error::LowerError;
use crate::onnx::registry::{Entry, microsoft};

pub(in crate::onnx::ops) const FAMILY: &[Entry] = &[
    microsoft("EmbedLayerNormalization", embed_layer_normalization),
    microsoft("SkipLayerNormalization", |cx| skip_normalization(cx, false)),
    microsoft("SkipSimplifiedLayerNormalization", |cx| skip_normalization(cx, true)),
];

fn skip_normalization(cx: &mut NodeContext<'_>, simplified: bool) -> Result<Vec<ValueId>, LowerError> {
    if cx.wants(1) || cx.wants(2) {
        return Err(LowerError::unsupported(
            "the mean and inverse deviation of a skip normalisation, used in training",
        ));
    }
    let (x, skip, scale) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (shift, bias) = if simplified { (None, cx.optional(3)) } else { (cx.optional(3), cx.optional(4)) };
    let mut sum = cx.binary(BinaryFn::Add, x, skip)?;
    if let Some(bias) = bias {
        sum = cx.binary(BinaryFn::Add, sum, bias)?;
    }
    let axis = cx.axis(-1, cx.rank(sum))?;
    let epsilon = Real::from(cx.float_or("epsilon", 1e-5)?);
    let y = if simplified {
        cx.add(RmsNorm { axis, epsilon }, &[sum, scale])?
    } else {
        let operands: Vec<ValueId> = [sum, scale].into_iter().chain(shift).collect();
        cx.add(LayerNorm { axis, epsilon, bias: shift.is_some() }, &operands)?
    };
    // Outputs 1 and 2 are not asked for; the sum only keeps their places.
    Ok(vec![y, sum, sum, sum])
}

fn embed_layer_normalization(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let ids = cx.input(0)?;
    let &[batch, len] = &cx.shape(ids)[..] else {
        return Err(LowerError::invalid(format!("input_ids have shape {}, not [batch, length]", cx.shape(ids))));
    };
    let (words, positions) = (cx.input(2)?, cx.input(3)?);
    let mut sum = cx.gather(words, ids, 0)?;
    let position = match cx.optional(8) {
        Some(positions_of) => cx.gather(positions, positions_of, 0)?,
        None => {
            if cx.shape(positions).first().is_none_or(|&rows| rows < len) {
                return Err(LowerError::invalid(format!(
                    "the position embedding has shape {}, too short for {len} positions",
                    cx.shape(positions)
                )));
            }
            cx.slice(positions, 0, 0, len)?
        }
    };
    sum = cx.binary(BinaryFn::Add, sum, position)?;
    if let (Some(segment_ids), Some(segments)) = (cx.optional(1), cx.optional(4)) {
        let segment = cx.gather(segments, segment_ids, 0)?;
        sum = cx.binary(BinaryFn::Add, sum, segment)?;
    }
    let (scale, shift) = (cx.input(5)?, cx.input(6)?);
    let epsilon = Real::from(cx.float_or("epsilon", 1e-12)?);
    let y = cx.add(LayerNorm { axis: 2, epsilon, bias: true }, &[sum, scale, shift])?;
    let mask_index = match cx.optional(7) {
        Some(mask) => {
            let set = cx.binary_scalar(BinaryFn::Eq, mask, 1.0)?;
            let set = cx.cast(set, DType::I32)?;
            cx.reduce(ReduceFn::Sum, set, &[1], false)?
        }
        None => {
            let none = cx.constant(Tensor::scalar(0i32));
            cx.broadcast(none, &[batch])?
        }
    };
    Ok(vec![y, mask_index, sum])
}
