//! GPUs against measurements of others, and full-size models next to their lower bounds. The tables are
//! `targets/simt/COMPARISONS.md`.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

mod common;

use std::fmt::Write as _;
use std::path::Path;

use common::Dim;
use tcc::onnx::import::ImportOptions;
use tcc::onnx::tensor::Weights;
use tcc::{Build, Compiler};

/// ONNX's number of binary16.
const F16: i32 = 10;

/// Rows and columns of the second factor of measured products.
const SIDE: i64 = 12288;

/// Products of halves with a second factor of 12,288 by 12,288 on an A100, measured by Zhang et al., LLMCompass (ISCA 2024): rows
/// of the first factor, and milliseconds.
const MEASURED: [(i64, f64); 7] =
    [(64, 0.190), (128, 0.200), (256, 0.319), (512, 0.612), (1024, 1.199), (4096, 4.458), (16384, 17.03)];

/// What a prediction may be off by, in per cent: each, and on the mean.
const MOST: (f64, f64) = (20.0, 10.0);

fn product(rows: i64) -> Build {
    let port = |name: &str, dims: [i64; 2]| common::port_of(name, &dims.map(Dim::N), F16);
    let model = common::model(
        vec![port("a", [rows, SIDE]), port("b", [SIDE, SIDE])],
        vec![port("c", [rows, SIDE])],
        vec![common::node("MatMul", &["a", "b"], "c")],
        Vec::new(),
    );
    let folder = tempfile::tempdir().unwrap();
    let path = common::write_model(folder.path(), "product.onnx", &model);
    Compiler::for_target("a100").unwrap().import(&path, &ImportOptions::default()).unwrap().compile().unwrap()
}

/// A model: its folder, what is run, its free dimensions, and how many times its lower bound it takes at most on each machine.
type Model = (&'static str, &'static str, &'static [(&'static str, usize)], [f64; 2]);

const MACHINES: [&str; 2] = ["a100", "h100"];

/// What of a past of 1,023 tokens, and of a whole text, is computed.
const TOKEN: &[(&str, usize)] =
    &[("batch", 1), ("sequence", 1), ("past_sequence_length", 1023), ("total_sequence_length", 1024)];
const TEXT: &[(&str, usize)] =
    &[("batch", 1), ("sequence", 1024), ("past_sequence_length", 0), ("total_sequence_length", 1024)];

const MODELS: [Model; 6] = [
    ("bert-base.legacy", "bert-base, 128 tokens", &[("batch", 1), ("sequence", 128)], [4.5, 5.7]),
    ("gpt2-small-kv.legacy", "gpt2, a token after 1,023", TOKEN, [1.55, 1.75]),
    ("llama-3.2-1b-kv.fp16.dynamo", "Llama-3.2-1B, a token after 1,023", TOKEN, [1.2, 1.26]),
    ("llama-3.2-1b-kv.fp16.dynamo", "Llama-3.2-1B, 1,024 tokens", TEXT, [1.63, 2.43]),
    ("llama-3-8b-kv.fp16.dynamo", "Llama-3-8B, a token after 1,023", TOKEN, [1.15, 1.15]),
    ("llama-3-8b-kv.fp16.dynamo", "Llama-3-8B, 1,024 tokens", TEXT, [1.43, 2.13]),
];

fn full_size(machine: &str, (folder, _, dims, _): Model) -> Build {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/topologies").join(folder).join("model.onnx");
    let dims = dims.iter().map(|&(name, extent)| (name.to_owned(), extent)).collect();
    let options = ImportOptions { dims, weights: Weights::Absent, ..ImportOptions::default() };
    Compiler::for_target(machine).unwrap().import(&path, &options).unwrap().compile().unwrap()
}

#[test]
fn predictions_are_near_measurements() {
    let mut text = "# GPUs: measurements and full-size models\n\n\
        `UPDATE_COMPARISONS=1 cargo test --release --test simt_comparisons` writes this page.\n\n\
        ## Matrix products on an A100\n\n\
        Halves, M by 12,288 by 12,288. Measured: LLMCompass (ISCA 2024), with the vendor's kernels. Predicted: the kernels that `tcc` \
        emits, on its model of the machine. Nothing in the model is fitted to these rows.\n\n\
        | M | measured | predicted | off by | how |\n|--:|--:|--:|--:|---|\n"
        .to_owned();
    let mut failures = Vec::new();
    let mut all = 0.0;
    for (rows, measured) in MEASURED {
        let build = product(rows);
        let report = build.report();
        let predicted = report.seconds * 1e3;
        let off = 100.0 * (predicted - measured) / measured;
        all += off.abs() / MEASURED.len() as f64;
        if off.abs() > MOST.0 {
            failures.push(format!("{rows} rows: {predicted:.3} ms are {off:.1} % off"));
        }
        let tiling = &report.kernels[0].tiling;
        let (_, how) = tiling.split_once(" in ").unwrap_or(("", tiling));
        let _ = writeln!(text, "| {rows} | {measured:.3} ms | {predicted:.3} ms | {off:+.1} % | {how} |");
    }
    if all > MOST.1 {
        failures.push(format!("on the mean {all:.1} %"));
    }
    let _ = write!(
        text,
        "\nOn the mean they are off by {all:.1} %.\n\n## Full-size models\n\n\
        Batch 1, as exported, built without weights (`tests/topologies`). The bound is the larger of multiply-accumulates over the \
        peak of the matrix units for their type, and of bytes that must be read or written over the bandwidth of memory; what kernels \
        take is what the cycle model finds. Shares of time are those of kernels by what keeps them: the busiest unit or memory, \
        or *latency* where none is busy for half of the time; *launches* are assumed.\n"
    );
    for (place, machine) in MACHINES.into_iter().enumerate() {
        let _ = write!(
            text,
            "\n### {machine}\n\n| model | time | bound | ratio | launches | what bounds it |\n|---|--:|--:|--:|--:|---|\n"
        );
        for model in MODELS {
            let (_, name, _, most) = model;
            let build = full_size(machine, model);
            let report = build.report();
            let ratio = report.cycles as f64 / report.lower_bound_cycles as f64;
            if ratio > most[place] {
                failures.push(format!("{name} on {machine}: {ratio:.3} times the bound"));
            }
            let bound = report.lower_bound_cycles as f64 / report.clock_hz as f64 * 1e3;
            let mut parts: Vec<_> = report.breakdown.iter().filter(|part| part.cycles * 100 >= report.cycles).collect();
            parts.sort_by_key(|part| std::cmp::Reverse(part.cycles));
            let shares: Vec<String> = parts
                .iter()
                .map(|part| {
                    let what = part.name.strip_prefix("kernels bound by ").unwrap_or(&part.name);
                    format!("{what} {:.0} %", 100.0 * part.cycles as f64 / report.cycles as f64)
                })
                .collect();
            let launches = report.kernels.iter().filter(|kernel| kernel.cycles > 0).count();
            let time = report.seconds * 1e3;
            let _ = writeln!(
                text,
                "| {name} | {time:.3} ms | {bound:.3} ms | {ratio:.2} | {launches} | {} |",
                shares.join(", ")
            );
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("targets/simt/COMPARISONS.md");
    if std::env::var_os("UPDATE_COMPARISONS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let held = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(held, text, "run `UPDATE_COMPARISONS=1 cargo test --release --test simt_comparisons`");
}
