//! From a graph to a program: legalise, fuse, lower, give everything its place.

use std::collections::HashMap;

use tcc_ir::{DType, Plan, ValueId};
use tcc_passes::derived_constants;

use super::lower::{Lowered, lower};
use super::program::{Buffer, Group, Launch, Parts};
use super::{SimtMachine, SimtProgram};
use crate::arena::Arena;
use crate::kernel::simulator::{Place, buffer_bytes};
use crate::lower::plan::Planned;
use crate::lower::quantized::Arranged;
use crate::lower::{Argument, stored_type, tilings};
use crate::machine::Machine;
use crate::target::{Port, TargetError};
use crate::weights::{Constant, Weights};

/// What every buffer is aligned to, so that vectors of any width can be read from its start, and that every device can divide
/// its memory there: OpenCL asks for 512 bytes on some.
pub(super) const ALIGNMENT: u64 = 512;

/// Compiles a cleaned-up graph.
///
/// # Errors
/// The machine has no way to compute an operator, or too little memory.
pub(super) fn compile(machine: &Machine, facts: &SimtMachine, planned: Planned) -> Result<SimtProgram, TargetError> {
    let Planned { plan, blocks, .. } = planned;
    let lowered = lower(facts, machine.clock_hz, &plan)?;
    let placed = place(&plan, &lowered);
    let port = |name: &str, value: ValueId| {
        let port = Port { name: name.to_owned(), ty: plan.graph.ty(value).clone() };
        (port, placed.numbers[&Argument::Value(value)])
    };
    let tilings =
        tilings(plan.kernels.len(), lowered.launches.iter().map(|launch| (launch.group, launch.tiling.as_str())));
    let groups = plan.kernels.iter().zip(tilings).enumerate().map(|(index, (group, tiling))| Group {
        name: plan.kernel_name(index),
        origins: plan.origins(group),
        macs: plan.macs(group),
        tiling,
    });
    let needed = placed.weights_bytes + placed.values_bytes;
    if needed > facts.dram.bytes {
        return Err(TargetError::DoesNotFit {
            what: format!("model `{}`", plan.graph.name()),
            machine: machine.name.clone(),
            memory: "dram".to_owned(),
            needed,
            capacity: facts.dram.bytes,
            hint: "choose a machine with more memory, smaller dimensions, or a quantised model".to_owned(),
        });
    }
    let launches = lowered.launches.iter().map(|launch| Launch {
        kernel: launch.kernel,
        buffers: launch.arguments.iter().map(|argument| placed.numbers[argument]).collect(),
        group: launch.group,
    });
    let parts = Parts {
        model: plan.graph.name().to_string(),
        inputs: plan.graph.inputs().iter().map(|&id| port(&plan.graph.value(id).name, id)).collect(),
        outputs: plan.graph.outputs().iter().map(|output| port(&output.name, output.value)).collect(),
        launches: launches.collect(),
        groups: groups.collect(),
        weights_bytes: placed.weights_bytes,
        values_bytes: placed.values_bytes,
        weights: Some(Weights::packed(&plan.graph, &placed.constants, ALIGNMENT)),
        buffers: placed.buffers,
        kernels: lowered.kernels,
        blocks,
        host_ops: Vec::new(),
    };
    SimtProgram::new(machine, facts, parts)
}

/// Buffers and where they lie.
struct Placed {
    buffers: Vec<Buffer>,
    numbers: HashMap<Argument, u32>,
    /// What is among the weights, in order.
    constants: Vec<Constant>,
    weights_bytes: u64,
    values_bytes: u64,
}

impl Placed {
    /// The place of what is among the weights, of so many bytes.
    fn constant(&mut self, constant: Constant, bytes: u64) -> Place {
        let at = self.weights_bytes;
        self.weights_bytes += bytes.next_multiple_of(ALIGNMENT);
        self.constants.push(constant);
        Place::Weights(at)
    }
}

