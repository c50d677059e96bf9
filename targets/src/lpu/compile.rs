//! From a graph to a program: legalise, fuse, lower, emit.

use std::sync::Arc;

use tcc_ir::{Bytes, Graph, Op, Plan, ValueId};
use tcc_passes::{
    FusionLimits, KernelExplanation, Optimized, Outline, Places, assemble_with_copies, derived_constants, fuse,
    integer_products, optimize, optimize_explained,
};

use super::constants::Constant;
use super::cost::LpuCosts;
use super::emit::emit;
use super::layout::Layout;
use super::lower::{Lowered, is_rounded_table, lower};
use super::program::{KernelPart, Parts};
use super::shelf::{self, Columns};
use super::{LpuMachine, LpuProgram, legal};
use crate::machine::Machine;
use crate::optimizer::{Block, extraction};
use crate::stored::storage;
use crate::target::{Optimization, Port, TargetError};
use crate::weights::Weights;

/// Most nodes in one kernel. What its values are kept in is memory all the same, so that more would only be told together.
const KERNEL_NODES: usize = 48;

/// A plan, and how it came about.
pub(super) struct Planned {
    pub plan: Plan,
    /// Its kernels, as they are told of.
    pub outline: Outline,
    /// What the optimiser did.
    blocks: Vec<Block>,
    /// Why kernels are as they are, where that was asked for.
    pub explanations: Vec<Vec<KernelExplanation>>,
}

/// The plan that is lowered, explained or not.
///
/// # Errors
/// The machine has no way to compute an operator, or a defect of the optimiser.
pub(super) fn plan(
    machine: &Machine,
    facts: &LpuMachine,
    graph: &Graph,
    optimization: Optimization,
    explained: bool,
) -> Result<Planned, TargetError> {
    legal::check(machine, graph)?;
    let searched = integer_products(graph)?;
    let Some(extraction) = extraction(optimization) else {
        let plan = fuse(legal::legal(graph)?, FusionLimits { row_bytes: Bytes(u64::MAX), nodes: KERNEL_NODES });
        let outline = Outline::of_fused(&plan, &searched);
        return Ok(Planned { plan, outline, blocks: vec![Block::not_searched()], explanations: Vec::new() });
    };
    let (costs, judge) = (LpuCosts::new(facts), legal::judge_fused(facts));
    let (optimized, explanations) = match explained {
        true => optimize_explained(&searched, &costs, &judge, extraction)?,
        false => (optimize(&searched, &costs, &judge, extraction)?, Vec::new()),
    };
    let Optimized { graph, groups, places, blocks } = optimized;
    let places = Places::new(&groups, &places);
    let plan = assemble_with_copies(graph, groups)?;
    let outline = Outline::of_optimized(&plan, &places, &blocks);
    Ok(Planned { plan, outline, blocks: blocks.iter().map(Block::from).collect(), explanations })
}

/// Compiles a cleaned-up graph.
///
/// # Errors
/// The machine has no way to compute an operator, or the memory does not hold the model.
pub(super) fn compile(
    machine: &Machine,
    facts: &LpuMachine,
    graph: &Graph,
    planned: Planned,
) -> Result<LpuProgram, TargetError> {
    let Planned { plan, blocks, .. } = planned;
    let Lowered { placed, counts, constants, inputs, outputs, tilings, used_vectors, frugal } =
        lower(machine, facts, &plan).map_err(|error| with_chips(error, &plan, facts))?;
    let emitted = emit(placed, facts).map_err(|error| TargetError::Fault(error.to_string()))?;
    let port = |name: &str, value: ValueId, layout: Arc<Layout>| {
        let ty = plan.graph.ty(value).clone();
        (Port { name: name.to_owned(), ty }, (*layout).clone())
    };
    let own = &plan.graph;
    let kernels = plan.kernels.iter().zip(tilings).enumerate().map(|(index, (kernel, tiling))| KernelPart {
        name: plan.kernel_name(index),
        origins: plan.origins(kernel),
        macs: plan.macs(kernel),
        tiling,
    });
    let kernels: Vec<KernelPart> = kernels.collect();
    let stretches = constants.iter().flat_map(Constant::stretches).collect();
    let bound = Bound::of(&plan, facts);
    let rounded_tables = constants.iter().any(Constant::is_rounded_table);
    let parts = Parts {
        model: graph.name().to_string(),
        inputs: own.inputs().iter().zip(inputs).map(|(&id, layout)| port(&own.value(id).name, id, layout)).collect(),
        outputs: own.outputs().iter().zip(outputs).map(|(out, layout)| port(&out.name, out.value, layout)).collect(),
        marks: if kernels.is_empty() { vec![Vec::new(); emitted.marks.len()] } else { emitted.marks },
        queues: emitted.queues,
        kernels,
        stretches,
        weights: Some(Weights::new(move |out| constants.iter().try_for_each(|constant| constant.write(out)))),
        counts,
        blocks,
        work_cycles: bound.work_cycles,
        weight_vectors_multiplied: bound.weight_vectors,
        used_vectors,
        rounded_tables,
        frugal,
        host_ops: Vec::new(),
    };
    LpuProgram::new(machine, facts, parts)
}

