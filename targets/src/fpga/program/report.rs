//! The report of a program.

use std::collections::BTreeMap;

use super::FpgaProgram;
use super::parts::{Buffer, Call};
use super::times::CallTime;
use crate::fpga::FpgaMachine;
use crate::fpga::design::{BEAT_BYTES, Function, Home, Style};
use crate::fpga::schedule::{Binding, Rate};
use crate::fpga::streaming::Streamed;
use crate::kernel::simulator::{Place, buffer_bytes};
use crate::optimizer;
use crate::report::{BreakdownPart, Certainty, KernelReport, MemoryUse, Report, UnitUse};

/// The part of the breakdown for what the controller does between functions.
const CONTROLLER: &str = "controller";

/// DSP slices that a multiplication of binary32 takes ([`crate::fpga::operators`]).
const SLICES_OF_SINGLE: f64 = 2.0;

/// Multiplications of 8-bit integers that a DSP slice does when two share a factor (WP486).
const BYTES_OF_SLICE: f64 = 2.0;

/// What is known of a program.
pub(super) fn report(program: &FpgaProgram) -> Report {
    let FpgaProgram { machine, facts, parts, times, .. } = program;
    let cycles = times.cycles();
    let kernels: Vec<KernelReport> = (0..parts.groups.len()).map(|group| kernel(program, group)).collect();
    let macs = kernels.iter().fold(0, |sum: u64, kernel| sum.saturating_add(kernel.macs));
    let needed: f64 = (0..parts.groups.len()).map(|group| needed(program, group)).sum();
    let (used, budget) = (program.resources(), facts.budget());
    let memory_bytes = used.bram18s * BRAM18_BYTES + used.urams * URAM_BYTES;
    Report {
        model: parts.model.clone(),
        target: machine.kind.name().to_owned(),
        machine: machine.name.clone(),
        clock_hz: machine.clock_hz,
        cycles,
        seconds: cycles as f64 / machine.clock_hz as f64,
        macs,
        utilization: share(needed, cycles),
        lower_bound_cycles: lower_bound(program, needed),
        dram_bytes: parts.calls.iter().map(|call| moved(program, call)).sum(),
        breakdown: breakdown(program),
        units: busy(program),
        memory: vec![
            MemoryUse {
                name: facts.memory.name.clone(),
                peak_bytes: external_bytes(program),
                capacity_bytes: facts.memory.bytes,
            },
            MemoryUse {
                name: "blocks of RAM on the part".to_owned(),
                peak_bytes: memory_bytes,
                capacity_bytes: budget.bram18s * BRAM18_BYTES + budget.urams * URAM_BYTES,
            },
        ],
        energy: None,
        optimizer: parts.blocks.iter().map(optimizer::report).collect(),
        host_ops: Vec::new(),
        kernels,
        notes: notes(program),
    }
}

/// Bytes of a block of RAM (UG573: 18 Kb with parity).
const BRAM18_BYTES: u64 = 18 * 1024 / 8;

/// Bytes of a block of UltraRAM (UG573: 288 Kb with parity).
const URAM_BYTES: u64 = 288 * 1024 / 8;

fn share(needed: f64, cycles: u64) -> f64 {
    if cycles == 0 { 0.0 } else { needed / cycles as f64 }
}

/// Multiply-accumulates in a cycle of all DSP slices of the part, for floats or for integers of eight bits.
fn peak(facts: &FpgaMachine, is_float: bool) -> f64 {
    let slices = facts.resources.dsps as f64;
    if is_float { slices / SLICES_OF_SINGLE } else { slices * BYTES_OF_SLICE }
}

/// Cycles that the products of a kernel of the plan need at the peak of the part.
fn needed(program: &FpgaProgram, group: usize) -> f64 {
    let part = &program.parts.groups[group];
    part.macs as f64 / peak(&program.facts, part.is_float)
}

fn of_group(program: &FpgaProgram, group: usize) -> impl Iterator<Item = (&Call, CallTime)> {
    let calls = program.parts.calls.iter().zip(program.times.calls.iter().copied());
    calls.filter(move |(call, _)| call.group as usize == group)
}

fn kernel(program: &FpgaProgram, group: usize) -> KernelReport {
    let FpgaProgram { parts, times, .. } = program;
    let part = &parts.groups[group];
    let cycles: u64 = of_group(program, group).map(|(_, time)| time.all()).sum();
    let waits: u64 = of_group(program, group).map(|(_, time)| time.waits).sum();
    // A stage works longer than an inference waits for it.
    let works: u64 = match &times.streamed {
        Some(_) => of_group(program, group).map(|(call, _)| times.functions[call.function.index()].cycles()).sum(),
        None => cycles,
    };
    // What bounds the call that takes longest.
    let longest = of_group(program, group).max_by_key(|(_, time)| time.cycles);
    let bound = longest.map_or("latency", |(call, _)| times.functions[call.function.index()].bound_by().name());
    KernelReport {
        name: part.name.clone(),
        origins: part.origins.clone(),
        cycles,
        macs: part.macs,
        dram_bytes: of_group(program, group).map(|(call, _)| moved(program, call)).sum(),
        bound_by: if waits * 2 > cycles { Binding::External.name() } else { bound }.to_owned(),
        utilization: share(needed(program, group), works),
        tiling: part.tiling.clone(),
    }
}

