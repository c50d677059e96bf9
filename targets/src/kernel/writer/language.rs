//! Languages that kernels are written in: what differs between them in expressions.

use std::borrow::Cow;

use tcc_ir::DType;

use crate::kernel::Scalar;

/// A language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    /// OpenCL C 1.2.
    OpenCl,
    /// CUDA C++17.
    Cuda,
    /// C++ for high-level synthesis. Elements that are no type of the language are kept as their bits.
    Hls,
}

/// Words of OpenCL C that CUDA C++ has others for.
const WORDS_OF_CUDA: [(&str, &str); 12] = [
    ("inline", "__device__ inline"),
    ("uchar", "unsigned char"),
    ("ushort", "unsigned short"),
    ("uint", "unsigned"),
    ("ulong", "unsigned long long"),
    ("long", "long long"),
    ("0UL", "0ULL"),
    ("0L", "0LL"),
    ("63L", "63LL"),
    ("0xffffffffUL", "0xffffffffULL"),
    ("as_float", "__uint_as_float"),
    ("as_uint", "__float_as_uint"),
];

/// Words of OpenCL C that C++ has others for.
const WORDS_OF_HLS: [(&str, &str); 20] = [
    ("uchar", "uint8_t"),
    ("ushort", "uint16_t"),
    ("uint", "unsigned"),
    ("ulong", "unsigned long long"),
    ("long", "long long"),
    ("0UL", "0ULL"),
    ("0L", "0LL"),
    ("63L", "63LL"),
    ("0xffffffffUL", "0xffffffffULL"),
    ("as_float", "float_of_bits"),
    ("as_uint", "bits_of_float"),
    ("fabs", "std::fabs"),
    ("fmod", "std::fmod"),
    ("ilogb", "std::ilogb"),
    ("isfinite", "std::isfinite"),
    ("isinf", "std::isinf"),
    ("isnan", "std::isnan"),
    ("ldexp", "std::ldexp"),
    ("rint", "std::rint"),
    ("signbit", "std::signbit"),
];

impl Language {
    /// The type of a register.
    pub fn scalar(self, scalar: Scalar) -> &'static str {
        match (self, scalar) {
            (_, Scalar::I32) => "int",
            (Language::OpenCl, Scalar::U32) => "uint",
            (Language::OpenCl, Scalar::I64) => "long",
            (Language::OpenCl, Scalar::U64) => "ulong",
            (Language::Cuda | Language::Hls, Scalar::U32) => "unsigned",
            (Language::Cuda | Language::Hls, Scalar::I64) => "long long",
            (Language::Cuda | Language::Hls, Scalar::U64) => "unsigned long long",
            (_, Scalar::F32) => "float",
            (_, Scalar::F64) => "double",
        }
    }

    /// The type of elements in memory.
    pub fn stored(self, dtype: DType) -> &'static str {
        match (self, dtype) {
            (_, DType::F64) => "double",
            (_, DType::F32) => "float",
            (_, DType::I32) => "int",
            (_, DType::I16) => "short",
            (Language::OpenCl, DType::F16) => "half",
            (Language::OpenCl, DType::BF16 | DType::U16) => "ushort",
            (Language::OpenCl, DType::F8E4M3 | DType::F8E5M2 | DType::U8 | DType::Bool | DType::I4 | DType::U4) => {
                "uchar"
            }
            (Language::OpenCl, DType::I64) => "long",
            (Language::OpenCl, DType::I8) => "char",
            (Language::OpenCl, DType::U64) => "ulong",
            (Language::OpenCl, DType::U32) => "uint",
            (Language::Cuda, DType::F16) => "__half",
            (Language::Cuda, DType::BF16) => "__nv_bfloat16",
            (Language::Cuda, DType::U16) => "unsigned short",
            (Language::Cuda, DType::F8E4M3 | DType::F8E5M2 | DType::U8 | DType::Bool | DType::I4 | DType::U4) => {
                "unsigned char"
            }
            (Language::Cuda, DType::I8) => "signed char",
            (Language::Cuda | Language::Hls, DType::I64) => "long long",
            (Language::Cuda | Language::Hls, DType::U64) => "unsigned long long",
            (Language::Cuda | Language::Hls, DType::U32) => "unsigned",
            (Language::Hls, DType::F16 | DType::BF16 | DType::U16) => "uint16_t",
            (Language::Hls, DType::F8E4M3 | DType::F8E5M2 | DType::U8) => "uint8_t",
            (Language::Hls, DType::I8) => "int8_t",
            (Language::Hls, DType::Bool) => "bool",
            (Language::Hls, DType::I4) => "ap_int<4>",
            (Language::Hls, DType::U4) => "ap_uint<4>",
        }
    }

    /// The type of numbers without sign that are as wide as those of a register.
    pub fn unsigned(self, scalar: Scalar) -> &'static str {
        match scalar {
            Scalar::I64 | Scalar::U64 => self.scalar(Scalar::U64),
            _ => self.scalar(Scalar::U32),
        }
    }

    /// A function of the language's library of mathematics.
    pub fn math(self, name: &'static str) -> Cow<'static, str> {
        match self {
            Language::OpenCl | Language::Cuda => Cow::Borrowed(name),
            Language::Hls => Cow::Owned(format!("std::{name}")),
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
                i64::MIN => format!("(-9223372036854775807{} - 1)", self.long()),
                value => format!("{value}{}", self.long()),
            },
            Scalar::U32 => format!("{}u", bits as u32),
            Scalar::U64 => format!("{bits}U{}", self.long()),
        }
    }

    /// What ends literals of 64 bits.
    fn long(self) -> &'static str {
        match self {
            Language::OpenCl => "L",
            Language::Cuda | Language::Hls => "LL",
        }
    }

    /// A function that was written in OpenCL C, word by word.
    pub fn translated(self, text: &str) -> String {
        let words: &[(&str, &str)] = match self {
            Language::OpenCl => return text.to_owned(),
            Language::Cuda => &WORDS_OF_CUDA,
            Language::Hls => &WORDS_OF_HLS,
        };
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let mut out = String::new();
        // Addresses are of one kind.
        let text = text.replace("__global ", "");
        let mut rest = text.as_str();
        while let Some(first) = rest.chars().next() {
            let length =
                if is_part(first) { rest.find(|c| !is_part(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
            let (word, after) = rest.split_at(length);
            out.push_str(words.iter().find(|(own, _)| *own == word).map_or(word, |(_, other)| other));
            rest = after;
        }
        out
    }
}
