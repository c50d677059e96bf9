//! The weights of a program, which are read, computed and packed only when they are written.

use std::fmt;
use std::io::{self, Write};

use tcc_ir::{Graph, ValueId, View, evaluate_constant};

use crate::pack::rearranged;

/// What writes the weights of a program that was just compiled.
pub(crate) struct Weights(Box<WriteWeights>);

type WriteWeights = dyn Fn(&mut dyn Write) -> io::Result<()> + Send + Sync;

/// What is among the weights: a value that follows from constants, and how it is rearranged if it is.
pub(crate) type Constant = (ValueId, Option<View>);

impl Weights {
    /// Constants one behind the other, each from a multiple of an alignment on, and each evaluated, if it follows from others, only
    /// when it is written.
    pub fn packed(graph: &Graph, constants: &[Constant], alignment: u64) -> Self {
        let (graph, constants) = (graph.clone(), constants.to_vec());
        Weights::new(move |out| {
            for (value, view) in &constants {
                let tensor = match graph.as_constant(*value) {
                    Some(tensor) => tensor.clone(),
                    None => evaluate_constant(&graph, *value).map_err(io::Error::other)?,
                };
                let bytes = tensor.bytes().map_err(io::Error::other)?;
                let view = view.as_ref();
                let view = view.filter(|view| !view.is_dense() || view.shape().count() < tensor.shape().count());
                let rearranged = match view {
                    Some(view) => {
                        let lost = || io::Error::other("a constant is read outside; please report this");
                        Some(rearranged(bytes, tensor.dtype().bits(), view).ok_or_else(lost)?)
                    }
                    None => None,
                };
                let bytes = rearranged.as_deref().unwrap_or(bytes);
                out.write_all(bytes)?;
                let end = (bytes.len().max(1) as u64).next_multiple_of(alignment);
                out.write_all(&vec![0; end as usize - bytes.len()])?;
            }
            Ok(())
        })
    }

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
