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
use tcc_targets::Machine;

/// Models that are built for a small part too.
const SMALL: [&str; 4] = ["bert.legacy", "bert.legacy-qop", "gpt2-kv.legacy", "t5-encoder.legacy"];

/// A part with too little memory for the weights of [`LOADED`], which are loaded from beside it.
fn few_blocks() -> Compiler {
    let text = Machine::built_in_text("u280").unwrap();
    let text = text.replace("bram18s = 4032 ", "bram18s = 180 ").replace("urams = 960 ", "urams = 0 ");
    let text = text.replace("name = \"u280\"", "name = \"few-blocks\"").replace("default = true", "default = false");
    Compiler::for_machine(Machine::parse("few-blocks", &text).unwrap()).unwrap()
}

/// A model with weights of 4 bits.
const LOADED: &str = "llama-kv.dynamo-nbits4-sym";

#[test]
fn what_is_loaded_ahead_comes_in_order() {
    if !hls::is_installed() {
        return;
    }
    let (compiler, folder) = (few_blocks(), folder(LOADED));
    run_alike(&[(&compiler, folder.as_path())], |folder| {
        let top = std::fs::read_to_string(folder.join("code/top.cpp")).unwrap();
        assert!(top.contains("load(load_0, 0, load_runs"), "nothing is loaded");
        hls::run(folder);
    });
}

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
