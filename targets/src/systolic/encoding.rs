//! The binary form of programs: what the machine reads.
//!
//! A program is a sequence of little-endian 32-bit words: what is called, then the routines.
//!
//! | words | field |
//! |-------|-------|
//! | 1 | number of routines |
//! | 1 | number of calls |
//! | 1 for each routine | its length in words |
//! | for each call | `routine:32`, `bases:8`, then for each base `base:64` |
//! | the rest | the instructions of all routines, one after the other |
//!
//! Every instruction is a header word, a word for each wait, and the words of its operation, in the order of the tables
//! below. Bits that are not named are zero; there is exactly one encoding of every program, and [`decode`] takes no other.
//!
//! # Header
//!
//! | bits  | field |
//! |-------|-------|
//! | 0-7   | opcode |
//! | 8-23  | length of the instruction in words, with the header |
//! | 24-28 | for each unit, from bit 24 on in the order of [`Unit::ALL`], whether it is waited for |
//!
//! For every unit waited for a word follows, in the order of the units, with the lag in bits 0-15.
//!
//! # Operations
//!
//! Widths in bits; `64` takes two words, the lower first. Fields of one word are written `a:8 b:8`, from bit 0 on.
//! A *nest* is one word of size for each dimension, outermost first.
//!
//! | opcode | operation | words |
//! |--------|-----------|-------|
//! | 1 | load | `dram:64`, `scratchpad:32`, `element_bytes:8 dimensions:8 register:8`, then for each dimension `size:32`, `dram_stride:64`, `scratchpad_stride:32` |
//! | 2 | store | as load |
//! | 3 | load_rows | `dram:64`, `scratchpad:32`, `row_bytes:32`, `row_stride:64`, `rows:64`, `outer:32`, `outer_stride:64`, `indices:32`, `count:32`, `index_type:8 0:16 register:8` |
//! | 4 | store_rows | as load_rows, the last word `index_type:8 reduction:8 element_type:8 register:8` |
//! | 5 | preload | `address:32`, `type:8 groups:16 has_zero_point:1`, `k:16 n:16`, `k_stride:32`, `n_stride:32`, `group_stride:32`, then `zero_point:32` if there is one |
//! | 6 | multiply | `address:32`, `type:8 has_zero_point:1 accumulate:1 switch_weights:1`, `m:32`, `m_stride:32`, `k_stride:32`, `accumulator_row:32`, `group_stride:32`, `group_rows:32`, then `zero_point:32` if there is one |
//! | 7 | map | `kind:8 function:8 dimensions:8 sources:8`, nest, destination walk, sources |
//! | 8 | fold | `function:8 dimensions:8 reduced:8 sources:4 accumulate:1`, nest, destination walk, sources |
//! | 9 | scan | `dimensions:8 exclusive:1`, nest, destination walk, source walk |
//! | 10 | sort | `dimensions:8 largest:1 later_first:1 has_values:1 has_positions:1`, `k:32`, nest, source walk, then the walks of values and positions if there are any |
//! | 11 | outer | `accumulate:1 a_has_zero_point:1 b_has_zero_point:1`, `m:16 n:16`, `k:32`, `accumulator_row:32`, walk of A, walk of B, then `zero_point:32` of each if there is one |
//!
//! A *walk* is `0:8 memory:8 type:8`, `address:32`, and a word of stride for each dimension of the nest. A *source* is a
//! walk, or `1:8` and a binary64 of 64 bits, or `2:8` and an integer of 64 bits.
//!
//! Numbers: types in the order of [`DType::ALL`]; memories scratchpad 0, accumulators 1; kinds of a map copy 0, unary 1,
//! binary 2, select 3; functions in the order of [`UnaryFn::ALL`] and [`BinaryFn::ALL`] (0 for copy and select); fold
//! functions sum 0, product 1, max 2, min 3, dot 4; reductions replace 0, add 1, mul 2, max 3, min 4.

use smallvec::SmallVec;
use tcc_ir::DType;
use tcc_ir::ops::{BinaryFn, ScatterReduction, UnaryFn};

