//! Element types of tensors: what every value in the IR is made of.
//!
//! Four-bit types are packed two to a byte, the element of lower index in the low nibble, as ONNX packs them.
//! `Bool` takes one byte that is 0 or 1.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The type of one tensor element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE 754 binary64.
    F64,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16: the upper half of a binary32.
    BF16,
    /// 8-bit float, 4 exponent and 3 mantissa bits, no infinities (`FLOAT8E4M3FN` in ONNX).
    F8E4M3,
    /// 8-bit float, 5 exponent and 2 mantissa bits (`FLOAT8E5M2` in ONNX).
    F8E5M2,
    /// Signed 64-bit integer.
    I64,
    /// Signed 32-bit integer.
    I32,
    /// Signed 16-bit integer.
    I16,
    /// Signed 8-bit integer.
    I8,
    /// Signed 4-bit integer.
    I4,
    /// Unsigned 64-bit integer.
    U64,
    /// Unsigned 32-bit integer.
    U32,
    /// Unsigned 16-bit integer.
    U16,
    /// Unsigned 8-bit integer.
    U8,
    /// Unsigned 4-bit integer.
    U4,
    /// Truth value.
    Bool,
}

/// How a [`DType`] is computed with: the four number systems of reference evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NumberClass {
    /// Computed in binary32 and rounded to the element type after every operator.
    F32,
    /// Computed in binary64.
    F64,
    /// Computed in 64-bit two's complement and wrapped to the element type.
    Signed,
    /// Computed in 64-bit unsigned arithmetic and wrapped to the element type; truth values too.
    Unsigned,
}

impl DType {
    /// All element types, widest float first.
    pub const ALL: [DType; 17] = [
        DType::F64,
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::F8E4M3,
        DType::F8E5M2,
        DType::I64,
        DType::I32,
        DType::I16,
        DType::I8,
        DType::I4,
        DType::U64,
        DType::U32,
        DType::U16,
        DType::U8,
        DType::U4,
        DType::Bool,
    ];

    /// The name used in textual IR, reports and machine files.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F64 => "f64",
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::F8E4M3 => "f8e4m3",
            DType::F8E5M2 => "f8e5m2",
            DType::I64 => "i64",
            DType::I32 => "i32",
            DType::I16 => "i16",
            DType::I8 => "i8",
            DType::I4 => "i4",
            DType::U64 => "u64",
            DType::U32 => "u32",
            DType::U16 => "u16",
            DType::U8 => "u8",
            DType::U4 => "u4",
            DType::Bool => "bool",
        }
    }

    /// Width of one element in bits.
    pub const fn bits(self) -> usize {
        match self {
            DType::F64 | DType::I64 | DType::U64 => 64,
            DType::F32 | DType::I32 | DType::U32 => 32,
            DType::F16 | DType::BF16 | DType::I16 | DType::U16 => 16,
            DType::F8E4M3 | DType::F8E5M2 | DType::I8 | DType::U8 | DType::Bool => 8,
            DType::I4 | DType::U4 => 4,
        }
    }

    /// Bytes that `count` elements take when stored densely. `None` if the size does not fit in 64 bits.
    pub const fn checked_bytes(self, count: usize) -> Option<usize> {
        match count.checked_mul(self.bits()) {
            Some(bits) => Some(bits.div_ceil(8)),
            None => None,
        }
    }

    /// Bytes that `count` elements take when stored densely.
    ///
    /// `count` must come from a [`Shape`](crate::Shape), whose constructor has checked that this cannot overflow.
    pub const fn bytes(self, count: usize) -> usize {
        (count * self.bits()).div_ceil(8)
    }

    /// Whether this is a floating-point type.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F64 | DType::F32 | DType::F16 | DType::BF16 | DType::F8E4M3 | DType::F8E5M2)
    }

    /// Whether this is an integer type; truth values are not.
    pub const fn is_integer(self) -> bool {
        !self.is_float() && !matches!(self, DType::Bool)
    }

    /// Whether this is an integer type with a sign.
    pub const fn is_signed(self) -> bool {
        matches!(self, DType::I64 | DType::I32 | DType::I16 | DType::I8 | DType::I4)
    }

    /// The number system in which the reference evaluator computes with this type.
    pub const fn class(self) -> NumberClass {
        match self {
            DType::F64 => NumberClass::F64,
            DType::F32 | DType::F16 | DType::BF16 | DType::F8E4M3 | DType::F8E5M2 => NumberClass::F32,
            DType::I64 | DType::I32 | DType::I16 | DType::I8 | DType::I4 => NumberClass::Signed,
            DType::U64 | DType::U32 | DType::U16 | DType::U8 | DType::U4 | DType::Bool => NumberClass::Unsigned,
        }
    }

    /// Least and greatest value of an integer type. `None` for floats and truth values.
    pub const fn integer_range(self) -> Option<(i128, i128)> {
        if !self.is_integer() {
            return None;
        }
        let bits = self.bits() as u32;
        Some(if self.is_signed() {
            (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1)
        } else {
            (0, (1i128 << bits) - 1)
        })
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is not an element type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an element type; expected one of f64 f32 f16 bf16 f8e4m3 f8e5m2 i64 i32 i16 i8 i4 u64 u32 u16 u8 u4 bool"
)]
pub struct UnknownDType(pub String);

impl FromStr for DType {
    type Err = UnknownDType;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        DType::ALL.into_iter().find(|dtype| dtype.name() == name).ok_or_else(|| UnknownDType(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for dtype in DType::ALL {
            assert_eq!(dtype.name().parse::<DType>(), Ok(dtype));
        }
        assert!("float".parse::<DType>().is_err());
    }

    #[test]
    fn packed_sizes_round_up() {
        assert_eq!(DType::I4.bytes(3), 2);
        assert_eq!(DType::F16.bytes(3), 6);
        assert_eq!(DType::F64.checked_bytes(usize::MAX), None);
    }

    #[test]
    fn integer_ranges() {
        assert_eq!(DType::I4.integer_range(), Some((-8, 7)));
        assert_eq!(DType::U8.integer_range(), Some((0, 255)));
        assert_eq!(DType::Bool.integer_range(), None);
    }
}
