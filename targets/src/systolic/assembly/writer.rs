//! From instructions to text.

use std::fmt::{self, Display, Write as _};

use crate::systolic::code::{Call, Code};
use crate::systolic::isa::{
    Fold, FoldFn, Instruction, Map, MapFn, Memory, Operation, RowTransfer, Source, Transfer, Unit, Walk,
};
use tcc_ir::ops::ScatterReduction;

/// The text of a program; every line ends with a newline.
pub fn disassemble(code: &Code) -> String {
    let mut text = String::new();
    let plain = matches!((code.routines(), code.calls()), ([_], [Call { bases, .. }]) if bases.is_empty());
    for (number, routine) in code.routines().iter().enumerate() {
        if !plain {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "routine {number}");
        }
        for instruction in routine {
            let _ = write_instruction(&mut text, instruction);
            text.push('\n');
        }
    }
    for Call { routine, bases } in code.calls().iter().filter(|_| !plain) {
        let _ = write!(text, "call {}", routine.0);
        for base in bases {
            let _ = write!(text, " {base:#x}");
        }
        text.push('\n');
    }
    text
}

/// The text of one instruction.
pub fn disassemble_one(instruction: &Instruction) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_instruction(&mut text, instruction);
    text
}

fn write_instruction(out: &mut String, instruction: &Instruction) -> fmt::Result {
    match &instruction.op {
        Operation::Load(transfer) => write_transfer(out, "load", transfer)?,
        Operation::Store(transfer) => write_transfer(out, "store", transfer)?,
        Operation::LoadRows(rows) => write_rows(out, "load_rows", rows)?,
        Operation::StoreRows(rows, reduction, dtype) => {
            write_rows(out, "store_rows", rows)?;
            write!(out, " reduction={} dtype={dtype}", reduction_name(*reduction))?;
        }
        Operation::Preload(preload) => {
            write!(out, "preload spm={:#x} dtype={}", preload.address, preload.dtype)?;
            write!(out, " k={}:{} n={}:{}", preload.k, preload.k_stride, preload.n, preload.n_stride)?;
            if (preload.groups, preload.group_stride) != (1, 0) {
                write!(out, " groups={}:{}", preload.groups, preload.group_stride)?;
            }
            write_zero_point(out, preload.zero_point)?;
        }
        Operation::Multiply(multiply) => {
            write!(out, "multiply spm={:#x} dtype={}", multiply.address, multiply.dtype)?;
            write!(out, " m={}:{} k={}", multiply.m, multiply.m_stride, multiply.k_stride)?;
            write!(out, " row={}", multiply.accumulator_row)?;
            if (multiply.group_stride, multiply.group_rows) != (0, 0) {
                write!(out, " group={}:{}", multiply.group_stride, multiply.group_rows)?;
            }
            write_flags(out, &[(multiply.accumulate, "accumulate"), (multiply.switch_weights, "switch")])?;
            write_zero_point(out, multiply.zero_point)?;
        }
        Operation::Outer(outer) => {
            write!(out, "outer m={} n={} k={} row={}", outer.m, outer.n, outer.k, outer.accumulator_row)?;
            write_flags(out, &[(outer.accumulate, "accumulate")])?;
            write!(out, " {}", outer.a)?;
            write_zero_point(out, outer.a_zero_point)?;
            write!(out, ", {}", outer.b)?;
            write_zero_point(out, outer.b_zero_point)?;
        }
        Operation::Map(Map { function, dims, destination, sources }) => {
            let function = match function {
                MapFn::Copy => "copy",
                MapFn::Unary(function) => function.name(),
                MapFn::Binary(function) => function.name(),
                MapFn::Select => "select",
            };
            write!(out, "map {function} dims={} {destination} <- ", List(dims))?;
            write_sources(out, sources)?;
        }
        Operation::Fold(Fold { function, dims, reduced, accumulate, destination, sources }) => {
            write!(out, "fold {} dims={} reduced={reduced}", fold_name(*function), List(dims))?;
            write_flags(out, &[(*accumulate, "accumulate")])?;
            write!(out, " {destination} <- ")?;
            write_sources(out, sources)?;
        }
        Operation::Scan(scan) => {
            write!(out, "scan dims={}", List(&scan.dims))?;
            write_flags(out, &[(scan.exclusive, "exclusive")])?;
            write!(out, " {} <- {}", scan.destination, scan.source)?;
        }
        Operation::Sort(sort) => {
            write!(out, "sort dims={} k={}", List(&sort.dims), sort.k)?;
            write_flags(out, &[(sort.largest, "largest"), (sort.later_first, "later")])?;
            write!(out, " {} ->", sort.source)?;
            if let Some(walk) = &sort.values {
                write!(out, " values {walk}")?;
            }
            if let Some(walk) = &sort.positions {
                write!(out, " positions {walk}")?;
            }
        }
    }
    let mut separator = " wait(";
    for unit in Unit::ALL {
        if let Some(lag) = instruction.waits.0[unit.index()] {
            write!(out, "{separator}{}<={lag}", unit.name())?;
            separator = ", ";
        }
    }
    if separator == ", " {
        out.push(')');
    }
    Ok(())
}

