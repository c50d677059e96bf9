//! What is written: how it reads, and what it computes.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

mod dequantize;
mod device;
mod tiles;

use tcc_ir::ops::{BinaryFn, UnaryFn};
use tcc_ir::{DType, Shape, TensorType};

use super::dialect::Dialect;
use super::shared::Placement;
use crate::kernel::simulator::Place;
use crate::kernel::{Builder, IndexFn, Kernel, Scalar};
use crate::machine::Machine;
use crate::number::FoldFn;
use crate::simt::SimtProgram;
use crate::simt::program::{Buffer, Group, Launch, Parts};
use crate::simt::timing::{Start, time};
use crate::target::{Port, Program};

/// A program with kernels that are not launched yet.
fn parts_of(model: &str, kernels: Vec<Kernel>) -> Parts {
    Parts {
        model: model.to_owned(),
        buffers: Vec::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        kernels,
        launches: Vec::new(),
        groups: Vec::new(),
        weights_bytes: 0,
        values_bytes: 0,
        weights: None,
        blocks: Vec::new(),
        host_ops: Vec::new(),
    }
}

/// A program for a machine that is shipped.
fn program(parts: Parts) -> SimtProgram {
    let machine = Machine::parse("h100", include_str!("../../../../machines/h100.toml")).unwrap();
    let facts = machine.simt.clone().unwrap();
    SimtProgram::new(&machine, &facts, parts).unwrap()
}

/// A kernel in which everything that can be said occurs.
fn kernel() -> Kernel {
    let mut builder = Builder::new("k0_small", 64);
    let weights = builder.buffer("weights", DType::I4, 4096, false);
    let inputs = builder.buffer("inputs", DType::F16, 4096, false);
    let outputs = builder.buffer("outputs", DType::F16, 64, true);
    let counts = builder.buffer("counts", DType::I32, 64, true);
    let tile = builder.shared("tile", DType::F16, 64);
    let scratch = builder.shared("scratch", DType::F32, 64);
    let (thread, block) = (builder.thread(), builder.block(0));
    let first = builder.scaled(block, 64);
    let index = builder.add(first, thread);
    let index = builder.keep("index", Scalar::I32, index);
    let zero = builder.float(DType::F32, 0.0);
    let sums = builder.array("sums", Scalar::F32, 2, zero);
    let total = builder.declare("total", Scalar::F32, zero);
    let none = builder.integer(0);
    let count = builder.declare("count", Scalar::I32, none);
    let end = builder.integer(32);
    let k = builder.loop_over("k", none, end, 2);
    let unrolled = builder.unrolled("u", 2);
    let at = builder.add(k, unrolled);
    let at = builder.scaled(at, 64);
    let at = builder.add(at, index);
    let weight = builder.load(weights, at, "weight");
    let input = builder.load(inputs, at, "input");
    let wide = builder.convert(DType::I4, DType::F32, weight);
    let so_far = builder.element(sums, unrolled);
    let next = builder.mul_add(DType::F32, wide, input, so_far);
    builder.set_element(sums, unrolled, next);
    let before = builder.get(count);
    let more = builder.mul_add(DType::I32, weight, weight, before);
    builder.set(count, more);
    builder.end();
    builder.end();
    let one = builder.integer(1);
    let [low, high] = [none, one].map(|at| builder.element(sums, at));
    let sum = builder.binary(BinaryFn::Add, DType::F32, low, high);
    builder.store_shared(tile, thread, sum);
    builder.barrier();
    let last = builder.integer(63);
    let mirrored = builder.index(IndexFn::Sub, last, thread);
    let other_half = builder.load_shared(tile, mirrored, "mirrored");
    let before = builder.get(total);
    let after = builder.binary(BinaryFn::Add, DType::F32, before, other_half);
    builder.set(total, after);
    builder.reduce(total, FoldFn::Sum, DType::F32, 64, scratch);
    let inside = builder.below(index, 60);
    let is_even = builder.divided(index, 2).1;
    let is_even = builder.index(IndexFn::Eq, is_even, none);
    let both = builder.index(IndexFn::And, inside, is_even);
    builder.when(both);
    let all = builder.get(total);
    let negative = builder.unary(UnaryFn::Neg, DType::F32, all);
    let gate = builder.unary(UnaryFn::Sigmoid, DType::F32, negative);
    builder.store(outputs, thread, gate);
    builder.otherwise();
    let limit = builder.float(DType::F32, -1e-5);
    let least = builder.binary(BinaryFn::Max, DType::F32, all, limit);
    let rounded = builder.convert(DType::F32, DType::F16, least);
    builder.store(outputs, thread, rounded);
    builder.end();
    let counted = builder.get(count);
    let three = builder.number(DType::I32, 3);
    let difference = builder.binary(BinaryFn::Sub, DType::I32, counted, three);
    let product = builder.binary(BinaryFn::Mul, DType::I32, difference, counted);
    builder.store(counts, thread, product);
    builder.finish([1, 1, 1], vec!["everything of nothing".to_owned(), "64 elements, one for each thread".to_owned()])
}

