//! Kernels on the simulator and in SystemVerilog: the same bits, in the cycles that the schedule says.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

mod kernels;
mod random;
mod slow;
mod synthesis;

use std::path::PathBuf;

use tcc_ir::DType;

use super::{Call, Emitted, Outcome, Rtl, RtlError, Whole, emit, library};
use crate::Machine;
use crate::fpga::design::{Design, Function, Home, MemoryId, OnChip, Storage};
use crate::fpga::nest::Item;
use crate::fpga::schedule::Schedule;
use crate::kernel::Kernel;
use crate::kernel::check::check;
use crate::kernel::simulator::{Memory, Place, launch};
use crate::verilator::{self, Part, VerilatorError};

/// Clock that operators are made for.
const CLOCK: u64 = 300_000_000;

/// A folder of that name for a design, beside the tests.
fn folder(name: &str) -> PathBuf {
    std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("rtl").join(name)
}

/// A kernel with a memory of its own for each buffer, of as many banks.
struct Case {
    function: Function,
    design: Design,
}

impl Case {
    fn new(kernel: Kernel, banks: &[u32], storage: Storage) -> Case {
        check(&kernel).unwrap();
        let memories = kernel.buffers.iter().zip(banks).map(|(buffer, &banks)| OnChip {
            name: buffer.name.clone(),
            dtype: buffer.dtype,
            banks,
            words: buffer.elements.div_ceil(u64::from(banks)),
            storage,
        });
        let memories: Vec<OnChip> = memories.collect();
        let homes = (0..kernel.buffers.len()).map(|index| Home::OnChip(MemoryId(index as u32))).collect();
        let function = Function::new(kernel, homes);
        let functions = vec![function.clone()];
        Case { design: Design { memories, channels: 1, functions, ..Design::default() }, function }
    }

    fn schedule(&self) -> Schedule {
        let machine = Machine::parse("u280", Machine::built_in_text("u280").unwrap()).unwrap();
        Schedule::new(&self.function, &self.design, machine.fpga.as_ref().unwrap(), CLOCK).unwrap()
    }

    /// The bytes of all buffers after the kernel has run on them.
    fn simulated(&self, buffers: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let kernel = &self.function.kernel;
        let mut places = Vec::new();
        let mut values = Vec::new();
        for bytes in buffers {
            values.resize(values.len().next_multiple_of(16), 0);
            places.push(Place::Values(values.len() as u64));
            values.extend(bytes);
        }
        let mut memory = Memory { weights: &[], values };
        launch(kernel, kernel.threads, &mut memory, &places).unwrap();
        let place = |place: &Place| match place {
            Place::Values(first) => *first as usize,
            Place::Weights(_) => panic!("there are no weights"),
        };
        places.iter().zip(buffers).map(|(own, bytes)| memory.values[place(own)..][..bytes.len()].to_vec()).collect()
    }

    fn emitted(&self, schedule: &Schedule) -> Emitted {
        let call = Call { function: 0, bases: vec![0; self.design.memories.len()] };
        emit(Whole { memories: &self.design.memories, functions: &[schedule], calls: &[call] }).unwrap()
    }

    /// The same in SystemVerilog; `None` if a user has not installed what it takes.
    fn run(&self, name: &str, schedule: &Schedule, buffers: &[Vec<u8>]) -> Option<Outcome> {
        let emitted = self.emitted(schedule);
        let rtl = built(&emitted, &self.design.memories, name)?;
        Some(rtl.run(buffers, 10_000_000).unwrap())
    }

    /// Does so with the schedule that is counted with, and with one that wastes time.
    fn check_both(&self, name: &str, buffers: &[Vec<u8>]) {
        let fast = self.schedule();
        assert_eq!(cycles(&fast).0, fast.cycles());
        self.check(name, &fast, buffers);
        self.check(&format!("{name}_slow"), &slow::slowed(fast, 1), buffers);
    }

    /// Holds what it computes and its cycles in SystemVerilog against the simulator and the schedule.
    fn check(&self, name: &str, schedule: &Schedule, buffers: &[Vec<u8>]) -> Option<Outcome> {
        let expected = self.simulated(buffers);
        let outcome = self.run(name, schedule, buffers)?;
        for (buffer, (expected, own)) in self.function.kernel.buffers.iter().zip(expected.iter().zip(&outcome.memories))
        {
            assert_eq!(&own[..expected.len()], expected, "buffer `{}` of {name}", buffer.name);
        }
        let (expected, branches) = cycles(schedule);
        let own = outcome.cycles.unwrap();
        assert!(own == expected || branches && own < expected, "{name} takes {own} cycles, not {expected}");
        Some(outcome)
    }
}

