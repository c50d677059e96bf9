//! The two floating-point number systems of evaluation behind one trait, so that an operator is written once.
//!
//! The binary32 functions that whole activations pass through (`exp`, `tanh`, `erf`) are branch-free polynomials: the
//! compiler turns a loop over them into vector code, which it cannot do with calls into the C library. Fused
//! multiply-adds are left out on purpose; where the processor lacks them they are slow, and where it has them the
//! result would differ. They are always inlined, since a call in a loop keeps it from becoming vector code.

use crate::op::{OpError, OutputTypes, one};
use crate::{DType, PARALLEL_GRAIN, Tensor, TensorType, Values};

/// Arithmetic of [`NumberClass::F32`](crate::NumberClass) or [`NumberClass::F64`](crate::NumberClass).
pub(crate) trait Float:
    Copy
    + Default
    + Send
    + Sync
    + PartialOrd
    + bytemuck::Pod
    + faer::traits::ComplexField
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
{
    /// -∞, the score of what is masked.
    const NEG_INFINITY: Self;

    /// An attribute, rounded.
    fn of(value: f64) -> Self;
    /// The exponential.
    fn exp(self) -> Self;
    /// The hyperbolic tangent.
    fn tanh(self) -> Self;
    /// The error function.
    fn erf(self) -> Self;
    /// The square root.
    fn sqrt(self) -> Self;
    /// The sum of a row, carried in binary64 and rounded once, so that it does not show the order of addition.
    fn sum(row: &[Self]) -> Self;
    /// The mean of a row, carried as [`Float::sum`] is.
    fn mean(row: &[Self]) -> Self;
    /// The greatest element of a row, -∞ if it is empty, NaN if any element is.
    fn max_of(row: &[Self]) -> Self;
    /// The elements as this class. `None` if they are of another.
    fn slice<'a>(values: &'a Values<'_>) -> Option<&'a [Self]>;
}

macro_rules! float {
    ($float:ident, $Class:ident, $exp:expr, $tanh:expr, $erf:expr) => {
        impl Float for $float {
            const NEG_INFINITY: Self = $float::NEG_INFINITY;

            fn of(value: f64) -> Self {
                value as $float
            }

            #[inline(always)]
            fn exp(self) -> Self {
                $exp(self)
            }

            #[inline(always)]
            fn tanh(self) -> Self {
                $tanh(self)
            }

            #[inline(always)]
            fn erf(self) -> Self {
                $erf(self)
            }

            fn sqrt(self) -> Self {
                $float::sqrt(self)
            }

            fn sum(row: &[Self]) -> Self {
                wide_sum(row) as $float
            }

            fn mean(row: &[Self]) -> Self {
                (wide_sum(row) / row.len() as f64) as $float
            }

            fn max_of(row: &[Self]) -> Self {
                let (lanes, rest) = row.as_chunks::<8>();
                let mut greatest = [$float::NEG_INFINITY; 8];
                for lane in lanes {
                    for (a, &b) in greatest.iter_mut().zip(lane) {
                        *a = if a.is_nan() || *a > b { *a } else { b };
                    }
                }
                let all = greatest.iter().chain(rest);
                all.fold($float::NEG_INFINITY, |a, &b| if a.is_nan() || a > b { a } else { b })
            }

            fn slice<'a>(values: &'a Values<'_>) -> Option<&'a [Self]> {
                match values {
                    Values::$Class(v) => Some(v),
                    _ => None,
                }
            }
        }
    };
}

float!(f32, F32, exp, tanh, erf);
float!(f64, F64, f64::exp, f64::tanh, libm::erf);

/// The sum of a row in binary64, in eight interleaved partial sums that are added pairwise at the end.
pub(crate) fn wide_sum<T: Copy + Into<f64>>(row: &[T]) -> f64 {
    let (lanes, rest) = row.as_chunks::<8>();
    let mut sums = [0.0f64; 8];
    for lane in lanes {
        for (sum, &x) in sums.iter_mut().zip(lane) {
            *sum += x.into();
        }
    }
    for (sum, &x) in sums.iter_mut().zip(rest) {
        *sum += x.into();
    }
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + e) + (b + f)) + ((c + g) + (d + h))
}

/// Adding and subtracting this rounds a binary32 of less than 2^22 to the nearest integer, ties to even.
const ROUNDER: f32 = 12_582_912.0;

/// The nearest integer, ties to even.
#[inline(always)]
pub(crate) fn round(x: f32) -> f32 {
    let magnitude = x.abs();
    let rounded = (magnitude + 8_388_608.0) - 8_388_608.0;
    // From 2^23 on every binary32 is an integer; the comparison is false for NaN, which stays.
    if magnitude < 8_388_608.0 { rounded.copysign(x) } else { x }
}

