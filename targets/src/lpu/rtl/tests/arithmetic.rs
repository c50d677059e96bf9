//! The vector and the matrix units.

use half::f16;
use tcc_ir::DType;

use super::program::{
    ACCUMULATE, COPY, FIRST, FLOAT, INSTALL, INTEGER, Program, Words, accumulate, alu, alu_result, binary, east, load,
    multiply_bytes, multiply_halves, of, read, unary, west, write,
};
use super::*;
use crate::lpu::isa::Hemisphere::West;
use crate::lpu::isa::Queue::{self, Accumulate, Alu, Load, Mem as Slice, Multiply};

/// Numbers of functions.
const SUM: u32 = 0;
const ADD: u32 = 0;
const LESS: u32 = 7;
const MULTIPLY: u32 = 11;
const NOT: u32 = 10;
const EXP: u32 = 4;

/// Reads of slices 0, 1, ... so that their vectors come to the VXM together, in the given cycle.
fn to_vxm(slices: u32, address: u32, stream: u32, cycle: u32) -> Vec<(Queue, u32, Words)> {
    // Slice i stands 4 - i positions west of the VXM.
    (0..slices).map(|slice| (Slice(slice as u8), cycle - 6 + slice, read(address, east(stream + slice)))).collect()
}

/// Writes of what the VXM drives eastwards in a cycle, to slices 4, 5, ...
fn from_vxm(slices: u32, address: u32, stream: u32, cycle: u32) -> Vec<(Queue, u32, Words)> {
    (0..slices).map(|slice| (Slice(4 + slice as u8), cycle + 1 + slice, write(address, east(stream + slice)))).collect()
}

/// Runs the instructions of ALUs between reads of 4 slices in cycle 6 and writes of what is driven in a cycle.
fn on_alus(rtl: &Rtl, memory: &[u8], alus: &[(u8, u32, Words)], driven: u32) -> Outcome {
    let mut instructions = to_vxm(4, 0, 0, 6);
    instructions.extend(alus.iter().map(|&(alu, cycle, words)| (Alu(alu), cycle, words)));
    instructions.extend(from_vxm(4, 0, 8, driven));
    run(rtl, &Program::of(&instructions), memory)
}

#[test]
fn two_alus_compute_one_after_the_other() {
    let Some(rtl) = rtl() else { return };
    let numbers: [f32; 8] = [1.0, -2.5, 1e30, f32::INFINITY, f32::NAN, 0.1, -0.0, 3e-40];
    let mut before = memory();
    put_elements(&mut before, 0, 0, numbers.map(f32::to_le_bytes));
    let sum = alu(binary(ADD), &[of(DType::F32, east(0)), FLOAT], None, 1.5f32.to_bits());
    let square = alu(binary(MULTIPLY), &[alu_result(0), alu_result(0)], Some(of(DType::F32, east(8))), 0);
    let outcome = on_alus(rtl, &before, &[(0, 6, sum), (3, 8, square)], 10);
    for (lane, bytes) in elements::<4>(&outcome.memory, 4, 0).into_iter().enumerate() {
        let sum = numbers[lane] + 1.5;
        let expected = if lane == 4 { f32::from_bits(0x7fc0_0000) } else { sum * sum };
        assert_eq!(u32::from_le_bytes(bytes), expected.to_bits(), "lane {lane}");
    }
}

#[test]
fn a_function_is_that_of_the_system_and_a_result_has_its_own_type() {
    let Some(rtl) = rtl() else { return };
    let halves: [f32; 8] = [0.0, 1.0, -1.0, 0.5, 3.0, -7.0, 0.25, 2.0];
    let mut before = memory();
    put_elements(&mut before, 0, 0, halves.map(|number| f16::from_f32(number).to_le_bytes()));
    let exp = alu(unary(EXP), &[of(DType::F16, east(0))], Some(of(DType::F32, east(8))), 0);
    let outcome = on_alus(rtl, &before, &[(1, 6, exp)], 8);
    let expected = halves.map(libm::expf);
    for (lane, bytes) in elements::<4>(&outcome.memory, 4, 0).into_iter().enumerate() {
        let actual = f32::from_le_bytes(bytes);
        assert!((actual - expected[lane]).abs() <= expected[lane] * 1e-6, "lane {lane}: {actual}");
    }
}