/// Bytes that a call moves between the part and memory beside it, by ports of its own and through the loader.
fn moved(program: &FpgaProgram, call: &Call) -> u64 {
    let parts = &program.parts;
    let buffers = call.buffers.iter().map(|&buffer| &parts.buffers[buffer as usize]);
    let loaded = buffers.filter(|buffer| matches!(buffer.home, Home::Loaded { .. }));
    let loaded: u64 = loaded.map(|buffer| buffer_bytes(buffer.dtype, buffer.elements)).sum();
    program.times.functions[call.function.index()].external_bytes() + loaded
}

/// The cycles of functions by what bounds them, those in which they wait for the loader, and those of the controller.
fn breakdown(program: &FpgaProgram) -> Vec<BreakdownPart> {
    let FpgaProgram { parts, times, .. } = program;
    if let Some(streamed) = &times.streamed {
        return of_stages(program, streamed);
    }
    let mut by: Vec<(&str, u64)> = Vec::new();
    let (mut controller, mut waits) = (0, 0);
    for (call, time) in parts.calls.iter().zip(&times.calls) {
        let name = times.functions[call.function.index()].bound_by().name();
        let cycles = time.cycles - time.waits;
        (controller, waits) = (controller + time.control, waits + time.waits);
        match by.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += cycles,
            None => by.push((name, cycles)),
        }
    }
    by.sort_unstable();
    let part = |name: String, cycles: u64| BreakdownPart { name, cycles, kind: Certainty::Modelled };
    let functions = by.into_iter().map(|(name, cycles)| part(format!("functions bound by {name}"), cycles));
    let waits = (parts.design.loader.is_some()).then(|| part("functions waiting for weights".to_owned(), waits));
    functions.chain(waits).chain([part(CONTROLLER.to_owned(), controller)]).collect()
}

/// The cycles of stages that an inference waits for, by what bounds them, and those in which one stage has ended and the next begins.
fn of_stages(program: &FpgaProgram, streamed: &Streamed) -> Vec<BreakdownPart> {
    let mut by: BTreeMap<&str, u64> = BTreeMap::new();
    let critical = streamed.critical();
    for waited in critical.iter() {
        if let Some(schedule) = waited.stage.and_then(|stage| program.times.functions.get(stage)) {
            *by.entry(schedule.bound_by().name()).or_default() += waited.cycles;
        }
    }
    let stages: u64 = by.values().sum();
    let part = |name: String, cycles: u64| BreakdownPart { name, cycles, kind: Certainty::Modelled };
    let named = by.into_iter().map(|(name, cycles)| part(format!("stages bound by {name}"), cycles));
    named.chain([part("between stages".to_owned(), streamed.cycles.saturating_sub(stages))]).collect()
}

/// Cycles in which functions run, and in which ports to memory beside the part move something.
fn busy(program: &FpgaProgram) -> Vec<UnitUse> {
    let FpgaProgram { parts, times, .. } = program;
    if times.streamed.is_some() {
        // All at the same time: it is told of the one that works most.
        let most = times.functions.iter().map(|schedule| schedule.cycles()).max().unwrap_or(0);
        return vec![UnitUse { name: "busiest stage".to_owned(), busy_cycles: most }];
    }
    let functions = times.calls.iter().map(|call| call.cycles).sum();
    let ports = parts
        .calls
        .iter()
        .zip(&times.calls)
        .map(|(call, time)| times.functions[call.function.index()].external_cycles().min(time.cycles));
    let mut units = vec![
        UnitUse { name: "functions".to_owned(), busy_cycles: functions },
        UnitUse { name: "ports of functions".to_owned(), busy_cycles: ports.sum() },
    ];
    if parts.design.loader.is_some() {
        let rows = parts.loads.iter().map(|load| load.rows).sum();
        let rate = Rate::new(&program.facts.memory, program.machine.clock_hz);
        units.push(UnitUse { name: "loader".to_owned(), busy_cycles: rate.streamed(rows).min(times.cycles()) });
    }
    units
}

/// Bytes in memory beside the part.
fn external_bytes(program: &FpgaProgram) -> u64 {
    let outside = program
        .parts
        .buffers
        .iter()
        .filter(|buffer| matches!(buffer.home, Home::External { .. } | Home::Loaded { .. }));
    outside.map(|buffer| buffer_bytes(buffer.dtype, buffer.elements)).sum()
}

