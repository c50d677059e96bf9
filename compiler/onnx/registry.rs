//! Which function lowers which operator.

use tcc_ir::ValueId;

use super::context::NodeContext;
use super::error::LowerError;
use super::ops;

/// Lowers one node: adds its core operators to the graph and returns the values of its outputs, in the order of ONNX's
/// definition. Trailing outputs that the node does not ask for may be left out.
pub type Lower = fn(&mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError>;

/// One operator of one domain and how it is lowered.
#[derive(Clone, Copy)]
pub struct Entry {
    /// The operator set: "" for ONNX's own.
    pub domain: &'static str,
    /// The operator's name in that set.
    pub op_type: &'static str,
    /// The function that lowers it.
    pub lower: Lower,
}

/// An entry of ONNX's own operator set.
pub(crate) const fn onnx(op_type: &'static str, lower: Lower) -> Entry {
    Entry { domain: "", op_type, lower }
}

/// An entry of the operator set of ONNX Runtime's exporters and quantisers.
pub(crate) const fn microsoft(op_type: &'static str, lower: Lower) -> Entry {
    Entry { domain: "com.microsoft", op_type, lower }
}

/// All operators that can be lowered, family by family.
pub fn entries() -> impl Iterator<Item = &'static Entry> {
    ops::FAMILIES.iter().copied().flatten().copied().flatten()
}

/// The function that lowers an operator, if there is one.
pub fn find(domain: &str, op_type: &str) -> Option<Lower> {
    let domain = if domain == "ai.onnx" { "" } else { domain };
    entries().find(|entry| entry.op_type == op_type && entry.domain == domain).map(|entry| entry.lower)
}
