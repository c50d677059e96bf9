//! All functions of a design as one file, with what they call.

use super::Written;
use super::function::{self, Common, Known, occurs};
use super::top::independent;
use crate::fpga::design::{FunctionId, Style};
use crate::kernel::writer::{Language, comment};

/// The header and the file of functions.
pub(super) fn kernels(written: &Written<'_>) -> [String; 2] {
    let parts = written.parts;
    let design = &parts.design;
    let head = format!("// Functions of {} for {}.\n", comment(&parts.model), comment(&written.machine.name));
    let mut header = format!("{head}#pragma once\n\n#include \"beats.h\"\n");
    if design.style == Style::Streaming {
        header.push_str("#include \"stream.h\"\n");
    }
    if !design.memories.is_empty() {
        header.push_str("\n// Words and banks of memories on the part.\n");
    }
    for memory in &design.memories {
        let upper = memory.name.to_ascii_uppercase();
        header
            .push_str(&format!("constexpr int {upper}_WORDS = {}, {upper}_BANKS = {};\n", memory.words, memory.banks));
    }
    header.push_str("\nnamespace kernels {\n\n");
    let (mut common, mut sections) = (Common::default(), String::new());
    for (number, function) in (0..).zip(&design.functions) {
        let id = FunctionId(number);
        let interval = |loop_number: usize| (written.intervals)(id, loop_number);
        let independent = independent(parts, id);
        sections.push('\n');
        sections.push_str(&function::about(function));
        let known = Known { interval: &interval, nest: (written.nests)(id) };
        match function::write(design, function, &independent, &known, &mut common) {
            Ok(text) => {
                header.push_str(&format!("{};\n\n", text.declaration));
                sections.push_str(&format!("{}\n{{\n{}}}\n", text.definition, text.body));
            }
            // Programs are checked before they are written; what slips through must not compile.
            Err(error) => sections.push_str(&format!("#error \"{}\"\n", comment(&error.to_string()).replace('"', "'"))),
        }
    }
    header.push_str("} // namespace kernels\n");
    let mut text = format!("{head}#include \"kernels.h\"\n\n#include <cmath>\n\nnamespace kernels {{\n");
    let helpers: String = common.helpers.iter().map(|helper| format!("\n{}", helper.text(Language::Hls))).collect();
    for (name, test) in [("min", "b < a"), ("max", "a < b")] {
        if occurs(&helpers, name) || occurs(&sections, name) {
            text.push_str(&format!(
                "\ntemplate <typename Number> inline Number {name}(Number a, Number b) {{ return {test} ? b : a; }}\n"
            ));
        }
    }
    text.push_str(&helpers);
    for ways in common.ways {
        text.push_str(&of_ways(ways));
    }
    [header, text + &sections + "\n} // namespace kernels\n"]
}

/// What reads and writes a beat of a buffer that is spread over so many channels.
fn of_ways(ways: u32) -> String {
    let list = |constant: &str| {
        let each = (0..ways).map(|way| format!("{constant}Beat *channel_{way}"));
        each.collect::<Vec<_>>().join(", ")
    };
    let mut text = format!(
        "\nstatic inline Beat read_beat_of_{ways}({}, int first, int beat)\n{{\n    const int row = first + beat / {ways};\n    \
         switch (beat % {ways}) {{\n",
        list("const ")
    );
    for way in 0..ways {
        let case = if way + 1 == ways { "default".to_owned() } else { format!("case {way}") };
        text.push_str(&format!("    {case}: return channel_{way}[row];\n"));
    }
    text.push_str(&format!(
        "    }}\n}}\n\nstatic inline void write_beat_of_{ways}({}, int first, int beat, const Beat &value)\n{{\n    \
         const int row = first + beat / {ways};\n    switch (beat % {ways}) {{\n",
        list("")
    ));
    for way in 0..ways {
        let case = if way + 1 == ways { "default".to_owned() } else { format!("case {way}") };
        text.push_str(&format!("    {case}: channel_{way}[row] = value; break;\n"));
    }
    text.push_str("    }\n}\n");
    text
}
