//! Full-size models on the machines for floats: cycles next to the lower bound, and what the rest is. The table is
//! `targets/systolic/FULL_SIZE.md`.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

use std::fmt::Write as _;
use std::path::Path;

use tcc::Compiler;
use tcc::onnx::import::ImportOptions;
use tcc::onnx::tensor::Weights;
use tcc_targets::Report;

/// A model: its folder, what is run, its free dimensions.
type Model = (&'static str, &'static str, &'static [(&'static str, usize)]);

const MODELS: [Model; 6] = [
    ("bert-base.legacy", "bert-base, 128 tokens", &[("batch", 1), ("sequence", 128)]),
    (
        "gpt2-small-kv.legacy",
        "gpt2, a token after 127",
        &[("batch", 1), ("sequence", 1), ("past_sequence_length", 127), ("total_sequence_length", 128)],
    ),
    (
        "llama-3.2-1b-kv.fp16.dynamo",
        "Llama-3.2-1B, 128 tokens",
        &[("batch", 1), ("sequence", 128), ("past_sequence_length", 0), ("total_sequence_length", 128)],
    ),
    (
        "llama-3.2-1b-kv.fp16.dynamo",
        "Llama-3.2-1B, a token after 1024",
        &[("batch", 1), ("sequence", 1), ("past_sequence_length", 1024), ("total_sequence_length", 1025)],
    ),
    ("vit-base.legacy", "vit-base", &[("batch", 1)]),
    ("whisper-small-encoder.dynamo", "whisper-small, encoder", &[("batch", 1)]),
];

/// The ratio of cycles to the lower bound that is allowed. On four arrays of 128 rows that cannot be divided, products of
/// attention with 64 features leave half of the rows idle; whisper's encoder spends a quarter of its work there.
fn most(machine: &str, folder: &str) -> f64 {
    match (machine, folder) {
        ("tpu-v5e", "whisper-small-encoder.dynamo") => 1.32,
        _ => 1.10,
    }
}

fn report(machine: &str, (folder, _, dims): Model) -> Report {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/topologies").join(folder).join("model.onnx");
    let dims = dims.iter().map(|&(name, extent)| (name.to_owned(), extent)).collect();
    let options = ImportOptions { dims, weights: Weights::Absent, ..ImportOptions::default() };
    Compiler::for_target(machine).unwrap().import(&path, &options).unwrap().compile().unwrap().report().clone()
}

#[test]
fn cycles_are_close_to_the_bound() {
    let mut text = "# Full-size models on the systolic machines\n\n\
        Batch 1, as exported, built without weights (`tests/topologies`). \
        `UPDATE_FULL_SIZE=1 cargo test --release --test full_size` writes this page.\n\n\
        The bound is the larger of multiply-accumulates over the peak of the arrays, and of bytes that must be read or written \
        over the bandwidth of DRAM. What is above it is, for models that the arrays bound, passes that do not fill them \
        (*passes*: idle rows or columns, few rows) and cycles in which they stand still (*idle*); for models that DRAM bounds, \
        bytes that are read beyond those (*traffic*: values handed over through DRAM, parts of bursts) and cycles in which \
        nothing is read (*idle*). All are shares of the bound. The last columns are the cycles in which the arrays stood \
        still, by the first unit in this order that was busy, as shares of all cycles.\n\n\
        Products of attention with heads of 64 features fill half of an array of 128 rows that does not divide. Nothing says \
        that those of TPU v5e do; whisper-small has a quarter of its multiply-accumulates there, so that no schedule comes below \
        1.25 of the bound on `tpu-v5e`. The halves of `systolic-128` work on two heads or two tiles of keys at a time.\n"
        .to_owned();
    let mut failures = Vec::new();
    for machine in ["systolic-128", "tpu-v5e"] {
        let _ = write!(
            text,
            "\n## {machine}\n\n\
             | model | cycles | bound | ratio | bound by | above it | vector | load | store | preload | latency |\n\
             |---|--:|--:|--:|---|---|--:|--:|--:|--:|--:|\n"
        );
        for model in MODELS {
            let (folder, name, _) = model;
            let report = report(machine, model);
            let (cycles, bound) = (report.cycles, report.lower_bound_cycles);
            let ratio = cycles as f64 / bound as f64;
            if ratio > most(machine, folder) {
                failures.push(format!("{name} on {machine}: {cycles} cycles are {ratio:.3} of the bound"));
            }
            let busy = |unit: &str| report.units.iter().find(|own| own.name == unit).unwrap().busy_cycles;
            let share = |part: u64| 100.0 * part as f64 / bound as f64;
            let work = report.utilization * cycles as f64 / bound as f64 > 0.999;
            let (unit, by, more) = if work { ("array", "arrays", "passes") } else { ("load", "DRAM", "traffic") };
            let part = |name: &str| {
                let part = report.breakdown.iter().find(|part| part.name == name).unwrap();
                format!("{:.1} %", 100.0 * part.cycles as f64 / cycles as f64)
            };
            let _ = writeln!(
                text,
                "| {name} | {cycles} | {bound} | {ratio:.3} | {by} | {more} {:.1} %, idle {:.1} % | {} | {} | {} | {} | {} |",
                share(busy(unit).saturating_sub(bound)),
                share(cycles - busy(unit)),
                part("vector"),
                part("load"),
                part("store"),
                part("preload"),
                part("latency"),
            );
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("targets/systolic/FULL_SIZE.md");
    if std::env::var_os("UPDATE_FULL_SIZE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let held = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(held, text, "run `UPDATE_FULL_SIZE=1 cargo test --release --test full_size`");
}