/// A design in SystemVerilog; `None` if a user has not installed what it takes.
fn built(emitted: &Emitted, memories: &[OnChip], name: &str) -> Option<Rtl> {
    match Rtl::build(emitted, memories, &folder(name)) {
        Ok(rtl) => Some(rtl),
        Err(RtlError::Verilator(VerilatorError::Tool { tool, error })) if std::env::var_os("CI").is_none() => {
            eprintln!("SKIPPED: {tool} is not installed ({error}); {name} is not compared");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Cycles of a call, by its blocks and loops, and whether it has branches, which may take less.
fn cycles(schedule: &Schedule) -> (u64, bool) {
    fn items(schedule: &Schedule, all: &[Item]) -> (u64, bool) {
        let item = |item: &Item| match item {
            Item::Block(block) => (u64::from(schedule.blocks[block.index()].depth), false),
            Item::Loop(id) => {
                let (own, time) = (&schedule.nest.loops[id.index()], &schedule.loops[id.index()]);
                if let (true, [Item::Block(_)]) = (own.pipelined, own.body.as_slice()) {
                    return (2 + (own.trips() - 1) * time.interval + time.depth, false);
                }
                let (inner, branches) = items(schedule, &own.body);
                (1 + own.trips() * (1 + inner), branches)
            }
            Item::Branch { then, otherwise, .. } => {
                (1 + items(schedule, then).0.max(items(schedule, otherwise).0), true)
            }
        };
        all.iter().map(item).fold((0, false), |sum, own| (sum.0 + own.0, sum.1 || own.1))
    }
    let (cycles, branches) = items(schedule, &schedule.nest.body);
    (2 + cycles, branches)
}

/// Bytes that look random.
fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(count).collect()
}

#[test]
fn a_product_of_integers() {
    let case = Case::new(kernels::product(16, 16, 16, 16), &[1, 16, 16], Storage::Bram);
    let buffers = [noise(1, 256), noise(2, 256), vec![0; 1024]];
    case.check_both("product", &buffers);
    let case = Case::new(kernels::product(64, 64, 64, 64), &[1, 64, 64], Storage::Bram);
    case.check("product_64", &case.schedule(), &[noise(1, 4096), noise(2, 4096), vec![0; 4 * 4096]]);
}

/// Bytes of floats from -4 to 4.
fn floats(seed: u64, count: usize) -> Vec<u8> {
    let numbers = noise(seed, 2 * count);
    let (pairs, _) = numbers.as_chunks::<2>();
    pairs.iter().flat_map(|pair| (f32::from(i16::from_le_bytes(*pair)) / 8192.0).to_le_bytes()).collect()
}

#[test]
fn rows_of_floats() {
    let case = Case::new(kernels::softmax(2, 32, 8), &[8, 8], Storage::Bram);
    case.check_both("softmax", &[floats(3, 64), vec![0; 256]]);
    let case = Case::new(kernels::norm(2, 32, 8), &[8; 4], Storage::Bram);
    case.check_both("norm", &[floats(4, 64), floats(5, 32), floats(6, 32), vec![0; 256]]);
    let case = Case::new(kernels::attention(4, 16), &[1, 16, 16, 16], Storage::Bram);
    case.check_both("attention", &[floats(7, 64), floats(8, 256), floats(9, 256), vec![0; 256]]);
}

#[test]
fn random_kernels() {
    let seeds = std::env::var("RTL_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(6);
    for seed in 1..=seeds {
        let (kernel, banks) = random::kernel(seed);
        let storage = [Storage::Bram, Storage::Lutram][seed as usize % 2];
        let case = Case::new(kernel, &banks, storage);
        let schedule = slow::slowed(case.schedule(), seed);
        let fast = case.schedule();
        assert_eq!(cycles(&fast).0, fast.cycles());
        let buffers =
            [noise(seed, 256), noise(seed + 1, 64), floats(seed + 2, 64), vec![0; 4 * 4096], vec![0; 4 * 4096]];
        case.check(&format!("random_{}", seed % 8), &fast, &buffers);
        case.check(&format!("random_slow_{}", seed % 8), &schedule, &buffers);
    }
}

#[test]
fn pairs_quotients_and_branches() {
    let case = Case::new(kernels::paired_product(8, 8, 16), &[2, 8, 8], Storage::Bram);
    assert!(!case.schedule().nest.slices.is_empty());
    case.check_both("paired", &[noise(1, 128), noise(2, 128), vec![0; 256]]);
    let case = Case::new(kernels::shuffled(), &[4, 1], Storage::Uram);
    case.check_both("shuffled", &[noise(1, 480), vec![0; 480]]);
    let case = Case::new(kernels::branches(5, 8), &[2, 2], Storage::Lutram);
    case.check_both("branches", &[noise(3, 160), vec![0; 40]]);
}

#[test]
fn functions_are_called_one_after_the_other() {
    // A product, and another whose left factor is in another place.
    let kernel = kernels::product(4, 8, 8, 8);
    let memories = [(DType::I8, 1, 96), (DType::I8, 8, 8), (DType::I32, 8, 12)];
    let memory = |(index, (dtype, banks, words))| OnChip {
        name: format!("m{index}"),
        dtype,
        banks,
        words,
        storage: Storage::Bram,
    };
    let memories: Vec<OnChip> = memories.into_iter().enumerate().map(memory).collect();
    let mut case = Case::new(kernel, &[1, 8, 8], Storage::Bram);
    case.design.memories = memories.clone();
    let schedule = case.schedule();
    let other = Case::new(kernels::softmax(1, 8, 8), &[8, 8], Storage::Bram);
    let homes = vec![Home::OnChip(MemoryId(3)), Home::OnChip(MemoryId(4))];
    let function = Function { homes, ..other.function.clone() };
    let mut all = memories;
    all.extend(other.design.memories.clone());
    let design = Design { memories: all.clone(), channels: 1, ..Design::default() };
    let machine = Machine::parse("u280", Machine::built_in_text("u280").unwrap()).unwrap();
    let second = Schedule::new(&function, &design, machine.fpga.as_ref().unwrap(), CLOCK).unwrap();
    let calls = [
        Call { function: 0, bases: vec![0, 0, 0] },
        Call { function: 1, bases: vec![0, 0] },
        Call { function: 0, bases: vec![64, 0, 8] },
    ];
    let emitted = emit(Whole { memories: &all, functions: &[&schedule, &second], calls: &calls }).unwrap();
    let Some(rtl) = built(&emitted, &all, "calls") else { return };
    let (left, right, row) = (noise(1, 96), noise(2, 64), floats(3, 8));
    let outcome = rtl.run(&[left.clone(), right.clone(), Vec::new(), row.clone()], 100_000).unwrap();
    let first = case.simulated(&[left[..32].to_vec(), right.clone(), vec![0; 128]]);
    let third = case.simulated(&[left[64..].to_vec(), right, vec![0; 128]]);
    assert_eq!(outcome.memories[2][..128], first[2]);
    assert_eq!(outcome.memories[2][256..], third[2]);
    assert_eq!(outcome.memories[4], other.simulated(&[row, vec![0; 32]])[1]);
    assert_eq!(outcome.cycles, Some(2 * schedule.cycles() + second.cycles()));
}

#[test]
fn operators_are_exact() {
    let (modules, included) = library();
    let mut compiled: Vec<(&str, &str)> = modules.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    compiled.push(("operators.sv", include_str!("../../../fpga/rtl/bench/operators.sv")));
    compiled.push(("operators.cpp", include_str!("../../../fpga/rtl/bench/operators.cpp")));
    let included: Vec<(&str, &str)> = included.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let design = verilator::Design { top: "operators", compiled: &compiled, included: &included, arguments: &[] };
    let built = match design.build(&[], &folder("operators"), |_, text| text.to_owned()) {
        Ok(built) => built,
        Err(VerilatorError::Tool { tool, error }) if std::env::var_os("CI").is_none() => {
            eprintln!("SKIPPED: {tool} is not installed ({error}); operators are not compared");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let jobs = [1, 2].map(|seed| vec![Part::Number(500_000), Part::Number(seed)]);
    for left in built.run(&jobs).unwrap() {
        let text = String::from_utf8(left.results.unwrap()).unwrap();
        // All lines but the last tell differences.
        let worst: f64 = text.trim_end().parse().unwrap_or_else(|_| panic!("{text}"));
        assert!(worst < 0.51);
    }
}
