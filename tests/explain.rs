//! `tcc build --explain` and `tcc inspect --plan`: which rules made which kernels, told without changing any of them.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

mod common;

use std::fs;
use std::path::Path;

use common::{Dim, model, node, port, small_model, tcc, write_model};
use serde_json::Value;
use tcc::inputs::Inputs;
use tcc::onnx::import::ImportOptions;
use tcc::{Compiler, ImportedModel};
use tcc_ir::Anchor;
use tcc_targets::explanation::ExplainedKernel;
use tcc_targets::systolic::Systolic;
use tcc_targets::{Explanation, Kind, Machine, Optimization, PlanTaken};

fn models() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models"))
}

fn import(name: &str) -> ImportedModel {
    let inputs = Inputs::read(&models().join(name).join("inputs_0.npz")).unwrap();
    let options = ImportOptions { shapes: inputs.shapes([]), switches: inputs.switches([]), ..Default::default() };
    ImportedModel::import(&models().join(name).join("model.onnx"), &options).unwrap()
}

fn systolic() -> Systolic {
    let machine = Machine::default_of(Kind::Systolic).unwrap().unwrap();
    Systolic::new(machine).unwrap()
}

fn explain(name: &str) -> Explanation {
    let compiler = Compiler::for_target("systolic").unwrap();
    compiler.with_model(import(name)).compile_explained(Optimization::Exact).unwrap().1
}

fn rules(kernel: &ExplainedKernel) -> Vec<(&str, usize)> {
    kernel.explanation.rules.iter().map(|used| (used.rule.as_str(), used.uses)).collect()
}

/// The command line in the folder of a model, with the shapes of its inputs.
fn tcc_with(name: &str, arguments: &[&str]) -> common::Run {
    tcc(&models().join(name), &[arguments, &["--shapes-from", "inputs_0.npz"]].concat())
}

#[test]
fn plans_are_the_same_with_and_without_explanations() {
    let target = systolic();
    for entry in fs::read_dir(models()).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        if !models().join(&name).join("model.onnx").exists() {
            continue;
        }
        let model = import(&name);
        for optimization in [Optimization::Exact, Optimization::Greedy, Optimization::None] {
            let plain = target.plan(model.graph(), optimization).unwrap();
            let (explained, _) = target.plan_explained(model.graph(), optimization).unwrap();
            assert_eq!(plain.graph.to_string(), explained.graph.to_string(), "{name}, {optimization:?}");
            assert_eq!(plain.to_string(), explained.to_string(), "{name}, {optimization:?}");
        }
    }
}

#[test]
fn every_kernel_of_bert_names_its_nodes() {
    let explanation = explain("bert.legacy");
    assert_eq!(explanation.plan_taken, PlanTaken::Optimized);
    let plan = systolic().plan(import("bert.legacy").graph(), Optimization::Exact).unwrap();
    let mut told = 0;
    for (index, kernel) in plan.kernels.iter().enumerate() {
        let name = plan.kernel_name(index);
        let found = explanation.explanations.iter().find(|found| found.outline.kernels.contains(&name)).unwrap();
        assert_eq!(found.outline.anchor, kernel.anchor.kind());
        // The nodes are those of the first place where the block occurs.
        if found.outline.kernels[0] == name {
            let anchor = kernel.anchor.node().or_else(|| kernel.nodes().next()).unwrap();
            let origins: Vec<&str> = plan.graph.node(anchor).origin.lines().collect();
            assert!(!origins.is_empty(), "{name}");
            assert!(origins.iter().all(|origin| found.outline.nodes.iter().any(|node| node == origin)), "{name}");
        }
        told += 1;
    }
    let listed: usize = explanation.explanations.iter().map(|found| found.outline.kernels.len()).sum();
    assert_eq!((told, listed), (16, 16));
    assert!(!plan.kernels.iter().any(|kernel| matches!(kernel.anchor, Anchor::Copy { .. })));
}

#[test]
fn the_projections_of_bert_were_merged_by_their_rule() {
    let explanation = explain("bert.legacy");
    let merged = explanation.explanations.iter().filter(|found| {
        ["query", "key", "value"]
            .iter()
            .all(|part| found.outline.nodes.iter().any(|node| node.contains(&format!("{part}/MatMul"))))
    });
    let [merged] = &merged.collect::<Vec<_>>()[..] else { panic!("one kernel has all three projections") };
    assert_eq!(merged.outline.kernels, ["k5 contraction", "k10 contraction"]);
    assert_eq!(rules(merged), [("sibling contractions", 3)]);
    let query = &merged.explanation.rewritings[0];
    assert_eq!(query.before, "add(w1, mat_mul(x1, w2))");
    assert_eq!(query.after, "slice(add(mat_mul(x1, concat(w2, w3, w4)), concat(w1, w5, w6)))");
}

