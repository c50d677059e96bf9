//! How local arrays of a function are divided into banks, so that lanes have what they want in one cycle.

use crate::fpga::writer::index::{Atom, Indices};
use crate::fpga::writer::sameness::Sameness;
use crate::kernel::{ExprId, Kernel, Memory, SharedId, Stmt};

/// The banks of a local array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Partition {
    /// Neighbouring elements lie in neighbouring banks, of which there are so many.
    Cyclic(u32),
    /// So many neighbouring elements lie in one bank.
    Block(u32),
}

impl Partition {
    /// Banks of an array of so many elements.
    pub fn banks(self, elements: u32) -> u32 {
        match self {
            Partition::Cyclic(banks) => banks,
            Partition::Block(words) => elements.div_ceil(words),
        }
    }

    /// Words of a bank.
    pub fn words(self, elements: u32) -> u32 {
        match self {
            Partition::Cyclic(banks) => elements.div_ceil(banks),
            Partition::Block(words) => words,
        }
    }
}

/// How each local array of a kernel is divided: as the lanes and loops that are written out spread their accesses.
pub(super) fn partitions(kernel: &Kernel, indices: &Indices<'_>, sameness: &Sameness<'_>) -> Vec<Partition> {
    let mut wanted: Vec<Vec<(i64, i64)>> = vec![Vec::new(); kernel.shared.len()];
    let mut written_out = Vec::new();
    for (place, stmt) in kernel.body.iter().enumerate() {
        match *stmt {
            Stmt::For { var, from, to, step, unroll: true } => {
                let ends = (indices.linear(from), indices.linear(to));
                let count = (ends.1.constant - ends.0.constant).max(0) as u64;
                written_out.push(Some((var, count.div_ceil(u64::from(step)) as i64)));
            }
            Stmt::For { .. } | Stmt::If(_) => written_out.push(None),
            Stmt::End => {
                written_out.pop();
            }
            _ => {}
        }
        for (shared, index) in accesses(kernel, stmt) {
            let linear = indices.linear(index);
            let (mut span, mut stride) = (0, 0);
            for &(atom, times) in &linear.terms {
                let count = match atom {
                    Atom::Lane => i64::from(kernel.threads),
                    Atom::Var(var) => written_out.iter().flatten().find(|(own, _)| *own == var).map_or(1, |&(_, n)| n),
                    Atom::Other(id) if sameness.at(id, place) => i64::from(kernel.threads),
                    _ => 1,
                };
                if atom == Atom::Lane {
                    stride = times.saturating_abs();
                }
                span = times.saturating_abs().saturating_mul(count - 1).saturating_add(span);
            }
            wanted[shared.index()].push((stride, span + 1));
        }
    }
    let divided = kernel.shared.iter().zip(wanted);
    divided.map(|(shared, wanted)| divide(shared.elements, i64::from(kernel.threads), &wanted)).collect()
}

/// The banks of an array of so many elements, of which accesses want so many apart from lane to lane, and so many in all.
fn divide(elements: u32, lanes: i64, wanted: &[(i64, i64)]) -> Partition {
    let all = i64::from(elements);
    let most = wanted.iter().map(|&(_, span)| span.min(all)).max().unwrap_or(1).max(1);
    // Each lane has a stretch of its own.
    let stretch = wanted.iter().map(|&(stride, _)| stride).max().unwrap_or(0);
    if stretch > 1 && stretch.saturating_mul(lanes) == all && wanted.iter().all(|&(stride, _)| stride == stretch) {
        return Partition::Block(stretch as u32);
    }
    let banks = if most <= lanes.saturating_mul(4) { most } else { lanes.min(all) };
    Partition::Cyclic((banks as u32).next_power_of_two().min(elements.max(1).next_power_of_two()))
}

/// Local arrays that a statement accesses.
fn accesses(kernel: &Kernel, stmt: &Stmt) -> Vec<(SharedId, ExprId)> {
    let mut found = Vec::new();
    let mut open: Vec<ExprId> = stmt.operands().collect();
    while let Some(id) = open.pop() {
        let expr = &kernel.exprs[id.index()];
        found.extend(expr.address());
        open.extend(expr.operands());
    }
    found.extend(stmt.addresses());
    let shared = |(memory, index)| match memory {
        Memory::Shared(shared) => Some((shared, index)),
        Memory::Buffer(_) => None,
    };
    found.into_iter().filter_map(shared).collect()
}
