//! From a graph to a systolic program: legalise, fuse, lay out, lower.

use std::borrow::Cow;

use tcc_ir::{Bytes, DType, Def, Graph, Op, Plan, ValueId};
use tcc_passes::{
    BlockReport, Extraction, FusionLimits, Group, Optimized, assemble, clean_up, fuse, integer_products, legalize,
    optimize,
};

use super::arrange::arrange;
use super::code::Code;
use super::cost::SystolicCosts;
use super::layout::{Layout, Place, reads, storage};
use super::lower::LoweredKernel;
use super::parts::store_parts;
use super::program::{SystolicProgram, format};
use super::residence::Residence;
use super::{SystolicMachine, legal, lower};
use crate::explanation::PlanTaken;
use crate::machine::Machine;
use crate::optimizer::{Block, extraction};
use crate::target::{Optimization, TargetError};

/// Most nodes in one kernel: bounds the buffers that one tile needs. Where a kernel does not fit all the same, the next
/// number is tried; a single node always fits, but for rows that no buffer holds.
pub(super) const KERNEL_NODES: [usize; 4] = [48, 12, 4, 1];

/// Instructions beyond which a plan is not lowered only to compare it with another, about: a schedule of so many takes
/// seconds.
const COMPARED_PASSES: u64 = 1 << 18;

/// E-nodes of all blocks beyond which a graph is not optimised a second time, only to compare the greedy plan.
const COMPARED_NODES: u64 = 500;

/// The share of the cycles, as one in so many, that the greedy plan must save to be taken instead of the exact one.
const NEXT_TO_NOTHING: u64 = 1000;

/// The plan that [`compile`] lowers, unless it turns out that another is faster, or that a kernel of it needs more buffers
/// than the scratchpad holds.
pub(super) fn plan(graph: &Graph, facts: &SystolicMachine, optimization: Optimization) -> Result<Plan, TargetError> {
    match extraction(optimization) {
        None => Ok(fuse_up_to(KERNEL_NODES[0], legal(graph, facts)?, facts)),
        Some(extraction) => Ok(optimized_plan(graph, facts, extraction)?.0),
    }
}

/// The plan that the optimiser makes.
fn optimized_plan(
    graph: &Graph,
    facts: &SystolicMachine,
    extraction: Extraction,
) -> Result<(Plan, Vec<BlockReport>), TargetError> {
    let Optimized { graph, groups, blocks, .. } =
        optimize(&*searched(graph)?, &SystolicCosts::new(facts), &legal::judge_fused(&facts.array), extraction)?;
    Ok((assembled(graph, groups, facts)?, blocks))
}

/// The plan of kernels that the optimiser has chosen.
pub(super) fn assembled(graph: Graph, groups: Vec<Group>, facts: &SystolicMachine) -> Result<Plan, TargetError> {
    let mut plan = assemble(graph, groups)?;
    store_parts(&mut plan, facts);
    arrange(&mut plan);
    Ok(plan)
}

/// The graph that the optimiser is given.
pub(super) fn searched(graph: &Graph) -> Result<Cow<'_, Graph>, TargetError> {
    Ok(integer_products(graph)?)
}

/// The graph in the operators that the machine runs.
pub(super) fn legal(graph: &Graph, facts: &SystolicMachine) -> Result<Graph, TargetError> {
    Ok(clean_up(&legalize(&*searched(graph)?, &legal::judge(&facts.array))?))
}

/// The plan without search, with so many nodes in a kernel at most.
pub(super) fn fuse_up_to(nodes: usize, legal: Graph, facts: &SystolicMachine) -> Plan {
    fuse(legal, FusionLimits { row_bytes: Bytes(u64::from(facts.scratchpad.bytes) / 8), nodes })
}

/// A plan, where its values lie, its program, and what is told of each kernel.
pub(super) type Lowered = (Plan, Layout, Code, Vec<LoweredKernel>);

/// Fuses as much as the scratchpad holds, and says how many nodes of a kernel that were.
fn lower_fused(machine: &Machine, facts: &SystolicMachine, graph: &Graph) -> Result<(Lowered, usize), TargetError> {
    let legal = legal(graph, facts)?;
    let mut does_not_fit = None;
    for nodes in KERNEL_NODES {
        match lower_plan(machine, facts, fuse_up_to(nodes, legal.clone(), facts)) {
            // Smaller kernels need more of DRAM, not less.
            Err(error) if matches!(&error, TargetError::DoesNotFit { memory, .. } if memory == "scratchpad") => {
                does_not_fit = Some(error);
            }
            result => return Ok((result?, nodes)),
        }
    }
    Err(does_not_fit.unwrap_or_else(|| TargetError::Fault("nothing was tried; please report this".to_owned())))
}

