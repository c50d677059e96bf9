//! What is called when, for people.

use std::fmt::Write as _;

use super::times::Times;
use super::{Call, FpgaProgram};
use crate::fpga::design::{Adders, Loader};
use crate::fpga::schedule::Schedule;
use crate::target::TraceSpan;

/// The track of the controller.
const CONTROLLER: &str = "controller";

/// The track of functions.
const FUNCTIONS: &str = "functions";

/// The schedule as text: what is built into the part, then each kernel of the plan with its calls.
pub(super) fn text(program: &FpgaProgram) -> String {
    let FpgaProgram { machine, parts, times, .. } = program;
    // Writing to a string cannot fail.
    let mut text = format!(
        "; {} on {}: {} kernels, {} functions, {} calls, {} cycles\n",
        parts.model,
        machine.name,
        parts.groups.len(),
        parts.design.functions.len(),
        parts.calls.len(),
        times.cycles()
    );
    let used = program.resources();
    let named = used.named().into_iter().zip(program.facts.budget().named());
    let shares: Vec<String> = named.map(|((name, used), (_, budget))| format!("{used} of {budget} {name}")).collect();
    let _ = writeln!(text, "; {}", shares.join(", "));
    if let Some(streamed) = &times.streamed {
        let _ = writeln!(text, "; stages that run at the same time, an inference every {} cycles", streamed.interval);
    }
    text.push_str("\nmemories:\n");
    for memory in &parts.design.memories {
        let (storage, dtype) = (memory.storage, memory.dtype.name());
        let _ = writeln!(text, "  {}: {} words of {} {dtype} in {storage}", memory.name, memory.words, memory.banks);
    }
    for fifo in &parts.design.fifos {
        let (name, dtype) = (&fifo.name, fifo.dtype.name());
        let (depth, words, banks) = (fifo.depth, fifo.words, fifo.banks);
        let _ = writeln!(text, "  {name}: a FIFO of {depth} words of {banks} {dtype}, through which {words} go");
    }
    if let Some(Loader { channels, streams }) = &parts.design.loader {
        let fifos = streams.iter().map(|fifo| format!("{} beats in {}", fifo.depth, fifo.storage));
        let fifos = fifos.collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "\nloader: {channels} channels, each with FIFOs of {fifos}");
    }
    operators(&mut text, times, parts.design.adders);
    text.push_str("\nfunctions:\n");
    for (function, schedule) in parts.design.functions.iter().zip(&times.functions) {
        let kernel = &function.kernel;
        let own = schedule.usage().resources(parts.design.adders).named();
        let own: Vec<String> = own
            .into_iter()
            .filter(|&(_, amount)| amount > 0)
            .map(|(name, amount)| format!("{amount} {name}"))
            .collect();
        let (name, lanes, cycles) = (&kernel.name, kernel.threads, schedule.cycles());
        let _ = writeln!(text, "  {name} of {lanes} lanes, {cycles} cycles, {} by itself:", own.join(", "));
        loops(&mut text, schedule);
    }
    let (mut now, mut last) = (0, None);
    for (call, time) in parts.calls.iter().zip(&times.calls) {
        if last != Some(call.group) {
            last = Some(call.group);
            let group = &parts.groups[call.group as usize];
            let _ = writeln!(text, "\n{}: {}", group.name, group.tiling);
            if !group.origins.is_empty() {
                let _ = writeln!(text, "  ; {}", group.origins.join(", "));
            }
        }
        let (function, schedule) =
            (&parts.design.functions[call.function.index()], &times.functions[call.function.index()]);
        let (begin, end) = match &times.streamed {
            Some(streamed) => streamed.span(call.function.index()),
            None => (now + time.control, now + time.all()),
        };
        let bound = schedule.bound_by();
        let waits = match time.waits {
            0 => String::new(),
            waits => format!(", waits {waits} cycles for weights"),
        };
        let _ = writeln!(text, "  {} [{begin}..{end}] bound by {bound}{waits}", function.kernel.name);
        now = end;
    }
    text
}

/// Operators that functions share, and what else there is of look-up tables. Stages share nothing.
fn operators(text: &mut String, times: &Times, adders: Adders) {
    if times.streamed.is_some() {
        return;
    }
    let all = times.usage();
    text.push_str("\noperators that functions share:\n");
    for (class, &count) in &all.operators {
        let operations = all.operations.get(class).copied().unwrap_or(count);
        let luts = class.resources_with(adders).luts * count;
        let _ = writeln!(
            text,
            "  {count} for {operations} of a {class}: {luts} LUT, and {} that choose what they are given",
            all.chosen(*class)
        );
    }
    let _ = writeln!(text, "  adders of binary32 are built from {adders}");
    let _ = writeln!(text, "  everything else of functions: {} LUT", all.control.luts + all.memories.luts);
}

/// The loops of a function.
fn loops(text: &mut String, schedule: &Schedule) {
    for (depth, line) in schedule.lines() {
        let _ = writeln!(text, "    {}{line}", "  ".repeat(depth));
    }
}

/// A span for each call, and for what the controller does before it.
pub(super) fn trace(program: &FpgaProgram) -> Vec<TraceSpan> {
    let FpgaProgram { parts, times, .. } = program;
    if let Some(streamed) = &times.streamed {
        // Each stage is a unit of its own.
        let span = |call: &Call| {
            let name = parts.design.functions[call.function.index()].kernel.name.clone();
            let (start, end) = streamed.span(call.function.index());
            TraceSpan { unit: name.clone().into(), name, start, cycles: end - start }
        };
        return parts.calls.iter().map(span).collect();
    }
    let mut spans = Vec::with_capacity(2 * parts.calls.len());
    let mut now = 0;
    for (call, time) in parts.calls.iter().zip(&times.calls) {
        spans.push(TraceSpan { unit: CONTROLLER.into(), name: "call".to_owned(), start: now, cycles: time.control });
        let name = parts.design.functions[call.function.index()].kernel.name.clone();
        let start = now + time.control;
        spans.push(TraceSpan { unit: FUNCTIONS.into(), name, start, cycles: time.cycles });
        now += time.all();
    }
    spans
}