/// Gives everything that a launch reads or writes its place. Counters are the same for all launches, which run one after another,
/// and lie where nothing else ever does.
fn place(plan: &Plan, lowered: &Lowered) -> Placed {
    let graph = &plan.graph;
    let derived = derived_constants(graph);
    let mut placed = Placed {
        buffers: Vec::new(),
        numbers: HashMap::new(),
        constants: Vec::new(),
        weights_bytes: 0,
        values_bytes: 0,
    };
    let mut arena = Arena::new(ALIGNMENT);
    let mut last: HashMap<Argument, usize> = HashMap::new();
    for (index, launch) in lowered.launches.iter().enumerate() {
        last.extend(launch.arguments.iter().map(|&argument| (argument, index)));
    }
    let all = lowered.launches.iter().flat_map(|launch| &launch.arguments);
    let counters = all.filter_map(|argument| match *argument {
        Argument::Counters(elements) => Some(elements),
        Argument::Value(_) | Argument::Arranged(_) | Argument::Handed(..) | Argument::Part { .. } => None,
    });
    let counters = counters.max().unwrap_or(0);
    if counters > 0 {
        let place = Place::Values(arena.take(buffer_bytes(DType::U32, counters)));
        placed.buffers.push(Buffer { name: "counters".to_owned(), dtype: DType::U32, elements: counters, place });
    }
    // Inputs are there before the first launch, outputs after the last.
    let outputs: Vec<ValueId> = graph.outputs().iter().map(|output| output.value).collect();
    let stays: Vec<Argument> = graph.inputs().iter().chain(&outputs).map(|&value| Argument::Value(value)).collect();
    let add = |placed: &mut Placed, arena: &mut Arena, argument: Argument| {
        if placed.numbers.contains_key(&argument) {
            return;
        }
        let buffer = match argument {
            Argument::Counters(_) => {
                placed.numbers.insert(argument, 0);
                return;
            }
            // Launches hand over nothing in parts.
            Argument::Handed(_, dtype, elements) | Argument::Part { dtype, elements, .. } => {
                let place = Place::Values(arena.take(buffer_bytes(dtype, elements)));
                Buffer { name: "handed over".to_owned(), dtype, elements, place }
            }
            Argument::Arranged(number) => {
                let Arranged { value, view } = &lowered.arranged[number as usize];
                let (dtype, elements) = (graph.ty(*value).dtype, view.shape().count() as u64);
                let place = placed.constant((*value, Some(view.clone())), buffer_bytes(dtype, elements));
                Buffer { name: graph.value(*value).name.to_string(), dtype, elements, place }
            }
            Argument::Value(value) => {
                let dtype = stored_type(graph, &derived, value);
                let elements = graph.shape(value).count().max(1) as u64;
                let bytes = buffer_bytes(dtype, elements);
                let place = if derived[value.index()] {
                    placed.constant((value, None), bytes)
                } else {
                    Place::Values(arena.take(bytes))
                };
                Buffer { name: graph.value(value).name.to_string(), dtype, elements, place }
            }
        };
        placed.numbers.insert(argument, placed.buffers.len() as u32);
        placed.buffers.push(buffer);
    };
    stays.iter().for_each(|&argument| add(&mut placed, &mut arena, argument));
    for (index, launch) in lowered.launches.iter().enumerate() {
        launch.arguments.iter().for_each(|&argument| add(&mut placed, &mut arena, argument));
        for argument in &launch.arguments {
            let is_counter = matches!(argument, Argument::Counters(_));
            let buffer = &placed.buffers[placed.numbers[argument] as usize];
            if let (true, false, false, Place::Values(at)) =
                (last[argument] == index, is_counter, stays.contains(argument), buffer.place)
            {
                arena.give_back(at, buffer_bytes(buffer.dtype, buffer.elements));
            }
        }
    }
    placed.values_bytes = arena.size;
    placed
}
