//! What builds the sources: a Makefile for the simulation in C++, configurations for AMD's tools, and what people read first.

use super::Written;
use super::loader;
use super::top::top_name;
use super::words::Words;
use crate::fpga::operators::{Class, Float};
use crate::kernel::host::{file_names, listed};
use crate::kernel::writer::comment;
use crate::target::Port;

/// The Makefile.
pub(super) fn makefile() -> String {
    "# `make csim` builds the testbench with the headers of ap_int, which come with Vitis or from elsewhere:
# make csim AP_INCLUDE=/path/to/include
CXX ?= g++
AP_INCLUDE ?= $(XILINX_HLS)/include

# Products are not joined with sums where a function does not say so. Labels name loops, and directives are for another compiler.
# The headers read what they construct, and it is not always seen that lanes which read an element have written it. What one compiler
# warns of another may not know.
CXXFLAGS ?= -std=c++17 -O2 -Wall -Werror
OWN = -ffp-contract=off -Wno-unknown-warning-option -Wno-unknown-pragmas -Wno-unused-label -Wno-uninitialized -Wno-maybe-uninitialized -isystem $(AP_INCLUDE)

csim: testbench

testbench: testbench.o top.o kernels.o
\t$(CXX) $(CXXFLAGS) -o $@ $^

%.o: %.cpp $(wildcard *.h)
\t$(CXX) $(CXXFLAGS) $(OWN) -c -o $@ $<

clean:
\trm -f testbench *.o

.PHONY: csim clean
"
    .to_owned()
}

/// What `v++ -c --mode hls` reads. Operators that designs have many of are built as they are counted (UG1399, `syn.op`).
pub(super) fn hls_config(written: &Written<'_>) -> String {
    let clock_hz = written.machine.clock_hz;
    let period = 1e9 / clock_hz as f64;
    let mut text = format!(
        "part={}\n\n[hls]\nflow_target=vitis\npackage.output.format=xo\nclock={period:.3}ns\nsyn.top={}\nsyn.file=kernels.cpp\n\
         syn.file=top.cpp\ntb.file=testbench.cpp\ntb.cflags=-ffp-contract=off\nsyn.cflags=-ffp-contract=off\n",
        written.facts.part,
        top_name(written.parts)
    );
    let adders = written.parts.design.adders.implementation();
    let operators = [
        ("fadd", Float::Add, adders),
        ("fsub", Float::Add, adders),
        ("fmul", Float::Multiply, "fulldsp"),
        ("fdiv", Float::Divide, "fabric"),
    ];
    for (name, function, implementation) in operators {
        let latency = Class::Single(function).timing(clock_hz).latency;
        text.push_str(&format!("syn.op=op:{name} impl:{implementation} latency:{latency}\n"));
    }
    text
}

/// What `v++ --link` reads: which memory each port is connected to.
pub(super) fn connectivity(written: &Written<'_>, words: &Words) -> String {
    let name = top_name(written.parts);
    let memory: String = written.facts.memory.name.chars().filter(char::is_ascii_alphanumeric).collect();
    let mut text = format!("[connectivity]\nnk={name}:1:{name}_1\nsp={name}_1.program:{memory}[0]\n");
    if words.has_host() {
        text.push_str(&format!("sp={name}_1.host:{memory}[0]\n"));
    }
    if let Some(loader) = &written.parts.design.loader {
        text.push_str(&format!("sp={name}_1.loads:{memory}[0]\n"));
        for (channel, port) in loader::ports(loader).enumerate() {
            text.push_str(&format!("sp={name}_1.{port}:{memory}[{channel}]\n"));
        }
    }
    for channel in &words.channels {
        text.push_str(&format!("sp={name}_1.channel_{channel}:{memory}[{channel}]\n"));
    }
    text
}

/// How to build and run it.
pub(super) fn readme(written: &Written<'_>) -> String {
    let Written { parts, machine, .. } = written;
    let (inputs, outputs) = (file_names(&parts.inputs), file_names(&parts.outputs));
    let list = |names: &[String], ports: &[(Port, u32)]| {
        let line =
            |(name, (port, number)): (&String, &(Port, u32))| listed(name, port, parts.buffers[*number as usize].dtype);
        names.iter().zip(ports).map(line).collect::<String>()
    };
    let how = if super::dataflow::is_streaming(written) {
        "`top.cpp` has the stages, which run at the same time, and the channels between them; what each does is in `kernels.cpp`. A \
         host calls it once to load weights, and then for each inference, as `testbench.cpp` does."
    } else {
        "`top.cpp` has the memories on the part and the controller, which reads the program (`program.h`) and calls the functions \
         in `kernels.cpp`. A host calls it once with the entries that bring weights to memories on the part, and then for each \
         inference with the others, as `testbench.cpp` does."
    };
    format!(
        "# `{}` for {}\n\n\
         C++ for high-level synthesis. Simulate it in this folder, with the headers of `ap_int`:\n\n```sh\n\
         make csim AP_INCLUDE=/path/to/ap_types\n\
         mkdir -p outputs\n\
         ./testbench ../weights.bin inputs outputs\n```\n\n\
         With a folder of expected outputs as a fourth argument it compares, and fails where they differ.\n\n\
         Or with Vitis, as a kernel for `{}`:\n\n```sh\n\
         v++ -c --mode hls --config hls_config.cfg --work_dir hls\n\
         v++ -l -t hw --platform PLATFORM --config connectivity.cfg -o model.xclbin hls/*.xo\n```\n\n\
         {how}\n\n\
         The folder `inputs` holds an array for each input, as NumPy saves it:\n\n{}\n\
         The outputs are written to `outputs`:\n\n{}",
        comment(&parts.model).replace('`', "_"),
        comment(&machine.name),
        written.facts.part,
        list(&inputs, &parts.inputs),
        list(&outputs, &parts.outputs)
    )
}
