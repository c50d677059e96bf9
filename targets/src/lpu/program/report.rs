//! The report of a program.

use super::LpuProgram;
use super::parts::KernelPart;
use crate::lpu::energy::estimate;
use crate::lpu::isa::Hemisphere;
use crate::lpu::summary::{KernelCycles, Summary};
use crate::lpu::trace;
use crate::lpu::units::UnitKind;
use crate::optimizer;
use crate::report::{BreakdownPart, Certainty, KernelReport, MemoryUse, Report, UnitUse};

/// What is known of a program.
pub(super) fn report(program: &LpuProgram) -> Report {
    let LpuProgram { machine, facts, parts, .. } = program;
    let summary = program.summary();
    let cycles = summary.cycles;
    let vector = facts.vector() as u64;
    let kernels: Vec<KernelReport> =
        parts.kernels.iter().zip(&summary.kernels).map(|(part, counted)| kernel(program, part, counted)).collect();
    // Kernels may multiply bytes or halves, whose rates differ: what counts is the time that each needs at its rate.
    let needed: f64 = parts
        .kernels
        .iter()
        .zip(&summary.kernels)
        .map(|(part, counted)| part.macs as f64 / peak(program, counted) as f64)
        // The sum of nothing would be a negative zero.
        .fold(0.0, |sum, needed| sum + needed);
    let loads = 2 * u64::from(facts.mxm.planes) * u64::from(facts.mxm.load_streams);
    Report {
        model: parts.model.clone(),
        target: machine.kind.name().to_owned(),
        machine: machine.name.clone(),
        clock_hz: machine.clock_hz,
        cycles,
        seconds: cycles as f64 / machine.clock_hz as f64,
        macs: kernels.iter().fold(0, |sum, kernel| sum.saturating_add(kernel.macs)),
        utilization: share(needed, cycles),
        lower_bound_cycles: parts.work_cycles.max(parts.weight_vectors_multiplied.div_ceil(loads)),
        dram_bytes: 0,
        breakdown: breakdown(summary),
        units: units(program, summary),
        memory: vec![MemoryUse {
            name: "SRAM".to_owned(),
            peak_bytes: parts.used_vectors * vector,
            capacity_bytes: facts.memory_bytes(),
        }],
        energy: facts
            .energy
            .as_ref()
            .map(|costs| estimate(&machine.name, &parts.counts, costs, facts, cycles, machine.clock_hz)),
        optimizer: parts.blocks.iter().map(optimizer::report).collect(),
        host_ops: parts.host_ops.clone(),
        kernels,
        notes: notes(program, summary),
    }
}

/// Multiply-accumulates in a cycle of what a kernel multiplies.
fn peak(program: &LpuProgram, counted: &KernelCycles) -> u64 {
    match counted.rows {
        [0, halves] if halves > 0 => program.facts.half_macs_per_cycle(),
        _ => program.facts.byte_macs_per_cycle(),
    }
}

/// A share of so many cycles.
fn share(needed: f64, cycles: u64) -> f64 {
    if cycles == 0 { 0.0 } else { needed / cycles as f64 }
}

fn kernel(program: &LpuProgram, part: &KernelPart, counted: &KernelCycles) -> KernelReport {
    KernelReport {
        name: part.name.clone(),
        origins: part.origins.clone(),
        cycles: counted.cycles,
        macs: part.macs,
        dram_bytes: 0,
        bound_by: counted.binding().map_or("latency", UnitKind::name).to_owned(),
        utilization: share(part.macs as f64 / peak(program, counted) as f64, counted.cycles),
        tiling: part.tiling.clone(),
    }
}

fn breakdown(summary: &Summary) -> Vec<BreakdownPart> {
    let part = |name: &str, cycles| BreakdownPart { name: name.to_owned(), cycles, kind: Certainty::Exact };
    let counted = |kind: UnitKind| summary.attribution.kinds[kind.index()];
    let mut parts: Vec<_> = UnitKind::ALL.into_iter().map(|kind| part(kind.part(), counted(kind))).collect();
    let dispatched: u64 = UnitKind::ALL.into_iter().map(counted).sum();
    parts.push(part("latency", summary.cycles.saturating_sub(dispatched)));
    parts
}

fn units(program: &LpuProgram, summary: &Summary) -> Vec<UnitUse> {
    let unit = |name: String, busy_cycles| UnitUse { name, busy_cycles };
    let mut units = Vec::new();
    for kind in UnitKind::ALL {
        let busy = summary.attribution.busy[kind.index()];
        if kind == UnitKind::Vector {
            let alus = u64::from(program.facts.vxm.alus);
            units.push(unit(kind.name().to_owned(), busy[0]));
            units.push(unit(format!("{}, mean of {alus} ALUs", kind.name()), summary.alu_dispatches / alus));
        } else {
            let sides = Hemisphere::ALL.into_iter().zip(busy);
            units.extend(sides.map(|(side, busy)| unit(format!("{} {side}", kind.name()), busy)));
        }
    }
    units
}

/// What the figures rest on, in sentences.
fn notes(program: &LpuProgram, summary: &Summary) -> Vec<String> {
    let name = &program.machine.name;
    let mut notes = vec![
        "cycles are counted by executing the emitted program under the timing rules of targets/lpu/rtl/TIMING.md"
            .to_owned(),
        "a cycle counts for the first part of the breakdown that dispatches something in it; in cycles of latency nothing \
         is dispatched"
            .to_owned(),
        "inputs are in the SRAM before the first cycle and outputs after the last: transfers over PCIe or links between \
         chips are not counted"
            .to_owned(),
    ];
    if summary.kernels.iter().any(|kernel| kernel.rows[1] > 0) {
        notes.push(
            "floats are multiplied as f16 and added up in f32: what is beyond 65504 becomes infinite in products"
                .to_owned(),
        );
    }
    if program.parts.rounded_tables {
        notes.push(
            "large tables of f32 that are looked up are kept as f16: what is found in them is rounded".to_owned(),
        );
    }
    if program.parts.frugal {
        notes.push(
            "memory is short: floats of 32 bits that products and norms hand to each other are kept as f16".to_owned(),
        );
    }
    // The energies are told with the energy.
    let mut assumed = program.machine.assumed();
    assumed.retain(|field| !field.starts_with("lpu.energy."));
    notes.push(match assumed.as_slice() {
        [] => format!("the figures of {name} are those of its machine file"),
        _ => format!("the figures of {name} are those of its machine file, which assumes {}", assumed.join(", ")),
    });
    notes.push(
        "the lower bound is the larger of multiply-accumulates over the planes' peak, and columns of weights over the rate at \
         which planes are loaded"
            .to_owned(),
    );
    let gap = program.traced().gap();
    if gap > trace::GAP {
        notes.push(format!(
            "trace.json shows dispatches of one kernel as one where less than {gap} cycles lie between them"
        ));
    }
    notes
}
