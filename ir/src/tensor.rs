//! Tensors with values: constants of a model, inputs and outputs of evaluation.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytemuck::Pod;
use float8::{F8E4M3, F8E5M2};
use half::{bf16, f16};
use rayon::prelude::*;

use crate::data::AbsentData;
use crate::dtype::NumberClass;
use crate::{DType, Data, Shape, TensorType};

/// A dense row-major tensor. Cloning shares it: passes hand constants on from graph to graph.
#[derive(Clone)]
pub struct Tensor(Arc<Contents>);

struct Contents {
    ty: TensorType,
    data: Data,
}

/// Why a tensor cannot be made or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The bytes given are not as many as the type takes.
    #[error("{ty} takes {expected} bytes, but {actual} were given")]
    Size {
        /// Declared type.
        ty: TensorType,
        /// Bytes that type takes.
        expected: usize,
        /// Bytes given.
        actual: usize,
    },
    /// The values are needed but were not loaded.
    #[error(transparent)]
    Absent(#[from] AbsentData),
}

/// A native Rust type that holds exactly one [`DType`].
pub trait Element: Pod + Send + Sync {
    /// The element type it holds.
    const DTYPE: DType;
}

macro_rules! elements {
    ($($native:ty => $dtype:ident),* $(,)?) => {
        $(impl Element for $native { const DTYPE: DType = DType::$dtype; })*
    };
}

elements! {
    f64 => F64, f32 => F32, f16 => F16, bf16 => BF16,
    i64 => I64, i32 => I32, i16 => I16, i8 => I8,
    u64 => U64, u32 => U32, u16 => U16, u8 => U8,
}

