//! The binary form of programs: what the machine reads.
//!
//! A program is a sequence of little-endian 32-bit words.
//!
//! | words | field |
//! |-------|-------|
//! | 1 | number of queues |
//! | 1 for each queue | the number of its instructions; queues come in the order of [`LpuMachine::queues`](super::LpuMachine::queues) |
//! | 4 for each instruction | the instructions, queue by queue |
//!
//! Bits that are not named are zero; there is exactly one encoding of every program, and [`decode`] takes no other.
//!
//! # Instructions
//!
//! The words of an instruction are w0 to w3, and `w0[7:0]` is its opcode. Queues' own instructions:
//!
//! | opcode | instruction | fields |
//! |--------|-------------|--------|
//! | 1 | nop | w1 cycles |
//! | 2 | repeat | w1 count, w2 interval, w3 step, signed |
//! | 3 | sync | |
//! | 4 | notify | |
//! | 5 | end | |
//!
//! Of units; a field that is called operand is in the form below:
//!
//! | opcode | instruction | fields |
//! |--------|-------------|--------|
//! | 16 | mem | `w0[8]` reads, `w0[9]` writes; w1 address of the read, w2 of the write; `w3[15:0]` operand: where the read goes, `w3[31:16]` operand: what is written |
//! | 17 | gather | `w3[15:0]` operand: addresses, `w3[31:16]` operand: destination |
//! | 32 | alu | `w0[15:8]` copy 0, unary 1, binary 2, select 3, accumulate 4; `w0[23:16]` function; `w0[24]` first; `w1[15:0]`, `w1[31:16]`, `w2[15:0]` operands; `w2[31:16]` operand: result; w3 the number |
//! | 48 | load | `w1[15:0]` operand: first stream; w2 column |
//! | 49 | install | |
//! | 50 | multiply | `w0[8]` halves, `w0[9]` which half, `w0[10]` row has signs, `w0[11]` weights have signs; `w1[15:0]` operand: row |
//! | 51 | accumulate | `w0[8]` add; w1 row; `w2[15:0]` operand: destination |
//! | 64 | shift | `w0[8]` rotate; `w1[15:0]` operand: from, `w1[31:16]` operand: under; `w2[15:0]` first lane, `w2[31:16]` lane behind the last; `w3[15:0]` by, signed; `w3[31:16]` operand: to |
//! | 65 | distribute | `w0[23:8]` for each lane whether it gets 0; `w1[15:0]` operand: from, `w1[31:16]` operand: to; w2, w3 four bits for each lane, lane 0 lowest |
//! | 66 | transpose | `w1[15:0]` operand: from, `w1[31:16]` operand: to |
//!
//! # Operands
//!
//! | bits  | field |
//! |-------|-------|
//! | 0-4   | number of the first stream, or of the ALU |
//! | 5     | direction: east 0, west 1 |
//! | 6     | whether a read takes what is on the streams |
//! | 7-11  | element type, where the instruction is an ALU's |
//! | 12-15 | none 0, streams 1, an ALU 2, the float in w3 3, the integer in w3 4 |
//!
//! Numbers: types in the order of [`DType::ALL`](tcc_ir::DType::ALL), functions in the order of [`UnaryFn::ALL`], [`BinaryFn::ALL`] and
//! [`Accumulation::ALL`] (0 for copy and select).

mod decoder;

pub use decoder::{DecodeError, DecodeProblem, decode};

use tcc_ir::ops::{BinaryFn, UnaryFn};

use super::isa::{Accumulation, Alu, AluFn, Direction, Number, Operand, Operation, Queues, Reads, Row, Stream};
use crate::numbering::{dtype_number, number};

/// Words of an instruction.
const WORDS: usize = 4;

/// Encodes a program. What has no place in an instruction is cut off: stream and ALU numbers from 32 on, halves from 2 on,
/// lanes of a superlane from 16 on, and a second number of an ALU's instruction. [`check`](super::check::check) refuses all
/// of these.
pub fn encode(program: &Queues) -> Vec<u8> {
    let instructions: usize = program.0.iter().map(Vec::len).sum();
    let mut bytes = Vec::with_capacity(4 * (1 + program.0.len() + WORDS * instructions));
    let counts = program.0.iter().map(|queue| queue.len() as u32);
    [program.0.len() as u32].into_iter().chain(counts).for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
    for operation in program.0.iter().flatten() {
        bytes.extend_from_slice(encode_one(operation).map(u32::to_le_bytes).as_flattened());
    }
    bytes
}

