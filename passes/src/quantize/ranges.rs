//! What calibration learns: how large the activations are that products read.

use std::collections::BTreeMap;
use std::sync::Arc;

use tcc_ir::{AbsentData, Shape, Tensor, Values};

/// The noise, as a share of the power of what is quantised, that one scale for a whole tensor may add to its rows on
/// average. Beyond that, as where rows differ much in size, each row gets a scale of its own at run time. A thousandth
/// (30 dB) is a tenth of what is allowed to the outputs.
const MOST_NOISE: f64 = 1e-3;

/// The sizes of the activations of a graph's products, over all samples that were seen. What is counted does not depend on
/// shapes, so that samples of several lengths make one set of ranges.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ranges {
    /// The products, by the nodes of the user's model that they come from, and the ranges of their operands.
    products: Vec<(Arc<str>, [Range; 2])>,
    samples: usize,
}

/// How large one operand of a product is.
#[derive(Clone, Debug, Default, PartialEq)]
struct Range {
    /// The largest absolute value.
    largest: f32,
    /// How many rows have a mean square from 2^e on, by e.
    powers: BTreeMap<i64, u64>,
}

impl Ranges {
    /// Nothing seen yet, of products from these nodes.
    pub(super) fn new(origins: impl IntoIterator<Item = Arc<str>>) -> Self {
        let unseen = |origin| (origin, [Range::default(), Range::default()]);
        Ranges { products: origins.into_iter().map(unseen).collect(), samples: 0 }
    }

    /// How many samples they are of.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Takes in what another sample showed; `false` if it is of other products.
    #[must_use]
    pub fn merge(&mut self, other: Ranges) -> bool {
        let same = self.products.len() == other.products.len()
            && self.products.iter().zip(&other.products).all(|((origin, _), (other, _))| origin == other);
        if !same {
            return false;
        }
        self.samples += other.samples;
        for ((_, ranges), (_, others)) in self.products.iter_mut().zip(other.products) {
            ranges.iter_mut().zip(others).for_each(|(range, other)| range.merge(other));
        }
        true
    }

    /// The scales that serve the operands of a product as whole tensors, whose largest integers are given; `None` where each
    /// row needs its own.
    pub(super) fn scales(&self, product: usize, integers: [f32; 2]) -> [Option<f32>; 2] {
        // What was not seen may be larger, and is cut off if it is too large, which costs more than coarser steps. The more
        // samples there are, the less is left to be seen.
        let margin = 1.0 + 1.0 / self.samples.max(1) as f64;
        match self.products.get(product) {
            Some((_, [a, b])) => [a.scale(margin, integers[0]), b.scale(margin, integers[1])],
            None => [None; 2],
        }
    }

    /// Takes in one operand of a product, whose rows lie along `axes`.
    pub(super) fn observe(
        &mut self,
        product: usize,
        place: usize,
        tensor: &Tensor,
        axes: &[usize],
    ) -> Result<(), AbsentData> {
        self.products[product].1[place].observe(tensor, axes)
    }

    /// Counts a sample that was taken in.
    pub(super) fn seen(&mut self) {
        self.samples += 1;
    }
}

impl Range {
    fn merge(&mut self, other: Range) {
        self.largest = self.largest.max(other.largest);
        other.powers.into_iter().for_each(|(power, rows)| *self.powers.entry(power).or_default() += rows);
    }

    fn observe(&mut self, tensor: &Tensor, axes: &[usize]) -> Result<(), AbsentData> {
        let Values::F32(values) = tensor.widen()? else { return Ok(()) };
        let mut squares = vec![0f64; row_count(tensor.shape(), axes)];
        let row_of = row_strides(tensor.shape(), axes);
        let mut index = vec![0usize; tensor.shape().rank()];
        let mut row = 0usize;
        for &value in values.iter() {
            if value.is_finite() {
                self.largest = self.largest.max(value.abs());
                squares[row] += f64::from(value) * f64::from(value);
            }
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                row += row_of[axis];
                if index[axis] < tensor.shape()[axis] {
                    break;
                }
                row -= row_of[axis] * index[axis];
                index[axis] = 0;
            }
        }
        let length = (values.len() / squares.len().max(1)).max(1) as f64;
        for square in squares.into_iter().filter(|&square| square > 0.0) {
            *self.powers.entry(exponent(square / length)).or_default() += 1;
        }
        Ok(())
    }

    /// It takes `margin` times the largest value to the largest of the integers.
    fn scale(&self, margin: f64, integers: f32) -> Option<f32> {
        let scale = margin * f64::from(self.largest) / f64::from(integers);
        let rows: u64 = self.powers.values().sum();
        if scale as f32 <= f32::MIN_POSITIVE || rows == 0 {
            return None;
        }
        // Rounding to multiples of s adds noise of s²/12; a row that vanishes is all noise.
        let noise = |power: i64| (scale * scale / 12.0 / (1.5 * 2f64.powi(power as i32))).min(1.0);
        let total: f64 = self.powers.iter().map(|(&power, &rows)| noise(power) * rows as f64).sum();
        (total / rows as f64 <= MOST_NOISE).then_some(scale as f32)
    }
}

