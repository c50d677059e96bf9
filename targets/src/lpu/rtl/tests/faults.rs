//! Every fault of a program stops the machine, and only it.

use tcc_ir::DType;

use super::program::{
    ACCUMULATE, COPY, END, FIRST, INSTALL, NOTIFY, Program, TAKE, Words, accumulate, alu, alu_result, distribute, east,
    gather, load, multiply_bytes, multiply_halves, nop, of, read, read_and_write, repeat, shift, transpose, west,
    write,
};
use super::*;
use crate::lpu::isa::Hemisphere::{East, West};
use crate::lpu::isa::Queue::{self, Accumulate, Alu, Distribute, Load, Mem as Slice, Multiply, Shift, Transpose};

/// Programs that are at fault, and how the fault is called.
fn faults() -> Vec<(&'static str, Program)> {
    let of_times = |name, instructions: &[(Queue, u32, Words)]| (name, Program::of(instructions));
    let of_queues = |name, queues: &[(Queue, &[Words])]| (name, Program::raw(queues));
    vec![
        // A vector on its way comes to slice 1 in the cycle in which that drives one.
        of_times("collision", &[(Slice(0), 0, read(0, east(0))), (Slice(1), 1, read(0, east(0)))]),
        // It is read there, but not taken.
        of_times(
            "collision",
            &[(Slice(0), 0, read(0, east(0))), (Slice(1), 1, read(0, east(0))), (Slice(1), 3, write(0, east(0)))],
        ),
        // Two ALUs, or two shifters, drive the same stream; the ALUs in the last cycle of all.
        of_times("collision", &two_alus(DType::U8)),
        of_times("collision", &two_alus(DType::U32)),
        of_times("nothing there", &[(Slice(0), 4, write(0, east(0)))]),
        of_times("nothing there", &[(Slice(0), 0, read(0, east(0))), (Slice(1), 4, write(0, east(0)))]),
        // The vector was taken on the way.
        of_times(
            "nothing there",
            &[
                (Slice(0), 0, read(0, east(0))),
                (Slice(1), 3, write(0, east(0) | TAKE)),
                (Slice(2), 4, write(0, east(0))),
            ],
        ),
        of_times("nothing there", &[(Slice(0), 0, read(0, east(0))), (Slice(1), 3, gather(east(0), east(1)))]),
        of_times(
            "nothing there",
            &[(Slice(0), 0, read(0, east(0))), (Alu(0), 6, alu(COPY, &[of(DType::U16, east(0))], None, 0))],
        ),
        of_times("nothing there", &[(Alu(1), 3, alu(COPY, &[alu_result(0)], None, 0))]),
        of_times("nothing there", &[(Load(West, 0), 3, load(west(0), 0))]),
        of_times("nothing there", &[(Multiply(East, 1), 3, multiply_bytes(east(0), true, true))]),
        of_times("nothing there", &[(Accumulate(East, 1), 3, accumulate(0, false, None))]),
        // The sums are taken a cycle too late.
        of_times("nothing there", &multiplied(6, 0)),
        of_times("nothing there", &[(Shift(West, 0), 3, shift(west(0), 0, [0, 8], None, east(0)))]),
        of_times(
            "nothing there",
            &[(Slice(0), 0, read(0, west(0))), (Shift(West, 0), 3, shift(west(0), 0, [0, 8], Some(west(1)), east(0)))],
        ),
        of_times("nothing there", &[(Distribute(East, 0), 3, distribute(west(0), [None; 4], east(0)))]),
        of_times(
            "nothing there",
            &[(Slice(0), 0, read(0, west(0))), (Transpose(West, 0), 3, transpose(west(0), east(0)))],
        ),
        of_times(
            "bank conflict",
            &[(Slice(0), 0, read(0, east(0))), (Slice(1), 3, read_and_write(70, east(1), 80, east(0)))],
        ),
        // It is visible in cycle 5.
        of_times(
            "too early",
            &[(Slice(0), 0, read(0, east(0))), (Slice(1), 3, write(5, east(0))), (Slice(1), 4, read(5, east(1)))],
        ),
        of_times(
            "too early",
            &[
                (Slice(0), 1, read(0, east(2))),
                (Slice(0), 2, read(0, east(0))),
                (Slice(1), 3, read(0, east(1))),
                (Slice(2), 5, write(5, east(2))),
                (Slice(2), 6, gather(east(0), east(3))),
            ],
        ),
        of_times("class changes", &accumulated(0, DType::U8)),
        of_times("class changes", &accumulated(FIRST, DType::I8)),
        of_times("plane busy", &lent()),
        of_times("beyond the last column", &loaded(5)),
        of_times("beyond the last row", &multiplied(5, 16)),
        of_times("beyond the last address", &[(Slice(3), 0, read(128, east(0)))]),
        of_times("beyond the last address", &[(Slice(0), 0, read(0, east(0))), (Slice(1), 3, write(128, east(0)))]),
        of_queues("beyond the last address", &[(Slice(3), &[read(1, east(0)), repeat(2, 1, -1), END])]),
        of_times("beyond the last stream", &[(Slice(3), 0, read(0, east(16)))]),
        of_times("beyond the last stream", &[(Alu(0), 0, alu(COPY, &[of(DType::F64, east(9))], None, 0))]),
        of_times("beyond the last ALU", &[(Alu(0), 0, alu(COPY, &[alu_result(4)], None, 0))]),
        of_times("not this queue's", &[(Slice(3), 0, INSTALL)]),
        of_times("not this queue's", &[(Alu(3), 0, read(0, east(0)))]),
        of_times("not this queue's", &[(Multiply(West, 0), 0, INSTALL)]),
        of_times("not this queue's", &[(Load(West, 0), 0, [99, 0, 0, 0])]),
        // Halves take the weights of an even plane and the next.
        of_times(
            "not this queue's",
            &lent()[..2]
                .iter()
                .copied()
                .chain([(Multiply(West, 1), 5, multiply_halves(west(0), 0))])
                .collect::<Vec<_>>(),
        ),
        of_queues("runs dry", &[(Slice(3), &[])]),
        of_queues("runs dry", &[(Slice(3), &[read(0, east(0)), nop(7)])]),
        of_queues("runs dry", &[(Slice(3), &[read(0, east(0)), repeat(7, 3, 1)])]),
        of_queues("runs dry", &[(Slice(3), &[NOTIFY])]),
        of_queues("malformed", &[(Slice(3), &[repeat(1, 1, 0), END])]),
        of_queues("malformed", &[(Slice(3), &[nop(2), repeat(1, 1, 0), END])]),
        of_queues("malformed", &[(Slice(3), &[read(0, east(0)), repeat(1, 1, 0), repeat(1, 1, 0), END])]),
        of_queues("malformed", &[(Slice(3), &[nop(0), END])]),
        of_times("malformed", &[(Alu(3), 0, alu(COPY, &[of(DType::I4, east(0))], None, 0))]),
    ]
}

