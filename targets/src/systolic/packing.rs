//! Weights as the machine wants them: constants of the model and what follows from them, converted while they are written.

use std::io::{self, Write};
use std::sync::Arc;

use tcc_ir::{DType, Graph, Op, Tensor, ValueId, evaluate_constant};

use crate::stored::{CHUNK, pack, pack_run};

/// A constant and how it is stored.
#[derive(Clone, Debug)]
pub(super) struct PackedConstant {
    pub source: Source,
    /// Where it begins among the weights, in bytes.
    pub address: u64,
    /// Element type as stored.
    pub dtype: DType,
}

/// Where the values of a constant come from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// A constant of the model.
    Tensor(Tensor),
    /// A value of a graph that follows from constants alone, and is computed when it is written.
    Derived(Arc<Graph>, ValueId),
}

/// Writes all constants, each at its address, converted to what the machine stores. Of those that must be computed, one at
/// a time is in memory.
///
/// # Errors
/// The constants were not loaded, one of them cannot be computed, or writing fails.
pub(super) fn write_weights(constants: &[PackedConstant], total: u64, out: &mut dyn Write) -> io::Result<()> {
    let mut at = 0;
    for constant in constants {
        pad(out, constant.address - at)?;
        let bytes = match &constant.source {
            Source::Tensor(tensor) => pack(tensor, constant.dtype, out)?,
            Source::Derived(graph, value) => pack_derived(graph, *value, constant.dtype, out)?,
        };
        at = constant.address + bytes;
    }
    pad(out, total - at)
}

fn pad(out: &mut dyn Write, bytes: u64) -> io::Result<()> {
    io::copy(&mut io::Read::take(io::repeat(0), bytes), out).map(|_| ())
}

/// Writes a value that follows from constants; returns the number of bytes.
fn pack_derived(graph: &Graph, value: ValueId, dtype: DType, out: &mut dyn Write) -> io::Result<u64> {
    if let Some(bytes) = pack_joined(graph, value, dtype, out)? {
        return Ok(bytes);
    }
    pack(&evaluate_constant(graph, value).map_err(io::Error::other)?, dtype, out)
}

/// Writes constants joined along an axis without joining them in memory first. `None` if the value is something else.
fn pack_joined(graph: &Graph, value: ValueId, dtype: DType, out: &mut dyn Write) -> io::Result<Option<u64>> {
    let Some(node) = graph.producer(value).map(|node| graph.node(node)) else { return Ok(None) };
    let Op::Concat(concat) = &node.op else { return Ok(None) };
    let Some(parts) = node.inputs.iter().map(|&input| graph.as_constant(input)).collect::<Option<Vec<_>>>() else {
        return Ok(None);
    };
    let ty = graph.ty(value);
    // Runs of four-bit values may begin within a byte.
    if ty.dtype.bits() == 4 {
        return Ok(None);
    }
    let turns: usize = ty.shape[..concat.axis].iter().product();
    let mut runs = Vec::with_capacity(parts.len());
    for part in &parts {
        let bytes = part.bytes().map_err(io::Error::other)?;
        runs.push((bytes, bytes.len() / turns.max(1)));
    }
    let mut out = io::BufWriter::with_capacity(CHUNK, out);
    let mut written = 0;
    for turn in 0..turns {
        for (bytes, run) in &runs {
            written += pack_run(&bytes[turn * run..][..*run], ty.dtype, dtype, &mut out)?;
        }
    }
    out.flush()?;
    Ok(Some(written))
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use tcc_ir::ops::{Binary, BinaryFn, Concat, Transpose};
    use tcc_ir::{Data, Shape, TensorType};

    use super::*;

    fn constant(graph: &mut Graph, dims: [usize; 2], first: usize) -> ValueId {
        let shape = Shape::new(dims).unwrap();
        let numbers = (0..shape.count()).map(|i| (first + i) as f32).collect();
        graph.constant(Tensor::from_vec(shape, numbers).unwrap())
    }

    #[test]
    fn joined_constants_are_those_of_the_reference() {
        for axis in 0..2 {
            let mut graph = Graph::new("joined");
            let parts = [[3, 4], if axis == 0 { [1, 4] } else { [3, 1] }, if axis == 0 { [0, 4] } else { [3, 0] }];
            let parts = parts.map(|dims| constant(&mut graph, dims, dims[0] * 16));
            let joined = graph.add(Concat { axis }, &parts).unwrap();
            let expected = evaluate_constant(&graph, joined).unwrap();
            for dtype in [DType::F32, DType::BF16] {
                let (mut streamed, mut whole) = (Vec::new(), Vec::new());
                let bytes = pack_joined(&graph, joined, dtype, &mut streamed).unwrap();
                assert_eq!(bytes, Some(pack(&expected, dtype, &mut whole).unwrap()));
                assert_eq!(streamed, whole);
            }
        }
    }

    #[test]
    fn derived_constants_are_written_at_their_place() {
        let mut graph = Graph::new("derived");
        let (a, b) = (constant(&mut graph, [2, 3], 0), constant(&mut graph, [3, 2], 1));
        let turned = graph.add(Transpose { perm: vec![1, 0] }, &[b]).unwrap();
        let product = graph.add(Binary(BinaryFn::Mul), &[a, turned]).unwrap();
        let graph = Arc::new(graph);
        let derived = PackedConstant { source: Source::Derived(graph, product), address: 64, dtype: DType::F32 };
        let mut bytes = Vec::new();
        write_weights(&[derived], 128, &mut bytes).unwrap();
        assert_eq!(bytes.len(), 128);
        assert_eq!(bytemuck::pod_collect_to_vec::<u8, f32>(&bytes[64..88]), [0.0, 3.0, 10.0, 6.0, 16.0, 30.0]);
    }

    #[test]
    fn constants_that_were_not_loaded_are_refused() {
        let mut graph = Graph::new("absent");
        let ty = TensorType::new(DType::F32, Shape::vector(4));
        let absent = graph.constant(Tensor::new(ty, Data::absent(16)).unwrap());
        let joined = graph.add(Concat { axis: 0 }, &[absent, absent]).unwrap();
        let sum = graph.add(Binary(BinaryFn::Add), &[absent, absent]).unwrap();
        for value in [joined, sum] {
            assert!(pack_derived(&graph, value, DType::F32, &mut Vec::new()).is_err());
        }
    }
}