/// What the products of a plan take at the least.
struct Bound {
    work_cycles: u64,
    /// Columns of constant weights, all byte planes counted.
    weight_vectors: u64,
}

impl Bound {
    fn of(plan: &Plan, facts: &LpuMachine) -> Bound {
        let (graph, derived) = (&plan.graph, derived_constants(&plan.graph));
        let (mut bytes, mut halves, mut weight_vectors) = (0u64, 0u64, 0u64);
        for node in plan.kernels.iter().flat_map(|kernel| kernel.nodes()).map(|id| graph.node(id)) {
            if matches!(node.op, Op::Attention(_)) {
                halves += graph.node_work(node).macs;
            }
            let Op::MatMul(product) = &node.op else { continue };
            let float = graph.ty(node.inputs[0]).dtype.is_float();
            *(if float { &mut halves } else { &mut bytes }) += graph.node_work(node).macs;
            let weights = node.inputs[1];
            if derived[weights.index()] || graph.as_constant(weights).is_some() {
                weight_vectors += weight_columns(Columns::of(product, graph.shape(weights)), float, facts);
            }
        }
        let work_cycles = bytes.div_ceil(facts.byte_macs_per_cycle()) + halves.div_ceil(facts.half_macs_per_cycle());
        Bound { work_cycles, weight_vectors }
    }
}

/// Vectors of weights that are loaded, all byte planes counted. Those of halves may share one with others.
fn weight_columns(columns: Columns, float: bool, facts: &LpuMachine) -> u64 {
    let lanes = facts.vector();
    match float {
        true => columns.halves(lanes) as u64,
        false => (columns.batch * columns.n * columns.k.div_ceil(lanes)) as u64,
    }
}

/// Says of a model that does not fit how many chips it needs: by the vectors that its weights, its other constants and the
/// values that are alive at the same time take.
fn with_chips(error: TargetError, plan: &Plan, facts: &LpuMachine) -> TargetError {
    let TargetError::DoesNotFit { what, machine, memory, capacity, .. } = error else { return error };
    let needed = needed_vectors(plan, facts) * facts.vector() as u64;
    let chips = needed.div_ceil(capacity).max(2);
    let hint = format!(
        "it takes {chips} chips, and programs for several are not made yet; choose smaller dimensions, or --quantize int8"
    );
    match needed > capacity {
        true => TargetError::DoesNotFit { what, machine, memory, needed, capacity, hint },
        false => TargetError::Scattered { what, machine, memory, needed, capacity, hint },
    }
}