use super::code::{Call, Code, CodeError, RoutineId};
use super::isa::{
    DmaDim, DramAddress, Fold, FoldFn, Instruction, MAX_DIMS, Map, MapFn, Memory, Multiply, Operation, Outer, Preload,
    Register, RowTransfer, Scan, Sort, Source, Transfer, Unit, Waits, Walk,
};
use crate::numbering::{dtype_number, number};

/// Bytes that are no program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("word {offset}: {problem}")]
pub struct DecodeError {
    /// The word at which decoding failed, counted from the start of the program.
    pub offset: usize,
    /// What is wrong there.
    pub problem: DecodeProblem,
}

/// What is wrong with an encoded program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeProblem {
    /// The bytes are no whole number of words.
    #[error("the program ends within a word")]
    PartialWord,
    /// An instruction reaches beyond the program, or its fields beyond its length.
    #[error("the instruction is cut short")]
    Truncated,
    /// An instruction is longer than its fields.
    #[error("the instruction's length is {length} words, but its fields take {fields}")]
    Length {
        /// What the header says.
        length: usize,
        /// What the fields take.
        fields: usize,
    },
    /// A number that names nothing.
    #[error("{value} is no {field}")]
    Value {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u32,
    },
    /// Bits that no field uses are set.
    #[error("bits that no field uses are set: {0:#010x}")]
    UnusedBits(u32),
    /// The lengths of the routines do not add up to the program's.
    #[error("the routines take {routines} words, but {words} follow")]
    Routines {
        /// Words of all routines.
        routines: u64,
        /// Words that there are.
        words: usize,
    },
    /// Calls that make no program.
    #[error(transparent)]
    Calls(#[from] CodeError),
}

/// Encodes a program. Instructions must be well formed: at most [`MAX_DIMS`] dimensions, a stride of every walk for each
/// of them, as many operands as the function takes; the simulator stops at others.
pub fn encode(code: &Code) -> Vec<u8> {
    let routines: Vec<Vec<u32>> = code.routines().iter().map(|routine| encode_routine(routine)).collect();
    let mut writer = Writer { words: Vec::new() };
    writer.word(routines.len() as u32);
    writer.word(code.calls().len() as u32);
    writer.words.extend(routines.iter().map(|routine| routine.len() as u32));
    for Call { routine, bases } in code.calls() {
        writer.word(routine.0);
        writer.word(bases.len() as u32);
        bases.iter().for_each(|&base| writer.long(base));
    }
    writer.words.iter().chain(routines.iter().flatten()).flat_map(|word| word.to_le_bytes()).collect()
}

/// The words of a stretch of instructions.
fn encode_routine(instructions: &[Instruction]) -> Vec<u32> {
    let mut writer = Writer { words: Vec::with_capacity(instructions.len() * 16) };
    instructions.iter().for_each(|instruction| writer.instruction(instruction));
    writer.words
}

struct Writer {
    words: Vec<u32>,
}

impl Writer {
    fn word(&mut self, word: u32) {
        self.words.push(word);
    }

    fn signed(&mut self, word: i32) {
        self.words.push(word as u32);
    }

    fn long(&mut self, value: u64) {
        self.words.extend([value as u32, (value >> 32) as u32]);
    }

    fn instruction(&mut self, instruction: &Instruction) {
        let header = self.words.len();
        self.word(0);
        let mut waited = 0;
        for (unit, lag) in instruction.waits.0.iter().enumerate() {
            if let Some(lag) = lag {
                waited |= 1 << (24 + unit);
                self.word(u32::from(*lag));
            }
        }
        let opcode = self.operation(&instruction.op);
        let length = (self.words.len() - header) as u32;
        self.words[header] = opcode | length << 8 | waited;
    }

