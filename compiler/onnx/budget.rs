//! What one import may cost, so that a small hostile file cannot keep tcc busy for ever or fill the memory.
//!
//! Loops are unrolled and functions expanded, both of which can grow exponentially with the size of a file. The limits are
//! counts, never time, and far above what any real model needs.

use tcc_ir::{Graph, Work};

use super::error::ImportError;

/// Most nodes of ONNX that are lowered, and most nodes of the graph that they become.
const MAX_NODES: usize = 1_000_000;

/// Most arithmetic that is done on constants: multiply-accumulates and scalar operations.
const MAX_FOLD_WORK: u64 = 1 << 34;

/// Most bytes that results of arithmetic on constants take together.
const MAX_FOLD_BYTES: usize = 2 << 30;

/// What an import has cost.
#[derive(Debug, Default)]
pub(super) struct Budget {
    nodes: usize,
    work: u64,
    bytes: usize,
}

impl Budget {
    /// Counts a node that is about to be lowered into `graph`.
    pub(super) fn node(&mut self, graph: &Graph) -> Result<(), ImportError> {
        self.nodes += 1;
        if self.nodes.max(graph.node_count()) > MAX_NODES {
            return Err(ImportError::Limit(format!(
                "the model has more than {MAX_NODES} nodes once its loops are unrolled and its functions expanded; \
                 reduce the number of iterations"
            )));
        }
        Ok(())
    }

    /// Counts arithmetic on constants.
    pub(super) fn fold(&mut self, work: Work, bytes: usize) -> Result<(), ImportError> {
        self.work = self.work.saturating_add(work.macs).saturating_add(work.scalar_ops);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.work > MAX_FOLD_WORK || self.bytes > MAX_FOLD_BYTES {
            return Err(ImportError::Limit(format!(
                "the model computes too much from constants alone (more than {MAX_FOLD_WORK} operations or \
                 {MAX_FOLD_BYTES} bytes); simplify it before it is compiled"
            )));
        }
        Ok(())
    }
}
