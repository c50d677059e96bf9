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
//! Numbers: types in the order of [`DType::ALL`], functions in the order of [`UnaryFn::ALL`], [`BinaryFn::ALL`] and
//! [`Accumulation::ALL`] (0 for copy and select).

use tcc_ir::DType;
use tcc_ir::ops::{BinaryFn, UnaryFn};

use super::isa::{
    Accumulation, Alu, AluFn, Direction, MAX_LANES, Number, Operand, Operation, Queues, Reads, Row, Stream,
};
use crate::numbering::{dtype_number, number};

/// Words of an instruction.
const WORDS: usize = 4;

/// Bytes that are no program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are no whole number of words.
    #[error("the program ends within a word, at byte {bytes}; it must be whole")]
    PartialWord {
        /// Bytes that there are.
        bytes: usize,
    },
    /// There are not as many words as the counts at the start promise.
    #[error("the program has {found} words, but needs {expected} for what its start announces; it must be whole")]
    Length {
        /// Words that the counts promise, so far as they are there.
        expected: u64,
        /// Words that there are.
        found: u64,
    },
    /// An instruction that is none.
    #[error("queue {queue}, instruction {instruction}: {problem}")]
    Instruction {
        /// The queue's number, from 0 on.
        queue: usize,
        /// The instruction's number in its queue, from 0 on.
        instruction: usize,
        /// What is wrong with it.
        problem: DecodeProblem,
    },
}

/// What is wrong with an encoded instruction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeProblem {
    /// A number that names nothing.
    #[error("{value} is no {field}")]
    Value {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u32,
    },
    /// An operand of a kind that the instruction does not take.
    #[error("{operand} has kind {kind}, which the instruction does not take there")]
    Kind {
        /// Which operand.
        operand: &'static str,
        /// Its kind.
        kind: u32,
    },
    /// A memory instruction that accesses nothing.
    #[error("it neither reads nor writes; a nop does nothing")]
    NoAccess,
    /// Bits that no field uses are set.
    #[error("bits {bits:#010x} of word {word} must be 0, as no field uses them")]
    UnusedBits {
        /// The word of the instruction.
        word: usize,
        /// Its bits that should be the other way round.
        bits: u32,
    },
}

