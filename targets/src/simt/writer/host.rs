//! The program that runs kernels: it loads weights and inputs, launches, and writes the outputs.

use std::collections::{BTreeSet, HashSet};

use super::Written;
use super::dialect::Dialect;
use super::shared::Placement;
use crate::kernel::Kernel;
use crate::kernel::host::{bytes_of, descr, file_names, listed, shape_of};
use crate::kernel::simulator::{Place, buffer_bytes};
use crate::kernel::writer::comment;
use crate::simt::program::Parts;
use crate::target::Port;

/// What those of OpenCL include.
pub(super) const OPENCL: &str = include_str!("host/opencl.h");

/// What those of CUDA include.
pub(super) const CUDA: &str = include_str!("host/cuda.h");

/// A host program that is being written.
struct Host<'p> {
    parts: &'p Parts,
    dialect: Dialect,
    /// Threads of a warp.
    warp: u32,
    /// Buffers that have a name in the program already.
    named: HashSet<u32>,
    text: String,
}

impl Host<'_> {
    fn line(&mut self, text: &str) {
        self.text.push_str("    ");
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// A buffer's name: its place among those of the program.
    fn name(&self, number: u32) -> String {
        match self.parts.buffers[number as usize].place {
            Place::Weights(_) => format!("weight_{number}"),
            Place::Values(_) => format!("value_{number}"),
        }
    }

    /// Names a buffer where it is first used.
    fn declare(&mut self, number: u32) {
        if !self.named.insert(number) {
            return;
        }
        let buffer = &self.parts.buffers[number as usize];
        let (of, at) = match buffer.place {
            Place::Weights(at) => ("weights", at),
            Place::Values(at) => ("values", at),
        };
        let bytes = (buffer.elements * buffer.dtype.bits() as u64).div_ceil(8).max(1);
        let (name, about) = (self.name(number), format!("{}: {}", buffer.dtype, comment(&buffer.name)));
        self.line(&match self.dialect {
            Dialect::OpenCl => format!("const cl_mem {name} = device.{of}({at}, {bytes}); // {about}"),
            Dialect::Cuda => format!("void *const {name} = device.{of}({at}); // {about}"),
        });
    }

    fn inputs(&mut self, names: &[String]) {
        for ((port, number), name) in self.parts.inputs.iter().zip(names) {
            self.declare(*number);
            let dtype = self.parts.buffers[*number as usize].dtype;
            let read = format!("read_npy(inputs + \"/{name}.npy\", \"{}\", {})", descr(dtype), bytes_of(port, dtype));
            let buffer = self.name(*number);
            self.line(&format!("device.write({buffer}, {read});"));
        }
    }

    /// Counters that blocks arrive by are 0 before the first launch.
    fn counters(&mut self) {
        let counters: BTreeSet<u32> = self.parts.counters().collect();
        for number in counters {
            self.declare(number);
            let buffer = &self.parts.buffers[number as usize];
            let name = self.name(number);
            self.line(&format!("device.write({name}, Bytes({}));", buffer_bytes(buffer.dtype, buffer.elements)));
        }
    }

    fn launches(&mut self) {
        let parts = self.parts;
        let mut group = None;
        for launch in &parts.launches {
            if group != Some(launch.group) {
                group = Some(launch.group);
                let of = &parts.groups[launch.group as usize];
                let first = of.origins.first().map_or("", String::as_str);
                let about = format!("{}: {}", comment(&of.name), comment(first));
                self.text.push('\n');
                self.line(&format!("// {about}"));
            }
            launch.buffers.iter().for_each(|&buffer| self.declare(buffer));
            let buffers: Vec<String> = launch.buffers.iter().map(|&buffer| self.name(buffer)).collect();
            let kernel = &parts.kernels[launch.kernel as usize];
            let Kernel { name, threads, .. } = kernel;
            let [x, y, z] = if self.dialect.is_flat(kernel) { [kernel.blocks() as u32, 1, 1] } else { kernel.grid };
            let (blocks, buffers) = (format!("{{{x}, {y}, {z}}}"), buffers.join(", "));
            self.line(&match self.dialect {
                Dialect::OpenCl => format!("device.launch(\"{name}\", {blocks}, {threads}, {{{buffers}}});"),
                Dialect::Cuda => {
                    let shared = Placement::new(kernel, self.dialect, self.warp).launched();
                    let end = if buffers.is_empty() { buffers } else { format!(", {buffers}") };
                    format!("device.launch(kernels::{name}, {blocks}, {threads}, {shared}{end});")
                }
            });
        }
    }

    fn outputs(&mut self, names: &[String]) {
        for ((port, number), name) in self.parts.outputs.iter().zip(names) {
            self.declare(*number);
            let dtype = self.parts.buffers[*number as usize].dtype;
            let read = format!("device.read({}, {})", self.name(*number), bytes_of(port, dtype));
            let (descr, shape) = (descr(dtype), shape_of(port));
            self.line(&format!("write_npy(outputs + \"/{name}.npy\", \"{descr}\", \"{shape}\", {read});"));
        }
    }
}