/// A program that runs that kernel on two inputs, the one among the weights.
fn small(model: &str, names: [&str; 4], kernel: Kernel) -> SimtProgram {
    let mut parts = parts_of(model, vec![kernel]);
    let sizes = [(DType::I4, 4096, 2048), (DType::F16, 4096, 8192), (DType::F16, 64, 512), (DType::I32, 64, 512)];
    for (name, (dtype, elements, bytes)) in names.into_iter().zip(sizes) {
        let is_weight = dtype == DType::I4;
        let place = if is_weight { Place::Weights(0) } else { Place::Values(parts.values_bytes) };
        if is_weight {
            parts.weights_bytes += bytes;
        } else {
            parts.values_bytes += bytes;
        }
        parts.buffers.push(Buffer { name: name.to_owned(), dtype, elements, place });
    }
    let port = |number: usize, dims: Shape| {
        let ty = TensorType::new(parts.buffers[number].dtype, dims);
        (Port { name: names[number].to_owned(), ty }, number as u32)
    };
    parts.inputs = vec![port(1, Shape::new([64, 64]).unwrap())];
    parts.outputs = vec![port(2, Shape::vector(64)), port(3, Shape::vector(64))];
    parts.groups = vec![Group { name: format!("k0 {model}"), origins: vec![model.to_owned()], ..Group::default() }];
    parts.launches = vec![Launch { kernel: 0, buffers: vec![0, 1, 2, 3], group: 0 }];
    program(parts)
}

/// A file of a program's code.
fn file(program: &SimtProgram, name: &str) -> String {
    program.code().into_iter().find(|(path, _)| path.ends_with(name)).unwrap().1
}

#[test]
fn code_reads_well() {
    let program = small("small", ["weights", "inputs", "outputs", "counts"], kernel());
    insta::assert_snapshot!("kernels", file(&program, "kernels.cl"));
    insta::assert_snapshot!("main", file(&program, "main.cpp"));
    insta::assert_snapshot!("cuda_kernels", file(&program, "kernels.cu"));
    insta::assert_snapshot!("cuda_main", file(&program, "main.cu"));
    insta::assert_snapshot!("readme", file(&program, "README.md"));
}

#[test]
fn shared_memory_is_what_the_occupancy_model_counts() {
    let program = program(device::all_cases().parts);
    let facts = Machine::parse("h100", include_str!("../../../../machines/h100.toml")).unwrap().simt.unwrap();
    let mut scratch = 0;
    for kernel in &program.parts().kernels {
        let own = Placement::new(kernel, Dialect::Cuda, facts.warp).bytes;
        let assumed = time(kernel, &facts, 1_000_000_000, &Start::default()).occupancy.shared_bytes;
        assert_eq!(assumed, own + facts.shared.reserved, "{}", kernel.name);
        scratch += kernel.shared_bytes() - own;
    }
    // All of these reduce over several warps too.
    assert_eq!(scratch, 0);
    let mut builder = Builder::new("k0_small", 64);
    let shared = builder.shared("scratch", DType::F32, 64);
    let one = builder.float(DType::F32, 1.0);
    let var = builder.declare("sum", Scalar::F32, one);
    builder.reduce(var, FoldFn::Sum, DType::F32, 32, shared);
    let kernel = builder.finish([1, 1, 1], Vec::new());
    assert_eq!(Placement::new(&kernel, Dialect::Cuda, 32).bytes, 0);
    assert_eq!(Placement::new(&kernel, Dialect::OpenCl, 32).bytes, 256);
    assert_eq!(time(&kernel, &facts, 1_000_000_000, &Start::default()).occupancy.shared_bytes, facts.shared.reserved);
}

