//! NumPy's `.npy` format: one array, a short header in Python's syntax before its values.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

use tcc_ir::{DType, Data, Shape, Tensor, TensorType, Values};

use super::error::{ArrayProblem, TensorFileError};

const MAGIC: &[u8] = b"\x93NUMPY";

/// No header that NumPy writes for a plain array is longer.
const MAX_HEADER_BYTES: usize = 64 << 10;

/// Reads the array in a `.npy` file.
///
/// # Errors
/// If the file is missing or damaged, or its element type has no counterpart.
pub fn read_npy(path: &Path) -> Result<Tensor, TensorFileError> {
    let place = path.display().to_string();
    let io = |error: std::io::Error| TensorFileError::Io { file: place.clone(), reason: error.to_string() };
    let file = File::open(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    read_array(&mut BufReader::new(file), size)
        .map_err(|problem| TensorFileError::Array { place: place.clone(), problem })
}

/// Writes a tensor to a `.npy` file. NumPy has no bfloat16, 8-bit floats and 4-bit integers: the floats become float32, the
/// integers 8-bit ones.
///
/// # Errors
/// If the file cannot be written.
pub fn write_npy(path: &Path, tensor: &Tensor) -> Result<(), TensorFileError> {
    let file = path.display().to_string();
    let io = |error: std::io::Error| TensorFileError::Io { file: file.clone(), reason: error.to_string() };
    let encoded = Encoded::new(tensor).map_err(|problem| TensorFileError::Array { place: file.clone(), problem })?;
    let mut out = BufWriter::new(File::create(path).map_err(io)?);
    encoded.write(&mut out).and_then(|()| out.flush()).map_err(io)
}

/// Reads an array of `size` bytes, header included.
pub(super) fn read_array(input: &mut impl Read, size: u64) -> Result<Tensor, ArrayProblem> {
    let mut start = [0; 8];
    read_exact(input, &mut start)?;
    if !start.starts_with(MAGIC) {
        return Err(ArrayProblem::NotNpy);
    }
    let (header_len, prefix) = if start[6] == 1 {
        let mut len = [0; 2];
        read_exact(input, &mut len)?;
        (usize::from(u16::from_le_bytes(len)), 10)
    } else {
        let mut len = [0; 4];
        read_exact(input, &mut len)?;
        (u32::from_le_bytes(len) as usize, 12)
    };
    if header_len > MAX_HEADER_BYTES {
        return Err(ArrayProblem::NotNpy);
    }
    let mut header = vec![0; header_len];
    read_exact(input, &mut header)?;
    let header = Header::parse(&String::from_utf8_lossy(&header))?;
    let ty = TensorType::new(header.dtype, Shape::new(header.dims.iter().copied())?);
    let expected = ty.bytes() as u64;
    let actual = size.saturating_sub((prefix + header_len) as u64);
    if expected != actual {
        return Err(ArrayProblem::Size { expected, actual });
    }
    // The buffer grows with what is really there, whatever the sizes claim.
    let mut bytes = Vec::new();
    let read = input.take(expected).read_to_end(&mut bytes).map_err(|error| ArrayProblem::Read(error.to_string()))?;
    if read as u64 != expected {
        return Err(ArrayProblem::Size { expected, actual: read as u64 });
    }
    let width = header.dtype.bits() / 8;
    if header.big_endian {
        bytes.chunks_exact_mut(width).for_each(<[u8]>::reverse);
    }
    if header.dtype == DType::Bool {
        bytes.iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
    }
    if header.fortran_order && ty.shape.rank() > 1 {
        bytes = row_major(&bytes, &ty.shape, width);
    }
    Ok(Tensor::new(ty, Data::from_bytes(bytes))?)
}

fn read_exact(input: &mut impl Read, bytes: &mut [u8]) -> Result<(), ArrayProblem> {
    input.read_exact(bytes).map_err(|_| ArrayProblem::NotNpy)
}

/// Reorders elements that are stored with the first index varying fastest.
fn row_major(bytes: &[u8], shape: &Shape, width: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = vec![0; shape.rank()];
    for _ in 0..shape.count() {
        let at = index.iter().zip(shape.iter()).rev().fold(0, |at, (&i, &dim)| at * dim + i);
        out.extend_from_slice(&bytes[at * width..][..width]);
        for (i, &dim) in index.iter_mut().zip(shape.iter()).rev() {
            *i += 1;
            if *i < dim {
                break;
            }
            *i = 0;
        }
    }
    out
}

struct Header {
    dtype: DType,
    big_endian: bool,
    fortran_order: bool,
    dims: Vec<usize>,
}

impl Header {
    /// Parses a dictionary as `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`.
    fn parse(text: &str) -> Result<Self, ArrayProblem> {
        let wrong = || ArrayProblem::Header(crate::onnx::error::shown(text.trim()));
        let field = |key: &str| {
            let quoted = [format!("'{key}'"), format!("\"{key}\"")];
            let after =
                quoted.iter().find_map(|key| text.split_once(key.as_str())).map(|(_, after)| after.trim_start());
            after.and_then(|after| after.strip_prefix(':')).map(str::trim_start).ok_or_else(wrong)
        };
        let fortran_order = match field("fortran_order")? {
            value if value.starts_with("True") => true,
            value if value.starts_with("False") => false,
            _ => return Err(wrong()),
        };
        let shape = field("shape")?.strip_prefix('(').and_then(|shape| shape.split_once(')')).ok_or_else(wrong)?.0;
        let dims = shape
            .split(',')
            .map(str::trim)
            .filter(|dim| !dim.is_empty())
            .map(|dim| dim.trim_end_matches('L').parse().map_err(|_| wrong()))
            .collect::<Result<_, _>>()?;
        let descr = field("descr")?;
        let quote = descr.chars().next().filter(|c| "'\"".contains(*c));
        let descr = match quote.and_then(|quote| descr[1..].split_once(quote)) {
            Some((descr, _)) => descr,
            // A list of fields: an array of records.
            None => return Err(ArrayProblem::DType(descr.chars().take(40).collect())),
        };
        let (order, name) = match descr.strip_prefix(['<', '>', '|', '=']) {
            Some(name) => (&descr[..1], name),
            None => ("|", descr),
        };
        let dtype = match name {
            "f8" => DType::F64,
            "f4" => DType::F32,
            "f2" => DType::F16,
            "i8" => DType::I64,
            "i4" => DType::I32,
            "i2" => DType::I16,
            "i1" => DType::I8,
            "u8" => DType::U64,
            "u4" => DType::U32,
            "u2" => DType::U16,
            "u1" => DType::U8,
            "b1" | "?" => DType::Bool,
            _ => return Err(ArrayProblem::DType(crate::onnx::error::shown(descr))),
        };
        Ok(Header { dtype, big_endian: order == ">", fortran_order, dims })
    }
}

/// A tensor in NumPy's form, ready to be written.
pub(super) struct Encoded {
    header: Vec<u8>,
    values: Tensor,
}

impl Encoded {
    pub(super) fn new(tensor: &Tensor) -> Result<Self, ArrayProblem> {
        let converted =
            |dtype, values: Values<'_>| Tensor::narrow(TensorType::new(dtype, tensor.shape().clone()), values);
        let (descr, values) = match tensor.dtype() {
            DType::F64 => ("<f8", tensor.clone()),
            DType::F32 => ("<f4", tensor.clone()),
            DType::F16 => ("<f2", tensor.clone()),
            DType::BF16 | DType::F8E4M3 | DType::F8E5M2 => ("<f4", converted(DType::F32, tensor.widen()?)),
            DType::I64 => ("<i8", tensor.clone()),
            DType::I32 => ("<i4", tensor.clone()),
            DType::I16 => ("<i2", tensor.clone()),
            DType::I8 => ("|i1", tensor.clone()),
            DType::I4 => ("|i1", converted(DType::I8, tensor.widen()?)),
            DType::U64 => ("<u8", tensor.clone()),
            DType::U32 => ("<u4", tensor.clone()),
            DType::U16 => ("<u2", tensor.clone()),
            DType::U8 => ("|u1", tensor.clone()),
            DType::U4 => ("|u1", converted(DType::U8, tensor.widen()?)),
            DType::Bool => ("|b1", tensor.clone()),
        };
        values.bytes()?;
        let dims: Vec<String> = tensor.shape().iter().map(usize::to_string).collect();
        // Python writes a tuple of one with a comma.
        let shape = if let [dim] = &dims[..] { format!("({dim},)") } else { format!("({})", dims.join(", ")) };
        let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
        // Values start at a multiple of 64 bytes, so that they can be mapped.
        let padding = 63 - (MAGIC.len() + 4 + text.len()) % 64;
        text.extend(std::iter::repeat_n(' ', padding));
        text.push('\n');
        let mut header = MAGIC.to_vec();
        header.extend([1, 0]);
        // A tensor has few dimensions, but nothing bounds them: longer headers need the format's second version.
        match u16::try_from(text.len()) {
            Ok(len) => header.extend(len.to_le_bytes()),
            Err(_) => {
                header[6] = 2;
                header.extend((text.len() as u32).to_le_bytes());
            }
        }
        header.extend(text.into_bytes());
        Ok(Encoded { header, values })
    }

    /// Bytes that are written.
    pub(super) fn len(&self) -> u64 {
        (self.header.len() + self.values.ty().bytes()) as u64
    }

    pub(super) fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        out.write_all(&self.header)?;
        out.write_all(self.values.bytes().map_err(std::io::Error::other)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;

    fn file(header: &str, values: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(values);
        bytes
    }

    fn parse(header: &str, values: &[u8]) -> Result<Tensor, ArrayProblem> {
        let bytes = file(header, values);
        read_array(&mut &bytes[..], bytes.len() as u64)
    }

    #[test]
    fn reads_both_byte_orders_and_both_layouts() {
        let little = parse("{'descr': '<i2', 'fortran_order': False, 'shape': (2,), }", &[1, 0, 0, 1]).unwrap();
        assert_eq!(little.to_f64s().unwrap(), [1.0, 256.0]);
        let big = parse("{'descr': '>i2', 'fortran_order': False, 'shape': (2,), }", &[1, 0, 0, 1]).unwrap();
        assert_eq!(big.to_f64s().unwrap(), [256.0, 1.0]);
        let columns = parse("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3), }", &[0, 3, 1, 4, 2, 5]).unwrap();
        assert_eq!(columns.to_f64s().unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let scalar = parse("{'descr': '|b1', 'fortran_order': False, 'shape': (), }", &[9]).unwrap();
        assert_eq!((scalar.shape().rank(), scalar.bytes().unwrap()), (0, &[1u8][..]));
    }

    #[test]
    fn wrong_headers_are_errors() {
        assert_eq!(read_array(&mut &b"PK"[..], 2).unwrap_err(), ArrayProblem::NotNpy);
        assert!(matches!(parse("{}", &[]), Err(ArrayProblem::Header(_))));
        let complex = "{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }";
        assert!(matches!(parse(complex, &[0; 8]), Err(ArrayProblem::DType(_))));
        let records = "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }";
        assert!(matches!(parse(records, &[0; 4]), Err(ArrayProblem::DType(_))));
        let huge = "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }";
        assert!(matches!(parse(huge, &[]), Err(ArrayProblem::Header(_))));
        let large = "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 2), }";
        assert!(matches!(parse(large, &[]), Err(ArrayProblem::Shape(_))));
        let short = "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }";
        assert!(matches!(parse(short, &[0; 4]), Err(ArrayProblem::Size { actual: 4, .. })));
    }
}