/// e^x, to within 1 unit in the last place.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // e^x = 2^n e^r with n an integer and |r| <= ln 2 / 2. Beyond the bounds the result is 0 or infinity anyway.
    let x = x.clamp(-104.0, 89.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUNDER;
    let n = shifted - ROUNDER;
    // ln 2 in two parts, the first short enough for its product with n to be exact.
    let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let mut p = 1.381_454_7e-3;
    p = p * r + 8.368_777e-3;
    p = p * r + 4.166_838_5e-2;
    p = p * r + 1.666_652e-1;
    p = p * r + 4.999_999_3e-1;
    let p = (p * r * r + r) + 1.0;
    // 2^n in two factors, for n runs from -150 to 128. NaN leaves n undefined, but p is NaN then.
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUNDER.to_bits() as i32);
    let half = n >> 1;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    p * power(half) * power(n.wrapping_sub(half))
}

/// The hyperbolic tangent, to within 2 units in the last place.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let a = x.abs();
    let z = x * x;
    let mut p = -5.704_98e-3;
    p = p * z + 2.063_907_9e-2;
    p = p * z + -5.373_971_4e-2;
    p = p * z + 1.333_144_2e-1;
    p = p * z + -3.333_328e-1;
    let near = x + x * (p * z);
    let far = 1.0 - 2.0 / (exp(2.0 * a) + 1.0);
    (if a < 0.625 { near } else { far }).copysign(x)
}

