//! The program as the controller reads it, and the testbench, which stands for the host.

use std::collections::BTreeSet;

use super::Written;
use super::loader;
use super::top::top_name;
use super::words::{Entry, Words};
use crate::fpga::design::{BEAT_BYTES, Home};
use crate::fpga::program::{Buffer, Load, Parts};
use crate::kernel::host::{bytes_of, descr, file_names, shape_of};
use crate::kernel::simulator::{Place, buffer_bytes};
use crate::kernel::writer::comment;

/// What every testbench includes.
pub(super) const TESTBENCH: &str = include_str!("testbench.h");

/// The words of the program.
pub(super) fn program(written: &Written<'_>, words: &Words) -> String {
    let mut text = format!(
        "// The program of {}, as the controller reads it: in each line what is done, and where its parameters begin.\n\
         #pragma once\n\n\
         // What is done once, and what is done for each inference.\n\
         constexpr int LOAD_FIRST = 0, LOAD_CALLS = {}, RUN_FIRST = {}, RUN_CALLS = {};\n\n\
         static const unsigned PROGRAM[] = {{\n",
        comment(&written.parts.model),
        words.load.len(),
        words.load.len(),
        words.run.len()
    );
    let mut line = |Entry { operation, arguments, about }: &Entry| {
        let mut own = vec![words.number(*operation).to_string()];
        own.extend(arguments.iter().map(u64::to_string));
        own.resize(words.width, "0".to_owned());
        text.push_str(&format!("    {}, // {}\n", own.join(", "), comment(about)));
    };
    words.load.iter().chain(&words.run).for_each(&mut line);
    if words.load.is_empty() && words.run.is_empty() {
        text.push_str("    0,\n");
    }
    let loads = if written.parts.design.loader.is_some() { loader::words(written.parts) } else { String::new() };
    text + "};\n" + &loads
}

/// Where a buffer lies in memory beside the part, as the testbench says it.
fn place(words: &Words, number: u32, buffer: &Buffer) -> Option<String> {
    match buffer.home {
        Home::External { first, ways } => Some(format!("channels, {first}, {ways}, {}", buffer.at)),
        Home::Loaded { .. } | Home::Fifo(_) => None,
        Home::OnChip(_) => words.beats.get(&number).map(|beat| format!("host, 0, 1, {beat}")),
    }
}

/// Loads by which buffers are read for the first time, with the number of channels.
fn first_loads(parts: &Parts) -> impl Iterator<Item = (Load, u64)> {
    let channels = parts.design.loader.as_ref().map_or(1, |loader| u64::from(loader.channels));
    let mut seen = BTreeSet::new();
    let is_first = move |load: &Load| seen.insert((load.buffer, load.first));
    parts.loads.iter().copied().filter(is_first).map(move |load| (load, channels))
}

/// The testbench up to where memories are declared, with what it includes besides.
pub(super) fn begin(parts: &Parts, included: &str) -> String {
    format!(
        "// Runs {} as a host does; README.md says how.\n#include \"testbench.h\"\n\n{included}#include \"top.h\"\n\n\
         int main(int argc, char **argv)\n{{\n    \
         if (argc != 4 && argc != 5) fail(\"usage: testbench WEIGHTS.bin INPUT_FOLDER OUTPUT_FOLDER [EXPECTED_FOLDER]\");\n    \
         const std::string inputs = argv[2], outputs = argv[3];\n    \
         const Bytes weights = read_weights(argv[1], {});\n",
        comment(&parts.model),
        parts.weights_bytes
    )
}

/// The testbench from where outputs are looked at. `place` says where a buffer lies.
pub(super) fn end(parts: &Parts, names: &[String], place: &dyn Fn(u32) -> String) -> String {
    let mut text =
        "\n    // Outputs.\n    bool is_same = true;\n    const std::string expected = argc == 5 ? argv[4] : \"\";\n"
            .to_owned();
    for ((port, number), file) in parts.outputs.iter().zip(names) {
        let buffer = &parts.buffers[*number as usize];
        let (place, bytes) = (place(*number), bytes_of(port, buffer.dtype));
        let (descr, shape) = (descr(buffer.dtype), shape_of(port));
        text.push_str(&format!(
            "    is_same &= finish(\"{file}\", \"{}\", \"{descr}\", \"{shape}\", read({place}, {bytes}), outputs, expected);\n",
            buffer.dtype
        ));
    }
    text + "    return is_same ? 0 : 1;\n}\n"
}

/// The testbench.
pub(super) fn testbench(written: &Written<'_>, words: &Words) -> String {
    let parts = written.parts;
    let (inputs, outputs) = (file_names(&parts.inputs), file_names(&parts.outputs));
    let mut text = begin(parts, "#include \"program.h\"\n");
    let mut line = |own: &str| {
        if !own.is_empty() {
            text.push_str("    ");
        }
        text.push_str(own);
        text.push('\n');
    };
    let rows: Vec<String> = words.rows.iter().map(u64::to_string).collect();
    line(&format!("Memory channels({{{}}});", rows.join(", ")));
    line(&format!("Memory host({{{}}});", words.host_beats));
    line("");
    line("// Weights.");
    for (number, buffer) in (0..).zip(&parts.buffers) {
        let (Place::Weights(at), Some(place)) = (buffer.place, place(words, number, buffer)) else { continue };
        let bytes = buffer_bytes(buffer.dtype, buffer.elements);
        line(&format!("write({place}, part(weights, {at}, {bytes})); // {}: {}", buffer.dtype, comment(&buffer.name)));
    }
    for (load, channels) in first_loads(parts) {
        let buffer = &parts.buffers[load.buffer as usize];
        let Place::Weights(at) = buffer.place else { continue };
        let (row, all) = (channels * BEAT_BYTES, buffer_bytes(buffer.dtype, buffer.elements));
        let (first, end) = (load.first * row, ((load.first + load.rows) * row).min(all));
        let piece = format!("part(weights, {}, {})", at + first, end - first);
        line(&format!(
            "write(channels, 0, {channels}, {}, {piece}); // {}: {}",
            load.at,
            buffer.dtype,
            comment(&buffer.name)
        ));
    }
    let mut arguments = Vec::new();
    if words.has_host() {
        arguments.push("host.channel(0)".to_owned());
    }
    arguments.extend(words.channels.iter().map(|channel| format!("channels.channel({channel})")));
    let arguments: String = arguments.iter().map(|argument| format!(", {argument}")).collect();
    let loads = |is_run: bool| -> String {
        let own = parts.design.loader.iter().flat_map(|loader| loader::arguments(loader, is_run));
        own.map(|argument| format!(", {argument}")).collect()
    };
    let name = top_name(parts);
    line(&format!("{name}(PROGRAM, LOAD_FIRST, LOAD_CALLS{}{arguments});", loads(false)));
    line("");
    line("// Inputs.");
    for ((port, number), file) in parts.inputs.iter().zip(&inputs) {
        let buffer = &parts.buffers[*number as usize];
        let read = format!(
            "read_npy(inputs + \"/{file}.npy\", \"{}\", {})",
            descr(buffer.dtype),
            bytes_of(port, buffer.dtype)
        );
        match place(words, *number, buffer) {
            Some(place) => line(&format!("write({place}, {read});")),
            None => line(&format!("{read};")),
        }
    }
    line(&format!("{name}(PROGRAM, RUN_FIRST, RUN_CALLS{}{arguments});", loads(true)));
    let of = |number: u32| {
        place(words, number, &parts.buffers[number as usize]).unwrap_or_else(|| "host, 0, 1, 0".to_owned())
    };
    text + &end(parts, &outputs, &of)
}
