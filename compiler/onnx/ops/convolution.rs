//! Convolutions and transposed convolutions.

use tcc_ir::ops::{BinaryFn, Conv, Pad, Slice};
use tcc_ir::ValueId;

use super::tables::counts;
use super::spatial::{AutoPad, Windows};
use crate::onnx::context::NodeContext;
use crate::onnx::error::LowerError;
use crate::onnx::registry::{Entry, onnx};

pub(super) const FAMILY: &[Entry] = &[onnx("Conv", |cx| Ok(vec![conv(cx)?])), onnx("ConvTranspose", conv_transpose)];

/// Spatial extents of the input and of the filters, which must be of as many axes.
fn spatial(cx: &NodeContext<'_>, x: ValueId, w: ValueId) -> Result<(Vec<usize>, Vec<usize>), LowerError> {
    match (cx.shape(x).dims(), cx.shape(w).dims()) {
        ([_, _, dims @ ..], [_, _, kernel @ ..]) if dims.len() == kernel.len() && !dims.is_empty() => {
            Ok((dims.to_vec(), kernel.to_vec()))
        }
        _ => Err(LowerError::invalid(format!(
            "an input of {} and filters of {} have no spatial axes in common",
            cx.ty(x),
            cx.ty(w)
        ))),
    }
}

fn groups(cx: &NodeContext<'_>) -> Result<usize, LowerError> {
    Ok(counts("group", &[cx.int_or("group", 1)?], 1)?[0])
}

/// Adds input 2, one number for each channel.
fn with_bias(cx: &mut NodeContext<'_>, y: ValueId) -> Result<ValueId, LowerError> {
    let Some(bias) = cx.optional(2) else { return Ok(y) };
    let mut dims = vec![1; cx.rank(y)];
    dims[1] = cx.shape(bias).count();
    let bias = cx.reshape(bias, &dims)?;
    cx.binary(BinaryFn::Add, y, bias)
}

/// A convolution of input 0 with the filters of input 1, and the bias of input 2 if there is one.
pub(super) fn conv(cx: &mut NodeContext<'_>) -> Result<ValueId, LowerError> {
    let (x, w) = (cx.input(0)?, cx.input(1)?);
    let (dims, kernel) = spatial(cx, x, w)?;
    let windows = Windows::of(cx, &dims, kernel)?;
    let op = Conv {
        strides: windows.strides,
        low: windows.low,
        high: windows.high,
        dilations: windows.dilations,
        groups: groups(cx)?,
        x_zero: false,
        w_zero: false,
    };
    let y = cx.add(op, &[x, w])?;
    with_bias(cx, y)
}

fn conv_transpose(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let (x, w) = (cx.input(0)?, cx.input(1)?);
    let (dims, kernel) = spatial(cx, x, w)?;
    let (rank, groups) = (dims.len(), groups(cx)?);
    let windows = Windows::of(cx, &dims, kernel)?;
    let extra = counts("output_padding", cx.ints("output_padding")?.unwrap_or(&vec![0; rank]), 0)?;
    let wanted = cx.ints("output_shape")?.map(|dims| counts("output_shape", dims, 1)).transpose()?;
    // Some exporters write batch and channels too.
    let wanted = wanted.map(|dims| if dims.len() == rank + 2 { dims[2..].to_vec() } else { dims });
    if extra.len() != rank || wanted.as_ref().is_some_and(|dims| dims.len() != rank) {
        return Err(LowerError::invalid(format!("`output_padding` and `output_shape` must have {rank} entries")));
    }
    // Spread the input out by the stride; then it is a convolution with mirrored filters.
    let auto_pad = AutoPad::of(cx)?;
    let (mut low, mut high, mut interior) = (vec![0; rank + 2], vec![0; rank + 2], vec![0; rank + 2]);
    for axis in 0..rank {
        let (dim, stride, span) = (dims[axis], windows.strides[axis], windows.span(axis));
        let full = (dim.saturating_sub(1) * stride + span + extra[axis]) as i64;
        let target = match (&wanted, auto_pad) {
            (Some(dims), _) => Some(dims[axis] as i64),
            (None, AutoPad::SameUpper | AutoPad::SameLower) => Some((dim * stride) as i64),
            (None, AutoPad::Explicit | AutoPad::Valid) => None,
        };
        let (before, after) = match target {
            // An odd element is cut at the start unless SAME_UPPER asks for the end, explicit padding included.
            Some(target) if full >= target => {
                let less = (full - target) / 2;
                if auto_pad == AutoPad::SameUpper { (less, full - target - less) } else { (full - target - less, less) }
            }
            Some(target) => (0, full - target),
            None => (windows.low[axis], windows.high[axis]),
        };
        let reach = span as i64 - 1;
        low[axis + 2] = reach - before;
        high[axis + 2] = reach - after + extra[axis] as i64;
        interior[axis + 2] = stride - 1;
    }
    let zero = cx.scalar_like(x, 0.0);
    let spread = cx.add(Pad { low, high, interior }, &[x, zero])?;
    let w = mirrored(cx, w, groups)?;
    let op = Conv {
        strides: vec![1; rank],
        low: vec![0; rank],
        high: vec![0; rank],
        dilations: windows.dilations,
        groups,
        x_zero: false,
        w_zero: false,
    };
    let y = cx.add(op, &[spread, w])?;
    Ok(vec![with_bias(cx, y)?])
}

/// Filters `[C, M/groups, kernel..]` of a transposed convolution as those of a convolution: `[M, C/groups, kernel..]`,
/// with every spatial axis reversed.
fn mirrored(cx: &mut NodeContext<'_>, w: ValueId, groups: usize) -> Result<ValueId, LowerError> {
    let dims = cx.shape(w).to_vec();
    let (c, m, kernel) = (dims[0], dims[1], &dims[2..]);
    if c % groups != 0 {
        return Err(LowerError::invalid(format!("{c} channels do not fall into {groups} groups")));
    }
    let rank = kernel.len();
    let reversed = cx.add(
        Slice {
            starts: [0, 0].into_iter().chain(kernel.iter().map(|size| size - 1)).collect(),
            steps: [1, 1].into_iter().chain(vec![-1; rank]).collect(),
            sizes: dims.clone(),
        },
        &[w],
    )?;
    let apart: Vec<usize> = [groups, c / groups, m].into_iter().chain(kernel.iter().copied()).collect();
    let apart = cx.reshape(reversed, &apart)?;
    let perm: Vec<usize> = [0, 2, 1].into_iter().chain(3..3 + rank).collect();
    let swapped = cx.transpose(apart, &perm)?;
    let joined: Vec<usize> = [groups * m, c / groups].into_iter().chain(kernel.iter().copied()).collect();
    cx.reshape(swapped, &joined)
}
