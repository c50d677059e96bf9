//! `TensorProto` to [`Tensor`]: every encoding that ONNX has for tensors, and external data.
//!
//! Bytes are moved out of the protobuf or mapped from their file, never copied. Sizes are checked against the declared
//! type before anything is allocated.

use onnx_protobuf::TensorProto;
use onnx_protobuf::tensor_proto::DataLocation;
use tcc_ir::{DType, Data, OutsideFile, Shape, ShapeError, Tensor, TensorError, TensorType};

use super::error::shown;
use super::external::{ExternalError, ExternalFiles};

/// Whether the values of weights are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// All values are there.
    #[default]
    Load,
    /// Only types are known of large tensors, and their files need not exist. Small ones, and the 32- and 64-bit integers
    /// that shape arithmetic is made of, are loaded where their file is there.
    Absent,
}

/// With [`Weights::Absent`], tensors of more bytes than this lose their values.
const KEPT_BYTES: usize = 4 << 10;

/// Why a tensor of a model cannot be read.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("tensor `{name}`: {problem}")]
pub struct WeightError {
    /// Name of the tensor.
    pub name: String,
    /// What is wrong with it.
    pub problem: WeightProblem,
}

/// What can be wrong with a tensor.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WeightProblem {
    /// An element type that tcc does not have.
    #[error("{0} elements are not supported; convert the model to a type that is")]
    Unsupported(String),
    /// A dimension below zero.
    #[error("dimension {0} is negative; the file is damaged")]
    NegativeDim(i64),
    /// A shape that cannot be.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// Values and type disagree.
    #[error("{0}; the file is damaged")]
    Size(#[from] TensorError),
    /// Values are not stored in the field for their type.
    #[error("{ty} takes {expected} values in `{field}`, but there are {actual}; the file is damaged")]
    Count {
        /// Type of the tensor.
        ty: TensorType,
        /// The field that holds values of that type.
        field: &'static str,
        /// Values that the type takes.
        expected: usize,
        /// Values that are there.
        actual: usize,
    },
    /// A value does not fit its type.
    #[error("value {value} does not fit {dtype}; the file is damaged")]
    Range {
        /// The value.
        value: i32,
        /// The type.
        dtype: DType,
    },
    /// A tensor in segments.
    #[error("it is stored in segments, which is not supported; save the model again with a current version of onnx")]
    Segment,
    /// A sparse tensor.
    #[error("sparse tensors are not supported; convert it to a dense initializer")]
    Sparse,
    /// An entry of the external location is wrong.
    #[error("the entry `{key}` of its external location is `{value}`, which is not {expected}")]
    Location {
        /// Key of the entry.
        key: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        expected: String,
    },
    /// The external file cannot be used.
    #[error(transparent)]
    External(#[from] ExternalError),
    /// The data lies outside its external file.
    #[error("in its external file `{location}`, {error}; the file is cut off or belongs to another model")]
    OutsideFile {
        /// The file.
        location: String,
        /// Which bytes.
        error: OutsideFile,
    },
}

/// The element type that ONNX numbers `data_type`.
pub fn dtype(data_type: i32) -> Result<DType, WeightProblem> {
    let unsupported = match data_type {
        1 => return Ok(DType::F32),
        2 => return Ok(DType::U8),
        3 => return Ok(DType::I8),
        4 => return Ok(DType::U16),
        5 => return Ok(DType::I16),
        6 => return Ok(DType::I32),
        7 => return Ok(DType::I64),
        9 => return Ok(DType::Bool),
        10 => return Ok(DType::F16),
        11 => return Ok(DType::F64),
        12 => return Ok(DType::U32),
        13 => return Ok(DType::U64),
        16 => return Ok(DType::BF16),
        17 => return Ok(DType::F8E4M3),
        19 => return Ok(DType::F8E5M2),
        21 => return Ok(DType::U4),
        22 => return Ok(DType::I4),
        0 => "undefined",
        8 => "string",
        14 => "complex64",
        15 => "complex128",
        18 => "float8e4m3fnuz",
        20 => "float8e5m2fnuz",
        23 => "float4e2m1",
        24 => "float8e8m0",
        25 => "uint2",
        26 => "int2",
        other => return Err(WeightProblem::Unsupported(format!("type {other}"))),
    };
    Err(WeightProblem::Unsupported(unsupported.to_owned()))
}

/// Reads a tensor. Its values are moved out of `proto`.
pub fn read(proto: &mut TensorProto, files: &mut ExternalFiles, weights: Weights) -> Result<Tensor, WeightError> {
    read_unnamed(proto, files, weights).map_err(|problem| WeightError { name: shown(&proto.name), problem })
}

fn read_unnamed(proto: &mut TensorProto, files: &mut ExternalFiles, weights: Weights) -> Result<Tensor, WeightProblem> {
    if proto.segment.is_some() {
        return Err(WeightProblem::Segment);
    }
    let dtype = dtype(proto.data_type)?;
    let dims = proto.dims.iter().map(|&dim| usize::try_from(dim).map_err(|_| WeightProblem::NegativeDim(dim)));
    let shape = Shape::new(dims.collect::<Result<Vec<_>, _>>()?)?;
    let ty = TensorType::new(dtype, shape);
    let may_be_absent =
        weights == Weights::Absent && ty.bytes() > KEPT_BYTES && !matches!(dtype, DType::I64 | DType::I32);
    if may_be_absent {
        proto.raw_data = Vec::new();
        let len = ty.bytes();
        return Ok(Tensor::new(ty, Data::absent(len))?);
    }
    let data = if proto.data_location.enum_value() == Ok(DataLocation::EXTERNAL) {
        match external(proto, files, &ty) {
            Err(WeightProblem::External(ExternalError::Missing(_))) if weights == Weights::Absent => {
                Data::absent(ty.bytes())
            }
            other => other?,
        }
    } else if !proto.raw_data.is_empty() {
        Data::from_bytes(std::mem::take(&mut proto.raw_data))
    } else {
        typed(proto, &ty)?
    };
    let data = if dtype == DType::Bool { zero_or_one(data) } else { data };
    Ok(Tensor::new(ty, data)?)
}

/// Truth values are 0 or 1 in the IR; other bytes, which no exporter writes, mean true.
fn zero_or_one(data: Data) -> Data {
    match data.bytes() {
        Ok(bytes) if bytes.iter().any(|&byte| byte > 1) => {
            Data::from_bytes(bytes.iter().map(|&byte| u8::from(byte != 0)).collect())
        }
        _ => data,
    }
}

fn external(proto: &TensorProto, files: &mut ExternalFiles, ty: &TensorType) -> Result<Data, WeightProblem> {
    let entry = |key: &str| proto.external_data.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str());
    let number = |key: &'static str| {
        entry(key).map(|value| {
            value.parse::<usize>().map_err(|_| WeightProblem::Location {
                key,
                value: shown(value),
                expected: "a number of bytes".to_owned(),
            })
        })
    };
    let location = entry("location").unwrap_or_default();
    let offset = number("offset").transpose()?.unwrap_or(0);
    let length = number("length").transpose()?.unwrap_or(ty.bytes());
    if length != ty.bytes() {
        return Err(WeightProblem::Location {
            key: "length",
            value: length.to_string(),
            expected: format!("the {} bytes that {ty} takes", ty.bytes()),
        });
    }
    let file = files.open(location)?;
    Data::mapped(file, offset, length).map_err(|error| WeightProblem::OutsideFile { location: shown(location), error })
}

