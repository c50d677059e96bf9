//! Batched matrix products: the one contraction that all others are brought to.

use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::op::{OpError, Operator, OutputTypes, Work, one, same_dtype};
use crate::{DType, NumberClass, Shape, Tensor, TensorType, Values};

/// `C[.., m, n] = Σ_k A[.., m, k] · B[.., k, n]`, with leading dimensions that broadcast.
///
/// Operands are A and B, then A's zero point if `a_zero`, then B's if `b_zero`. A zero point has its operand's element
/// type and is subtracted before multiplying; it broadcasts to its operand (as it is stored, before any transposition)
/// and is constant along K. Floats need the same type twice and give it back, accumulated in binary32 (binary64 for
/// f64); integers of at most 32 bits may differ in type and give i32, wrapping; 64-bit integers give their own type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct MatMul {
    /// A is stored as `[.., k, m]`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub transpose_a: bool,
    /// B is stored as `[.., n, k]`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub transpose_b: bool,
    /// There is an operand with A's zero point.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub a_zero: bool,
    /// There is an operand with B's zero point.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub b_zero: bool,
}

/// The extents of one matrix product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatMulDims {
    /// Leading dimensions after broadcasting.
    pub batch: Shape,
    /// Rows of A and C.
    pub m: usize,
    /// The dimension summed over.
    pub k: usize,
    /// Columns of B and C.
    pub n: usize,
}

impl MatMul {
    /// The extents of this product for operands of the given shapes.
    pub fn dims(&self, a: &TensorType, b: &TensorType) -> Result<MatMulDims, OpError> {
        for (operand, ty) in [a, b].into_iter().enumerate() {
            if ty.shape.rank() < 2 {
                return Err(OpError::shape(operand, "at least two dimensions", ty));
            }
        }
        let split = |ty: &TensorType, transposed: bool| {
            let (lead, last) = ty.shape.split_at(ty.shape.rank() - 2);
            let (rows, columns) = if transposed { (last[1], last[0]) } else { (last[0], last[1]) };
            (lead.to_vec(), rows, columns)
        };
        let (a_lead, m, k) = split(a, self.transpose_a);
        let (b_lead, b_k, n) = split(b, self.transpose_b);
        if b_k != k {
            return Err(OpError::shape(1, format!("a K-dimension of {k} as operand 0 ({a}) has, not {b_k}"), b));
        }
        let batch = Shape::new(a_lead)?.broadcast(&Shape::new(b_lead)?)?;
        Ok(MatMulDims { batch, m, k, n })
    }

    /// The element type of the product.
    pub fn result_dtype(a: DType) -> DType {
        if a.is_integer() && a.bits() <= 32 { DType::I32 } else { a }
    }

    fn operand_count(&self) -> usize {
        2 + usize::from(self.a_zero) + usize::from(self.b_zero)
    }
}

