//! The ONNX project's own node tests as a conformance suite: each case is imported, cleaned up, evaluated and compared.
//!
//! `tests/fetch_onnx_node_tests.sh` fetches the cases; `TCC_ONNX_NODE_TESTS` may point to another copy of them.
//! `tests/onnx_node_failures.txt` lists the cases that are known to fail, with the reason. It may only shrink: a case that
//! fails without being listed fails the test, and so does one that is listed but passes. `tests/onnx_node_tests.txt` lists
//! the cases whose operators a compiler of transformers is expected to have.
//!
//! The FPGA target, which has no arithmetic of its own but that of the kernel language, runs all cases too.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "Tests fail by panicking.")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use onnx_protobuf::{Message, ModelProto, TensorProto};
use rayon::prelude::*;
use tcc::onnx::external::ExternalFiles;
use tcc::onnx::import::{ImportOptions, import_model};
use tcc::onnx::tensor::{Weights, read};
use tcc_ir::{DType, Graph, Tensor, evaluate};
use tcc_targets::{Optimization, Target};

/// Expected to pass of the cases in `onnx_node_tests.txt`, at least.
const EXPECTED_PASSES: usize = 991;

/// What computes the results of a graph.
type Execute<'a> = dyn Fn(&Graph, &[Tensor]) -> Result<Vec<Tensor>, String> + Sync + 'a;

#[test]
fn node_tests_pass_but_for_the_known_failures() {
    pass_but_for_the_known_failures("onnx_node_failures.txt", &|graph, inputs| {
        evaluate(graph, inputs).map_err(one_line)
    });
}

#[test]
fn node_tests_pass_on_an_fpga_but_for_the_known_failures() {
    let target = tcc_targets::target(tcc::target_name::resolve("u280").unwrap()).unwrap();
    let target: &dyn Target = target.as_ref();
    pass_but_for_the_known_failures("onnx_node_failures_fpga.txt", &|graph, inputs| {
        let program = target.compile(graph, Optimization::Exact).map_err(one_line)?;
        let mut weights = Vec::new();
        program.write_weights(&mut weights).map_err(one_line)?;
        Ok(program.simulate(&weights, inputs).map_err(one_line)?.outputs)
    });
}

/// Runs all cases; `report` is what the list of those that fail is written to.
fn pass_but_for_the_known_failures(report_name: &str, execute: &Execute<'_>) {
    let Some(folder) = node_tests() else { return };
    let mut cases: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|case| case.join("model.onnx").is_file());
    cases.sort();
    assert!(cases.len() > 1000, "{} holds only {} cases", folder.display(), cases.len());

    let results: BTreeMap<String, Result<(), String>> = cases
        .par_iter()
        .map(|case| {
            let name = case.file_name().unwrap().to_string_lossy().into_owned();
            let result = catch_unwind(AssertUnwindSafe(|| run(case, execute)));
            (name, result.unwrap_or_else(|_| Err("PANIC: nothing may panic".to_owned())))
        })
        .collect();
    let failures: BTreeMap<&str, &str> = results
        .iter()
        .filter_map(|(name, result)| result.as_ref().err().map(|reason| (name.as_str(), reason.as_str())))
        .collect();

    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let relevant = fs::read_to_string(tests.join("onnx_node_tests.txt")).unwrap();
    let relevant: BTreeSet<&str> = relevant.lines().collect();
    let passes = relevant.iter().filter(|name| results.get(**name).is_some_and(Result::is_ok)).count();
    println!("{} of all {} node tests pass", results.len() - failures.len(), results.len());
    println!("{passes} of the {} relevant ones pass", relevant.len());

    let mut report = String::new();
    for (name, reason) in &failures {
        writeln!(report, "{name} {reason}").unwrap();
    }
    fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join(report_name), report).unwrap();

    let known = fs::read_to_string(tests.join("onnx_node_failures.txt")).unwrap();
    let known: BTreeSet<&str> = known.lines().filter_map(|line| line.split(' ').next()).collect();
    let mut surprises = String::new();
    for (name, reason) in failures.iter().filter(|(name, _)| !known.contains(*name)) {
        writeln!(surprises, "fails: {name}: {reason}").unwrap();
    }
    for name in known.iter().filter(|name| !failures.contains_key(*name)) {
        writeln!(surprises, "passes now, or is gone; remove its line: {name}").unwrap();
    }
    assert!(
        surprises.is_empty(),
        "what fails differs from tests/onnx_node_failures.txt (the new list is in {}):\n{surprises}",
        env!("CARGO_TARGET_TMPDIR")
    );
    assert!(passes >= EXPECTED_PASSES, "only {passes} of the relevant cases pass");
}

