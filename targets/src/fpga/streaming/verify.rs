//! Whether stages hold together: each memory and each FIFO has one stage at each end, and both touch the words of a FIFO in the same
//! order, each once. What is read from a file is looked at before anything relies on it.

use rayon::prelude::*;

use super::order::{is_once, order};
use crate::fpga::design::{Design, FifoId, Function, Home, WordFifo};
use crate::fpga::nest::{ArrayId, Nest};
use crate::fpga::program::{Buffer, Call};
use crate::fpga::writer::unstreamed;
use crate::kernel::simulator::Place;

/// Most elements of a FIFO's word.
const MOST_BANKS: u32 = 1 << 10;

/// Who touches a buffer: each stage, and which of its parameters.
#[derive(Clone, Default)]
struct Uses {
    writers: Vec<(usize, usize)>,
    readers: Vec<(usize, usize)>,
}

/// Looks at stages whose parameters are buffers that are there.
///
/// # Errors
/// What is wrong.
pub(in crate::fpga) fn verify(design: &Design, calls: &[Call], buffers: &[Buffer]) -> Result<(), String> {
    let is_own = |(number, call): (usize, &Call)| call.function.index() == number;
    if calls.len() != design.functions.len() || !calls.iter().enumerate().all(is_own) {
        return Err("stages are not called once each".to_owned());
    }
    if design.loader.is_some() || design.functions.iter().any(Function::is_elastic) {
        return Err("stages have no loader, and no grid that a call says".to_owned());
    }
    for WordFifo { name, banks, words, depth, .. } in &design.fifos {
        if *banks == 0 || *banks > MOST_BANKS || *words > u64::from(u32::MAX) || *depth == 0 || *depth > (*words).max(1)
        {
            return Err(format!("FIFO `{name}` has {depth} of {words} words of {banks} elements"));
        }
    }
    let mut uses = vec![Uses::default(); buffers.len()];
    for (stage, call) in calls.iter().enumerate() {
        let parameters = design.functions[stage].kernel.buffers.iter();
        for (parameter, (&buffer, of)) in call.buffers.iter().zip(parameters).enumerate() {
            let own = &mut uses[buffer as usize];
            if of.is_written { &mut own.writers } else { &mut own.readers }.push((stage, parameter));
        }
    }
    let mut memories = vec![false; design.memories.len()];
    let mut fifos: Vec<Option<usize>> = vec![None; design.fifos.len()];
    for (number, (buffer, uses)) in buffers.iter().zip(&uses).enumerate() {
        let name = &buffer.name;
        let shared = || Err(format!("`{name}` goes between more than two stages, or lies where something else does"));
        let in_order = |from: &(usize, usize)| uses.readers.iter().all(|to| from.0 < to.0);
        if uses.writers.len() > 1 || uses.readers.len() > 1 || !uses.writers.iter().all(in_order) || buffer.at > 0 {
            match buffer.home {
                // The host has several ports in a channel.
                Home::External { .. } if uses.writers.len() + uses.readers.len() <= 1 => {}
                _ => return shared(),
            }
        }
        match buffer.home {
            Home::OnChip(memory) => {
                if std::mem::replace(&mut memories[memory.index()], true) {
                    return shared();
                }
                if matches!(buffer.place, Place::Weights(_)) && !uses.writers.is_empty() {
                    return Err(format!("constant `{name}` is written"));
                }
            }
            Home::Fifo(fifo) => {
                let is_between = uses.writers.len() == 1 && uses.readers.len() == 1;
                if fifos[fifo.index()].replace(number).is_some() || !is_between {
                    return shared();
                }
            }
            Home::External { .. } => {}
            Home::Loaded { .. } => return Err(format!("`{name}` comes from a loader")),
        }
    }
    let stages = design.functions.par_iter().map(|function| words(design, function));
    let words: Vec<Vec<Option<Vec<u64>>>> = stages.collect::<Result<_, _>>()?;
    for (fifo, buffer) in design.fifos.iter().zip(fifos) {
        let Some(buffer) = buffer else { return Err(format!("FIFO `{}` goes nowhere", fifo.name)) };
        let of =
            |ends: &[(usize, usize)]| ends.first().and_then(|&(stage, parameter)| words[stage][parameter].as_ref());
        let (given, taken) = (of(&uses[buffer].writers), of(&uses[buffer].readers));
        let holds = given.is_some_and(|given| given.len() as u64 == fifo.words && is_once(given));
        if !holds || given != taken {
            return Err(format!(
                "the words of FIFO `{}` are not taken in the order in which they are given",
                fifo.name
            ));
        }
    }
    Ok(())
}

/// Of each parameter in a FIFO the words in the order in which a function touches them.
fn words(design: &Design, function: &Function) -> Result<Vec<Option<Vec<u64>>>, String> {
    let none = vec![None; function.homes.len()];
    if !function.homes.iter().any(|home| matches!(home, Home::Fifo(_))) {
        return Ok(none);
    }
    let name = &function.kernel.name;
    let left = unstreamed(design, function).map_err(|error| error.to_string())?;
    if !left.is_empty() {
        return Err(format!("function `{name}` does not touch each word of a FIFO once, in one place"));
    }
    let nest = Nest::new(function, design).map_err(|error| error.to_string())?;
    let of = |fifo: FifoId, parameter: usize| {
        order(&nest, ArrayId(parameter as u32))?.words(design.fifos[fifo.index()].banks)
    };
    let homes = function.homes.iter().enumerate();
    Ok(homes
        .map(|(parameter, home)| match *home {
            Home::Fifo(fifo) => of(fifo, parameter),
            Home::OnChip(_) | Home::External { .. } | Home::Loaded { .. } => None,
        })
        .collect())
}
