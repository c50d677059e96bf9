//! From a graph to a systolic program: legalise, fuse, lay out, lower.

use tcc_ir::{Bytes, DType, Def, Graph, Op, Plan, ValueId};
use tcc_passes::{FusionLimits, clean_up, fuse, integer_products, legalize};

use super::isa::Instruction;
use super::layout::{Layout, storage};
use super::lower::KernelRange;
use super::program::{SystolicProgram, format};
use super::{SystolicMachine, legal, lower};
use crate::machine::Machine;
use crate::target::TargetError;

/// Most nodes in one kernel: bounds the buffers that one tile needs. Where a kernel does not fit all the same, the next
/// number is tried; a single node always fits, but for rows that no buffer holds.
const KERNEL_NODES: [usize; 4] = [48, 12, 4, 1];

/// The plan that [`compile`] lowers, unless a kernel of it needs more buffers than the scratchpad holds.
pub(super) fn plan(graph: &Graph, facts: &SystolicMachine) -> Result<Plan, TargetError> {
    Ok(fuse_up_to(KERNEL_NODES[0], legal(graph)?, facts))
}

/// The graph in the operators that the machine runs.
fn legal(graph: &Graph) -> Result<Graph, TargetError> {
    Ok(clean_up(&legalize(&integer_products(graph)?, &legal::judge)?))
}

fn fuse_up_to(nodes: usize, legal: Graph, facts: &SystolicMachine) -> Plan {
    fuse(legal, FusionLimits { row_bytes: Bytes(u64::from(facts.scratchpad.bytes) / 8), nodes })
}

/// A plan, where its values lie, and its instructions.
pub(super) type Lowered = (Plan, Layout, Vec<Instruction>, Vec<KernelRange>);