/// A tensor's elements in the number system that its type is computed in, see [`DType::class`].
#[derive(Debug, Clone)]
pub enum Values<'a> {
    /// Floats of at most 32 bits.
    F32(Cow<'a, [f32]>),
    /// 64-bit floats.
    F64(Cow<'a, [f64]>),
    /// Signed integers.
    Signed(Cow<'a, [i64]>),
    /// Unsigned integers and truth values (0 or 1).
    Unsigned(Cow<'a, [u64]>),
}

impl Values<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Values::F32(v) => v.len(),
            Values::F64(v) => v.len(),
            Values::Signed(v) => v.len(),
            Values::Unsigned(v) => v.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Tensor {
    fn of(ty: TensorType, data: Data) -> Self {
        Tensor(Arc::new(Contents { ty, data }))
    }

    /// A tensor over existing bytes. Fails when their number is not what `ty` takes.
    pub fn new(ty: TensorType, data: Data) -> Result<Self, TensorError> {
        if ty.bytes() == data.len() {
            Ok(Tensor::of(ty, data))
        } else {
            Err(TensorError::Size { expected: ty.bytes(), actual: data.len(), ty })
        }
    }

    /// A tensor that takes over `elements`. Fails when their number is not what `shape` holds.
    pub fn from_vec<T: Element>(shape: Shape, elements: Vec<T>) -> Result<Self, TensorError> {
        Tensor::new(TensorType::new(T::DTYPE, shape), Data::from_elements(elements))
    }

    /// A scalar.
    pub fn scalar<T: Element>(value: T) -> Self {
        Tensor::of(TensorType::new(T::DTYPE, Shape::scalar()), Data::from_elements(vec![value]))
    }

    /// A vector of 64-bit integers, as shape operands are.
    pub fn vector_i64(values: Vec<i64>) -> Self {
        Tensor::of(TensorType::new(DType::I64, Shape::vector(values.len())), Data::from_elements(values))
    }

    /// A vector of truth values.
    pub fn from_bools(shape: Shape, values: Vec<bool>) -> Result<Self, TensorError> {
        let bytes = values.into_iter().map(u8::from).collect();
        Tensor::new(TensorType::new(DType::Bool, shape), Data::from_bytes(bytes))
    }

    /// A scalar of any type, from a number that is rounded to it.
    pub fn scalar_of(dtype: DType, value: f64) -> Self {
        let values = match dtype.class() {
            NumberClass::F32 => Values::F32(Cow::Owned(vec![value as f32])),
            NumberClass::F64 => Values::F64(Cow::Owned(vec![value])),
            NumberClass::Signed => Values::Signed(Cow::Owned(vec![value as i64])),
            NumberClass::Unsigned => Values::Unsigned(Cow::Owned(vec![value as u64])),
        };
        Tensor::narrow(TensorType::new(dtype, Shape::scalar()), values)
    }

    /// Element type and shape.
    pub fn ty(&self) -> &TensorType {
        &self.0.ty
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.0.ty.dtype
    }

    /// Extents.
    pub fn shape(&self) -> &Shape {
        &self.0.ty.shape
    }

    /// The bytes, shared.
    pub fn data(&self) -> &Data {
        &self.0.data
    }

    /// The bytes themselves.
    pub fn bytes(&self) -> Result<&[u8], AbsentData> {
        self.0.data.bytes()
    }

    /// The same elements under another shape of as many elements, without a copy.
    pub fn reshaped(&self, shape: Shape) -> Result<Self, TensorError> {
        Tensor::new(TensorType::new(self.dtype(), shape), self.0.data.clone())
    }

    /// The elements as a slice of their native type, without a copy where alignment allows.
    ///
    /// Panics never; a `T` of another width than the tensor's type gives the bytes reinterpreted, so callers match on
    /// [`Tensor::dtype`] first.
    pub fn elements<T: Pod>(&self) -> Result<Cow<'_, [T]>, AbsentData> {
        let bytes = self.0.data.bytes()?;
        Ok(match bytemuck::try_cast_slice(bytes) {
            Ok(slice) => Cow::Borrowed(slice),
            Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(bytes)),
        })
    }

    /// All elements in the number system of their class: borrowed for f32, f64, i64 and u64, converted otherwise.
    pub fn widen(&self) -> Result<Values<'_>, AbsentData> {
        fn convert<S: Pod + Sync, D: Send>(slice: &[S], f: impl Fn(S) -> D + Sync + Send) -> Vec<D> {
            slice.par_iter().with_min_len(PARALLEL_GRAIN).map(|&x| f(x)).collect()
        }
        Ok(match self.dtype() {
            DType::F64 => Values::F64(self.elements()?),
            DType::F32 => Values::F32(self.elements()?),
            DType::F16 => Values::F32(Cow::Owned(convert(&self.elements::<f16>()?, f16::to_f32))),
            DType::BF16 => Values::F32(Cow::Owned(convert(&self.elements::<bf16>()?, bf16::to_f32))),
            DType::F8E4M3 => Values::F32(Cow::Owned(convert(self.bytes()?, |b| F8E4M3::from_bits(b).to_f32()))),
            DType::F8E5M2 => Values::F32(Cow::Owned(convert(self.bytes()?, |b| F8E5M2::from_bits(b).to_f32()))),
            DType::I64 => Values::Signed(self.elements()?),
            DType::I32 => Values::Signed(Cow::Owned(convert(&self.elements::<i32>()?, i64::from))),
            DType::I16 => Values::Signed(Cow::Owned(convert(&self.elements::<i16>()?, i64::from))),
            DType::I8 => Values::Signed(Cow::Owned(convert(&self.elements::<i8>()?, i64::from))),
            DType::I4 => Values::Signed(Cow::Owned(
                self.nibbles()?.map(|nibble| i64::from(((nibble << 4) as i8) >> 4)).collect(),
            )),
            DType::U64 => Values::Unsigned(self.elements()?),
            DType::U32 => Values::Unsigned(Cow::Owned(convert(&self.elements::<u32>()?, u64::from))),
            DType::U16 => Values::Unsigned(Cow::Owned(convert(&self.elements::<u16>()?, u64::from))),
            DType::U8 => Values::Unsigned(Cow::Owned(convert(self.bytes()?, u64::from))),
            DType::U4 => Values::Unsigned(Cow::Owned(self.nibbles()?.map(u64::from).collect())),
            DType::Bool => Values::Unsigned(Cow::Owned(convert(self.bytes()?, |b| u64::from(b != 0)))),
        })
    }

    fn nibbles(&self) -> Result<impl Iterator<Item = u8> + '_, AbsentData> {
        let bytes = self.bytes()?;
        Ok((0..self.shape().count()).map(move |i| (bytes[i / 2] >> (4 * (i % 2))) & 0xf))
    }

    /// Rounds (floats, to nearest even) or wraps (integers) values to the element type of `ty`.
    ///
    /// `values` must be of `ty`'s class and count; the operators that call this have computed them to be.
    pub fn narrow(ty: TensorType, values: Values<'_>) -> Self {
        fn convert<S: Copy + Sync, D: Pod + Send>(slice: &[S], f: impl Fn(S) -> D + Sync + Send) -> Data {
            Data::from_elements(slice.par_iter().with_min_len(PARALLEL_GRAIN).map(|&x| f(x)).collect::<Vec<D>>())
        }
        fn pack(nibbles: impl Iterator<Item = u8>, count: usize) -> Data {
            let mut bytes = vec![0u8; count.div_ceil(2)];
            for (i, nibble) in nibbles.enumerate() {
                bytes[i / 2] |= (nibble & 0xf) << (4 * (i % 2));
            }
            Data::from_bytes(bytes)
        }
        let count = ty.shape.count();
        debug_assert_eq!(values.len(), count, "{ty}");
        let data = match (ty.dtype, values) {
            (DType::F64, Values::F64(v)) => Data::from_elements(v.into_owned()),
            (DType::F32, Values::F32(v)) => Data::from_elements(v.into_owned()),
            (DType::F16, Values::F32(v)) => convert(&v, f16::from_f32),
            (DType::BF16, Values::F32(v)) => convert(&v, bf16::from_f32),
            (DType::F8E4M3, Values::F32(v)) => convert(&v, |x| F8E4M3::from_f32(x).to_bits()),
            (DType::F8E5M2, Values::F32(v)) => convert(&v, |x| F8E5M2::from_f32(x).to_bits()),
            (DType::I64, Values::Signed(v)) => Data::from_elements(v.into_owned()),
            (DType::I32, Values::Signed(v)) => convert(&v, |x| x as i32),
            (DType::I16, Values::Signed(v)) => convert(&v, |x| x as i16),
            (DType::I8, Values::Signed(v)) => convert(&v, |x| x as i8),
            (DType::I4, Values::Signed(v)) => pack(v.iter().map(|&x| x as u8), count),
            (DType::U64, Values::Unsigned(v)) => Data::from_elements(v.into_owned()),
            (DType::U32, Values::Unsigned(v)) => convert(&v, |x| x as u32),
            (DType::U16, Values::Unsigned(v)) => convert(&v, |x| x as u16),
            (DType::U8, Values::Unsigned(v)) => convert(&v, |x| x as u8),
            (DType::U4, Values::Unsigned(v)) => pack(v.iter().map(|&x| x as u8), count),
            (DType::Bool, Values::Unsigned(v)) => convert(&v, |x| u8::from(x != 0)),
            (dtype, values) => unreachable!("values {values:?} are not of the class of {dtype}"),
        };
        Tensor::of(ty, data)
    }

    /// All elements as 64-bit integers: an index or shape operand. `None` for floats.
    pub fn to_i64s(&self) -> Result<Option<Vec<i64>>, AbsentData> {
        Ok(match self.widen()? {
            Values::Signed(v) => Some(v.into_owned()),
            Values::Unsigned(v) => Some(v.iter().map(|&x| i64::try_from(x).unwrap_or(i64::MAX)).collect()),
            Values::F32(_) | Values::F64(_) => None,
        })
    }

    /// All elements as binary64; 64-bit integers above 2^53 are rounded.
    pub fn to_f64s(&self) -> Result<Vec<f64>, AbsentData> {
        Ok(match self.widen()? {
            Values::F32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Values::F64(v) => v.into_owned(),
            Values::Signed(v) => v.iter().map(|&x| x as f64).collect(),
            Values::Unsigned(v) => v.iter().map(|&x| x as f64).collect(),
        })
    }
}

