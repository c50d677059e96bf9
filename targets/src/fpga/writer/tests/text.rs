//! How what is written reads.

use tcc_ir::ops::{BinaryFn, UnaryFn};
use tcc_ir::{DType, Shape, TensorType};

use super::harness::{Model, Near, Where};
use crate::fpga::writer::check;
use crate::kernel::{Builder, IndexFn, Kernel, Scalar};
use crate::number::FoldFn;
use crate::target::Port;

/// Rows that are scaled by what lanes have added up, and biased.
fn scaled_rows() -> Kernel {
    let mut builder = Builder::new("k0_scaled", 16);
    let x = builder.buffer("x", DType::F16, 512, false);
    let bias = builder.buffer("bias", DType::F32, 8, false);
    let y = builder.buffer("y", DType::F16, 512, true);
    let scratch = builder.shared("scratch", DType::F32, 16);
    let (lane, row) = (builder.thread(), builder.block(0));
    let first = builder.scaled(row, 64);
    let zero = builder.float(DType::F32, 0.0);
    let sum = builder.declare("sum", Scalar::F32, zero);
    let (none, end) = (builder.integer(0), builder.integer(64));
    let start = builder.loop_over("start", none, end, 16);
    let at = builder.add(first, start);
    let at = builder.add(at, lane);
    let value = builder.load(x, at, "value");
    let before = builder.get(sum);
    let after = builder.mul_add(DType::F32, value, value, before);
    builder.set(sum, after);
    builder.end();
    builder.reduce(sum, FoldFn::Sum, DType::F32, 16, scratch);
    let total = builder.get(sum);
    let scale = builder.unary(UnaryFn::Rsqrt, DType::F32, total);
    let scale = builder.keep("scale", Scalar::F32, scale);
    let start = builder.loop_over("again", none, end, 16);
    let at = builder.add(first, start);
    let at = builder.add(at, lane);
    let value = builder.load(x, at, "own");
    let added = builder.load(bias, row, "added");
    let negative = builder.unary(UnaryFn::Neg, DType::F32, added);
    let gate = builder.unary(UnaryFn::Sigmoid, DType::F32, negative);
    let scaled = builder.binary(BinaryFn::Mul, DType::F32, value, scale);
    let result = builder.binary(BinaryFn::Sub, DType::F32, scaled, gate);
    builder.store(y, at, result);
    builder.end();
    builder.finish([8, 1, 1], vec!["8 rows of 64".to_owned()])
}

#[test]
fn code_reads_well() {
    let mut model = Model::new("small");
    let values = model.memory("values", DType::F16, 16, 64);
    let x = model.input("x", DType::F16, 512, Where::In(values));
    let y = model.output("y", DType::F16, 512, Where::In(values));
    let bias = model.weight("bias", DType::F32, 8, Where::Channels(1, 1));
    model.weight("unused", DType::F16, 32, Where::In(values));
    model.call(scaled_rows(), &[x, bias, y]);
    for name in [
        "kernels.h",
        "kernels.cpp",
        "top.h",
        "top.cpp",
        "program.h",
        "testbench.cpp",
        "README.md",
        "hls_config.cfg",
        "connectivity.cfg",
    ] {
        insta::assert_snapshot!(name, model.file(name));
    }
}

/// The lines of a text that access a memory.
fn accesses<'t>(text: &'t str, memory: &str) -> Vec<&'t str> {
    let is_access = |line: &&str| line.contains(&format!("{memory}[")) && !line.contains("_WORDS");
    text.lines().filter(is_access).map(str::trim).collect()
}

#[test]
fn banks_are_those_of_lanes() {
    let mut builder = Builder::new("moved", 8);
    let x = builder.buffer("x", DType::F32, 1024, false);
    let y = builder.buffer("y", DType::F32, 1024, true);
    let (lane, block) = (builder.thread(), builder.block(0));
    let first = builder.scaled(block, 64);
    let (none, end) = (builder.integer(0), builder.integer(64));
    let start = builder.loop_over("start", none, end, 16);
    let base = builder.add(first, start);
    let at = builder.add(base, lane);
    let at = builder.keep("at", Scalar::I32, at);
    let value = builder.load(x, at, "value");
    let eight = builder.integer(8);
    let further = builder.add(at, eight);
    let other = builder.load(x, further, "other");
    let sum = builder.binary(BinaryFn::Add, DType::F32, value, other);
    let seven = builder.integer(7);
    let mirrored = builder.index(IndexFn::Sub, seven, lane);
    let mirrored = builder.add(base, mirrored);
    builder.store(y, mirrored, sum);
    builder.end();
    let kernel = builder.finish([16, 1, 1], Vec::new());
    let mut model = Model::new("banks");
    let x = model.input("x", DType::F32, 1024, Where::Chip(16));
    let y = model.output("y", DType::F32, 1024, Where::Chip(8));
    model.call(kernel, &[x, y]);
    let text = model.file("kernels.cpp");
    let word = "x_first + block_x * 4 + start / 16";
    let loads = [format!("x_ram[{word}][lane];"), format!("x_ram[{word}][lane + 8];")];
    assert!(loads.iter().all(|load| text.contains(load)), "{text}");
    assert!(text.contains("y_ram[y_first + block_x * 8 + start / 8][7 - lane] = "), "{text}");
    // The index is no longer needed as it was.
    assert!(!text.contains("const int at"), "{text}");
    assert_eq!(accesses(&text, "x_ram").len() + accesses(&text, "y_ram").len(), 3);
}

