//! A report as a person reads it.

use tcc_targets::Report;
use tcc_targets::report::{Certainty, KernelReport};

use super::page::{Cell, Page, Section};
use super::units;

/// How many kernels are shown; `report.json` has all.
const KERNELS: usize = 10;

/// Lays out a report.
pub fn page(report: &Report) -> Page {
    let sections = vec![
        facts(report),
        breakdown(report),
        memory(report),
        energy(report),
        kernels(report),
        optimizer(report),
        Section::lines("left to the host", report.host_ops.iter().cloned()),
        Section::lines("notes", report.notes.iter().cloned()),
    ];
    Page { title: format!("{} on {} ({})", report.model, report.machine, report.target), sections }
}

fn facts(report: &Report) -> Section {
    let ratio = report.cycles as f64 / report.lower_bound_cycles.max(1) as f64;
    Section::facts(
        "",
        [
            ("cycles", units::integer(report.cycles)),
            ("time", format!("{} at {}", units::seconds(report.seconds), units::hertz(report.clock_hz))),
            ("multiply-accumulates", units::count(report.macs)),
            ("utilization", format!("{} of peak", units::percent(report.utilization))),
            (
                "lower bound",
                format!("{} cycles; this is {ratio:.2} times that", units::integer(report.lower_bound_cycles)),
            ),
            ("DRAM traffic", units::bytes(report.dram_bytes)),
        ]
        .into_iter()
        .chain(report.energy.as_ref().map(|energy| {
            // Watts while it runs say more than joules alone.
            let watts = if report.seconds > 0.0 { energy.joules / report.seconds } else { 0.0 };
            ("energy", format!("{}, or {}; an estimate", units::joules(energy.joules), units::watts(watts)))
        })),
    )
}

fn breakdown(report: &Report) -> Section {
    let rows = report.breakdown.iter().map(|part| {
        let share = share(part.cycles, report.cycles);
        vec![
            Cell::text(&part.name),
            Cell::Number(units::integer(part.cycles)),
            Cell::Number(units::percent(share)),
            Cell::Bar(share),
            Cell::text(match part.kind {
                Certainty::Exact => "exact",
                Certainty::Modelled => "modelled",
                Certainty::Assumed => "assumed",
            }),
        ]
    });
    Section {
        title: "where the cycles go".to_owned(),
        head: vec!["", "cycles", "share", "", "certainty"],
        rows: rows.collect(),
    }
}

fn memory(report: &Report) -> Section {
    let rows = report.memory.iter().map(|memory| {
        let share = share(memory.peak_bytes, memory.capacity_bytes);
        vec![
            Cell::text(&memory.name),
            Cell::Number(units::bytes(memory.peak_bytes)),
            Cell::Number(units::bytes(memory.capacity_bytes)),
            Cell::Number(units::percent(share)),
            Cell::Bar(share),
        ]
    });
    Section { title: "memory".to_owned(), head: vec!["", "peak", "capacity", "used", ""], rows: rows.collect() }
}

fn energy(report: &Report) -> Section {
    let Some(energy) = &report.energy else { return Section::default() };
    let rows = energy.parts.iter().map(|part| {
        let share = if energy.joules > 0.0 { part.joules / energy.joules } else { 0.0 };
        vec![
            Cell::text(&part.name),
            Cell::Number(units::count(part.count)),
            Cell::Number(units::number(part.picojoules_each)),
            Cell::Number(units::joules(part.joules)),
            Cell::Number(units::percent(share)),
            Cell::Bar(share),
        ]
    });
    Section {
        title: format!("energy: {}", energy.basis),
        head: vec!["", "count", "pJ each", "energy", "share", ""],
        rows: rows.collect(),
    }
}

fn kernels(report: &Report) -> Section {
    let mut order: Vec<&KernelReport> = report.kernels.iter().collect();
    // Stable: equals stay in the order of the program.
    order.sort_by_key(|kernel| std::cmp::Reverse(kernel.cycles));
    let rows = order.into_iter().take(KERNELS).map(|kernel| {
        vec![
            Cell::text(&kernel.name),
            Cell::Number(units::integer(kernel.cycles)),
            Cell::Number(units::percent(share(kernel.cycles, report.cycles))),
            Cell::Number(units::percent(kernel.utilization)),
            Cell::text(&kernel.bound_by),
            Cell::text(origins(&kernel.origins)),
        ]
    });
    let title = match report.kernels.len() {
        count if count > KERNELS => format!("kernels: the {KERNELS} longest of {count}"),
        _ => "kernels".to_owned(),
    };
    Section {
        title,
        head: vec!["", "cycles", "share", "utilized", "bound by", "nodes of the model"],
        rows: rows.collect(),
    }
}

/// The first of the nodes that a kernel computes, shortened from the left, where exporters put the module's path.
pub fn origins(origins: &[String]) -> String {
    const LONGEST: usize = 44;
    let Some(first) = origins.first() else { return String::new() };
    let length = first.chars().count();
    let mut text: String = if length > LONGEST {
        "…".chars().chain(first.chars().skip(length - LONGEST + 1)).collect()
    } else {
        first.clone()
    };
    if origins.len() > 1 {
        text += &format!(" and {} more", origins.len() - 1);
    }
    text
}

fn optimizer(report: &Report) -> Section {
    let optional = |value: Option<f64>, show: fn(f64) -> String| value.map_or_else(|| "-".to_owned(), show);
    let rows = report.optimizer.iter().map(|block| {
        vec![
            Cell::text(&block.block),
            Cell::Number(units::integer(block.repeats)),
            Cell::Number(units::integer(block.e_nodes)),
            Cell::Number(units::number(block.cost)),
            Cell::Number(optional(block.bound, units::number)),
            Cell::Number(optional(block.gap, units::percent)),
            Cell::text(&block.stopped),
        ]
    });
    Section {
        title: "optimizer".to_owned(),
        head: vec!["block", "repeats", "e-nodes", "cost", "bound", "gap", "stopped"],
        rows: rows.collect(),
    }
}

fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

#[cfg(test)]
pub(super) mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use tcc_targets::report::{Energy, EnergyPart};

    use super::*;

    /// A report as one of an earlier version may be, of a machine with or without figures for energy.
    pub fn report(machine: &str, joules: Option<f64>) -> Report {
        let text = r#"{"model": "m", "target": "lpu", "machine": "", "clock_hz": 1000000, "cycles": 1000, "seconds": 0.001,
            "macs": 0, "utilization": 0.0, "lower_bound_cycles": 1, "dram_bytes": 0, "breakdown": [], "memory": [],
            "optimizer": [], "host_ops": [], "kernels": [], "notes": []}"#;
        let energy = joules.map(|joules| Energy {
            joules,
            parts: vec![EnergyPart { name: "vectors read".to_owned(), count: 2000, picojoules_each: 400.0, joules }],
            basis: "an estimate".to_owned(),
        });
        Report { machine: machine.to_owned(), energy, ..serde_json::from_str(text).unwrap() }
    }

    #[test]
    fn energy_is_shown_where_it_is_known() {
        let text = page(&report("a", Some(0.0125))).to_text();
        assert!(text.contains("12.5 mJ, or 12.5 W; an estimate\n"), "{text}");
        assert!(text.contains("\nenergy: an estimate\n"), "{text}");
        assert!(text.lines().any(|line| line.contains("vectors read") && line.contains("100.0 %")), "{text}");
        assert!(!page(&report("b", None)).to_text().contains("energy"));
    }
}