impl Operator for MatMul {
    const NAMES: &'static [&'static str] = &["mat_mul"];

    fn infer(&self, inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
        if inputs.len() != self.operand_count() {
            return Err(OpError::Arity { expected: self.operand_count().to_string(), actual: inputs.len() });
        }
        let (a, b) = (inputs[0], inputs[1]);
        if a.dtype == DType::Bool {
            return Err(OpError::dtype(0, "a number", a.dtype));
        }
        let narrow = |dtype: DType| dtype.is_integer() && dtype.bits() <= 32;
        if !(narrow(a.dtype) && narrow(b.dtype)) {
            same_dtype(inputs, 1)?;
        }
        let dims = self.dims(a, b)?;
        let mut zeros = 2..;
        for (present, operand, transposed) in [(self.a_zero, 0, self.transpose_a), (self.b_zero, 1, !self.transpose_b)] {
            if !present {
                continue;
            }
            let index = zeros.next().unwrap_or(2);
            let (zero, ty) = (inputs[index], inputs[operand]);
            if zero.dtype != ty.dtype || !ty.dtype.is_integer() {
                return Err(OpError::dtype(index, format!("an integer type, as operand {operand}"), zero.dtype));
            }
            let k_axis_from_end = if transposed { 2 } else { 1 };
            let along_k = zero.shape.rank().checked_sub(k_axis_from_end).map_or(1, |axis| zero.shape[axis]);
            if !zero.shape.broadcasts_to(&ty.shape) || along_k != 1 {
                return Err(OpError::shape(index, format!("a shape that broadcasts to {ty}, with extent 1 along K"), zero));
            }
        }
        one(Self::result_dtype(a.dtype), Shape::new(dims.batch.iter().copied().chain([dims.m, dims.n]))?)
    }

    fn keeps_excess_precision(&self) -> bool {
        true
    }

    fn eval(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Result<Vec<Tensor>, OpError> {
        let (a, b) = (inputs[0], inputs[1]);
        let dims = self.dims(a.ty(), b.ty())?;
        let mut zeros = inputs[2..].iter();
        let a_zero = if self.a_zero { zeros.next() } else { None };
        let b_zero = if self.b_zero { zeros.next() } else { None };
        let out = &outputs[0];
        let layout = Layout::new(self, a.shape(), b.shape(), &dims);
        let values = match (a.dtype().class(), a.widen()?, b.widen()?) {
            (NumberClass::F32, Values::F32(a), Values::F32(b)) => Values::F32(layout.float(&a, &b).into()),
            (NumberClass::F64, Values::F64(a), Values::F64(b)) => Values::F64(layout.float(&a, &b).into()),
            (_, wide_a, wide_b) if out.dtype == DType::I32 => {
                let a = subtract_zero(a, wide_a, a_zero)?;
                let b = subtract_zero(b, wide_b, b_zero)?;
                let narrow = |v: &[i64]| super::elementwise::map(v, |x| x as i32);
                let product = layout.integer(&narrow(&a), &narrow(&b), i32::wrapping_mul, i32::wrapping_add);
                return Ok(vec![Tensor::from_vec(out.shape.clone(), product)?]);
            }
            (_, wide_a, wide_b) => {
                let unsigned = out.dtype.class() == NumberClass::Unsigned;
                let a = subtract_zero(a, wide_a, a_zero)?;
                let b = subtract_zero(b, wide_b, b_zero)?;
                let product = layout.integer(&a, &b, i64::wrapping_mul, i64::wrapping_add);
                if unsigned {
                    Values::Unsigned(product.into_iter().map(|x| x as u64).collect())
                } else {
                    Values::Signed(product.into())
                }
            }
        };
        Ok(vec![Tensor::narrow(out.clone(), values)])
    }

    fn work(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Work {
        let k = self.dims(inputs[0], inputs[1]).map_or(0, |dims| dims.k);
        Work::contraction(outputs[0].shape.count() as u64 * k as u64)
    }
}

/// Elements as signed integers, with the zero point subtracted.
fn subtract_zero(x: &Tensor, values: Values<'_>, zero: Option<&&Tensor>) -> Result<Vec<i64>, OpError> {
    let signed = |values: Values<'_>| match values {
        Values::Signed(v) => v.into_owned(),
        Values::Unsigned(v) => v.iter().map(|&x| x as i64).collect(),
        Values::F32(_) | Values::F64(_) => Vec::new(),
    };
    let values = signed(values);
    Ok(match zero {
        None => values,
        Some(zero) => {
            let zeros = signed(zero.widen()?);
            super::elementwise::zip((&values, x.shape()), (&zeros, zero.shape()), x.shape(), i64::wrapping_sub)
        }
    })
}

/// A dense matrix, stored by rows, or by columns if `transposed`.
fn matrix<T>(elements: &[T], rows: usize, columns: usize, transposed: bool) -> MatRef<'_, T> {
    if transposed {
        MatRef::from_column_major_slice(elements, rows, columns)
    } else {
        MatRef::from_row_major_slice(elements, rows, columns)
    }
}

/// `out = a · b` for dense row-major matrices of extents `[m, k, n]`, `b` by columns if `b_transposed`; on the calling
/// thread.
pub(super) fn product<T: faer::traits::ComplexField + Copy + Default>(
    out: &mut [T],
    a: &[T],
    b: &[T],
    [m, k, n]: [usize; 3],
    b_transposed: bool,
) {
    if k == 0 {
        out.fill(T::default());
    } else if m * n > 0 {
        let out = MatMut::from_row_major_slice_mut(out, m, n);
        let (a, b) = (matrix(a, m, k, false), matrix(b, k, n, b_transposed));
        faer::linalg::matmul::matmul(out, Accum::Replace, a, b, T::one_impl(), Par::Seq);
    }
}

