//! A deep model is optimised and written like a shallow one: its layers are found to be the same.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

use std::path::Path;

use tcc::ImportedModel;
use tcc::onnx::import::ImportOptions;
use tcc_ir::Plan;
use tcc_targets::systolic::Systolic;
use tcc_targets::systolic::assembly;
use tcc_targets::{Machine, Optimization, Report, Target};

#[path = "../benches/bert/mod.rs"]
mod bert;

fn target() -> Systolic {
    let machine = Machine::built_in().unwrap().into_iter().find(|machine| machine.name == "systolic-128").unwrap();
    Systolic::new(machine).unwrap()
}

/// What an encoder of so many layers becomes: its plan, its report, its routines and its calls.
fn compiled(layers: usize) -> (Plan, Report, [usize; 2]) {
    let encoder = bert::Bert { layers, hidden: 64, heads: 2, intermediate: 128, vocabulary: 100, ..bert::Bert::BASE };
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("depth-{layers}.onnx"));
    encoder.write(1, 16, &path).unwrap();
    let model = ImportedModel::import(&path, &ImportOptions::default()).unwrap();
    let plan = target().plan(model.graph(), Optimization::default()).unwrap();
    let program = target().compile(model.graph(), Optimization::default()).unwrap();
    let (_, text) = program.code().into_iter().next().unwrap();
    let code = assembly::assemble(&text).unwrap();
    (plan, program.report(), [code.routines().len(), code.calls().len()])
}

#[test]
fn depth_repeats_blocks_and_routines() {
    let mut deep_routines = None;
    for layers in [1, 12, 24, 48, 96] {
        let (plan, report, [routines, calls]) = compiled(layers);
        let blocks: Vec<(usize, u64)> =
            report.optimizer.iter().map(|block| (block.kernels as usize, block.repeats)).collect();
        // Embeddings; attention and what follows it; the feed-forward part.
        assert_eq!(blocks.len(), 3, "{layers} layers: {blocks:?}");
        assert_eq!(blocks[0].1, 1);
        assert_eq!([blocks[1].1, blocks[2].1], [layers as u64; 2]);
        // What only one layer needs stands in that layer: a single one has the mask in it.
        if layers > 1 {
            let per_layer = blocks[1].0 + blocks[2].0;
            assert!(per_layer <= 5, "{blocks:?}");
            assert_eq!(plan.kernels.len(), blocks[0].0 + layers * per_layer);
            assert_eq!(routines, *deep_routines.get_or_insert(routines), "{layers} layers");
            assert!(calls >= 2 * layers, "{calls} calls for {layers} layers");
        }
    }
}
