//! A deep model is optimised and written like a shallow one: its layers are found to be the same.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

use std::path::Path;

use tcc::ImportedModel;
use tcc::onnx::import::ImportOptions;
use tcc_ir::{Graph, Plan};
use tcc_targets::systolic::Systolic;
use tcc_targets::systolic::assembly;
use tcc_targets::{Machine, Optimization, Report, Target};

#[path = "../benches/bert/mod.rs"]
mod bert;
#[path = "../benches/decoder/mod.rs"]
mod decoder;

fn target() -> Systolic {
    let machine = Machine::built_in().unwrap().into_iter().find(|machine| machine.name == "systolic-128").unwrap();
    Systolic::new(machine).unwrap()
}

/// What a graph becomes: its plan, its report, its routines and its calls.
fn compiled(graph: &Graph) -> (Plan, Report, [usize; 2]) {
    let plan = target().plan(graph, Optimization::default()).unwrap();
    let program = target().compile(graph, Optimization::default()).unwrap();
    let (_, text) = program.code().into_iter().next().unwrap();
    let code = assembly::assemble(&text).unwrap();
    (plan, program.report(), [code.routines().len(), code.calls().len()])
}

fn encoder(layers: usize) -> Graph {
    let encoder = bert::Bert { layers, hidden: 64, heads: 2, intermediate: 128, vocabulary: 100, ..bert::Bert::BASE };
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("depth-{layers}.onnx"));
    encoder.write(1, 16, &path).unwrap();
    ImportedModel::import(&path, &ImportOptions::default()).unwrap().graph().clone()
}

fn decoder(layers: usize) -> Graph {
    tcc_passes::clean_up(&tcc_ir::text::parse(&decoder::decoder(layers)).unwrap())
}

/// Most layers at either end of a stack that are not like those between.
const DIFFERENT_LAYERS: usize = 2;

/// Asserts that a stack of any depth has one block that occurs once and two that occur in every layer.
fn check(stack: &dyn Fn(usize) -> Graph) {
    let mut deep_routines = None;
    for layers in [1, 12, 24, 48, 96] {
        let (plan, report, [routines, calls]) = compiled(&stack(layers));
        let blocks: Vec<(usize, u64)> =
            report.optimizer.iter().map(|block| (block.kernels as usize, block.repeats)).collect();
        assert_eq!(blocks.len(), 3, "{layers} layers: {blocks:?}");
        // What only one layer needs stands in that layer: a single one has the mask in it.
        if layers > 1 {
            let (repeated, single): (Vec<_>, Vec<_>) = blocks.iter().partition(|(_, repeats)| *repeats > 1);
            assert_eq!(single.len(), 1, "{layers} layers: {blocks:?}");
            assert!(repeated.iter().all(|&(_, repeats)| repeats == layers as u64), "{blocks:?}");
            let per_layer: usize = repeated.iter().map(|(kernels, _)| kernels).sum();
            assert!(per_layer <= 5, "{blocks:?}");
            let others: usize = single.iter().map(|(kernels, _)| kernels).sum();
            assert_eq!(plan.kernels.len(), others + layers * per_layer);
            assert_eq!(routines, *deep_routines.get_or_insert(routines), "{layers} layers");
            // Layers that find their values elsewhere on chip than all others, the first ones, are one routine together.
            assert!(calls + 2 * DIFFERENT_LAYERS >= 2 * layers, "{calls} calls for {layers} layers");
        }
    }
}

/// Embeddings stand before attention with what follows it, and the feed-forward part.
#[test]
fn an_encoder_of_any_depth_has_three_blocks() {
    check(&encoder);
}

#[test]
fn a_decoder_of_any_depth_has_as_many_blocks() {
    check(&decoder);
}
