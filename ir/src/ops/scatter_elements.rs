//! Replacement of single elements along an axis.

use serde::{Deserialize, Serialize};

use super::indexing::{add_element_offsets, check_element_indices, element_offsets};
use super::movement::reshape;
use super::{ScatterNd, ScatterReduction};
use crate::op::{OpError, Operator, OutputTypes, Work, one, operands};
use crate::{Graph, GraphError, Tensor, TensorType, ValueId};

/// Operand 0 with the elements that operand 1 (indices) names along `axis` combined with those of operand 2 (ONNX
/// ScatterElements), in row-major order of the indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ScatterElements {
    /// The axis indexed.
    pub axis: usize,
    /// How an update combines with what is there.
    pub reduction: ScatterReduction,
}

impl Operator for ScatterElements {
    const NAMES: &'static [&'static str] = &["scatter_elements"];

    fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        let [data, indices, updates] = operands(inputs)?;
        check_element_indices(data, indices, self.axis)?;
        self.reduction.check_dtypes(inputs)?;
        if updates.shape != indices.shape {
            return Err(OpError::shape(2, format!("the extents of operand 1 ({indices})"), updates));
        }
        one(data.dtype, data.shape.clone())
    }

    fn eval(&self, inputs: &[&Tensor], _outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        let [data, indices, updates] = operands(inputs)?;
        let offsets = element_offsets(data.shape(), indices, self.axis)?;
        Ok(vec![self.reduction.apply(data, updates, &offsets, 1)?])
    }

    fn work(&self, inputs: &[&TensorType], _outputs: &[TensorType]) -> Work {
        self.reduction.work(inputs)
    }

    /// Index arithmetic and one [`ScatterNd`] into the flattened data. An index out of range along its axis may then
    /// name another element instead of failing.
    fn decompose(&self, graph: &mut Graph, inputs: &[ValueId]) -> Option<Result<Vec<ValueId>, GraphError>> {
        let &[data, indices, updates] = inputs else { return None };
        Some((|| {
            let shape = graph.shape(data).clone();
            let count = graph.shape(indices).count();
            let offsets = add_element_offsets(graph, &shape, indices, self.axis)?;
            let offsets = reshape(graph, offsets, [count, 1])?;
            let flat = reshape(graph, data, [shape.count()])?;
            let updates = reshape(graph, updates, [count])?;
            let scattered = graph.add(ScatterNd { reduction: self.reduction }, &[flat, offsets, updates])?;
            Ok(vec![reshape(graph, scattered, shape.iter().copied())?])
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

    fn scatter(axis: usize, reduction: ScatterReduction) -> ScatterElements {
        ScatterElements { axis, reduction }
    }

    #[test]
    fn replaces_in_every_type() {
        for dtype in DType::ALL {
            let data = tensor(dtype, &[2, 2], &[0.0, 0.0, 1.0, 1.0]);
            let indices = tensor(DType::I32, &[1, 2], &[-1.0, 0.0]);
            let updates = tensor(dtype, &[1, 2], &[0.0, 1.0]);
            let y = run(scatter(0, ScatterReduction::Replace), &[data, indices, updates]).unwrap();
            assert_eq!(numbers(&y), [0.0, 1.0, 0.0, 1.0], "{dtype}");
        }
    }

    #[test]
    fn later_updates_meet_earlier_ones() {
        use ScatterReduction::{Add, Max, Min, Mul, Replace};
        for dtype in [DType::F64, DType::F16, DType::F8E5M2, DType::I4, DType::I64, DType::U4, DType::U64] {
            let inputs = [
                tensor(dtype, &[2], &[2.0, 3.0]),
                Tensor::vector_i64(vec![0, 0, 0]),
                tensor(dtype, &[3], &[1.0, 3.0, 1.0]),
            ];
            for (reduction, expected) in [(Replace, 1.0), (Add, 7.0), (Mul, 6.0), (Max, 3.0), (Min, 1.0)] {
                let y = run(scatter(0, reduction), &inputs).unwrap();
                assert_eq!(numbers(&y), [expected, 3.0], "{dtype} {reduction:?}");
            }
        }
    }

    #[test]
    fn nan_wins_as_in_element_wise_operators() {
        for reduction in [ScatterReduction::Max, ScatterReduction::Min] {
            for (old, new) in [(f64::NAN, 1.0), (1.0, f64::NAN)] {
                let data = [tensor(DType::F32, &[1], &[old]), Tensor::vector_i64(vec![0]), tensor(DType::F32, &[1], &[new])];
                assert!(numbers(&run(scatter(0, reduction), &data).unwrap())[0].is_nan());
            }
        }
    }

    #[test]
    fn decomposes() {
        use ScatterReduction::{Add, Max, Min, Mul, Replace};
        for (seed, dtype) in (0..).zip(DType::ALL) {
            for reduction in [Replace, Add, Mul, Max, Min] {
                if dtype == DType::Bool && matches!(reduction, Add | Mul) {
                    continue;
                }
                let data = random(dtype, &[3, 4, 2], seed);
                for (axis, extent) in [(0, 3), (1, 4), (2, 2)] {
                    let indices = random_in(DType::I64, &[2, 3, 2], -extent, extent, seed);
                    let updates = random(dtype, &[2, 3, 2], seed + 1);
                    assert_decomposes(scatter(axis, reduction), &[data.clone(), indices, updates]);
                }
            }
        }
        let none = [iota(DType::F32, &[3, 2]), iota(DType::I64, &[0, 2]), iota(DType::F32, &[0, 2])];
        assert_decomposes(scatter(1, Replace), &none);
    }

    #[test]
    fn refuses_operands_that_do_not_fit() {
        let op = scatter(0, ScatterReduction::Add);
        let (data, indices) = (ty(DType::F32, &[3, 2]), ty(DType::I64, &[1, 2]));
        refusal(op, &[data.clone(), indices.clone(), ty(DType::F32, &[2, 2])]);
        refusal(op, &[data.clone(), indices.clone(), ty(DType::F64, &[1, 2])]);
        refusal(op, &[data, ty(DType::I64, &[1, 3]), ty(DType::F32, &[1, 3])]);
        assert_eq!(
            refusal(op, &[ty(DType::Bool, &[3, 2]), indices, ty(DType::Bool, &[1, 2])]),
            "operand 0 is bool, but must be a number"
        );
    }
}
