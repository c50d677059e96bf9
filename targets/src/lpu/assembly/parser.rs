//! From text to instructions.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::str::FromStr;

use tcc_ir::DType;
use tcc_ir::ops::{BinaryFn, UnaryFn};

use super::OTHERS;
use super::writer::streams_of;
use crate::lpu::LpuMachine;
use crate::lpu::isa::{
    Accumulation, Alu, AluFn, Direction, MAX_LANES, MAX_STREAMS, Number, Operand, Operation, Queues, Reads, Row, Stream,
};
use crate::scanner::{AssemblyError, Parsed, Scanner};

/// Most ALUs that operands can name.
const MAX_ALUS: u8 = 32;

/// Reads a program for a machine.
///
/// # Errors
/// The text is none; line, column and what could stand there are named. Whether the machine can execute the program is
/// [`check`](crate::lpu::check::check)'s to say.
pub fn assemble(text: &str, machine: &LpuMachine) -> Result<Queues, AssemblyError> {
    let names: Vec<String> = machine.queues().iter().map(ToString::to_string).collect();
    let numbers: HashMap<&str, usize> =
        names.iter().enumerate().map(|(number, name)| (name.as_str(), number)).collect();
    let mut queues: Vec<Option<Vec<Operation>>> = vec![None; names.len()];
    let mut others: Option<Vec<Operation>> = None;
    let mut section: Option<&mut Vec<Operation>> = None;
    for (index, full) in text.lines().enumerate() {
        let line = full.split(';').next().unwrap_or(full);
        let mut parser = Parser { scanner: Scanner { line, number: index + 1, at: 0 }, machine };
        parser.blank();
        if parser.rest().is_empty() {
            continue;
        }
        if let Some(name) = line.trim_end().strip_suffix(':') {
            let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
            let place = match numbers.get(name.as_str()) {
                Some(&number) => &mut queues[number],
                None if name == OTHERS => &mut others,
                None => return parser.error("a queue of the machine, as `mem 0`, or `others`"),
            };
            if place.is_some() {
                return parser.error("a queue that has no section yet");
            }
            section = Some(place.insert(Vec::new()));
            continue;
        }
        match &mut section {
            Some(section) => section.push(parser.instruction()?),
            None => return parser.error("the name of a queue and `:`"),
        }
    }
    let others = others.unwrap_or_default();
    Ok(Queues(queues.into_iter().map(|queue| queue.unwrap_or_else(|| others.clone())).collect()))
}

struct Parser<'a> {
    scanner: Scanner<'a>,
    machine: &'a LpuMachine,
}

impl<'a> Deref for Parser<'a> {
    type Target = Scanner<'a>;

    fn deref(&self) -> &Scanner<'a> {
        &self.scanner
    }
}

impl<'a> DerefMut for Parser<'a> {
    fn deref_mut(&mut self) -> &mut Scanner<'a> {
        &mut self.scanner
    }
}