fn needed_vectors(plan: &Plan, facts: &LpuMachine) -> u64 {
    let graph = &plan.graph;
    let derived = derived_constants(graph);
    let vector = facts.vector();
    let constant = |value: ValueId| derived[value.index()] || graph.as_constant(value).is_some();
    let rows = |value: ValueId| {
        let (rows, columns) = Layout::matrix(graph.shape(value));
        let planes = storage(graph.ty(value).dtype).bits() / 8;
        (rows * columns.div_ceil(vector) * planes) as u64
    };
    let mut counted = vec![false; graph.value_count()];
    let mut constants = 0;
    let mut halves = Vec::new();
    // Values from the kernel that computes them to the last that reads them.
    let mut last = vec![0usize; graph.value_count()];
    for (index, kernel) in plan.kernels.iter().enumerate() {
        for node in kernel.nodes().map(|id| graph.node(id)) {
            for (place, &input) in node.inputs.iter().enumerate() {
                let root = plan.access(input).root;
                last[root.index()] = index;
                if !constant(input) || std::mem::replace(&mut counted[input.index()], true) {
                    continue;
                }
                constants += match &node.op {
                    Op::MatMul(product) if place == 1 => {
                        let columns = Columns::of(product, graph.shape(input));
                        if graph.ty(input).dtype.is_float() {
                            halves.push(columns);
                            (2 * columns.batch * columns.n * columns.whole(vector)) as u64
                        } else {
                            weight_columns(columns, false, facts)
                        }
                    }
                    Op::Gather(_) if place == 0 && is_rounded_table(graph.ty(input), facts) => {
                        let (rows, columns) = Layout::matrix(graph.shape(input));
                        (rows * columns.div_ceil(vector / 2)) as u64
                    }
                    _ => rows(input),
                };
            }
        }
    }
    let width = facts.mxm.load_streams as usize;
    constants += (2 * width * shelf::Plan::new(&halves, vector, width).groups) as u64;
    let (mut alive, mut most) = (graph.inputs().iter().map(|&input| rows(input)).sum::<u64>(), 0);
    let mut dying: Vec<u64> = vec![0; plan.kernels.len()];
    for (index, kernel) in plan.kernels.iter().enumerate() {
        for &output in &kernel.outputs {
            let vectors = rows(output);
            alive += vectors;
            dying[last[output.index()].max(index)] += vectors;
        }
        most = most.max(alive);
        alive -= dying[index].min(alive);
    }
    constants + most
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use tcc_ir::ops::MatMul;
    use tcc_ir::{DType, Shape, TensorType};

    use super::*;
    use crate::lpu::machine::tests::small_machine;

    /// A product with weights of so many columns of 20 numbers, which take 2.5 vectors of 8 lanes and two bytes each.
    fn product(columns: usize) -> Plan {
        let mut graph = Graph::new("product");
        let ty = |dims: [usize; 2]| TensorType::new(DType::F32, Shape::new(dims).unwrap());
        let x = graph.add_input("x", ty([4, 20]));
        let w = graph
            .constant(tcc_ir::Tensor::from_vec(Shape::new([20, columns]).unwrap(), vec![1f32; 20 * columns]).unwrap());
        let y = graph.add(MatMul::default(), &[x, w]).unwrap();
        graph.add_output("y", y);
        fuse(graph, FusionLimits { row_bytes: Bytes(u64::MAX), nodes: KERNEL_NODES })
    }

    fn told(columns: usize) -> TargetError {
        let facts = small_machine();
        let error = TargetError::DoesNotFit {
            what: "model `product`".to_owned(),
            machine: "small".to_owned(),
            memory: "sram".to_owned(),
            needed: u64::MAX,
            capacity: facts.memory_bytes(),
            hint: String::new(),
        };
        with_chips(error, &product(columns), &facts)
    }

    #[test]
    fn models_that_are_too_large_are_told_what_they_need() {
        // 8 slices of 128 vectors of 8 bytes. Rows of x and y have 4 bytes in each lane.
        assert_eq!(small_machine().memory_bytes(), 8192);
        let vectors = |columns: u64| 5 * columns + 4 * 3 * 4 + 4 * columns.div_ceil(8) * 4;
        let needed = 8 * vectors(400);
        let message = format!(
            "model `product` needs {needed} bytes of small's sram, which has 8192; it takes {} chips, and programs for several \
             are not made yet; choose smaller dimensions, or --quantize int8",
            needed.div_ceil(8192)
        );
        assert_eq!(told(400).to_string(), message);
        let message = told(96).to_string();
        let start =
            format!("model `product` needs {} of the 8192 bytes of small's sram, but what is free", 8 * vectors(96));
        assert!(message.starts_with(&start) && message.contains("it takes 2 chips"), "{message}");
    }
}
