//! The real exports in `tests/models`, and builds of them that are run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tcc::accuracy::{Tolerance, compare};
use tcc::inputs::{Inputs, ports};
use tcc::onnx::import::ImportOptions;
use tcc::{Build, Compiler, ImportedModel};
use tcc_ir::{Tensor, evaluate};
use tcc_targets::{Machine, Simulation, TargetError};

/// Models that compute in integers from the first quantisation to the last: what is left of float arithmetic rounds as the
/// reference does on a machine with a binary32 vector unit, far closer than products of 16-bit floats would.
pub const INTEGER_MODELS: [&str; 3] = ["bert.legacy-qop", "bert.legacy-qdq-u8i8-perchan", "vit.legacy-qop"];

/// Least signal-to-noise ratio of these, in decibels.
pub const INTEGER_SNR_DB: f64 = 100.0;

/// The folders of all shipped models, in order.
pub fn shipped() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    let entries = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.join("model.onnx").exists()).collect();
    folders.sort();
    assert!(folders.len() >= 32, "the shipped models are not there");
    folders
}

/// The folder of a shipped model.
pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(name)
}

/// The name of a folder.
pub fn name(folder: &Path) -> String {
    folder.file_name().unwrap().to_string_lossy().into_owned()
}

/// A model with the input set `set`, whose shapes it is bound to; `None` if it has no such set.
pub fn load(folder: &Path, set: usize) -> Option<(ImportedModel, Vec<Tensor>)> {
    let path = folder.join(format!("inputs_{set}.npz"));
    if !path.exists() {
        return None;
    }
    let inputs = Inputs::read(&path).unwrap();
    let options = ImportOptions { shapes: inputs.shapes([]), switches: inputs.switches([]), ..Default::default() };
    let model = ImportedModel::import(&folder.join("model.onnx"), &options).unwrap();
    let tensors = inputs.arrange(&ports(model.graph())).unwrap();
    Some((model, tensors))
}

/// What ONNX Runtime computes of an input set, in the order of a build's outputs.
pub fn of_onnx_runtime(folder: &Path, set: usize, build: &Build) -> Vec<Tensor> {
    let mut expected = Inputs::read(&folder.join(format!("expected_{set}.npz"))).unwrap().by_name([]);
    build.program().outputs().iter().map(|port| expected.remove(&port.name).unwrap()).collect()
}

/// A build's weights, as it writes them.
pub fn weights(build: &Build) -> Vec<u8> {
    let mut weights = Vec::new();
    build.program().write_weights(&mut weights).unwrap();
    weights
}

/// What outputs are compared with, and how near they must come.
pub struct Bounds {
    /// To the reference evaluation.
    pub reference: Tolerance,
    /// To ONNX Runtime; `None` where nothing is asked.
    pub onnx_runtime: Option<Tolerance>,
}

/// Models that find scales of 8-bit integers at run time: a float that rounds otherwise, as all behind a product of halves do,
/// tips an activation to the next integer, which is a step of 1/256 of its range. No machine that rounds comes nearer than
/// the systolic machines do, which the general tolerance is for.
const QUANTIZED_AT_RUN_TIME: [&str; 2] = ["bert.legacy-dynq-i8", "genai-llama-int4"];

/// Least signal-to-noise ratio of products of numbers with 11 bits, in decibels: halves, or binary32 as matrix units take it. The
/// general tolerance is for bf16, which has 8.
const HALVES_SNR_DB: f64 = 40.0;

/// How near a model's outputs must come on a machine that multiplies numbers with 11 bits.
pub fn bounds_of_halves(machine: &Machine, name: &str) -> Bounds {
    let general = Tolerance::of(machine);
    let at_least = |snr_db: f64| Tolerance { snr_db, ..general };
    if INTEGER_MODELS.contains(&name) {
        // ONNX Runtime's own float kernels round otherwise, which may tip a value to the next integer.
        Bounds { reference: at_least(INTEGER_SNR_DB), onnx_runtime: Some(general) }
    } else if QUANTIZED_AT_RUN_TIME.contains(&name) {
        Bounds { reference: general, onnx_runtime: Some(general) }
    } else {
        Bounds { reference: at_least(HALVES_SNR_DB), onnx_runtime: Some(at_least(HALVES_SNR_DB)) }
    }
}

