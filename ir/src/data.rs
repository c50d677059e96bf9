//! The bytes behind a tensor: owned, mapped from a file, or known only by their length.
//!
//! Cloning shares the bytes. Weights enter the compiler either by moving the buffer that the model file was parsed into,
//! or by mapping the external file that holds them; nothing copies them after that.

use std::fmt;
use std::sync::Arc;

use bytemuck::Pod;
use memmap2::Mmap;

/// An immutable, shared run of little-endian bytes.
#[derive(Clone)]
pub struct Data(Source);

#[derive(Clone)]
enum Source {
    // One variant per element width, so that a vector of elements moves in without a copy and stays aligned.
    Width1(Arc<Vec<u8>>),
    Width2(Arc<Vec<u16>>),
    Width4(Arc<Vec<u32>>),
    Width8(Arc<Vec<u64>>),
    Mapped { file: Arc<Mmap>, offset: usize, len: usize },
    Absent { len: usize },
}

/// The bytes of a tensor are not there: the model was read without its weights.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {0} bytes of this tensor were not loaded; build without --no-weights to use their values")]
pub struct AbsentData(pub usize);

/// A range that lies outside the mapped file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bytes {offset}..{offset}+{len} lie outside the file, which has {file_len} bytes")]
pub struct OutsideFile {
    /// First byte asked for.
    pub offset: usize,
    /// Number of bytes asked for.
    pub len: usize,
    /// Size of the file.
    pub file_len: usize,
}

impl Data {
    /// Takes over a buffer of raw bytes.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Data(Source::Width1(Arc::new(bytes)))
    }

    /// Takes over a buffer of elements; nothing is copied.
    pub fn from_elements<T: Pod>(elements: Vec<T>) -> Self {
        Data(match size_of::<T>() {
            2 => Source::Width2(Arc::new(bytemuck::cast_vec(elements))),
            4 => Source::Width4(Arc::new(bytemuck::cast_vec(elements))),
            8 => Source::Width8(Arc::new(bytemuck::cast_vec(elements))),
            1 => Source::Width1(Arc::new(bytemuck::cast_vec(elements))),
            _ => Source::Width1(Arc::new(bytemuck::cast_slice(&elements).to_vec())),
        })
    }

    /// Bytes `offset..offset + len` of a mapped file.
    pub fn mapped(file: Arc<Mmap>, offset: usize, len: usize) -> Result<Self, OutsideFile> {
        match offset.checked_add(len) {
            Some(end) if end <= file.len() => Ok(Data(Source::Mapped { file, offset, len })),
            _ => Err(OutsideFile { offset, len, file_len: file.len() }),
        }
    }

    /// `len` bytes that exist only in name.
    pub fn absent(len: usize) -> Self {
        Data(Source::Absent { len })
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        match &self.0 {
            Source::Width1(bytes) => bytes.len(),
            Source::Width2(elements) => elements.len() * 2,
            Source::Width4(elements) => elements.len() * 4,
            Source::Width8(elements) => elements.len() * 8,
            Source::Mapped { len, .. } | Source::Absent { len } => *len,
        }
    }

    /// Whether there are no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether only the length is known.
    pub fn is_absent(&self) -> bool {
        matches!(self.0, Source::Absent { .. })
    }

    /// The bytes themselves.
    pub fn bytes(&self) -> Result<&[u8], AbsentData> {
        match &self.0 {
            Source::Width1(bytes) => Ok(bytes),
            Source::Width2(elements) => Ok(bytemuck::cast_slice(elements)),
            Source::Width4(elements) => Ok(bytemuck::cast_slice(elements)),
            Source::Width8(elements) => Ok(bytemuck::cast_slice(elements)),
            Source::Mapped { file, offset, len } => Ok(&file[*offset..*offset + *len]),
            Source::Absent { len } if *len == 0 => Ok(&[]),
            Source::Absent { len } => Err(AbsentData(*len)),
        }
    }

    /// Whether both share the same bytes in memory, without reading them.
    pub fn same(&self, other: &Data) -> bool {
        match (self.bytes(), other.bytes()) {
            (Ok(a), Ok(b)) => std::ptr::eq(a, b),
            _ => false,
        }
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.0 {
            Source::Mapped { .. } => "mapped",
            Source::Absent { .. } => "absent",
            Source::Width1(_) | Source::Width2(_) | Source::Width4(_) | Source::Width8(_) => "owned",
        };
        write!(f, "{} {kind} bytes", self.len())
    }
}