/// The exponent of the greatest power of two that is at most `x`, a positive number.
fn exponent(x: f64) -> i64 {
    (x.max(f64::MIN_POSITIVE).to_bits() >> 52) as i64 - 1023
}

fn row_count(shape: &Shape, axes: &[usize]) -> usize {
    shape.iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, &dim)| dim).product()
}

/// How far rows move on along each axis.
fn row_strides(shape: &Shape, axes: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; shape.rank()];
    let mut next = 1;
    for axis in (0..shape.rank()).rev().filter(|axis| !axes.contains(axis)) {
        strides[axis] = next;
        next *= shape[axis];
    }
    strides
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;

    fn observed(dims: &[usize], axes: &[usize], values: Vec<f32>) -> Range {
        let mut ranges = Ranges::new([Arc::from("product")]);
        let tensor = Tensor::from_vec(Shape::new(dims.iter().copied()).unwrap(), values).unwrap();
        ranges.observe(0, 0, &tensor, axes).unwrap();
        ranges.products.remove(0).1[0].clone()
    }

    #[test]
    fn rows_lie_along_the_axes() {
        let range = observed(&[2, 3], &[1], vec![1.0, 1.0, 1.0, 2.0, -2.0, 2.0]);
        assert_eq!((range.largest, &range.powers), (2.0, &BTreeMap::from([(0, 1), (2, 1)])));
        let range = observed(&[2, 3], &[0], vec![1.0, 1.0, 4.0, 1.0, 1.0, 4.0]);
        assert_eq!(range.powers, BTreeMap::from([(0, 2), (4, 1)]));
        assert_eq!(observed(&[2, 1, 2], &[0, 1, 2], vec![1.0; 4]).powers, BTreeMap::from([(0, 1)]));
    }

    #[test]
    fn rows_of_one_size_share_a_scale_and_others_do_not() {
        assert_eq!(observed(&[2, 2], &[1], vec![1.0, -127.0, 100.0, 90.0]).scale(1.0, 127.0), Some(1.0));
        assert_eq!(observed(&[2, 2], &[1], vec![1.0, -127.0, 0.1, 0.2]).scale(1.0, 127.0), None);
        // Zeros are zeros in any scale.
        assert_eq!(observed(&[2, 2], &[1], vec![1.0, -127.0, 0.0, 0.0]).scale(1.0, 127.0), Some(1.0));
        assert_eq!(observed(&[2, 2], &[1], vec![0.0; 4]).scale(1.0, 127.0), None);
        assert_eq!(observed(&[2, 2], &[1], vec![f32::NAN, 127.0, f32::INFINITY, 127.0]).scale(1.0, 127.0), Some(1.0));
    }

    #[test]
    fn samples_of_several_lengths_are_one_range() {
        let mut ranges = Ranges::new([Arc::from("product")]);
        for (rows, largest) in [(1, 1.0f32), (3, 254.0), (2, 2.0)] {
            let mut sample = Ranges::new([Arc::from("product")]);
            let tensor = Tensor::from_vec(Shape::new([rows, 2]).unwrap(), vec![largest; rows * 2]).unwrap();
            sample.observe(0, 0, &tensor, &[1]).unwrap();
            sample.seen();
            assert!(ranges.merge(sample));
        }
        assert_eq!((ranges.samples(), ranges.products[0].1[0].largest), (3, 254.0));
        assert_eq!(ranges.products[0].1[0].powers.values().sum::<u64>(), 6);
        let mut other = Ranges::new([Arc::from("another product")]);
        other.seen();
        assert!(!ranges.merge(other));
    }
}
