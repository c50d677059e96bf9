//! The weights of a program, which are read, computed and packed only when they are written.

use std::fmt;
use std::io::{self, Write};

/// What writes the weights of a program that was just compiled.
pub(crate) struct Weights(Box<WriteWeights>);

type WriteWeights = dyn Fn(&mut dyn Write) -> io::Result<()> + Send + Sync;

impl Weights {
    /// Weights that are written by a function.
    pub fn new(write: impl Fn(&mut dyn Write) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Weights(Box::new(write))
    }

    /// Writes them, which must be so many bytes.
    pub fn write(&self, bytes: u64, out: &mut dyn Write) -> io::Result<()> {
        let mut counted = Counted { out, bytes: 0 };
        (self.0)(&mut counted)?;
        if counted.bytes == bytes {
            return Ok(());
        }
        let written = counted.bytes;
        Err(io::Error::other(format!("the weights have {written} bytes and not {bytes}; please report this")))
    }
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Weights")
    }
}

/// Counts what is written.
struct Counted<'a> {
    out: &'a mut dyn Write,
    bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