/// The larger of products over the peak of all DSP slices, and bytes that have to be moved over the bandwidth of memory: inputs
/// that are read and outputs, and weights that lie beside the part.
fn lower_bound(program: &FpgaProgram, needed: f64) -> u64 {
    let FpgaProgram { machine, facts, parts, .. } = program;
    let mut read = vec![0u64; parts.buffers.len()];
    for call in &parts.calls {
        let function: &Function = &parts.design.functions[call.function.index()];
        let traffic = &program.times.functions[call.function.index()].traffic;
        for (&buffer, home) in call.buffers.iter().zip(&function.homes) {
            // What a call reads of all that lies in the same channels, which is more than it reads of one, but not of a table of
            // which little is wanted.
            let more = match *home {
                Home::External { first, ways } => {
                    let own = (first..first + ways).filter_map(|channel| traffic.get(&channel));
                    own.map(|beats| beats.read).sum::<u64>() * BEAT_BYTES
                }
                Home::Loaded { .. } => u64::MAX,
                Home::OnChip(_) | Home::Fifo(_) => 0,
            };
            read[buffer as usize] = read[buffer as usize].saturating_add(more);
        }
    }
    let bytes = |buffer: &Buffer| buffer_bytes(buffer.dtype, buffer.elements);
    let is_input = |number: usize| parts.inputs.iter().any(|(_, buffer)| *buffer as usize == number);
    let given = parts.buffers.iter().enumerate();
    let given = given.filter(|(number, buffer)| matches!(buffer.place, Place::Weights(_)) || is_input(*number));
    let given: u64 = given.map(|(number, buffer)| read[number].min(bytes(buffer))).sum();
    let outputs = parts.outputs.iter().map(|(_, buffer)| *buffer as usize);
    let outputs: u64 = outputs.filter(|&number| !is_input(number)).map(|number| bytes(&parts.buffers[number])).sum();
    let rate = facts.memory.bytes_per_second * f64::from(facts.memory.channels);
    let seconds = (given + outputs) as f64 / rate;
    needed.max(seconds * machine.clock_hz as f64) as u64
}

/// How functions work together, and why so.
fn style(program: &FpgaProgram) -> String {
    let FpgaProgram { parts, times, .. } = program;
    let (functions, cycles) = (parts.design.functions.len(), times.cycles());
    let own = match &times.streamed {
        None => format!("{functions} functions run one after the other; operators are shared between them"),
        Some(streamed) => format!(
            "{functions} stages run at the same time, with {} FIFOs and {} memories between them; one inference can follow another \
             after {} cycles",
            parts.design.fifos.len(),
            streamed.network.pairs.len(),
            streamed.interval
        ),
    };
    let other = match parts.design.style {
        Style::Shared => Style::Streaming,
        Style::Streaming => Style::Shared,
    };
    match (parts.other.cycles, parts.other.why.as_str()) {
        (Some(other_cycles), _) => {
            format!("{own}; this style was taken for its {cycles} cycles, where a {other} design takes {other_cycles}")
        }
        (None, "") => own,
        (None, why) => format!("{own}; a {other} design was not found: {why}"),
    }
}

/// What the figures rest on, in sentences.
fn notes(program: &FpgaProgram) -> Vec<String> {
    let FpgaProgram { machine, facts, .. } = program;
    let (used, budget) = (program.resources(), facts.budget());
    let (binding, share) = used.binding(budget);
    let amounts = used.named().into_iter().zip(budget.named());
    let takes: Vec<String> = amounts.map(|((name, used), (_, budget))| format!("{used} of {budget} {name}")).collect();
    let mut notes = vec![
        format!(
            "the design takes {} that it may of {}; {binding} binds, with {:.0} %",
            takes.join(", "),
            facts.part,
            share * 100.0
        ),
        style(program),
        "cycles come from a schedule of each function's loops: operators with the latencies that high-level synthesis gives them at this \
         clock, memory ports, and bursts at the rate of the memory"
            .to_owned(),
        "weights that lie on the part are brought there once, before the first inference; inputs are in memory before the first cycle and \
         outputs after the last"
            .to_owned(),
        "the lower bound is the larger of multiply-accumulates over the peak of all DSP slices of the part (two of 8-bit integers each, or \
         half of one of binary32), and bytes of weights beside the part and of inputs that are read and of outputs over the bandwidth of \
         memory"
            .to_owned(),
    ];
    if program.times.streamed.is_some() {
        notes.push(
            "cycles of a kernel are those for which an inference waits for it; others go by while it works too"
                .to_owned(),
        );
    }
    let name = &machine.name;
    notes.push(match machine.assumed().as_slice() {
        [] => format!("the figures of {name} are those of its machine file"),
        assumed => format!("the figures of {name} are those of its machine file, which assumes {}", assumed.join(", ")),
    });
    notes
}
