//! Normalisation to mean 0 and variance 1.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::elementwise::zip;
use super::float::{self, Float, FloatKernel};
use super::{Binary, BinaryFn, Cast, Reduce, ReduceFn, Unary, UnaryFn};
use crate::op::{OpError, Operator, OutputTypes, Work};
use crate::{DType, Graph, GraphError, Real, Tensor, TensorType, ValueId};

/// Over all axes from `axis` on: `(x - mean) / sqrt(variance + epsilon) · scale + bias`, computed in binary32 or
/// wider. Operands: x, scale, then bias if `bias`; scale and bias broadcast to x.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LayerNorm {
    /// First normalised axis.
    pub axis: usize,
    /// Added to the variance.
    pub epsilon: Real,
    /// There is an operand with the bias.
    pub bias: bool,
}

impl Operator for LayerNorm {
    const NAMES: &'static [&'static str] = &["layer_norm"];

    fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        check(inputs, 2 + usize::from(self.bias), self.axis, self.epsilon)?;
        float::as_first(inputs)
    }

    fn eval(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        float::evaluate(self, inputs, outputs)
    }

    fn work(&self, inputs: &[&TensorType], _outputs: &[TensorType]) -> Work {
        // Sum, subtraction, square, sum of squares, division, scale and bias for each element.
        Work::elementwise((6 + u64::from(self.bias)) * inputs[0].shape.count() as u64)
    }

    fn decompose(&self, graph: &mut Graph, inputs: &[ValueId]) -> Option<Result<Vec<ValueId>, GraphError>> {
        Some((|| {
            let dtype = graph.ty(inputs[0]).dtype;
            let wide = widened(graph, inputs)?;
            let axes: Vec<usize> = (self.axis..graph.shape(wide[0]).rank()).collect();
            let mean = graph.add(Reduce { function: ReduceFn::Mean, axes: axes.clone() }, &wide[..1])?;
            let centred = graph.add(Binary(BinaryFn::Sub), &[wide[0], mean])?;
            let mut y = divide_by_rms(graph, centred, axes, self.epsilon)?;
            y = graph.add(Binary(BinaryFn::Mul), &[y, wide[1]])?;
            if self.bias {
                y = graph.add(Binary(BinaryFn::Add), &[y, wide[2]])?;
            }
            Ok(vec![narrowed(graph, y, dtype)?])
        })())
    }
}

impl FloatKernel for LayerNorm {
    fn run<F: Float>(&self, inputs: &[&Tensor], values: &[&[F]], out: &TensorType) -> Result<Vec<F>, OpError> {
        let normalised = normalise(values[0], out, self.axis, |row| {
            let mean = F::mean(row);
            row.iter_mut().for_each(|x| *x -= mean);
            scale_to_unit_rms(row, self.epsilon);
        });
        let mut y = zip((&normalised, &out.shape), (values[1], inputs[1].shape()), &out.shape, |x, scale| x * scale);
        if self.bias {
            y = zip((&y, &out.shape), (values[2], inputs[2].shape()), &out.shape, |x, bias| x + bias);
        }
        Ok(y)
    }
}

/// What both normalisations ask of their operands.
pub(super) fn check(inputs: &[&TensorType], count: usize, axis: usize, epsilon: Real) -> Result<(), OpError> {
    if inputs.len() != count {
        return Err(OpError::Arity { expected: count.to_string(), actual: inputs.len() });
    }
    float::float_operand(inputs, 0)?;
    if axis >= inputs[0].shape.rank() {
        return Err(OpError::shape(0, format!("an axis {axis}"), inputs[0]));
    }
    if !(epsilon.0 >= 0.0 && epsilon.0.is_finite()) {
        return Err(OpError::Attribute(format!("epsilon is {epsilon}, but must be finite and not negative")));
    }
    (1..count).try_for_each(|operand| float::broadcasts_to_first(inputs, operand))
}

/// Applies `f` to a copy of every run of elements over the axes from `axis` on.
pub(super) fn normalise<F: Float>(x: &[F], ty: &TensorType, axis: usize, f: impl Fn(&mut [F]) + Sync) -> Vec<F> {
    let len: usize = ty.shape[axis..].iter().product();
    let mut out = x.to_vec();
    if len > 0 {
        out.par_chunks_mut(len * float::rows_per_task(len)).for_each(|rows| rows.chunks_mut(len).for_each(&f));
    }
    out
}

/// Divides a row by the root of its mean square plus epsilon.
pub(super) fn scale_to_unit_rms<F: Float>(row: &mut [F], epsilon: Real) {
    // Squares are rounded before they are summed, as those of the decomposition are.
    let squares: Vec<F> = row.iter().map(|&x| x * x).collect();
    let rms = (F::mean(&squares) + F::of(epsilon.0)).sqrt();
    row.iter_mut().for_each(|x| *x /= rms);
}

