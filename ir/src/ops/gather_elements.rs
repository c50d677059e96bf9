//! Selection of single elements along an axis.

use serde::{Deserialize, Serialize};

use super::Gather;
use super::indexing::{add_element_offsets, check_element_indices, element_offsets};
use super::movement::{reshape, take_rows};
use crate::op::{OpError, Operator, OutputTypes, Work, one, operands};
use crate::{Graph, GraphError, Tensor, TensorType, ValueId};

/// Result element `[.., i, ..]` is operand 0 at the same position with the index along `axis` replaced by operand 1's
/// element (ONNX GatherElements). Negative indices count from the end; an index out of range is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GatherElements {
    /// The axis selected from.
    pub axis: usize,
}

impl Operator for GatherElements {
    const NAMES: &'static [&'static str] = &["gather_elements"];

    fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        let [data, indices] = operands(inputs)?;
        check_element_indices(data, indices, self.axis)?;
        one(data.dtype, indices.shape.clone())
    }

    fn eval(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        let [data, indices] = operands(inputs)?;
        let offsets = element_offsets(data.shape(), indices, self.axis)?;
        Ok(vec![take_rows(data, offsets.len(), 1, |i| offsets[i], &outputs[0])?])
    }

    fn work(&self, _inputs: &[&TensorType], _outputs: &[TensorType]) -> Work {
        Work::NONE
    }

    /// Index arithmetic and one [`Gather`] from the flattened data. An index out of range along its axis may then name
    /// another element instead of failing.
    fn decompose(&self, graph: &mut Graph, inputs: &[ValueId]) -> Option<Result<Vec<ValueId>, GraphError>> {
        let &[data, indices] = inputs else { return None };
        Some((|| {
            let shape = graph.shape(data).clone();
            let offsets = add_element_offsets(graph, &shape, indices, self.axis)?;
            let flat = reshape(graph, data, [shape.count()])?;
            Ok(vec![graph.add(Gather { axis: 0 }, &[flat, offsets])?])
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
    fn selects_along_an_axis_in_every_type() {
        for dtype in DType::ALL {
            let data = tensor(dtype, &[2, 2], &[0.0, 1.0, 1.0, 0.0]);
            let indices = tensor(DType::I32, &[1, 2], &[1.0, -2.0]);
            assert_eq!(numbers(&run(GatherElements { axis: 0 }, &[data.clone(), indices]).unwrap()), [1.0, 1.0]);
            let indices = tensor(DType::I64, &[2, 3], &[0.0, 0.0, 1.0, -1.0, 0.0, 1.0]);
            let y = run(GatherElements { axis: 1 }, &[data, indices]).unwrap();
            assert_eq!(numbers(&y), [0.0, 0.0, 1.0, 0.0, 1.0, 0.0], "{dtype}");
        }
    }

    #[test]
    fn decomposes() {
        for (seed, dtype) in (0..).zip(DType::ALL) {
            let data = random(dtype, &[3, 4, 5], seed);
            for (axis, extent) in [(0, 3), (1, 4), (2, 5)] {
                let indices = random_in(DType::I64, &[3, 4, 5], -extent, extent, seed);
                assert_decomposes(GatherElements { axis }, &[data.clone(), indices]);
                let mut dims = [2, 1, 3];
                dims[axis] = 7;
                let indices = random_in(DType::U8, &dims, 0, extent, seed);
                assert_decomposes(GatherElements { axis }, &[data.clone(), indices]);
            }
        }
        assert_decomposes(GatherElements { axis: 0 }, &[iota(DType::F32, &[4]), iota(DType::I64, &[0])]);
        assert_decomposes(GatherElements { axis: 1 }, &[iota(DType::F32, &[0, 4]), iota(DType::I64, &[0, 2])]);
    }

    #[test]
    fn refuses_indices_that_do_not_fit() {
        let data = ty(DType::F32, &[2, 3]);
        refusal(GatherElements { axis: 0 }, &[data.clone(), ty(DType::I64, &[2, 4])]);
        refusal(GatherElements { axis: 0 }, &[data.clone(), ty(DType::I64, &[2])]);
        refusal(GatherElements { axis: 2 }, &[data.clone(), ty(DType::I64, &[2, 3])]);
        refusal(GatherElements { axis: 0 }, &[data, ty(DType::F32, &[2, 3])]);
        let indices = Tensor::vector_i64(vec![2]);
        let error = run(GatherElements { axis: 0 }, &[iota(DType::F32, &[2]), indices]).unwrap_err();
        assert_eq!(error.to_string(), "index 2 is out of range for an axis of extent 2; it must lie in -2..=1");
    }
}