fn write_transfer(out: &mut String, name: &str, transfer: &Transfer) -> fmt::Result {
    write!(out, "{name} dram={} spm={:#x}", transfer.dram, transfer.scratchpad)?;
    write!(out, " element={} dims=[", transfer.element_bytes)?;
    for (axis, dim) in transfer.dims.iter().enumerate() {
        let separator = if axis == 0 { "" } else { ", " };
        write!(out, "{separator}{}:{}:{}", dim.size, dim.dram_stride, dim.scratchpad_stride)?;
    }
    out.write_char(']')
}

fn write_rows(out: &mut String, name: &str, rows: &RowTransfer) -> fmt::Result {
    write!(out, "{name} dram={} spm={:#x} bytes={}", rows.dram, rows.scratchpad, rows.row_bytes)?;
    write!(out, " rows={}:{} outer={}:{}", rows.rows, rows.row_stride, rows.outer, rows.outer_stride)?;
    write!(out, " indices={:#x} index={} count={}", rows.indices, rows.index_dtype, rows.count)
}

fn write_zero_point(out: &mut String, zero_point: Option<u32>) -> fmt::Result {
    zero_point.map_or(Ok(()), |address| write!(out, " zero={address:#x}"))
}

fn write_flags(out: &mut String, flags: &[(bool, &str)]) -> fmt::Result {
    flags.iter().filter(|(set, _)| *set).try_for_each(|(_, name)| write!(out, " {name}"))
}

fn write_sources(out: &mut String, sources: &[Source]) -> fmt::Result {
    for (index, source) in sources.iter().enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        out.push_str(separator);
        match source {
            Source::Walk(walk) => write!(out, "{walk}")?,
            // The payload of a NaN is kept.
            Source::Float(value) if value.is_nan() => write!(out, "float nan {:#x}", value.to_bits())?,
            Source::Float(value) => write!(out, "float {value:?}")?,
            Source::Integer(value) => write!(out, "int {value}")?,
        }
    }
    Ok(())
}

pub(super) fn reduction_name(reduction: ScatterReduction) -> &'static str {
    match reduction {
        ScatterReduction::Replace => "replace",
        ScatterReduction::Add => "add",
        ScatterReduction::Mul => "mul",
        ScatterReduction::Max => "max",
        ScatterReduction::Min => "min",
    }
}

pub(super) fn fold_name(function: FoldFn) -> &'static str {
    match function {
        FoldFn::Sum => "sum",
        FoldFn::Product => "product",
        FoldFn::Max => "max",
        FoldFn::Min => "min",
        FoldFn::Dot => "dot",
    }
}

/// A bracketed list.
struct List<'a, T>(&'a [T]);

impl<T: Display> Display for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('[')?;
        for (index, element) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{element}")?;
        }
        f.write_char(']')
    }
}

impl Display for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = match self.memory {
            Memory::Scratchpad => "spm",
            Memory::Accumulators => "acc",
        };
        write!(f, "{memory}:{}@{:#x}{}", self.dtype, self.address, List(&self.strides))
    }
}