/// The folder of the cases. Without one the test is skipped, except in CI.
fn node_tests() -> Option<PathBuf> {
    let folder = std::env::var_os("TCC_ONNX_NODE_TESTS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/onnx-node-tests"), PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    let message = format!("{} is not there; tests/fetch_onnx_node_tests.sh fetches it", folder.display());
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{message}");
    eprintln!("SKIPPED: {message}");
    None
}

/// Runs one case. The error says why it fails, on one line.
fn run(case: &Path, execute: &Execute<'_>) -> Result<(), String> {
    let model = ModelProto::parse_from_bytes(&fs::read(case.join("model.onnx")).unwrap()).unwrap();
    let inputs = tensors(case, "input", model.graph.input.len())?;
    let expected = tensors(case, "output", model.graph.output.len())?;
    // Shapes and the like are inputs in these models, where exporters write constants. If the model cannot be scheduled
    // with them, all but the first input become constants; then, for operators whose first input is such a one, all.
    let mut result = Err(String::new());
    for free in [inputs.len(), 1, 0] {
        result = import_and_execute(&model, &inputs, free, execute);
        if result.is_ok() {
            break;
        }
    }
    let actual = result?;
    if actual.len() != expected.len() {
        return Err(format!("gives {} results instead of {}", actual.len(), expected.len()));
    }
    for (index, (actual, expected)) in actual.iter().zip(&expected).enumerate() {
        let expected = tensor(expected)?;
        compare(actual, &expected).map_err(|difference| format!("output {index} {difference}"))?;
    }
    Ok(())
}

/// The tensors of a case, in order. An empty one stands for an optional value that is left out.
fn tensors(case: &Path, kind: &str, count: usize) -> Result<Vec<TensorProto>, String> {
    (0..count)
        .map(|index| {
            let bytes = fs::read(case.join("test_data_set_0").join(format!("{kind}_{index}.pb")));
            let bytes = bytes.map_err(|_| format!("has no data for {kind} {index}"))?;
            TensorProto::parse_from_bytes(&bytes).map_err(|_| format!("{kind} {index} is not a tensor"))
        })
        .collect()
}

fn tensor(proto: &TensorProto) -> Result<Tensor, String> {
    read(&mut proto.clone(), &mut ExternalFiles::none(), Weights::Load).map_err(one_line)
}

/// Imports the model with its first `free` inputs, and all others as constants, and executes it.
fn import_and_execute(
    model: &ModelProto,
    inputs: &[TensorProto],
    free: usize,
    execute: &Execute<'_>,
) -> Result<Vec<Tensor>, String> {
    let mut model = model.clone();
    let mut options = ImportOptions::default();
    let mut values = Vec::new();
    let graph = model.graph.as_mut().unwrap();
    for (index, (input, proto)) in graph.input.iter().zip(inputs).enumerate() {
        if index < free {
            let value = tensor(proto)?;
            options.shapes.insert(input.name.clone(), value.shape().to_vec());
            values.push(value);
        } else {
            let mut constant = proto.clone();
            constant.name.clone_from(&input.name);
            graph.initializer.push(constant);
        }
    }
    graph.input.truncate(free);
    let graph = import_model(model, ExternalFiles::none(), &options).map_err(one_line)?;
    let graph = tcc_passes::clean_up(&graph);
    execute(&graph, &values)
}

fn one_line(error: impl std::fmt::Display) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Compares as ONNX's own runner does, with a relative error of 1e-3, or two units in the last place of types that are
/// coarser than that. Integers and truth values must be equal.
fn compare(actual: &Tensor, expected: &Tensor) -> Result<(), String> {
    if actual.ty() != expected.ty() {
        return Err(format!("is {} instead of {}", actual.ty(), expected.ty()));
    }
    let relative = match expected.dtype() {
        DType::F64 | DType::F32 => 1e-3,
        DType::F16 => 2.0 / 1024.0,
        DType::BF16 => 2.0 / 128.0,
        _ => 0.0,
    };
    let absolute = if relative == 0.0 { 0.0 } else { 1e-7 };
    let (actual, expected) = (actual.to_f64s().unwrap(), expected.to_f64s().unwrap());
    let close = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= absolute + relative * b.abs();
    match actual.iter().zip(&expected).position(|(&a, &b)| !close(a, b)) {
        None => Ok(()),
        Some(place) => Err(format!("is {} instead of {} at element {place}", actual[place], expected[place])),
    }
}
