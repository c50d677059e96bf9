//! Real exports through the FPGA target: built, executed on its simulator, and compared with the reference evaluation and with
//! ONNX Runtime. What the emitted programs compute when they are compiled is held in `hls.rs`.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

mod common;

use std::fmt::Write as _;
use std::path::Path;

use common::models::{bounds_of_halves, load, name, run_all, shipped};
use tcc::Compiler;
use tcc_targets::Target as _;
use tcc_targets::fpga::Fpga;

#[test]
fn every_model_runs() {
    let compiler = Compiler::for_target("u280").unwrap();
    let target = Fpga::new(compiler.machine().clone()).unwrap();
    run_all(
        &compiler,
        |build, weights, inputs| {
            // As it is read from its file.
            target.decode(&build.program().encode())?.simulate(weights, inputs)
        },
        |name| bounds_of_halves(compiler.machine(), name),
    );
}

/// What each model takes of a large part and of a small one, of what it may take: `targets/fpga/RESOURCES.md`.
#[test]
fn the_table_of_resources_is_up_to_date() {
    let mut text = "# What models take of a part\n\n\
        Models in `tests/models` with their first set of inputs; `UPDATE_RESOURCES=1 cargo test --test fpga` writes this page. Of \
        each resource a design may take the share that the machine's file leaves to it; what is told here is of that share. In a \
        shared design a controller calls functions one after the other; in a streaming design each call is a stage of its own.\n\n\
        | model | part | style | cycles | LUT | FF | DSP | BRAM18 | URAM |\n|---|---|---|--:|--:|--:|--:|--:|--:|\n"
        .to_owned();
    for machine in ["u280", "kv260"] {
        let compiler = Compiler::for_target(machine).unwrap();
        for folder in shipped() {
            let (model, _) = load(&folder, 0).unwrap();
            // Writing to a string cannot fail.
            let _ = match compiler.with_model(model).compile() {
                Ok(build) => {
                    let schedule = build.program().schedule_text();
                    let line = schedule.lines().nth(1).unwrap().trim_start_matches("; ");
                    let amounts = line.split(", ").map(|part| {
                        let words: Vec<&str> = part.split(' ').collect();
                        let (used, budget): (u64, u64) = (words[0].parse().unwrap(), words[2].parse().unwrap());
                        assert!(used <= budget, "{} takes {part} of {machine}", name(&folder));
                        let share = if budget == 0 { 0.0 } else { 100.0 * used as f64 / budget as f64 };
                        format!("{used} ({share:.0} %)")
                    });
                    let amounts: Vec<String> = amounts.collect();
                    let cycles = build.report().cycles;
                    let is_streaming = schedule.contains("\n; stages that run at the same time");
                    let style = if is_streaming { "streaming" } else { "shared" };
                    writeln!(text, "| {} | {machine} | {style} | {cycles} | {} |", name(&folder), amounts.join(" | "))
                }
                // A small part may be too small, a large one not.
                Err(error) if machine == "kv260" => {
                    let error = error.to_string();
                    let needs = error.split_once(" needs ").and_then(|(_, rest)| rest.split_once(" of ")).unwrap().0;
                    writeln!(text, "| {} | {machine} | | needs {needs} | | | | | |", name(&folder))
                }
                Err(error) => panic!("{}: {error}", name(&folder)),
            };
        }
    }
    assert!(text.contains("| shared |") && text.contains("| streaming |"), "a style is never taken");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("targets/fpga/RESOURCES.md");
    if std::env::var_os("UPDATE_RESOURCES").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let held = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(held, text, "run `UPDATE_RESOURCES=1 cargo test --test fpga`");
}
