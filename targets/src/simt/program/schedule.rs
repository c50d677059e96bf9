//! What is launched when, for people.

use std::fmt::Write as _;

use super::SimtProgram;
use crate::target::TraceSpan;

/// The track that launches are on.
const UNIT: &str = "gpu";

/// The schedule as text: each kernel of the plan with its launches.
pub(super) fn text(program: &SimtProgram) -> String {
    let SimtProgram { machine, parts, .. } = program;
    // Writing to a string cannot fail.
    let mut text = format!(
        "; {} on {}: {} kernels, {} launches, {} cycles\n",
        parts.model,
        machine.name,
        parts.groups.len(),
        parts.launches.len(),
        program.cycles()
    );
    let mut now = 0;
    let mut last = None;
    for (launch, time) in program.launched() {
        let kernel = &parts.kernels[launch.kernel as usize];
        if last != Some(launch.group) {
            last = Some(launch.group);
            let group = &parts.groups[launch.group as usize];
            let _ = writeln!(text, "\n{}: {}", group.name, group.tiling);
            if !group.origins.is_empty() {
                let _ = writeln!(text, "  ; {}", group.origins.join(", "));
            }
        }
        now += program.gap();
        let end = now + time.cycles;
        let [x, y, z] = kernel.grid;
        let occupancy = &time.occupancy;
        let _ = writeln!(
            text,
            "  {} [{now}..{end}] grid {x}x{y}x{z} of {} threads, {} waves, {} blocks ({} warps) a multiprocessor by {}, {} \
             registers, {} cycles, bound by {}",
            kernel.name,
            kernel.threads,
            time.waves,
            occupancy.blocks,
            occupancy.warps,
            occupancy.limit.name(),
            occupancy.registers,
            time.cycles,
            time.bound_by()
        );
        now = end;
    }
    text
}

/// A span for each launch, and for the time before it.
pub(super) fn trace(program: &SimtProgram) -> Vec<TraceSpan> {
    let mut spans = Vec::with_capacity(2 * program.parts.launches.len());
    let mut now = 0;
    let mut add = |name: String, cycles: u64| {
        spans.push(TraceSpan { unit: UNIT.into(), name, start: now, cycles });
        now += cycles;
    };
    for (launch, time) in program.launched() {
        add("launch".to_owned(), program.gap());
        add(program.parts.kernels[launch.kernel as usize].name.clone(), time.cycles);
    }
    spans
}
