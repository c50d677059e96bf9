//! The top of a design of stages: a dataflow region of processes and the channels between them.
//!
//! Constants lie in memories of their stages. A run of the top that loads has a process read all weights and give each stage its own;
//! stages do nothing else then.

use super::Written;
use super::access::per_beat;
use super::stream::word_of;
use super::testbench::{begin, end};
use super::top::top_name;
use crate::fpga::design::{BEAT_BYTES, Function, Home, OnChip, Storage, Style};
use crate::fpga::program::Buffer;
use crate::fpga::streaming::{SHIFT, ends};
use crate::kernel::host::{bytes_of, descr, file_names};
use crate::kernel::simulator::Place;
use crate::kernel::writer::{Language, comment};

/// What words of channels are.
pub(super) const STREAM: &str = include_str!("stream.h");

/// Whether a design is one of stages.
pub(super) fn is_streaming(written: &Written<'_>) -> bool {
    written.parts.design.style == Style::Streaming
}

/// An input or output: its name in the top, its buffer, its channel, and whether it is written.
struct Port<'p> {
    name: String,
    buffer: &'p Buffer,
    number: u32,
    channel: u32,
    is_written: bool,
}

/// The ports that stages read or write, in the order of their buffers.
fn ports<'p>(written: &Written<'p>) -> Vec<Port<'p>> {
    let parts = written.parts;
    let is_written = |number: u32| {
        let mut uses = parts.calls.iter().flat_map(|call| {
            let function = &parts.design.functions[call.function.index()];
            call.buffers.iter().zip(&function.kernel.buffers)
        });
        uses.find(|(own, _)| **own == number).map(|(_, parameter)| parameter.is_written)
    };
    let port = |(number, buffer): (u32, &'p Buffer)| {
        let Home::External { first, .. } = buffer.home else { return None };
        let is_written = is_written(number)?;
        let name = format!("{}_{number}", if is_written { "output" } else { "input" });
        Some(Port { name, buffer, number, channel: first, is_written })
    };
    (0..).zip(&parts.buffers).filter_map(port).collect()
}

/// The parameters of the top.
fn parameters(written: &Written<'_>) -> String {
    let mut parameters = vec!["const Beat *weights".to_owned(), "int load".to_owned()];
    parameters.extend(ports(written).iter().map(|port| {
        let constant = if port.is_written { "" } else { "const " };
        format!("{constant}Beat *{}", port.name)
    }));
    parameters.join(", ")
}

/// The header of the top.
pub(super) fn header(written: &Written<'_>) -> String {
    format!(
        "// The top of {} for {}.\n#pragma once\n\n#include \"beats.h\"\n\n\
         // Loads weights, or else does an inference.\nextern \"C\" void {}({});\n",
        comment(&written.parts.model),
        comment(&written.machine.name),
        top_name(written.parts),
        parameters(written)
    )
}

fn storage_of(storage: Storage) -> &'static str {
    match storage {
        Storage::Lutram => "lutram",
        Storage::Bram => "bram",
        Storage::Uram => "uram",
    }
}

/// The name of a memory in the top, which may be called like one of its parameters.
fn memory_name(memory: &OnChip) -> String {
    format!("{}_memory", memory.name)
}

fn fifo_name(name: &str) -> String {
    format!("{name}_fifo")
}

/// A memory as a parameter.
fn parameter(memory: &OnChip) -> String {
    let upper = memory.name.to_ascii_uppercase();
    format!("{} {}[{upper}_WORDS][{upper}_BANKS]", Language::Hls.stored(memory.dtype), memory_name(memory))
}

fn partition(memory: &OnChip, depth: &str) -> String {
    let (own, storage) = (memory_name(memory), storage_of(memory.storage));
    format!(
        "#pragma HLS ARRAY_PARTITION variable={own} type=complete dim=2\n\
         #pragma HLS BIND_STORAGE variable={own} type=ram_2p impl={storage}\n{depth}"
    )
}

