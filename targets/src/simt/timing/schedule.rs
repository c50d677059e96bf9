//! The order in which a compiler for the machine puts instructions.
//!
//! Instructions of a straight stretch are listed anew: the one first from which the longest way leads to the end, loads with the
//! latency of the common cache, as soon as what it waits for would be there in a warp that is alone. So loads stand early, and
//! chains that do not depend on each other go side by side. What computes a register always comes before what reads it; what a
//! register holds may be overwritten later, or go to another register, since only the first place and the last between which
//! something lives count (`names`). What is stored stays in the order of the kernel (`graph`).
//!
//! A stretch ends where a loop or a branch begins or ends, since a warp may go elsewhere there, and at barriers, and where copies
//! are made a group or waited for: what is before these must be, for other warps or for what is copied, and what is after must
//! not. A compiler may move what touches no memory across the latter, and `ptxas` was seen to do so with a few instructions.
//!
//! Registers have a bound: those that the order of the kernel takes, and a few more if they leave room for as many blocks. An
//! instruction is put forward only if the rest could go on in the order of the kernel within it (`pressure`), so that the bound
//! holds whatever was put forward.

mod graph;
mod names;
mod order;
mod pressure;
#[cfg(test)]
mod tests;

use super::code::{Code, Compiled};
use super::registers::Lives;
use super::resource::Unit;
use graph::Graph;
use names::Names;

/// What a compiler knows of a machine and of the kernel's buffers.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    /// What [`Unit::times`] says of each unit.
    pub times: [(u64, u64); Unit::ALL.len()],
    /// Cycles from a load to its result: from shared memory, and from global memory, which is taken to be in the common cache.
    pub shared: u64,
    pub global: u64,
    /// The buffers that the kernel writes.
    pub written: Vec<bool>,
}

/// Orders the instructions of all straight stretches anew. Threads hold at most so many registers then, if they did before.
pub(super) fn schedule(compiled: &mut Compiled, lives: &mut Lives, figures: &Figures, most: u32) {
    let mut names = Names::new(compiled, lives);
    let mut start = 0;
    while start < compiled.code.len() {
        let mut end = start;
        while end < compiled.code.len() && is_straight(&compiled.code[end]) {
            end += 1;
        }
        stretch(compiled, lives, figures, &mut names, (start, end), most);
        start = end + 1;
    }
    compiled.slots = names.slots();
}

/// Whether a warp simply goes on after a step, and nothing else waits for it.
fn is_straight(code: &Code) -> bool {
    match code {
        Code::Issue(instruction) => instruction.unit != Unit::Control,
        Code::Alias { .. } | Code::Index { .. } | Code::Choose { .. } | Code::Copy { .. } => true,
        Code::Loop { .. }
        | Code::EndLoop { .. }
        | Code::If { .. }
        | Code::Else { .. }
        | Code::EndIf
        | Code::Barrier
        | Code::Commit
        | Code::Await { .. } => false,
    }
}

fn stretch(
    compiled: &mut Compiled,
    lives: &mut Lives,
    figures: &Figures,
    names: &mut Names,
    (start, end): (usize, usize),
    most: u32,
) {
    let steps = names.named(compiled, lives, figures, (start, end));
    if steps.iter().filter(|step| step.is_issue()).count() < 2 {
        return;
    }
    let graph = Graph::new(&steps, names.count(), compiled, figures);
    let uses = names.uses(&steps, lives, (start, end));
    let Some(order) = order::order(&steps, &graph, figures, uses, i64::from(most)) else { return };
    names.rename(compiled, &steps, &order, start);
    names::reorder(lives, &steps, &order, (start, end));
}