    fn operation(&mut self, op: &Operation) -> u32 {
        match op {
            Operation::Load(transfer) => {
                self.transfer(transfer);
                1
            }
            Operation::Store(transfer) => {
                self.transfer(transfer);
                2
            }
            Operation::LoadRows(rows) => {
                self.rows(rows, 0);
                3
            }
            Operation::StoreRows(rows, reduction, dtype) => {
                self.rows(rows, number(&ScatterReduction::ALL, reduction) << 8 | dtype_number(*dtype) << 16);
                4
            }
            Operation::Preload(preload) => {
                self.word(preload.address);
                let has_zero_point = u32::from(preload.zero_point.is_some());
                self.word(dtype_number(preload.dtype) | u32::from(preload.groups) << 8 | has_zero_point << 24);
                self.word(u32::from(preload.k) | u32::from(preload.n) << 16);
                self.signed(preload.k_stride);
                self.signed(preload.n_stride);
                self.signed(preload.group_stride);
                self.words.extend(preload.zero_point);
                5
            }
            Operation::Multiply(multiply) => {
                self.word(multiply.address);
                self.word(
                    dtype_number(multiply.dtype)
                        | u32::from(multiply.zero_point.is_some()) << 8
                        | u32::from(multiply.accumulate) << 9
                        | u32::from(multiply.switch_weights) << 10,
                );
                self.word(multiply.m);
                self.signed(multiply.m_stride);
                self.signed(multiply.k_stride);
                self.word(multiply.accumulator_row);
                self.signed(multiply.group_stride);
                self.word(multiply.group_rows);
                self.words.extend(multiply.zero_point);
                6
            }
            Operation::Outer(outer) => {
                self.word(
                    u32::from(outer.accumulate)
                        | u32::from(outer.a_zero_point.is_some()) << 1
                        | u32::from(outer.b_zero_point.is_some()) << 2,
                );
                self.word(u32::from(outer.m) | u32::from(outer.n) << 16);
                self.word(outer.k);
                self.word(outer.accumulator_row);
                self.walk(&outer.a, 2);
                self.walk(&outer.b, 2);
                self.words.extend(outer.a_zero_point.into_iter().chain(outer.b_zero_point));
                11
            }
            Operation::Map(map) => {
                let (kind, function) = match map.function {
                    MapFn::Copy => (0, 0),
                    MapFn::Unary(function) => (1, number(UnaryFn::ALL, &function)),
                    MapFn::Binary(function) => (2, number(BinaryFn::ALL, &function)),
                    MapFn::Select => (3, 0),
                };
                self.word(kind | function << 8 | (map.dims.len() as u32) << 16 | (map.sources.len() as u32) << 24);
                self.nest(&map.dims);
                self.walk(&map.destination, map.dims.len());
                self.sources(&map.sources, map.dims.len());
                7
            }
            Operation::Fold(fold) => {
                self.word(
                    number(&FoldFn::ALL, &fold.function)
                        | (fold.dims.len() as u32) << 8
                        | u32::from(fold.reduced) << 16
                        | (fold.sources.len() as u32) << 24
                        | u32::from(fold.accumulate) << 28,
                );
                self.nest(&fold.dims);
                self.walk(&fold.destination, fold.dims.len());
                self.sources(&fold.sources, fold.dims.len());
                8
            }
            Operation::Scan(scan) => {
                self.word(scan.dims.len() as u32 | u32::from(scan.exclusive) << 8);
                self.nest(&scan.dims);
                self.walk(&scan.destination, scan.dims.len());
                self.walk(&scan.source, scan.dims.len());
                9
            }
            Operation::Sort(sort) => {
                self.word(
                    sort.dims.len() as u32
                        | u32::from(sort.largest) << 8
                        | u32::from(sort.later_first) << 9
                        | u32::from(sort.values.is_some()) << 10
                        | u32::from(sort.positions.is_some()) << 11,
                );
                self.word(sort.k);
                self.nest(&sort.dims);
                self.walk(&sort.source, sort.dims.len());
                for walk in [&sort.values, &sort.positions].into_iter().flatten() {
                    self.walk(walk, sort.dims.len());
                }
                10
            }
        }
    }

    fn transfer(&mut self, transfer: &Transfer) {
        let DramAddress { register, offset } = transfer.dram;
        self.long(offset);
        self.word(transfer.scratchpad);
        let sizes = u32::from(transfer.element_bytes) | (transfer.dims.len() as u32) << 8;
        self.word(sizes | u32::from(register.0) << 16);
        for dim in &transfer.dims {
            self.word(dim.size);
            self.long(dim.dram_stride as u64);
            self.signed(dim.scratchpad_stride);
        }
    }

