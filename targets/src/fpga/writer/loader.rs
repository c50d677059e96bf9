//! The processes of the loader: each reads a channel ahead of the functions, into FIFOs.

use crate::fpga::design::{Home, Loader, Storage};
use crate::fpga::program::Parts;

/// What the loader's processes are told, for people and for the host: entries of three words.
pub(super) struct Told {
    /// Stretches of rows that follow each other.
    pub runs: usize,
    /// All words, with what they are about.
    pub lines: Vec<([u64; 3], String)>,
}

/// What the loader's processes are told.
pub(super) fn told(parts: &Parts) -> Told {
    let mut told = Told { runs: 0, lines: Vec::new() };
    let Some(loader) = &parts.design.loader else { return told };
    let channels = u64::from(loader.channels);
    let mut at = 0;
    while at < parts.loads.len() {
        let first = parts.loads[at].at;
        let (mut end, mut behind) = (at, first);
        while let Some(load) = parts.loads.get(end).filter(|load| load.at == behind) {
            (end, behind) = (end + 1, behind + load.rows);
        }
        told.runs += 1;
        told.lines.push(([first, behind - first, 0], format!("{} rows from row {first} on", behind - first)));
        for load in &parts.loads[at..end] {
            let buffer = &parts.buffers[load.buffer as usize];
            let Home::Loaded { stream } = buffer.home else { continue };
            // Of the last row only some channels have a beat.
            let beats = super::words::beats_of(buffer);
            let is_last = load.first + load.rows == parts.rows(load.buffer);
            let last = if is_last { (beats - 1) % channels + 1 } else { channels };
            told.lines.push(([u64::from(stream), load.rows, last], buffer.name.clone()));
        }
        at = end;
    }
    told
}

/// The names of the ports that the loader reads by.
pub(super) fn ports(loader: &Loader) -> impl Iterator<Item = String> {
    (0..loader.channels).map(|channel| format!("load_{channel}"))
}

/// The name of a FIFO of all channels.
pub(super) fn stream_name(number: usize) -> String {
    format!("stream_{number}")
}

/// The functions of the loader.
pub(super) fn functions(loader: &Loader) -> String {
    let channels = loader.channels;
    let streams: Vec<String> = (0..loader.streams.len()).map(stream_name).collect();
    let parameters: Vec<String> = streams.iter().map(|name| format!("hls::stream<Beat> &{name}")).collect();
    let mut text = format!(
        "
// Tells the processes of the loader what to read.
static void tell(const unsigned *loads, int entries, hls::stream<Load> (&told)[{channels}])
{{
    entries: for (int entry = 0; entry < entries; ++entry) {{
#pragma HLS PIPELINE II=3
        Load next;
        next.where = loads[3 * entry];
        next.rows = loads[3 * entry + 1];
        next.last = loads[3 * entry + 2];
        for (int channel = 0; channel < {channels}; ++channel) {{
#pragma HLS UNROLL
            told[channel].write(next);
        }}
    }}
}}

// Reads the rows of a channel that follow each other, in bursts, and puts each into the FIFO that it is for.
static void load(const Beat *channel, unsigned number, int runs, hls::stream<Load> &told, {})
{{
    runs: for (int run = 0; run < runs; ++run) {{
        const Load own = told.read();
        Load next;
        next.where = next.rows = next.last = 0;
        rows: for (unsigned row = 0; row < own.rows; ++row) {{
#pragma HLS PIPELINE II=1
            if (next.rows == 0) next = told.read();
            const Beat beat = channel[own.where + row];
            --next.rows;
            if (next.rows > 0 || number < next.last) {{
",
        parameters.join(", ")
    );
    for (number, name) in streams.iter().enumerate() {
        let otherwise = if number == 0 { "" } else { "else " };
        let test = if number + 1 == streams.len() { String::new() } else { format!("if (next.where == {number}) ") };
        text.push_str(&format!("                {otherwise}{test}{name}.write(beat);\n"));
    }
    text.push_str("            }\n        }\n    }\n}\n");
    text
}

/// The FIFOs, and the calls of the processes.
pub(super) fn processes(loader: &Loader) -> String {
    let channels = loader.channels;
    let mut text = format!("    hls::stream<Load> told[{channels}];\n#pragma HLS STREAM variable=told depth=64\n");
    let streams: Vec<String> = (0..loader.streams.len()).map(stream_name).collect();
    for (name, fifo) in streams.iter().zip(&loader.streams) {
        let storage = match fifo.storage {
            Storage::Lutram => "lutram",
            Storage::Bram => "bram",
            Storage::Uram => "uram",
        };
        text.push_str(&format!(
            "    hls::stream<Beat> {name}[{channels}];\n#pragma HLS STREAM variable={name} depth={}\n\
             #pragma HLS BIND_STORAGE variable={name} type=fifo impl={storage}\n",
            fifo.depth
        ));
    }
    text.push_str("    tell(loads, load_entries, told);\n");
    for (channel, port) in ports(loader).enumerate() {
        let own: Vec<String> = streams.iter().map(|name| format!("{name}[{channel}]")).collect();
        text.push_str(&format!("    load({port}, {channel}, load_runs, told[{channel}], {});\n", own.join(", ")));
    }
    text
}

/// Arguments of the top by which the host gives the loader its ports and what to read.
pub(super) fn parameters(loader: &Loader) -> Vec<String> {
    let told = ["const unsigned *loads", "int load_runs", "int load_entries"].map(str::to_owned);
    told.into_iter().chain(ports(loader).map(|port| format!("const Beat *{port}"))).collect()
}

/// Where the host has the channels that the loader reads.
pub(super) fn arguments(loader: &Loader, is_run: bool) -> Vec<String> {
    let told = match is_run {
        true => ["LOADS", "LOAD_RUNS", "LOAD_ENTRIES"],
        false => ["LOADS", "0", "0"],
    };
    let channels = (0..loader.channels).map(|channel| format!("channels.channel({channel})"));
    told.map(str::to_owned).into_iter().chain(channels).collect()
}

/// What the loader is told, as the host has it.
pub(super) fn words(parts: &Parts) -> String {
    let Told { runs, lines } = told(parts);
    let mut text = format!(
        "\n// What the loader reads in an inference: where rows begin that follow each other and how many they are; then, of these, to\n\
         // which FIFO how many go, and how many channels have a beat in the last.\n\
         constexpr int LOAD_RUNS = {runs}, LOAD_ENTRIES = {};\n\nstatic const unsigned LOADS[] = {{\n",
        lines.len()
    );
    for ([where_, rows, last], about) in &lines {
        let about = crate::kernel::writer::comment(about);
        text.push_str(&format!("    {where_}, {rows}, {last}, // {about}\n"));
    }
    if lines.is_empty() {
        text.push_str("    0,\n");
    }
    text + "};\n"
}
