//! The program that runs kernels: it loads weights and inputs, launches, and writes the outputs.

use std::collections::HashSet;
use std::fmt::Write as _;

use tcc_ir::DType;

use super::Written;
use super::c::comment;
use crate::simt::kernel::names::name_of;
use crate::simt::program::{Buffer, Parts};
use crate::simt::simulator::Place;
use crate::target::Port;

/// What every host program includes.
pub(super) const HEADER: &str = include_str!("host.h");

/// Where a buffer lies: in weights or values, at which byte, and how many bytes it has.
fn place_of(buffer: &Buffer) -> (u32, u64, u64) {
    let bytes = (buffer.elements * buffer.dtype.bits() as u64).div_ceil(8);
    match buffer.place {
        Place::Weights(at) => (0, at, bytes),
        Place::Values(at) => (1, at, bytes),
    }
}

/// The names of a program's ports as files: different from each other, whatever the model calls them.
pub(in crate::simt) fn file_names(parts: &Parts) -> (Vec<String>, Vec<String>) {
    let named = |ports: &[(Port, u32)]| {
        let mut taken = HashSet::new();
        let name = |(port, _): &(Port, u32)| {
            let plain = name_of(&port.name);
            let (mut name, mut again) = (plain.clone(), 1);
            while !taken.insert(name.clone()) {
                again += 1;
                name = format!("{plain}_{again}");
            }
            name
        };
        ports.iter().map(name).collect()
    };
    (named(&parts.inputs), named(&parts.outputs))
}

/// What NumPy calls a type as it is stored; those that it does not know go by the integers of their size.
fn descr(dtype: DType) -> &'static str {
    match dtype {
        DType::F64 => "<f8",
        DType::F32 => "<f4",
        DType::F16 => "<f2",
        DType::BF16 | DType::U16 => "<u2",
        DType::F8E4M3 | DType::F8E5M2 | DType::U8 | DType::U4 => "|u1",
        DType::I64 => "<i8",
        DType::I32 => "<i4",
        DType::I16 => "<i2",
        DType::I8 | DType::I4 => "|i1",
        DType::U64 => "<u8",
        DType::U32 => "<u4",
        DType::Bool => "|b1",
    }
}

/// The host program for OpenCL.
pub(super) fn main(written: &Written<'_>) -> String {
    let parts = written.parts;
    let mut text = format!(
        "// Runs {} for {}; see README.md beside this folder.\n#include \"host.h\"\n\n\
         int main(int argc, char **argv)\n{{\n    \
         if (argc != 5) fail(\"usage: model KERNELS.cl WEIGHTS.bin INPUT_FOLDER OUTPUT_FOLDER\");\n    \
         const std::string inputs = argv[3], outputs = argv[4];\n    \
         const Device device(argv[1], {}, {});\n    \
         device.write(0, 0, read_file(argv[2]));\n\n",
        comment(&parts.model),
        written.machine,
        parts.weights_bytes,
        parts.values_bytes
    );
    // Writing to a string cannot fail.
    let (inputs, outputs) = file_names(parts);
    for ((port, buffer), name) in parts.inputs.iter().zip(&inputs) {
        let buffer = &parts.buffers[*buffer as usize];
        let (of, at, _) = place_of(buffer);
        let bytes = bytes_of(port, buffer);
        let _ = writeln!(text, "    device.write({of}, {at}, read_npy(inputs + \"/{name}.npy\", {bytes}));");
    }
    text.push_str("\n    // What lies in memory.\n");
    for (number, buffer) in parts.buffers.iter().enumerate() {
        let (of, at, bytes) = place_of(buffer);
        let _ = writeln!(
            text,
            "    const cl_mem b{number} = device.part({of}, {at}, {}); // {} {}",
            bytes.max(1),
            buffer.dtype,
            comment(&buffer.name)
        );
    }
    text.push('\n');
    for kernel in &parts.kernels {
        let _ = writeln!(text, "    const cl_kernel {0} = device.kernel(\"{0}\");", kernel.name);
    }
    let mut group = None;
    for launch in &parts.launches {
        let kernel = &parts.kernels[launch.kernel as usize];
        if group != Some(launch.group) {
            group = Some(launch.group);
            let of = &parts.groups[launch.group as usize];
            let first = of.origins.first().map_or("", String::as_str);
            let _ = writeln!(text, "\n    // {}: {}", comment(&of.name), comment(first));
        }
        let buffers: Vec<String> = launch.buffers.iter().map(|buffer| format!("b{buffer}")).collect();
        let [x, y, z] = kernel.grid;
        let _ = writeln!(
            text,
            "    device.launch({}, {x}, {y}, {z}, {}, {{{}}});",
            kernel.name,
            kernel.threads,
            buffers.join(", ")
        );
    }
    text.push('\n');
    for ((port, buffer), name) in parts.outputs.iter().zip(&outputs) {
        let buffer = &parts.buffers[*buffer as usize];
        let (of, at, _) = place_of(buffer);
        let bytes = bytes_of(port, buffer);
        let shape: String = port.ty.shape.iter().map(|dim| format!("{dim}, ")).collect();
        let _ = writeln!(
            text,
            "    write_npy(outputs + \"/{name}.npy\", \"{}\", \"{}\", device.read({of}, {at}, {bytes}));",
            descr(buffer.dtype),
            shape.trim_end()
        );
    }
    text.push_str("    return 0;\n}\n");
    text
}

/// Bytes of a port's elements as they are stored.
fn bytes_of(port: &Port, buffer: &Buffer) -> u64 {
    (port.ty.shape.count() as u64 * buffer.dtype.bits() as u64).div_ceil(8)
}

/// How to build and run it.
pub(super) fn readme(written: &Written<'_>) -> String {
    let (inputs, outputs) = file_names(written.parts);
    let list = |names: &[String], ports: &[(Port, u32)]| {
        let line = |(name, (port, _)): (&String, &(Port, u32))| {
            format!("- `{name}.npy`: {} {}\n", comment(&port.name), port.ty)
        };
        names.iter().zip(ports).map(line).collect::<String>()
    };
    format!(
        "# {} for {}\n\nBuild and run it on any OpenCL device:\n\n```sh\n\
         g++ -std=c++17 -O2 -Wall -o model opencl/main.cpp -lOpenCL\n\
         ./model opencl/kernels.cl ../weights.bin inputs outputs\n```\n\n\
         The folder `inputs` holds an array for each input, as NumPy saves it:\n\n{}\nThe outputs are written to `outputs`:\n\n{}",
        comment(&written.parts.model),
        written.machine,
        list(&inputs, &written.parts.inputs),
        list(&outputs, &written.parts.outputs)
    )
}