/// Values in the field for their type, which older exporters and small tensors use.
fn typed(proto: &mut TensorProto, ty: &TensorType) -> Result<Data, WeightProblem> {
    let count = ty.shape.count();
    let check = |field: &'static str, expected: usize, actual: usize| {
        if expected == actual { Ok(()) } else { Err(WeightProblem::Count { ty: ty.clone(), field, expected, actual }) }
    };
    Ok(match ty.dtype {
        DType::F32 => {
            check("float_data", count, proto.float_data.len())?;
            Data::from_elements(std::mem::take(&mut proto.float_data))
        }
        DType::F64 => {
            check("double_data", count, proto.double_data.len())?;
            Data::from_elements(std::mem::take(&mut proto.double_data))
        }
        DType::I64 => {
            check("int64_data", count, proto.int64_data.len())?;
            Data::from_elements(std::mem::take(&mut proto.int64_data))
        }
        DType::U64 => {
            check("uint64_data", count, proto.uint64_data.len())?;
            Data::from_elements(std::mem::take(&mut proto.uint64_data))
        }
        DType::U32 => {
            check("uint64_data", count, proto.uint64_data.len())?;
            Data::from_elements(proto.uint64_data.iter().map(|&value| value as u32).collect::<Vec<_>>())
        }
        _ => {
            // Two 4-bit elements share one entry, in its low byte.
            let entries = if ty.dtype.bits() == 4 { count.div_ceil(2) } else { count };
            check("int32_data", entries, proto.int32_data.len())?;
            let values = std::mem::take(&mut proto.int32_data);
            let bits = ty.dtype.bits().max(8) as u32;
            if let Some(&value) = values.iter().find(|&&value| !fits(value, bits)) {
                return Err(WeightProblem::Range { value, dtype: ty.dtype });
            }
            match ty.dtype {
                DType::I32 => Data::from_elements(values),
                DType::F16 | DType::BF16 | DType::I16 | DType::U16 => {
                    Data::from_elements(elements(&values, |v| v as u16))
                }
                _ => Data::from_bytes(elements(&values, |v| v as u8)),
            }
        }
    })
}

fn elements<T>(values: &[i32], convert: impl Fn(i32) -> T) -> Vec<T> {
    values.iter().map(|&value| convert(value)).collect()
}

/// Whether a value fits `bits` bits, as a number with or without a sign: writers use both for patterns.
fn fits(value: i32, bits: u32) -> bool {
    bits >= 32 || (i64::from(value) >= -(1 << (bits - 1)) && i64::from(value) < 1 << bits)
}
