//! Kernels to try.

use tcc_ir::DType;
use tcc_ir::ops::BinaryFn;

use crate::kernel::{Builder, Kernel, Scalar};

/// A product of matrices of 8-bit integers, row by row, with lanes along columns.
pub fn product(rows: u32, columns: u32, depth: u32, lanes: u32) -> Kernel {
    let mut builder = Builder::new("product", lanes);
    let a = builder.buffer("a", DType::I8, u64::from(rows * depth), false);
    let b = builder.buffer("b", DType::I8, u64::from(depth * columns), false);
    let c = builder.buffer("c", DType::I32, u64::from(rows * columns), true);
    let (group, row, lane) = (builder.block(0), builder.block(1), builder.thread());
    let before = builder.scaled(group, lanes as i32);
    let column = builder.add(before, lane);
    let start = builder.number(DType::I32, 0);
    let sum = builder.declare("sum", Scalar::I32, start);
    let (zero, end) = (builder.integer(0), builder.integer(depth as i32));
    let k = builder.loop_over("k", zero, end, 1);
    let own = builder.scaled(row, depth as i32);
    let from = builder.add(own, k);
    let x = builder.load(a, from, "x");
    let own = builder.scaled(k, columns as i32);
    let from = builder.add(own, column);
    let y = builder.load(b, from, "y");
    let product = builder.binary(BinaryFn::Mul, DType::I32, x, y);
    let so_far = builder.get(sum);
    let next = builder.binary(BinaryFn::Add, DType::I32, so_far, product);
    builder.set(sum, next);
    builder.end();
    let own = builder.scaled(row, columns as i32);
    let to = builder.add(own, column);
    let sum = builder.get(sum);
    builder.store(c, to, sum);
    builder.finish([columns / lanes, rows, 1], Vec::new())
}
