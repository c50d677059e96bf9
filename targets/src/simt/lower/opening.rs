//! What launches read first, which the launch before them asks for on their behalf.
//!
//! Between two launches memory would be idle: while the last blocks of one add up what they have, while the next is launched, and
//! until its first reads arrive. A launch that reads much can do without that pause: what it reads first is the same whatever
//! comes before it, so the launch before it asks for it when it has read its own. How much is worth it the cycle model says.

use std::collections::HashMap;

use rayon::prelude::*;

use super::Chosen;
use crate::kernel::check::check;
use crate::kernel::names::name_of;
use crate::kernel::{Buffer, BufferId, Expr, Kernel, LINE, Region, Stmt};
use crate::lower::elements::defect;
use crate::lower::{Argument, Opening};
use crate::simt::SimtMachine;
use crate::simt::timing::{Asked, Start, Warm, estimate_between};
use crate::target::TargetError;

/// How much is asked for is some of these many times what memory gives between two launches, by quarters.
const SHARES: [u64; 9] = [2, 3, 4, 6, 8, 10, 12, 20, 32];

/// Lines that a block asks for at the most.
const MOST_LINES: u64 = 4096;

/// Threads that ask where others may have something of their own to read: the first warp, which mostly has so too.
const FEW: u32 = 32;

/// The share of the common cache that may be asked for.
const CACHE_SHARE: u64 = 4;

/// Launches that follow each other: kernels, which parameters of the first are those of the second, and openings of the second by its
/// parameters.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Pair {
    first: Kernel,
    second: Kernel,
    same: Vec<Option<usize>>,
}

/// Has launches ask for what the next ones read first, as far as that makes both faster.
///
/// # Errors
/// A defect.
pub(super) fn ask_ahead(facts: &SimtMachine, clock_hz: u64, launches: &mut [Chosen]) -> Result<(), TargetError> {
    let mut known: HashMap<Pair, Option<Vec<(usize, Region)>>> = HashMap::new();
    for number in 1..launches.len() {
        let (before, rest) = launches.split_at_mut(number);
        let (Some(first), Some(second)) = (before.last_mut(), rest.first()) else { continue };
        let openings = openings(first, second);
        if openings.is_empty() || first.kernel.blocks() > wave(facts) {
            continue;
        }
        let pair = Pair {
            first: first.kernel.nameless(),
            second: second.kernel.nameless(),
            same: second.arguments.iter().map(|argument| place(first, argument)).collect(),
        };
        let best = match known.get(&pair) {
            Some(best) => best.clone(),
            None => {
                let best = best(facts, clock_hz, &pair, &openings);
                known.insert(pair, best.clone());
                best
            }
        };
        if let Some(regions) = best {
            let next = name_of(&second.named);
            first.kernel = asking(&first.kernel, &second.kernel, (&regions, &places(first, second, &regions)));
            check(&first.kernel).map_err(|error| defect(&error.to_string()))?;
            for &(parameter, _) in &regions {
                let argument = second.arguments[parameter];
                if place(first, &argument).is_none() {
                    first.arguments.push(argument);
                }
            }
            let bytes: u64 = regions.iter().map(|(_, region)| region.bytes()).sum();
            first.about.push(format!("asks for the first {bytes} bytes that {next} reads after it"));
        }
    }
    Ok(())
}

/// Blocks that surely run at a time.
fn wave(facts: &SimtMachine) -> u64 {
    u64::from(facts.multiprocessors)
}

/// The parameter of a launch that an argument is.
fn place(launch: &Chosen, argument: &Argument) -> Option<usize> {
    launch.arguments.iter().position(|own| own == argument)
}

/// The parameters of the first launch for those of the second.
fn places(first: &Chosen, second: &Chosen, regions: &[(usize, Region)]) -> Vec<Option<usize>> {
    regions.iter().map(|&(parameter, _)| place(first, &second.arguments[parameter])).collect()
}

/// What a launch reads first that is there when the one before it begins: by its parameters.
fn openings(first: &Chosen, second: &Chosen) -> Vec<(usize, Opening)> {
    let is_there = |argument: &Argument| match place(first, argument) {
        Some(own) => !first.kernel.buffers[own].is_written,
        None => true,
    };
    let found = second.openings.iter().filter_map(|&opening| {
        let parameter = place(second, &opening.argument).filter(|_| is_there(&opening.argument))?;
        (!second.kernel.buffers[parameter].is_written).then_some((parameter, opening))
    });
    found.collect()
}

