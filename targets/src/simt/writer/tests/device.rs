//! What emitted code computes on an OpenCL device, element by element, held against the simulator.

use std::fs;
use std::path::Path;

use tcc_ir::ops::{BinaryFn, UnaryFn};
use tcc_ir::{DType, Shape, Tensor, TensorType};

use super::dequantize::dequantize_cases;
use super::{parts_of, program};
use crate::kernel::check::wide;
use crate::kernel::names::is_name;
use crate::kernel::simulator::Place;
use crate::kernel::{BufferId, Builder, ExprId, IndexFn, Kernel, Scalar};
use crate::number::{FoldFn, binary_is_defined, unary_is_defined};
use crate::simt::compile::ALIGNMENT;
use crate::simt::program::{Buffer, Group, Launch, Parts};
use crate::target::{Port, Program};

#[path = "../../../../../tests/common/cuda.rs"]
#[allow(dead_code, reason = "Whole-compiler tests use the rest.")]
mod cuda;
#[path = "../../../../../tests/common/opencl.rs"]
mod opencl;

/// Elements of a case.
pub(super) const COUNT: u32 = 4096;

/// Threads of a block.
pub(super) const THREADS: u32 = 128;

/// Values of each type that are paired with each other: 64 × 64 are all elements of a case.
const CHOSEN: usize = 64;

/// Units in the last place that two libraries may differ by.
const ULPS: u64 = 4;

/// Numbers that look random.
pub(super) fn mixed(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    let mixed = (*state ^ (*state >> 33)).wrapping_mul(0xff51afd7ed558ccd);
    mixed ^ (mixed >> 33)
}

/// The patterns of a type that are most likely to go wrong, as a cast gives them, then others.
pub(super) fn patterns(dtype: DType, count: usize) -> Vec<u64> {
    let mut state = dtype.bits() as u64;
    let small = || (-8i64..=8).chain([15, 16, 17, 31, 32, 33, 63, 64, 127, 128, 255, 256]);
    let mut patterns: Vec<u64> = match dtype {
        DType::F64 | DType::F32 => {
            let bits = |x: f64| if dtype == DType::F64 { x.to_bits() } else { u64::from((x as f32).to_bits()) };
            let special =
                [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 3.0, -3.0, 0.1, -0.1, 7.25, -7.25, 20.0, -20.0];
            let special =
                special.into_iter().chain([f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 88.0, -87.0, 100.0, 1e-3]);
            let limits = [127.5, 128.5, -128.5, 255.5, 32767.5, 65504.0, 65520.0, 65536.0, 2147483648.0, -2147483904.0];
            let limits =
                limits.into_iter().chain([4294967296.0, 9.3e18, -9.3e18, 1.9e19, 448.0, 464.0, 465.0, 57344.0]);
            let limits =
                limits.chain([61440.0, 61439.0, -1e30, 1e-30, -1e-30, 1e-42, -1e-42, 3e-39, 6e-8, -6e-8, 1e-310]);
            let ends =
                if dtype == DType::F64 { [f64::MAX, f64::MIN] } else { [f64::from(f32::MAX), f64::from(f32::MIN)] };
            let mut all: Vec<u64> = special.chain(ends).chain(limits).map(bits).collect();
            // Between neighbours of the narrowest types, and just beside.
            let halfway = |exponent: i32, step: i32| (f64::from(step) / 16.0 + 1.0) * 2f64.powi(exponent);
            for (exponent, step) in (-18..=16).flat_map(|exponent| (0..16).map(move |step| (exponent, step))) {
                let middle = bits(halfway(exponent, step));
                all.extend([middle - 1, middle, middle + 1]);
            }
            // Of any size that does not overflow at once.
            let one = |_| {
                bits((mixed(&mut state) as f64 / 2f64.powi(63) - 1.0) * 2f64.powi((mixed(&mut state) % 24) as i32 - 12))
            };
            all.extend((0..1024).map(one).collect::<Vec<u64>>());
            all
        }
        DType::F16 => {
            vec![
                0, 0x8000, 0x3c00, 0xbc00, 0x7c00, 0xfc00, 0x7e00, 0x7bff, 0xfbff, 1, 0x8001, 0x3ff, 0x400, 0x3800,
                0x4100,
            ]
        }
        DType::BF16 => {
            vec![
                0, 0x8000, 0x3f80, 0xbf80, 0x7f80, 0xff80, 0x7fc0, 0x7f7f, 0xff7f, 1, 0x8001, 0x7f, 0x80, 0x3f00,
                0x4040,
            ]
        }
        DType::Bool => vec![0, 1],
        _ if dtype.bits() <= 8 => (0..1 << dtype.bits()).map(|x: u64| x.wrapping_mul(0x9d)).collect(),
        _ => {
            let (low, high) = dtype.integer_range().unwrap();
            let ends = [low, low + 1, high - 1, high, low / 2, high / 2 + 1, 0x7fff_ffff, 0x1_0000_0000, 0x1_0000_0001];
            ends.into_iter().map(|x| x as u64).chain(small().map(|x| x as u64)).collect()
        }
    };
    while patterns.len() < count && dtype != DType::Bool {
        patterns.push(mixed(&mut state));
    }
    (0..count).map(|index| patterns[index % patterns.len()]).collect()
}

