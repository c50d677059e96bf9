//! From a plan to a program: the fastest design that is found, with all that goes with it.

use tcc_ir::{Graph, NodeId, Op, Plan, ValueId};

use super::FpgaMachine;
use super::lower::Lowered;
use super::place::Placed;
use super::program::{FpgaProgram, Group, Other, Parts, Times};
use super::search::{Found, search};
use crate::lower::plan::Planned;
use crate::lower::{Argument, tilings};
use crate::machine::Machine;
use crate::optimizer::Block;
use crate::target::{Port, TargetError};
use crate::weights::Weights;

/// Compiles a plan.
///
/// # Errors
/// The machine has too little of something, or a defect.
pub(super) fn compile(machine: &Machine, facts: &FpgaMachine, planned: Planned) -> Result<FpgaProgram, TargetError> {
    let Planned { plan, blocks, .. } = planned;
    let (Found { lowered, placed, times, .. }, other) = search(machine, facts, &plan)?;
    program(machine, facts, (&plan, blocks, other), (&lowered, placed, times))
}

/// The program of a plan that has been lowered, placed and scheduled.
///
/// # Errors
/// The machine has too little memory, or a defect.
pub(super) fn program(
    machine: &Machine,
    facts: &FpgaMachine,
    (plan, blocks, other): (&Plan, Vec<Block>, Other),
    (lowered, placed, times): (&Lowered, Placed, Times),
) -> Result<FpgaProgram, TargetError> {
    // Channels have addresses of their own: what is in the fullest says how much memory is needed.
    let needed = placed.channel_bytes.saturating_mul(u64::from(facts.memory.channels));
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
    let parts = Parts { blocks, other, ..parts(plan, lowered, placed) };
    FpgaProgram::new(machine, facts, parts, times)
}

/// The parts of a program, but for what the optimiser did.
fn parts(plan: &Plan, lowered: &Lowered, placed: Placed) -> Parts {
    let graph = &plan.graph;
    let port = |name: &str, value: ValueId| {
        let port = Port { name: name.to_owned(), ty: graph.ty(value).clone() };
        (port, placed.numbers[&Argument::Value(value)])
    };
    let calls = lowered.calls.iter().map(|call| (call.group, call.tiling.as_str()));
    let tilings = tilings(plan.kernels.len(), calls);
    let groups = plan.kernels.iter().enumerate().map(|(index, group)| Group {
        name: plan.kernel_name(index),
        origins: plan.origins(group),
        macs: plan.macs(group),
        is_float: group.nodes().any(|id| is_of_floats(graph, id)),
        tiling: match tilings[index].as_str() {
            "" => "made where it is read".to_owned(),
            own => own.to_owned(),
        },
    });
    Parts {
        model: graph.name().to_string(),
        inputs: graph.inputs().iter().map(|&id| port(&graph.value(id).name, id)).collect(),
        outputs: graph.outputs().iter().map(|output| port(&output.name, output.value)).collect(),
        groups: groups.collect(),
        calls: placed.calls,
        loads: placed.loads,
        weights_bytes: placed.weights_bytes,
        values_bytes: placed.values_bytes,
        weights: Some(Weights::packed(graph, &placed.constants, super::design::BEAT_BYTES)),
        buffers: placed.buffers,
        design: placed.design,
        blocks: Vec::new(),
        other: Other::default(),
    }
}

/// Whether a node is a product of floats.
fn is_of_floats(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    matches!(node.op, Op::MatMul(_)) && graph.ty(node.inputs[0]).dtype.is_float()
}
