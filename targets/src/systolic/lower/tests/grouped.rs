//! Plans with kernels as large as the lowering takes, executed and compared with the reference.

use tcc_ir::{Anchor, DType, Graph, Op, Plan, Shape, Tensor, TensorType, ValueId, evaluate, is_view, text};
use tcc_passes::{Group, anchor_of, assemble, clean_up, derived_constants};

use crate::machine::{Kind, Machine};
use crate::systolic::compile::{compile_plan, legal};
use crate::target::{Program as _, TargetError};

/// The default machine with another array, and a scratchpad and accumulators as small as given.
pub fn machine(array: u32, scratchpad: u32, accumulators: u32) -> Machine {
    let mut machine = Machine::default_of(Kind::Systolic).unwrap().unwrap();
    let facts = machine.systolic.as_mut().unwrap();
    (facts.array.rows, facts.array.columns) = (array, array);
    facts.scratchpad.bytes = scratchpad;
    facts.accumulators.rows = accumulators;
    machine
}

/// The default machine as it is.
pub fn default_machine() -> Machine {
    machine(128, 16 << 20, 4096)
}

/// Each product with all element-wise work and reductions along its rows that follow; everything else by itself.
pub fn groups(graph: &Graph) -> Vec<Group> {
    let derived = derived_constants(graph);
    let mut home: Vec<Option<usize>> = vec![None; graph.value_count()];
    let mut root: Vec<ValueId> = graph.values().map(|(id, _)| id).collect();
    let mut groups: Vec<Group> = Vec::new();
    for (id, node) in graph.nodes() {
        if is_view(&node.op) {
            root[node.output().index()] = root[node.inputs[0].index()];
            continue;
        }
        if derived[node.output().index()] {
            continue;
        }
        let last = node.inputs.iter().filter_map(|input| home[root[input.index()].index()]).max();
        let joined = last.filter(|&group| {
            let Some(product) = groups[group].anchor.node().map(|product| graph.node(product).output()) else {
                return false;
            };
            let whole = graph.shape(product);
            let of_row = |shape: &Shape| {
                shape.rank() == whole.rank()
                    && shape[..whole.rank() - 1] == whole[..whole.rank() - 1]
                    && shape[whole.rank() - 1] == 1
            };
            let fits = |value: ValueId| graph.shape(value) == whole || of_row(graph.shape(value));
            let as_it_is = node.inputs.iter().all(|input| {
                home[root[input.index()].index()] != Some(group) || (root[input.index()] == *input && fits(*input))
            });
            let allowed = match &node.op {
                Op::Reduce(reduce) => reduce.axes == [whole.rank() - 1] && graph.shape(node.inputs[0]) == whole,
                op => anchor_of(id, op).is_none(),
            };
            matches!(groups[group].anchor, Anchor::Contraction(_)) && allowed && as_it_is && fits(node.output())
        });
        let group = joined.unwrap_or_else(|| {
            let (anchor, epilogue) = match anchor_of(id, &node.op) {
                Some(anchor) => (anchor, Vec::new()),
                None => (Anchor::ElementWise, vec![id]),
            };
            groups.push(Group { anchor, prologue: Vec::new(), epilogue, segment: 0 });
            groups.len() - 1
        });
        if joined.is_some() {
            groups[group].epilogue.push(id);
        }
        node.outputs.iter().for_each(|output| home[output.index()] = Some(group));
    }
    groups
}

/// A graph in the machine's terms, from its text.
pub fn parse(source: &str) -> Graph {
    legal(&clean_up(&text::parse(source).unwrap()), default_machine().systolic.as_ref().unwrap()).unwrap()
}

pub fn plan(graph: &Graph) -> Plan {
    assemble(graph.clone(), groups(graph)).unwrap()
}

/// What became of a plan.
pub struct Run {
    pub outputs: Vec<Tensor>,
    pub expected: Vec<Tensor>,
    pub weights: Vec<u8>,
}

/// Lowers a plan, executes it and evaluates its graph.
pub fn run(plan: Plan, machine: &Machine, inputs: &[Tensor]) -> Result<Run, TargetError> {
    let expected = evaluate(&plan.graph, inputs).unwrap();
    let program = compile_plan(machine, machine.systolic.as_ref().unwrap(), plan)?;
    let mut weights = Vec::new();
    program.write_weights(&mut weights).unwrap();
    let simulation = program.simulate(&weights, inputs)?;
    assert_eq!(program.report().cycles, simulation.cycles);
    Ok(Run { outputs: simulation.outputs, expected, weights })
}

impl Run {
    /// Asserts that floats are off by no more than `tolerance` of the greatest of the reference, and all else not at all.
    pub fn check(&self, tolerance: f64, what: &str) {
        assert_eq!(self.outputs.len(), self.expected.len());
        for (index, (actual, expected)) in self.outputs.iter().zip(&self.expected).enumerate() {
            assert_eq!(actual.ty(), expected.ty(), "{what}: output {index}");
            let (actual, expected) = (actual.to_f64s().unwrap(), expected.to_f64s().unwrap());
            let largest = expected.iter().filter(|x| x.is_finite()).fold(1e-30f64, |most, x| most.max(x.abs()));
            for (at, (a, b)) in actual.iter().zip(&expected).enumerate() {
                let close = a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance * largest;
                assert!(close, "{what}: output {index} at {at} is {a}, not {b}");
            }
        }
    }
}

/// Small whole numbers that look random, of any type.
pub fn numbers(seed: u64, ty: &TensorType) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as i64 % 7 - 3
    };
    let count = ty.shape.count();
    match ty.dtype {
        DType::F32 => Tensor::from_vec(ty.shape.clone(), (0..count).map(|_| next() as f32).collect()).unwrap(),
        DType::F64 => Tensor::from_vec(ty.shape.clone(), (0..count).map(|_| next() as f64).collect()).unwrap(),
        DType::F16 => {
            let numbers = (0..count).map(|_| half::f16::from_f32(next() as f32));
            Tensor::from_vec(ty.shape.clone(), numbers.collect()).unwrap()
        }
        DType::U8 => Tensor::from_vec(ty.shape.clone(), (0..count).map(|_| (next() + 3) as u8).collect()).unwrap(),
        DType::I8 => Tensor::from_vec(ty.shape.clone(), (0..count).map(|_| next() as i8).collect()).unwrap(),
        DType::I32 => Tensor::from_vec(ty.shape.clone(), (0..count).map(|_| next() as i32).collect()).unwrap(),
        DType::I64 => Tensor::from_vec(ty.shape.clone(), (0..count).map(|_| next()).collect()).unwrap(),
        other => panic!("no numbers of type {other}"),
    }
}

/// Numbers for all inputs of a graph.
pub fn inputs(graph: &Graph) -> Vec<Tensor> {
    graph.inputs().iter().enumerate().map(|(index, &id)| numbers(index as u64 + 1, graph.ty(id))).collect()
}

/// Runs a graph with kernels as large as they get, of which there must be `kernels`, and checks its results.
pub fn check(source: &str, machine: &Machine, kernels: usize, tolerance: f64) -> Run {
    let graph = parse(source);
    let plan = plan(&graph);
    assert_eq!(plan.kernels.len(), kernels, "{plan}");
    let run = run(plan, machine, &inputs(&graph)).unwrap_or_else(|error| panic!("{error}\n{source}"));
    run.check(tolerance, source);
    run
}
