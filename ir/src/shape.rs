//! Static shapes: every dimension is a number, and the size in bytes is known to fit before anything is allocated.

use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::DType;

/// The largest number of elements a tensor may have: 2^40, a tebi-element.
///
/// A model that asks for more is at fault or hostile; refusing it here keeps every later size computation from
/// overflowing (2^40 elements of 8 bytes, with strides, stay far below 2^63).
pub const MAX_ELEMENTS: usize = 1 << 40;

/// Extents of a tensor, outermost first. Rank 0 is a scalar.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<usize>", into = "Vec<usize>")]
pub struct Shape(Dims);

/// Transformers have ranks of up to 4; the few greater ones lie on the heap.
type Dims = SmallVec<[usize; 4]>;

/// A shape that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// The product of the dimensions passes [`MAX_ELEMENTS`].
    #[error("shape {0:?} has more than 2^40 elements; check the dimensions of this tensor")]
    TooLarge(Vec<usize>),
    /// Two shapes that do not broadcast together.
    #[error("shapes {0} and {1} do not broadcast together; each pair of trailing dimensions must be equal or 1")]
    Broadcast(Shape, Shape),
}

impl Shape {
    /// A shape of the given extents. Fails if it has more than [`MAX_ELEMENTS`] elements.
    pub fn new(dims: impl IntoIterator<Item = usize>) -> Result<Self, ShapeError> {
        let dims: Dims = dims.into_iter().collect();
        // A zero extent makes the tensor empty, but the others must still be sane, or strides would overflow.
        let mut count = 1usize;
        for &dim in &dims {
            count = match count.checked_mul(dim.max(1)) {
                Some(count) if count <= MAX_ELEMENTS => count,
                _ => return Err(ShapeError::TooLarge(dims.to_vec())),
            };
        }
        Ok(Shape(dims))
    }

    /// The shape of a scalar: rank 0, one element.
    pub fn scalar() -> Self {
        Shape::default()
    }

    /// The shape of a vector of `len` elements. `len` is capped by [`MAX_ELEMENTS`], as the length of anything in memory is.
    pub fn vector(len: usize) -> Self {
        Shape(SmallVec::from_slice(&[len.min(MAX_ELEMENTS)]))
    }

    /// The extents, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.0
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// Number of elements: the product of the extents, 1 for a scalar.
    pub fn count(&self) -> usize {
        self.0.iter().product()
    }

    /// Distance, in elements, between neighbours along each dimension of a dense row-major tensor.
    pub fn strides(&self) -> SmallVec<[usize; 6]> {
        let mut strides = SmallVec::from_elem(1, self.rank());
        for axis in (0..self.rank().saturating_sub(1)).rev() {
            strides[axis] = strides[axis + 1] * self.0[axis + 1];
        }
        strides
    }

    /// The shape that `self` and `other` take together under NumPy's broadcasting.
    pub fn broadcast(&self, other: &Shape) -> Result<Shape, ShapeError> {
        let rank = self.rank().max(other.rank());
        let at = |shape: &Shape, axis: usize| (axis + shape.rank()).checked_sub(rank).map_or(1, |axis| shape.0[axis]);
        let mut dims = Dims::with_capacity(rank);
        for axis in 0..rank {
            dims.push(match (at(self, axis), at(other, axis)) {
                (a, b) if a == b => a,
                (1, b) => b,
                (a, 1) => a,
                _ => return Err(ShapeError::Broadcast(self.clone(), other.clone())),
            });
        }
        Shape::new(dims)
    }

    /// Whether a tensor of this shape broadcasts to exactly `target`.
    pub fn broadcasts_to(&self, target: &Shape) -> bool {
        self.broadcast(target).is_ok_and(|shape| &shape == target)
    }

    /// Strides, in elements, for reading a dense tensor of this shape as if it had `target`'s shape: 0 along broadcast
    /// dimensions. `self` must broadcast to `target`.
    pub fn broadcast_strides(&self, target: &Shape) -> SmallVec<[usize; 6]> {
        let strides = self.strides();
        let lead = target.rank() - self.rank();
        (0..target.rank())
            .map(|axis| match axis.checked_sub(lead) {
                Some(own) if self.0[own] != 1 => strides[own],
                _ => 0,
            })
            .collect()
    }

    /// Turns an axis that may count from the end into an index. `None` when out of range.
    pub fn axis(&self, axis: i64) -> Option<usize> {
        normalize_axis(axis, self.rank())
    }
}

/// Turns an axis of a tensor of `rank` dimensions that may count from the end into an index. `None` when out of range.
pub fn normalize_axis(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(axis).ok().filter(|&axis| axis < rank)
}

impl Deref for Shape {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl TryFrom<Vec<usize>> for Shape {
    type Error = ShapeError;

    fn try_from(dims: Vec<usize>) -> Result<Self, ShapeError> {
        Shape::new(dims)
    }
}

impl From<Shape> for Vec<usize> {
    fn from(shape: Shape) -> Self {
        shape.0.into_vec()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (axis, dim) in self.0.iter().enumerate() {
            if axis > 0 {
                f.write_str(",")?;
            }
            write!(f, "{dim}")?;
        }
        f.write_str("]")
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Element type and shape: all that is known of a value before it is computed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TensorType {
    /// Type of every element.
    pub dtype: DType,
    /// Extents, outermost first.
    pub shape: Shape,
}

impl TensorType {
    /// A tensor type.
    pub fn new(dtype: DType, shape: Shape) -> Self {
        TensorType { dtype, shape }
    }

    /// Bytes of a dense tensor of this type.
    pub fn bytes(&self) -> usize {
        self.dtype.bytes(self.shape.count())
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}

impl fmt::Debug for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(dims: &[usize]) -> Shape {
        Shape::new(dims.iter().copied()).unwrap_or_default()
    }

    #[test]
    fn refuses_absurd_sizes_even_when_empty() {
        assert!(Shape::new([1 << 20, 1 << 21]).is_err());
        assert!(Shape::new([0, usize::MAX]).is_err());
        assert!(Shape::new([1 << 20, 1 << 20]).is_ok());
    }

    #[test]
    fn broadcasts_as_numpy() {
        assert_eq!(shape(&[3, 1, 5]).broadcast(&shape(&[4, 1])), Ok(shape(&[3, 4, 5])));
        assert!(shape(&[3]).broadcast(&shape(&[4])).is_err());
        assert_eq!(shape(&[0]).broadcast(&shape(&[1])), Ok(shape(&[0])));
        assert_eq!(shape(&[4, 1]).broadcast_strides(&shape(&[3, 4, 5])).as_slice(), &[0, 1, 0]);
    }

    #[test]
    fn strides_are_row_major() {
        assert_eq!(shape(&[2, 3, 4]).strides().as_slice(), &[12, 4, 1]);
        assert!(Shape::scalar().strides().is_empty());
    }
}