/// Constants of a stage: the buffers, and the memories that they lie in.
fn constants<'p>(written: &Written<'p>, stage: usize) -> Vec<(&'p Buffer, &'p OnChip, u64)> {
    let parts = written.parts;
    let buffers = parts.calls[stage].buffers.iter().map(|&buffer| &parts.buffers[buffer as usize]);
    let own = buffers.filter_map(|buffer| match (buffer.home, buffer.place) {
        (Home::OnChip(memory), Place::Weights(at)) => {
            Some((buffer, &parts.design.memories[memory.index()], at / BEAT_BYTES))
        }
        _ => None,
    });
    own.collect()
}

fn beats_of(buffer: &Buffer) -> u64 {
    buffer.elements.div_ceil(per_beat(buffer.dtype) as u64)
}

/// The top.
pub(super) fn top(written: &Written<'_>) -> String {
    let (parts, facts) = (written.parts, written.facts);
    let design = &parts.design;
    let ports = ports(written);
    let ends = ends(design, &parts.calls);
    let mut text = format!(
        "// The top of {} for {}: stages, and the channels between them.\n#include \"top.h\"\n\n#include \"kernels.h\"\n",
        comment(&parts.model),
        comment(&written.machine.name)
    );
    let with_weights: Vec<usize> =
        (0..parts.calls.len()).filter(|&stage| !constants(written, stage).is_empty()).collect();
    for stage in 0..parts.calls.len() {
        text.push_str(&process(written, &ports, stage));
    }
    text.push_str(&reader(written, &with_weights));
    text.push_str(&format!("\nextern \"C\" void {}({})\n{{\n", top_name(parts), parameters(written)));
    let cycles = (facts.memory.latency_ns * 1e-9 * written.machine.clock_hz as f64).ceil();
    let (burst, outstanding) = (facts.memory.burst_bytes / 64, facts.memory.outstanding);
    let mut port = |port: &str, bundle: &str, depth: u64| {
        text.push_str(&format!(
            "#pragma HLS INTERFACE mode=m_axi port={port} bundle={bundle} offset=slave latency={cycles} depth={} \
             max_read_burst_length={burst} max_write_burst_length={burst} num_read_outstanding={outstanding} \
             num_write_outstanding={outstanding}\n",
            depth.max(1)
        ));
    };
    port("weights", "weights", parts.weights_bytes.div_ceil(BEAT_BYTES));
    for own in &ports {
        port(&own.name, &format!("channel_{}", own.channel), beats_of(own.buffer));
    }
    text.push_str(
        "#pragma HLS INTERFACE mode=s_axilite port=load\n#pragma HLS INTERFACE mode=s_axilite port=return\n\
         #pragma HLS INTERFACE mode=ap_ctrl_chain port=return\n#pragma HLS DATAFLOW\n",
    );
    for fifo in &design.fifos {
        let (own, ty) = (fifo_name(&fifo.name), word_of(fifo));
        let kind = if fifo.depth <= SHIFT { "srl" } else { "bram" };
        text.push_str(&format!(
            "    hls::stream<{ty}> {own}(\"{own}\");\n#pragma HLS STREAM variable={own} depth={}\n\
             #pragma HLS BIND_STORAGE variable={own} type=fifo impl={kind}\n",
            fifo.depth
        ));
    }
    for (memory, (from, to)) in design.memories.iter().zip(&ends.memories) {
        let is_constant = is_constant(written, memory);
        if is_constant {
            continue;
        }
        let own = memory_name(memory);
        let depth = match (from, to) {
            (Some(_), Some(_)) => format!("#pragma HLS STREAM variable={own} type=pipo depth=2\n"),
            _ => String::new(),
        };
        text.push_str(&format!("    {};\n{}", parameter(memory), partition(memory, &depth)));
    }
    for stage in &with_weights {
        text.push_str(&format!(
            "    hls::stream<Beat> weights_{stage}(\"weights_{stage}\");\n#pragma HLS STREAM variable=weights_{stage} depth=2\n"
        ));
    }
    if !with_weights.is_empty() {
        let streams: String = with_weights.iter().map(|stage| format!(", weights_{stage}")).collect();
        text.push_str(&format!("    read_weights(weights, load{streams});\n"));
    }
    for (stage, call) in parts.calls.iter().enumerate() {
        let mut arguments = vec!["load".to_owned()];
        if with_weights.contains(&stage) {
            arguments.push(format!("weights_{stage}"));
        }
        let function = &design.functions[call.function.index()];
        for (buffer, home) in call.buffers.iter().zip(&function.homes) {
            match *home {
                Home::OnChip(memory) => {
                    let memory = &design.memories[memory.index()];
                    if !is_constant(written, memory) {
                        arguments.push(memory_name(memory));
                    }
                }
                Home::Fifo(fifo) => arguments.push(fifo_name(&design.fifos[fifo.index()].name)),
                // Stages have no loader.
                Home::Loaded { .. } => {}
                Home::External { .. } => {
                    arguments.extend(ports.iter().find(|port| port.number == *buffer).map(|port| port.name.clone()));
                }
            }
        }
        text.push_str(&format!("    stage_{stage}({});\n", arguments.join(", ")));
    }
    text + "}\n"
}