/// Elements as a buffer holds them.
fn encoded(dtype: DType, patterns: &[u64]) -> Vec<u8> {
    match dtype.bits() {
        4 => patterns.chunks(2).map(|pair| (pair[0] & 15 | (pair[1] & 15) << 4) as u8).collect(),
        bits => patterns.iter().flat_map(|pattern| pattern.to_le_bytes()[..bits / 8].to_vec()).collect(),
    }
}

/// How near results must come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Near {
    /// To the bit.
    Exact,
    /// Within a few units in the last place.
    Ulps,
}

/// Kernels with their data: all that is read lies among the weights, all that is written is an output.
pub(super) struct Cases {
    pub parts: Parts,
    weights: Vec<u8>,
    near: Vec<Near>,
}

/// A kernel of cases that is being made.
pub(super) struct Case<'c> {
    cases: &'c mut Cases,
    pub builder: Builder,
    name: String,
    buffers: Vec<u32>,
    /// The number of the thread among all.
    pub index: ExprId,
}

impl Cases {
    /// None yet.
    pub fn new(name: &str) -> Cases {
        Cases { parts: parts_of(name, Vec::new()), weights: Vec::new(), near: Vec::new() }
    }

    /// Begins a kernel.
    pub fn case(&mut self, name: &str) -> Case<'_> {
        let mut builder = Builder::new("k", THREADS);
        let (thread, block) = (builder.thread(), builder.block(0));
        let first = builder.scaled(block, THREADS as i32);
        let index = builder.add(first, thread);
        let index = builder.keep("index", Scalar::I32, index);
        Case { cases: self, builder, name: name.to_owned(), buffers: Vec::new(), index }
    }

    fn buffer(&mut self, name: &str, dtype: DType, place: Place) -> u32 {
        self.parts.buffers.push(Buffer { name: name.to_owned(), dtype, elements: u64::from(COUNT), place });
        self.parts.buffers.len() as u32 - 1
    }
}

impl Case<'_> {
    /// The element of each thread in a buffer with these patterns.
    fn read(&mut self, dtype: DType, patterns: &[u64]) -> ExprId {
        let buffer = self.input(dtype, patterns);
        self.builder.load(buffer, self.index, "x")
    }

    /// A buffer with these patterns.
    pub fn input(&mut self, dtype: DType, patterns: &[u64]) -> BufferId {
        let mut bytes = encoded(dtype, patterns);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
        let at = self.cases.weights.len() as u64;
        self.cases.weights.extend(bytes);
        self.cases.parts.weights_bytes = self.cases.weights.len() as u64;
        let number = self.cases.buffer("in", dtype, Place::Weights(at));
        self.buffers.push(number);
        self.builder.buffer(&format!("in_{dtype}"), dtype, u64::from(COUNT), false)
    }

    /// Writes an element of each thread to an output.
    fn write(&mut self, what: &str, dtype: DType, near: Near, value: ExprId) {
        self.write_at(what, dtype, near, (self.index, value));
    }

    /// The same where an index says.
    fn write_at(&mut self, what: &str, dtype: DType, near: Near, (index, value): (ExprId, ExprId)) {
        let buffer = self.output(what, dtype, near);
        self.builder.store(buffer, index, value);
    }

    /// A buffer that is written, and compared.
    pub fn output(&mut self, what: &str, dtype: DType, near: Near) -> BufferId {
        let at = self.cases.parts.values_bytes;
        self.cases.parts.values_bytes += (u64::from(COUNT) * dtype.bits() as u64 / 8).next_multiple_of(ALIGNMENT);
        let name = format!("{} {what}", self.name);
        let number = self.cases.buffer(&name, dtype, Place::Values(at));
        self.buffers.push(number);
        self.cases.near.push(near);
        let ty = TensorType::new(dtype, Shape::vector(COUNT as usize));
        self.cases.parts.outputs.push((Port { name, ty }, number));
        self.builder.buffer(&format!("out_{what}"), dtype, u64::from(COUNT), true)
    }

    /// Adds the kernel, and its launch, to the cases.
    pub fn finish(self) {
        let parts = &mut self.cases.parts;
        let number = parts.kernels.len() as u32;
        let mut kernel: Kernel = self.builder.finish([COUNT / THREADS, 1, 1], vec![self.name.clone()]);
        kernel.name = format!("k{number}");
        parts.kernels.push(kernel);
        parts.groups.push(Group { name: self.name, ..Group::default() });
        parts.launches.push(Launch { kernel: number, buffers: self.buffers, group: number });
    }
}

