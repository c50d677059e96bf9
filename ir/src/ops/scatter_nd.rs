//! Replacement of slices by index tuples.

use serde::{Deserialize, Serialize};

use super::indexing::{add_tuple_rows, tuple_depth, tuple_offsets};
use super::movement::{Unit, by_width, from_units, reshape, units};
use crate::op::{OpError, Operator, OutputTypes, Work, one, operands};
use crate::{DType, Graph, GraphError, Shape, Tensor, TensorType, ValueId, Values};

/// Operand 0 with the slices that the tuples in the last axis of operand 1 name combined with those of operand 2
/// (ONNX ScatterND), in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ScatterNd {
    /// How an update combines with what is there.
    pub reduction: ScatterReduction,
}

/// How an update combines with the element it falls on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScatterReduction {
    /// The update replaces it.
    Replace,
    /// Their sum.
    Add,
    /// Their product.
    Mul,
    /// The greater.
    Max,
    /// The lesser.
    Min,
}

impl Operator for ScatterNd {
    const NAMES: &'static [&'static str] = &["scatter_nd"];

    fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        let [data, indices, updates] = operands(inputs)?;
        let depth = tuple_depth(data, indices, 0)?;
        self.reduction.check_dtypes(inputs)?;
        let tuples = &indices.shape[..indices.shape.rank() - 1];
        if !tuples.iter().chain(&data.shape[depth..]).eq(updates.shape.iter()) {
            let slices = Shape::new(tuples.iter().chain(&data.shape[depth..]).copied())?;
            return Err(OpError::shape(2, format!("{slices}: a slice of operand 0 for each index tuple"), updates));
        }
        one(data.dtype, data.shape.clone())
    }

    fn eval(&self, inputs: &[&Tensor], _outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        let [data, indices, updates] = operands(inputs)?;
        let depth = tuple_depth(data.ty(), indices.ty(), 0)?;
        let row: usize = data.shape()[depth..].iter().product();
        let offsets = tuple_offsets(data.shape(), indices, 0)?;
        Ok(vec![self.reduction.apply(data, updates, &offsets, row)?])
    }

    fn work(&self, inputs: &[&TensorType], _outputs: &[TensorType]) -> Work {
        self.reduction.work(inputs)
    }

    /// Index arithmetic and a scatter with one index for each update, into the data with all indexed axes flattened;
    /// `None` if it is that already. An index out of range along its axis may then name another slice instead of
    /// failing.
    fn decompose(&self, graph: &mut Graph, inputs: &[ValueId]) -> Option<Result<Vec<ValueId>, GraphError>> {
        let &[data, indices, updates] = inputs else { return None };
        let (tuples, depth) = match graph.shape(indices).dims() {
            [tuples @ .., depth] if *depth > 1 => (tuples.to_vec(), *depth),
            _ => return None,
        };
        Some((|| {
            let shape = graph.shape(data).clone();
            let rows = add_tuple_rows(graph, &shape, indices, 0)?;
            let rows = reshape(graph, rows, tuples.into_iter().chain([1]))?;
            let (indexed, rest) = shape.split_at(depth);
            let flat = reshape(graph, data, std::iter::once(indexed.iter().product()).chain(rest.iter().copied()))?;
            let scattered = graph.add(*self, &[flat, rows, updates])?;
            Ok(vec![reshape(graph, scattered, shape.iter().copied())?])
        })())
    }
}

impl ScatterReduction {
    /// All of them.
    pub const ALL: [ScatterReduction; 5] = [
        ScatterReduction::Replace,
        ScatterReduction::Add,
        ScatterReduction::Mul,
        ScatterReduction::Max,
        ScatterReduction::Min,
    ];

    /// Fails unless data (operand 0) and updates (operand 2) have one type on which this is defined.
    pub(crate) fn check_dtypes(self, inputs: &[&TensorType]) -> Result<(), OpError> {
        crate::op::same_dtype(inputs, 2)?;
        let arithmetic = matches!(self, ScatterReduction::Add | ScatterReduction::Mul);
        if arithmetic && inputs[0].dtype == DType::Bool {
            return Err(OpError::dtype(0, "a number", inputs[0].dtype));
        }
        Ok(())
    }

    /// The work of a scatter: none to replace, else an operation for each update.
    pub(crate) fn work(self, inputs: &[&TensorType]) -> Work {
        match self {
            ScatterReduction::Replace => Work::NONE,
            _ => Work::elementwise(inputs[2].shape.count() as u64),
        }
    }

    /// Combines each run of `row` updates, in order, with the elements of `data` from its offset on.
    ///
    /// One thread does it all: updates may fall on the same element, and their order counts.
    pub(crate) fn apply(self, data: &Tensor, updates: &Tensor, offsets: &[usize], row: usize) -> Result<Tensor, OpError> {
        use ScatterReduction::{Add, Max, Min, Mul, Replace};
        if self == Replace {
            return by_width!(data.dtype(), T => from_units(data.ty(), replace(&units::<T>(data)?, &units::<T>(updates)?, offsets, row)));
        }
        macro_rules! floats {
            ($Class:ident, $data:expr, $updates:expr, $float:ty) => {{
                let f: fn($float, $float) -> $float = match self {
                    Replace => |_, new| new,
                    Add => |old, new| old + new,
                    Mul => |old, new| old * new,
                    Max => |old, new| if old.is_nan() || old > new { old } else { new },
                    Min => |old, new| if old.is_nan() || old < new { old } else { new },
                };
                Values::$Class(combine($data.into_owned(), &$updates, offsets, row, f).into())
            }};
        }
        macro_rules! integers {
            ($Class:ident, $data:expr, $updates:expr, $integer:ty) => {{
                let f: fn($integer, $integer) -> $integer = match self {
                    Replace => |_, new| new,
                    Add => <$integer>::wrapping_add,
                    Mul => <$integer>::wrapping_mul,
                    Max => Ord::max,
                    Min => Ord::min,
                };
                Values::$Class(combine($data.into_owned(), &$updates, offsets, row, f).into())
            }};
        }
        let values = match (data.widen()?, updates.widen()?) {
            (Values::F32(data), Values::F32(updates)) => floats!(F32, data, updates, f32),
            (Values::F64(data), Values::F64(updates)) => floats!(F64, data, updates, f64),
            (Values::Signed(data), Values::Signed(updates)) => integers!(Signed, data, updates, i64),
            (Values::Unsigned(data), Values::Unsigned(updates)) => integers!(Unsigned, data, updates, u64),
            _ => return Err(OpError::dtype(2, format!("{} as operand 0", data.dtype()), updates.dtype())),
        };
        Ok(Tensor::narrow(data.ty().clone(), values))
    }
}

