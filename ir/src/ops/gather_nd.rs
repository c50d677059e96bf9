//! Selection of slices by index tuples.

use serde::{Deserialize, Serialize};

use super::Gather;
use super::indexing::{add_tuple_rows, tuple_depth, tuple_offsets};
use super::movement::{reshape, take_rows};
use crate::op::{OpError, Operator, OutputTypes, Work, one, operands};
use crate::{Graph, GraphError, Shape, Tensor, TensorType, ValueId};

/// The last axis of operand 1 holds index tuples into operand 0's axes after `batch_dims` common leading ones (ONNX
/// GatherND).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GatherNd {
    /// Leading axes that both operands share.
    pub batch_dims: usize,
}

impl Operator for GatherNd {
    const NAMES: &'static [&'static str] = &["gather_nd"];

    fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        let [data, indices] = operands(inputs)?;
        let depth = tuple_depth(data, indices, self.batch_dims)?;
        let (rank, batch) = (indices.shape.rank(), self.batch_dims);
        if batch >= rank || indices.shape[..batch] != data.shape[..batch] {
            let expected = format!("the first {batch} extents of operand 0 ({data}) and a last axis of index tuples");
            return Err(OpError::shape(1, expected, indices));
        }
        one(data.dtype, Shape::new(indices.shape[..rank - 1].iter().chain(&data.shape[batch + depth..]).copied())?)
    }

    fn eval(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        let [data, indices] = operands(inputs)?;
        let depth = tuple_depth(data.ty(), indices.ty(), self.batch_dims)?;
        let row: usize = data.shape()[self.batch_dims + depth..].iter().product();
        let offsets = tuple_offsets(data.shape(), indices, self.batch_dims)?;
        Ok(vec![take_rows(data, offsets.len(), row, |i| offsets[i], &outputs[0])?])
    }

    fn work(&self, _inputs: &[&TensorType], _outputs: &[TensorType]) -> Work {
        Work::NONE
    }

    /// Index arithmetic and one [`Gather`] from the data with all indexed axes flattened. An index out of range along
    /// its axis may then name another slice instead of failing.
    fn decompose(&self, graph: &mut Graph, inputs: &[ValueId]) -> Option<Result<Vec<ValueId>, GraphError>> {
        let &[data, indices] = inputs else { return None };
        let depth = graph.shape(indices).last().copied()?;
        Some((|| {
            let shape = graph.shape(data).clone();
            let rows = add_tuple_rows(graph, &shape, indices, self.batch_dims)?;
            let (indexed, rest) = shape.split_at(self.batch_dims + depth);
            let dims = std::iter::once(indexed.iter().product()).chain(rest.iter().copied());
            let flat = reshape(graph, data, dims)?;
            Ok(vec![graph.add(Gather { axis: 0 }, &[flat, rows])?])
        })())
    }
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;
    use crate::DType;
    use crate::testing::{assert_decomposes, iota, numbers, random, random_in, refusal, run, tensor, ty};

    #[test]
    fn selects_elements_and_slices_of_every_type() {
        for dtype in DType::ALL {
            let data = tensor(dtype, &[2, 2], &[0.0, 1.0, 1.0, 1.0]);
            let elements = tensor(DType::I64, &[2, 2], &[0.0, 0.0, 1.0, -1.0]);
            let y = run(GatherNd { batch_dims: 0 }, &[data.clone(), elements]).unwrap();
            assert_eq!(numbers(&y), [0.0, 1.0], "{dtype}");
            let slices = tensor(DType::I64, &[2, 1], &[1.0, 0.0]);
            let y = run(GatherNd { batch_dims: 0 }, &[data.clone(), slices.clone()]).unwrap();
            assert_eq!(numbers(&y), [1.0, 1.0, 0.0, 1.0], "{dtype}");
            let y = run(GatherNd { batch_dims: 1 }, &[data, slices]).unwrap();
            assert_eq!(numbers(&y), [1.0, 1.0], "{dtype}");
        }
    }

    #[test]
    fn decomposes() {
        for (seed, dtype) in (0..).zip(DType::ALL) {
            let data = random(dtype, &[2, 3, 3, 5], seed);
            // All indices lie in the least extent that they are used on.
            for (batch_dims, dims) in
                [(0, &[4, 1][..]), (0, &[4, 2]), (0, &[2]), (0, &[2, 2, 4]), (1, &[2, 3]), (1, &[2, 6, 2]), (2, &[2, 3, 4, 1])]
            {
                let extent = if batch_dims == 0 { 2 } else { 3 };
                let indices = random_in(DType::I64, dims, -extent, extent, seed);
                assert_decomposes(GatherNd { batch_dims }, &[data.clone(), indices.clone()]);
                let indices = random_in(DType::I8, dims, -extent, extent, seed + 1);
                assert_decomposes(GatherNd { batch_dims }, &[data.clone(), indices]);
            }
        }
        let (empty, none) = (iota(DType::F32, &[0, 3]), iota(DType::I64, &[0, 1]));
        assert_decomposes(GatherNd { batch_dims: 0 }, &[empty.clone(), none.clone()]);
        assert_decomposes(GatherNd { batch_dims: 1 }, &[empty, none]);
    }

    #[test]
    fn refuses_tuples_that_do_not_fit() {
        let data = ty(DType::F32, &[2, 3]);
        assert_eq!(
            refusal(GatherNd { batch_dims: 0 }, &[data.clone(), ty(DType::I64, &[4, 3])]),
            "operand 1 has shape i64[4,3], but must have a last axis of 1 to 2 elements, to index operand 0 (f32[2,3])"
        );
        refusal(GatherNd { batch_dims: 0 }, &[data.clone(), ty(DType::I64, &[4, 0])]);
        refusal(GatherNd { batch_dims: 0 }, &[data.clone(), ty(DType::I64, &[])]);
        refusal(GatherNd { batch_dims: 1 }, &[data.clone(), ty(DType::I64, &[3, 1])]);
        refusal(GatherNd { batch_dims: 1 }, &[data.clone(), ty(DType::I64, &[1])]);
        refusal(GatherNd { batch_dims: usize::MAX }, &[data, ty(DType::I64, &[2, 1])]);
        let error = run(GatherNd { batch_dims: 0 }, &[iota(DType::F32, &[2, 3]), Tensor::vector_i64(vec![0, -4])]);
        assert!(error.unwrap_err().to_string().starts_with("index -4 is out of range for an axis of extent 3"));
    }
}