/// The patterns of two operands: all pairs of some.
fn pairs(dtype: DType, is_divisor: bool) -> [Vec<u64>; 2] {
    let chosen = patterns(dtype, CHOSEN);
    let mask = u64::MAX >> (64 - dtype.bits());
    let second = |index: usize| match chosen[index / CHOSEN] {
        zero if is_divisor && !dtype.is_float() && zero & mask == 0 => 3,
        other => other,
    };
    [(0..COUNT as usize).map(|index| chosen[index % CHOSEN]).collect(), (0..COUNT as usize).map(second).collect()]
}

fn unary_near(function: UnaryFn) -> Near {
    match function {
        UnaryFn::Cos
        | UnaryFn::Erf
        | UnaryFn::Exp
        | UnaryFn::Log
        | UnaryFn::Sigmoid
        | UnaryFn::Sin
        | UnaryFn::Softplus
        | UnaryFn::Tan
        | UnaryFn::Tanh => Near::Ulps,
        UnaryFn::Abs
        | UnaryFn::Ceil
        | UnaryFn::Floor
        | UnaryFn::IsInf
        | UnaryFn::IsNan
        | UnaryFn::Neg
        | UnaryFn::Not
        | UnaryFn::Recip
        | UnaryFn::Round
        | UnaryFn::Rsqrt
        | UnaryFn::Sign
        | UnaryFn::Sqrt => Near::Exact,
    }
}

fn unary_cases(cases: &mut Cases) {
    for &function in UnaryFn::ALL {
        let mut case = cases.case(function.name());
        for dtype in DType::ALL.into_iter().filter(|&dtype| unary_is_defined(function, dtype)) {
            let x = case.read(dtype, &patterns(dtype, COUNT as usize));
            let result = case.builder.unary(function, dtype, x);
            let written = if function.is_predicate() { DType::I32 } else { wide(dtype) };
            let near = if dtype.is_float() { unary_near(function) } else { Near::Exact };
            case.write(dtype.name(), written, near, result);
        }
        case.finish();
    }
}

fn binary_cases(cases: &mut Cases) {
    for &function in BinaryFn::ALL {
        let is_divisor = matches!(function, BinaryFn::Div | BinaryFn::Mod | BinaryFn::Rem);
        let mut case = cases.case(function.name());
        for dtype in DType::ALL.into_iter().filter(|&dtype| binary_is_defined(function, dtype)) {
            let [a, b] = pairs(dtype, is_divisor).map(|patterns| case.read(dtype, &patterns));
            let result = case.builder.binary(function, dtype, a, b);
            let written = if function.is_comparison() { DType::I32 } else { wide(dtype) };
            let near = if dtype.is_float() && function == BinaryFn::Pow { Near::Ulps } else { Near::Exact };
            case.write(dtype.name(), written, near, result);
        }
        case.finish();
    }
}

/// Sums and products in each other, where signs and widths must not get lost.
fn nested_cases(cases: &mut Cases) {
    let mut case = cases.case("nested");
    for dtype in DType::ALL {
        let [a, b] = pairs(dtype, false).map(|patterns| case.read(dtype, &patterns));
        let builder = &mut case.builder;
        let fused = builder.mul_add(dtype, a, b, a);
        let difference = builder.binary(BinaryFn::Sub, dtype, a, b);
        let negative = builder.unary(UnaryFn::Neg, dtype, difference);
        let negative = builder.unary(UnaryFn::Neg, dtype, negative);
        let product = builder.binary(BinaryFn::Mul, dtype, difference, negative);
        let sum = builder.binary(BinaryFn::Sub, dtype, b, product);
        let greatest = builder.binary(BinaryFn::Max, dtype, sum, b);
        let both = builder.mul_add(dtype, difference, sum, product);
        let below = builder.binary(BinaryFn::Lt, dtype, difference, greatest);
        let chosen = builder.select(below, sum, negative);
        for (what, value) in [("fma", fused), ("max", greatest), ("sum", both), ("select", chosen)] {
            case.write(&format!("{what}_{dtype}"), wide(dtype), Near::Exact, value);
        }
    }
    case.finish();
}