#[test]
fn lanes_that_are_a_part_of_a_word_have_neighbouring_banks() {
    let mut builder = Builder::new("parts", 8);
    let x = builder.buffer("x", DType::F32, 256, false);
    let y = builder.buffer("y", DType::F32, 256, true);
    let (lane, block) = (builder.thread(), builder.block(0));
    let first = builder.scaled(block, 8);
    let at = builder.add(first, lane);
    let value = builder.load(x, at, "value");
    builder.store(y, at, value);
    let kernel = builder.finish([32, 1, 1], Vec::new());
    let mut model = Model::new("parts");
    let x = model.input("x", DType::F32, 256, Where::Chip(32));
    let y = model.output("y", DType::F32, 256, Where::Chip(8));
    model.call(kernel, &[x, y]);
    let text = model.file("kernels.cpp");
    assert!(text.contains("x_ram[x_first + (block_x * 8) / 32][(block_x * 8) % 32 + lane]"), "{text}");
    model.check(Near::Bits);
}

#[test]
fn what_processors_alone_have_is_refused() {
    let mut builder = Builder::new("copies", 8);
    let x = builder.buffer("x", DType::F32, 64, false);
    let tile = builder.shared("tile", DType::F32, 64);
    let (none, one) = (builder.integer(0), builder.integer(1));
    builder.push(crate::kernel::Stmt::Copy { shared: tile, to: none, buffer: x, from: none, count: 4, when: one });
    let kernel = builder.finish([1, 1, 1], Vec::new());
    crate::kernel::check::check(&kernel).unwrap();
    let home = crate::fpga::design::Home::External { first: 0, ways: 1 };
    let function = crate::fpga::design::Function::new(kernel, vec![home]);
    let error = check(&function).unwrap_err();
    assert_eq!(error.to_string(), "kernel `copies`: it has statements that only processors have");
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
        "",
    ];
    for text in texts {
        let mut builder = Builder::new("k0_small", 16);
        let [read, written] = [false, true].map(|is_written| builder.buffer(text, DType::F16, 32, is_written));
        let thread = builder.thread();
        let value = builder.load(read, thread, text);
        let sum = builder.binary(BinaryFn::Add, DType::F32, value, value);
        builder.store(written, thread, sum);
        let kernel = builder.finish([1, 1, 1], vec![text.to_owned()]);
        let mut model = Model::new(text);
        let memory = model.memory("values", DType::F16, 16, 16);
        let x = model.input(text, DType::F16, 32, Where::In(memory));
        let y = model.output(text, DType::F16, 32, Where::Channels(0, 1));
        model.call(kernel, &[x, y]);
        let port = || Port { name: text.to_owned(), ty: TensorType::new(DType::F16, Shape::vector(32)) };
        model.parts.inputs.push((port(), x));
        model.parts.outputs.push((port(), y));
        for (path, code) in model.files() {
            let is_clean = |c: char| c == '\n' || c == '\t' || c == ' ' || c.is_ascii_graphic();
            assert!(code.chars().all(is_clean), "{text:?} in {path:?}:\n{code}");
            assert!(!code.contains("??") && !code.contains("\\\n"), "{text:?} in {path:?}:\n{code}");
            for line in code.lines() {
                let line = line.trim_start();
                let is_told = match path.to_str().unwrap() {
                    "README.md" => !line.starts_with("EVIL"),
                    _ => line.split("//").next().is_some_and(|code| !code.contains("EVIL")),
                };
                assert!(is_told, "{text:?} in {path:?}:\n{code}");
            }
        }
        // Ports that are called alike are different files.
        let testbench = model.file("testbench.cpp");
        assert!(testbench.contains("_2.npy\"") && testbench.contains("_2\""), "{testbench}");
    }
}
