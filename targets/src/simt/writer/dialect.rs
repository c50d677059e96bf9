//! What OpenCL C and CUDA C++ say differently.

use tcc_ir::DType;

use crate::simt::kernel::{Scalar, Shared};

/// A language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    OpenCl,
}

impl Dialect {
    /// The type of a register.
    pub fn scalar(self, scalar: Scalar) -> &'static str {
        match (self, scalar) {
            (_, Scalar::I32) => "int",
            (Dialect::OpenCl, Scalar::U32) => "uint",
            (Dialect::OpenCl, Scalar::I64) => "long",
            (Dialect::OpenCl, Scalar::U64) => "ulong",
            (_, Scalar::F32) => "float",
            (_, Scalar::F64) => "double",
        }
    }

    /// The type of elements in memory.
    pub fn stored(self, dtype: DType) -> &'static str {
        match (self, dtype) {
            (_, DType::F64) => "double",
            (_, DType::F32) => "float",
            (Dialect::OpenCl, DType::F16) => "half",
            (Dialect::OpenCl, DType::BF16 | DType::U16) => "ushort",
            (Dialect::OpenCl, DType::F8E4M3 | DType::F8E5M2 | DType::U8 | DType::Bool | DType::I4 | DType::U4) => {
                "uchar"
            }
            (Dialect::OpenCl, DType::I64) => "long",
            (_, DType::I32) => "int",
            (_, DType::I16) => "short",
            (Dialect::OpenCl, DType::I8) => "char",
            (Dialect::OpenCl, DType::U64) => "ulong",
            (Dialect::OpenCl, DType::U32) => "uint",
        }
    }

    /// The type of elements in an array in shared memory. Where halves are no type of their own, their bits lie there.
    pub fn shared(self, dtype: DType) -> &'static str {
        match (self, dtype) {
            (Dialect::OpenCl, DType::F16) => self.stored(DType::U16),
            (Dialect::OpenCl, _) => self.stored(dtype),
        }
    }

    /// What an array in shared memory is accessed by.
    pub fn shared_name(self, shared: &Shared) -> String {
        match (self, shared.dtype) {
            (Dialect::OpenCl, DType::F16) => format!("(__local half *){}", shared.name),
            (Dialect::OpenCl, _) => shared.name.clone(),
        }
    }

    /// What an array that is held as it was loaded is read by.
    pub fn packed_name(self, dtype: DType, name: &str) -> String {
        match (self, dtype) {
            (Dialect::OpenCl, DType::F16) => format!("(const half *){name}"),
            (Dialect::OpenCl, _) => name.to_owned(),
        }
    }

    /// The type of numbers without sign that are as wide as those of a register.
    pub fn unsigned(self, scalar: Scalar) -> &'static str {
        match scalar {
            Scalar::I64 | Scalar::U64 => self.scalar(Scalar::U64),
            _ => self.scalar(Scalar::U32),
        }
    }

    /// A number of a register's type as a literal.
    pub fn literal(self, dtype: DType, bits: u64) -> String {
        let scalar = Scalar::of(dtype);
        match scalar {
            Scalar::F32 => {
                let value = f64::from_bits(bits) as f32;
                match value {
                    _ if value.is_nan() => "NAN".to_owned(),
                    f32::INFINITY => "INFINITY".to_owned(),
                    f32::NEG_INFINITY => "-INFINITY".to_owned(),
                    _ => format!("{value:?}f"),
                }
            }
            Scalar::F64 => {
                let value = f64::from_bits(bits);
                match value {
                    _ if value.is_nan() => "(double)NAN".to_owned(),
                    f64::INFINITY => "(double)INFINITY".to_owned(),
                    f64::NEG_INFINITY => "-(double)INFINITY".to_owned(),
                    _ => format!("{value:?}"),
                }
            }
            Scalar::I32 => match bits as i64 {
                least if least == i64::from(i32::MIN) => "(-2147483647 - 1)".to_owned(),
                value => value.to_string(),
            },
            Scalar::I64 => match bits as i64 {
                i64::MIN => "(-9223372036854775807L - 1)".to_owned(),
                value => format!("{value}L"),
            },
            Scalar::U32 => format!("{}u", bits as u32),
            Scalar::U64 => format!("{bits}UL"),
        }
    }
}
