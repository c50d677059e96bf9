//! The operators of `com.microsoft`, the quantised ones and ONNX's attention, one node each, against ONNX Runtime's
//! outputs. `fixtures/make_microsoft_ops.py` writes the models.

#![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tcc::onnx::import::{ImportOptions, import};
use tcc::tensors::read_npz;
use tcc_ir::{Tensor, evaluate};

/// How far an output may be from ONNX Runtime's.
#[derive(Clone, Copy)]
struct Tolerance {
    /// Of floats, relative to the greatest magnitude of the expected output.
    relative: f64,
    /// Of integers, in steps.
    steps: f64,
}

/// Sums of products agree to the last bit of a quantised result.
const EXACT: Tolerance = Tolerance { relative: 1e-6, steps: 0.0 };

/// Results computed in floats may fall on the other side of a rounding.
const ONE_STEP: Tolerance = Tolerance { relative: 1e-5, steps: 1.0 };

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/microsoft_ops")
}

/// The greatest difference, and the greatest magnitude expected; NaN equals NaN.
fn difference(actual: &Tensor, expected: &Tensor) -> (f64, f64) {
    let (actual, expected) = (actual.to_f64s().unwrap(), expected.to_f64s().unwrap());
    let error = actual.iter().zip(&expected).map(|(a, e)| match (a.is_nan(), e.is_nan()) {
        (true, true) => 0.0,
        (false, false) if a == e => 0.0,
        (false, false) => (a - e).abs(),
        _ => f64::INFINITY,
    });
    let magnitude = expected.iter().filter(|e| e.is_finite()).map(|e| e.abs());
    (error.fold(0.0, f64::max), magnitude.fold(0.0, f64::max))
}

/// What is wrong with one case, if anything.
fn failure(name: &str, tolerance: Tolerance) -> Option<String> {
    let path = fixtures().join(name);
    let tensors = read_npz(&path.with_extension("npz")).unwrap();
    let tensors: BTreeMap<String, Tensor> = tensors.into_iter().map(|named| (named.name, named.tensor)).collect();
    let graph = match import(&path.with_extension("onnx"), &ImportOptions::default()) {
        Ok(graph) => graph,
        Err(error) => return Some(format!("{name}: {error}")),
    };
    let inputs: Vec<Tensor> = graph.inputs().iter().map(|&id| tensors[&*graph.value(id).name].clone()).collect();
    let results = match evaluate(&graph, &inputs) {
        Ok(results) => results,
        Err(error) => return Some(format!("{name}: {error}")),
    };
    for (output, actual) in graph.outputs().iter().zip(&results) {
        let expected = &tensors[&format!("expected:{}", output.name)];
        if actual.ty() != expected.ty() {
            return Some(format!("{name}: `{}` is {}, not {}", output.name, actual.ty(), expected.ty()));
        }
        let (error, magnitude) = difference(actual, expected);
        let allowed = if actual.dtype().is_float() { tolerance.relative * magnitude } else { tolerance.steps };
        if error > allowed {
            return Some(format!("{name}: `{}` is off by {error:.3e}, more than {allowed:.3e}", output.name));
        }
    }
    None
}

/// Runs all cases whose names begin with one of `prefixes`, and checks that there are `count`.
fn check(prefixes: &[&str], count: usize, tolerance: Tolerance) {
    let mut names: Vec<String> = std::fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "onnx"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
        .collect();
    names.sort_unstable();
    let failures: Vec<String> = names.iter().filter_map(|name| failure(name, tolerance)).collect();
    assert!(failures.is_empty(), "{} of {} cases fail:\n{}", failures.len(), names.len(), failures.join("\n"));
    assert_eq!(names.len(), count, "cases that begin with {prefixes:?}");
}

#[test]
fn activations() {
    check(&["bias_gelu", "fast_gelu", "gelu", "quick_gelu"], 5, ONE_STEP);
}

#[test]
fn fused_products() {
    check(&["fused_"], 10, ONE_STEP);
}

#[test]
fn normalisations() {
    check(&["skip_", "embed_"], 6, ONE_STEP);
}

#[test]
fn attention_with_projection() {
    check(&["attention_", "q_attention"], 14, ONE_STEP);
}

#[test]
fn multi_head_attention() {
    check(&["multi_head_"], 8, ONE_STEP);
}

#[test]
fn grouped_query_attention() {
    check(&["gqa_"], 16, ONE_STEP);
}

#[test]
fn rotary_embedding() {
    check(&["rotary_"], 7, ONE_STEP);
}

#[test]
fn onnx_attention() {
    check(&["onnx_"], 20, ONE_STEP);
}

#[test]
fn weights_quantised_by_blocks() {
    check(&["matmul_nbits_", "gather_block_"], 15, ONE_STEP);
}

#[test]
fn integer_products() {
    check(&["matmulinteger_", "convinteger"], 4, EXACT);
}

#[test]
fn requantised_products() {
    check(&["qlinearmatmul_", "qlinearconv_", "qgemm_"], 19, EXACT);
}

#[test]
fn dequantised_products() {
    check(&["matmulintegertofloat_", "dynamicquantizematmul_"], 8, ONE_STEP);
}

#[test]
fn quantisation() {
    check(&["quantizelinear_", "dequantizelinear_", "dynamicquantizelinear"], 23, EXACT);
}

#[test]
fn quantised_arithmetic() {
    check(
        &[
            "qlinearadd_",
            "qlinearmul_",
            "qlinearsigmoid_",
            "qlinearleakyrelu_",
            "qlinearglobal",
            "qlinearsoftmax_",
            "qlinearconcat_",
        ],
        18,
        ONE_STEP,
    );
}

#[test]
fn quantised_lstm() {
    check(&["dynamicquantizelstm_"], 6, ONE_STEP);
}
