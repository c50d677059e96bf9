//! From words to instructions, of which none is trusted.

use rayon::prelude::*;
use tcc_ir::DType;
use tcc_ir::ops::{BinaryFn, UnaryFn};

use super::{WORDS, encode_one};
use crate::lpu::isa::{
    Accumulation, Alu, AluFn, Direction, MAX_LANES, Number, Operand, Operation, Queues, Reads, Row, Stream,
};

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

/// Decodes a program. The bytes are untrusted; whatever this returns without an error, [`encode`](super::encode) turns into the same
/// bytes again.
///
/// # Errors
/// The bytes are no program. Whether a machine can execute it is [`check`](crate::lpu::check::check)'s to say.
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
    let mut queues = Vec::with_capacity(counts.len());
    for (queue, count) in counts.iter().enumerate() {
        let (own, rest) = instructions.split_at(word(count) as usize);
        queues.push((queue, own));
        instructions = rest;
    }
    // All queues are looked at, so that it is always the first error that is told.
    let queues = queues.into_par_iter().map(|(queue, own)| {
        let own = own.iter().enumerate().map(|(instruction, words)| {
            decode_one(words.each_ref().map(word)).map_err(|problem| DecodeError::Instruction {
                queue,
                instruction,
                problem,
            })
        });
        own.collect::<Result<Vec<_>, _>>()
    });
    let queues: Vec<Result<_, _>> = queues.collect();
    Ok(Queues(queues.into_iter().collect::<Result<_, _>>()?))
}

pub(super) fn decode_one(words: [u32; WORDS]) -> Result<Operation, DecodeProblem> {
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
