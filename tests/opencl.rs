//! Emitted OpenCL programs: built as their README says, run on the first OpenCL device that there is, and compared with what
//! the simulator and ONNX Runtime compute.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

mod common;

use std::path::{Path, PathBuf};

use common::emitted::{REPRESENTATIVE, run_alike};
use common::models::{folder, shipped};
use common::opencl;
use tcc::Compiler;

/// Models that are run as programs without matrix units too.
const PLAIN: [&str; 4] = ["bert.legacy", "gpt2-kv.legacy", "mixtral-kv.dynamo", "whisper-encoder.dynamo"];

#[test]
fn models_run_alike_in_opencl() {
    let probe = tempfile::tempdir().unwrap();
    if !opencl::is_installed(probe.path()) {
        return;
    }
    let folders: Vec<PathBuf> = match std::env::var_os("TCC_ALL_MODELS") {
        Some(_) => shipped(),
        None => REPRESENTATIVE.iter().map(|name| folder(name)).collect(),
    };
    let with_units = Compiler::for_target("h100").unwrap();
    let without = Compiler::for_target("simt-mini").unwrap();
    let plain: Vec<PathBuf> = PLAIN.iter().map(|name| folder(name)).collect();
    let with_units = folders.iter().map(|folder| (&with_units, folder.as_path()));
    let jobs: Vec<(&Compiler, &Path)> =
        with_units.chain(plain.iter().map(|folder| (&without, folder.as_path()))).collect();
    run_alike(&jobs, opencl::run);
}
