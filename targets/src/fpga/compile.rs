//! From a plan to a program: lower it, give everything its place, and see what that takes.

use tcc_ir::{Plan, ValueId};

use super::FpgaMachine;
use super::lower::{Lowered, Widths, lower};
use super::place::{Placed, place};
use super::program::{FpgaProgram, Group, Parts};
use crate::lower::Argument;
use crate::lower::plan::Planned;
use crate::machine::Machine;
use crate::target::{Port, TargetError};
use crate::weights::Weights;

/// Compiles a plan.
///
/// # Errors
/// The machine has too little memory, or a defect.
pub(super) fn compile(
    machine: &Machine,
    facts: &FpgaMachine,
    widths: Widths,
    planned: Planned,
) -> Result<FpgaProgram, TargetError> {
    let Planned { plan, blocks, .. } = planned;
    let lowered = lower(&plan, widths)?;
    let placed = place(&plan, &lowered, facts, widths)?;
    let needed = placed.external_bytes;
    if needed > facts.memory.bytes {
        return Err(TargetError::DoesNotFit {
            what: format!("model `{}`", plan.graph.name()),
            machine: machine.name.clone(),
            memory: facts.memory.name.clone(),
            needed,
            capacity: facts.memory.bytes,
            hint: "choose a machine with more memory, smaller dimensions, or a quantised model".to_owned(),
        });
    }
    let parts = Parts { blocks, ..parts(&plan, &lowered, placed) };
    FpgaProgram::new(machine, facts, parts)
}

/// The parts of a program, but for what the optimiser did.
fn parts(plan: &Plan, lowered: &Lowered, placed: Placed) -> Parts {
    let graph = &plan.graph;
    let port = |name: &str, value: ValueId| {
        let port = Port { name: name.to_owned(), ty: graph.ty(value).clone() };
        (port, placed.numbers[&Argument::Value(value)])
    };
    let mut tilings: Vec<Vec<&str>> = vec![Vec::new(); plan.kernels.len()];
    lowered.calls.iter().for_each(|call| tilings[call.group as usize].push(&call.tiling));
    let groups = plan.kernels.iter().enumerate().map(|(index, group)| Group {
        name: plan.kernel_name(index),
        origins: plan.origins(group),
        macs: plan.macs(group),
        tiling: tilings[index].join("; "),
    });
    Parts {
        model: graph.name().to_string(),
        inputs: graph.inputs().iter().map(|&id| port(&graph.value(id).name, id)).collect(),
        outputs: graph.outputs().iter().map(|output| port(&output.name, output.value)).collect(),
        groups: groups.collect(),
        calls: placed.calls,
        weights_bytes: placed.weights_bytes,
        values_bytes: placed.values_bytes,
        weights: Some(Weights::packed(graph, &placed.constants, super::design::BEAT_BYTES)),
        buffers: placed.buffers,
        design: placed.design,
        blocks: Vec::new(),
    }
}
