//! From instructions to text.

use std::fmt::{self, Display, Write as _};

use tcc_ir::DType;

use super::OTHERS;
use crate::lpu::LpuMachine;
use crate::lpu::isa::{Alu, AluFn, Number, Operand, Operation, Queues, Reads, Row, Stream};
use crate::lpu::timeline::{Span, spans};

/// Width of instructions before their comments, if they are not longer.
const COMMENT: usize = 43;

/// The text of a program for this machine; every line ends with a newline.
pub fn disassemble(program: &Queues, machine: &LpuMachine) -> String {
    let mut text = String::new();
    let idle = |queue: &[Operation]| matches!(queue, [Operation::End]);
    let others = program.0.iter().any(|queue| idle(queue));
    for (queue, operations) in machine.queues().into_iter().zip(&program.0) {
        if idle(operations) || (operations.is_empty() && !others) {
            continue;
        }
        section(&mut text, &queue, operations, machine);
    }
    if others {
        section(&mut text, &OTHERS, &[Operation::End], machine);
    }
    text
}

fn section(text: &mut String, name: &dyn Display, operations: &[Operation], machine: &LpuMachine) {
    if !text.is_empty() {
        text.push('\n');
    }
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{name}:");
    let mut known = spans(operations, &[]).peekable();
    let mut before = None;
    for (index, operation) in operations.iter().enumerate() {
        let line = disassemble_one(operation, machine);
        let span = known.next_if(|span| span.index == index);
        let _ = match (&span, before) {
            (Some(span), _) => writeln!(text, "  {line:COMMENT$} ; {}", span.first),
            (None, Some(repeated)) => writeln!(text, "  {line:COMMENT$} ; {}", Repetitions(repeated)),
            (None, None) => writeln!(text, "  {line}"),
        };
        before = span.filter(|span| span.count > 0);
    }
}

/// The cycles of the repetitions of a span.
struct Repetitions<'a>(Span<'a>);

impl Display for Repetitions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.count {
            1 => write!(f, "{}", self.0.last()),
            _ => write!(f, "{}..{}", self.0.cycle(1), self.0.last()),
        }
    }
}

/// The text of one instruction.
pub fn disassemble_one(operation: &Operation, machine: &LpuMachine) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_operation(&mut text, operation, machine);
    text
}

fn write_operation(out: &mut String, operation: &Operation, machine: &LpuMachine) -> fmt::Result {
    match *operation {
        Operation::Nop(cycles) => write!(out, "nop {cycles}"),
        Operation::Repeat { count, interval, step } => {
            write!(out, "repeat {count} every {interval}")?;
            if step == 0 { Ok(()) } else { write!(out, " step {step}") }
        }
        Operation::Sync => out.write_str("sync"),
        Operation::Notify => out.write_str("notify"),
        Operation::End => out.write_str("end"),
        Operation::Mem { read, write } => {
            if let Some((address, to)) = read {
                write!(out, "read {address:#x} -> {to}")?;
            }
            if let Some((address, from)) = write {
                let separator = if read.is_some() { ", " } else { "" };
                write!(out, "{separator}write {address:#x} <- {}", Read(from, 1))?;
            }
            Ok(())
        }
        Operation::Gather { addresses, to } => write!(out, "gather {} -> {to}", Read(addresses, 2)),
        Operation::Alu(ref alu) => write_alu(out, alu),
        Operation::Load { from, column } => {
            write!(out, "load {} -> column {column}", Read(from, machine.mxm.load_streams))
        }
        Operation::Install => out.write_str("install"),
        Operation::Multiply { from, row } => match row {
            Row::Bytes { row_signed, weights_signed } => {
                let dtype = |signed| if signed { DType::I8 } else { DType::U8 };
                write!(out, "multiply {} {} by {}", dtype(row_signed), Read(from, 1), dtype(weights_signed))
            }
            Row::Halves(half) => write!(out, "multiply {} {} half {half}", DType::F16, Read(from, 2)),
        },
        Operation::Accumulate { row, add, to } => {
            write!(out, "{} row {row}", if add { "accumulate" } else { "overwrite" })?;
            to.map_or(Ok(()), |to| write!(out, " -> {}", Streams(to, 4)))
        }
        Operation::Shift { from, by, rotate, lanes: [first, end], under, to } => {
            write!(out, "{} {} by {by}", if rotate { "rotate" } else { "shift" }, Read(from, 1))?;
            if (usize::from(first), usize::from(end)) != (0, machine.vector()) {
                write!(out, " lanes {first} until {end}")?;
            }
            if let Some(under) = under {
                write!(out, " under {}", Read(under, 1))?;
            }
            write!(out, " -> {to}")
        }
        Operation::Distribute { from, map, to } => {
            write!(out, "distribute {} [", Read(from, 1))?;
            let named = map.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
            for (lane, entry) in map.iter().take(named.max(machine.lanes as usize)).enumerate() {
                let separator = if lane == 0 { "" } else { ", " };
                match entry {
                    Some(from) => write!(out, "{separator}{from}")?,
                    None => write!(out, "{separator}-")?,
                }
            }
            write!(out, "] -> {to}")
        }
        Operation::Transpose { from, to } => {
            write!(out, "transpose {} -> {}", Read(from, machine.lanes), Streams(to, machine.lanes))
        }
    }
}

fn write_alu(out: &mut String, alu: &Alu) -> fmt::Result {
    match alu.function {
        AluFn::Copy(_) => out.write_str("copy")?,
        AluFn::Unary(function, _) => out.write_str(function.name())?,
        AluFn::Binary(function, _) => out.write_str(function.name())?,
        AluFn::Select(_) => out.write_str("select")?,
        AluFn::Accumulate { function, first, .. } => {
            write!(out, "running {}{}", function.name(), if first { " first" } else { "" })?;
        }
    }
    for (index, operand) in alu.function.operands().iter().enumerate() {
        out.write_str(if index == 0 { " " } else { ", " })?;
        match *operand {
            Operand::Stream(from, dtype) => write!(out, "{dtype} {}", Read(from, streams_of(dtype)))?,
            Operand::Alu(number) => write!(out, "alu {number}")?,
            // The payload of a NaN is kept.
            Operand::Number(Number::Float(value)) if value.is_nan() => write!(out, "nan {:#x}", value.to_bits())?,
            Operand::Number(Number::Float(value)) => write!(out, "{value:?}")?,
            Operand::Number(Number::Integer(value)) => write!(out, "{value}")?,
        }
    }
    alu.result.map_or(Ok(()), |(to, dtype)| write!(out, " -> {dtype} {}", Streams(to, streams_of(dtype))))
}

/// How many streams elements of a type take. None carries those of four bits, which are written all the same.
pub(super) fn streams_of(dtype: DType) -> u32 {
    dtype.bits().div_ceil(8) as u32
}

/// So many streams from the first on.
struct Streams(Stream, u32);

impl Display for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            0 | 1 => write!(f, "{}", self.0),
            width => write!(f, "{}..{}", self.0, u32::from(self.0.number) + width - 1),
        }
    }
}

/// A read of so many streams.
struct Read(Reads, u32);

impl Display for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Streams(self.0.stream, self.1), if self.0.take { "!" } else { "" })
    }
}