fn conversion_cases(cases: &mut Cases) {
    for from in DType::ALL {
        let mut case = cases.case(&format!("from {from}"));
        let x = case.read(from, &patterns(from, COUNT as usize));
        for to in DType::ALL {
            let value = case.builder.convert(from, to, x);
            let stored = if to.bits() < 8 { DType::I32 } else { to };
            case.write(to.name(), stored, Near::Exact, value);
        }
        // What is written as another type without being converted to it first.
        let same = |to: &DType| Scalar::of(*to) == Scalar::of(from) && to.bits() >= 8 && *to != DType::Bool;
        for to in DType::ALL.into_iter().filter(same) {
            case.write(&format!("raw_{to}"), to, Near::Exact, x);
        }
        case.finish();
    }
}

/// Shared memory, and reductions within a warp, of a warp and of several.
fn shared_cases(cases: &mut Cases) {
    for dtype in DType::ALL.into_iter().filter(|dtype| dtype.bits() >= 8) {
        let mut case = cases.case(&format!("shared {dtype}"));
        let x = case.read(dtype, &patterns(dtype, COUNT as usize));
        let builder = &mut case.builder;
        let (through, scratch) =
            (builder.shared("through", dtype, THREADS), builder.shared("scratch", wide(dtype), THREADS));
        let thread = builder.thread();
        let last = builder.integer(THREADS as i32 - 1);
        let mirrored = builder.index(IndexFn::Sub, last, thread);
        builder.store_shared(through, thread, x);
        builder.barrier();
        let other = builder.load_shared(through, mirrored, "other_element");
        case.write("mirrored", wide(dtype), Near::Exact, other);
        for function in [FoldFn::Sum, FoldFn::Product, FoldFn::Max, FoldFn::Min] {
            for width in [8, THREADS / 2, THREADS] {
                let builder = &mut case.builder;
                let var = builder.declare("all", Scalar::of(dtype), x);
                builder.reduce(var, function, dtype, width, scratch);
                let result = builder.get(var);
                case.write(&format!("{function:?}_{width}"), wide(dtype), Near::Exact, result);
            }
        }
        case.finish();
    }
}

/// Blocks that hand over an element for each thread; the last adds up what all have. Two launches share counters.
fn arrival_cases(cases: &mut Cases) {
    let at = cases.parts.values_bytes;
    let handed_at = at + ALIGNMENT;
    cases.parts.values_bytes = handed_at + 4 * u64::from(COUNT);
    let counters = cases.buffer("counters", DType::U32, Place::Values(at));
    cases.parts.buffers[counters as usize].elements = 1;
    let handed = cases.buffer("handed over", DType::F32, Place::Values(handed_at));
    for round in 0..2 {
        let mut case = cases.case(&format!("arrival {round}"));
        let numbers: Vec<u64> = (0..COUNT).map(|index| u64::from((index as f32 * 0.37).to_bits())).collect();
        let x = case.read(DType::F32, &numbers);
        case.buffers.extend([counters, handed]);
        let builder = &mut case.builder;
        let counted = builder.buffer("counters", DType::U32, 1, true);
        let handed = builder.buffer("handed", DType::F32, u64::from(COUNT), true);
        let told = builder.shared("told", DType::I32, 1);
        builder.store(handed, case.index, x);
        let last = builder.arrive("last", counted, 0, told);
        let zero = builder.float(DType::F32, 0.0);
        let sum = builder.declare("all", Scalar::F32, zero);
        builder.when(last);
        let (none, end) = (builder.integer(0), builder.integer((COUNT / THREADS) as i32));
        let block = builder.loop_over("block_number", none, end, 1);
        let first = builder.scaled(block, THREADS as i32);
        let thread = builder.thread();
        let other = builder.add(first, thread);
        let value = builder.load(handed, other, "value");
        let so_far = builder.get(sum);
        let next = builder.binary(BinaryFn::Add, DType::F32, so_far, value);
        builder.set(sum, next);
        builder.end();
        builder.end();
        // Which block is the last differs; what it has does not. It writes all elements.
        let sum = builder.get(sum);
        builder.when(last);
        let block = builder.loop_over("block_written", none, end, 1);
        let first = builder.scaled(block, THREADS as i32);
        let at = builder.add(first, thread);
        case.write_at("sum", DType::F32, Near::Exact, (at, sum));
        case.builder.end();
        case.builder.end();
        case.finish();
    }
}

