//! Emitted designs for FPGAs: compiled with g++ and the open headers of Vitis HLS' types, run by their testbench, and compared with what
//! the simulator and ONNX Runtime compute.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

mod common;

use std::path::{Path, PathBuf};

use common::emitted::{REPRESENTATIVE, run_alike, run_the_same};
use common::hls;
use common::models::{folder, shipped};
use common::{Dim, model, node, port, tensor, write_model};
use onnx_protobuf::ModelProto;
use tcc::Compiler;
use tcc::onnx::import::ImportOptions;
use tcc_ir::{Shape, Tensor};
use tcc_targets::Machine;

/// Models that are built for a small part too.
const SMALL: [&str; 4] = ["bert.legacy", "bert.legacy-qop", "gpt2-kv.legacy", "t5-encoder.legacy"];

/// A part with so many blocks of RAM: too few for weights, which are loaded from beside it.
fn few_blocks(blocks: u32) -> Compiler {
    let text = Machine::built_in_text("u280").unwrap();
    let text = text.replace("bram18s = 4032 ", &format!("bram18s = {blocks} ")).replace("urams = 960 ", "urams = 0 ");
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
    let (compiler, folder) = (few_blocks(320), folder(LOADED));
    run_alike(&[(&compiler, folder.as_path())], |folder| {
        let top = std::fs::read_to_string(folder.join("code/top.cpp")).unwrap();
        assert!(top.contains("load(load_0, 0, load_runs"), "nothing is loaded");
        hls::run(folder);
    });
}

/// Two products of floats, of sizes that are not the same, with more weights than the part of [`few_blocks`] holds.
fn two_products() -> ModelProto {
    let weights = |name: &str, dims: [i64; 2]| {
        let values = (0..dims[0] * dims[1]).map(|place| (place * place % 251 - 125) as f32 / 512.0);
        tensor(name, &dims, values.collect())
    };
    model(
        vec![port("x", &[Dim::N(21), Dim::N(256)])],
        vec![port("y", &[Dim::N(21), Dim::N(1024)])],
        vec![node("MatMul", &["x", "v"], "h"), node("Neg", &["h"], "r"), node("MatMul", &["r", "w"], "y")],
        vec![weights("v", [256, 4096]), weights("w", [4096, 1024])],
    )
}

#[test]
fn one_engine_multiplies_integers_of_all_sizes() {
    if !hls::is_installed() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = write_model(folder.path(), "two.onnx", &two_products());
    let model = few_blocks(2400).import(&path, &ImportOptions::default()).unwrap();
    let build = model.quantize(&[]).unwrap().compile().unwrap();
    let x = (0..21 * 256).map(|place| (place % 97) as f32 / 97.0 - 0.4).collect::<Vec<f32>>();
    let x = Tensor::from_vec(Shape::new([21, 256]).unwrap(), x).unwrap();
    run_the_same(&build, &[x], |folder| {
        let [top, kernels] =
            ["top.cpp", "kernels.cpp"].map(|name| std::fs::read_to_string(folder.join("code").join(name)).unwrap());
        assert!(top.contains("load(load_0, 0, load_runs"), "nothing is loaded");
        // One function goes for both products, whose sizes calls say.
        assert_eq!(kernels.matches("const int blocks = ").count(), 1, "not one engine");
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
