//! Emitted programs, run as their README says, and compared with what the simulator and ONNX Runtime compute.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use rayon::prelude::*;
use tcc::accuracy::{Tolerance, compare};
use tcc::tensors::{read_npy, write_npy};
use tcc::{Build, Compiler};
use tcc_ir::{DType, Tensor};

use super::models::{load, name, of_onnx_runtime, weights};

/// Models that are always run: each kind of architecture, exporter and quantisation once.
pub const REPRESENTATIVE: [&str; 13] = [
    "bert.legacy",
    "bert.legacy-fp16",
    "bert.legacy-qop",
    "genai-llama-int4",
    "gpt2-kv.legacy",
    "llama-kv.dynamo-nbits4-sym",
    "llama-kv.op23-qdq-int4",
    "mamba-static.dynamo",
    "mixtral-kv.dynamo",
    "pkg-silero-vad-seq",
    "t5-encoder.legacy",
    "vit.legacy",
    "whisper-encoder.dynamo",
];

/// Least signal-to-noise ratio to the simulator, in decibels, where everything is computed in binary32: devices have other
/// exponentials.
const SNR_DB: f64 = 90.0;

/// The same where numbers are rounded on the way, to halves or, before they are multiplied, to as many bits: they tip where
/// exponentials differ.
const HALVES_SNR_DB: f64 = 55.0;

/// The files in which a program's README says that arrays are, by the names of their ports in the order of the ports.
fn files_of(readme: &str, heading: &str, count: usize) -> Vec<String> {
    let (_, list) = readme.split_once(heading).unwrap();
    let lines = list.lines().skip_while(|line| !line.starts_with("- ")).take_while(|line| line.starts_with("- "));
    let files: Vec<String> = lines.map(|line| line.split('`').nth(1).unwrap().to_owned()).collect();
    assert_eq!(files.len(), count, "{readme}");
    files
}

/// Writes a program's code to a folder.
pub fn write_code(build: &Build, folder: &Path) {
    for (path, text) in build.program().code() {
        let path = folder.join("code").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// Writes a program with inputs to a folder, has it run there, and gives its outputs.
fn run(build: &Build, inputs: &[Tensor], folder: &Path, runner: impl Fn(&Path)) -> Vec<Tensor> {
    let program = build.program();
    write_code(build, folder);
    fs::write(folder.join("weights.bin"), weights(build)).unwrap();
    let readme = fs::read_to_string(folder.join("code/README.md")).unwrap();
    fs::create_dir(folder.join("inputs")).unwrap();
    for (file, tensor) in files_of(&readme, "`inputs`", program.inputs().len()).iter().zip(inputs) {
        write_npy(&folder.join("inputs").join(file), tensor).unwrap();
    }
    runner(folder);
    let files = files_of(&readme, "`outputs`", program.outputs().len());
    files.iter().map(|file| read_npy(&folder.join("outputs").join(file)).unwrap()).collect()
}

/// Has a program run by `runner` in a folder of its own: it must compute the numbers that the simulator does.
pub fn run_the_same(build: &Build, inputs: &[Tensor], runner: impl Fn(&Path)) {
    let place = tempfile::tempdir().unwrap();
    let outputs = run(build, inputs, place.path(), runner);
    let simulated = build.program().simulate(&weights(build), inputs).unwrap().outputs;
    let values = |tensors: &[Tensor]| tensors.iter().map(|tensor| tensor.to_f64s().unwrap()).collect::<Vec<_>>();
    assert_eq!(values(&outputs), values(&simulated));
}

/// How near the outputs of a model come, in words, and what is wrong with them.
fn compared(compiler: &Compiler, folder: &Path, runner: impl Fn(&Path)) -> (String, Vec<String>) {
    let began = Instant::now();
    let (model, inputs) = load(folder, 0).unwrap();
    let graph = model.graph();
    let is_half = graph.values().any(|(id, _)| graph.ty(id).dtype == DType::F16);
    let build = compiler.with_model(model).compile().unwrap();
    let place = tempfile::tempdir().unwrap();
    let outputs = run(&build, &inputs, place.path(), runner);
    let simulated = build.program().simulate(&weights(&build), &inputs).unwrap().outputs;
    let general = Tolerance::of(compiler.machine());
    let rounds = is_half || compiler.machine().simt.as_ref().is_some_and(|facts| facts.tensor.is_some());
    let near = Tolerance { snr_db: if rounds { HALVES_SNR_DB } else { SNR_DB }, ..general };
    let onnx_runtime = of_onnx_runtime(folder, 0, &build);
    let mut failures = Vec::new();
    let mut least = BTreeMap::new();
    for (what, expected, tolerance) in [("the simulator", simulated, near), ("ONNX Runtime", onnx_runtime, general)] {
        for ((port, expected), actual) in build.program().outputs().iter().zip(&expected).zip(&outputs) {
            let check = compare(&port.name, expected, actual, &tolerance).unwrap();
            let least = least.entry(what).or_insert(f64::INFINITY);
            *least = least.min(check.snr_db);
            failures.extend(check.failure.map(|why| format!("{} `{}` from {what}: {why}", name(folder), port.name)));
        }
    }
    let mut words = format!("{} ({:.1} s):", name(folder), began.elapsed().as_secs_f64());
    least.iter().for_each(|(what, snr)| write!(words, " {snr:.1} dB from {what}").unwrap());
    (words, failures)
}

/// Compiles models for machines, and has each run by `runner` in a folder of its own: outputs must be near to those of the
/// simulator and of ONNX Runtime.
pub fn run_alike(jobs: &[(&Compiler, &Path)], runner: impl Fn(&Path) + Sync) {
    let failures = Mutex::new(Vec::new());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    pool.install(|| {
        jobs.par_iter().with_max_len(1).for_each(|&(compiler, folder)| {
            let (words, failed) = compared(compiler, folder, &runner);
            println!("{}: {words}", compiler.machine().name);
            failures.lock().unwrap().extend(failed);
        });
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