/// Fuses as much as the scratchpad holds.
fn lower_fused(machine: &Machine, facts: &SystolicMachine, graph: &Graph) -> Result<Lowered, TargetError> {
    let fits_dram = |layout: &Layout| match layout.total_bytes {
        needed if needed > facts.dram.bytes => Err(TargetError::DoesNotFit {
            what: format!("model `{}`", graph.name()),
            machine: machine.name.clone(),
            memory: "dram".to_owned(),
            needed,
            capacity: facts.dram.bytes,
            hint: "choose a machine with more memory, smaller dimensions, or a quantised model".to_owned(),
        }),
        _ => Ok(()),
    };
    let legal = legal(graph)?;
    let mut does_not_fit = None;
    for nodes in KERNEL_NODES {
        let plan = fuse_up_to(nodes, legal.clone(), facts);
        let array_only = array_operands(&plan);
        let mut layout = Layout::new(&plan, &|value| array_only[value.index()]);
        // What is far too large would take forever to cut into tiles; lowering may then add copies.
        fits_dram(&layout)?;
        match lower::lower(&plan, &mut layout, facts) {
            Ok((instructions, ranges)) => {
                fits_dram(&layout)?;
                return Ok((plan, layout, instructions, ranges));
            }
            Err(error @ TargetError::DoesNotFit { .. }) => does_not_fit = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(does_not_fit.unwrap_or_else(|| TargetError::Fault("nothing was tried; please report this".to_owned())))
}

/// Compiles a graph.
pub(super) fn compile(
    machine: &Machine,
    facts: &SystolicMachine,
    graph: &Graph,
) -> Result<SystolicProgram, TargetError> {
    package(machine, facts, graph, lower_fused(machine, facts, graph)?)
}

/// Makes a program of what was lowered.
pub(super) fn package(
    machine: &Machine,
    facts: &SystolicMachine,
    graph: &Graph,
    (plan, layout, instructions, ranges): Lowered,
) -> Result<SystolicProgram, TargetError> {
    let port = |name: &str, value: ValueId| -> Result<format::Port, TargetError> {
        let buffer = layout
            .buffer(value)
            .ok_or_else(|| TargetError::Fault(format!("`{name}` has no place in memory; please report this")))?;
        Ok(format::Port {
            name: name.to_owned(),
            dtype: plan.graph.ty(value).dtype.name().to_owned(),
            dims: plan.graph.shape(value).iter().map(|&dim| dim as u64).collect(),
            address: buffer.address,
            stored: buffer.dtype.name().to_owned(),
        })
    };
    let inputs =
        plan.graph.inputs().iter().map(|&id| port(&plan.graph.value(id).name, id)).collect::<Result<Vec<_>, _>>()?;
    let outputs =
        plan.graph.outputs().iter().map(|output| port(&output.name, output.value)).collect::<Result<Vec<_>, _>>()?;
    let kernels = plan
        .kernels
        .iter()
        .zip(&ranges)
        .enumerate()
        .map(|(index, (kernel, range))| format::Kernel {
            name: format!("k{index} {}", kernel.anchor.kind()),
            origins: plan.origins(kernel),
            instructions: range.range.len() as u64,
            macs: plan.macs(kernel),
            tiling: range.tiling.clone(),
        })
        .collect();
    let (reads, writes) = compulsory(&plan, &layout);
    let format = format::Program {
        model: graph.name().to_string(),
        inputs,
        outputs,
        code: Vec::new(),
        kernels,
        weights_bytes: layout.weights_bytes,
        dram_bytes: layout.total_bytes,
        activation_bytes: layout.peak_activations,
        compulsory_read_bytes: reads,
        compulsory_write_bytes: writes,
    };
    SystolicProgram::new(machine, facts, format, instructions, layout.constants)
}

/// Which values only the array reads, so that they may be stored as what it multiplies.
fn array_operands(plan: &Plan) -> Vec<bool> {
    let graph = &plan.graph;
    let mut array = vec![false; graph.value_count()];
    let mut other = vec![false; graph.value_count()];
    for (_, node) in graph.nodes() {
        if tcc_ir::is_view(&node.op) {
            continue;
        }
        let on_array = matches!(node.op, Op::MatMul(_))
            && lower::on_array(graph.ty(node.inputs[0]).dtype, graph.ty(node.inputs[1]).dtype);
        for (index, &input) in node.inputs.iter().enumerate() {
            let root = plan.access(input).root.index();
            let flags = if on_array && index < 2 { &mut array } else { &mut other };
            flags[root] = true;
        }
    }
    for kernel in &plan.kernels {
        if let tcc_ir::Anchor::Copy { source, .. } = &kernel.anchor {
            other[source.root.index()] = true;
        }
    }
    for output in graph.outputs() {
        other[plan.access(output.value).root.index()] = true;
        other[output.value.index()] = true;
    }
    array.into_iter().zip(other).map(|(array, other)| array && !other).collect()
}

/// Bytes that any schedule must read (weights that are used, whole inputs) and write (outputs). Of a table that is only
/// gathered from, the rows that are gathered count.
fn compulsory(plan: &Plan, layout: &Layout) -> (u64, u64) {
    let graph = &plan.graph;
    let mut whole = vec![false; graph.value_count()];
    let mut rows = vec![0u64; graph.value_count()];
    let size = |value: ValueId, dtype: DType| dtype.bytes(graph.shape(value).count()) as u64;
    for (_, node) in graph.nodes() {
        if tcc_ir::is_view(&node.op) {
            continue;
        }
        for (index, &input) in node.inputs.iter().enumerate() {
            let root = plan.access(input).root;
            if matches!(node.op, Op::Gather(_)) && index == 0 {
                rows[root.index()] += size(node.output(), storage(graph.ty(node.output()).dtype));
            } else {
                whole[root.index()] = true;
            }
        }
    }
    let mut reads = 0;
    for (id, value) in graph.values() {
        let Some(buffer) = layout.buffer(id) else { continue };
        match value.def {
            Def::Input(_) | Def::Constant(_) => {
                let all = size(id, buffer.dtype);
                reads += if whole[id.index()] { all } else { rows[id.index()].min(all) };
            }
            Def::Node { .. } => {}
        }
    }
    let writes = graph.outputs().iter().map(|output| size(output.value, storage(graph.ty(output.value).dtype))).sum();
    (reads, writes)
}