/// How much to ask for, if anything.
fn best(
    facts: &SimtMachine,
    clock_hz: u64,
    pair: &Pair,
    openings: &[(usize, Opening)],
) -> Option<Vec<(usize, Region)>> {
    let Pair { first, second, same } = pair;
    let gap = facts.launch_cycles(clock_hz);
    let rate = facts.dram.bytes_per_second / clock_hz as f64;
    let between = (rate * gap as f64) as u64;
    let most = (facts.l2.bytes / CACHE_SHARE).min(first.blocks() * MOST_LINES * LINE);
    let mut ways: Vec<Vec<(usize, Region)>> = vec![Vec::new()];
    for share in SHARES {
        let bytes = (between * share / 4).min(most) / openings.len() as u64;
        let regions = openings.iter().filter_map(|(parameter, opening)| Some((*parameter, opening.part(bytes)?)));
        let regions: Vec<(usize, Region)> = regions.collect();
        if !ways.contains(&regions) {
            ways.push(regions);
        }
    }
    let cycles = |regions: &Vec<(usize, Region)>| {
        let places: Vec<Option<usize>> = regions.iter().map(|&(parameter, _)| same[parameter]).collect();
        let asking = asking(first, second, (regions, &places));
        let warm = |(parameter, same): (usize, &Option<usize>)| {
            let region = regions.iter().find(|(own, _)| *own == parameter);
            match (region, same) {
                (Some(&(_, region)), _) => Warm::Asked(Asked::new(region, facts, clock_hz)),
                (None, Some(own)) if first.buffers[*own].is_written => Warm::All,
                (None, _) => Warm::Cold,
            }
        };
        let warm: Vec<Warm> = same.iter().enumerate().map(warm).collect();
        estimate_between(&asking, (second, Start { warm, late: 0 }), facts, clock_hz, gap)
    };
    let cycles: Vec<u64> = ways.par_iter().map(cycles).collect();
    let best = ways.into_iter().zip(cycles).min_by_key(|&(_, cycles)| cycles).map(|(regions, _)| regions);
    best.filter(|regions| !regions.is_empty())
}

/// A kernel that asks for parts of the parameters of another, which may be its own too.
fn asking(kernel: &Kernel, next: &Kernel, (regions, places): (&[(usize, Region)], &[Option<usize>])) -> Kernel {
    let mut asking = kernel.clone();
    let at = behind_reads(kernel);
    let threads = if at == kernel.body.len() { kernel.threads.min(FEW) } else { kernel.threads };
    let mut added = Vec::with_capacity(regions.len());
    for (&(parameter, region), place) in regions.iter().zip(places) {
        let own = place.unwrap_or_else(|| {
            let buffer = &next.buffers[parameter];
            let name = unused(&asking, &format!("next_{}", buffer.name));
            asking.buffers.push(Buffer { name, is_written: false, ..buffer.clone() });
            asking.buffers.len() - 1
        });
        added.push(Stmt::Prefetch { buffer: BufferId(own as u32), region, threads });
    }
    asking.body.splice(at..at, added);
    asking
}

/// A name like another that nothing in a kernel has.
fn unused(kernel: &Kernel, like: &str) -> String {
    let mut name = name_of(like);
    let is_taken = |name: &str| {
        let vars = kernel.vars.iter().map(|var| &var.name);
        let memory = kernel.buffers.iter().map(|buffer| &buffer.name).chain(kernel.shared.iter().map(|own| &own.name));
        vars.chain(memory).any(|other| other == name)
    };
    let mut number = 1;
    while is_taken(&name) {
        number += 1;
        name = name_of(&format!("{like}_{number}"));
    }
    name
}

/// Where all threads of a block have asked for all that is their own: behind the barrier that follows the last statement in no scope
/// that reads what the kernel does not write, or at the end. What is stored does not wait for memory.
fn behind_reads(kernel: &Kernel) -> usize {
    let is_read = |buffer: BufferId| kernel.buffers.get(buffer.index()).is_some_and(|buffer| !buffer.is_written);
    // Operands stand before users.
    let mut reads = vec![false; kernel.exprs.len()];
    for (index, expr) in kernel.exprs.iter().enumerate() {
        let own = matches!(*expr, Expr::Load(buffer, _) if is_read(buffer));
        reads[index] = own || expr.operands().any(|operand| reads[operand.index()]);
    }
    let (mut depth, mut found, mut last) = (0usize, false, 0);
    for (at, stmt) in kernel.body.iter().enumerate() {
        match *stmt {
            Stmt::For { .. } | Stmt::If(_) => depth += 1,
            Stmt::End => depth = depth.saturating_sub(1),
            Stmt::LoadVector { buffer, .. } | Stmt::Copy { buffer, .. } => found |= is_read(buffer),
            _ => {}
        }
        found |= stmt.operands().any(|operand| reads[operand.index()]);
        if depth == 0 && std::mem::take(&mut found) {
            last = at + 1;
        }
    }
    let mut depth = 0usize;
    let barrier = kernel.body[last..].iter().position(|stmt| {
        match stmt {
            Stmt::For { .. } | Stmt::If(_) => depth += 1,
            Stmt::End => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && *stmt == Stmt::Barrier
    });
    barrier.map_or(kernel.body.len(), |barrier| last + barrier + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openings_have_whole_steps() {
        let region = Region { first: 256, rows: 64, pitch: 4096, width: 1024 };
        let argument = Argument::Arranged(0);
        let rows = Opening { argument, region, by_rows: true, step: 16 };
        assert_eq!(rows.part(15 * 1024), None);
        assert_eq!(rows.part(33 * 1024), Some(Region { rows: 32, ..region }));
        assert_eq!(rows.part(u64::MAX), Some(region));
        let beside = Opening { region: Region { pitch: 1024, ..region }, ..rows };
        assert_eq!(beside.part(16 * 1024), Some(Region { first: 256, rows: 1, pitch: 16384, width: 16384 }));
        let columns = Opening { argument, region, by_rows: false, step: 128 };
        assert_eq!(columns.part(64 * 300), Some(Region { width: 256, ..region }));
        assert_eq!(columns.part(64 * 100), None);
    }
}
