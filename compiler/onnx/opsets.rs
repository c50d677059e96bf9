//! Versions of operator sets.

use std::collections::HashMap;

use onnx_protobuf::OperatorSetIdProto;

use super::error::ImportError;

/// Oldest version of ONNX's operators that tcc knows: the first with NumPy's broadcasting.
pub const OLDEST: i64 = 7;

/// Newest version of ONNX's operators that tcc knows.
pub const NEWEST: i64 = 27;

/// The operator sets that a graph or a function imports.
#[derive(Clone, Debug, Default)]
pub struct Opsets(HashMap<String, i64>);

impl Opsets {
    /// The sets in `imports`. Which of them are known matters only for those that a node uses.
    pub fn new(imports: &[OperatorSetIdProto]) -> Self {
        Opsets(imports.iter().map(|import| (domain_name(&import.domain).to_owned(), import.version)).collect())
    }

    /// The version of the set of a node. Files that import nothing (which only tools for tests write) get the newest version
    /// of ONNX's own operators, and version 1 of any other set.
    pub fn version(&self, domain: &str) -> i64 {
        let domain = domain_name(domain);
        let default = if domain.is_empty() { NEWEST } else { 1 };
        self.0.get(domain).copied().unwrap_or(default)
    }

    /// Fails if the version of ONNX's own operators is not known.
    pub fn check(&self) -> Result<(), ImportError> {
        let version = self.version("");
        if (OLDEST..=NEWEST).contains(&version) {
            Ok(())
        } else {
            Err(ImportError::Opset { version, min: OLDEST, max: NEWEST })
        }
    }
}

/// The name of a domain: ONNX's own has two.
pub fn domain_name(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}