fn replace<T: Unit>(data: &[T], updates: &[T], offsets: &[usize], row: usize) -> Vec<T> {
    let mut out = data.to_vec();
    // Of empty rows there are none to chunk.
    for (&offset, updates) in offsets.iter().zip(updates.chunks(row.max(1))) {
        out[offset..][..row].copy_from_slice(updates);
    }
    out
}

fn combine<T: Copy>(mut out: Vec<T>, updates: &[T], offsets: &[usize], row: usize, f: fn(T, T) -> T) -> Vec<T> {
    for (&offset, updates) in offsets.iter().zip(updates.chunks(row.max(1))) {
        for (old, &new) in out[offset..][..row].iter_mut().zip(updates) {
            *old = f(*old, new);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;
    use crate::testing::{iota, numbers, random, random_in, refusal, run, tensor, ty};

    const REPLACE: ScatterNd = ScatterNd { reduction: ScatterReduction::Replace };
    const ADD: ScatterNd = ScatterNd { reduction: ScatterReduction::Add };

    #[test]
    fn replaces_slices_of_every_type() {
        for dtype in DType::ALL {
            let data = tensor(dtype, &[3, 1], &[0.0, 1.0, 0.0]);
            let updates = tensor(dtype, &[2, 1], &[1.0, 0.0]);
            let y = run(REPLACE, &[data, tensor(DType::I32, &[2, 1], &[-1.0, 1.0]), updates]).unwrap();
            assert_eq!(numbers(&y), [0.0, 0.0, 1.0], "{dtype}");
        }
    }

    #[test]
    fn adds_repeatedly_and_wraps() {
        let data = tensor(DType::I8, &[2, 2], &[100.0, 0.0, 0.0, 0.0]);
        let indices = tensor(DType::I64, &[3, 2], &[0.0, 0.0, 0.0, 0.0, 1.0, 1.0]);
        let y = run(ADD, &[data, indices, tensor(DType::I8, &[3], &[20.0, 20.0, 5.0])]).unwrap();
        assert_eq!(numbers(&y), [-116.0, 0.0, 0.0, 5.0]);
    }

    #[test]
    fn decomposes_to_single_indices() {
        for (seed, dtype) in (0..).zip(DType::ALL) {
            let data = random(dtype, &[2, 3, 4, 3], seed);
            for (dims, updates) in
                [(&[5, 2][..], &[5, 4, 3][..]), (&[2, 3, 3], &[2, 3, 3]), (&[4], &[]), (&[0, 2], &[0, 4, 3])]
            {
                let indices = random_in(DType::I16, dims, -2, 2, seed);
                let updates = random(dtype, updates, seed + 1);
                let op = if dtype == DType::Bool { REPLACE } else { ADD };
                for op in [op, REPLACE] {
                    // The decomposition holds the same operator, on indices of depth 1.
                    let operands = [data.clone(), indices.clone(), updates.clone()];
                    let graph = crate::testing::decomposition(op, &operands);
                    for (_, node) in graph.nodes() {
                        if matches!(node.op, crate::Op::ScatterNd(_)) {
                            assert_eq!(graph.shape(node.inputs[1]).last(), Some(&1));
                            assert!(op.decompose(&mut graph.clone(), &node.inputs).is_none());
                        }
                    }
                    crate::testing::assert_computes(&graph, op, &operands);
                }
            }
        }
    }

    #[test]
    fn empty_slices() {
        let y = run(ADD, &[iota(DType::F32, &[3, 0]), iota(DType::I64, &[2, 1]), iota(DType::F32, &[2, 0])]).unwrap();
        assert_eq!(y.shape().dims(), [3, 0]);
    }

    #[test]
    fn refuses_updates_that_do_not_fit() {
        let (data, indices) = (ty(DType::F32, &[3, 2]), ty(DType::I64, &[4, 1]));
        assert_eq!(
            refusal(REPLACE, &[data.clone(), indices.clone(), ty(DType::F32, &[4])]),
            "operand 2 has shape f32[4], but must have [4,2]: a slice of operand 0 for each index tuple"
        );
        refusal(REPLACE, &[data.clone(), indices, ty(DType::I32, &[4, 2])]);
        refusal(REPLACE, &[data, ty(DType::I64, &[4, 3]), ty(DType::F32, &[4])]);
        let outside = [iota(DType::F32, &[3]), tensor(DType::I64, &[1, 1], &[3.0]), iota(DType::F32, &[1])];
        assert!(run(REPLACE, &outside).unwrap_err().to_string().starts_with("index 3 is out of range"));
    }
}
