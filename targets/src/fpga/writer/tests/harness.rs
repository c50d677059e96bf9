//! Programs made by hand, simulated as kernels and run as emitted code, whose outputs must have the same bits.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tcc_ir::{DType, Shape, TensorType};

use crate::fpga::design::{Design, Function, FunctionId, Home, MemoryId, OnChip, Storage};
use crate::fpga::program::{Buffer, Call, Group, Other, Parts};
use crate::fpga::writer::{Written, check, files};
use crate::kernel::Kernel;
use crate::kernel::host::{descr, file_names};
use crate::kernel::simulator::{Memory, Place, buffer_bytes, launch};
use crate::machine::Machine;
use crate::target::Port;

/// Where a buffer is to lie.
#[derive(Clone, Copy, Debug)]
pub enum Where {
    /// In a memory of its own with so many banks, not at its start.
    Chip(u32),
    /// In a memory that is there.
    In(MemoryId),
    /// In so many channels from one on.
    Channels(u32, u32),
}

/// A program that is made, with what goes into it.
pub struct Model {
    pub parts: Parts,
    weights: Vec<u8>,
    inputs: Vec<Vec<u8>>,
    /// The next free word of each memory, and row of each channel.
    words: Vec<u64>,
    rows: Vec<u64>,
    state: u64,
}

/// How near outputs must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Near {
    /// All bits, but those of a NaN.
    Bits,
    /// So many units in the last place.
    Ulps(u64),
}

impl Model {
    pub fn new(name: &str) -> Self {
        let parts = Parts {
            model: name.to_owned(),
            design: Design::default(),
            buffers: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            calls: Vec::new(),
            loads: Vec::new(),
            groups: vec![Group::default()],
            weights_bytes: 0,
            values_bytes: 0,
            weights: None,
            blocks: Vec::new(),
            other: Other::default(),
        };
        let (words, rows) = (Vec::new(), Vec::new());
        Model { parts, weights: Vec::new(), inputs: Vec::new(), words, rows, state: 7 }
    }

    /// A memory on the part.
    pub fn memory(&mut self, name: &str, dtype: DType, banks: u32, words: u64) -> MemoryId {
        let storage = [Storage::Bram, Storage::Lutram, Storage::Uram][self.words.len() % 3];
        self.parts.design.memories.push(OnChip { name: name.to_owned(), dtype, banks, words, storage });
        self.words.push(0);
        MemoryId(self.words.len() as u32 - 1)
    }

    /// Numbers that look random.
    pub fn mixed(&mut self) -> u64 {
        self.state = self.state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let mixed = (self.state ^ (self.state >> 33)).wrapping_mul(0xff51afd7ed558ccd);
        mixed ^ (mixed >> 33)
    }

    /// Elements of a type: integers of all kinds, floats of moderate size and some that are not.
    fn random(&mut self, dtype: DType, elements: u64) -> Vec<u8> {
        let bytes = buffer_bytes(dtype, elements) as usize;
        let mut out = Vec::with_capacity(bytes + 8);
        for element in 0..elements {
            let bits = self.mixed();
            let value = (bits % 65536) as f64 / 8192.0 - 4.0;
            match dtype {
                DType::F32 | DType::F64 if element % 16 == 5 => {
                    let special =
                        [0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1e30, -1e-30, 1e-42, 65520.0, 0.5];
                    let value = special[bits as usize % special.len()];
                    match dtype {
                        DType::F32 => out.extend((value as f32).to_le_bytes()),
                        _ => out.extend(value.to_le_bytes()),
                    }
                }
                DType::F32 => out.extend((value as f32).to_le_bytes()),
                DType::F64 => out.extend(value.to_le_bytes()),
                DType::I4 | DType::U4 if element % 2 == 1 => {}
                // Small integers are divisors more often.
                DType::I64 | DType::U64 | DType::I32 | DType::U32 if element % 3 == 0 => {
                    let size = dtype.bits() / 8;
                    out.extend(&(bits as i64 % 40).to_le_bytes()[..size]);
                }
                _ => out.extend(&bits.to_le_bytes()[..dtype.bits().div_ceil(8)]),
            }
        }
        out.truncate(bytes);
        out
    }

    fn buffer(&mut self, name: &str, dtype: DType, elements: u64, at: Where, place: Place) -> u32 {
        let (home, at) = match at {
            Where::Chip(banks) => {
                let words = elements.div_ceil(u64::from(banks));
                let memory = self.memory(&format!("{name}_ram"), dtype, banks, words + 3);
                (Home::OnChip(memory), 3)
            }
            Where::In(memory) => {
                let next = &mut self.words[memory.index()];
                let at = *next;
                *next += elements.div_ceil(u64::from(self.parts.design.memories[memory.index()].banks));
                (Home::OnChip(memory), at)
            }
            Where::Channels(first, ways) => {
                let end = (first + ways) as usize;
                if self.rows.len() < end {
                    self.rows.resize(end, 1);
                    self.parts.design.channels = end as u32;
                }
                let own = first as usize..end;
                let at = self.rows[own.clone()].iter().copied().max().unwrap();
                let beats = buffer_bytes(dtype, elements).div_ceil(64).div_ceil(u64::from(ways));
                self.rows[own].fill(at + beats);
                (Home::External { first, ways }, at)
            }
        };
        self.parts.buffers.push(Buffer { name: name.to_owned(), dtype, elements, home, at, place });
        self.parts.buffers.len() as u32 - 1
    }