/// Builds every shipped model for every one of its input sets and runs it with `simulate`, which gets the build, its weights
/// and the inputs. The outputs must be as near as `bounds` says of the model's name, and the report must be true.
pub fn run_all(
    compiler: &Compiler,
    simulate: impl Fn(&Build, &[u8], &[Tensor]) -> Result<Simulation, TargetError>,
    bounds: impl Fn(&str) -> Bounds,
) {
    let mut failures = Vec::new();
    let mut runs = 0;
    for folder in shipped() {
        let name = name(&folder);
        for set in 0.. {
            let Some((model, inputs)) = load(&folder, set) else { break };
            runs += 1;
            let reference = evaluate(model.graph(), &inputs).unwrap();
            let build = compiler.with_model(model).compile().unwrap_or_else(|error| panic!("{name} {set}: {error}"));
            let simulation = match simulate(&build, &weights(&build), &inputs) {
                Ok(simulation) => simulation,
                Err(error) => {
                    failures.push(format!("{name} {set}: {error}"));
                    continue;
                }
            };
            let report = build.report();
            assert_eq!(report.cycles, simulation.cycles, "{name} {set}: the report counts other cycles");
            let parts: u64 = report.breakdown.iter().map(|part| part.cycles).sum();
            assert_eq!(report.cycles, parts, "{name} {set}: the breakdown does not sum to the total");
            let kernels: u64 = report.kernels.iter().map(|kernel| kernel.cycles).sum();
            assert_eq!(report.cycles, kernels, "{name} {set}: the kernels do not sum to the total");
            assert!(report.host_ops.is_empty(), "{name} {set}: something is left to the host");
            let Bounds { reference: near, onnx_runtime } = bounds(&name);
            let others = onnx_runtime.map(|near| ("ONNX Runtime", of_onnx_runtime(&folder, set, &build), near));
            for (what, expected, near) in [("the reference", reference, near)].into_iter().chain(others) {
                for ((port, expected), actual) in
                    build.program().outputs().iter().zip(&expected).zip(&simulation.outputs)
                {
                    let output = &port.name;
                    let failure = compare(output, expected, actual, &near).unwrap().failure;
                    failures.extend(failure.map(|why| format!("{name} {set} `{output}` from {what}: {why}")));
                }
            }
        }
    }
    assert!(runs >= 90, "only {runs} input sets were run");
    assert!(failures.is_empty(), "{} of {runs} runs fail:\n{}", failures.len(), failures.join("\n"));
}

/// Everything that a build consists of and computes, by name.
fn artifacts(target: &str, folder: &Path, threads: usize) -> BTreeMap<&'static str, Vec<u8>> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let (model, inputs) = load(folder, 0).unwrap();
        let evaluated = evaluate(model.graph(), &inputs).unwrap();
        let build = Compiler::for_target(target).unwrap().with_model(model).compile().unwrap();
        let weights = weights(&build);
        let outputs = build.program().simulate(&weights, &inputs).unwrap().outputs;
        let bytes = |tensors: &[Tensor]| tensors.iter().flat_map(|tensor| tensor.bytes().unwrap().to_vec()).collect();
        BTreeMap::from([
            ("program", build.program().encode()),
            ("schedule", build.program().schedule_text().into_bytes()),
            ("code", format!("{:?}", build.program().code()).into_bytes()),
            ("report", format!("{:?}", build.report()).into_bytes()),
            ("trace", format!("{:?}", build.program().trace()).into_bytes()),
            ("evaluated", bytes(&evaluated)),
            ("outputs", bytes(&outputs)),
            ("weights", weights),
        ])
    })
}

/// Builds models twice and with another number of threads: everything is the same.
pub fn same_each_time(target: &str, models: &[&str]) {
    for model in models {
        let folder = folder(model);
        let first = artifacts(target, &folder, 1);
        for (what, again) in [("two runs", 1), ("one and two threads", 2)] {
            for (name, bytes) in artifacts(target, &folder, again) {
                assert!(first[name] == bytes, "{model} on {target}: {what} differ in the {name}");
            }
        }
    }
}