/// Lays a plan out and lowers it. Values stay on chip between kernels, unless a kernel then has too little left.
fn lower_plan(machine: &Machine, facts: &SystolicMachine, plan: Plan) -> Result<Lowered, TargetError> {
    let residence = Residence::new(&plan, &reads(&plan), facts);
    match lower_with(machine, facts, &plan, residence) {
        Err(TargetError::DoesNotFit { memory, .. }) if memory == "scratchpad" => {
            let (layout, code, kernels) = lower_with(machine, facts, &plan, Residence::default())?;
            Ok((plan, layout, code, kernels))
        }
        lowered => lowered.map(|(layout, code, kernels)| (plan, layout, code, kernels)),
    }
}

/// Lays a plan out around what stays on chip, and lowers it.
fn lower_with(
    machine: &Machine,
    facts: &SystolicMachine,
    plan: &Plan,
    residence: Residence,
) -> Result<(Layout, Code, Vec<LoweredKernel>), TargetError> {
    let fits_dram = |layout: &Layout| match layout.total_bytes {
        needed if needed > facts.dram.bytes => Err(TargetError::DoesNotFit {
            what: format!("model `{}`", plan.graph.name()),
            machine: machine.name.clone(),
            memory: "dram".to_owned(),
            needed,
            capacity: facts.dram.bytes,
            hint: "choose a machine with more memory, smaller dimensions, or a quantised model".to_owned(),
        }),
        _ => Ok(()),
    };
    let array_only = array_operands(plan, facts);
    let mut layout = Layout::new(plan, &|value| array_only[value.index()], residence);
    // What is far too large would take forever to cut into tiles; lowering may then add copies.
    fits_dram(&layout)?;
    let (code, kernels) = lower::lower(plan, &mut layout, facts)?;
    fits_dram(&layout)?;
    Ok((layout, code, kernels))
}

/// A program, and the plan that it was lowered from.
pub(super) struct Compiled {
    pub program: SystolicProgram,
    pub source: Source,
}

/// How the plan of a program was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// By the optimiser.
    Searched(PlanTaken, Extraction),
    /// By fusion without search, of so many nodes at most.
    Fused(PlanTaken, usize),
}

/// Compiles a graph: the optimiser's plans by either extraction and that of straightforward fusion are lowered, and the
/// fastest is taken, since what kernels cost by reckoning is not what a schedule takes.
pub(super) fn compile(
    machine: &Machine,
    facts: &SystolicMachine,
    graph: &Graph,
    optimization: Optimization,
) -> Result<Compiled, TargetError> {
    legal::check(machine, &facts.array, graph)?;
    let fused = |taken, blocks| {
        let (lowered, nodes) = lower_fused(machine, facts, graph)?;
        let program = program(machine, facts, graph.name(), lowered, blocks)?;
        Ok(Compiled { program, source: Source::Fused(taken, nodes) })
    };
    let Some(extraction) = extraction(optimization) else {
        return fused(PlanTaken::NotSearched, vec![Block::not_searched()]);
    };
    let (plan, blocks) = optimized_plan(graph, facts, extraction)?;
    let compared = passes(&plan, facts) <= COMPARED_PASSES;
    let mut blocks: Vec<Block> = blocks.iter().map(Block::from).collect();
    let optimized = match lower_plan(machine, facts, plan) {
        Err(TargetError::DoesNotFit { memory, .. }) if memory == "scratchpad" => {
            let why = "; its kernels do not fit the scratchpad, so that the plan without search was taken";
            blocks.iter_mut().for_each(|block| block.stopped.push_str(why));
            return fused(PlanTaken::FusionFits, blocks);
        }
        result => program(machine, facts, graph.name(), result?, blocks.clone())?,
    };
    let mut best = Compiled { program: optimized, source: Source::Searched(PlanTaken::Optimized, extraction) };
    if !compared {
        return Ok(best);
    }
    let mut others = Vec::new();
    let e_nodes: u64 = blocks.iter().map(|block| block.e_nodes).sum();
    if extraction != Extraction::Greedy && e_nodes <= COMPARED_NODES {
        let (plan, _) = optimized_plan(graph, facts, Extraction::Greedy)?;
        match lower_plan(machine, facts, plan) {
            Err(TargetError::DoesNotFit { memory, .. }) if memory == "scratchpad" => {}
            lowered => {
                let source = Source::Searched(PlanTaken::GreedilyExtracted, Extraction::Greedy);
                others.push(("greedily extracted", lowered?, source));
            }
        }
    }
    let (lowered, nodes) = lower_fused(machine, facts, graph)?;
    others.push(("without search", lowered, Source::Fused(PlanTaken::FusionIsFaster, nodes)));
    for (name, lowered, source) in others {
        let other = program(machine, facts, graph.name(), lowered, Vec::new())?;
        let (cycles, least) = (other.cycles(), best.program.cycles());
        // For next to nothing the plan that is proven stays; without search nothing may be faster at all.
        let faster = match source {
            Source::Searched(..) => cycles < least - least / NEXT_TO_NOTHING,
            Source::Fused(..) => cycles < least,
        };
        if faster {
            let why = format!("; scheduled, the plan {name} takes {} cycles less", least - cycles);
            blocks.iter_mut().for_each(|block| block.stopped.push_str(&why));
            best = Compiled { program: other.with_blocks(blocks.clone()), source };
        }
    }
    Ok(best)
}

