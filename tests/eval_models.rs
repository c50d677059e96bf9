//! Real exports through import, clean-up and reference evaluation, compared with what ONNX Runtime computes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tcc::onnx::import::{ImportOptions, import};
use tcc::tensors::{NamedTensor, read_npz};
use tcc_ir::{DType, Tensor, evaluate};

/// Float results may differ from ONNX Runtime's by this much of the largest value of the output.
const FLOAT_TOLERANCE: f64 = 1e-4;

/// Half-precision values are rounded to 11 bits here and there, and ONNX Runtime does not in places that depend on what
/// its graph looks like (a normalisation whose shape is asked for is rounded, another is not). 2.4e-3 is the largest
/// difference; ONNX Runtime's own results are up to 3.5e-3 from PyTorch's.
const HALF_TOLERANCE: f64 = 3e-3;

struct Compared {
    output: String,
    error: f64,
    tolerance: f64,
}

fn models() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("model.onnx").exists())
        .collect();
    folders.sort();
    folders
}

fn evaluate_set(folder: &Path, set: usize) -> Result<Vec<Compared>, String> {
    let name = folder.file_name().unwrap().to_string_lossy().into_owned();
    let load = |kind: &str| -> Result<BTreeMap<String, Tensor>, String> {
        let tensors = read_npz(&folder.join(format!("{kind}_{set}.npz"))).map_err(|error| error.to_string())?;
        Ok(tensors.into_iter().map(|NamedTensor { name, tensor }| (name, tensor)).collect())
    };
    let (inputs, expected) = (load("inputs")?, load("expected")?);
    let shapes = inputs.iter().map(|(name, tensor)| (name.clone(), tensor.shape().to_vec())).collect();
    // A merged decoder chooses its branch by an input of one truth value.
    let switches = inputs.iter().filter_map(|(name, tensor)| Some((name.clone(), truth(tensor)?))).collect();
    let options = ImportOptions { shapes, switches, ..Default::default() };
    let graph = import(&folder.join("model.onnx"), &options).map_err(|error| error.to_string())?;
    let graph = tcc_passes::clean_up(&graph);
    let operands: Vec<Tensor> = graph.inputs().iter().map(|&input| inputs[&*graph.value(input).name].clone()).collect();
    let results = evaluate(&graph, &operands).map_err(|error| error.to_string())?;
    let mut compared = Vec::new();
    for (output, actual) in graph.outputs().iter().zip(&results) {
        let Some(expected) = expected.get(&*output.name) else {
            return Err(format!("output `{}` has no expected values", output.name));
        };
        if actual.ty() != expected.ty() {
            return Err(format!("output `{}` is {} instead of {}", output.name, actual.ty(), expected.ty()));
        }
        let tolerance = if expected.dtype().is_float() { tolerance(&name, expected) } else { 0.0 };
        compared.push(Compared { output: output.name.to_string(), error: relative_error(actual, expected), tolerance });
    }
    Ok(compared)
}

/// The value of a tensor of one truth value.
fn truth(tensor: &Tensor) -> Option<bool> {
    match tensor.bytes() {
        Ok(&[byte]) if tensor.dtype() == DType::Bool => Some(byte != 0),
        _ => None,
    }
}

/// How far a float output may be off, relative to its largest expected magnitude.
fn tolerance(model: &str, expected: &Tensor) -> f64 {
    match model {
        "bert.legacy-fp16" => HALF_TOLERANCE,
        "bert.legacy-qop" | "vit.legacy-qop" => step(expected),
        _ => FLOAT_TOLERANCE,
    }
}

/// One quantisation step of an output that is a multiple of it, relative to the largest expected magnitude: the smallest
/// distance between two of its values.
fn step(expected: &Tensor) -> f64 {
    let mut values = expected.to_f64s().unwrap();
    let largest = values.iter().fold(0f64, |most, x| most.max(x.abs()));
    values.sort_by(f64::total_cmp);
    let gaps = values.windows(2).map(|pair| (pair[1] - pair[0]) / largest).filter(|&gap| gap > FLOAT_TOLERANCE);
    gaps.reduce(f64::min).unwrap_or(0.0) + FLOAT_TOLERANCE
}

/// The largest difference, relative to the largest expected magnitude. Infinite where only one is not a number or infinite.
fn relative_error(actual: &Tensor, expected: &Tensor) -> f64 {
    let (actual, expected) = (actual.to_f64s().unwrap(), expected.to_f64s().unwrap());
    let largest = expected.iter().filter(|x| x.is_finite()).fold(0f64, |most, x| most.max(x.abs()));
    let mut worst = 0f64;
    for (a, b) in actual.iter().zip(&expected) {
        let same = a == b || (a.is_nan() && b.is_nan());
        let difference = if same { 0.0 } else { (a - b).abs() };
        worst = worst.max(if difference.is_finite() { difference } else { f64::INFINITY });
    }
    if worst == 0.0 { 0.0 } else { worst / largest }
}

#[test]
fn evaluation_agrees_with_onnx_runtime() {
    let mut failures = Vec::new();
    let models = models();
    assert!(models.len() >= 32, "models are missing: {models:?}");
    for folder in models {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let sets = (0..).take_while(|set| folder.join(format!("inputs_{set}.npz")).exists()).count();
        assert!(sets > 0, "{name} has no inputs");
        let mut worst = 0f64;
        for set in 0..sets {
            match evaluate_set(&folder, set) {
                Ok(outputs) => {
                    for Compared { output, error, tolerance } in outputs {
                        worst = worst.max(error);
                        if error > tolerance {
                            failures.push(format!(
                                "{name}, set {set}, `{output}`: off by {error:.2e} (of {tolerance:.0e})"
                            ));
                        }
                    }
                }
                Err(error) => failures.push(format!("{name}, set {set}: {error}")),
            }
        }
        println!("{name}: {sets} sets, worst error {worst:.2e}");
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}