/// The host program.
pub(super) fn main(written: &Written<'_>, dialect: Dialect) -> String {
    let Written { parts, machine, warp, .. } = *written;
    let (inputs, outputs) = (file_names(&parts.inputs), file_names(&parts.outputs));
    let mut host = Host { parts, dialect, warp, named: HashSet::new(), text: String::new() };
    let (model, machine) = (comment(&parts.model), comment(machine));
    host.text.push_str(&format!("// Runs {model} for {machine}; README.md in the folder above says how.\n"));
    let (includes, arguments, first) = match dialect {
        Dialect::OpenCl => ("#include \"host.h\"\n", "KERNELS.cl WEIGHTS.bin", 2),
        Dialect::Cuda => ("#include \"host.h\"\n#include \"kernels.cu\"\n", "WEIGHTS.bin", 1),
    };
    host.text.push_str(&format!("{includes}\nint main(int argc, char **argv)\n{{\n"));
    host.line(&format!("if (argc != {}) fail(\"usage: model {arguments} INPUT_FOLDER OUTPUT_FOLDER\");", first + 3));
    host.line(&format!("const std::string inputs = argv[{}], outputs = argv[{}];", first + 1, first + 2));
    let (weights, values) = (parts.weights_bytes, parts.values_bytes);
    let source = if dialect == Dialect::OpenCl { "argv[1], " } else { "" };
    host.line(&format!("const Device device({source}read_weights(argv[{first}], {weights}), {values});\n"));
    host.line("// Inputs.");
    host.inputs(&inputs);
    host.counters();
    host.launches();
    host.text.push('\n');
    host.line("// Outputs.");
    host.outputs(&outputs);
    host.text + "}\n"
}

/// How to build and run it.
pub(super) fn readme(written: &Written<'_>) -> String {
    let Written { parts, machine, arch, .. } = written;
    let (inputs, outputs) = (file_names(&parts.inputs), file_names(&parts.outputs));
    let cuda = arch.as_ref().map(|arch| {
        format!(
            "Or with CUDA, where a GPU of NVIDIA is:\n\n```sh\n\
             nvcc -O2 -std=c++17 -fmad=false -arch={arch} -o model cuda/main.cu\n\
             mkdir -p outputs\n\
             ./model ../weights.bin inputs outputs\n```\n\n"
        )
    });
    let list = |names: &[String], ports: &[(Port, u32)]| {
        let line =
            |(name, (port, number)): (&String, &(Port, u32))| listed(name, port, parts.buffers[*number as usize].dtype);
        names.iter().zip(ports).map(line).collect::<String>()
    };
    format!(
        "# `{}` for {}\n\nBuild and run it in this folder, with any OpenCL device:\n\n```sh\n\
         g++ -std=c++17 -O2 -Wall -o model opencl/main.cpp -lOpenCL\n\
         mkdir -p outputs\n\
         ./model opencl/kernels.cl ../weights.bin inputs outputs\n```\n\n\
         {}The folder `inputs` holds an array for each input, as NumPy saves it:\n\n{}\n\
         The outputs are written to `outputs`:\n\n{}",
        comment(&parts.model).replace('`', "_"),
        comment(machine),
        cuda.unwrap_or_default(),
        list(&inputs, &parts.inputs),
        list(&outputs, &parts.outputs)
    )
}
