//! `tcc inspect --plan`: the kernels that a model becomes, without search and by the optimiser.

use serde::Serialize;
use tcc::Compiler;
use tcc::onnx::tensor::Weights;
use tcc_passes::{KernelOutline, Outline};
use tcc_targets::Optimization;

use super::arguments::{Format, InspectArguments};
use super::failure::{Exit, Failure};
use super::page::{Cell, Page, Section};
use super::progress::Progress;
use super::{build, print, print_json, report_page, units};

/// What a model becomes.
#[derive(Serialize)]
struct Plans {
    model: String,
    machine: String,
    target: &'static str,
    /// Kernels of the plan without search.
    kernels_before: usize,
    /// Kernels of the optimiser's plan.
    kernels_after: usize,
    before: Outline,
    after: Outline,
}

/// Shows what a model becomes.
pub fn run(arguments: &InspectArguments) -> Result<Exit, Failure> {
    let progress = Progress::new();
    let compiler = Compiler::for_target(&arguments.target)?;
    progress.stage("reading the model");
    let model = build::import(&arguments.model, &arguments.shapes, Weights::Load)?;
    let samples = build::samples(&arguments.model, &model, &arguments.quantization)?;
    let model = build::quantized(compiler.with_model(model), &arguments.quantization, &samples, &progress)?;
    progress.stage("making the plans");
    let (before, after) = (model.outline(Optimization::None)?, model.outline(Optimization::default())?);
    let machine = compiler.machine();
    let plans = Plans {
        model: model.graph().name().to_string(),
        machine: machine.name.clone(),
        target: machine.kind.name(),
        kernels_before: before.kernel_count(),
        kernels_after: after.kernel_count(),
        before,
        after,
    };
    drop(progress);
    match arguments.format.format {
        Format::Text => print(&page(&plans).to_text()),
        Format::Json => print_json(&plans),
    }
}

fn page(plans: &Plans) -> Page {
    let Plans { model, machine, target, before, after, .. } = plans;
    Page {
        title: format!("{model} on {machine} ({target})"),
        sections: vec![
            Section::lines("", [summary(plans)]),
            blocks(before, after),
            kernels("without search", before),
            kernels("by the optimiser", after),
        ],
    }
}

/// How many kernels there are before and after, in all and in what occurs most often.
fn summary(plans: &Plans) -> String {
    let Plans { kernels_before, kernels_after, before, after, .. } = plans;
    format!("{kernels_before} kernels without search, {kernels_after} by the optimiser{}", layers(before, after))
}

/// What is to be said of the blocks that repeat most often: together they are a layer.
fn layers(before: &Outline, after: &Outline) -> String {
    let repeats = after.blocks.iter().map(|block| block.repeats).max().unwrap_or(1);
    if repeats < 2 {
        return String::new();
    }
    let layer = after.blocks.iter().enumerate().filter(|(_, block)| block.repeats == repeats).map(|(number, _)| number);
    let (mut least, mut most) = (0, 0);
    for block in layer {
        most += before.kernels_in(block);
        least += after.kernels_in(block);
    }
    format!("; {} and {} in each of {repeats} layers", each(most, repeats), each(least, repeats))
}

/// How many of `count` there are in one of `repeats` places, which need not be the same.
fn each(count: usize, repeats: usize) -> String {
    match count.checked_rem(repeats) {
        Some(0) => (count / repeats).to_string(),
        _ => units::number(count as f64 / repeats.max(1) as f64),
    }
}

fn blocks(before: &Outline, after: &Outline) -> Section {
    let rows = after.blocks.iter().enumerate().map(|(number, block)| {
        let cost: Vec<u64> = after
            .kernels
            .iter()
            .filter(|kernel| kernel.block == Some(number))
            .filter_map(|kernel| kernel.cost)
            .collect();
        vec![
            Cell::text(&block.name),
            Cell::Number(units::integer(block.repeats as u64)),
            Cell::Number(each(before.kernels_in(number), block.repeats)),
            Cell::Number(each(after.kernels_in(number), block.repeats)),
            Cell::Number(units::integer(cost.iter().sum())),
        ]
    });
    Section {
        title: "blocks: kernels before and after, each time".to_owned(),
        head: vec!["block", "repeats", "before", "after", "cost"],
        rows: rows.collect(),
    }
}

fn kernels(title: &str, outline: &Outline) -> Section {
    let block = |kernel: &KernelOutline| kernel.block.map_or_else(String::new, |block| (block + 1).to_string());
    let has_costs = outline.kernels.iter().any(|kernel| kernel.cost.is_some());
    let mut head = vec!["block", "kernel", "repeats", "writes", "operators", "nodes of the model"];
    if has_costs {
        head.insert(3, "cost");
    }
    let rows = outline.kernels.iter().map(|kernel| {
        let mut row = vec![
            Cell::Number(block(kernel)),
            Cell::text(kernel.kernels.first().map_or("", String::as_str)),
            Cell::Number(units::integer(kernel.kernels.len() as u64)),
            Cell::text(kernel.results.join(" ")),
            Cell::text(kernel.operators.join(" ")),
            Cell::text(report_page::origins(&kernel.nodes)),
        ];
        if has_costs {
            row.insert(3, Cell::Number(kernel.cost.map_or_else(|| "-".to_owned(), units::integer)));
        }
        row
    });
    Section { title: format!("{title}: {} kernels", outline.kernel_count()), head, rows: rows.collect() }
}
