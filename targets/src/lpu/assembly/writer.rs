//! From instructions to text. Programs have millions of lines, so that what occurs in most of them is written without the
//! formatting of the standard library.

use std::fmt::{Display, Write as _};

use rayon::prelude::*;
use tcc_ir::DType;

use super::OTHERS;
use crate::digits::{self, decimal, integer};
use crate::lpu::LpuMachine;
use crate::lpu::isa::{Alu, AluFn, Direction, Number, Operand, Operation, Queues, Reads, Row, Stream};
use crate::lpu::timeline::{Span, spans};

/// Most instructions of a program in which each has its cycle: text of about 60 MB.
const MAX_COMMENTED: usize = 1 << 20;

/// How cycles are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cycles {
    /// Of each dispatch, below each other.
    All,
    /// Where a dispatch is not in the cycle after the one before it.
    Gaps,
}

/// The text of a program for this machine; every line ends with a newline.
pub fn disassemble(program: &Queues, machine: &LpuMachine) -> String {
    let instructions: usize = program.0.iter().map(Vec::len).sum();
    let cycles = if instructions <= MAX_COMMENTED { Cycles::All } else { Cycles::Gaps };
    disassemble_with(program, machine, cycles)
}

/// [`disassemble`], with cycles told in one way.
pub(super) fn disassemble_with(program: &Queues, machine: &LpuMachine, cycles: Cycles) -> String {
    let idle = |queue: &[Operation]| matches!(queue, [Operation::End]);
    let others = program.0.iter().any(|queue| idle(queue));
    let queues: Vec<_> = machine.queues().into_iter().zip(&program.0).collect();
    let own = queues.into_par_iter().map(|(queue, operations)| {
        if idle(operations) || (operations.is_empty() && !others) {
            return String::new();
        }
        section(&queue, operations, machine, cycles)
    });
    let mut sections: Vec<String> = own.collect();
    if others {
        sections.push(section(&OTHERS, &[Operation::End], machine, cycles));
    }
    sections.retain(|section| !section.is_empty());
    sections.join("\n")
}

fn section(name: &dyn Display, operations: &[Operation], machine: &LpuMachine, cycles: Cycles) -> String {
    let mut text = format!("{name}:\n");
    let mut known = spans(operations, &[]).peekable();
    let mut before: Option<Span<'_>> = None;
    // The cycle behind the last dispatch.
    let mut next = 0;
    for (index, operation) in operations.iter().enumerate() {
        let start = text.len() + 2;
        text.push_str("  ");
        write_operation(&mut text, operation, machine);
        let span = known.next_if(|span| span.index == index);
        if cycles == Cycles::All {
            match (&span, &before) {
                (Some(span), _) => {
                    comment(&mut text, start);
                    decimal(&mut text, span.first);
                }
                (None, Some(repeated)) => {
                    comment(&mut text, start);
                    if repeated.count > 1 {
                        decimal(&mut text, repeated.cycle(1));
                        text.push_str("..");
                    }
                    decimal(&mut text, repeated.last());
                }
                (None, None) => {}
            }
        } else if let Some(span) = span.filter(|span| !matches!(span.operation, Operation::Nop(_))) {
            if span.first != next {
                text.push_str(" ; ");
                decimal(&mut text, span.first);
            }
            next = span.last().saturating_add(1);
        }
        text.push('\n');
        before = span.filter(|span| span.count > 0);
    }
    text
}

/// Goes on to the comment of a line whose instruction began at `start`.
fn comment(text: &mut String, start: usize) {
    const SPACES: &str = "                                           ";
    let written = text.len() - start;
    text.push_str(SPACES.get(written..).unwrap_or_default());
    text.push_str(" ; ");
}

/// The text of one instruction.
pub fn disassemble_one(operation: &Operation, machine: &LpuMachine) -> String {
    let mut text = String::new();
    write_operation(&mut text, operation, machine);
    text
}