/// An attention that an exporter wrote in single operators is found after its rotary embeddings and repeated heads.
#[test]
fn the_attention_of_llama_names_what_it_was_raised_by() {
    let explanation = explain("llama-kv.dynamo");
    let attention = explanation.explanations.iter().find(|found| found.outline.anchor == "attention").unwrap();
    assert_eq!(attention.outline.kernels.len(), 2);
    let rules: Vec<&str> = rules(attention).into_iter().map(|(rule, _)| rule).collect();
    for rule in ["rotary embedding of halves", "attention", "attention over repeated heads"] {
        assert!(rules.contains(&rule), "{rules:?}");
    }
    let made = attention.explanation.rewritings.last().unwrap();
    assert!(made.before.starts_with("mat_mul(softmax(") && made.after.starts_with("attention(rope("), "{made:?}");
}

#[test]
fn a_build_is_the_same_with_and_without_explanation() {
    let folder = tempfile::tempdir().unwrap();
    let [plain, explained] = ["plain", "explained"].map(|name| folder.path().join(name).to_str().unwrap().to_owned());
    let build = |output: &str, more: &[&str]| {
        let run =
            tcc_with("bert.legacy", &[&["build", "model.onnx", "--target", "systolic", "-o", output], more].concat());
        assert_eq!((run.code, run.stderr.as_str()), (0, ""));
        run.stdout
    };
    let report = build(&plain, &[]);
    let page = build(&explained, &["--explain"]);
    for file in ["report.json", "program.tcc", "weights.bin", "schedule.txt", "trace.json"] {
        let read = |build: &str| fs::read(Path::new(build).join(file)).unwrap();
        assert!(read(&plain) == read(&explained), "{file}");
    }
    // The text report, then the explanation.
    let explanation = page.strip_prefix(&report).unwrap();
    insta::assert_snapshot!("explanation_of_bert", explanation);

    let report: Value = serde_json::from_str(&build(&plain, &["--format", "json"])).unwrap();
    let mut json: Value = serde_json::from_str(&build(&plain, &["--format", "json", "--explain"])).unwrap();
    let explanations = json.as_object_mut().unwrap().remove("explanations").unwrap();
    assert_eq!(json.as_object_mut().unwrap().remove("plan_taken").unwrap(), "optimized");
    assert_eq!(json, report);
    assert_eq!(explanations[5]["rules"][0]["rule"], "sibling contractions");
    assert_eq!(explanations[5]["kernels"].as_array().unwrap().len(), 2);
}

#[test]
fn a_build_without_search_says_so() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path(), "small.onnx", &small_model());
    let run =
        tcc(folder.path(), &["build", "small.onnx", "--target", "systolic", "-o", "out", "--no-optimize", "--explain"]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    let (_, explanation) = run.stdout.split_once("\nexplanation\n").unwrap();
    insta::assert_snapshot!("explanation_without_search", explanation);
}

#[test]
fn plans_before_and_after_are_shown() {
    let plans = |name| {
        let run = tcc_with(name, &["inspect", "model.onnx", "--plan"]);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""));
        run.stdout
    };
    insta::assert_snapshot!("plans_of_bert", plans("bert.legacy"));
    let llama = plans("llama-kv.dynamo");
    assert!(llama.contains("by the optimiser; 22 and 5 in each of 2 layers"), "{llama}");
    let json =
        tcc_with("bert.legacy", &["inspect", "model.onnx", "--plan", "--format", "json", "--target", "systolic"]);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&json["kernels_before"], &json["kernels_after"]), (&30.into(), &16.into()));
    assert_eq!(json["after"]["kernels"][5]["results"][0], "f32[2,9,192]");
}

/// The same words as `tcc build` has for it.
#[test]
fn plans_need_numbers_for_all_dimensions() {
    let folder = tempfile::tempdir().unwrap();
    let dims = [Dim::Free("batch"), Dim::N(4)];
    let nodes = vec![node("Abs", &["x"], "y")];
    write_model(folder.path(), "free.onnx", &model(vec![port("x", &dims)], vec![port("y", &dims)], nodes, vec![]));
    let inspect = tcc(folder.path(), &["inspect", "free.onnx", "--plan"]);
    let build = tcc(folder.path(), &["build", "free.onnx", "--target", "systolic", "-o", "out"]);
    assert_eq!((inspect.code, &inspect.stdout, &inspect.stderr), (2, &build.stdout, &build.stderr));
    let bound = tcc(folder.path(), &["inspect", "free.onnx", "--plan", "--dim", "batch=3"]);
    assert!(bound.code == 0 && bound.stdout.contains("f32[3,4]"), "{}", bound.stdout);
    let without = tcc(folder.path(), &["inspect", "free.onnx", "--dim", "batch=3"]);
    assert_eq!((without.code, without.stdout.as_str()), (2, ""));
    insta::assert_snapshot!("dimensions_without_plan", without.stderr.trim_end());
}