/// Where each matrix of a batched product lies.
struct Layout<'a> {
    dims: &'a MatMulDims,
    /// Start of A's and B's matrix for each matrix of the result.
    starts: Vec<(usize, usize)>,
    /// Row and column stride of A, then of B.
    a: (usize, usize),
    b: (usize, usize),
}

impl<'a> Layout<'a> {
    fn new(op: &MatMul, a: &Shape, b: &Shape, dims: &'a MatMulDims) -> Self {
        let lead = |shape: &Shape| Shape::new(shape[..shape.rank() - 2].iter().copied()).unwrap_or_default();
        let (a_lead, b_lead) = (lead(a), lead(b));
        let (a_strides, b_strides) = (a_lead.broadcast_strides(&dims.batch), b_lead.broadcast_strides(&dims.batch));
        let starts = (0..dims.batch.count())
            .map(|index| {
                let (mut a, mut b, mut rest) = (0, 0, index);
                for axis in (0..dims.batch.rank()).rev() {
                    let i = rest % dims.batch[axis];
                    rest /= dims.batch[axis];
                    a += i * a_strides[axis];
                    b += i * b_strides[axis];
                }
                (a * dims.m * dims.k, b * dims.k * dims.n)
            })
            .collect();
        Layout {
            dims,
            starts,
            a: if op.transpose_a { (1, dims.m) } else { (dims.k, 1) },
            b: if op.transpose_b { (1, dims.k) } else { (dims.n, 1) },
        }
    }

    fn float<T: faer::traits::ComplexField + Copy + Default>(&self, a: &[T], b: &[T]) -> Vec<T> {
        let &MatMulDims { m, k, n, .. } = self.dims;
        let mut out = vec![T::default(); self.starts.len() * m * n];
        if m * n == 0 || k == 0 {
            return out;
        }
        let product = |out: &mut [T], (a_start, b_start): (usize, usize), par: Par| {
            let a = matrix(&a[a_start..][..m * k], m, k, self.a.1 != 1 && k != 1);
            let b = matrix(&b[b_start..][..k * n], k, n, self.b.1 != 1 && n != 1);
            let out = MatMut::from_row_major_slice_mut(out, m, n);
            faer::linalg::matmul::matmul(out, Accum::Replace, a, b, T::one_impl(), par);
        };
        if self.starts.len() == 1 {
            product(&mut out, self.starts[0], Par::rayon(0));
        } else {
            out.par_chunks_mut(m * n)
                .zip(&self.starts)
                .for_each(|(out, &starts)| product(out, starts, Par::Seq));
        }
        out
    }

    fn integer<T: Copy + Default + Send + Sync>(
        &self,
        a: &[T],
        b: &[T],
        mul: impl Fn(T, T) -> T + Sync,
        add: impl Fn(T, T) -> T + Sync,
    ) -> Vec<T> {
        let &MatMulDims { m, k, n, .. } = self.dims;
        let mut out = vec![T::default(); self.starts.len() * m * n];
        if out.is_empty() || k == 0 {
            return out;
        }
        // Rows of B are walked in order for each row of A; a transposed B is laid out again once.
        let b = if self.b.1 == 1 {
            std::borrow::Cow::Borrowed(b)
        } else {
            let mut rows = vec![T::default(); b.len()];
            for (matrix, rows) in b.chunks(k * n).zip(rows.chunks_mut(k * n)) {
                for row in 0..k {
                    for column in 0..n {
                        rows[row * n + column] = matrix[column * k + row];
                    }
                }
            }
            std::borrow::Cow::Owned(rows)
        };
        out.par_chunks_mut(n).enumerate().for_each(|(index, out)| {
            let (a_start, b_start) = self.starts[index / m];
            let row = index % m;
            for step in 0..k {
                let factor = a[a_start + row * self.a.0 + step * self.a.1];
                for (sum, &b) in out.iter_mut().zip(&b[b_start + step * n..][..n]) {
                    *sum = add(*sum, mul(factor, b));
                }
            }
        });
        out
    }
}