    fn rows(&mut self, rows: &RowTransfer, kinds: u32) {
        let DramAddress { register, offset } = rows.dram;
        self.long(offset);
        self.word(rows.scratchpad);
        self.word(rows.row_bytes);
        self.long(rows.row_stride);
        self.long(rows.rows);
        self.word(rows.outer);
        self.long(rows.outer_stride);
        self.word(rows.indices);
        self.word(rows.count);
        self.word(dtype_number(rows.index_dtype) | kinds | u32::from(register.0) << 24);
    }

    fn nest(&mut self, dims: &[u32]) {
        self.words.extend(dims);
    }

    fn walk(&mut self, walk: &Walk, rank: usize) {
        debug_assert_eq!(walk.strides.len(), rank);
        self.word(number(&Memory::ALL, &walk.memory) << 8 | dtype_number(walk.dtype) << 16);
        self.word(walk.address);
        for &stride in &walk.strides {
            self.signed(stride);
        }
    }

    fn sources(&mut self, sources: &[Source], rank: usize) {
        for source in sources {
            match source {
                Source::Walk(walk) => self.walk(walk, rank),
                Source::Float(value) => {
                    self.word(1);
                    self.long(value.to_bits());
                }
                Source::Integer(value) => {
                    self.word(2);
                    self.long(*value as u64);
                }
            }
        }
    }
}

/// Decodes a program. The bytes are untrusted; whatever this returns without an error, [`encode`] turns into the same
/// bytes again.
pub fn decode(bytes: &[u8]) -> Result<Code, DecodeError> {
    let (words, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(DecodeError { offset: words.len(), problem: DecodeProblem::PartialWord });
    }
    let words: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
    let mut reader = Reader { words: &words, next: 0 };
    let (routines, calls) = (reader.word()?, reader.word()?);
    // Read one by one: what a damaged count promises may not be there.
    let lengths = (0..routines).map(|_| reader.word()).collect::<Result<Vec<u32>, _>>()?;
    let calls = (0..calls).map(|_| reader.call()).collect::<Result<Vec<Call>, _>>()?;
    let total: u64 = lengths.iter().copied().map(u64::from).sum();
    let mut start = reader.next;
    if total != (words.len() - start) as u64 {
        let problem = DecodeProblem::Routines { routines: total, words: words.len() - start };
        return Err(DecodeError { offset: start, problem });
    }
    let mut routines = Vec::with_capacity(lengths.len());
    for length in lengths {
        let end = start + length as usize;
        routines.push(decode_routine(&words[..end], start)?);
        start = end;
    }
    Code::new(routines, calls).map_err(|error| DecodeError { offset: 0, problem: error.into() })
}

/// The instructions from word `start` to the end.
fn decode_routine(words: &[u32], mut start: usize) -> Result<Vec<Instruction>, DecodeError> {
    let mut program = Vec::new();
    while start < words.len() {
        let mut header = Fields { offset: start, rest: words[start] };
        let opcode = header.take(8);
        let length = header.take(16) as usize;
        let waited = header.take(Unit::COUNT as u32);
        header.finish()?;
        let end = start + length;
        if length == 0 || end > words.len() {
            return Err(DecodeError { offset: start, problem: DecodeProblem::Truncated });
        }
        let mut reader = Reader { words: &words[..end], next: start + 1 };
        let waits = reader.waits(waited)?;
        let op = reader.operation(opcode, start)?;
        if reader.next != end {
            let problem = DecodeProblem::Length { length, fields: reader.next - start };
            return Err(DecodeError { offset: start, problem });
        }
        program.push(Instruction { waits, op });
        start = end;
    }
    Ok(program)
}

/// A word that is taken apart from its lowest bit on.
struct Fields {
    offset: usize,
    rest: u32,
}