/// The error function, to within 2 units in the last place.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let a = x.abs();
    let z = x * x;
    let mut p = 8.316_772_6e-5;
    p = p * z + -8.130_012e-4;
    p = p * z + 5.199_906_6e-3;
    p = p * z + -2.685_894_2e-2;
    p = p * z + 1.128_368_7e-1;
    p = p * z + -3.761_263_3e-1;
    p = p * z + 1.283_791_7e-1;
    let near = x + x * p;
    // Further out 1 - e^q, with q the logarithm of the complement; from 4 on that is 1.
    let b = a.clamp(0.0, 4.0);
    let mut q = 1.982_207e-4;
    q = q * b + -3.065_499_8e-3;
    q = q * b + 2.231_524_8e-2;
    q = q * b + -1.041_137_4e-1;
    q = q * b + -6.369_76e-1;
    q = q * b + -1.127_797_3;
    q = q * b + -1.664_390_8e-4;
    let far = 1.0 - exp(q);
    (if a < 0.92 { near } else { far }).copysign(x)
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// ln(1 + e^x) without overflow.
pub(crate) fn softplus(x: f32) -> f32 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// ln(1 + e^x) without overflow, in binary64.
pub(crate) fn softplus64(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// Softmax of one row in place. A row that is all -∞ becomes NaN, or 0 if `zero_masked`.
pub(crate) fn softmax_row<F: Float>(row: &mut [F], zero_masked: bool) {
    let max = F::max_of(row);
    if zero_masked && max == F::NEG_INFINITY {
        row.fill(F::default());
        return;
    }
    row.iter_mut().for_each(|x| *x = (*x - max).exp());
    let sum = F::sum(row);
    row.iter_mut().for_each(|x| *x /= sum);
}

/// The number of rows of `len` elements that make a task worth a thread's while.
pub(crate) fn rows_per_task(len: usize) -> usize {
    (PARALLEL_GRAIN / len.max(1)).max(1)
}

/// Evaluation that is the same in both floating-point classes.
pub(crate) trait FloatKernel {
    /// Computes the elements of the only result, of type `out`. `values` holds the operands' elements; those of an
    /// operand that is not a float are left out (empty).
    fn run<F: Float>(&self, inputs: &[&Tensor], values: &[&[F]], out: &TensorType) -> Result<Vec<F>, OpError>;
}

/// Runs `kernel` in the class of the first operand, and rounds to the result's type.
pub(crate) fn evaluate(
    kernel: &impl FloatKernel,
    inputs: &[&Tensor],
    outputs: &[TensorType],
) -> Result<Vec<Tensor>, OpError> {
    fn slices<'a, F: Float>(values: &'a [Option<Values<'_>>]) -> Vec<&'a [F]> {
        values.iter().map(|values| values.as_ref().and_then(F::slice).unwrap_or_default()).collect()
    }
    let mut wide = Vec::with_capacity(inputs.len());
    for input in inputs {
        wide.push(if input.dtype().is_float() { Some(input.widen()?) } else { None });
    }
    let out = &outputs[0];
    let values = if inputs[0].dtype() == DType::F64 {
        Values::F64(kernel.run::<f64>(inputs, &slices(&wide), out)?.into())
    } else {
        Values::F32(kernel.run::<f32>(inputs, &slices(&wide), out)?.into())
    };
    Ok(vec![Tensor::narrow(out.clone(), values)])
}

/// Fails unless `operand` is a float of at least 16 bits.
pub(crate) fn float_operand(inputs: &[&TensorType], operand: usize) -> Result<(), OpError> {
    let dtype = inputs[operand].dtype;
    if matches!(dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16) {
        Ok(())
    } else {
        Err(OpError::dtype(operand, "f64, f32, f16 or bf16", dtype))
    }
}

/// Fails unless `operand` has operand 0's element type and broadcasts to its shape.
pub(crate) fn broadcasts_to_first(inputs: &[&TensorType], operand: usize) -> Result<(), OpError> {
    crate::op::same_dtype(inputs, operand)?;
    if inputs[operand].shape.broadcasts_to(&inputs[0].shape) {
        Ok(())
    } else {
        Err(OpError::shape(operand, format!("a shape that broadcasts to {}", inputs[0].shape), inputs[operand]))
    }
}

/// A result of operand 0's type.
pub(crate) fn as_first(inputs: &[&TensorType]) -> Result<OutputTypes, OpError> {
    one(inputs[0].dtype, inputs[0].shape.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worst error over a dense sample of all finite binary32 values, in units in the last place of the result.
    fn worst(f: fn(f32) -> f32, exact: fn(f64) -> f64) -> (f64, f32) {
        let (mut worst, mut at) = (0.0, 0.0);
        for bits in (0..=u32::MAX).step_by(1009) {
            let x = f32::from_bits(bits);
            if !x.is_finite() {
                continue;
            }
            let (y, reference) = (f(x), exact(f64::from(x)));
            let rounded = reference as f32;
            if rounded.is_infinite() {
                assert_eq!(y, rounded, "at {x:e}");
                continue;
            }
            // Below the normal range a unit is the least subnormal.
            let exponent = ((rounded.to_bits() >> 23) & 0xff).max(1) as i32;
            let ulp = 2.0f64.powi(exponent - 127 - 23);
            let error = (f64::from(y) - reference).abs() / ulp;
            assert!(!error.is_nan(), "at {x:e}");
            if error > worst {
                (worst, at) = (error, x);
            }
        }
        (worst, at)
    }

    #[test]
    fn polynomials_are_accurate() {
        for (name, f, exact, bound) in [
            ("exp", exp as fn(f32) -> f32, f64::exp as fn(f64) -> f64, 1.0),
            ("tanh", tanh, f64::tanh, 2.0),
            ("erf", erf, libm::erf, 2.0),
        ] {
            let (error, at) = worst(f, exact);
            assert!(error <= bound, "{name} is off by {error} units at {at:e}");
        }
    }

    #[test]
    fn special_values_are_kept() {
        for f in [exp as fn(f32) -> f32, tanh, erf, round] {
            assert!(f(f32::NAN).is_nan());
        }
        assert_eq!((exp(f32::INFINITY), exp(f32::NEG_INFINITY)), (f32::INFINITY, 0.0));
        assert_eq!((tanh(f32::INFINITY), tanh(f32::NEG_INFINITY)), (1.0, -1.0));
        assert_eq!((erf(f32::INFINITY), erf(f32::NEG_INFINITY)), (1.0, -1.0));
        for f in [tanh as fn(f32) -> f32, erf, round] {
            assert_eq!(f(-0.0).to_bits(), (-0.0f32).to_bits());
        }
    }

    #[test]
    fn rounding_takes_ties_to_even() {
        for x in [0.5f32, 1.5, 2.5, -0.5, -3.5, 0.499_999_97, 8_388_607.5, 1e30, f32::INFINITY, -7.3] {
            assert_eq!(round(x).to_bits(), x.round_ties_even().to_bits(), "{x}");
        }
    }

    #[test]
    fn maximum_of_a_row_shows_nan() {
        let mut row = [1.0f32; 21];
        row[5] = 7.0;
        assert_eq!(f32::max_of(&row), 7.0);
        for at in [0, 6, 20] {
            let mut row = row;
            row[at] = f32::NAN;
            assert!(f32::max_of(&row).is_nan(), "at {at}");
        }
        assert_eq!(f32::max_of(&[]), f32::NEG_INFINITY);
    }

    #[test]
    fn sums_are_carried_in_binary64() {
        let row: Vec<f32> = (0..1001).map(|i| if i == 0 { 1e8 } else { 0.5 }).collect();
        assert_eq!(f32::sum(&row), 1e8 + 500.0);
    }
}