#[test]
fn comparisons_choose_and_classes_go_with_results() {
    let Some(rtl) = rtl() else { return };
    let numbers: [i32; 8] = [5, -7, 100, 0, i32::MAX, i32::MIN, 9, 10];
    let mut before = memory();
    put_elements(&mut before, 0, 0, numbers.map(i32::to_le_bytes));
    let element = of(DType::I32, east(0));
    // Where an element is less than 10: that, else 10; in lanes that were copied, the copy is in step with the comparison.
    let less = alu(binary(LESS), &[element, INTEGER], None, 10);
    let copy = alu(COPY, &[element], None, 0);
    let select = alu(3, &[alu_result(0), alu_result(1), INTEGER], Some(of(DType::I32, east(8))), 10);
    let outcome = on_alus(rtl, &before, &[(0, 6, less), (1, 6, copy), (2, 8, select)], 10);
    let chosen = elements::<4>(&outcome.memory, 4, 0).map(i32::from_le_bytes);
    assert_eq!(chosen, numbers.map(|number| number.min(10)));
    // A comparison's result is unsigned, of 64 bits: all bits of it are turned.
    let not = alu(unary(NOT), &[alu_result(0)], Some(of(DType::U32, east(8))), 0);
    let outcome = on_alus(rtl, &before, &[(0, 6, less), (2, 8, not)], 10);
    let turned = elements::<4>(&outcome.memory, 4, 0).map(u32::from_le_bytes);
    assert_eq!(turned, numbers.map(|number| !u32::from(number < 10)));
}

#[test]
fn a_copy_between_equal_types_keeps_all_bits() {
    let Some(rtl) = rtl() else { return };
    let mut before = memory();
    put_elements(&mut before, 0, 0, [0x7f80_0001u32; 8].map(u32::to_le_bytes));
    for (dtype, expected) in [(DType::F32, 0x7f80_0001u32), (DType::F64, 0x7ff8_0000)] {
        let (stream, planes) = if dtype == DType::F32 { (8, 4) } else { (4, 8) };
        let copy = alu(COPY, &[of(DType::F32, east(0))], Some(of(dtype, east(stream))), 0);
        let outcome = on_alus(rtl, &before, &[(0, 6, copy)], 8);
        assert_eq!(elements::<4>(&outcome.memory, 4, 0).map(u32::from_le_bytes), [expected; 8], "{planes} planes");
    }
}

#[test]
fn an_alu_accumulates() {
    let Some(rtl) = rtl() else { return };
    let before = memory();
    let byte = of(DType::I8, east(0));
    let step = |first, to| alu(ACCUMULATE | SUM << 8 | first, &[byte], to, 0);
    let mut instructions: Vec<_> = (0..3).map(|index| (Slice(0), index, read(index, east(0)))).collect();
    instructions.extend([
        (Alu(2), 6, step(FIRST, None)),
        (Alu(2), 7, step(0, None)),
        (Alu(2), 8, step(0, Some(of(DType::I16, east(8))))),
    ]);
    instructions.extend(from_vxm(2, 0, 8, 10));
    let outcome = run(rtl, &Program::of(&instructions), &before);
    let sums: [i16; 8] =
        std::array::from_fn(|lane| (0..3).map(|address| i16::from(vector(&before, 0, address)[lane] as i8)).sum());
    assert_eq!(elements::<2>(&outcome.memory, 4, 0).map(i16::from_le_bytes), sums);
}

/// Reads of slices 0 to 3 at an address, westwards, so that the vectors come to the MXM together, in the given cycle.
fn to_mxm(slices: u32, address: u32, stream: u32, cycle: u32) -> Vec<(Queue, u32, Words)> {
    (0..slices).map(|slice| (Slice(slice as u8), cycle - 4 - slice, read(address, west(stream + slice)))).collect()
}

/// Loads of all columns of a plane, which lie at two addresses of four slices, from a cycle on.
fn weights(plane: u8, address: u32, cycle: u32) -> Vec<(Queue, u32, Words)> {
    let mut instructions = Vec::new();
    for index in 0..2 {
        instructions.extend(to_mxm(4, address + index, 0, cycle + index));
        instructions.push((Load(West, plane), cycle + index, load(west(0), 4 * index)));
    }
    instructions
}

/// The byte at a column and a lane of weights that [`weights`] loads.
fn weight(memory: &[u8], address: usize, column: usize, lane: usize) -> u8 {
    vector(memory, column % 4, address + column / 4)[lane]
}

/// Writes of the four streams from the MXM, to slices 0 to 3.
fn from_mxm(address: u32, stream: u32, driven: u32) -> Vec<(Queue, u32, Words)> {
    (0..4).map(|slice| (Slice(slice as u8), driven + 2 + slice, write(address, east(stream + slice)))).collect()
}

/// The content of an accumulator row of plane 0.
fn row_of(outcome: &Outcome, row: usize) -> [u32; 8] {
    outcome.accumulators[row * VECTOR..][..VECTOR].try_into().unwrap()
}