fn write_operation(out: &mut String, operation: &Operation, machine: &LpuMachine) {
    match *operation {
        Operation::Nop(cycles) => {
            out.push_str("nop ");
            decimal(out, u64::from(cycles));
        }
        Operation::Repeat { count, interval, step } => {
            out.push_str("repeat ");
            decimal(out, u64::from(count));
            out.push_str(" every ");
            decimal(out, u64::from(interval));
            if step != 0 {
                out.push_str(" step ");
                integer(out, i64::from(step));
            }
        }
        Operation::Sync => out.push_str("sync"),
        Operation::Notify => out.push_str("notify"),
        Operation::End => out.push_str("end"),
        Operation::Mem { read, write } => {
            if let Some((address, to)) = read {
                out.push_str("read ");
                hexadecimal(out, address);
                destination(out, to, 1);
            }
            if let Some((address, from)) = write {
                out.push_str(if read.is_some() { ", write " } else { "write " });
                hexadecimal(out, address);
                out.push_str(" <- ");
                reads(out, from, 1);
            }
        }
        Operation::Gather { addresses, to } => {
            out.push_str("gather ");
            reads(out, addresses, 2);
            destination(out, to, 1);
        }
        Operation::Alu(ref alu) => write_alu(out, alu),
        Operation::Load { from, column } => {
            out.push_str("load ");
            reads(out, from, machine.mxm.load_streams);
            out.push_str(" -> column ");
            decimal(out, u64::from(column));
        }
        Operation::Install => out.push_str("install"),
        Operation::Multiply { from, row } => {
            let dtype = |signed| if signed { DType::I8 } else { DType::U8 };
            out.push_str("multiply ");
            match row {
                Row::Bytes { row_signed, weights_signed } => {
                    elements(out, dtype(row_signed), from);
                    out.push_str(" by ");
                    out.push_str(dtype(weights_signed).name());
                }
                Row::Halves(half) => {
                    elements(out, DType::F16, from);
                    out.push_str(" half ");
                    decimal(out, u64::from(half));
                }
            }
        }
        Operation::Accumulate { row, add, to } => {
            out.push_str(if add { "accumulate row " } else { "overwrite row " });
            decimal(out, u64::from(row));
            if let Some(to) = to {
                destination(out, to, 4);
            }
        }
        Operation::Shift { from, by, rotate, lanes: [first, end], under, to } => {
            out.push_str(if rotate { "rotate " } else { "shift " });
            reads(out, from, 1);
            out.push_str(" by ");
            integer(out, i64::from(by));
            if (usize::from(first), usize::from(end)) != (0, machine.vector()) {
                out.push_str(" lanes ");
                decimal(out, u64::from(first));
                out.push_str(" until ");
                decimal(out, u64::from(end));
            }
            if let Some(under) = under {
                out.push_str(" under ");
                reads(out, under, 1);
            }
            destination(out, to, 1);
        }
        Operation::Distribute { from, map, to } => {
            out.push_str("distribute ");
            reads(out, from, 1);
            out.push_str(" [");
            let named = map.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
            for (lane, entry) in map.iter().take(named.max(machine.lanes as usize)).enumerate() {
                out.push_str(if lane == 0 { "" } else { ", " });
                match entry {
                    Some(from) => decimal(out, u64::from(*from)),
                    None => out.push('-'),
                }
            }
            out.push(']');
            destination(out, to, 1);
        }
        Operation::Transpose { from, to } => {
            out.push_str("transpose ");
            reads(out, from, machine.lanes);
            destination(out, to, machine.lanes);
        }
    }
}

fn write_alu(out: &mut String, alu: &Alu) {
    match alu.function {
        AluFn::Copy(_) => out.push_str("copy"),
        AluFn::Unary(function, _) => out.push_str(function.name()),
        AluFn::Binary(function, _) => out.push_str(function.name()),
        AluFn::Select(_) => out.push_str("select"),
        AluFn::Accumulate { function, first, .. } => {
            out.push_str("running ");
            out.push_str(function.name());
            out.push_str(if first { " first" } else { "" });
        }
    }
    for (index, operand) in alu.function.operands().iter().enumerate() {
        out.push_str(if index == 0 { " " } else { ", " });
        match *operand {
            Operand::Stream(from, dtype) => elements(out, dtype, from),
            Operand::Alu(number) => {
                out.push_str("alu ");
                decimal(out, u64::from(number));
            }
            Operand::Number(Number::Integer(value)) => integer(out, i64::from(value)),
            Operand::Number(Number::Float(value)) => float(out, value),
        }
    }
    if let Some((to, dtype)) = alu.result {
        out.push_str(" -> ");
        out.push_str(dtype.name());
        out.push(' ');
        streams(out, to, streams_of(dtype));
    }
}

/// How many streams elements of a type take. None carries those of four bits, which are written all the same.
pub(super) fn streams_of(dtype: DType) -> u32 {
    dtype.bits().div_ceil(8) as u32
}

/// So many streams from the first on.
fn streams(out: &mut String, first: Stream, width: u32) {
    out.push(match first.direction {
        Direction::East => 'e',
        Direction::West => 'w',
    });
    decimal(out, u64::from(first.number));
    if width > 1 {
        out.push_str("..");
        decimal(out, u64::from(first.number) + u64::from(width) - 1);
    }
}

/// A read of so many streams.
fn reads(out: &mut String, from: Reads, width: u32) {
    streams(out, from.stream, width);
    out.push_str(if from.take { "!" } else { "" });
}

/// A read of elements of a type.
fn elements(out: &mut String, dtype: DType, from: Reads) {
    out.push_str(dtype.name());
    out.push(' ');
    reads(out, from, streams_of(dtype));
}

/// So many streams that something is driven onto.
fn destination(out: &mut String, to: Stream, width: u32) {
    out.push_str(" -> ");
    streams(out, to, width);
}

/// A float. The payload of a NaN is kept.
fn float(out: &mut String, value: f32) {
    // Writing to a string cannot fail.
    let _ = match value.is_nan() {
        true => write!(out, "nan {:#x}", value.to_bits()),
        false => write!(out, "{value:?}"),
    };
}

fn hexadecimal(out: &mut String, value: u16) {
    out.push_str("0x");
    digits::hexadecimal(out, u64::from(value));
}
