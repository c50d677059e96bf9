//! Designs as C++ for high-level synthesis, which people can read and AMD's tools accept.
//!
//! Functions become C++ functions (`function`) on memories that are arrays of words of banks; a top has the memories and a controller
//! that reads what is to be called (`top`, `words`); a testbench stands for the host (`testbench`). Where calls are stages, the top is a
//! dataflow region (`dataflow`), and functions take words from FIFOs and give them (`stream`).

mod access;
mod common;
mod dataflow;
mod function;
mod index;
mod kernels;
mod loaded;
mod loader;
mod loops;
mod narrow;
mod partition;
mod project;
mod reduction;
mod sameness;
mod statement;
mod stream;
mod structure;
mod sum;
mod testbench;
#[cfg(test)]
mod tests;
mod top;
mod window;
mod words;

use std::path::PathBuf;

use super::FpgaMachine;
use super::design::FunctionId;
use super::nest::Nest;
use super::program::Parts;
use crate::kernel::host::ARRAYS;
use crate::machine::Machine;

pub(super) use function::check;
pub(super) use stream::unstreamed;

/// What every design has of beats and elements.
const BEATS: &str = include_str!("beats.h");

/// What is written.
pub(super) struct Written<'p> {
    /// The program.
    pub parts: &'p Parts,
    /// The machine that it is for.
    pub machine: &'p Machine,
    /// The FPGA's part of it.
    pub facts: &'p FpgaMachine,
    /// The initiation interval of each function's pipelined loops, in the order in which they begin in its body; `None` leaves it to
    /// the tool. Pipelined are loops that hold no other but those that are written out; in a function without any such loop it is the
    /// innermost of the grid.
    pub intervals: &'p dyn Fn(FunctionId, usize) -> Option<u32>,
    /// Each function as loops of operations, which says how wide its integers are; `None` leaves them as wide as registers.
    pub nests: &'p dyn Fn(FunctionId) -> Option<&'p Nest>,
}

/// The files of a program, with their paths. All functions must have passed [`check`].
pub(super) fn files(written: &Written<'_>) -> Vec<(PathBuf, String)> {
    let [header, kernels] = kernels::kernels(written);
    let mut files = vec![
        ("README.md", project::readme(written)),
        ("Makefile", project::makefile()),
        ("hls_config.cfg", project::hls_config(written)),
        ("beats.h", BEATS.to_owned()),
        ("kernels.h", header),
        ("kernels.cpp", kernels),
        ("arrays.h", ARRAYS.to_owned()),
        ("testbench.h", testbench::TESTBENCH.to_owned()),
    ];
    if dataflow::is_streaming(written) {
        files.extend([
            ("stream.h", dataflow::STREAM.to_owned()),
            ("connectivity.cfg", dataflow::connectivity(written)),
            ("top.h", dataflow::header(written)),
            ("top.cpp", dataflow::top(written)),
            ("testbench.cpp", dataflow::testbench(written)),
        ]);
    } else {
        let words = words::words(written.parts);
        files.extend([
            ("connectivity.cfg", project::connectivity(written, &words)),
            ("top.h", top::header(written, &words)),
            ("top.cpp", top::top(written, &words)),
            ("program.h", testbench::program(written, &words)),
            ("testbench.cpp", testbench::testbench(written, &words)),
        ]);
    }
    files.into_iter().map(|(path, text)| (PathBuf::from(path), text)).collect()
}
