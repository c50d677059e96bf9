//! Graphs with attention, compiled with kernels that hold it whole, and compared with the reference.

use tcc_ir::ops::{Attention, Broadcast, Reshape, Transpose};
use tcc_ir::{DType, Graph, NodeId, Op, Plan, Real, Shape, Tensor, TensorType, ValueId, Values, evaluate, is_view};
use tcc_passes::{Group, anchor_of, assemble, clean_up, legalize};

use super::super::attention_prologue_supported;
use crate::machine::{Kind, Machine};
use crate::systolic::compile::compile_plan;
use crate::systolic::{Systolic, legal};
use crate::target::{Optimization, Program, Target, TargetError};

pub(super) const PLAIN: Attention = Attention {
    scale: Real(1.0),
    softcap: Real(0.0),
    causal: None,
    window: None,
    mask: false,
    zero_masked_rows: false,
};

/// A graph under construction, with the inputs that it is run on.
pub(super) struct Bench {
    pub graph: Graph,
    pub inputs: Vec<Tensor>,
    pub dtype: DType,
    seed: u64,
}

pub(super) fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims.iter().copied()).unwrap()
}

impl Bench {
    pub fn new(dtype: DType) -> Self {
        Bench { graph: Graph::new("attention"), inputs: Vec::new(), dtype, seed: 1 }
    }

    /// Numbers that are spread about evenly from -2 to 2.
    pub fn numbers(&mut self, count: usize) -> Vec<f32> {
        self.seed = self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678_9abc_def1);
        let mut state = self.seed;
        (0..count)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 40) as f32 / (1u64 << 22) as f32 - 2.0
            })
            .collect()
    }

    pub fn floats(&mut self, dims: &[usize], numbers: Vec<f32>) -> ValueId {
        let ty = TensorType::new(self.dtype, shape(dims));
        let values = if self.dtype == DType::F64 {
            Values::F64(numbers.into_iter().map(f64::from).collect())
        } else {
            Values::F32(numbers.into())
        };
        self.input(Tensor::narrow(ty, values))
    }

    pub fn input(&mut self, tensor: Tensor) -> ValueId {
        let id = self.graph.add_input(format!("x{}", self.inputs.len()), tensor.ty().clone());
        self.inputs.push(tensor);
        id
    }

    pub fn random(&mut self, dims: &[usize]) -> ValueId {
        let numbers = self.numbers(dims.iter().product());
        self.floats(dims, numbers)
    }

    pub fn bools(&mut self, dims: &[usize], value: impl Fn(usize) -> bool) -> ValueId {
        let values = (0..dims.iter().product()).map(value).collect();
        self.input(Tensor::from_bools(shape(dims), values).unwrap())
    }

    pub fn add(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> ValueId {
        let op = op.into();
        self.graph.set_origin(op.name());
        self.graph.add(op, inputs).unwrap()
    }

    pub fn constant(&mut self, value: f64) -> ValueId {
        self.graph.constant(Tensor::scalar_of(self.dtype, value))
    }

    pub fn reshape(&mut self, value: ValueId, dims: &[usize]) -> ValueId {
        self.add(Reshape { shape: shape(dims) }, &[value])
    }

    pub fn transpose(&mut self, value: ValueId, perm: &[usize]) -> ValueId {
        self.add(Transpose { perm: perm.to_vec() }, &[value])
    }

    pub fn broadcast(&mut self, value: ValueId, dims: &[usize]) -> ValueId {
        self.add(Broadcast { shape: shape(dims) }, &[value])
    }

    pub fn output(&mut self, value: ValueId) {
        let name = format!("y{}", self.graph.outputs().len());
        self.graph.add_output(name, value);
    }
}

/// The default machine.
pub(super) fn usual() -> Machine {
    Machine::default_of(Kind::Systolic).unwrap().unwrap()
}

/// A machine with a square array, a scratchpad of so many bytes and accumulators of so many rows.
pub(super) fn machine(array: u32, scratchpad: u32, accumulators: u32) -> Machine {
    let mut machine = usual();
    let facts = machine.systolic.as_mut().unwrap();
    (facts.array.rows, facts.array.columns) = (array, array);
    facts.scratchpad.bytes = scratchpad;
    facts.accumulators.rows = accumulators;
    (facts.vector.lanes, facts.vector.special_lanes, facts.vector.strided_lanes) = (array, (array / 4).max(1), 1);
    facts.sequencer.queue_depth = 8;
    machine
}

