//! Element-wise work on chains of ALUs: one instruction of each ALU for every vector, in cycles that follow each other.
//!
//! An ALU finds what another has computed only in the cycle in which that is ready. So every step of a chain stands on a
//! *level*, a whole number of the vector unit's latency after the first; what is needed on a later level than it is there goes
//! through copies. Operands from memory are read for the level on which they are needed first.

use smallvec::SmallVec;
use tcc_ir::DType;
use tcc_ir::ops::{BinaryFn, UnaryFn};

use crate::lpu::LpuMachine;
use crate::lpu::isa::{Accumulation, Alu, AluFn, Number, Operand, Operation, Queue};
use crate::lpu::schedule::{FlowBuilder, Planes, Pool, TrainId};

/// What a step computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Function {
    Copy,
    Unary(UnaryFn),
    Binary(BinaryFn),
    Select,
    Accumulate(Accumulation),
}

/// An operand of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Arg {
    /// An operand of the chain.
    Leaf(usize),
    /// An earlier step.
    Step(usize),
    Number(Number),
}

/// A step of a chain.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    pub function: Function,
    pub args: SmallVec<[Arg; 3]>,
    /// The elements that its result is, where it is stored.
    pub dtype: DType,
}

/// Steps in an order in which each comes after what it uses, with the types of the operands.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Chain {
    pub steps: Vec<Step>,
    pub leaves: Vec<DType>,
}

/// A chain whose steps have levels, with the copies that this takes.
#[derive(Clone, Debug)]
pub(super) struct Levelled {
    /// Steps and copies, each with its level; operands are exact in time.
    steps: Vec<(Step, usize)>,
    /// For each leaf the level on which it is read; none if nothing uses it.
    pub leaf_levels: Vec<Option<usize>>,
    leaves: Vec<DType>,
    /// Where the steps of the chain are among them.
    places: Vec<usize>,
}

impl Chain {
    /// Gives every step its level.
    pub fn level(&self) -> Levelled {
        let mut levels: Vec<usize> = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let level = step.args.iter().map(|arg| if let Arg::Step(other) = arg { levels[*other] + 1 } else { 0 });
            levels.push(level.max().unwrap_or(0));
        }
        // As late as its users allow, so that fewer copies are needed.
        let mut latest: Vec<Option<usize>> = vec![None; self.steps.len()];
        for (index, step) in self.steps.iter().enumerate().rev() {
            if let Some(latest) = latest[index] {
                levels[index] = latest;
            }
            for arg in &step.args {
                if let Arg::Step(other) = arg {
                    let before = levels[index] - 1;
                    latest[*other] = Some(latest[*other].map_or(before, |other| other.min(before)));
                }
            }
        }
        let mut leaf_levels: Vec<Option<usize>> = vec![None; self.leaves.len()];
        for (step, &level) in self.steps.iter().zip(&levels) {
            for arg in &step.args {
                if let Arg::Leaf(leaf) = arg {
                    let known = &mut leaf_levels[*leaf];
                    *known = Some(known.map_or(level, |known| known.min(level)));
                }
            }
        }
        let mut levelled = Levelled { steps: Vec::new(), leaf_levels, leaves: self.leaves.clone(), places: Vec::new() };
        // For each leaf and step the copies that delay it, by how many levels.
        let mut leaf_copies: Vec<Vec<usize>> = vec![Vec::new(); self.leaves.len()];
        let mut step_copies: Vec<Vec<usize>> = vec![Vec::new(); self.steps.len()];
        for (step, &level) in self.steps.iter().zip(&levels) {
            let args = step.args.iter().map(|&arg| match arg {
                Arg::Number(_) => arg,
                Arg::Leaf(leaf) => {
                    let read = levelled.leaf_levels[leaf].unwrap_or(level);
                    levelled.delayed(arg, self.leaves[leaf], read, level - read, &mut leaf_copies[leaf])
                }
                Arg::Step(other) => {
                    let place = Arg::Step(levelled.places[other]);
                    let ready = levels[other] + 1;
                    levelled.delayed(place, self.steps[other].dtype, ready, level - ready, &mut step_copies[other])
                }
            });
            let args = args.collect();
            levelled.places.push(levelled.steps.len());
            levelled.steps.push((Step { args, ..step.clone() }, level));
        }
        levelled
    }
}

