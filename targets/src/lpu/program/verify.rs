//! Whether a program's parts fit together and into the machine, so that nothing that is done with it can go astray.

use super::damaged;
use super::parts::{Parts, Stretch};
use crate::lpu::LpuMachine;
use crate::lpu::check::check;
use crate::lpu::layout::{Layout, Place};
use crate::lpu::marks::Mark;
use crate::lpu::timeline::{cycles_with, resumes};
use crate::stored::storage;
use crate::target::{Port, TargetError};

/// Most cycles of a program: about twenty minutes.
const MAX_CYCLES: u64 = 1 << 40;

/// When the queues of a program dispatch.
#[derive(Clone, Debug)]
pub(super) struct Timing {
    /// For each queue, the cycles in which it goes on after its syncs.
    pub resumes: Vec<Vec<u64>>,
    /// Cycles of one run.
    pub cycles: u64,
}

/// Looks at everything.
///
/// # Errors
/// The program is damaged.
pub(super) fn verify(parts: &Parts, machine: &LpuMachine) -> Result<Timing, TargetError> {
    check(&parts.queues, machine).map_err(|error| damaged(error.to_string()))?;
    verify_marks(parts)?;
    for (port, layout) in parts.inputs.iter().chain(&parts.outputs) {
        verify_port(port, layout, machine)
            .map_err(|what| damaged(format!("the place of port `{}` in memory is wrong: {what}", port.name)))?;
    }
    verify_stretches(&parts.stretches, machine)?;
    let vectors = machine.memory_bytes() / machine.vector() as u64;
    if parts.used_vectors > vectors {
        return Err(damaged(format!("it uses {} vectors of memory of {vectors}", parts.used_vectors)));
    }
    let resumes = resumes(&parts.queues, machine);
    let cycles = cycles_with(&parts.queues, &resumes, machine);
    if cycles > MAX_CYCLES {
        return Err(damaged(format!("it would run for {cycles} cycles")));
    }
    Ok(Timing { resumes, cycles })
}

fn verify_marks(parts: &Parts) -> Result<(), TargetError> {
    let covers = |(queue, marks): (&Vec<_>, &Vec<Mark>)| match parts.kernels.len() {
        0 => marks.is_empty(),
        _ => marks.iter().map(|mark| u64::from(mark.instructions)).sum::<u64>() == queue.len() as u64,
    };
    let queues = &parts.queues.0;
    if parts.marks.len() != queues.len() || !queues.iter().zip(&parts.marks).all(covers) {
        return Err(damaged("its kernels do not cover its instructions"));
    }
    match parts.marks.iter().flatten().find(|mark| mark.kernel as usize >= parts.kernels.len()) {
        Some(mark) => Err(damaged(format!("there is no kernel {}", mark.kernel))),
        None => Ok(()),
    }
}

fn verify_port(port: &Port, layout: &Layout, machine: &LpuMachine) -> Result<(), String> {
    let Layout { dtype, rows, columns, lanes, stripes, lots, slices } = layout;
    if *dtype != storage(port.ty.dtype) || *lanes != machine.vector() {
        return Err("it is stored as another type, or for another machine".to_owned());
    }
    let count = port.ty.shape.count();
    if rows.checked_mul(*columns) != Some(count) {
        return Err(format!("{rows} rows of {columns} columns are not its {count} elements"));
    }
    // More stripes than slices, or lots, can never be; the bounds keep the figures below small.
    let small = |count: &usize| (1..=usize::from(u16::MAX)).contains(count);
    if !small(stripes) || !small(lots) {
        return Err(format!("{stripes} stripes and {lots} lots of rows cannot be"));
    }
    let least = lots * Layout::slice_count(*dtype, *stripes);
    let is_whole = !slices.is_empty() && slices.len().is_multiple_of(least) && (*stripes == 1 || slices.len() == least);
    if !is_whole {
        return Err(format!("{stripes} stripes and {lots} lots do not take {} slices", slices.len()));
    }
    // Elements of no columns have no vectors; else there are at least as many elements as vectors of a plane.
    let depth = if count == 0 { 0 } else { layout.depth() };
    slices.iter().try_for_each(|&place| within(place, depth as u64, machine))
}

/// Whether vectors from a place on are there.
fn within(Place { slice, address }: Place, vectors: u64, machine: &LpuMachine) -> Result<(), String> {
    if u32::from(slice) >= 2 * machine.mem.slices {
        return Err(format!("there is no slice {slice}"));
    }
    let end = u64::from(address).saturating_add(vectors);
    if end > u64::from(machine.mem.banks) * u64::from(machine.mem.words) {
        return Err(format!("{vectors} vectors from address {address:#x} on do not fit into a slice"));
    }
    Ok(())
}

fn verify_stretches(stretches: &[Stretch], machine: &LpuMachine) -> Result<(), TargetError> {
    let wrong = |what: String| damaged(format!("the place of its weights in memory is wrong: {what}"));
    let mut sorted = stretches.to_vec();
    sorted.sort_by_key(|stretch| stretch.place);
    for stretch in &sorted {
        within(stretch.place, u64::from(stretch.vectors), machine).map_err(wrong)?;
    }
    for pair in sorted.windows(2) {
        let [before, after] = [pair[0], pair[1]];
        let end = u64::from(before.place.address) + u64::from(before.vectors);
        if before.place.slice == after.place.slice && end > u64::from(after.place.address) {
            return Err(wrong(format!("two stretches meet in slice {}", after.place.slice)));
        }
    }
    Ok(())
}
