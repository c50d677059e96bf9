//! What the optimiser makes of the shipped models on the systolic machine: how many kernels, and that one network gives one
//! plan whoever exported it.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

use std::path::Path;

use tcc::inputs::Inputs;
use tcc::onnx::import::ImportOptions;
use tcc::{Compiler, ImportedModel};
use tcc_ir::{Anchor, Plan};
use tcc_targets::systolic::Systolic;
use tcc_targets::{Kind, Machine, Optimization, Report};

fn import(name: &str) -> ImportedModel {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(name);
    let inputs = Inputs::read(&folder.join("inputs_0.npz")).unwrap();
    let options = ImportOptions { shapes: inputs.shapes([]), switches: inputs.switches([]), ..Default::default() };
    ImportedModel::import(&folder.join("model.onnx"), &options).unwrap()
}

fn plan(name: &str) -> Plan {
    let machine = Machine::default_of(Kind::Systolic).unwrap().unwrap();
    Systolic::new(machine).unwrap().plan(import(name).graph(), Optimization::Exact).unwrap()
}

fn report(name: &str, optimization: Optimization) -> Report {
    let compiler = Compiler::for_target("systolic").unwrap();
    compiler.with_model(import(name)).compile_with(optimization).unwrap().report()
}

/// The kinds of the kernels, from the first contraction to the last.
fn layers(plan: &Plan) -> Vec<&'static str> {
    let kinds: Vec<&str> = plan.kernels.iter().map(|kernel| kernel.anchor.kind()).collect();
    let is_heavy = |kind: &&str| matches!(*kind, "contraction" | "attention");
    let first = kinds.iter().position(is_heavy).unwrap();
    let last = kinds.iter().rposition(is_heavy).unwrap();
    kinds[first..=last].to_vec()
}

const BERTS: [&str; 5] = ["bert.legacy", "bert.legacy11", "bert.dynamo", "bert.op23", "bert.legacy-fused"];
const LLAMAS: [&str; 3] = ["llama-kv.legacy", "llama-kv.dynamo", "llama-kv.op23"];

/// Two layers of five kernels, then the pooler, which reads the first token where it lies: the three projections; attention;
/// its projection with residual and normalisation; the two of the feed-forward network.
#[test]
fn a_layer_of_bert_is_five_kernels() {
    for name in BERTS {
        let plan = plan(name);
        let layer = ["contraction", "attention", "contraction", "contraction", "contraction"];
        let mut expected = [layer, layer].concat();
        expected.push("contraction");
        assert_eq!(layers(&plan), expected, "{name}: {plan}");
    }
}

/// Two layers of five kernels, then the classifier: the three projections; attention with what rotates and caches; its
/// projection with residual and normalisation; gate and up projections as one product, with what multiplies the two; the
/// projection back, with residual and normalisation.
#[test]
fn a_layer_of_llama_is_five_kernels() {
    for name in LLAMAS {
        let plan = plan(name);
        let layer = ["contraction", "attention", "contraction", "contraction", "contraction"];
        let expected = [&layer[..], &layer[..], &["contraction"]].concat();
        assert_eq!(layers(&plan), expected, "{name}: {plan}");
    }
    // A cache that is scattered into is no part of the attention's kernel, but the products are as few.
    let plan = plan("genai-llama-fp32");
    let mut heavy = layers(&plan);
    heavy.retain(|kind| matches!(*kind, "contraction" | "attention"));
    let layer = ["contraction", "attention", "contraction", "contraction", "contraction"];
    assert_eq!(heavy, [&layer[..], &layer[..], &["contraction"]].concat(), "{plan}");
}

#[test]
fn one_network_takes_the_same_cycles_whoever_exported_it() {
    for family in [&BERTS[..], &LLAMAS[..2]] {
        let cycles: Vec<u64> = family.iter().map(|name| report(name, Optimization::Exact).cycles).collect();
        let (least, most) = (cycles.iter().min().unwrap(), cycles.iter().max().unwrap());
        assert!(most * 100 <= least * 101, "{family:?}: {cycles:?}");
    }
}

#[test]
fn nothing_is_only_transposed_or_reshaped() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    for entry in std::fs::read_dir(root).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        if !Path::new("tests/models").join(&name).join("model.onnx").exists() {
            continue;
        }
        let plan = plan(&name);
        let copies = plan.kernels.iter().filter(|kernel| matches!(kernel.anchor, Anchor::Copy { .. })).count();
        assert_eq!(copies, 0, "{name}: {plan}");
    }
}

/// The faster of two schedules is taken, so that searching never makes a program slower.
#[test]
fn optimising_never_makes_it_slower() {
    for name in ["bert.legacy", "llama-kv.op23", "gpt2-kv.legacy", "vit.legacy-qop", "t5-encoder.legacy"] {
        let (plain, searched) = (report(name, Optimization::None), report(name, Optimization::Exact));
        assert!(searched.cycles <= plain.cycles, "{name}: {} over {}", searched.cycles, plain.cycles);
        for block in &searched.optimizer {
            assert!(block.e_nodes > 0 && block.bound.is_some_and(|bound| bound <= block.cost), "{name}: {block:?}");
        }
    }
}