    /// Memory for values.
    pub fn value(&mut self, name: &str, dtype: DType, elements: u64, at: Where) -> u32 {
        let place = Place::Values(self.parts.values_bytes);
        self.parts.values_bytes += buffer_bytes(dtype, elements).next_multiple_of(64);
        self.buffer(name, dtype, elements, at, place)
    }

    /// An input with random elements.
    pub fn input(&mut self, name: &str, dtype: DType, elements: u64, at: Where) -> u32 {
        let data = self.random(dtype, elements);
        self.given(name, dtype, elements, at, data)
    }

    /// An input with the elements that are given.
    pub fn given(&mut self, name: &str, dtype: DType, elements: u64, at: Where, data: Vec<u8>) -> u32 {
        let number = self.value(name, dtype, elements, at);
        let ty = TensorType::new(dtype, Shape::vector(elements as usize));
        self.parts.inputs.push((Port { name: name.to_owned(), ty }, number));
        self.inputs.push(data);
        number
    }

    /// Weights with random elements.
    pub fn weight(&mut self, name: &str, dtype: DType, elements: u64, at: Where) -> u32 {
        let place = Place::Weights(self.weights.len() as u64);
        let data = self.random(dtype, elements);
        self.weights.extend(data);
        self.weights.resize(self.weights.len().next_multiple_of(64), 0);
        self.parts.weights_bytes = self.weights.len() as u64;
        self.buffer(name, dtype, elements, at, place)
    }

    /// Has a buffer be an output.
    pub fn shown(&mut self, number: u32) {
        let buffer = &self.parts.buffers[number as usize];
        let ty = TensorType::new(buffer.dtype, Shape::vector(buffer.elements as usize));
        let port = Port { name: buffer.name.clone(), ty };
        self.parts.outputs.push((port, number));
    }

    /// An output.
    pub fn output(&mut self, name: &str, dtype: DType, elements: u64, at: Where) -> u32 {
        let number = self.value(name, dtype, elements, at);
        self.shown(number);
        number
    }

    /// A function, and a call of it.
    pub fn call(&mut self, kernel: Kernel, buffers: &[u32]) {
        let homes = buffers.iter().map(|&buffer| self.parts.buffers[buffer as usize].home).collect();
        let function = Function::new(kernel, homes);
        let functions = &mut self.parts.design.functions;
        let known = functions.iter().position(|own| *own == function);
        let id = known.unwrap_or_else(|| {
            crate::kernel::check::check(&function.kernel).unwrap();
            check(&function).unwrap();
            functions.push(function);
            functions.len() - 1
        });
        let grid = self.parts.design.functions[id].kernel.grid;
        self.parts.calls.push(Call { function: FunctionId(id as u32), buffers: buffers.to_vec(), grid, group: 0 });
    }

    /// The bytes of the outputs, as the simulator computes them.
    fn simulated(&self) -> Vec<Vec<u8>> {
        let mut memory = Memory { weights: &self.weights, values: vec![0; self.parts.values_bytes as usize] };
        let bytes = |number: u32| {
            let buffer = &self.parts.buffers[number as usize];
            let Place::Values(at) = buffer.place else { panic!("a value is among the weights") };
            at as usize..at as usize + buffer_bytes(buffer.dtype, buffer.elements) as usize
        };
        for ((_, number), data) in self.parts.inputs.iter().zip(&self.inputs) {
            memory.values[bytes(*number)].copy_from_slice(data);
        }
        for call in &self.parts.calls {
            let kernel = &self.parts.design.functions[call.function.index()].kernel;
            let places: Vec<Place> =
                call.buffers.iter().map(|&buffer| self.parts.buffers[buffer as usize].place).collect();
            launch(kernel, kernel.threads.next_power_of_two(), &mut memory, &places).unwrap();
        }
        self.parts.outputs.iter().map(|(_, number)| memory.values[bytes(*number)].to_vec()).collect()
    }

    /// The files.
    pub fn files(&self) -> Vec<(PathBuf, String)> {
        let machine = Machine::parse("u280", include_str!("../../../../machines/u280.toml")).unwrap();
        let facts = machine.fpga.clone().unwrap();
        files(&Written {
            parts: &self.parts,
            machine: &machine,
            facts: &facts,
            intervals: &|_, _| None,
            nests: &|_| None,
        })
    }

