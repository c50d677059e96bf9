//! The top of a design: memories, and the controller that reads the program and calls functions.

use super::Written;
use super::access::per_beat;
use super::function::{channels, memories};
use super::loader;
use super::words::{Operation, Words};
use crate::fpga::design::{Design, Function, FunctionId, Home, MemoryId, OnChip, Storage};
use crate::fpga::program::{Buffer, Parts};
use crate::kernel::names::name_of;
use crate::kernel::writer::{Language, comment};

/// The name of the top function, which nothing else has.
pub(super) fn top_name(parts: &Parts) -> String {
    format!("{}_top", name_of(&parts.model))
}

/// The names of memories in the top, which may be called like one of its parameters.
fn memory_name(memory: &OnChip) -> String {
    format!("{}_memory", memory.name)
}

/// The parameters of the top function.
fn parameters(parts: &Parts, words: &Words) -> String {
    let mut parameters = vec!["const unsigned *program".to_owned(), "int first".to_owned(), "int calls".to_owned()];
    parameters.extend(parts.design.loader.iter().flat_map(loader::parameters));
    parameters.extend(memory_ports(words).map(|port| format!("Beat *{port}")));
    parameters.join(", ")
}

/// The ports by which functions reach memory beside the part.
fn memory_ports(words: &Words) -> impl Iterator<Item = String> {
    let host = words.has_host().then(|| "host".to_owned());
    host.into_iter().chain(words.channels.iter().map(|channel| format!("channel_{channel}")))
}

/// The header of the top.
pub(super) fn header(written: &Written<'_>, words: &Words) -> String {
    let parts = written.parts;
    format!(
        "// The top of {} for {}.\n#pragma once\n\n#include \"beats.h\"\n\n\
         // Words of an entry of the program: what is done, and where its parameters begin.\n\
         constexpr int WORDS_OF_ENTRY = {};\n\n\
         // Does so many entries of a program, from one on.\n\
         extern \"C\" void {}({});\n",
        comment(&parts.model),
        comment(&written.machine.name),
        words.width,
        top_name(parts),
        parameters(parts, words)
    )
}

/// Memories that a function reads and writes in places that no call has in common.
pub(super) fn independent(parts: &Parts, function: FunctionId) -> Vec<MemoryId> {
    let of = &parts.design.functions[function.index()];
    let words = |buffer: &Buffer, memory: MemoryId| {
        let banks = u64::from(parts.design.memories[memory.index()].banks);
        buffer.at..buffer.at + buffer.elements.div_ceil(banks)
    };
    let is_apart = |memory: MemoryId| {
        let calls = parts.calls.iter().filter(|call| call.function == function);
        let mut both = false;
        let apart = calls.into_iter().all(|call| {
            let own = call.buffers.iter().map(|&buffer| &parts.buffers[buffer as usize]);
            let own = own.zip(&of.kernel.buffers).filter(|(buffer, _)| buffer.home == Home::OnChip(memory));
            let own: Vec<_> = own.map(|(buffer, parameter)| (words(buffer, memory), parameter.is_written)).collect();
            let (read, write): (Vec<_>, Vec<_>) = own.into_iter().partition(|(_, is_written)| !is_written);
            both |= !read.is_empty() && !write.is_empty();
            write
                .iter()
                .all(|(write, _)| read.iter().all(|(read, _)| read.end <= write.start || write.end <= read.start))
        });
        apart && both
    };
    memories(of).into_keys().filter(|&memory| is_apart(memory)).collect()
}