/// [`scale_to_unit_rms`] as a graph.
pub(super) fn divide_by_rms(
    graph: &mut Graph,
    x: ValueId,
    axes: Vec<usize>,
    epsilon: Real,
) -> Result<ValueId, GraphError> {
    let squares = graph.add(Binary(BinaryFn::Mul), &[x, x])?;
    let mean = graph.add(Reduce { function: ReduceFn::Mean, axes }, &[squares])?;
    let epsilon = graph.constant(Tensor::scalar_of(graph.ty(x).dtype, epsilon.0));
    let shifted = graph.add(Binary(BinaryFn::Add), &[mean, epsilon])?;
    let rms = graph.add(Unary(UnaryFn::Sqrt), &[shifted])?;
    graph.add(Binary(BinaryFn::Div), &[x, rms])
}

/// The values, with those of 16 bits cast to binary32.
pub(super) fn widened(graph: &mut Graph, values: &[ValueId]) -> Result<Vec<ValueId>, GraphError> {
    let mut wide = Vec::with_capacity(values.len());
    for &value in values {
        let narrow = graph.ty(value).dtype.bits() < 32;
        wide.push(if narrow { graph.add(Cast { to: DType::F32 }, &[value])? } else { value });
    }
    Ok(wide)
}

/// A result computed on [`widened`] values, cast back to the type it should have.
pub(super) fn narrowed(graph: &mut Graph, value: ValueId, dtype: DType) -> Result<ValueId, GraphError> {
    if graph.ty(value).dtype == dtype { Ok(value) } else { graph.add(Cast { to: dtype }, &[value]) }
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;
    use crate::testing::{FLOATS, agrees, elements, spread, ty};

    #[test]
    fn normalises_to_mean_0_and_variance_1() {
        let op = LayerNorm { axis: 1, epsilon: Real(0.0), bias: true };
        let x = elements(&[2, 2], vec![1.0f32, 3.0, -2.0, 6.0]);
        let scale = elements(&[2], vec![1.0f32, 10.0]);
        let bias = elements(&[1], vec![0.5f32]);
        let y = op.eval(&[&x, &scale, &bias], &[x.ty().clone()]).unwrap();
        assert_eq!(y[0].to_f64s().unwrap(), [-0.5, 10.5, -0.5, 10.5]);
    }

    #[test]
    fn agrees_with_its_decomposition() {
        for (dtype, tolerance) in FLOATS.into_iter().map(|dtype| (dtype, 0.0)) {
            for (axis, bias) in [(0, false), (1, true), (2, true)] {
                let x = spread(dtype, &[3, 5, 77], 1);
                let scale = spread(dtype, &[5, 77], 2);
                let offset = spread(dtype, &[77], 3);
                let op = LayerNorm { axis, epsilon: Real(1e-5), bias };
                let operands = [x, scale, offset];
                agrees(op, &operands[..2 + usize::from(bias)], tolerance);
            }
        }
    }

    #[test]
    fn empty_tensors_stay_empty() {
        let op = LayerNorm { axis: 1, epsilon: Real(1e-5), bias: false };
        agrees(op, &[spread(DType::F32, &[2, 0], 1), spread(DType::F32, &[1], 2)], 0.0);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let op = LayerNorm { axis: 1, epsilon: Real(1e-5), bias: false };
        let x = ty(DType::F32, &[2, 3]);
        assert!(op.infer(&[&x, &ty(DType::F32, &[3])]).is_ok());
        assert!(matches!(op.infer(&[&x]), Err(OpError::Arity { .. })));
        assert!(matches!(op.infer(&[&x, &ty(DType::F16, &[3])]), Err(OpError::DType { operand: 1, .. })));
        assert!(matches!(op.infer(&[&x, &ty(DType::F32, &[4])]), Err(OpError::Shape { operand: 1, .. })));
        assert!(matches!(op.infer(&[&x, &ty(DType::F32, &[1, 2, 3])]), Err(OpError::Shape { operand: 1, .. })));
        let integers = ty(DType::I32, &[2, 3]);
        assert!(matches!(op.infer(&[&integers, &integers]), Err(OpError::DType { operand: 0, .. })));
        assert!(matches!(LayerNorm { axis: 2, ..op }.infer(&[&x, &x]), Err(OpError::Shape { operand: 0, .. })));
        let odd = LayerNorm { epsilon: Real(f64::NAN), ..op };
        assert!(matches!(odd.infer(&[&x, &x]), Err(OpError::Attribute(_))));
    }
}
