//! Whether a program holds together: whatever was read from a file is looked at before anything relies on it.

use super::damaged;
use super::parts::{Buffer, Parts};
use crate::fpga::design::{Home, OnChip, Style};
use crate::fpga::{FpgaMachine, streaming, writer};
use crate::kernel::check::check;
use crate::kernel::simulator::{Place, buffer_bytes};
use crate::stored::storage;
use crate::target::{Port, TargetError};

/// Most beats that a FIFO holds.
const MOST_BEATS: u64 = 1 << 20;

/// Most elements that a word of a memory has.
const MOST_BANKS: u32 = 1 << 16;

/// Looks at a program.
///
/// # Errors
/// Its parts do not fit together, or not into the machine.
pub(super) fn verify(parts: &Parts, facts: &FpgaMachine) -> Result<(), TargetError> {
    let design = &parts.design;
    if design.channels == 0 || design.channels > facts.memory.channels {
        let (own, there) = (design.channels, facts.memory.channels);
        return Err(damaged(format!("it has ports to {own} channels of {there}")));
    }
    for OnChip { name, banks, words, .. } in &design.memories {
        if *banks == 0 || *banks > MOST_BANKS || *words > u64::from(u32::MAX) {
            return Err(damaged(format!("memory `{name}` has {words} words of {banks} elements")));
        }
    }
    if parts.values_bytes > facts.memory.bytes.saturating_mul(2) {
        return Err(damaged(format!("values take {} bytes", parts.values_bytes)));
    }
    parts.buffers.iter().enumerate().try_for_each(|(number, buffer)| verify_buffer(parts, number, buffer))?;
    for function in &design.functions {
        let kernel = &function.kernel;
        check(kernel).map_err(|error| damaged(format!("function `{}`: {error}", kernel.name)))?;
        if function.homes.len() != kernel.buffers.len() {
            return Err(damaged(format!("parameters of `{}` have no homes", kernel.name)));
        }
        writer::check(function).map_err(|error| damaged(error.to_string()))?;
    }
    for call in &parts.calls {
        let Some(function) = design.functions.get(call.function.index()) else {
            return Err(damaged(format!("there is no function {}", call.function.0)));
        };
        let wanted = function.kernel.buffers.iter().zip(&function.homes);
        let fits = |((wanted, home), number): ((&crate::kernel::Buffer, &Home), &u32)| {
            parts.buffers.get(*number as usize).is_some_and(|buffer| {
                buffer.dtype == wanted.dtype
                    && (buffer.elements >= wanted.elements || function.is_elastic())
                    && buffer.home == *home
                    && !(wanted.is_written && matches!(buffer.place, Place::Weights(_)))
            })
        };
        let is_inside = (0..3).all(|axis| {
            let (least, most) = (function.least[axis], function.kernel.grid[axis]);
            least >= 1 && least <= most && (least..=most).contains(&call.grid[axis])
        });
        if !is_inside {
            return Err(damaged(format!("a call of `{}` has a grid that the function has not", function.kernel.name)));
        }
        let all = function.homes.len() == call.buffers.len() && wanted.zip(&call.buffers).all(fits);
        if !all || call.group as usize >= parts.groups.len() {
            return Err(damaged(format!(
                "a call of `{}` has other parameters than the function",
                function.kernel.name
            )));
        }
    }
    verify_loads(parts)?;
    match design.style {
        Style::Shared if design.fifos.is_empty() => {}
        Style::Shared => return Err(damaged("a controller calls functions with FIFOs")),
        Style::Streaming => streaming::verify(design, &parts.calls, &parts.buffers).map_err(damaged)?,
    }
    parts.inputs.iter().chain(&parts.outputs).try_for_each(|(port, number)| verify_port(parts, port, *number))
}

