//! Full-size models on FPGAs: cycles next to the lower bound, what they take of the part, and what binds. The table is
//! `targets/fpga/FULL_SIZE.md`.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

use std::fmt::Write as _;
use std::path::Path;

use tcc::Compiler;
use tcc::onnx::import::ImportOptions;
use tcc::onnx::tensor::Weights;
use tcc_targets::Report;

/// How products are quantised.
#[derive(Clone, Copy)]
enum Quantised {
    /// Products of 8-bit integers.
    Int8,
    /// Weights of 4 bits.
    Int4,
}

/// A model: its folder, how it is quantised, what is run, its free dimensions, the machine, and the most that its cycles may be of the bound.
type Case = (&'static str, Quantised, &'static str, &'static [(&'static str, usize)], &'static str, f64);

const BERT: &str = "bert-base.legacy";
const GPT2: &str = "gpt2-small-kv.legacy";
const LLAMA: &str = "llama-3.2-1b-kv.fp16.dynamo";

const TOKENS: &[(&str, usize)] = &[("batch", 1), ("sequence", 128)];
const AFTER_127: &[(&str, usize)] =
    &[("batch", 1), ("sequence", 1), ("past_sequence_length", 127), ("total_sequence_length", 128)];
const AFTER_511: &[(&str, usize)] =
    &[("batch", 1), ("sequence", 1), ("past_sequence_length", 511), ("total_sequence_length", 512)];
const AFTER_1023: &[(&str, usize)] =
    &[("batch", 1), ("sequence", 1), ("past_sequence_length", 1023), ("total_sequence_length", 1024)];
const AFTER_2047: &[(&str, usize)] =
    &[("batch", 1), ("sequence", 1), ("past_sequence_length", 2047), ("total_sequence_length", 2048)];

const CASES: [Case; 7] = [
    (BERT, Quantised::Int8, "bert-base int8, 128 tokens", TOKENS, "u280", 6.0),
    (GPT2, Quantised::Int8, "gpt2 int8, a token after 127", AFTER_127, "u280", 1.6),
    (LLAMA, Quantised::Int4, "Llama-3.2-1B int4, a token after 127", AFTER_127, "u280", 1.2),
    (LLAMA, Quantised::Int4, "Llama-3.2-1B int4, a token after 511", AFTER_511, "u280", 1.2),
    (LLAMA, Quantised::Int4, "Llama-3.2-1B int4, a token after 1,023", AFTER_1023, "u280", 1.2),
    (LLAMA, Quantised::Int4, "Llama-3.2-1B int4, a token after 2,047", AFTER_2047, "u280", 1.4),
    (LLAMA, Quantised::Int4, "Llama-3.2-1B int4, a token after 1,023", AFTER_1023, "u250", 1.2),
];

fn report((folder, quantised, _, dims, machine, _): Case) -> Report {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/topologies").join(folder).join("model.onnx");
    let dims = dims.iter().map(|&(name, extent)| (name.to_owned(), extent)).collect();
    let options = ImportOptions { dims, weights: Weights::Absent, ..ImportOptions::default() };
    let model = Compiler::for_target(machine).unwrap().import(&path, &options).unwrap();
    let model = match quantised {
        Quantised::Int8 => model.quantize(&[]).unwrap(),
        Quantised::Int4 => model.quantize_weights().unwrap(),
    };
    model.compile().unwrap().report().clone()
}

/// What a report says of the part: what the design takes, and what binds.
fn taken(report: &Report) -> (String, String) {
    let note = report.notes.iter().find_map(|note| note.strip_prefix("the design takes ")).unwrap();
    let (taken, rest) = note.split_once(" that it may of ").unwrap();
    let (_, binds) = rest.split_once("; ").unwrap();
    (taken.to_owned(), binds.trim_end_matches('.').to_owned())
}

#[test]
fn cycles_are_close_to_the_bound() {
    let mut text = "# Full-size models on FPGAs\n\n\
        Batch 1, built without weights (`tests/topologies`), quantised by `tcc build --quantize`. \
        `UPDATE_FULL_SIZE=1 cargo test --release --test fpga_full_size` writes this page.\n\n\
        The bound is the larger of multiply-accumulates over the peak of all DSP slices, and of bytes of weights and caches over the \
        peak of the memory, of which long bursts are assumed to reach a share that the machine file says. Nothing here was \
        measured on a part.\n\n\
        | model | part | cycles | ms | tokens/s | bound | ratio | what the design takes | what binds |\n\
        |---|---|--:|--:|--:|--:|--:|---|---|\n"
        .to_owned();
    let mut failures = Vec::new();
    for case in CASES {
        let (.., name, _, machine, most) = case;
        let report = report(case);
        let (cycles, bound) = (report.cycles, report.lower_bound_cycles);
        let ratio = cycles as f64 / bound as f64;
        if ratio > most {
            failures.push(format!("{name} on {machine}: {cycles} cycles are {ratio:.3} of the bound"));
        }
        let (taken, binds) = taken(&report);
        let tokens = if name.contains("a token") { format!("{:.0}", 1.0 / report.seconds) } else { "-".to_owned() };
        let _ = writeln!(
            text,
            "| {name} | {machine} | {cycles} | {:.2} | {tokens} | {bound} | {ratio:.2} | {taken} | {binds} |",
            1e3 * report.seconds
        );
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("targets/fpga/FULL_SIZE.md");
    if std::env::var_os("UPDATE_FULL_SIZE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let held = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(held, text, "run `UPDATE_FULL_SIZE=1 cargo test --release --test fpga_full_size`");
}