/// The bits of an element as a number whose neighbours are the neighbours of the element; `None` of NaN.
fn ordered(dtype: DType, bits: u64) -> Option<i128> {
    let (is_nan, sign) = match dtype {
        DType::F64 => (f64::from_bits(bits).is_nan(), 1 << 63),
        DType::F32 => (f32::from_bits(bits as u32).is_nan(), 1 << 31),
        DType::F16 => (bits & 0x7fff > 0x7c00, 1 << 15),
        _ => return Some(i128::from(bits)),
    };
    let size = i128::from(bits & (sign - 1));
    (!is_nan).then_some(if bits & sign == 0 { size } else { -size - 1 })
}

/// What is wrong with an element, if anything is. NaN has many patterns, of which devices choose.
fn is_wrong(dtype: DType, near: Near, expected: u64, actual: u64) -> bool {
    match (ordered(dtype, expected), ordered(dtype, actual)) {
        (None, None) => false,
        (Some(expected), Some(actual)) if near == Near::Ulps => expected.abs_diff(actual) > u128::from(ULPS),
        (expected, actual) => expected != actual,
    }
}

/// All cases of single elements.
pub(super) fn all_cases() -> Cases {
    let mut cases = Cases::new("elements");
    unary_cases(&mut cases);
    binary_cases(&mut cases);
    nested_cases(&mut cases);
    conversion_cases(&mut cases);
    shared_cases(&mut cases);
    arrival_cases(&mut cases);
    dequantize_cases(&mut cases);
    cases
}

/// What kernels call, a variable must not be called.
#[test]
fn no_name_hides_a_function() {
    let code = program(all_cases().parts).code();
    let files = ["opencl/kernels.cl", "cuda/kernels.cu"];
    let text: String = code
        .iter()
        .filter(|(path, _)| files.iter().any(|file| path.ends_with(file)))
        .map(|(_, text)| text.as_str())
        .collect();
    let mut calls = 0;
    for (at, _) in text.match_indices('(') {
        let name = text[..at].rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap();
        let is_kernel = name.strip_prefix('k').is_some_and(|rest| rest.parse::<u32>().is_ok());
        if !name.is_empty() && !is_kernel {
            assert!(!is_name(name), "`{name}` is called");
            calls += 1;
        }
    }
    assert!(calls > 2000, "{calls} calls");
}

#[test]
fn a_device_computes_what_the_simulator_does() {
    let folder = tempfile::tempdir().unwrap();
    if opencl::is_installed(folder.path()) {
        compare(all_cases(), folder.path(), opencl::run);
    }
}

#[test]
fn an_emulated_gpu_computes_what_the_simulator_does() {
    let folder = tempfile::tempdir().unwrap();
    compare(all_cases(), folder.path(), emulate);
}

/// Runs a program by the emulator.
pub(super) fn emulate(folder: &Path) {
    cuda::emulate(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap(), folder);
}

/// Writes cases to a folder, has them run there, and compares what they write with what the simulator says.
pub(super) fn compare(cases: Cases, folder: &Path, run: impl Fn(&Path)) {
    let Cases { parts, weights, near } = cases;
    let program = program(parts);
    for (path, text) in program.code() {
        let path = folder.join("code").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    fs::write(folder.join("weights.bin"), &weights).unwrap();
    run(folder);
    let expected: Vec<Tensor> = program.simulate(&weights, &[]).unwrap().outputs;
    let files = crate::kernel::host::file_names(&program.parts().outputs);
    let mut wrong = Vec::new();
    for (((port, expected), file), near) in program.outputs().iter().zip(&expected).zip(files).zip(near) {
        let array = fs::read(folder.join("outputs").join(format!("{file}.npy"))).unwrap();
        let actual = &array[10 + usize::from(u16::from_le_bytes([array[8], array[9]]))..];
        let (dtype, expected) = (port.ty.dtype, expected.bytes().unwrap());
        assert_eq!(actual.len(), expected.len());
        let size = dtype.bits() / 8;
        let bits = |element: &[u8]| element.iter().rev().fold(0u64, |all, &byte| all << 8 | u64::from(byte));
        let both =
            expected.chunks(size).zip(actual.chunks(size)).map(|(expected, actual)| (bits(expected), bits(actual)));
        let differ: Vec<_> =
            both.enumerate().filter(|&(_, (expected, actual))| is_wrong(dtype, near, expected, actual)).collect();
        if let Some((index, (expected, actual))) = differ.first() {
            wrong.push(format!(
                "{} as {dtype}: {} elements, such as {index}: {expected:#x} expected, {actual:#x} found",
                port.name,
                differ.len()
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), program.outputs().len(), wrong.join("\n"));
}