/// Whether the loader reads what calls take, in the order in which they do: from each of its FIFOs whole buffers, one after the other.
fn verify_loads(parts: &Parts) -> Result<(), TargetError> {
    let Some(loader) = &parts.design.loader else {
        let is_loaded = |buffer: &Buffer| matches!(buffer.home, Home::Loaded { .. });
        return match parts.loads.is_empty() && !parts.buffers.iter().any(is_loaded) {
            true => Ok(()),
            false => Err(damaged("something is loaded, but there is no loader")),
        };
    };
    if loader.channels == 0
        || loader.channels > parts.design.channels
        || loader.streams.is_empty()
        || loader.streams.iter().any(|fifo| !(1..=MOST_BEATS).contains(&fifo.depth))
    {
        return Err(damaged("the loader has no FIFOs, or more channels than the design"));
    }
    let mut wanted: Vec<Vec<(u32, u64)>> = vec![Vec::new(); loader.streams.len()];
    for &buffer in parts.calls.iter().flat_map(|call| &call.buffers) {
        if let Home::Loaded { stream } = parts.buffers[buffer as usize].home {
            wanted[stream as usize].push((buffer, parts.rows(buffer)));
        }
    }
    // The place among what is wanted of each FIFO, and the row there.
    let mut next = vec![(0usize, 0u64); wanted.len()];
    for load in &parts.loads {
        let stream = parts.buffers.get(load.buffer as usize).and_then(|buffer| match buffer.home {
            Home::Loaded { stream } => Some(stream as usize),
            Home::OnChip(_) | Home::External { .. } | Home::Fifo(_) => None,
        });
        let own = stream.and_then(|stream| Some((wanted[stream].get(next[stream].0)?, &mut next[stream])));
        let Some((&(buffer, rows), (place, row))) = own else {
            return Err(damaged("the loader reads what nobody takes"));
        };
        let behind = load.first.checked_add(load.rows).filter(|&behind| load.rows > 0 && behind <= rows);
        match behind {
            Some(behind) if buffer == load.buffer && *row == load.first => {
                (*place, *row) = if behind == rows { (*place + 1, 0) } else { (*place, behind) };
            }
            _ => return Err(damaged("the loader reads weights in another order than they are taken")),
        }
    }
    match next.iter().zip(&wanted).all(|((place, row), wanted)| *place == wanted.len() && *row == 0) {
        true => Ok(()),
        false => Err(damaged("the loader does not read all that is taken")),
    }
}

fn verify_buffer(parts: &Parts, number: usize, buffer: &Buffer) -> Result<(), TargetError> {
    let lost = || damaged(format!("buffer {number} lies outside of its memory"));
    let bytes = buffer_bytes(buffer.dtype, buffer.elements);
    let (at, all) = match buffer.place {
        Place::Weights(at) => (at, parts.weights_bytes),
        Place::Values(at) => (at, parts.values_bytes),
    };
    if at.checked_add(bytes).is_none_or(|end| end > all) {
        return Err(lost());
    }
    match buffer.home {
        Home::OnChip(memory) => {
            let memory = parts.design.memories.get(memory.index()).ok_or_else(lost)?;
            let words = buffer.elements.div_ceil(u64::from(memory.banks));
            let inside = buffer.at.checked_add(words).is_some_and(|end| end <= memory.words);
            if memory.dtype == buffer.dtype && inside { Ok(()) } else { Err(lost()) }
        }
        Home::Fifo(fifo) => {
            let fifo = parts.design.fifos.get(fifo.index()).ok_or_else(lost)?;
            let all = fifo.words.checked_mul(u64::from(fifo.banks));
            if fifo.dtype == buffer.dtype && all == Some(buffer.elements) && buffer.at == 0 {
                Ok(())
            } else {
                Err(lost())
            }
        }
        Home::External { first, ways } => {
            let inside = ways > 0 && first.checked_add(ways).is_some_and(|end| end <= parts.design.channels);
            if inside { Ok(()) } else { Err(lost()) }
        }
        Home::Loaded { stream } => {
            let streams = parts.design.loader.as_ref().map_or(0, |loader| loader.streams.len());
            if (stream as usize) < streams && matches!(buffer.place, Place::Weights(_)) { Ok(()) } else { Err(lost()) }
        }
    }
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