/// Fewest elements that are worth handing to another thread.
pub const PARALLEL_GRAIN: usize = 16 * 1024;

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.ty)?;
        if self.shape().count() <= 16
            && let Ok(values) = self.to_f64s()
        {
            write!(f, " {values:?}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_round_trips_small_integers() {
        for dtype in DType::ALL {
            let ty = TensorType::new(dtype, Shape::vector(3));
            let one = Tensor::scalar_of(dtype, 1.0);
            assert_eq!(one.to_f64s().ok(), Some(vec![1.0]), "{dtype}");
            let values = match dtype.class() {
                NumberClass::F32 => Values::F32(vec![0.0, 1.0, 1.0].into()),
                NumberClass::F64 => Values::F64(vec![0.0, 1.0, 1.0].into()),
                NumberClass::Signed => Values::Signed(vec![0, 1, 1].into()),
                NumberClass::Unsigned => Values::Unsigned(vec![0, 1, 1].into()),
            };
            assert_eq!(Tensor::narrow(ty, values).to_f64s().ok(), Some(vec![0.0, 1.0, 1.0]), "{dtype}");
        }
    }

    #[test]
    fn four_bit_values_keep_their_sign() {
        let ty = TensorType::new(DType::I4, Shape::vector(3));
        let tensor = Tensor::narrow(ty, Values::Signed(vec![-8, 7, -1].into()));
        assert_eq!(tensor.bytes().ok(), Some(&[0x78, 0x0f][..]));
        assert_eq!(tensor.to_i64s().ok().flatten(), Some(vec![-8, 7, -1]));
    }
}