#[test]
fn rows_of_bytes_are_multiplied_and_accumulated() {
    let Some(rtl) = rtl() else { return };
    let before = memory();
    for (row_signed, weights_signed) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut instructions = weights(0, 0, 10);
        instructions.push((Load(West, 0), 12, INSTALL));
        for (index, cycle) in [(0, 12), (1, 13)] {
            instructions.extend(to_mxm(1, 20 + index, 8, cycle));
            instructions.push((Multiply(West, 0), cycle, multiply_bytes(west(8), row_signed, weights_signed)));
            let to = (index == 1).then_some(east(4));
            instructions.push((Accumulate(West, 0), cycle + 5, accumulate(3, index == 1, to)));
        }
        instructions.extend(from_mxm(70, 4, 19));
        let outcome = run(rtl, &Program::of(&instructions), &before);
        let number = |byte: u8, signed: bool| if signed { i32::from(byte as i8) } else { i32::from(byte) };
        let expected: [u32; 8] = std::array::from_fn(|column| {
            let products = [20, 21].into_iter().flat_map(|address| {
                let row = vector(&before, 0, address);
                (0..8).map(move |lane| (row[lane], lane))
            });
            products
                .map(|(x, lane)| number(x, row_signed) * number(weight(&before, 0, column, lane), weights_signed))
                .sum::<i32>() as u32
        });
        assert_eq!(row_of(&outcome, 3), expected, "{row_signed} {weights_signed}");
        assert_eq!(elements::<4>(&outcome.memory, 0, 70).map(u32::from_le_bytes), expected);
        assert_eq!(outcome.accumulators.iter().filter(|&&word| word != 0).count(), 8);
    }
}

#[test]
fn weights_that_wait_do_not_disturb() {
    let Some(rtl) = rtl() else { return };
    let before = memory();
    let mut instructions = weights(0, 0, 10);
    // The first row meets the weights of address 0, the second, in the cycle of the second install, those of address 2.
    instructions.extend(weights(0, 2, 13));
    instructions.extend([(Load(West, 0), 12, INSTALL), (Load(West, 0), 15, INSTALL)]);
    for (index, cycle) in [(0, 14), (1, 15)] {
        // Slice 4 stands 7 positions from the MXM; those nearer are at work on weights.
        instructions.push((Slice(4), cycle - 9, read(20 + index, west(8))));
        instructions.push((Multiply(West, 0), cycle, multiply_bytes(west(8), false, false)));
        instructions.push((Accumulate(West, 0), cycle + 5, accumulate(index, false, None)));
    }
    let outcome = run(rtl, &Program::of(&instructions), &before);
    for (row, address) in [(0, 0), (1, 2)] {
        let x = vector(&before, 4, 20 + row);
        let expected: [u32; 8] = std::array::from_fn(|column| {
            (0..8).map(|lane| u32::from(x[lane]) * u32::from(weight(&before, address, column, lane))).sum()
        });
        assert_eq!(row_of(&outcome, row), expected, "row {row}");
    }
}

#[test]
fn rows_of_halves_are_multiplied_and_accumulated() {
    let Some(rtl) = rtl() else { return };
    let mut before = memory();
    // Numbers whose sums depend on the order, some subnormal.
    let number = |index: usize| {
        let scale = [1.0, 1024.0, 1.0 / 1024.0, 3.0e-6][index % 4];
        f16::from_f32(((index * 37 % 101) as f32 - 50.0) / 7.0 * scale)
    };
    let weight = |column: usize, lane: usize| number(8 * column + lane);
    let x = |lane: usize| number(100 + 3 * lane);
    for column in 0..8 {
        for byte in 0..2 {
            let lanes = std::array::from_fn(|lane| weight(column, lane).to_le_bytes()[byte]);
            put(&mut before, column % 4, 2 * byte + column / 4, lanes);
        }
    }
    put_elements(&mut before, 0, 20, std::array::from_fn(|lane| x(lane).to_le_bytes()));
    let mut instructions = weights(0, 0, 10);
    instructions.extend(weights(1, 2, 12));
    instructions.extend([(Load(West, 0), 14, INSTALL), (Load(West, 1), 14, INSTALL)]);
    for half in 0..2 {
        let cycle = 14 + half;
        instructions.extend(to_mxm(2, 20, 8, cycle));
        instructions.push((Multiply(West, 0), cycle, multiply_halves(west(8), half)));
        instructions.push((Accumulate(West, 0), cycle + 5, accumulate(15, half == 1, None)));
    }
    let outcome = run(rtl, &Program::of(&instructions), &before);
    let expected: [u32; 8] = std::array::from_fn(|column| {
        let sum = |lanes: std::ops::Range<usize>| {
            lanes.fold(0f32, |sum, lane| sum + f32::from(x(lane)) * f32::from(weight(column, lane)))
        };
        (sum(0..4) + sum(4..8)).to_bits()
    });
    assert_eq!(row_of(&outcome, 15), expected);
}