/// Whether a memory holds a constant.
fn is_constant(written: &Written<'_>, memory: &OnChip) -> bool {
    let parts = written.parts;
    let holds = |buffer: &Buffer| {
        let is_own = matches!(buffer.home, Home::OnChip(own) if parts.design.memories[own.index()].name == memory.name);
        is_own && matches!(buffer.place, Place::Weights(_))
    };
    parts.buffers.iter().any(holds)
}

/// A stage as a process: it has its constants, and takes them when they are loaded.
fn process(written: &Written<'_>, ports: &[Port<'_>], stage: usize) -> String {
    let parts = written.parts;
    let design = &parts.design;
    let call = &parts.calls[stage];
    let function = &design.functions[call.function.index()];
    let constants = constants(written, stage);
    let mut parameters = vec!["int load".to_owned()];
    if !constants.is_empty() {
        parameters.push("hls::stream<Beat> &weights".to_owned());
    }
    for (buffer, home) in call.buffers.iter().zip(&function.homes) {
        match *home {
            Home::OnChip(memory) => {
                let memory = &design.memories[memory.index()];
                if !is_constant(written, memory) {
                    parameters.push(parameter(memory));
                }
            }
            Home::Fifo(fifo) => {
                let fifo = &design.fifos[fifo.index()];
                parameters.push(format!("hls::stream<{}> &{}", word_of(fifo), fifo_name(&fifo.name)));
            }
            // Stages have no loader.
            Home::Loaded { .. } => {}
            Home::External { .. } => {
                if let Some(port) = ports.iter().find(|port| port.number == *buffer) {
                    let constant = if port.is_written { "" } else { "const " };
                    parameters.push(format!("{constant}Beat *{}", port.name));
                }
            }
        }
    }
    let mut text = format!("\nstatic void stage_{stage}(\n    {})\n{{\n", parameters.join(",\n    "));
    for (_, memory, _) in &constants {
        text.push_str(&format!("    static {};\n{}", parameter(memory), partition(memory, "")));
    }
    text.push_str("    if (load) {\n");
    for (number, (buffer, memory, _)) in constants.iter().enumerate() {
        text.push_str(&loaded(number, buffer, memory));
    }
    text.push_str("        return;\n    }\n");
    let arguments = arguments(function, call.buffers.as_slice(), ports, design);
    text + &format!("    kernels::{}({});\n}}\n", function.kernel.name, arguments.join(", "))
}

/// What a function is called with: memories, ports and FIFOs, in the order of its parameters.
fn arguments(
    function: &Function,
    buffers: &[u32],
    ports: &[Port<'_>],
    design: &crate::fpga::design::Design,
) -> Vec<String> {
    let memories = super::function::memories(function).into_keys();
    let mut arguments: Vec<String> = memories.map(|memory| memory_name(&design.memories[memory.index()])).collect();
    for channel in super::function::channels(function).into_keys() {
        let is_own = |port: &&Port<'_>| port.channel == channel && buffers.contains(&port.number);
        arguments.extend(ports.iter().find(is_own).map(|port| port.name.clone()));
    }
    for home in &function.homes {
        if let Home::Fifo(fifo) = *home {
            arguments.push(fifo_name(&design.fifos[fifo.index()].name));
        }
    }
    arguments
}

/// A constant that is loaded.
fn loaded(number: usize, buffer: &Buffer, memory: &OnChip) -> String {
    let (ty, own, per_beat, banks) =
        (Language::Hls.stored(memory.dtype), memory_name(memory), per_beat(memory.dtype), memory.banks);
    format!(
        "        load_{number}: for (int beat = 0; beat < {}; ++beat) {{
#pragma HLS PIPELINE
            const Beat own = weights.read();
            for (int slot = 0; slot < {per_beat}; ++slot) {{
#pragma HLS UNROLL
                const int at = beat * {per_beat} + slot;
                if (at < {}) {own}[at / {banks}][at % {banks}] = get_element<{ty}>(own, slot);
            }}
        }}
",
        beats_of(buffer),
        buffer.elements
    )
}

