//! Kernels as source code that people can read and compilers of others accept.

mod c;
mod dialect;
mod helpers;
mod host;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use super::program::Parts;
use dialect::Dialect;

/// What is written.
pub(super) struct Written<'p> {
    /// The program.
    pub parts: &'p Parts,
    /// Name of the machine.
    pub machine: &'p str,
    /// Threads of its warps.
    pub warp: u32,
}

/// The files of a program, with their paths.
pub(super) fn files(written: &Written<'_>) -> Vec<(PathBuf, String)> {
    vec![
        (PathBuf::from("README.md"), host::readme(written)),
        (PathBuf::from("opencl/kernels.cl"), c::kernels(written, Dialect::OpenCl)),
        (PathBuf::from("opencl/main.cpp"), host::main(written)),
        (PathBuf::from("opencl/host.h"), host::HEADER.to_owned()),
    ]
}