/// The top and its controller.
pub(super) fn top(written: &Written<'_>, words: &Words) -> String {
    let (parts, facts) = (written.parts, written.facts);
    let design = &parts.design;
    let name = top_name(parts);
    let mut text = format!(
        "// The top of {} for {}: its memories, and the controller that reads the program and calls functions.\n\
         #include \"top.h\"\n\n#include \"kernels.h\"\n",
        comment(&parts.model),
        comment(&written.machine.name)
    );
    for (number, memory) in (0..).zip(&design.memories) {
        if words.operations.contains(&Operation::CopyTo(MemoryId(number))) {
            text.push_str(&copy(memory, true));
        }
        if words.operations.contains(&Operation::CopyFrom(MemoryId(number))) {
            text.push_str(&copy(memory, false));
        }
    }
    text.push_str(READ_PROGRAM);
    if let Some(loader) = &design.loader {
        text.push_str(&loader::functions(loader));
    }
    text.push_str(&run(parts, words));
    text.push_str(&format!("\nextern \"C\" void {name}({})\n{{\n", parameters(parts, words)));
    let cycles = (facts.memory.latency_ns * 1e-9 * written.machine.clock_hz as f64).ceil();
    let (burst, outstanding) = (facts.memory.burst_bytes / 64, facts.memory.outstanding);
    let mut port = |port: &str, depth: u64| {
        text.push_str(&format!(
            "#pragma HLS INTERFACE mode=m_axi port={port} bundle={port} offset=slave latency={cycles} depth={} \
             max_read_burst_length={burst} max_write_burst_length={burst} num_read_outstanding={outstanding} \
             num_write_outstanding={outstanding}\n",
            depth.max(1)
        ));
    };
    port("program", (words.load.len() + words.run.len()) as u64 * words.width as u64);
    if words.has_host() {
        port("host", words.host_beats);
    }
    let rows = |channel: u32| words.rows.get(channel as usize).copied().unwrap_or(0);
    for &channel in &words.channels {
        port(&format!("channel_{channel}"), rows(channel));
    }
    let mut arguments = vec!["first", "calls", "return"];
    if let Some(loader) = &design.loader {
        port("loads", 3 * loader::told(parts).lines.len() as u64);
        loader::ports(loader).zip(0..).for_each(|(name, channel)| port(&name, rows(channel)));
        arguments.extend(["load_runs", "load_entries"]);
    }
    for argument in arguments {
        text.push_str(&format!("#pragma HLS INTERFACE mode=s_axilite port={argument}\n"));
    }
    text.push_str(
        "#pragma HLS DATAFLOW\n    hls::stream<unsigned> words;\n#pragma HLS STREAM variable=words depth=64\n",
    );
    text.push_str("    read_program(program, first, calls, words);\n");
    if let Some(loader) = &design.loader {
        text.push_str(&loader::processes(loader));
    }
    let streams = (0..design.loader.as_ref().map_or(0, |loader| loader.streams.len())).map(loader::stream_name);
    let arguments: Vec<String> =
        ["calls".to_owned(), "words".to_owned()].into_iter().chain(streams).chain(memory_ports(words)).collect();
    text.push_str(&format!("    run({});\n}}\n", arguments.join(", ")));
    text
}

/// What reads the program ahead of the controller.
const READ_PROGRAM: &str = "
// Reads entries of the program, word by word, ahead of the controller.
static void read_program(const unsigned *program, int first, int calls, hls::stream<unsigned> &words)
{
    words: for (int at = first * WORDS_OF_ENTRY; at < (first + calls) * WORDS_OF_ENTRY; ++at) {
#pragma HLS PIPELINE II=1
        words.write(program[at]);
    }
}
";