/// The process that reads weights for all stages.
fn reader(written: &Written<'_>, with_weights: &[usize]) -> String {
    if with_weights.is_empty() {
        return String::new();
    }
    let streams: String = with_weights.iter().map(|stage| format!(", hls::stream<Beat> &weights_{stage}")).collect();
    let mut text =
        format!("\nstatic void read_weights(const Beat *weights, int load{streams})\n{{\n    if (!load) return;\n");
    for &stage in with_weights {
        for (number, (buffer, _, first)) in constants(written, stage).into_iter().enumerate() {
            text.push_str(&format!(
                "    read_{stage}_{number}: for (int beat = 0; beat < {}; ++beat) {{\n#pragma HLS PIPELINE II=1\n        \
                 weights_{stage}.write(weights[{first} + beat]);\n    }}\n",
                beats_of(buffer)
            ));
        }
    }
    text + "}\n"
}

/// The testbench.
pub(super) fn testbench(written: &Written<'_>) -> String {
    let parts = written.parts;
    let ports = ports(written);
    let (inputs, outputs) = (file_names(&parts.inputs), file_names(&parts.outputs));
    let mut text = begin(parts, "");
    let mut line = |own: &str| {
        text.push_str(if own.is_empty() { "" } else { "    " });
        text.push_str(own);
        text.push('\n');
    };
    line(&format!("Memory host({{{}}});", parts.weights_bytes.div_ceil(BEAT_BYTES)));
    // A memory for each port.
    let rows: Vec<String> = ports.iter().map(|port| beats_of(port.buffer).to_string()).collect();
    line(&format!("Memory ports({{{}}});", rows.join(", ")));
    let place = |number: u32| ports.iter().position(|port| port.number == number);
    let arguments: String = (0..ports.len()).map(|port| format!(", ports.channel({port})")).collect();
    let name = top_name(parts);
    line("");
    line("// Weights.");
    line("write(host, 0, 1, 0, weights);");
    line(&format!("{name}(host.channel(0), 1{arguments});"));
    line("");
    line("// Inputs.");
    for ((port, number), file) in parts.inputs.iter().zip(&inputs) {
        let dtype = parts.buffers[*number as usize].dtype;
        let read = format!("read_npy(inputs + \"/{file}.npy\", \"{}\", {})", descr(dtype), bytes_of(port, dtype));
        match place(*number) {
            Some(place) => line(&format!("write(ports, {place}, 1, 0, {read});")),
            None => line(&format!("{read};")),
        }
    }
    line(&format!("{name}(host.channel(0), 0{arguments});"));
    let of = |number: u32| {
        // An output without elements has no stage that writes it.
        place(number).map_or("host, 0, 1, 0".to_owned(), |place| format!("ports, {place}, 1, 0"))
    };
    text + &end(parts, &outputs, &of)
}

/// Which memory each port is connected to.
pub(super) fn connectivity(written: &Written<'_>) -> String {
    let name = top_name(written.parts);
    let memory: String = written.facts.memory.name.chars().filter(char::is_ascii_alphanumeric).collect();
    let mut text = format!("[connectivity]\nnk={name}:1:{name}_1\nsp={name}_1.weights:{memory}[0]\n");
    for port in ports(written) {
        text.push_str(&format!("sp={name}_1.{}:{memory}[{}]\n", port.name, port.channel));
    }
    text
}