/// Passes through the array that a plan's products take, which its instructions are counted by.
fn passes(plan: &Plan, facts: &SystolicMachine) -> u64 {
    let peak = facts.array.macs_per_cycle();
    plan.kernels
        .iter()
        .flat_map(tcc_ir::Kernel::nodes)
        .map(|id| {
            let node = plan.graph.node(id);
            let rows = plan.graph.shape(node.output()).iter().rev().nth(1).copied().unwrap_or(1) as u64;
            plan.graph.node_work(node).macs / peak / rows.clamp(1, u64::from(facts.array.block_rows()))
        })
        .sum()
}

/// Lowers a plan as it is.
#[cfg(test)]
pub(super) fn compile_plan(
    machine: &Machine,
    facts: &SystolicMachine,
    plan: Plan,
) -> Result<SystolicProgram, TargetError> {
    let name = plan.graph.name().clone();
    program(machine, facts, &name, lower_plan(machine, facts, plan)?, Vec::new())
}

/// The program of what was lowered.
fn program(
    machine: &Machine,
    facts: &SystolicMachine,
    name: &str,
    (plan, layout, code, lowered): Lowered,
    blocks: Vec<Block>,
) -> Result<SystolicProgram, TargetError> {
    let port = |name: &str, value: ValueId| -> Result<format::Port, TargetError> {
        let lost = || TargetError::Fault(format!("`{name}` has no place in memory; please report this"));
        let buffer = layout.buffer(value).ok_or_else(lost)?;
        let Place::Dram(address) = buffer.place else { return Err(lost()) };
        Ok(format::Port {
            name: name.to_owned(),
            dtype: plan.graph.ty(value).dtype.name().to_owned(),
            dims: plan.graph.shape(value).iter().map(|&dim| dim as u64).collect(),
            address,
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
        .zip(&lowered)
        .enumerate()
        .map(|(index, (kernel, lowered))| format::Kernel {
            name: format!("k{index} {}", kernel.anchor.kind()),
            origins: plan.origins(kernel),
            instructions: lowered.instructions as u64,
            macs: plan.macs(kernel),
            tiling: lowered.tiling.clone(),
        })
        .collect();
    let (reads, writes) = compulsory(&plan, &layout);
    let format = format::Program {
        model: name.to_owned(),
        inputs,
        outputs,
        code: Vec::new(),
        kernels,
        weights_bytes: layout.weights_bytes,
        dram_bytes: layout.total_bytes,
        activation_bytes: layout.peak_activations,
        compulsory_read_bytes: reads,
        compulsory_write_bytes: writes,
        blocks,
    };
    SystolicProgram::new(machine, facts, format, code, layout.constants)
}

/// Which values only the array reads, so that they may be stored as what it multiplies.
fn array_operands(plan: &Plan, facts: &SystolicMachine) -> Vec<bool> {
    let graph = &plan.graph;
    let mut array = vec![false; graph.value_count()];
    let mut other = vec![false; graph.value_count()];
    for node in plan.kernels.iter().flat_map(|kernel| kernel.nodes()).map(|id| graph.node(id)) {
        let on_array = matches!(node.op, Op::MatMul(_))
            && facts.array.multiplies(graph.ty(node.inputs[0]).dtype, graph.ty(node.inputs[1]).dtype);
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
    for node in plan.kernels.iter().flat_map(|kernel| kernel.nodes()).map(|id| graph.node(id)) {
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
        // Constants that follow from others lie among the weights too.
        let given = !matches!(value.def, Def::Node { .. }) || layout.is_weight(buffer);
        if given {
            let all = size(id, buffer.dtype);
            reads += if whole[id.index()] { all } else { rows[id.index()].min(all) };
        }
    }
    let writes = graph.outputs().iter().map(|output| size(output.value, storage(graph.ty(output.value).dtype))).sum();
    (reads, writes)
}
