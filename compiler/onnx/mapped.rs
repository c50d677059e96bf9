//! Memory maps of files: the only unsafe code of the compiler.

#![allow(unsafe_code, reason = "a memory map is unsafe to make")]

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

/// Maps a regular file for reading.
///
/// Anything else (a folder, a pipe, a device) is refused before it is opened, since opening could block for ever.
pub fn map(path: &Path) -> io::Result<Arc<Mmap>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let file = File::open(path)?;
    // SAFETY: the map is private and read-only, and nothing in tcc writes to a file that it has mapped. Another process
    // that shortens the file while tcc runs can end tcc with SIGBUS, as with every program that maps its inputs; bytes that
    // change meanwhile are read as plain numbers, never as pointers, lengths or types.
    let map = unsafe { Mmap::map(&file)? };
    Ok(Arc::new(map))
}
