//! NumPy's `.npz` format: a zip archive with one `.npy` entry for each array.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Cursor, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::NamedTensor;
use super::error::{ArrayProblem, TensorFileError};
use super::npy::{self, Encoded};
use crate::staging::describe;

/// Deflate cannot do better than this; an entry that claims to is hostile.
const MAX_RATIO: u64 = 1040;

/// Entries beyond this size need the 64-bit form of zip.
const LARGE_ENTRY: u64 = (1 << 32) - (1 << 20);

/// Reads all arrays of a `.npz` file, in the order of the file.
///
/// # Errors
/// If the file is missing or damaged, an entry is not an array, or its element type has no counterpart.
pub fn read_npz(path: &Path) -> Result<Vec<NamedTensor>, TensorFileError> {
    let file = path.display().to_string();
    let io = |reason: String| TensorFileError::Io { file: file.clone(), reason };
    let open = File::open(path).map_err(|error| io(error.to_string()))?;
    let mut archive = ZipArchive::new(BufReader::new(open)).map_err(|error| {
        io(format!("this is not a .npz file, or it is damaged ({error}); write it with numpy.savez"))
    })?;
    let mut tensors = Vec::with_capacity(archive.len().min(1024));
    let mut names = HashSet::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|error| io(error.to_string()))?;
        let name = crate::onnx::error::shown(entry.name());
        let at = |problem| TensorFileError::Array { place: format!("{file}:{name}"), problem };
        let (claimed, packed) = (entry.size(), entry.compressed_size());
        if claimed > packed.saturating_add(1).saturating_mul(MAX_RATIO) {
            return Err(at(ArrayProblem::Bomb { claimed, packed }));
        }
        let own_name = entry.name().strip_suffix(".npy").unwrap_or(entry.name()).to_owned();
        let tensor = npy::read_array(&mut entry, claimed).map_err(at)?;
        if !names.insert(own_name.clone()) {
            return Err(TensorFileError::Duplicate { file, name });
        }
        tensors.push(NamedTensor { name: own_name, tensor });
    }
    Ok(tensors)
}

/// Writes tensors to a `.npz` file, whole or not at all. See [`NpzFile`].
///
/// # Errors
/// If the file cannot be written.
pub fn write_npz(path: &Path, tensors: &[NamedTensor]) -> Result<(), TensorFileError> {
    NpzFile::create(path)?.write(tensors)
}

/// A `.npz` file that is going to be written. To create it first and compute its content then tells at once that a place
/// cannot be written. Unless [`NpzFile::write`] succeeds, what is at the place stays as it is.
#[derive(Debug)]
pub struct NpzFile {
    path: PathBuf,
    temporary: NamedTempFile,
}

impl NpzFile {
    /// Starts a file that will be at `path`.
    ///
    /// # Errors
    /// If there can be no file.
    pub fn create(path: &Path) -> Result<Self, TensorFileError> {
        let io = |reason: String| TensorFileError::Io { file: path.display().to_string(), reason };
        // Never a device or a pipe: the file is replaced, and /dev/null must stay what it is.
        if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(io("it exists and is not a regular file".to_owned()));
        }
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let temporary = temporary(folder).map_err(|error| io(describe(&error)))?;
        Ok(NpzFile { path: path.to_owned(), temporary })
    }

    /// Writes the tensors and puts the file in its place. Its bytes depend on nothing but the tensors.
    ///
    /// NumPy has no bfloat16, 8-bit floats and 4-bit integers: the floats become float32, the integers 8-bit ones.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(mut self, tensors: &[NamedTensor]) -> Result<(), TensorFileError> {
        let file = self.path.display().to_string();
        let io = |reason: String| TensorFileError::Io { file: file.clone(), reason };
        // In memory first: an archive that cannot be finished on disk would complain on stderr by itself.
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        for NamedTensor { name, tensor } in tensors {
            let encoded = Encoded::new(tensor)
                .map_err(|problem| TensorFileError::Array { place: format!("{file}:{name}"), problem })?;
            let options = SimpleFileOptions::default()
                .compression_method(CompressionMethod::Stored)
                .last_modified_time(zip::DateTime::default())
                .large_file(encoded.len() > LARGE_ENTRY);
            archive.start_file(format!("{name}.npy"), options).map_err(|error| io(error.to_string()))?;
            encoded.write(&mut archive).map_err(|error| io(error.to_string()))?;
        }
        let archive = archive.finish().map_err(|error| io(error.to_string()))?.into_inner();
        self.temporary.write_all(&archive).map_err(|error| io(describe(&error)))?;
        self.temporary.persist(&self.path).map_err(|error| io(describe(&error.error)))?;
        Ok(())
    }
}

/// A file that goes away unless it is moved to its place when it is whole.
fn temporary(folder: &Path) -> std::io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".tcc-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // Less the process's mask, as any new file. Temporary files are closed to others otherwise.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use tcc_ir::{DType, Shape, Tensor, TensorType, Values};

    use super::*;

    fn named(name: &str, tensor: Tensor) -> NamedTensor {
        NamedTensor { name: name.to_owned(), tensor }
    }

    #[test]
    fn every_type_round_trips_or_becomes_its_counterpart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npz");
        let tensors: Vec<_> =
            DType::ALL.iter().map(|&dtype| named(dtype.name(), Tensor::scalar_of(dtype, 1.0))).collect();
        write_npz(&path, &tensors).unwrap();
        let read = read_npz(&path).unwrap();
        assert_eq!(read.len(), tensors.len());
        for (read, written) in read.iter().zip(&tensors) {
            assert_eq!(read.name, written.name);
            assert_eq!(read.tensor.shape().rank(), 0);
            assert_eq!(read.tensor.to_f64s().unwrap(), [1.0], "{}", read.name);
            let expected = match written.tensor.dtype() {
                DType::BF16 | DType::F8E4M3 | DType::F8E5M2 => DType::F32,
                DType::I4 => DType::I8,
                DType::U4 => DType::U8,
                other => other,
            };
            assert_eq!(read.tensor.dtype(), expected);
        }
    }

    #[test]
    fn files_are_the_same_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let shape = Shape::new([2, 1, 3]).unwrap();
        let values = Values::Signed(vec![-1, 2, -3, 4, -5, 6].into());
        let tensor = Tensor::narrow(TensorType::new(DType::I16, shape), values);
        let write = |name: &str| {
            let path = folder.path().join(name);
            write_npz(&path, &[named("a", tensor.clone())]).unwrap();
            std::fs::read(path).unwrap()
        };
        let first = write("1.npz");
        std::thread::sleep(std::time::Duration::from_millis(2100));
        assert_eq!(first, write("2.npz"));
        let read = read_npz(&folder.path().join("1.npz")).unwrap();
        assert_eq!(read[0].tensor.ty(), tensor.ty());
        assert_eq!(read[0].tensor.bytes(), tensor.bytes());
    }

    #[test]
    fn damaged_files_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npz");
        assert!(matches!(read_npz(&path), Err(TensorFileError::Io { .. })));
        std::fs::write(&path, b"no archive").unwrap();
        assert!(matches!(read_npz(&path), Err(TensorFileError::Io { .. })));
        let mut archive = ZipWriter::new(File::create(&path).unwrap());
        archive.start_file("x.npy", SimpleFileOptions::default()).unwrap();
        archive.write_all(b"no array").unwrap();
        archive.finish().unwrap();
        let text = read_npz(&path).unwrap_err().to_string();
        assert!(text.contains("x.npz:x.npy"), "{text}");
    }
}
