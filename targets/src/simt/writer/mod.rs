//! Kernels as source code that people can read and compilers of others accept.

mod arrival;
mod c;
mod dequantize;
mod dialect;
mod host;
mod memory;
mod product;
mod reduction;
mod shared;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use super::program::Parts;
use crate::kernel::host::ARRAYS;
use dialect::Dialect;

/// What every program of CUDA has of the device.
const DEVICE: &str = include_str!("device.h");

/// What makes floats of integers of few bits there.
const DEQUANTIZE: &str = include_str!("dequantize.h");

/// What is written.
pub(super) struct Written<'p> {
    /// The program.
    pub parts: &'p Parts,
    /// Name of the machine.
    pub machine: &'p str,
    /// Threads of its warps.
    pub warp: u32,
    /// What CUDA's compiler calls its generation; it is written in CUDA C++ too if there is a name.
    pub arch: Option<String>,
    /// For each kernel the blocks that a multiprocessor is to run at a time.
    pub blocks: Vec<u32>,
}

/// The files of a program, with their paths.
pub(super) fn files(written: &Written<'_>) -> Vec<(PathBuf, String)> {
    let mut files = vec![
        ("README.md", host::readme(written)),
        ("arrays.h", ARRAYS.to_owned()),
        ("opencl/kernels.cl", c::kernels(written, Dialect::OpenCl)),
        ("opencl/main.cpp", host::main(written, Dialect::OpenCl)),
        ("opencl/host.h", host::OPENCL.to_owned()),
    ];
    if written.arch.is_some() {
        files.extend([
            ("cuda/kernels.cu", c::kernels(written, Dialect::Cuda)),
            ("cuda/main.cu", host::main(written, Dialect::Cuda)),
            ("cuda/device.h", DEVICE.to_owned()),
            ("cuda/dequantize.h", DEQUANTIZE.to_owned()),
            ("cuda/host.h", host::CUDA.to_owned()),
        ]);
    }
    files.into_iter().map(|(path, text)| (PathBuf::from(path), text)).collect()
}
