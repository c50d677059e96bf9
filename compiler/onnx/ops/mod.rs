//! Lowerings of ONNX operators, one file per family. A family is a list of entries; its line here makes it known.

use super::registry::Entry;

mod constant;
mod control;
mod elementwise;

/// Every family.
pub(crate) const FAMILIES: &[&[Entry]] = &[constant::FAMILY, control::FAMILY, elementwise::FAMILY];