impl Levelled {
    /// An operand that is there on level `from`, so many levels later.
    fn delayed(&mut self, arg: Arg, dtype: DType, from: usize, by: usize, copies: &mut Vec<usize>) -> Arg {
        while copies.len() < by {
            let source = copies.last().map_or(arg, |&copy| Arg::Step(copy));
            let level = from + copies.len();
            copies.push(self.steps.len());
            self.steps.push((Step { function: Function::Copy, args: SmallVec::from_slice(&[source]), dtype }, level));
        }
        if by == 0 { arg } else { Arg::Step(copies[by - 1]) }
    }

    /// ALUs that it takes.
    pub fn alus(&self) -> usize {
        self.steps.len()
    }
}

/// Where an operand of a chain comes from.
pub(super) enum Input {
    /// From memory: the planes for each vector.
    Memory(Vec<Planes>),
    /// On a train that comes to the vector unit with the first vector in a cycle.
    Train(TrainId),
}

/// What becomes of a step's result.
pub(super) struct Output {
    /// The step.
    pub step: usize,
    /// The elements that are stored.
    pub dtype: DType,
    /// For each vector the planes that it goes to, if it goes anywhere.
    pub to: Vec<Option<Planes>>,
}

/// Adds a chain's work on `vectors` vectors to a flow, the first of which is on level 0 in cycle `start`. A running result begins
/// anew where `first` says.
pub(super) fn add_chain(
    flow: &mut FlowBuilder<'_>,
    machine: &LpuMachine,
    chain: &Levelled,
    start: i64,
    inputs: &[Input],
    outputs: &[Output],
    first: &[bool],
) {
    let vectors = first.len();
    let latency = i64::from(machine.vxm.latency);
    let middle = machine.position(Queue::Alu(0));
    let cycle = |level: usize, vector: usize| start + level as i64 * latency + vector as i64;
    let trains: Vec<Option<TrainId>> = inputs
        .iter()
        .zip(&chain.leaf_levels)
        .map(|(input, level)| match (input, level) {
            (_, None) => None,
            (Input::Train(train), _) => Some(*train),
            (Input::Memory(planes), Some(level)) => {
                let steps = planes.iter().enumerate().map(|(vector, planes)| (cycle(*level, vector), planes.clone()));
                Some(flow.load(middle, steps))
            }
        })
        .collect();
    for (place, (step, level)) in chain.steps.iter().enumerate() {
        let output = outputs.iter().find(|output| chain.places[output.step] == place);
        let to = output.map(|output| {
            let driven = |vector: usize| cycle(level + 1, vector);
            let steps = output.to.iter().enumerate();
            let steps = steps.filter_map(|(vector, to)| to.clone().map(|planes| (driven(vector), planes)));
            (flow.store(middle, steps), output)
        });
        let operand = |arg: &Arg| match *arg {
            Arg::Number(number) => Operand::Number(number),
            Arg::Step(other) => Operand::Alu(other as u8),
            Arg::Leaf(leaf) => match trains[leaf] {
                Some(train) => Operand::Stream(flow.take(train), chain.leaves[leaf]),
                None => Operand::Number(Number::Integer(0)),
            },
        };
        let operands: SmallVec<[Operand; 3]> = step.args.iter().map(operand).collect();
        let operations = (0..vectors).map(|vector| {
            let function = match (step.function, &operands[..]) {
                (Function::Unary(function), [a]) => AluFn::Unary(function, *a),
                (Function::Binary(function), [a, b]) => AluFn::Binary(function, [*a, *b]),
                (Function::Select, [a, b, c]) => AluFn::Select([*a, *b, *c]),
                (Function::Accumulate(function), [a]) => {
                    AluFn::Accumulate { function, first: first[vector], operand: *a }
                }
                (_, operands) => AluFn::Copy(operands[0]),
            };
            let result = to
                .as_ref()
                .and_then(|(train, output)| output.to[vector].is_some().then_some((flow.stream(*train), output.dtype)));
            (cycle(*level, vector), Operation::Alu(Alu { function, result }))
        });
        let operations = operations.collect();
        flow.unit(Pool::Alu(place as u8), operations);
    }
}