impl Fields {
    fn take(&mut self, bits: u32) -> u32 {
        let field = self.rest & ((1 << bits) - 1);
        self.rest >>= bits;
        field
    }

    fn flag(&mut self) -> bool {
        self.take(1) == 1
    }

    fn register(&mut self) -> Register {
        Register(self.take(8) as u8)
    }

    /// The register in the two highest bytes of what is left of a word that has given its lowest byte.
    fn last_register(&mut self) -> Register {
        let register = self.rest >> 16;
        self.rest &= 0xffff;
        Register(register as u8)
    }

    /// A field that is a number in a list.
    fn named<T: Copy>(&mut self, bits: u32, list: &[T], field: &'static str) -> Result<T, DecodeError> {
        let value = self.take(bits);
        list.get(value as usize).copied().ok_or_else(|| self.value(field, value))
    }

    fn dtype(&mut self) -> Result<DType, DecodeError> {
        self.named(8, &DType::ALL, "element type")
    }

    fn rank(&mut self) -> Result<usize, DecodeError> {
        let rank = self.take(8);
        if rank as usize > MAX_DIMS { Err(self.value("number of dimensions", rank)) } else { Ok(rank as usize) }
    }

    /// A number of operands, which its function fixes.
    fn operands(&mut self, bits: u32, expected: usize) -> Result<usize, DecodeError> {
        let count = self.take(bits);
        if count as usize != expected {
            Err(self.value("number of operands of the function", count))
        } else {
            Ok(expected)
        }
    }

    fn value(&self, field: &'static str, value: u32) -> DecodeError {
        DecodeError { offset: self.offset, problem: DecodeProblem::Value { field, value } }
    }

    /// Whatever is left must be zero.
    fn finish(self) -> Result<(), DecodeError> {
        match self.rest {
            0 => Ok(()),
            rest => Err(DecodeError { offset: self.offset, problem: DecodeProblem::UnusedBits(rest) }),
        }
    }
}

struct Reader<'a> {
    /// The program up to the end of the instruction.
    words: &'a [u32],
    next: usize,
}