/// The controller, with the memories that functions work on.
fn run(parts: &Parts, words: &Words) -> String {
    let design = &parts.design;
    let mut parameters = vec!["int calls".to_owned(), "hls::stream<unsigned> &words".to_owned()];
    if let Some(loader) = &design.loader {
        let streams = (0..loader.streams.len()).map(loader::stream_name);
        parameters.extend(streams.map(|name| format!("hls::stream<Beat> (&{name})[{}]", loader.channels)));
    }
    parameters.extend(memory_ports(words).map(|port| format!("Beat *{port}")));
    let mut text = format!(
        "\n// The controller: takes entries of the program, and calls one function after the other.\nstatic void run({})\n{{\n",
        parameters.join(", ")
    );
    for memory in &design.memories {
        let (ty, own, upper) =
            (Language::Hls.stored(memory.dtype), memory_name(memory), memory.name.to_ascii_uppercase());
        text.push_str(&format!("    static {ty} {own}[{upper}_WORDS][{upper}_BANKS];\n"));
        text.push_str(&format!("#pragma HLS ARRAY_PARTITION variable={own} type=complete dim=2\n"));
        let storage = match memory.storage {
            Storage::Lutram => "lutram",
            Storage::Bram => "bram",
            Storage::Uram => "uram",
        };
        text.push_str(&format!("#pragma HLS BIND_STORAGE variable={own} type=ram_2p impl={storage}\n"));
    }
    text.push_str(
        "    entries: for (int entry = 0; entry < calls; ++entry) {
#pragma HLS PIPELINE off
        unsigned word[WORDS_OF_ENTRY];
        take: for (int at = 0; at < WORDS_OF_ENTRY; ++at) {
#pragma HLS PIPELINE II=1
            word[at] = words.read();
        }
        switch (word[0]) {
",
    );
    for (number, operation) in words.operations.iter().enumerate() {
        let call = match *operation {
            Operation::Call(function) => call(design, &design.functions[function.index()]),
            Operation::CopyTo(memory) | Operation::CopyFrom(memory) => {
                let memory = &design.memories[memory.index()];
                let way = if matches!(operation, Operation::CopyTo(_)) { "to" } else { "from" };
                let (name, own) = (&memory.name, memory_name(memory));
                format!("copy_{way}_{name}(host, int(word[1]), {own}, int(word[2]), int(word[3]));")
            }
        };
        text.push_str(&format!("        case {number}:\n            {call}\n            break;\n"));
    }
    text.push_str("        default: break;\n        }\n    }\n}\n");
    text
}

/// The call of a function, with words of its entry.
fn call(design: &Design, of: &Function) -> String {
    let memories = memories(of).into_keys().map(|memory| memory_name(&design.memories[memory.index()]));
    let channels = channels(of).into_keys().map(|channel| format!("channel_{channel}"));
    let mut word = 0;
    let mut next = || {
        word += 1;
        format!("int(word[{word}])")
    };
    let own = of.homes.iter().map(|home| match *home {
        Home::Loaded { stream } => loader::stream_name(stream as usize),
        Home::OnChip(_) | Home::External { .. } | Home::Fifo(_) => next(),
    });
    let own: Vec<String> = own.collect();
    let grid: Vec<String> = (0..if of.is_elastic() { 3 } else { 0 }).map(|_| next()).collect();
    let arguments: Vec<String> = memories.chain(channels).chain(own).chain(grid).collect();
    format!("kernels::{}(\n                {});", of.kernel.name, arguments.join(",\n                "))
}

/// A function that copies between the host's memory and a memory on the part.
fn copy(memory: &OnChip, is_to: bool) -> String {
    let (ty, name, upper) = (Language::Hls.stored(memory.dtype), &memory.name, memory.name.to_ascii_uppercase());
    let (per_beat, banks) = (per_beat(memory.dtype), i64::from(memory.banks));
    let (word, bank) = match (per_beat % banks, banks % per_beat) {
        (0, 0) => ("beat".to_owned(), "slot".to_owned()),
        (0, _) if banks == 1 => (format!("beat * {per_beat} + slot"), "0".to_owned()),
        (0, _) => (format!("beat * {} + slot / {banks}", per_beat / banks), format!("slot % {banks}")),
        (_, 0) => {
            let beats = banks / per_beat;
            (format!("beat / {beats}"), format!("beat % {beats} * {per_beat} + slot"))
        }
        _ => (format!("at / {banks}"), format!("at % {banks}")),
    };
    let element = format!("{name}[word + {word}][{bank}]");
    let (way, constant, beat, each, end) = match is_to {
        true => (
            "to",
            "const ",
            "const Beat own = host[from + beat];",
            format!("{element} = get_element<{ty}>(own, slot);"),
            "",
        ),
        false => (
            "from",
            "",
            "Beat own = 0;",
            format!("put_element<{ty}>(own, slot, {element});"),
            "        host[from + beat] = own;\n",
        ),
    };
    format!(
        "
static void copy_{way}_{name}(
    {constant}Beat *host, int from, {ty} {name}[{upper}_WORDS][{upper}_BANKS], int word, int elements)
{{
    beats: for (int beat = 0; beat * {per_beat} < elements; ++beat) {{
#pragma HLS PIPELINE
        {beat}
        for (int slot = 0; slot < {per_beat}; ++slot) {{
#pragma HLS UNROLL
            const int at = beat * {per_beat} + slot;
            if (at < elements) {each}
        }}
{end}    }}
}}
"
    )
}