impl Parser<'_> {
    fn instruction(&mut self) -> Parsed<Operation> {
        let operation = self.operation()?;
        self.end("the end of the line")?;
        Ok(operation)
    }

    fn operation(&mut self) -> Parsed<Operation> {
        let word = self.word();
        let start = self.at;
        self.at += word.len();
        match word {
            "nop" => Ok(Operation::Nop(self.integer()?)),
            "repeat" => {
                let count = self.integer()?;
                self.keyword("every")?;
                let interval = self.integer()?;
                let step = if self.flag("step") { self.integer()? } else { 0 };
                Ok(Operation::Repeat { count, interval, step })
            }
            "sync" => Ok(Operation::Sync),
            "notify" => Ok(Operation::Notify),
            "end" => Ok(Operation::End),
            "read" => {
                let read = (self.integer()?, self.to(1)?);
                let write = match self.takes(",") {
                    true => {
                        self.keyword("write")?;
                        Some(self.write()?)
                    }
                    false => None,
                };
                Ok(Operation::Mem { read: Some(read), write })
            }
            "write" => Ok(Operation::Mem { read: None, write: Some(self.write()?) }),
            "gather" => Ok(Operation::Gather { addresses: self.reads(2)?, to: self.to(1)? }),
            "load" => {
                let from = self.reads(self.machine.mxm.load_streams)?;
                self.expect("->")?;
                self.keyword("column")?;
                Ok(Operation::Load { from, column: self.integer()? })
            }
            "install" => Ok(Operation::Install),
            "multiply" => self.multiply(),
            "overwrite" => self.accumulate(false),
            "accumulate" => self.accumulate(true),
            "shift" => self.shift(false),
            "rotate" => self.shift(true),
            "distribute" => self.distribute(),
            "transpose" => {
                let lanes = self.machine.lanes;
                Ok(Operation::Transpose { from: self.reads(lanes)?, to: self.to(lanes)? })
            }
            "copy" => {
                let operand = self.operand()?;
                self.alu(AluFn::Copy(operand))
            }
            "select" => {
                let [a, b] = self.operands()?;
                self.expect(",")?;
                let c = self.operand()?;
                self.alu(AluFn::Select([a, b, c]))
            }
            "running" => {
                let function = self.read("sum, product, max or min", |word| {
                    Accumulation::ALL.into_iter().find(|function| function.name() == word)
                })?;
                let first = self.flag("first");
                let operand = self.operand()?;
                self.alu(AluFn::Accumulate { function, first, operand })
            }
            _ => {
                if let Some(&function) = UnaryFn::ALL.iter().find(|function| function.name() == word) {
                    let operand = self.operand()?;
                    return self.alu(AluFn::Unary(function, operand));
                }
                if let Some(&function) = BinaryFn::ALL.iter().find(|function| function.name() == word) {
                    let operands = self.operands()?;
                    return self.alu(AluFn::Binary(function, operands));
                }
                self.at = start;
                self.error("an instruction")
            }
        }
    }

    /// Takes a word that must come next.
    fn keyword(&mut self, word: &str) -> Parsed<()> {
        if self.flag(word) { Ok(()) } else { self.error(format!("`{word}`")) }
    }

    /// Takes so many streams.
    fn streams(&mut self, width: u32) -> Parsed<Stream> {
        let first = |word: &str| {
            let direction = Direction::ALL.into_iter().find(|direction| word.starts_with(&direction.to_string()))?;
            let number: u8 = word[1..].parse().ok()?;
            // The shortest form only, which has no sign and no zeros before it.
            let stream = Stream { direction, number };
            (usize::from(number) < MAX_STREAMS && stream.to_string() == word).then_some(stream)
        };
        if width <= 1 {
            return self.read("a stream from e0 to e31 or w0 to w31", first);
        }
        self.read(&format!("{width} streams, as e0..{}", width - 1), |word| {
            let (word, last) = word.split_once("..")?;
            let stream = first(word)?;
            let expected = u32::from(stream.number) + width - 1;
            (last.parse() == Ok(expected) && !last.starts_with(['0', '+'])).then_some(stream)
        })
    }

    fn reads(&mut self, width: u32) -> Parsed<Reads> {
        Ok(Reads { stream: self.streams(width)?, take: self.takes("!") })
    }

    /// Takes an arrow and the streams that it points to.
    fn to(&mut self, width: u32) -> Parsed<Stream> {
        self.expect("->")?;
        self.streams(width)
    }

    /// A write without its first word.
    fn write(&mut self) -> Parsed<(u16, Reads)> {
        let address = self.integer()?;
        self.expect("<-")?;
        Ok((address, self.reads(1)?))
    }

    fn multiply(&mut self) -> Parsed<Operation> {
        let signed = |word: &str| match word {
            "i8" => Some(true),
            "u8" => Some(false),
            _ => None,
        };
        if self.flag("f16") {
            let from = self.reads(2)?;
            self.keyword("half")?;
            let half = self.read("0 or 1", |word| match word {
                "0" => Some(0),
                "1" => Some(1),
                _ => None,
            })?;
            return Ok(Operation::Multiply { from, row: Row::Halves(half) });
        }
        let row_signed = self.read("i8, u8 or f16", signed)?;
        let from = self.reads(1)?;
        self.keyword("by")?;
        let weights_signed = self.read("i8 or u8", signed)?;
        Ok(Operation::Multiply { from, row: Row::Bytes { row_signed, weights_signed } })
    }

    fn accumulate(&mut self, add: bool) -> Parsed<Operation> {
        self.keyword("row")?;
        let row = self.integer()?;
        let to = if self.takes("->") { Some(self.streams(4)?) } else { None };
        Ok(Operation::Accumulate { row, add, to })
    }

    fn shift(&mut self, rotate: bool) -> Parsed<Operation> {
        let from = self.reads(1)?;
        self.keyword("by")?;
        let by = self.integer()?;
        let lanes = match self.flag("lanes") {
            true => {
                let first = self.integer()?;
                self.keyword("until")?;
                [first, self.integer()?]
            }
            false => [0, self.machine.vector() as u16],
        };
        let under = if self.flag("under") { Some(self.reads(1)?) } else { None };
        Ok(Operation::Shift { from, by, rotate, lanes, under, to: self.to(1)? })
    }

    fn distribute(&mut self) -> Parsed<Operation> {
        let from = self.reads(1)?;
        self.expect("[")?;
        let mut map = [None; MAX_LANES];
        for (lane, entry) in map.iter_mut().enumerate() {
            if lane > 0 && !self.takes(",") {
                break;
            }
            *entry = self.read("a lane from 0 to 15, or `-`", |word| match word {
                "-" => Some(None),
                _ => word.parse().ok().filter(|&lane: &u8| usize::from(lane) < MAX_LANES).map(Some),
            })?;
        }
        self.expect("]")?;
        Ok(Operation::Distribute { from, map, to: self.to(1)? })
    }

    /// An instruction of an ALU whose function is known; its result may follow.
    fn alu(&mut self, function: AluFn) -> Parsed<Operation> {
        let result = match self.takes("->") {
            true => {
                let dtype = self.dtype()?;
                Some((self.streams(streams_of(dtype))?, dtype))
            }
            false => None,
        };
        Ok(Operation::Alu(Alu { function, result }))
    }

    fn dtype(&mut self) -> Parsed<DType> {
        self.read("an element type", |word| DType::from_str(word).ok())
    }

    fn operands(&mut self) -> Parsed<[Operand; 2]> {
        let first = self.operand()?;
        self.expect(",")?;
        Ok([first, self.operand()?])
    }

    fn operand(&mut self) -> Parsed<Operand> {
        if self.flag("alu") {
            let number = self.read("the number of an ALU from 0 to 31", |word| {
                word.parse().ok().filter(|&number: &u8| number < MAX_ALUS)
            })?;
            return Ok(Operand::Alu(number));
        }
        if self.flag("nan") {
            self.blank();
            let start = self.at;
            let value = f32::from_bits(self.integer()?);
            if value.is_nan() {
                return Ok(Operand::Number(Number::Float(value)));
            }
            self.at = start;
            return self.error("the bits of a NaN");
        }
        let word = self.word();
        if let Ok(dtype) = DType::from_str(word) {
            self.at += word.len();
            return Ok(Operand::Stream(self.reads(streams_of(dtype))?, dtype));
        }
        // What has neither point nor exponent is an integer.
        let digits = word.strip_prefix('-').unwrap_or(word);
        if digits.starts_with("0x") || (!digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit())) {
            return Ok(Operand::Number(Number::Integer(self.integer()?)));
        }
        let value = self.read("elements as `f32 e0..3`, `alu` with a number, or a number", |word| {
            word.parse().ok().filter(|value: &f32| !value.is_nan())
        })?;
        Ok(Operand::Number(Number::Float(value)))
    }
}
