//! Floats of integers that are held as they were loaded.

use tcc_ir::DType;

use super::device::{COUNT, Cases, Near, patterns};
use super::tiles::{moderate, vector_at};
use crate::kernel::{Scalar, Stmt};

/// Integers that are made floats at a time.
const CHUNK: u32 = 8;

/// Adds all types of integers, as all types of floats, with and without zero points and scales.
pub(super) fn dequantize_cases(cases: &mut Cases) {
    for stored in [DType::I4, DType::U4, DType::I8, DType::U8] {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            for (has_zero, has_scale) in [(false, false), (false, true), (true, false), (true, true)] {
                dequantize_case(cases, stored, dtype, (has_zero, has_scale));
            }
        }
    }
}

fn dequantize_case(cases: &mut Cases, stored: DType, dtype: DType, (has_zero, has_scale): (bool, bool)) {
    let mut case = cases.case(&format!("{stored} as {dtype}, zero point {has_zero}, scale {has_scale}"));
    let integers = case.input(stored, &patterns(stored, COUNT as usize));
    let zeros = has_zero.then(|| case.input(stored, &patterns(stored, COUNT as usize)));
    let scales = has_scale.then(|| case.input(dtype, &moderate(dtype, 7)));
    let output = case.output("number", DType::F32, Near::Exact);
    let (index, builder) = (case.index, &mut case.builder);
    let count = 2 * CHUNK;
    let from = vector_at(builder, index, count);
    let from = builder.keep("from", Scalar::I32, from);
    let to = builder.integer(0);
    let packed = builder.packed("integers", stored, count);
    builder.push(Stmt::LoadVector { array: packed, to, buffer: integers, from, count });
    // A zero point and a scale as they are loaded, a byte or two: of the zero points of four bits the second.
    let zero = zeros.map(|buffer| {
        let count = if stored.bits() < 8 { 2 } else { 1 };
        let held = builder.packed("zero", stored, count);
        builder.push(Stmt::LoadVector { array: held, to, buffer, from, count });
        let last = builder.integer(count as i32 - 1);
        builder.element(held, last)
    });
    let scale = scales.map(|buffer| {
        let held = builder.packed("scale", dtype, 1);
        builder.push(Stmt::LoadVector { array: held, to, buffer, from, count: 1 });
        builder.element(held, to)
    });
    let start = builder.float(DType::F32, 0.0);
    let array = builder.array("numbers", Scalar::F32, CHUNK, start);
    for first in [0, CHUNK] {
        builder.push(Stmt::Dequantize { array, packed, first, count: CHUNK, zero, scale, dtype });
        let j = builder.unrolled("j", CHUNK);
        let element = builder.element(array, j);
        let distance = builder.integer(first as i32);
        let place = builder.add(from, distance);
        let place = builder.add(place, j);
        builder.store(output, place, element);
        builder.end();
    }
    case.finish();
}
