//! What a kind of machine answers to the compiler.

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::PathBuf;

use tcc_ir::{Graph, Tensor};
use tcc_passes::Outline;

use crate::explanation::Explanation;
use crate::machine::Machine;
use crate::report::Report;

/// Something that models can be compiled for: one kind of machine with the facts of one machine.
pub trait Target: Send + Sync {
    /// The machine.
    fn machine(&self) -> &Machine;

    /// Whether what the machine has for products multiplies floats. Otherwise a model with weights of floats must be quantised,
    /// and what products of floats are left go to a slower unit.
    fn multiplies_floats(&self) -> bool;

    /// Compiles a cleaned-up graph to a program with a fixed schedule.
    fn compile(&self, graph: &Graph, optimization: Optimization) -> Result<Box<dyn Program>, TargetError>;

    /// [`Target::compile`] with the same program, and why its kernels are what they are. Takes more time.
    fn compile_explained(
        &self,
        graph: &Graph,
        optimization: Optimization,
    ) -> Result<(Box<dyn Program>, Explanation), TargetError>;

    /// The kernels that a cleaned-up graph becomes, before it is known how they are scheduled.
    fn outline(&self, graph: &Graph, optimization: Optimization) -> Result<Outline, TargetError>;

    /// Reads a program that [`Program::encode`] wrote. The bytes are untrusted.
    fn decode(&self, bytes: &[u8]) -> Result<Box<dyn Program>, TargetError>;
}

/// How hard the optimiser tries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Optimization {
    /// Straightforward fusion in one walk, without any search.
    None,
    /// Rewriting and fusion by search, with greedy extraction.
    Greedy,
    /// Rewriting and fusion by search, with exact extraction as far as its limit of states allows.
    #[default]
    Exact,
}

/// A compiled program: fixed schedule, code, cycles.
pub trait Program: Send + Sync {
    /// Names and types of the inputs, in the order of the model.
    fn inputs(&self) -> &[Port];

    /// Names and types of the outputs, in the order of the model.
    fn outputs(&self) -> &[Port];

    /// The binary form, without weights.
    fn encode(&self) -> Vec<u8>;

    /// Size in bytes of what [`Program::write_weights`] writes.
    fn weights_bytes(&self) -> u64;

    /// Writes the weights, packed for the machine. Only for a program that was just compiled with its weights.
    fn write_weights(&self, out: &mut dyn Write) -> io::Result<()>;

    /// The schedule for people and snapshots.
    fn schedule_text(&self) -> String;

    /// Source or assembly files for `code/`, with their paths relative to it.
    fn code(&self) -> Vec<(PathBuf, String)>;

    /// The report. Its cycles are what [`Program::simulate`] counts.
    fn report(&self) -> Report;

    /// What every unit did when.
    fn trace(&self) -> Vec<TraceSpan>;

    /// Executes the program: `weights` is what [`Program::write_weights`] wrote, `inputs` are in the order of
    /// [`Program::inputs`].
    fn simulate(&self, weights: &[u8], inputs: &[Tensor]) -> Result<Simulation, TargetError>;
}

/// A named input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The name in the user's model.
    pub name: String,
    /// Element type and shape.
    pub ty: tcc_ir::TensorType,
}

/// What came out of a simulation.
#[derive(Clone, Debug)]
pub struct Simulation {
    /// The outputs, in the order of [`Program::outputs`].
    pub outputs: Vec<Tensor>,
    /// Cycles from start to the last result in memory.
    pub cycles: u64,
}

/// A stretch of time in which a unit worked on something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceSpan {
    /// The unit.
    pub unit: Cow<'static, str>,
    /// What it did: the kernel's name and the instruction.
    pub name: String,
    /// First cycle.
    pub start: u64,
    /// Number of cycles.
    pub cycles: u64,
}

/// Why a model cannot be compiled for a machine, or a program cannot be run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TargetError {
    /// The machine lacks what the model needs.
    #[error("node `{origin}` cannot run on {machine}: {reason}")]
    Unsupported {
        /// The node of the user's model.
        origin: String,
        /// The machine.
        machine: String,
        /// What is missing and what to do.
        reason: String,
    },
    /// The machine multiplies integers alone, and the model multiplies all its weights as floats.
    #[error(
        "the array of {machine} multiplies only 8-bit integers, but {}; build with --quantize int8, and with --calibrate \
         inputs.npz for better accuracy", of_floats(.products, .origin)
    )]
    Floats {
        /// The machine.
        machine: String,
        /// How many products with weights there are, all of floats.
        products: usize,
        /// The node of the user's model that the first of them comes from.
        origin: String,
    },
    /// Something does not fit into a memory.
    #[error("{what} needs {needed} bytes of {machine}'s {memory}, which has {capacity}; {hint}")]
    DoesNotFit {
        /// What is too large.
        what: String,
        /// The machine.
        machine: String,
        /// The memory.
        memory: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes there are.
        capacity: u64,
        /// What to do.
        hint: String,
    },
    /// A design needs more of what a part is made of than it may take.
    #[error("{what} needs {needed} {resource} of {machine}, which has {capacity} for it; {hint}")]
    TooLarge {
        /// What is too large.
        what: String,
        /// The machine.
        machine: String,
        /// What there is too little of.
        resource: String,
        /// How many are needed.
        needed: u64,
        /// How many there are.
        capacity: u64,
        /// What to do.
        hint: String,
    },
    /// Something fits into a memory by its size, but nowhere as a whole.
    #[error(
        "{what} needs {needed} of the {capacity} bytes of {machine}'s {memory}, but what is free there lies in pieces that \
         are too small; {hint}"
    )]
    Scattered {
        /// What does not fit.
        what: String,
        /// The machine.
        machine: String,
        /// The memory.
        memory: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes there are.
        capacity: u64,
        /// What to do.
        hint: String,
    },
    /// The program file is damaged or from another version.
    #[error("the program is damaged: {0}; build it again")]
    Damaged(String),
    /// The program did something that the machine forbids, or met data it cannot handle.
    #[error("the machine stopped: {0}")]
    Fault(String),
    /// The machine file does not describe a machine.
    #[error(transparent)]
    Machine(#[from] crate::machine::MachineError),
    /// The optimiser failed.
    #[error(transparent)]
    Optimize(#[from] tcc_passes::OptimizeError),
    /// The optimiser's kernels make no plan.
    #[error(transparent)]
    Assemble(#[from] tcc_passes::AssembleError),
    /// A graph operation failed while the model was brought into the machine's terms.
    #[error(transparent)]
    Graph(#[from] tcc_ir::GraphError),
}

fn of_floats(products: &usize, origin: &str) -> String {
    match products {
        1 => format!("the product of `{origin}` multiplies its weights as floats"),
        _ => format!("{products} products of the model multiply their weights as floats, that of `{origin}` first"),
    }
}
