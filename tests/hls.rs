//! Emitted designs for FPGAs: compiled with g++ and the open headers of Vitis HLS' types, run by their testbench, and compared with what
//! the simulator and ONNX Runtime compute.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

mod common;

use std::path::{Path, PathBuf};

use common::emitted::{REPRESENTATIVE, run_alike};
use common::hls;
use common::models::{folder, shipped};
use tcc::Compiler;

/// Models that are built for a small part too.
const SMALL: [&str; 4] = ["bert.legacy", "bert.legacy-qop", "gpt2-kv.legacy", "t5-encoder.legacy"];

#[test]
fn designs_compute_alike_in_c_simulation() {
    if !hls::is_installed() {
        return;
    }
    let folders: Vec<PathBuf> = match std::env::var_os("TCC_ALL_MODELS") {
        Some(_) => shipped(),
        None => REPRESENTATIVE.iter().map(|name| folder(name)).collect(),
    };
    let large = Compiler::for_target("u280").unwrap();
    let small = Compiler::for_target("kv260").unwrap();
    let for_small: Vec<PathBuf> = SMALL.iter().map(|name| folder(name)).collect();
    let for_large = folders.iter().map(|folder| (&large, folder.as_path()));
    let jobs: Vec<(&Compiler, &Path)> =
        for_large.chain(for_small.iter().map(|folder| (&small, folder.as_path()))).collect();
    run_alike(&jobs, hls::run);
}
