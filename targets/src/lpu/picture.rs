//! A picture of a short program: a row for each queue that does something, and a column for each cycle.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::LpuMachine;
use super::isa::{AluFn, Operation, Queues};
use super::timeline::dispatches_with;

/// Most cycles of a program that is drawn.
pub(super) const MAX_CYCLES: u64 = 200;

/// Draws a program of so many cycles, in which queues go on after syncs in the cycles `resumes`.
pub(super) fn draw(program: &Queues, resumes: &[Vec<u64>], cycles: u64, machine: &LpuMachine) -> String {
    let columns = usize::try_from(cycles).unwrap_or(usize::MAX).min(MAX_CYCLES as usize);
    let mut legend = BTreeMap::new();
    let mut rows = Vec::new();
    for (queue, (operations, resumes)) in machine.queues().into_iter().zip(program.0.iter().zip(resumes)) {
        let mut row = vec!['.'; columns];
        for (cycle, operation) in dispatches_with(operations, resumes) {
            let place = usize::try_from(cycle).ok().and_then(|cycle| row.get_mut(cycle));
            let (Some(place), Some((letter, meaning))) = (place, letter(&operation)) else { continue };
            *place = letter;
            legend.insert(letter, meaning);
        }
        if row.iter().any(|&letter| letter != '.') {
            rows.push((queue.to_string(), row.into_iter().collect::<String>()));
        }
    }
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut scale = String::new();
    for cycle in (0..columns).step_by(10) {
        // Numbers have at most three digits.
        let _ = write!(scale, "{cycle:<10}");
    }
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{:width$}  {}", "", scale.trim_end());
    for (name, row) in rows {
        let _ = writeln!(text, "{name:width$}  {row}");
    }
    let legend: Vec<String> = legend.into_iter().map(|(letter, meaning)| format!("{letter} {meaning}")).collect();
    let _ = writeln!(text, "{:width$}  {}", "", legend.join(", "));
    text
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
