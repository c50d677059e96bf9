//! Attention: few rows, by which keys stream (`stream`), or many, as products of tiles (`tiles`). Rows are the queries of all heads
//! that share keys, so that each key is read once for all of them.

mod heads;
mod operand;
mod partial;
mod stream;
#[cfg(test)]
mod tests;
mod tiles;

use tcc_ir::ops::Attention;
use tcc_ir::{DType, Graph, NodeId, ValueId};

use super::Written;
use crate::lower::elements::Elements;
use crate::lower::piece::ATTENTION_ROWS;
use crate::simt::SimtMachine;
use crate::target::TargetError;

use heads::Heads;
use stream::Stream;
use tiles::Tiles;

/// What attention is computed in.
const SUM: DType = DType::F32;

/// How an attention is computed.
#[derive(Clone, Debug)]
pub(super) enum Method {
    /// Keys stream by few rows.
    Stream(Stream),
    /// Many are multiplied in tiles.
    Tiles(Tiles),
}

/// Whether a machine runs an attention of these operands in one kernel.
pub(in crate::simt) fn runs(machine: &SimtMachine, graph: &Graph, inputs: &[ValueId]) -> bool {
    let [q, k, v] = [inputs[0], inputs[1], inputs[2]].map(|input| graph.ty(input));
    let float = matches!(q.dtype, DType::F32 | DType::F16 | DType::BF16);
    float && Attention::dims(q, k, v).is_ok_and(|dims| dims.value_depth > 0 && Stream::fits(machine, &dims, q.dtype))
}

impl Method {
    /// All that are worth a try for an attention that [`runs`].
    ///
    /// # Errors
    /// A defect: this is no attention.
    pub fn all(elements: &Elements<'_>, id: NodeId, machine: &SimtMachine) -> Result<Vec<Method>, TargetError> {
        let heads = Heads::of(elements, elements.graph().node(id))?;
        let dtype = elements.graph().ty(heads.inputs[0]).dtype;
        let mut methods = Vec::new();
        if heads.rows() > ATTENTION_ROWS {
            methods.extend(Tiles::all(machine, &heads, dtype).into_iter().map(Method::Tiles));
        }
        if methods.is_empty() {
            methods.extend(Stream::all(machine, elements, &heads).into_iter().map(Method::Stream));
        }
        Ok(methods)
    }

    /// Threads of a block.
    pub fn threads(&self) -> u32 {
        match self {
            Method::Stream(stream) => stream.threads(),
            Method::Tiles(tiles) => tiles.threads(),
        }
    }
}

/// Writes the kernel.
///
/// # Errors
/// A defect.
pub(super) fn attention(
    elements: &mut Elements<'_>,
    id: NodeId,
    method: &Method,
    outputs: &[ValueId],
) -> Result<Written, TargetError> {
    let node = elements.graph().node(id);
    let heads = Heads::of(elements, node)?;
    match method {
        Method::Stream(stream) => stream.write(elements, &heads, outputs),
        Method::Tiles(tiles) => tiles.write(elements, &heads, outputs),
    }
}
