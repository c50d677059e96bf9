//! `tcc compare`.

use tcc::Compiler;
use tcc::onnx::tensor::Weights;
use tcc_targets::Report;

use super::arguments::{CompareArguments, Format};
use super::failure::{Exit, Failure};
use super::page::{Cell, Page, Section};
use super::progress::Progress;
use super::{build, eprint_line, print, print_json, units};

/// Compiles a model for several targets, the fastest first.
pub fn run(arguments: &CompareArguments) -> Result<Exit, Failure> {
    let progress = Progress::new();
    // A misspelt target is told before anything that takes time.
    let compilers = arguments.targets.iter().map(|name| Compiler::for_target(name)).collect::<Result<Vec<_>, _>>()?;
    progress.stage("reading the model");
    let model = build::import(&arguments.model, &arguments.shapes, Weights::Load)?;
    let samples = build::samples(&arguments.model, &model, &arguments.quantization)?;
    let mut reports = Vec::new();
    let mut failures = Vec::new();
    for compiler in &compilers {
        let machine = &compiler.machine().name;
        let model = compiler.with_model(model.clone());
        let built = build::quantized(model, &arguments.quantization, &samples, &progress).and_then(|model| {
            progress.stage(&format!("compiling for {machine}"));
            Ok(model.compile()?)
        });
        match built {
            Ok(build) => reports.push(build.report()),
            Err(error) => failures.push(format!("error: {machine}: {error}")),
        }
    }
    drop(progress);
    // Stable: equals stay in the order they were asked for.
    reports.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    match arguments.format.format {
        Format::Text => print(&page(&reports).to_text())?,
        Format::Json => print_json(&reports)?,
    };
    failures.iter().for_each(|failure| eprint_line(failure));
    Ok(if failures.is_empty() { Exit::Done } else { Exit::Fault })
}

fn page(reports: &[Report]) -> Page {
    let fastest = reports.first().map_or(0.0, |report| report.seconds);
    let rows = reports.iter().map(|report| {
        vec![
            Cell::text(&report.machine),
            Cell::Number(units::seconds(report.seconds)),
            Cell::Number(format!("{:.2}x", if fastest > 0.0 { report.seconds / fastest } else { 1.0 })),
            Cell::Number(units::integer(report.cycles)),
            Cell::Number(units::hertz(report.clock_hz)),
            Cell::Number(units::percent(report.utilization)),
            Cell::Number(units::integer(report.lower_bound_cycles)),
            Cell::Number(units::bytes(report.dram_bytes)),
            Cell::Number(report.energy.as_ref().map_or_else(|| "-".to_owned(), |energy| units::joules(energy.joules))),
            Cell::Number(report.host_ops.len().to_string()),
        ]
    });
    let head = vec!["machine", "time", "", "cycles", "clock", "utilized", "lower bound", "DRAM", "energy", "on host"];
    let title = reports.first().map(|report| report.model.clone()).unwrap_or_default();
    Page { title, sections: vec![Section { title: String::new(), head, rows: rows.collect() }] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::report_page::tests::report;

    #[test]
    fn energy_is_compared_where_it_is_known() {
        let text = page(&[report("known", Some(0.0125)), report("unknown", None)]).to_text();
        let line = |machine: &str| text.lines().find(|line| line.trim_start().starts_with(machine)).unwrap_or_default();
        assert!(line("known").contains("12.5 mJ"), "{text}");
        assert!(line("unknown").contains(" - "), "{text}");
    }
}