/// A plan in which every attention is the anchor of a kernel with all of its prologue that there can be.
pub(super) fn plan(graph: &Graph) -> Plan {
    let graph = clean_up(&legalize(graph, &legal::judge_fused(&usual().systolic.unwrap().array)).unwrap());
    let mut taken = vec![false; graph.node_count()];
    let mut groups = Vec::new();
    let position = |id: NodeId| graph.nodes().position(|(node, _)| node == id).unwrap();
    for (id, node) in graph.nodes() {
        if !matches!(node.op, Op::Attention(_)) {
            continue;
        }
        let mut prologue: Vec<NodeId> = Vec::new();
        for (candidate, node) in graph.nodes().rev() {
            let free = !is_view(&node.op) && candidate != id && !taken[position(candidate)];
            let mut grown = prologue.clone();
            grown.insert(0, candidate);
            if free && attention_prologue_supported(&graph, id, &grown).is_ok() {
                prologue = grown;
            }
        }
        prologue.iter().for_each(|&node| taken[position(node)] = true);
        taken[position(id)] = true;
        groups.push(Group { anchor: tcc_ir::Anchor::Attention(id), prologue, epilogue: Vec::new(), segment: 0 });
    }
    for (id, node) in graph.nodes() {
        if taken[position(id)] || is_view(&node.op) {
            continue;
        }
        groups.push(match anchor_of(id, &node.op) {
            Some(anchor) => Group { anchor, prologue: Vec::new(), epilogue: Vec::new(), segment: 0 },
            None => Group { anchor: tcc_ir::Anchor::ElementWise, prologue: Vec::new(), epilogue: vec![id], segment: 0 },
        });
    }
    assemble(graph, groups).unwrap()
}

/// Compiles a plan.
pub(super) fn compile(plan: Plan, machine: &Machine) -> Result<impl Program + use<>, TargetError> {
    compile_plan(machine, machine.systolic.as_ref().unwrap(), plan)
}

/// Runs a program; its results and its cycles.
pub(super) fn run(program: &dyn Program, inputs: &[Tensor]) -> Result<(Vec<Tensor>, u64), TargetError> {
    let mut weights = Vec::new();
    program.write_weights(&mut weights).unwrap();
    let simulation = program.simulate(&weights, inputs)?;
    Ok((simulation.outputs, simulation.cycles))
}

/// Fails unless two tensors agree as products of bf16 do: 35 dB, with infinities and NaN in the same places.
pub(super) fn agree(actual: &Tensor, expected: &Tensor, what: &str) {
    assert_eq!(actual.ty(), expected.ty(), "{what}");
    let (actual, expected) = (actual.to_f64s().unwrap(), expected.to_f64s().unwrap());
    let (mut signal, mut noise) = (0.0, 0.0);
    for (index, (&a, &e)) in actual.iter().zip(expected.iter()).enumerate() {
        if !e.is_finite() || !a.is_finite() {
            assert!(a == e || (a.is_nan() && e.is_nan()), "{what}: element {index} is {a}, not {e}");
            continue;
        }
        signal += e * e;
        noise += (a - e) * (a - e);
    }
    let ratio = 10.0 * (signal / f64::max(noise, 1e-300)).log10();
    assert!(noise == 0.0 || ratio >= 35.0, "{what}: {ratio:.1} dB");
}

/// Runs a graph with whole attention kernels and compares all its outputs with the reference. How it was tiled.
pub(super) fn check(bench: &Bench, machine: &Machine, what: &str) -> String {
    let plan = plan(&bench.graph);
    let attentions = plan.kernels.iter().filter(|kernel| kernel.anchor.kind() == "attention").count();
    assert!(attentions > 0, "{what}: no attention was kept\n{plan}");
    let text = plan.to_string();
    let program = compile(plan, machine).unwrap_or_else(|error| panic!("{what}: {error}\n{text}"));
    let tilings = program.schedule_text();
    let (actual, _) = run(&program, &bench.inputs).unwrap_or_else(|error| panic!("{what}: {error}\n{text}\n{tilings}"));
    let expected = evaluate(&bench.graph, &bench.inputs).unwrap();
    for (index, (actual, expected)) in actual.iter().zip(&expected).enumerate() {
        agree(actual, expected, &format!("{what}, output {index}\n{text}{tilings}"));
    }
    text
}

/// Cycles of a graph with whole attention kernels, and with the kernels that it is decomposed to otherwise.
pub(super) fn cycles(bench: &Bench, machine: &Machine) -> [u64; 2] {
    let program = compile(plan(&bench.graph), machine).unwrap();
    println!("{}", program.schedule_text());
    let report = program.report();
    let whole = report.cycles;
    let parts =
        Systolic::new(machine.clone()).unwrap().compile(&clean_up(&bench.graph), Optimization::None).unwrap().report();
    [whole, parts.cycles]
}
