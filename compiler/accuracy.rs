//! How far outputs are from those of the reference evaluation, and whether that is near enough.

use serde::Serialize;
use tcc_ir::{AbsentData, Tensor, TensorType, Values};
use tcc_targets::Machine;

/// How far a machine's outputs may be from the reference. Integers and truth values must be equal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Least signal-to-noise ratio of a float output, in decibels: 30 dB is noise of a thousandth of the signal's power.
    pub snr_db: f64,
    /// Largest error of an output whose reference is zero everywhere, so that it has no signal.
    pub zero_error: f64,
}

impl Tolerance {
    /// The tolerance for a program whose products were quantised to 8-bit integers to be built: noise of a hundredth of the signal's power. The
    /// reference is the model as it was given.
    pub const QUANTIZED: Tolerance = Tolerance { snr_db: 20.0, zero_error: 1e-2 };

    /// The tolerance for a machine. All machines round operands of products to bfloat16 at worst, so one tolerance serves
    /// all; a kind that computes in less would say so here.
    pub fn of(_machine: &Machine) -> Self {
        Tolerance { snr_db: 30.0, zero_error: 1e-3 }
    }
}

/// How one output compares with its reference.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutputCheck {
    /// Name of the output.
    pub name: String,
    /// Its type.
    pub ty: TensorType,
    /// Largest absolute difference of two finite elements.
    pub max_error: f64,
    /// That, divided by the largest absolute value of the reference; infinite if the reference is zero.
    pub max_relative: f64,
    /// Signal-to-noise ratio in decibels over the elements that are finite in both; infinite if they are equal.
    pub snr_db: f64,
    /// Why it fails; `None` if it passes.
    pub failure: Option<String>,
}

/// Compares an output with its reference.
///
/// # Errors
/// The values of one of them were not loaded.
pub fn compare(
    name: &str,
    expected: &Tensor,
    actual: &Tensor,
    tolerance: &Tolerance,
) -> Result<OutputCheck, AbsentData> {
    let mut check = OutputCheck {
        name: name.to_owned(),
        ty: actual.ty().clone(),
        max_error: f64::INFINITY,
        max_relative: f64::INFINITY,
        snr_db: f64::NEG_INFINITY,
        failure: None,
    };
    if expected.ty() != actual.ty() {
        check.failure = Some(format!("its type is {}, but the reference's is {}", actual.ty(), expected.ty()));
        return Ok(check);
    }
    // Integers are compared as such: binary64 would hide differences beyond 2^53.
    let unequal = match (expected.widen()?, actual.widen()?) {
        (Values::Signed(a), Values::Signed(b)) => Some(a.iter().zip(b.iter()).filter(|(a, b)| a != b).count()),
        (Values::Unsigned(a), Values::Unsigned(b)) => Some(a.iter().zip(b.iter()).filter(|(a, b)| a != b).count()),
        _ => None,
    };
    let difference = Difference::of(&expected.to_f64s()?, &actual.to_f64s()?);
    check.max_error = difference.max_error;
    check.max_relative = match difference.max_error {
        0.0 => 0.0,
        error => error / difference.max_signal,
    };
    check.snr_db = difference.snr_db();
    check.failure = match unequal {
        Some(0) => None,
        Some(count) => Some(format!("{count} of {} elements differ; integers must be equal", actual.shape().count())),
        None => difference.failure(tolerance),
    };
    Ok(check)
}

/// Sums over pairs of elements, in order, so that they do not depend on threads.
#[derive(Default)]
struct Difference {
    /// Pairs of which at least one is not finite, and which are not the same.
    not_finite: usize,
    max_error: f64,
    max_signal: f64,
    signal: f64,
    noise: f64,
}

impl Difference {
    fn of(expected: &[f64], actual: &[f64]) -> Self {
        let mut difference = Difference::default();
        for (&expected, &actual) in expected.iter().zip(actual) {
            if expected.is_finite() && actual.is_finite() {
                let error = (actual - expected).abs();
                difference.max_error = difference.max_error.max(error);
                difference.max_signal = difference.max_signal.max(expected.abs());
                difference.signal += expected * expected;
                difference.noise += error * error;
            } else if expected != actual && !(expected.is_nan() && actual.is_nan()) {
                difference.not_finite += 1;
            }
        }
        difference
    }

    fn snr_db(&self) -> f64 {
        if self.noise == 0.0 { f64::INFINITY } else { 10.0 * (self.signal / self.noise).log10() }
    }

    fn failure(&self, tolerance: &Tolerance) -> Option<String> {
        if self.not_finite > 0 {
            return Some(format!(
                "{} elements are infinite or not a number where the reference's are not, or the other way round",
                self.not_finite
            ));
        }
        if self.max_signal == 0.0 {
            let fails = self.max_error > tolerance.zero_error;
            return fails.then(|| {
                format!(
                    "the reference is all zeros, and {:.2e} is more than the {:.0e} allowed",
                    self.max_error, tolerance.zero_error
                )
            });
        }
        let snr = self.snr_db();
        (snr < tolerance.snr_db)
            .then(|| format!("{snr:.1} dB is less than the {:.0} dB that must be reached", tolerance.snr_db))
    }
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;
    use tcc_ir::Shape;

    const TOLERANCE: Tolerance = Tolerance { snr_db: 30.0, zero_error: 1e-3 };

    fn check<T: tcc_ir::Element>(expected: Vec<T>, actual: Vec<T>) -> OutputCheck {
        let tensor = |values: Vec<T>| Tensor::from_vec(Shape::vector(values.len()), values).unwrap();
        compare("y", &tensor(expected), &tensor(actual), &TOLERANCE).unwrap()
    }

    #[test]
    fn equal_outputs_have_no_noise() {
        let result = check(vec![1.0f32, f32::NAN, f32::INFINITY], vec![1.0, f32::NAN, f32::INFINITY]);
        assert_eq!((result.snr_db, result.max_error, result.failure), (f64::INFINITY, 0.0, None));
    }

    #[test]
    fn noise_is_measured_in_decibels() {
        let result = check(vec![1.0f64, 1.0], vec![1.1, 0.9]);
        assert!((result.snr_db - 20.0).abs() < 1e-9, "{}", result.snr_db);
        assert!(result.failure.is_some());
        assert!(check(vec![1.0f64, 1.0], vec![1.01, 0.99]).failure.is_none());
    }

    #[test]
    fn not_a_number_must_be_where_the_reference_has_it() {
        assert!(check(vec![1.0f32, 2.0], vec![1.0, f32::NAN]).failure.is_some());
        assert!(check(vec![1.0f32, f32::INFINITY], vec![1.0, f32::NEG_INFINITY]).failure.is_some());
    }

    #[test]
    fn a_reference_of_zeros_is_compared_by_its_errors() {
        assert!(check(vec![0.0f32; 2], vec![1e-4, 0.0]).failure.is_none());
        assert!(check(vec![0.0f32; 2], vec![1e-2, 0.0]).failure.is_some());
    }

    #[test]
    fn integers_must_be_equal() {
        assert!(check(vec![1i64 << 60], vec![(1 << 60) + 1]).failure.is_some());
        assert!(check(vec![7u8], vec![7]).failure.is_none());
    }

    #[test]
    fn types_must_be_equal() {
        let (one, two) = (Tensor::scalar(1.0f32), Tensor::scalar(1.0f64));
        assert!(compare("y", &one, &two, &TOLERANCE).unwrap().failure.is_some());
    }
}
