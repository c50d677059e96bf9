//! The report of a program.

use super::SimtProgram;
use super::parts::Buffer;
use crate::kernel::simulator::{Place, buffer_bytes};
use crate::kernel::{Kernel, Stmt};
use crate::optimizer;
use crate::report::{BreakdownPart, Certainty, KernelReport, MemoryUse, Report, UnitUse};
use crate::simt::SimtMachine;
use crate::simt::timing::{KernelTime, Resource};

/// The part of the breakdown for the time between kernels.
const LAUNCHES: &str = "launches";

/// What is known of a program.
pub(super) fn report(program: &SimtProgram) -> Report {
    let SimtProgram { machine, facts, parts, .. } = program;
    let cycles = program.cycles();
    let kernels: Vec<KernelReport> = (0..parts.groups.len()).map(|group| kernel(program, group)).collect();
    let macs = kernels.iter().fold(0, |sum: u64, kernel| sum.saturating_add(kernel.macs));
    // Kernels may multiply on different units: what counts is the time that each needs at the rate of its own.
    let needed = (0..parts.groups.len()).map(|group| needed(program, group)).fold(0.0, |sum, needed| sum + needed);
    Report {
        model: parts.model.clone(),
        target: machine.kind.name().to_owned(),
        machine: machine.name.clone(),
        clock_hz: machine.clock_hz,
        cycles,
        seconds: cycles as f64 / machine.clock_hz as f64,
        macs,
        utilization: share(needed, cycles),
        lower_bound_cycles: lower_bound(program),
        dram_bytes: program.times().launched().map(|time| time.dram_bytes).sum(),
        breakdown: breakdown(program),
        units: units(program.times().launched()),
        memory: vec![
            MemoryUse {
                name: "DRAM".to_owned(),
                peak_bytes: parts.weights_bytes + parts.values_bytes,
                capacity_bytes: facts.dram.bytes,
            },
            MemoryUse {
                name: "shared memory of a block".to_owned(),
                peak_bytes: parts.kernels.iter().map(|kernel| kernel.shared_bytes()).max().unwrap_or(0),
                capacity_bytes: facts.shared.block_bytes,
            },
        ],
        energy: None,
        optimizer: parts.blocks.iter().map(optimizer::report).collect(),
        host_ops: parts.host_ops.clone(),
        kernels,
        notes: notes(program),
    }
}

/// Multiply-accumulates in a cycle of the matrix units, for the type that a kernel multiplies on them; `None` if it does not.
fn matrix_peak(facts: &SimtMachine, kernel: &Kernel) -> Option<f64> {
    let tensor = facts.tensor.as_ref()?;
    let dtype = kernel.body.iter().find_map(|stmt| match stmt {
        Stmt::Multiply { a, .. } => kernel.shared.get(a.shared.index()).map(|shared| shared.dtype),
        _ => None,
    })?;
    Some(f64::from(tensor.macs(dtype)) * f64::from(facts.multiprocessors))
}

/// Multiply-accumulates in a cycle of the units that a kernel multiplies on.
fn peak(facts: &SimtMachine, kernel: &Kernel) -> f64 {
    matrix_peak(facts, kernel).unwrap_or(facts.pipes.f32.lanes * f64::from(facts.multiprocessors))
}

/// Multiply-accumulates in a cycle of the fastest units that there are.
fn highest_peak(facts: &SimtMachine) -> f64 {
    let tensor = facts.tensor.as_ref();
    let tensor = tensor.map_or(0, |tensor| tensor.half_macs.max(tensor.tf32_macs).max(tensor.byte_macs));
    f64::from(tensor).max(facts.pipes.f32.lanes) * f64::from(facts.multiprocessors)
}

/// The kernels that are launched for a kernel of the plan.
fn kernels_of(program: &SimtProgram, group: usize) -> impl Iterator<Item = usize> {
    let own = program.parts.launches.iter().filter(move |launch| launch.group as usize == group);
    own.map(|launch| launch.kernel as usize)
}

/// The times of the launches of a kernel of the plan.
fn of_group(program: &SimtProgram, group: usize) -> impl Iterator<Item = &KernelTime> {
    let own = program.launched().filter(move |(launch, _)| launch.group as usize == group);
    own.map(|(_, time)| time)
}

/// Cycles that the products of a kernel of the plan need at the peak of the fastest units that it uses.
fn needed(program: &SimtProgram, group: usize) -> f64 {
    let peaks = kernels_of(program, group).map(|kernel| peak(&program.facts, &program.parts.kernels[kernel]));
    match peaks.fold(0.0, f64::max) {
        0.0 => 0.0,
        peak => program.parts.groups[group].macs as f64 / peak,
    }
}

/// A share of so many cycles.
fn share(needed: f64, cycles: u64) -> f64 {
    if cycles == 0 { 0.0 } else { needed / cycles as f64 }
}

fn kernel(program: &SimtProgram, group: usize) -> KernelReport {
    let part = &program.parts.groups[group];
    let cycles: u64 = of_group(program, group).map(|time| program.gap() + time.cycles).sum();
    // What bounds the launch that takes longest.
    let longest = of_group(program, group).max_by_key(|time| time.cycles);
    KernelReport {
        name: part.name.clone(),
        origins: part.origins.clone(),
        cycles,
        macs: part.macs,
        dram_bytes: of_group(program, group).map(|time| time.dram_bytes).sum(),
        bound_by: longest.map_or("latency", KernelTime::bound_by).to_owned(),
        utilization: share(needed(program, group), cycles),
        tiling: part.tiling.clone(),
    }
}

