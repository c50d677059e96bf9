//! `tcc inspect`.

use tcc::inspection::{Inspection, ModelPort};
use tcc::onnx::model;

use super::arguments::{Format, InspectArguments};
use super::failure::{Exit, Failure};
use super::page::{Cell, Page, Section};
use super::{plan, print, print_json, units};

/// Shows what a model is, or what it becomes.
pub fn run(arguments: &InspectArguments) -> Result<Exit, Failure> {
    if arguments.plan {
        return plan::run(arguments);
    }
    if !arguments.shapes.dims.is_empty() || arguments.shapes.shapes_from.is_some() {
        return Err(Failure::usage("--dim and --shapes-from are of no use here without --plan"));
    }
    if arguments.quantization.quantize.is_some() {
        return Err(Failure::usage("--quantize is of no use here without --plan"));
    }
    let inspection = Inspection::of(&model::load(&arguments.model)?);
    match arguments.format.format {
        Format::Text => print(&page(&inspection).to_text()),
        Format::Json => print_json(&inspection),
    }
}

fn page(inspection: &Inspection) -> Page {
    let opsets = inspection.opsets.iter().map(|(domain, version)| format!("{domain} {version}"));
    let parameters = format!("{}, {}", units::count(inspection.parameters), units::bytes(inspection.parameter_bytes));
    let facts = Section::facts(
        "",
        [
            ("producer", inspection.producer.clone()),
            ("IR version", inspection.ir_version.to_string()),
            ("opsets", opsets.collect::<Vec<_>>().join(", ")),
            ("parameters", parameters),
            ("nodes", units::integer(inspection.nodes as u64)),
            (
                "free dimensions",
                match inspection.free_dims.as_slice() {
                    [] => "none".to_owned(),
                    names => names.join(", "),
                },
            ),
        ],
    );
    let mut operators: Vec<_> = inspection.operators.iter().collect();
    // Stable: equals stay in the order of their names.
    operators.sort_by_key(|&(_, &count)| std::cmp::Reverse(count));
    let operators = operators.into_iter().map(|(name, &count)| {
        let note = if inspection.unsupported.contains_key(name) { "unsupported" } else { "" };
        vec![Cell::text(name), Cell::Number(units::integer(count as u64)), Cell::text(note)]
    });
    let unsupported =
        inspection.unsupported.iter().map(|(operator, nodes)| vec![Cell::text(operator), Cell::text(nodes.join(", "))]);
    let title = if inspection.name.is_empty() { "(the graph has no name)" } else { &inspection.name };
    Page {
        title: title.to_owned(),
        sections: vec![
            facts,
            ports("inputs", &inspection.inputs),
            ports("outputs", &inspection.outputs),
            Section { title: "operators".to_owned(), head: Vec::new(), rows: operators.collect() },
            Section { title: "unsupported".to_owned(), head: vec!["operator", "nodes"], rows: unsupported.collect() },
        ],
    }
}

fn ports(title: &str, ports: &[ModelPort]) -> Section {
    let rows = ports.iter().map(|port| {
        let dims = port.dims.as_ref().map_or_else(|| "[?]".to_owned(), |dims| format!("[{}]", dims.join(", ")));
        vec![Cell::text(&port.name), Cell::text(format!("{}{dims}", port.dtype))]
    });
    Section { title: title.to_owned(), head: Vec::new(), rows: rows.collect() }
}