/// The words of one instruction.
fn encode_one(operation: &Operation) -> [u32; WORDS] {
    match *operation {
        Operation::Nop(cycles) => [1, cycles, 0, 0],
        Operation::Repeat { count, interval, step } => [2, count, interval, step as u32],
        Operation::Sync => [3, 0, 0, 0],
        Operation::Notify => [4, 0, 0, 0],
        Operation::End => [5, 0, 0, 0],
        Operation::Mem { read, write } => [
            16 | u32::from(read.is_some()) << 8 | u32::from(write.is_some()) << 9,
            read.map_or(0, |(address, _)| u32::from(address)),
            write.map_or(0, |(address, _)| u32::from(address)),
            read.map_or(0, |(_, to)| stream(to)) | write.map_or(0, |(_, from)| reads(from)) << 16,
        ],
        Operation::Gather { addresses, to } => [17, 0, 0, reads(addresses) | stream(to) << 16],
        Operation::Alu(ref alu) => encode_alu(alu),
        Operation::Load { from, column } => [48, reads(from), u32::from(column), 0],
        Operation::Install => [49, 0, 0, 0],
        Operation::Multiply { from, row } => {
            let row = match row {
                Row::Bytes { row_signed, weights_signed } => {
                    u32::from(row_signed) << 10 | u32::from(weights_signed) << 11
                }
                Row::Halves(half) => 1 << 8 | u32::from(half & 1) << 9,
            };
            [50 | row, reads(from), 0, 0]
        }
        Operation::Accumulate { row, add, to } => [51 | u32::from(add) << 8, u32::from(row), to.map_or(0, stream), 0],
        Operation::Shift { from, by, rotate, lanes: [first, end], under, to } => [
            64 | u32::from(rotate) << 8,
            reads(from) | under.map_or(0, reads) << 16,
            u32::from(first) | u32::from(end) << 16,
            u32::from(by as u16) | stream(to) << 16,
        ],
        Operation::Distribute { from, map, to } => {
            let (mut zeros, mut lanes) = (0, 0);
            for (lane, entry) in map.into_iter().enumerate() {
                match entry {
                    Some(from) => lanes |= u64::from(from & 0xf) << (4 * lane),
                    None => zeros |= 1 << (8 + lane),
                }
            }
            [65 | zeros, reads(from) | stream(to) << 16, lanes as u32, (lanes >> 32) as u32]
        }
        Operation::Transpose { from, to } => [66, reads(from) | stream(to) << 16, 0, 0],
    }
}

fn encode_alu(alu: &Alu) -> [u32; WORDS] {
    let (kind, function, first) = match alu.function {
        AluFn::Copy(_) => (0, 0, false),
        AluFn::Unary(function, _) => (1, number(UnaryFn::ALL, &function), false),
        AluFn::Binary(function, _) => (2, number(BinaryFn::ALL, &function), false),
        AluFn::Select(_) => (3, 0, false),
        AluFn::Accumulate { function, first, .. } => (4, number(&Accumulation::ALL, &function), first),
    };
    let operands = alu.function.operands();
    let field = |index: usize| operands.get(index).map_or(0, operand);
    let result = alu.result.map_or(0, |(to, dtype)| stream(to) | dtype_number(dtype) << 7);
    let shared = operands.iter().find_map(|operand| match operand {
        Operand::Number(Number::Float(value)) => Some(value.to_bits()),
        Operand::Number(Number::Integer(value)) => Some(*value as u32),
        Operand::Stream(..) | Operand::Alu(_) => None,
    });
    [
        32 | kind << 8 | function << 16 | u32::from(first) << 24,
        field(0) | field(1) << 16,
        field(2) | result << 16,
        shared.unwrap_or(0),
    ]
}

fn stream(stream: Stream) -> u32 {
    u32::from(stream.number & 0x1f) | number(&Direction::ALL, &stream.direction) << 5 | 1 << 12
}

fn reads(reads: Reads) -> u32 {
    stream(reads.stream) | u32::from(reads.take) << 6
}

fn operand(operand: &Operand) -> u32 {
    match *operand {
        Operand::Stream(from, dtype) => reads(from) | dtype_number(dtype) << 7,
        Operand::Alu(alu) => u32::from(alu & 0x1f) | 2 << 12,
        Operand::Number(Number::Float(_)) => 3 << 12,
        Operand::Number(Number::Integer(_)) => 4 << 12,
    }
}

#[cfg(test)]
mod tests;
