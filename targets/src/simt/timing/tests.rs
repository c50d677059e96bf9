//! Kernels whose time can be told by hand.

#![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

use tcc_ir::DType;
use tcc_ir::ops::BinaryFn;

use super::setting::Setting;
use super::{KernelTime, Limit, Resource, measure, time};
use crate::machine::Machine;
use crate::number::FoldFn;
use crate::simt::SimtMachine;
use crate::simt::kernel::check::check;
use crate::simt::kernel::{Builder, Expr, ExprId, Kernel, Scalar};

fn machine(name: &str) -> (SimtMachine, u64) {
    let machines = Machine::built_in().unwrap();
    let machine = machines.into_iter().find(|machine| machine.name == name).unwrap();
    (machine.simt.unwrap(), machine.clock_hz)
}

fn mini() -> SimtMachine {
    machine("simt-mini").0
}

fn timed(kernel: &Kernel, machine: &SimtMachine) -> KernelTime {
    check(kernel).unwrap();
    time(kernel, machine, 1_000_000_000)
}

/// The same with every multiprocessor and every wave.
fn all(kernel: &Kernel, machine: &SimtMachine) -> KernelTime {
    let mut setting = Setting::new(kernel, machine, 1_000_000_000);
    setting.leaves_out = false;
    measure(&setting)
}

/// A chain of sums in each thread, of which the last is stored.
fn chain(threads: u32, blocks: u32, sums: u32) -> Kernel {
    let mut builder = Builder::new("chain", threads);
    let y = builder.buffer("y", DType::F32, u64::from(threads * blocks), true);
    let (zero, one) = (builder.float(DType::F32, 0.0), builder.float(DType::F32, 1.0));
    let sum = builder.declare("sum", Scalar::F32, zero);
    for _ in 0..sums {
        let so_far = builder.get(sum);
        let next = builder.binary(BinaryFn::Add, DType::F32, so_far, one);
        builder.set(sum, next);
    }
    let at = number(&mut builder, threads);
    let sum = builder.get(sum);
    builder.store(y, at, sum);
    builder.finish([blocks, 1, 1], Vec::new())
}

fn number(builder: &mut Builder, threads: u32) -> ExprId {
    let (thread, block) = (builder.thread(), builder.block(0));
    let first = builder.scaled(block, threads as i32);
    builder.add(first, thread)
}

/// Copies elements, each thread one, by a step.
fn copy(dtype: DType, threads: u32, blocks: u32, step: i32) -> Kernel {
    let elements = u64::from(threads * blocks) * step as u64;
    let mut builder = Builder::new("copy", threads);
    let x = builder.buffer("x", dtype, elements, false);
    let y = builder.buffer("y", dtype, elements, true);
    let at = number(&mut builder, threads);
    let at = builder.scaled(at, step);
    let loaded = builder.load(x, at, "loaded");
    builder.store(y, at, loaded);
    builder.finish([blocks, 1, 1], Vec::new())
}

/// A product of matrices, each thread an element.
fn product(m: u32, n: u32, k: u32) -> Kernel {
    let mut builder = Builder::new("product", 128);
    let a = builder.buffer("a", DType::F32, u64::from(m * k), false);
    let b = builder.buffer("b", DType::F32, u64::from(k * n), false);
    let c = builder.buffer("c", DType::F32, u64::from(m * n), true);
    let at = number(&mut builder, 128);
    let at = builder.keep("at", Scalar::I32, at);
    let inside = builder.below(at, (m * n) as i32);
    builder.when(inside);
    let (row, column) = builder.divided(at, n as i32);
    let zero = builder.float(DType::F32, 0.0);
    let sum = builder.declare("sum", Scalar::F32, zero);
    let (from, to) = (builder.integer(0), builder.integer(k as i32));
    let i = builder.loop_over("i", from, to, 1);
    let first = builder.scaled(row, k as i32);
    let left = builder.add(first, i);
    let left = builder.load(a, left, "left");
    let down = builder.scaled(i, n as i32);
    let right = builder.add(down, column);
    let right = builder.load(b, right, "right");
    let so_far = builder.get(sum);
    let next = builder.mul_add(DType::F32, left, right, so_far);
    builder.set(sum, next);
    builder.end();
    let sum = builder.get(sum);
    builder.store(c, at, sum);
    builder.end();
    builder.finish([(m * n).div_ceil(128), 1, 1], Vec::new())
}

/// Sums of rows, by so many threads each.
fn sums(rows: u32, columns: u32, threads: u32) -> Kernel {
    let mut builder = Builder::new("sums", threads);
    let x = builder.buffer("x", DType::F32, u64::from(rows * columns), false);
    let y = builder.buffer("y", DType::F32, u64::from(rows), true);
    let scratch = builder.shared("scratch", DType::F32, threads);
    let (thread, row) = (builder.thread(), builder.block(0));
    let zero = builder.float(DType::F32, 0.0);
    let sum = builder.declare("sum", Scalar::F32, zero);
    let to = builder.integer(columns as i32);
    let column = builder.loop_over("column", thread, to, threads);
    let first = builder.scaled(row, columns as i32);
    let at = builder.add(first, column);
    let element = builder.load(x, at, "element");
    let so_far = builder.get(sum);
    let next = builder.binary(BinaryFn::Add, DType::F32, so_far, element);
    builder.set(sum, next);
    builder.end();
    builder.reduce(sum, FoldFn::Sum, DType::F32, threads, scratch);
    let one = builder.integer(1);
    let is_first = builder.index(crate::simt::kernel::IndexFn::Lt, thread, one);
    builder.when(is_first);
    let sum = builder.get(sum);
    builder.store(y, row, sum);
    builder.end();
    builder.finish([rows, 1, 1], Vec::new())
}

#[test]
fn speed() {
    let (h100, clock) = machine("h100");
    for kernel in [chain(256, 1 << 20, 10), copy(DType::F32, 256, 1 << 20, 1), product(2048, 4096, 4096), product(1, 4096, 4096), sums(1 << 20, 768, 128), sums(16, 1 << 20, 256), sums(1 << 20, 32, 32)] {
        let start = std::time::Instant::now();
        let time = time(&kernel, &h100, clock);
        println!("{} {:?} {:?}", kernel.name, start.elapsed(), time);
    }
}