/// Code without comments and what is between quotes, and what was between quotes.
fn parted(code: &str) -> (String, String) {
    let (mut plain, mut quoted) = (String::new(), String::new());
    for line in code.lines() {
        for (number, part) in line.split('"').enumerate() {
            let is_quoted = number % 2 == 1;
            let (part, is_ended) = match part.split_once("//") {
                Some((part, _)) if !is_quoted => (part, true),
                _ => (part, false),
            };
            if is_quoted { &mut quoted } else { &mut plain }.push_str(part);
            if is_ended {
                break;
            }
        }
        plain.push('\n');
    }
    (plain, quoted)
}

#[test]
fn nothing_from_a_model_becomes_code() {
    let texts = [
        "x\"); EVIL(); (\"",
        "x\nEVIL();",
        "x\r\nEVIL();\u{2028}EVIL();",
        "x*/ EVIL(); /*",
        "x\\\nEVIL();",
        "x??/\nEVIL();",
        "`EVIL`\n# EVIL",
        "x\0EVIL",
        "ünïcödé EVIL",
        "float",
        "restrict",
        "",
    ];
    for text in texts {
        let mut builder = Builder::new("k0_small", 32);
        let [read, written] = [false, true].map(|is_written| builder.buffer(text, DType::F16, 32, is_written));
        let thread = builder.thread();
        let value = builder.load(read, thread, text);
        let sum = builder.binary(BinaryFn::Add, DType::F32, value, value);
        let var = builder.declare(text, Scalar::F32, sum);
        let sum = builder.get(var);
        builder.store(written, thread, sum);
        let kernel = builder.finish([1, 1, 1], vec![text.to_owned()]);
        let mut parts = parts_of(text, vec![kernel]);
        parts.values_bytes = 1024;
        for place in [0, 512] {
            let place = Place::Values(place);
            parts.buffers.push(Buffer { name: text.to_owned(), dtype: DType::F16, elements: 32, place });
        }
        let port = || Port { name: text.to_owned(), ty: TensorType::new(DType::F16, Shape::vector(32)) };
        parts.inputs = vec![(port(), 0), (port(), 0)];
        parts.outputs = vec![(port(), 1), (port(), 1)];
        parts.groups = vec![Group { name: text.to_owned(), origins: vec![text.to_owned()], ..Group::default() }];
        parts.launches = vec![Launch { kernel: 0, buffers: vec![0, 1], group: 0 }];
        let program = program(parts);
        for name in ["kernels.cl", "main.cpp", "kernels.cu", "main.cu", "README.md"] {
            let code = file(&program, name);
            let is_clean = |c: char| c == '\n' || c == ' ' || c.is_ascii_graphic();
            assert!(code.chars().all(is_clean), "{text:?} in {name}:\n{code}");
            assert!(!code.contains("??") && !code.contains("\\\n"), "{text:?} in {name}:\n{code}");
            assert!(!code.lines().any(|line| line.trim_start().starts_with("EVIL")), "{text:?} in {name}:\n{code}");
            if name != "README.md" {
                let (plain, quoted) = parted(&code);
                assert!(!plain.contains("EVIL") && !quoted.contains("EVIL"), "{text:?} in {name}:\n{code}");
            }
        }
        // Ports that are called alike are different files.
        let main = file(&program, "main.cpp");
        let mut files: Vec<&str> = main.split('"').filter(|part| part.ends_with(".npy")).collect();
        files.sort_unstable();
        files.dedup();
        assert_eq!(files.len(), 2, "{main}");
    }
}