impl Reader<'_> {
    fn word(&mut self) -> Result<u32, DecodeError> {
        let word = self.words.get(self.next).copied();
        let word = word.ok_or(DecodeError { offset: self.next, problem: DecodeProblem::Truncated })?;
        self.next += 1;
        Ok(word)
    }

    fn signed(&mut self) -> Result<i32, DecodeError> {
        Ok(self.word()? as i32)
    }

    fn long(&mut self) -> Result<u64, DecodeError> {
        let low = self.word()?;
        Ok(u64::from(low) | u64::from(self.word()?) << 32)
    }

    fn fields(&mut self) -> Result<Fields, DecodeError> {
        let offset = self.next;
        Ok(Fields { offset, rest: self.word()? })
    }

    fn call(&mut self) -> Result<Call, DecodeError> {
        let routine = RoutineId(self.word()?);
        let mut fields = self.fields()?;
        let bases = fields.take(8);
        fields.finish()?;
        let bases = (0..bases).map(|_| self.long()).collect::<Result<_, _>>()?;
        Ok(Call { routine, bases })
    }

    fn waits(&mut self, waited: u32) -> Result<Waits, DecodeError> {
        let mut waits = Waits::default();
        for (unit, lag) in waits.0.iter_mut().enumerate() {
            if waited >> unit & 1 == 1 {
                let mut fields = self.fields()?;
                *lag = Some(fields.take(16) as u16);
                fields.finish()?;
            }
        }
        Ok(waits)
    }

    fn operation(&mut self, opcode: u32, header: usize) -> Result<Operation, DecodeError> {
        Ok(match opcode {
            1 => Operation::Load(self.transfer()?),
            2 => Operation::Store(self.transfer()?),
            3 => {
                let (rows, fields) = self.rows()?;
                fields.finish()?;
                Operation::LoadRows(rows)
            }
            4 => {
                let (rows, mut fields) = self.rows()?;
                let reduction = fields.named(8, &ScatterReduction::ALL, "reduction")?;
                let dtype = fields.dtype()?;
                fields.finish()?;
                Operation::StoreRows(rows, reduction, dtype)
            }
            5 => self.preload()?,
            6 => self.multiply()?,
            7 => self.map()?,
            8 => self.fold()?,
            9 => self.scan()?,
            10 => self.sort()?,
            11 => self.outer()?,
            value => {
                let problem = DecodeProblem::Value { field: "opcode", value };
                return Err(DecodeError { offset: header, problem });
            }
        })
    }

    fn transfer(&mut self) -> Result<Transfer, DecodeError> {
        let offset = self.long()?;
        let scratchpad = self.word()?;
        let mut fields = self.fields()?;
        let element_bytes = fields.take(8) as u8;
        let rank = fields.rank()?;
        let dram = DramAddress { register: fields.register(), offset };
        fields.finish()?;
        let dims = (0..rank)
            .map(|_| {
                let size = self.word()?;
                let dram_stride = self.long()? as i64;
                Ok(DmaDim { size, dram_stride, scratchpad_stride: self.signed()? })
            })
            .collect::<Result<_, DecodeError>>()?;
        Ok(Transfer { dram, scratchpad, element_bytes, dims })
    }

    /// The common words of row transfers, and what is between the type of the indices and the register in the last.
    fn rows(&mut self) -> Result<(RowTransfer, Fields), DecodeError> {
        let offset = self.long()?;
        let scratchpad = self.word()?;
        let row_bytes = self.word()?;
        let row_stride = self.long()?;
        let rows = self.long()?;
        let outer = self.word()?;
        let outer_stride = self.long()?;
        let indices = self.word()?;
        let count = self.word()?;
        let mut fields = self.fields()?;
        let index_dtype = fields.dtype()?;
        let rows = RowTransfer {
            dram: DramAddress { register: fields.last_register(), offset },
            scratchpad,
            row_bytes,
            row_stride,
            rows,
            outer,
            outer_stride,
            indices,
            index_dtype,
            count,
        };
        Ok((rows, fields))
    }

    fn preload(&mut self) -> Result<Operation, DecodeError> {
        let address = self.word()?;
        let mut fields = self.fields()?;
        let dtype = fields.dtype()?;
        let groups = fields.take(16) as u16;
        let has_zero_point = fields.flag();
        fields.finish()?;
        let size = self.word()?;
        Ok(Operation::Preload(Preload {
            address,
            dtype,
            k: size as u16,
            n: (size >> 16) as u16,
            k_stride: self.signed()?,
            n_stride: self.signed()?,
            group_stride: self.signed()?,
            groups,
            zero_point: if has_zero_point { Some(self.word()?) } else { None },
        }))
    }

    fn multiply(&mut self) -> Result<Operation, DecodeError> {
        let address = self.word()?;
        let mut fields = self.fields()?;
        let dtype = fields.dtype()?;
        let has_zero_point = fields.flag();
        let accumulate = fields.flag();
        let switch_weights = fields.flag();
        fields.finish()?;
        Ok(Operation::Multiply(Multiply {
            address,
            dtype,
            m: self.word()?,
            m_stride: self.signed()?,
            k_stride: self.signed()?,
            accumulator_row: self.word()?,
            group_stride: self.signed()?,
            group_rows: self.word()?,
            zero_point: if has_zero_point { Some(self.word()?) } else { None },
            accumulate,
            switch_weights,
        }))
    }

    fn outer(&mut self) -> Result<Operation, DecodeError> {
        let mut fields = self.fields()?;
        let accumulate = fields.flag();
        let a_has_zero_point = fields.flag();
        let b_has_zero_point = fields.flag();
        fields.finish()?;
        let size = self.word()?;
        Ok(Operation::Outer(Outer {
            m: size as u16,
            n: (size >> 16) as u16,
            k: self.word()?,
            accumulator_row: self.word()?,
            a: self.walk(2)?,
            b: self.walk(2)?,
            a_zero_point: if a_has_zero_point { Some(self.word()?) } else { None },
            b_zero_point: if b_has_zero_point { Some(self.word()?) } else { None },
            accumulate,
        }))
    }

    fn map(&mut self) -> Result<Operation, DecodeError> {
        let mut fields = self.fields()?;
        let function = match fields.take(8) {
            0 => fields.named(8, &[MapFn::Copy], "function of a copy")?,
            1 => MapFn::Unary(fields.named(8, UnaryFn::ALL, "unary function")?),
            2 => MapFn::Binary(fields.named(8, BinaryFn::ALL, "binary function")?),
            3 => fields.named(8, &[MapFn::Select], "function of a select")?,
            kind => return Err(fields.value("kind of map", kind)),
        };
        let rank = fields.rank()?;
        let count = fields.operands(8, function.operands())?;
        fields.finish()?;
        Ok(Operation::Map(Map {
            function,
            dims: self.nest(rank)?,
            destination: self.walk(rank)?,
            sources: self.sources(count, rank)?,
        }))
    }

    fn fold(&mut self) -> Result<Operation, DecodeError> {
        let mut fields = self.fields()?;
        let function = fields.named(8, &FoldFn::ALL, "fold function")?;
        let rank = fields.rank()?;
        let reduced = fields.take(8) as u8;
        if usize::from(reduced) > rank {
            return Err(fields.value("number of folded dimensions", u32::from(reduced)));
        }
        let count = fields.operands(4, function.operands())?;
        let accumulate = fields.flag();
        fields.finish()?;
        Ok(Operation::Fold(Fold {
            function,
            dims: self.nest(rank)?,
            reduced,
            accumulate,
            destination: self.walk(rank)?,
            sources: self.sources(count, rank)?,
        }))
    }

    fn scan(&mut self) -> Result<Operation, DecodeError> {
        let mut fields = self.fields()?;
        let rank = fields.rank()?;
        let exclusive = fields.flag();
        fields.finish()?;
        Ok(Operation::Scan(Scan {
            dims: self.nest(rank)?,
            exclusive,
            destination: self.walk(rank)?,
            source: self.walk(rank)?,
        }))
    }

    fn sort(&mut self) -> Result<Operation, DecodeError> {
        let mut fields = self.fields()?;
        let rank = fields.rank()?;
        let largest = fields.flag();
        let later_first = fields.flag();
        let has_values = fields.flag();
        let has_positions = fields.flag();
        fields.finish()?;
        Ok(Operation::Sort(Sort {
            k: self.word()?,
            dims: self.nest(rank)?,
            largest,
            later_first,
            source: self.walk(rank)?,
            values: if has_values { Some(self.walk(rank)?) } else { None },
            positions: if has_positions { Some(self.walk(rank)?) } else { None },
        }))
    }

    fn nest(&mut self, rank: usize) -> Result<SmallVec<[u32; 4]>, DecodeError> {
        (0..rank).map(|_| self.word()).collect()
    }

    fn walk(&mut self, rank: usize) -> Result<Walk, DecodeError> {
        let mut fields = self.fields()?;
        match fields.take(8) {
            0 => self.rest_of_walk(fields, rank),
            kind => Err(fields.value("walk", kind)),
        }
    }

    fn rest_of_walk(&mut self, mut fields: Fields, rank: usize) -> Result<Walk, DecodeError> {
        let memory = fields.named(8, &Memory::ALL, "memory")?;
        let dtype = fields.dtype()?;
        fields.finish()?;
        let address = self.word()?;
        let strides = (0..rank).map(|_| self.signed()).collect::<Result<_, DecodeError>>()?;
        Ok(Walk { memory, address, dtype, strides })
    }

    fn sources(&mut self, count: usize, rank: usize) -> Result<SmallVec<[Source; 2]>, DecodeError> {
        (0..count)
            .map(|_| {
                let mut fields = self.fields()?;
                match fields.take(8) {
                    0 => Ok(Source::Walk(self.rest_of_walk(fields, rank)?)),
                    1 => {
                        fields.finish()?;
                        Ok(Source::Float(f64::from_bits(self.long()?)))
                    }
                    2 => {
                        fields.finish()?;
                        Ok(Source::Integer(self.long()? as i64))
                    }
                    kind => Err(fields.value("kind of source", kind)),
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
