//! A picture of a short program: a column for each cycle, and a row for each queue that does something. Queues stand as their
//! units do on the chip, from west to east, so that what flows east goes down the page. Neighbours that do the same in every
//! cycle, as slices with the byte planes of one value do, share a row. Long pictures are cut into bands that fit on a screen.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;

use super::LpuMachine;
use super::isa::{AluFn, Operation, Queue, Queues};
use super::timeline::dispatches_with;

/// Most cycles of a program that is drawn.
pub(super) const MAX_CYCLES: u64 = 500;

/// Cycles beside each other.
const BAND: usize = 100;

/// When a kernel begins and ends.
pub(super) struct Span<'a> {
    /// The kernel's name.
    pub name: &'a str,
    /// The first cycle in which something of it is dispatched.
    pub start: u64,
    /// The cycle before which all that it begins is over.
    pub end: u64,
}

/// Draws a program of so many cycles, in which queues go on after syncs in the cycles `resumes`.
pub(super) fn draw(
    program: &Queues,
    resumes: &[Vec<u64>],
    kernels: &[Span<'_>],
    cycles: u64,
    machine: &LpuMachine,
) -> String {
    let columns = usize::try_from(cycles.min(MAX_CYCLES)).unwrap_or(0);
    let mut legend = BTreeMap::new();
    let mut queues = Vec::new();
    for (queue, (operations, resumes)) in machine.queues().into_iter().zip(program.0.iter().zip(resumes)) {
        let mut cells = vec!['.'; columns];
        for (cycle, operation) in dispatches_with(operations, resumes) {
            let place = usize::try_from(cycle).ok().and_then(|cycle| cells.get_mut(cycle));
            let (Some(place), Some((letter, meaning))) = (place, letter(&operation)) else { continue };
            *place = letter;
            legend.insert(letter, meaning);
        }
        queues.push((queue, cells));
    }
    // Queues of a position stay in their order.
    queues.sort_by_key(|&(queue, _)| machine.position(queue));
    let bands = (0..columns).step_by(BAND).map(|first| first..(first + BAND).min(columns));
    let bands: Vec<Band> = bands.map(|cycles| band(&queues, kernels, cycles)).collect();
    let width = bands.iter().flat_map(|band| &band.rows).map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    // Writing to a string cannot fail.
    for Band { scale, rows } in bands {
        let _ = writeln!(text, "{:width$}  {scale}", "");
        for (name, cells) in rows {
            let _ = writeln!(text, "{name:width$}  {}", cells.trim_end());
        }
        text.push('\n');
    }
    let legend: Vec<String> = legend.into_iter().map(|(letter, meaning)| format!("{letter} {meaning}")).collect();
    let _ = writeln!(text, "{}", legend.join(", "));
    text
}

/// A part of the picture: the numbers of its cycles, and its rows with their names.
struct Band {
    scale: String,
    rows: Vec<(String, String)>,
}

/// What kernels and queues do in some cycles; those that do nothing are left out.
fn band(queues: &[(Queue, Vec<char>)], kernels: &[Span<'_>], cycles: Range<usize>) -> Band {
    let scale: String = cycles.clone().step_by(10).map(|cycle| format!("{cycle:<10}")).collect();
    let mut rows = Vec::new();
    for &Span { name, start, end } in kernels {
        let bar = cycles.clone().map(|cycle| if (start..end).contains(&(cycle as u64)) { '-' } else { ' ' });
        let bar: String = bar.collect();
        if bar.contains('-') {
            rows.push((name.to_owned(), bar));
        }
    }
    let mut same: Option<(Queue, Queue, &[char])> = None;
    for (queue, cells) in queues {
        let Some(cells) = cells.get(cycles.clone()).filter(|cells| cells.iter().any(|&cell| cell != '.')) else {
            continue;
        };
        same = match same {
            Some((first, last, before)) if before == cells && follows(last, *queue) => Some((first, *queue, cells)),
            other => {
                rows.extend(other.map(row));
                Some((*queue, *queue, cells))
            }
        };
    }
    rows.extend(same.map(row));
    Band { scale: scale.trim_end().to_owned(), rows }
}

/// The row of queues from the first to the last of some that do the same.
fn row((first, last, cells): (Queue, Queue, &[char])) -> (String, String) {
    let name = match last {
        Queue::Mem(unit) | Queue::Alu(unit) if first != last => format!("{first}-{unit}"),
        _ => first.to_string(),
    };
    (name, cells.iter().collect())
}

/// Whether a queue is that of the unit behind another's, so that one row can stand for both.
fn follows(before: Queue, queue: Queue) -> bool {
    match (before, queue) {
        (Queue::Mem(before), Queue::Mem(own)) | (Queue::Alu(before), Queue::Alu(own)) => before + 1 == own,
        _ => false,
    }
}

/// What stands for an instruction, and what it means; nothing for those that do nothing.
fn letter(operation: &Operation) -> Option<(char, &'static str)> {
    Some(match operation {
        Operation::Nop(_) | Operation::Repeat { .. } | Operation::End => return None,
        Operation::Sync => ('Y', "sync"),
        Operation::Notify => ('N', "notify"),
        Operation::Mem { write: None, .. } => ('R', "read"),
        Operation::Mem { read: None, .. } => ('W', "write"),
        Operation::Mem { .. } => ('B', "read and write"),
        Operation::Gather { .. } => ('G', "gather"),
        Operation::Alu(alu) => match alu.function {
            AluFn::Copy(_) => ('=', "copy"),
            AluFn::Unary(..) => ('f', "function of one operand"),
            AluFn::Binary(..) => ('+', "function of two operands"),
            AluFn::Select(_) => ('?', "select"),
            AluFn::Accumulate { .. } => ('@', "running result"),
        },
        Operation::Load { .. } => ('L', "load"),
        Operation::Install => ('I', "install"),
        Operation::Multiply { .. } => ('M', "multiply"),
        Operation::Accumulate { add: false, .. } => ('O', "overwrite"),
        Operation::Accumulate { add: true, .. } => ('A', "accumulate"),
        Operation::Shift { .. } => ('S', "shift"),
        Operation::Distribute { .. } => ('D', "distribute"),
        Operation::Transpose { .. } => ('T', "transpose"),
    })
}
