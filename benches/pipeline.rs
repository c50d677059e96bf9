//! Every step of the pipeline, on a shipped model and on bert-base: import, planning, scheduling, evaluation,
//! simulation. `cargo bench` runs all; `cargo bench -- import` one.

use std::error::Error;
use std::hint::black_box;
use std::path::Path;

use criterion::{BenchmarkId, Criterion};
use tcc::ImportedModel;
use tcc::onnx::import::ImportOptions;
use tcc_ir::{Def, Graph, Shape, Tensor};
use tcc_targets::systolic::Systolic;
use tcc_targets::{Kind, Machine, Optimization, Target};

mod bert;
mod decoder;

use bert::Bert;

/// A model to measure with: its file, and how its free dimensions are bound.
struct Subject {
    name: &'static str,
    path: std::path::PathBuf,
    options: ImportOptions,
}

/// Token ids, masks and the like that any BERT accepts: ones.
fn inputs(graph: &Graph) -> Result<Vec<Tensor>, Box<dyn Error>> {
    graph
        .inputs()
        .iter()
        .map(|&id| {
            let value = graph.value(id);
            debug_assert!(matches!(value.def, Def::Input(_)));
            let shape: Shape = value.ty.shape.clone();
            Ok(Tensor::from_vec(shape.clone(), vec![1i64; shape.count()])?)
        })
        .collect()
}

fn systolic() -> Result<Systolic, Box<dyn Error>> {
    let machine = Machine::default_of(Kind::Systolic)?;
    Ok(Systolic::new(machine.ok_or("no default systolic machine")?)?)
}

fn measure(criterion: &mut Criterion, subject: &Subject) -> Result<(), Box<dyn Error>> {
    let model = ImportedModel::import(&subject.path, &subject.options)?;
    let graph = model.graph();
    let target = systolic()?;
    let inputs = inputs(graph)?;
    let program = target.compile(graph, Optimization::default())?;
    let mut weights = Vec::new();
    program.write_weights(&mut weights)?;
    let mut group = criterion.benchmark_group("pipeline");
    group.sample_size(10);
    group.bench_function(BenchmarkId::new("import", subject.name), |b| {
        b.iter(|| {
            ImportedModel::import(black_box(&subject.path), &subject.options).map(|model| model.graph().node_count())
        });
    });
    group.bench_function(BenchmarkId::new("plan", subject.name), |b| {
        b.iter(|| target.plan(black_box(graph), Optimization::default()))
    });
    group.bench_function(BenchmarkId::new("schedule", subject.name), |b| {
        b.iter(|| target.compile(black_box(graph), Optimization::default()).map(|program| program.report().cycles));
    });
    group.bench_function(BenchmarkId::new("evaluate", subject.name), |b| {
        b.iter(|| tcc_ir::evaluate(graph, black_box(&inputs)));
    });
    group.bench_function(BenchmarkId::new("simulate", subject.name), |b| {
        b.iter(|| program.simulate(black_box(&weights), &inputs).map(|simulation| simulation.cycles));
    });
    group.finish();
    Ok(())
}

/// Optimises narrow encoders and decoders of 1 to 96 layers. Equal layers are optimised once: what grows with depth is
/// cutting the graph into blocks, replaying them and assembling the plan.
fn measure_depth(criterion: &mut Criterion, folder: &Path) -> Result<(), Box<dyn Error>> {
    let target = systolic()?;
    let mut group = criterion.benchmark_group("optimize by depth");
    for layers in [1, 12, 24, 48, 96] {
        let path = folder.join(format!("depth-{layers}.onnx"));
        if !path.exists() {
            // Search does not look at weights; narrow ones keep the file small.
            let narrow = Bert { layers, hidden: 128, heads: 2, intermediate: 512, vocabulary: 1000, ..Bert::BASE };
            narrow.write(1, 128, &path)?;
        }
        let encoder = ImportedModel::import(&path, &ImportOptions::default())?;
        let decoder = tcc_passes::clean_up(&tcc_ir::text::parse(&decoder::decoder(layers))?);
        for (name, graph) in [("encoder", encoder.graph()), ("decoder", &decoder)] {
            group.bench_function(BenchmarkId::new(name, layers), |b| {
                b.iter(|| target.plan(black_box(graph), Optimization::default()))
            });
        }
    }
    group.finish();
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bert-base");
    std::fs::create_dir_all(&folder)?;
    let full = folder.join("model.onnx");
    if !full.exists() {
        Bert::BASE.write(1, 128, &full)?;
    }
    let small = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/bert.legacy/model.onnx");
    let bound = [("batch".to_owned(), 1), ("sequence".to_owned(), 16)];
    let subjects = [
        Subject {
            name: "bert.legacy",
            path: small,
            options: ImportOptions { dims: bound.into(), ..ImportOptions::default() },
        },
        Subject { name: "bert-base", path: full, options: ImportOptions::default() },
    ];
    let mut criterion = Criterion::default().configure_from_args();
    for subject in &subjects {
        measure(&mut criterion, subject)?;
    }
    measure_depth(&mut criterion, &folder)?;
    criterion.final_summary();
    Ok(())
}