    /// One of the files.
    pub fn file(&self, name: &str) -> String {
        self.files().into_iter().find(|(path, _)| path.as_path() == Path::new(name)).unwrap().1
    }

    /// Builds and runs what is written, and compares it with what is simulated.
    pub fn check(&self, near: Near) {
        let Some(include) = ap_types() else { return };
        let place = tempfile::tempdir().unwrap();
        let folder = place.path();
        for (path, text) in self.files() {
            fs::write(folder.join(path), text).unwrap();
        }
        if let Some(kept) = std::env::var_os("TCC_KEEP_CODE") {
            let kept = PathBuf::from(kept).join(&self.parts.model);
            fs::create_dir_all(&kept).unwrap();
            for (path, text) in self.files() {
                fs::write(kept.join(path), text).unwrap();
            }
        }
        fs::write(folder.join("weights.bin"), &self.weights).unwrap();
        for name in ["inputs", "outputs", "expected"] {
            fs::create_dir(folder.join(name)).unwrap();
        }
        for ((name, (_, number)), data) in
            file_names(&self.parts.inputs).iter().zip(&self.parts.inputs).zip(&self.inputs)
        {
            write_npy(&folder.join("inputs").join(format!("{name}.npy")), &self.parts.buffers[*number as usize], data);
        }
        let expected = self.simulated();
        let names = file_names(&self.parts.outputs);
        for ((name, (_, number)), data) in names.iter().zip(&self.parts.outputs).zip(&expected) {
            write_npy(
                &folder.join("expected").join(format!("{name}.npy")),
                &self.parts.buffers[*number as usize],
                data,
            );
        }
        let include = format!("AP_INCLUDE={}", include.display());
        let flags = "CXXFLAGS=-std=c++17 -O2 -Wall -Wextra -Werror";
        quietly(Command::new("make").args(["-s", "csim", &include, flags]).current_dir(folder));
        let arguments = ["weights.bin", "inputs", "outputs", "expected"];
        quietly(Command::new(folder.join("testbench")).args(arguments).current_dir(folder));
        for ((name, (_, number)), expected) in names.iter().zip(&self.parts.outputs).zip(&expected) {
            let bytes = fs::read(folder.join("outputs").join(format!("{name}.npy"))).unwrap();
            let own = &bytes[bytes.len() - expected.len()..];
            compare(name, self.parts.buffers[*number as usize].dtype, own, expected, near);
        }
    }
}

/// The headers of `ap_int`. Says what is missing if a user has not fetched them; in CI nothing may be missing.
fn ap_types() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let include = root.join("target/ap_types");
    if include.join("ap_int.h").exists() {
        return Some(include);
    }
    assert!(std::env::var_os("CI").is_none(), "there are no headers of ap_int; run tests/fetch_ap_types.sh");
    eprintln!("SKIPPED: there are no headers of ap_int (tests/fetch_ap_types.sh); programs of FPGAs are not run");
    None
}

/// Runs a command that must end well without a word.
fn quietly(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.is_empty(), "{command:?} ends with {}:\n{said}", output.status);
}

fn write_npy(path: &Path, buffer: &Buffer, data: &[u8]) {
    let mut header =
        format!("{{'descr': '{}', 'fortran_order': False, 'shape': ({},), }}", descr(buffer.dtype), buffer.elements);
    let padded = (10 + header.len() + 1).next_multiple_of(64) - 10;
    while header.len() + 1 < padded {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    fs::write(path, bytes).unwrap();
}

fn compare(name: &str, dtype: DType, own: &[u8], expected: &[u8], near: Near) {
    let size = dtype.bits().div_ceil(8);
    let number = |bytes: &[u8]| -> (u64, bool) {
        let mut wide = [0; 8];
        wide[..size].copy_from_slice(bytes);
        let bits = u64::from_le_bytes(wide);
        let is_nan = match dtype {
            DType::F32 => f32::from_bits(bits as u32).is_nan(),
            DType::F64 => f64::from_bits(bits).is_nan(),
            _ => false,
        };
        (bits, is_nan)
    };
    let mut wrong = String::new();
    let mut count = 0;
    for (at, (own, expected)) in own.chunks(size).zip(expected.chunks(size)).enumerate() {
        let ((own, is_nan), (expected, wants_nan)) = (number(own), number(expected));
        let is_same = match near {
            Near::Bits => own == expected,
            Near::Ulps(most) => own.abs_diff(expected) <= most,
        };
        if !(is_same || is_nan && wants_nan) {
            count += 1;
            if count <= 12 {
                writeln!(wrong, "element {at}: {own:#x} instead of {expected:#x}").unwrap();
            }
        }
    }
    assert!(count == 0, "{count} elements of {name} ({dtype}) differ:\n{wrong}");
}
