//! Lowerings of ONNX operators, one file per family. A family is a list of entries; its line here makes it known.

use super::registry::Entry;

mod attention;
mod elementwise;
mod microsoft;
mod quantization;

/// Every family.
pub(crate) const FAMILIES: &[&[Entry]] = &[
    attention::FAMILY,
    elementwise::FAMILY,
    microsoft::attention::FAMILY,
    microsoft::fused::FAMILY,
    microsoft::group_query_attention::FAMILY,
    microsoft::lstm::FAMILY,
    microsoft::normalization::FAMILY,
    microsoft::qlinear::FAMILY,
    microsoft::weight_only::FAMILY,
    quantization::FAMILY,
];
