//! Whether a program's parts fit together, so that nothing that is done with it can go astray.

use std::collections::BTreeSet;

use super::damaged;
use super::parts::{Buffer, Parts};
use crate::kernel::check::check;
use crate::kernel::simulator::{Place, buffer_bytes};
use crate::simt::SimtMachine;
use crate::stored::storage;
use crate::target::{Port, TargetError};

/// Looks at everything.
///
/// # Errors
/// The program is damaged.
pub(super) fn verify(parts: &Parts, machine: &SimtMachine) -> Result<(), TargetError> {
    let memory = parts.weights_bytes.checked_add(parts.values_bytes);
    if memory.is_none_or(|memory| memory > machine.dram.bytes) {
        return Err(damaged("it takes more memory than the machine has"));
    }
    for kernel in &parts.kernels {
        check(kernel).map_err(|error| damaged(error.to_string()))?;
        if kernel.in_turn {
            return Err(damaged(format!(
                "blocks of kernel `{}` follow each other, which those of a launch do not",
                kernel.name
            )));
        }
        if kernel.shared_bytes() > machine.shared.block_bytes || kernel.threads > machine.block_threads {
            return Err(damaged(format!("kernel `{}` takes more than a block has", kernel.name)));
        }
    }
    for buffer in &parts.buffers {
        let (offset, end) = match buffer.place {
            Place::Weights(offset) => (offset, parts.weights_bytes),
            Place::Values(offset) => (offset, parts.values_bytes),
        };
        let bytes = buffer.elements.checked_mul(buffer.dtype.bits() as u64).map(|bits| bits.div_ceil(8));
        if bytes.and_then(|bytes| offset.checked_add(bytes)).is_none_or(|last| last > end) {
            return Err(damaged(format!("buffer `{}` lies outside its memory", buffer.name)));
        }
    }
    for launch in &parts.launches {
        let kernel =
            parts.kernels.get(launch.kernel as usize).ok_or_else(|| damaged("it launches no kernel of its own"))?;
        let fits = |(wanted, number): (&crate::kernel::Buffer, &u32)| {
            parts.buffers.get(*number as usize).is_some_and(|Buffer { dtype, elements, place, .. }| {
                *dtype == wanted.dtype
                    && *elements >= wanted.elements
                    && !(wanted.is_written && matches!(place, Place::Weights(_)))
            })
        };
        let all = kernel.buffers.len() == launch.buffers.len() && kernel.buffers.iter().zip(&launch.buffers).all(fits);
        if !all || launch.group as usize >= parts.groups.len() {
            return Err(damaged(format!("a launch of `{}` has other parameters than the kernel", kernel.name)));
        }
    }
    verify_counters(parts)?;
    parts.inputs.iter().chain(&parts.outputs).try_for_each(|(port, number)| verify_port(parts, port, *number))
}

/// Looks at the counters that blocks arrive by: nothing else may lie where they do.
fn verify_counters(parts: &Parts) -> Result<(), TargetError> {
    let counters: BTreeSet<u32> = parts.counters().collect();
    let range = |buffer: &Buffer| match buffer.place {
        Place::Weights(_) => None,
        Place::Values(at) => Some((at, at + buffer_bytes(buffer.dtype, buffer.elements))),
    };
    for &counter in &counters {
        let own = range(&parts.buffers[counter as usize]).unwrap_or_default();
        let meets = |(number, buffer): (usize, &Buffer)| {
            let other = range(buffer).filter(|_| number != counter as usize);
            other.is_some_and(|other| other.0 < own.1 && own.0 < other.1)
        };
        let is_used = parts.launches.iter().any(|launch| {
            let arrival = parts.kernels[launch.kernel as usize].arrival();
            let place = arrival.map(|arrival| arrival.counters.index());
            launch.buffers.iter().enumerate().any(|(other, &buffer)| buffer == counter && Some(other) != place)
        });
        let is_port = parts.inputs.iter().chain(&parts.outputs).any(|(_, number)| *number == counter);
        if is_used || is_port || parts.buffers.iter().enumerate().any(meets) {
            return Err(damaged(format!("buffer {counter} holds counters and something else")));
        }
    }
    Ok(())
}

fn verify_port(parts: &Parts, port: &Port, number: u32) -> Result<(), TargetError> {
    let fits = |buffer: &&Buffer| {
        let dtype = port.ty.dtype;
        let count = port.ty.shape.count() as u64;
        (buffer.dtype == storage(dtype) || buffer.dtype == dtype) && buffer.elements >= count
    };
    match parts.buffers.get(number as usize).filter(fits) {
        Some(_) => Ok(()),
        None => Err(damaged(format!("port `{}` has no buffer that holds it", port.name))),
    }
}