/// Encodes a program. What has no place in an instruction is cut off: stream and ALU numbers from 32 on, halves from 2 on,
/// lanes of a superlane from 16 on, and a second number of an ALU's instruction. [`check`](super::check::check) refuses all
/// of these.
pub fn encode(program: &Queues) -> Vec<u8> {
    let counts = program.0.iter().map(|queue| queue.len() as u32);
    let instructions = program.0.iter().flatten().flat_map(encode_one);
    let words = [program.0.len() as u32].into_iter().chain(counts).chain(instructions);
    words.flat_map(u32::to_le_bytes).collect()
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

/// Decodes a program. The bytes are untrusted; whatever this returns without an error, [`encode`] turns into the same
/// bytes again.
///
/// # Errors
/// The bytes are no program. Whether a machine can execute it is [`check`](super::check::check)'s to say.
pub fn decode(bytes: &[u8]) -> Result<Queues, DecodeError> {
    let (words, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(DecodeError::PartialWord { bytes: bytes.len() });
    }
    let length = |expected: u64| DecodeError::Length { expected, found: words.len() as u64 };
    let word = |word: &[u8; 4]| u32::from_le_bytes(*word);
    let (queues, words_left) = words.split_first().ok_or_else(|| length(1))?;
    let start = 1 + u64::from(word(queues));
    let (counts, instructions) = words_left.split_at_checked(word(queues) as usize).ok_or_else(|| length(start))?;
    // Nothing is allocated before all that the counts promise is known to be there.
    let total = counts.iter().fold(0u64, |total, count| total.saturating_add(WORDS as u64 * u64::from(word(count))));
    if total != instructions.len() as u64 {
        return Err(length(start.saturating_add(total)));
    }
    let (mut instructions, _) = instructions.as_chunks::<WORDS>();
    let mut program = Queues(Vec::with_capacity(counts.len()));
    for (queue, count) in counts.iter().enumerate() {
        let (own, rest) = instructions.split_at(word(count) as usize);
        let own = own.iter().enumerate().map(|(instruction, words)| {
            decode_one(words.each_ref().map(word)).map_err(|problem| DecodeError::Instruction {
                queue,
                instruction,
                problem,
            })
        });
        program.0.push(own.collect::<Result<_, _>>()?);
        instructions = rest;
    }
    Ok(program)
}

fn decode_one(words: [u32; WORDS]) -> Result<Operation, DecodeProblem> {
    let operation = Fields(words).operation()?;
    // What comes back otherwise has bits that no field uses.
    let again = encode_one(&operation);
    match words.iter().zip(again).map(|(&word, again)| word ^ again).enumerate().find(|&(_, bits)| bits != 0) {
        Some((word, bits)) => Err(DecodeProblem::UnusedBits { word, bits }),
        None => Ok(operation),
    }
}

/// The words of an instruction that are taken apart. Bits are looked at where fields are and ignored elsewhere.
struct Fields([u32; WORDS]);

impl Fields {
    fn field(&self, word: usize, low: u32, bits: u32) -> u32 {
        self.0[word] >> low & ((1 << bits) - 1)
    }

    fn flag(&self, word: usize, bit: u32) -> bool {
        self.field(word, bit, 1) == 1
    }

    /// A whole word with a number of at most 16 bits.
    fn short(&self, word: usize, field: &'static str) -> Result<u16, DecodeProblem> {
        let value = self.0[word];
        u16::try_from(value).map_err(|_| DecodeProblem::Value { field, value })
    }

    /// The low (0) or high (1) half of a word as an operand.
    fn operand(&self, word: usize, half: u32, name: &'static str) -> OperandField {
        OperandField { bits: self.field(word, 16 * half, 16), name }
    }

    fn operation(&self) -> Result<Operation, DecodeProblem> {
        let [_, w1, w2, w3] = self.0;
        Ok(match self.field(0, 0, 8) {
            1 => Operation::Nop(w1),
            2 => Operation::Repeat { count: w1, interval: w2, step: w3 as i32 },
            3 => Operation::Sync,
            4 => Operation::Notify,
            5 => Operation::End,
            16 => self.mem()?,
            17 => Operation::Gather {
                addresses: self.operand(3, 0, "the streams of the addresses").reads()?,
                to: self.operand(3, 1, "the destination").stream()?,
            },
            32 => Operation::Alu(self.alu()?),
            48 => Operation::Load {
                from: self.operand(1, 0, "the first stream").reads()?,
                column: self.short(2, "column")?,
            },
            49 => Operation::Install,
            50 => Operation::Multiply {
                from: self.operand(1, 0, "the row").reads()?,
                row: if self.flag(0, 8) {
                    Row::Halves(self.field(0, 9, 1) as u8)
                } else {
                    Row::Bytes { row_signed: self.flag(0, 10), weights_signed: self.flag(0, 11) }
                },
            },
            51 => Operation::Accumulate {
                row: self.short(1, "accumulator row")?,
                add: self.flag(0, 8),
                to: self.operand(2, 0, "the destination").optional().map(|to| to.stream()).transpose()?,
            },
            64 => Operation::Shift {
                from: self.operand(1, 0, "the vector that moves").reads()?,
                by: self.field(3, 0, 16) as u16 as i16,
                rotate: self.flag(0, 8),
                lanes: [self.field(2, 0, 16) as u16, self.field(2, 16, 16) as u16],
                under: self.operand(1, 1, "the vector under it").optional().map(|under| under.reads()).transpose()?,
                to: self.operand(3, 1, "the destination").stream()?,
            },
            65 => {
                let mut map = [None; MAX_LANES];
                for (lane, entry) in map.iter_mut().enumerate() {
                    let lane = lane as u32;
                    if !self.flag(0, 8 + lane) {
                        *entry = Some(self.field(2 + lane as usize / 8, 4 * (lane % 8), 4) as u8);
                    }
                }
                Operation::Distribute {
                    from: self.operand(1, 0, "the vector").reads()?,
                    map,
                    to: self.operand(1, 1, "the destination").stream()?,
                }
            }
            66 => Operation::Transpose {
                from: self.operand(1, 0, "the first vector").reads()?,
                to: self.operand(1, 1, "the destination").stream()?,
            },
            value => return Err(DecodeProblem::Value { field: "opcode", value }),
        })
    }

    fn mem(&self) -> Result<Operation, DecodeProblem> {
        let read = match self.flag(0, 8) {
            true => Some((self.short(1, "address")?, self.operand(3, 0, "the stream of the read").stream()?)),
            false => None,
        };
        let write = match self.flag(0, 9) {
            true => Some((self.short(2, "address")?, self.operand(3, 1, "the stream of the write").reads()?)),
            false => None,
        };
        if (read, write) == (None, None) { Err(DecodeProblem::NoAccess) } else { Ok(Operation::Mem { read, write }) }
    }

    fn alu(&self) -> Result<Alu, DecodeProblem> {
        fn named<T: Copy>(list: &[T], field: &'static str, value: u32) -> Result<T, DecodeProblem> {
            list.get(value as usize).copied().ok_or(DecodeProblem::Value { field, value })
        }
        let operand = |index: usize| {
            let name = ["operand 0", "operand 1", "operand 2"][index];
            self.operand(1 + index / 2, index as u32 % 2, name).alu_operand(self.0[3])
        };
        let number = self.field(0, 16, 8);
        let function = match self.field(0, 8, 8) {
            0 => AluFn::Copy(operand(0)?),
            1 => AluFn::Unary(named(UnaryFn::ALL, "unary function", number)?, operand(0)?),
            2 => AluFn::Binary(named(BinaryFn::ALL, "binary function", number)?, [operand(0)?, operand(1)?]),
            3 => AluFn::Select([operand(0)?, operand(1)?, operand(2)?]),
            4 => AluFn::Accumulate {
                function: named(&Accumulation::ALL, "accumulation", number)?,
                first: self.flag(0, 24),
                operand: operand(0)?,
            },
            value => return Err(DecodeProblem::Value { field: "kind of function", value }),
        };
        let result = self.operand(2, 1, "the result").optional();
        let result = result.map(|result| Ok((result.stream()?, result.dtype()?))).transpose()?;
        Ok(Alu { function, result })
    }
}

/// 16 bits that are an operand, and how to call it.
struct OperandField {
    bits: u32,
    name: &'static str,
}

impl OperandField {
    fn kind(&self) -> u32 {
        self.bits >> 12
    }

    /// `None` if it is of no kind.
    fn optional(self) -> Option<Self> {
        (self.kind() != 0).then_some(self)
    }

    fn other_kind(&self) -> DecodeProblem {
        DecodeProblem::Kind { operand: self.name, kind: self.kind() }
    }

    fn stream(&self) -> Result<Stream, DecodeProblem> {
        if self.kind() != 1 {
            return Err(self.other_kind());
        }
        let direction = if self.bits >> 5 & 1 == 0 { Direction::East } else { Direction::West };
        Ok(Stream { direction, number: (self.bits & 0x1f) as u8 })
    }

    fn reads(&self) -> Result<Reads, DecodeProblem> {
        Ok(Reads { stream: self.stream()?, take: self.bits >> 6 & 1 == 1 })
    }

    fn dtype(&self) -> Result<DType, DecodeProblem> {
        let value = self.bits >> 7 & 0x1f;
        DType::ALL.get(value as usize).copied().ok_or(DecodeProblem::Value { field: "element type", value })
    }

    /// An operand of an ALU whose instruction carries this number.
    fn alu_operand(&self, number: u32) -> Result<Operand, DecodeProblem> {
        match self.kind() {
            1 => Ok(Operand::Stream(self.reads()?, self.dtype()?)),
            2 => Ok(Operand::Alu((self.bits & 0x1f) as u8)),
            3 => Ok(Operand::Number(Number::Float(f32::from_bits(number)))),
            4 => Ok(Operand::Number(Number::Integer(number as i32))),
            _ => Err(self.other_kind()),
        }
    }
}

#[cfg(test)]
mod tests;