/// Two ALUs drive eastward stream 0 in the same cycle.
fn two_alus(dtype: DType) -> Vec<(Queue, u32, Words)> {
    let from = if dtype == DType::U8 { 0 } else { 3 };
    vec![
        (Slice(0), 0, read(0, east(8))),
        (Alu(0), 6, alu(COPY, &[of(DType::U8, east(8))], Some(of(DType::U8, east(from))), 0)),
        (Alu(1), 6, alu(COPY, &[of(DType::U8, east(8))], Some(of(dtype, east(0))), 0)),
    ]
}

/// An accumulate of a signed byte after one that may be the first, of some type.
fn accumulated(first: u32, then: DType) -> Vec<(Queue, u32, Words)> {
    let accumulate = |first, dtype| alu(ACCUMULATE | first, &[of(dtype, east(0))], None, 0);
    vec![
        (Slice(0), 0, read(0, east(0))),
        (Slice(0), 1, read(0, east(0))),
        (Alu(0), 6, accumulate(first, DType::U8)),
        (Alu(0), 7, accumulate(0, then)),
    ]
}

/// A multiply, and an accumulate so many cycles later, to a row.
fn multiplied(later: u32, row: u32) -> Vec<(Queue, u32, Words)> {
    vec![
        (Slice(0), 0, read(0, west(0))),
        (Multiply(West, 0), 4, multiply_bytes(west(0), true, true)),
        (Accumulate(West, 0), 4 + later, accumulate(row, false, None)),
    ]
}

/// A load at a column.
fn loaded(column: u32) -> Vec<(Queue, u32, Words)> {
    let mut instructions: Vec<_> = (0..4).map(|slice| (Slice(slice as u8), 3 - slice, read(0, west(slice)))).collect();
    instructions.push((Load(West, 1), 7, load(west(0), column)));
    instructions
}

/// A plane multiplies in the cycle in which the one before it has halves.
fn lent() -> Vec<(Queue, u32, Words)> {
    vec![
        (Slice(0), 1, read(0, west(0))),
        (Slice(1), 0, read(0, west(1))),
        (Multiply(West, 0), 5, multiply_halves(west(0), 0)),
        (Multiply(West, 1), 5, multiply_bytes(west(0), true, true)),
    ]
}

#[test]
fn every_fault_stops_the_machine_and_no_other_job() {
    let Some(rtl) = rtl() else { return };
    let good = ("", Program::of(&[(Slice(0), 0, read(0, east(0)))]));
    let mut programs = faults();
    programs.extend([good.clone(), good]);
    let count = programs.len();
    programs.swap(0, count - 1);
    let encoded: Vec<Vec<u8>> = programs.iter().map(|(_, program)| program.encode()).collect();
    let memory = memory();
    let jobs: Vec<Job<'_>> = encoded.iter().map(|program| Job { program, memory: &memory, limit: 1000 }).collect();
    for (number, (outcome, (name, program))) in rtl.run(&jobs).unwrap().into_iter().zip(&programs).enumerate() {
        match outcome {
            Ok(outcome) => {
                assert_eq!(*name, "", "program {number} should stop");
                assert_eq!(outcome.cycles, Some(program.cycles()));
            }
            Err(fault) => assert!(!name.is_empty() && fault.0.starts_with(name), "program {number}, {name}: {fault}"),
        }
    }
}
