//! What convolutions and poolings share: how windows lie on the spatial axes.

use super::tables::counts;
use crate::onnx::context::NodeContext;
use crate::onnx::error::LowerError;

/// Greatest stride or dilation: products with the greatest extents still fit in 64 bits.
const FARTHEST: usize = 1 << 20;

/// Windows along every spatial axis.
#[derive(Clone, Debug)]
pub(super) struct Windows {
    /// Elements of a window.
    pub kernel: Vec<usize>,
    /// Distance between windows.
    pub strides: Vec<usize>,
    /// Distance between elements of a window.
    pub dilations: Vec<usize>,
    /// Padding before the first element.
    pub low: Vec<i64>,
    /// Padding after the last.
    pub high: Vec<i64>,
}

impl Windows {
    /// Reads the attributes of a node whose input has the given spatial extents.
    pub fn of(cx: &NodeContext<'_>, dims: &[usize], kernel: Vec<usize>) -> Result<Self, LowerError> {
        let rank = dims.len();
        let list = |name: &str, least: i64, default: usize| -> Result<Vec<usize>, LowerError> {
            let values = match cx.ints(name)? {
                Some(values) => counts(name, values, least)?,
                None => vec![default; rank],
            };
            if let Some(value) = values.iter().find(|&&value| value > FARTHEST) {
                return Err(LowerError::invalid(format!("`{name}` holds {value}, which is beyond any image")));
            }
            if values.len() == rank {
                Ok(values)
            } else {
                Err(LowerError::invalid(format!("`{name}` has {} entries for {rank} spatial axes", values.len())))
            }
        };
        let strides = list("strides", 1, 1)?;
        let dilations = list("dilations", 1, 1)?;
        if kernel.len() != rank || kernel.contains(&0) {
            return Err(LowerError::invalid(format!("windows of {kernel:?} do not fit {rank} spatial axes")));
        }
        let mut windows = Windows { kernel, strides, dilations, low: vec![0; rank], high: vec![0; rank] };
        match AutoPad::of(cx)? {
            AutoPad::Explicit => {
                let pads = counts("pads", cx.ints("pads")?.unwrap_or(&vec![0; 2 * rank]), 0)?;
                if pads.len() != 2 * rank {
                    return Err(LowerError::invalid(format!(
                        "`pads` has {} entries for {rank} spatial axes",
                        pads.len()
                    )));
                }
                windows.low = pads[..rank].iter().map(|&amount| amount as i64).collect();
                windows.high = pads[rank..].iter().map(|&amount| amount as i64).collect();
            }
            AutoPad::Valid => {}
            side @ (AutoPad::SameUpper | AutoPad::SameLower) => {
                for (axis, &dim) in dims.iter().enumerate() {
                    let positions = dim.div_ceil(windows.strides[axis]);
                    let reach = positions.saturating_sub(1) * windows.strides[axis] + windows.span(axis);
                    (windows.low[axis], windows.high[axis]) = side.share(reach.saturating_sub(dim) as i64);
                }
            }
        }
        Ok(windows)
    }

    /// Elements from the first to the last of a window along `axis`.
    pub fn span(&self, axis: usize) -> usize {
        (self.kernel[axis] - 1) * self.dilations[axis] + 1
    }
}

/// How much padding there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AutoPad {
    /// As `pads` says.
    Explicit,
    /// As much as makes the output the input divided by the stride; an odd element after.
    SameUpper,
    /// The same with an odd element before.
    SameLower,
    /// None.
    Valid,
}

impl AutoPad {
    /// Reads the attribute.
    pub fn of(cx: &NodeContext<'_>) -> Result<Self, LowerError> {
        Ok(match cx.string("auto_pad")?.unwrap_or("NOTSET") {
            "NOTSET" | "" => AutoPad::Explicit,
            "SAME_UPPER" => AutoPad::SameUpper,
            "SAME_LOWER" => AutoPad::SameLower,
            "VALID" => AutoPad::Valid,
            other => return Err(LowerError::invalid(format!("`auto_pad` is `{other}`, which is not one of ONNX's"))),
        })
    }

    /// Shares padding between both ends: the amount before and the amount after.
    pub fn share(self, total: i64) -> (i64, i64) {
        let less = total / 2;
        if self == AutoPad::SameLower { (total - less, less) } else { (less, total - less) }
    }
}
