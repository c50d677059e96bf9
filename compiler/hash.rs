//! Content hashes of the files of a build: they tell a file that changed from one that did not, not friend from foe.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use xxhash_rust::xxh3::Xxh3Default;

/// Passes bytes on to a writer and hashes and counts them on the way.
pub struct HashingWriter<W> {
    inner: W,
    hasher: Xxh3Default,
    bytes: u64,
}

impl<W: Write> HashingWriter<W> {
    /// Wraps a writer to which nothing has been written yet.
    pub fn new(inner: W) -> Self {
        HashingWriter { inner, hasher: Xxh3Default::new(), bytes: 0 }
    }

    /// Flushes, and returns number and hash of the bytes written.
    pub fn finish(mut self) -> io::Result<(u64, u64)> {
        self.inner.flush()?;
        Ok((self.bytes, self.hasher.digest()))
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The hash of bytes in memory.
pub fn of_bytes(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// The hash of a file, read through a small buffer.
pub fn of_file(path: &Path) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut hasher = Xxh3Default::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.digest()),
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