/// The cycles of kernels by what bounds them, and those between them.
fn breakdown(program: &SimtProgram) -> Vec<BreakdownPart> {
    let bounds = Resource::ALL.into_iter().map(Some).chain([None]);
    let mut parts = Vec::new();
    for bound in bounds {
        let cycles = program.times().launched().filter(|time| time.bound() == bound).map(|time| time.cycles).sum();
        if cycles > 0 {
            let name = bound
                .map_or("kernels bound by latency".to_owned(), |bound| format!("kernels bound by {}", bound.name()));
            parts.push(BreakdownPart { name, cycles, kind: Certainty::Modelled });
        }
    }
    let cycles = program.gap() * program.parts.launches.len() as u64;
    parts.push(BreakdownPart { name: LAUNCHES.to_owned(), cycles, kind: Certainty::Assumed });
    parts
}

fn units<'t>(launched: impl Iterator<Item = &'t KernelTime>) -> Vec<UnitUse> {
    let mut busy = [0; Resource::ALL.len()];
    for time in launched {
        busy.iter_mut().zip(time.busy).for_each(|(all, own)| *all += own);
    }
    let named = Resource::ALL.into_iter().zip(busy);
    named.map(|(resource, busy_cycles)| UnitUse { name: resource.name().to_owned(), busy_cycles }).collect()
}

/// The larger of products over the peak, and bytes that have to be moved over the bandwidth: inputs that are read, outputs,
/// and what is read of weights. The peak is that of matrix units for the type that they multiply; of products that they do not, that
/// of the fastest units there are.
fn lower_bound(program: &SimtProgram) -> u64 {
    let SimtProgram { machine, facts, parts, .. } = program;
    let mut read = vec![0u64; parts.buffers.len()];
    for (launch, time) in program.launched() {
        for (&buffer, bytes) in launch.buffers.iter().zip(&time.read_bytes) {
            read[buffer as usize] = read[buffer as usize].saturating_add(*bytes);
        }
    }
    let bytes = |buffer: &Buffer| buffer_bytes(buffer.dtype, buffer.elements);
    let is_input = |number: usize| parts.inputs.iter().any(|(_, buffer)| *buffer as usize == number);
    let given = parts.buffers.iter().enumerate();
    let given = given.filter(|(number, buffer)| matches!(buffer.place, Place::Weights(_)) || is_input(*number));
    let given: u64 = given.map(|(number, buffer)| read[number].min(bytes(buffer))).sum();
    let outputs = parts.outputs.iter().map(|(_, buffer)| *buffer as usize);
    let outputs: u64 = outputs.filter(|&number| !is_input(number)).map(|number| bytes(&parts.buffers[number])).sum();
    let seconds = (given + outputs) as f64 / facts.dram.bytes_per_second;
    let work = parts.groups.iter().enumerate().map(|(group, part)| {
        let peaks = kernels_of(program, group).filter_map(|kernel| matrix_peak(facts, &parts.kernels[kernel]));
        part.macs as f64 / peaks.reduce(f64::max).unwrap_or_else(|| highest_peak(facts))
    });
    let work = work.fold(0.0, |sum, cycles| sum + cycles);
    work.max(seconds * machine.clock_hz as f64) as u64
}

/// What the figures rest on, in sentences.
fn notes(program: &SimtProgram) -> Vec<String> {
    let SimtProgram { machine, parts, .. } = program;
    let mut notes = vec![
        "cycles come from a simulation of each kernel's warps, instruction by instruction, on a model of the multiprocessor; \
         numbers of instructions are estimates of what the vendor's compiler writes"
            .to_owned(),
        "a kernel starts with empty caches, but for what the kernel before it has written, or has asked for on its behalf (a line \
         of 128 bytes by each such instruction), and is still in the common cache; the bandwidth of the common cache and of memory is shared evenly by the \
         multiprocessors that have blocks"
            .to_owned(),
        "addresses that depend on data are taken to miss all caches, and conditions on data to hold for some threads of \
         each warp and not for others"
            .to_owned(),
        "repeating iterations and waves of blocks are left out of the simulation and counted as those before them".to_owned(),
        "inputs are in memory before the first cycle and outputs after the last: transfers over PCIe are not counted"
            .to_owned(),
        "the lower bound is the larger of multiply-accumulates over the peak of the matrix units for their type (of the fastest \
         units, where these do not multiply them), and bytes of weights and inputs that are read and of outputs over the \
         bandwidth of memory"
            .to_owned(),
    ];
    let is_short =
        |kernel: usize| program.times().of_kernel(kernel).is_some_and(|time| time.occupancy.is_short_of_registers);
    let spilled = parts.kernels.iter().enumerate().filter(|&(number, _)| is_short(number));
    for (_, kernel) in spilled {
        let name = &kernel.name;
        notes.push(format!("kernel `{name}` needs more registers than a thread has; what that costs is not modelled"));
    }
    let name = &machine.name;
    notes.push(match machine.assumed().as_slice() {
        [] => format!("the figures of {name} are those of its machine file"),
        assumed => format!("the figures of {name} are those of its machine file, which assumes {}", assumed.join(", ")),
    });
    notes
}
